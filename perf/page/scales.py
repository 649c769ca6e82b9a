"""Scales of the plots: from a figure to a place on the paper, and where an axis has its ticks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .quantities import digits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

TAIL_FRACTION_MAX = 0.999
"""Where the axis of a latency curve ends: few runs have enough messages to say more."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Places figures between `start` and `end` of the paper. `turn` is what makes it linear."""

    low: float
    high: float
    start: float
    end: float
    turn: Callable[[float], float]

    def __call__(self, figure: float) -> float:
        low, high = self.turn(self.low), self.turn(self.high)
        return self.start + (self.turn(figure) - low) / (high - low) * (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale with the figures that it names."""

    scale: Scale
    ticks: tuple[tuple[float, str], ...]


def log_axis(figures: Iterable[float], start: float, end: float, name: Callable[[float], str]) -> Axis:
    """From one step of 1-2-5 below the least figure to one above the greatest, so that no point sits on the frame."""
    known = list(figures)
    low, high = step_below(min(known)), step_above(max(known))
    decades = math.log10(high / low)
    steps: Sequence[int] = (1, 2, 5) if decades <= 2.4 else (1,)
    stride = max(1, math.ceil(decades / 7))
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    at = [
        step * 10.0**power
        for power in range(first, last + 1)
        for step in steps
        if power % stride == 0 and low * 0.999 <= step * 10.0**power <= high * 1.001
    ]
    return Axis(Scale(low, high, start, end, math.log10), tuple((figure, name(figure)) for figure in at))


def step_below(figure: float) -> float:
    """The greatest 1, 2 or 5 times a power of ten that is well below."""
    power = 10.0 ** math.floor(math.log10(figure))
    return max((step * power for step in (0.2, 0.5, 1, 2, 5) if step * power <= figure * 0.95), default=power / 10)


def step_above(figure: float) -> float:
    power = 10.0 ** math.floor(math.log10(figure))
    return min((step * power for step in (1, 2, 5, 10, 20) if step * power >= figure * 1.05), default=power * 20)


def choice_axis(choices: Iterable[float], start: float, end: float, name: Callable[[float], str], gap: float) -> Axis:
    """For a parameter that takes few values: a tick at each of them, logarithmic, labels at least `gap` apart."""
    known = sorted(set(choices))
    if len(known) == 1:
        low, high = known[0] / 2, known[0] * 2
    else:
        low, high = known[0], known[-1]
    scale = Scale(low, high, start, end, math.log10)
    ticks: list[tuple[float, str]] = []
    named_at = -math.inf
    for figure in known:
        place = scale(figure)
        is_room = place - named_at >= gap
        ticks.append((figure, name(figure) if is_room else ""))
        named_at = place if is_room else named_at
    return Axis(scale, tuple(ticks))


def linear_axis(highest: float, start: float, end: float) -> Axis:
    """From zero, with few round ticks."""
    power = 10.0 ** math.floor(math.log10(highest))
    step = next(step * power for step in (0.2, 0.5, 1, 2, 5) if highest / (step * power) <= 5)
    ticks = [(number * step, digits(number * step, trim=True)) for number in range(int(highest / step) + 1)]
    return Axis(Scale(0.0, highest * 1.02, start, end, float), tuple(ticks))


def tail_axis(start: float, end: float) -> Axis:
    """For fractions of messages: each further nine takes as much room as all before the first."""
    scale = Scale(0.0, TAIL_FRACTION_MAX, start, end, lambda fraction: -math.log10(1 - fraction))
    return Axis(scale, ((0.0, "0 %"), (0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %")))


def spread_out(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places as near to the wished ones as a mutual distance of `gap` allows, in the same order, within the bounds."""
    order = sorted(range(len(places)), key=lambda at: places[at])
    gap = min(gap, (high - low) / max(1, len(places) - 1))
    # Neighbours that would overlap become one block, centred on the mean of their wishes.
    blocks: list[list[int]] = []

    def start_of(block: list[int]) -> float:
        wished = sum(places[at] - number * gap for number, at in enumerate(block)) / len(block)
        return min(max(wished, low), high - (len(block) - 1) * gap)

    for at in order:
        blocks.append([at])
        while len(blocks) > 1 and start_of(blocks[-2]) + len(blocks[-2]) * gap > start_of(blocks[-1]) + 1e-9:
            blocks[-2].extend(blocks.pop())
    placed = [0.0] * len(places)
    for block in blocks:
        for number, at in enumerate(block):
            placed[at] = start_of(block) + number * gap
    return placed
