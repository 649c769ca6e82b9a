"""How a measurement is printed: a table for people, JSON lines for machines, and the machine it ran on beside both."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# A load average above this before we start means that others use the cores; the figures then say little.
QUIET_LOAD_MAX = 0.5


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity: its samples, what they are counted in, and the target it is held against."""

    name: str
    unit: str
    samples: tuple[float, ...]
    target: float | None = None
    lower_is_better: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.median <= self.target if self.lower_is_better else self.median >= self.target

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        bound = "<=" if self.lower_is_better else ">="
        return f"{bound} {scaled(self.target)}: {'met' if self.met else 'MISSED'}"


def machine() -> dict[str, object]:
    """What the figures depend on besides the code."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "commit": commit,
        "cpu": next((line.split(":")[1].strip() for line in cpu_info() if line.startswith("model name")), "unknown"),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def cpu_info() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def warn_if_busy() -> None:
    load = os.getloadavg()[0]
    if load > QUIET_LOAD_MAX * (os.cpu_count() or 1):
        print(f"warning: the load average is {load:.1f}; these figures will be poor", file=sys.stderr)


def print_figures(figures: Sequence[Figure], *, json: bool) -> None:
    if json:
        where = machine()
        for figure in figures:
            row = {"name": figure.name, "unit": figure.unit, "median": figure.median, "samples": figure.samples}
            row |= {"target": figure.target, "met": figure.met, "lower_is_better": figure.lower_is_better}
            print(orjson.dumps({**row, **where}).decode(), flush=True)
        return
    print_figure_table(figures)


def print_figure_table(figures: Sequence[Figure]) -> None:
    """Nothing, if there are none."""
    if not figures:
        return
    rows = [
        (
            figure.name,
            f"{scaled(figure.median)} {figure.unit}",
            f"{scaled(min(figure.samples))} .. {scaled(max(figure.samples))}",
            figure.verdict,
        )
        for figure in figures
    ]
    print_table(("figure", "median", "spread", "target"), rows)


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for number, line in enumerate(lines):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), flush=True)
        if number == 0:
            print("  ".join("-" * width for width in widths))


def scaled(value: float) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.3g} {unit}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
