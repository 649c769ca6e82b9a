"""The plots as inline SVG: lines over a parameter, latency curves, and ranks of one figure.

Each returns a `figure` with its caption, a text alternative that says the figures in words, and the name of every
contender beside its line. A plot without a figure to show is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .looks import Look, marker
from .markup import Markup, element, joined, number
from .quantities import count, digits, duration
from .scales import TAIL_FRACTION_MAX, Axis, choice_axis, linear_axis, log_axis, spread_out, tail_axis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

# The paper, in its own units; the page shows it at 0.8 to 1.3 times that size.
WIDTH: Final = 440
HEIGHT: Final = 316
LEFT: Final = 46
RIGHT: Final = 298
TOP: Final = 14
BOTTOM: Final = 272
LABELS_AT: Final = 311
LABEL_GAP: Final = 15.0
# So many names with a note under each fit beside a plot.
NOTES_MAX: Final = 8

RANK_LEFT: Final = 130
RANK_RIGHT: Final = 372
RANK_STEP: Final = 20.0
NAME_SIZE_MAX: Final = 16
# Above this ratio of the figures a linear axis shows nothing but the longest bar.
LINEAR_RATIO_MAX: Final = 25


@dataclass(frozen=True, slots=True)
class Point:
    """One figure of one contender and the least and greatest of its runs."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Ranked:
    """One figure of one contender in a rank."""

    contender: str
    figure: float
    low: float
    high: float


def line_plot(
    caption: str,
    where: str,
    x_name: str,
    y_name: str,
    series: Mapping[str, Sequence[Point]],
    known: Mapping[str, Look],
    name_x: Callable[[float], str],
    ids: Iterator[int],
) -> Markup | None:
    """One line a contender, both axes logarithmic; a whisker from the least to the greatest run at each point."""
    drawn = {name: sorted(points, key=lambda point: point.x) for name, points in series.items() if points}
    points = [point for line in drawn.values() for point in line]
    if not points:
        return None
    x_axis = choice_axis((point.x for point in points), LEFT + 10, RIGHT - 6, name_x, gap=40)
    y_axis = log_axis([end for point in points for end in (point.low, point.high)], BOTTOM, TOP, tick_name)
    x, y = x_axis.scale, y_axis.scale
    lines = []
    for name, line in drawn.items():
        places = [(x(point.x), y(point.y)) for point in line]
        whiskers = "".join(
            f"M{number(x(point.x))} {number(y(point.low))}V{number(y(point.high))}"
            for point in line
            if abs(y(point.low) - y(point.high)) >= 2
        )
        parts = [element("path", d=whiskers, class_="w") if whiskers else None, stroke(places, known[name])]
        parts += [marker(known[name], *place) for place in places]
        lines.append((name, places[-1], joined(*parts)))
    words = "; ".join(
        f"{name}: " + ", ".join(f"{count(point.y)} at {name_x(point.x)}" for point in line)
        for name, line in drawn.items()
    )
    drawing = joined(frame(x_axis, y_axis, x_name), labelled(lines, known))
    return figure(caption, where, f"{y_name} over {x_name}. {words}.", drawing, HEIGHT, ids)


def latency_plot(
    caption: str,
    where: str,
    curves: Mapping[str, Sequence[tuple[float, float]]],
    known: Mapping[str, Look],
    ids: Iterator[int],
) -> Markup | None:
    """Which fraction of the messages came within which time; the fraction's axis gives each nine of the tail its room.

    The names stand in the order of the 99th percentiles, lowest on top, with the percentile under them.
    """
    cut = {name: [point for point in curve if point[1] <= TAIL_FRACTION_MAX] for name, curve in curves.items()}
    drawn = {name: curve for name, curve in cut.items() if len(curve) > 1}
    if not drawn:
        return None
    x_axis = log_axis([at for curve in drawn.values() for at, _ in curve], LEFT, RIGHT, lambda at: duration(at))
    y_axis = tail_axis(BOTTOM, TOP)
    x, y = x_axis.scale, y_axis.scale
    tails = {name: at_fraction(curve, 0.99) for name, curve in drawn.items()}
    lines = []
    for place, name in enumerate(sorted(drawn, key=lambda name: (tails[name], name))):
        places = [(x(at), y(fraction)) for at, fraction in drawn[name]]
        marks = [marker(known[name], x(at_fraction(drawn[name], mark)), y(mark)) for mark in marked(drawn[name])]
        lines.append((name, (LABELS_AT, TOP + place), joined(stroke(places, known[name]), *marks)))
    words = "; ".join(f"{name}: 99 % within {duration(tails[name])}" for name, _, _ in lines)
    notes = {name: f"p99 {duration(tail)}" if len(lines) <= NOTES_MAX else "" for name, tail in tails.items()}
    drawing = joined(frame(x_axis, y_axis, "latency"), labelled(lines, known, notes))
    return figure(caption, where, f"Latency curves. {words}.", drawing, HEIGHT, ids)


def rank_plot(
    caption: str, where: str, unit: str, ranked: Sequence[Ranked], known: Mapping[str, Look], ids: Iterator[int]
) -> Markup | None:
    """One figure of each contender in the order given: bars from zero, or dots on a logarithmic axis where the figures
    lie too far apart for bars.
    """
    if not ranked:
        return None
    bottom = TOP + RANK_STEP * len(ranked) + 4
    ends = [end for entry in ranked for end in (entry.low, entry.high)]
    is_linear = max(ends) / min(ends) <= LINEAR_RATIO_MAX
    axis = (
        linear_axis(max(ends), RANK_LEFT, RANK_RIGHT) if is_linear else log_axis(ends, RANK_LEFT, RANK_RIGHT, tick_name)
    )
    x = axis.scale
    parts = []
    for at, entry in enumerate(ranked):
        y = TOP + RANK_STEP * (at + 0.5)
        look = known[entry.contender]
        end = x(entry.figure)
        shape = (
            element("rect", x=RANK_LEFT, y=y - 6, width=max(end - RANK_LEFT, 1), height=12, class_="bar")
            if is_linear
            else element("path", d=f"M{RANK_LEFT} {number(y)}H{number(end)}", class_="w")
        )
        whisker = f"M{number(x(entry.low))} {number(y)}H{number(x(entry.high))}"
        spread = None if entry.low == entry.high else element("path", d=whisker, class_="r")
        value = element("text", count(entry.figure), x=max(end, x(entry.high)) + 8, y=y + 4, class_="v")
        name = element(
            "text", short(entry.contender), x=RANK_LEFT - (20 if is_linear else 10), y=y + 4, text_anchor="end"
        )
        mark = marker(look, RANK_LEFT - 10, y) if is_linear else marker(look, end, y)
        parts.append(element("g", shape, spread, mark, name, value, class_=f"s {look.colour} {look.key}"))
    ticks = [
        joined(
            element("line", x1=x(at), x2=x(at), y1=TOP, y2=bottom, class_="grid"),
            element("text", label, x=x(at), y=bottom + 16, text_anchor="middle", class_="t"),
        )
        for at, label in axis.ticks
    ]
    words = "; ".join(f"{entry.contender}: {count(entry.figure)}" for entry in ranked)
    unit_text = element("text", unit, x=RANK_RIGHT, y=bottom + 33, text_anchor="end", class_="t")
    drawing = joined(*ticks, *parts, unit_text)
    return figure(caption, where, f"{unit}. {words}.", drawing, bottom + 40, ids)


# Parts of a plot.


def figure(caption: str, where: str, words: str, drawing: Markup, height: float, ids: Iterator[int]) -> Markup:
    identity = f"f{next(ids)}"
    svg = element(
        "svg",
        element("title", f"{caption}, {where}" if where else caption, id=f"{identity}t"),
        element("desc", words, id=f"{identity}d"),
        drawing,
        viewBox=f"0 0 {WIDTH} {number(height)}",
        role="img",
        aria_labelledby=f"{identity}t",
        aria_describedby=f"{identity}d",
    )
    return element("figure", element("figcaption", element("b", caption), element("small", where)), svg)


def frame(x_axis: Axis, y_axis: Axis, x_name: str) -> Markup:
    """Grid lines and the names of ticks; no box."""
    parts: list[Markup] = []
    for at, label in y_axis.ticks:
        y = y_axis.scale(at)
        parts.append(element("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="grid"))
        parts.append(element("text", label, x=LEFT - 6, y=y + 4, text_anchor="end", class_="t"))
    for at, label in x_axis.ticks:
        x = x_axis.scale(at)
        parts.append(element("line", x1=x, x2=x, y1=BOTTOM, y2=BOTTOM + 4, class_="grid"))
        if label:
            parts.append(element("text", label, x=x, y=BOTTOM + 18, text_anchor="middle", class_="t"))
    parts.append(element("text", x_name, x=RIGHT, y=BOTTOM + 36, text_anchor="end", class_="t"))
    return joined(*parts)


def labelled(
    lines: Sequence[tuple[str, tuple[float, float], Markup]],
    known: Mapping[str, Look],
    notes: Mapping[str, str] | None = None,
) -> Markup:
    """Every line with its name at the right, next to where it ends, ours drawn last and so on top.

    With notes the names are a list beside the plot, in the order of their places, with its note under each.
    """
    gap = LABEL_GAP * (2.1 if notes and any(notes.values()) else 1.1)
    heights = spread_out([end[1] for _, end, _ in lines], gap, TOP + 4, BOTTOM - 8)
    parts = []
    for (name, end, drawing), y in zip(lines, heights, strict=True):
        look = known[name]
        leader = f"M{number(end[0] + 5)} {number(end[1])}L{LABELS_AT - 8} {number(y)}"
        label = joined(
            None if notes else element("path", d=leader, class_="leader"),
            marker(look, LABELS_AT, y),
            element("text", short(name), x=LABELS_AT + 9, y=y + 4),
            element("text", notes[name], x=LABELS_AT + 9, y=y + 17, class_="t") if notes and notes[name] else None,
        )
        part = element("g", label, drawing, class_=f"s {look.colour} {look.key}")
        parts.append((look.colour == "ours", part))
    return joined(*(part for _, part in sorted(parts, key=lambda part: part[0])))


def stroke(places: Sequence[tuple[float, float]], look: Look) -> Markup | None:
    if len(places) < 2:
        return None
    path = "L".join(f"{number(x)} {number(y)}" for x, y in places)
    return element("path", d=f"M{path}", stroke_dasharray=look.dash)


def short(name: str) -> str:
    """A name that fits beside a plot; the tables have it whole."""
    return name if len(name) <= NAME_SIZE_MAX else name[: NAME_SIZE_MAX - 1] + "…"


def tick_name(value: float) -> str:
    return count(value, trim=True) if value >= 1000 else digits(value, trim=True)


def at_fraction(curve: Sequence[tuple[float, float]], fraction: float) -> float:
    """The time within which that fraction came, between the two nearest points."""
    before = curve[0]
    for point in curve:
        if point[1] >= fraction:
            span = point[1] - before[1]
            return point[0] if span <= 0 else before[0] + (point[0] - before[0]) * (fraction - before[1]) / span
        before = point
    return before[0]


def marked(curve: Sequence[tuple[float, float]]) -> list[float]:
    """Where a curve bears its marker: the median and the p99, if it reaches so far."""
    return [fraction for fraction in (0.5, 0.99) if curve[0][1] <= fraction <= curve[-1][1]]
