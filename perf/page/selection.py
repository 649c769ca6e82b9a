"""Which plots a group of cases gets, and the points that are in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .plots import Point, Ranked, latency_plot, line_plot, rank_plot
from .quantities import bytes_size
from .rows import Case
from .tables import case_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .looks import Look
    from .markup import Markup
    from .rows import Group, Row

CPU_UNIT = "µs of CPU per message, all parties together"

SINGLE_PLOTS_MAX = 4
"""Cases that share no axis with another and get a plot of their own; further ones are in the table alone."""

Measure = Callable[["Row"], tuple[float, float, float] | None]
"""A figure of a row, and the least and greatest of its runs."""


def group_plots(group: Group, known: Mapping[str, Look], ids: Iterator[int]) -> list[list[Markup]]:
    """Plots of rates, of latencies and of CPU; a list is empty where no row has figures of its kind."""
    chosen = chosen_cases(group)
    kinds = (
        rate_plots(group, known, ids),
        (latencies_of(case, known, ids) for case in chosen),
        (cpu_of(case, known, ids) for case in [*chosen[:1], *chosen[1:][-1:]]),
    )
    return [[plot for plot in plots if plot is not None] for plots in kinds]


def rate_plots(group: Group, known: Mapping[str, Look], ids: Iterator[int]) -> Iterator[Markup | None]:
    """Rates over sessions for each size, throughput over size, and the cases that neither of them has one by one."""
    unit = group.rows[0].rate_unit
    by_size = {size: cases for size in sizes(group) if len(cases := of_size(group, size)) > 1}
    for size, cases in by_size.items():
        series = collect(cases, known, lambda row: row.sessions, rate)
        caption = f"{capital(unit)} over sessions"
        yield line_plot(caption, place(size=size), "sessions", unit, series, known, whole, ids)
    by_sessions = {number: cases for number in sessions(group) if len(cases := of_sessions(group, number)) > 1}
    for number in ends(list(by_sessions)):
        series = collect(by_sessions[number], known, lambda row: row.size, throughput)
        where = place(sessions=number)
        yield line_plot("MB/s over size", where, "message size", "MB/s", series, known, bytes_size, ids)
    alone = [case for case in group.cases if case.size not in by_size and case.sessions not in by_sessions]
    for case in alone[:SINGLE_PLOTS_MAX]:
        yield rank_plot(capital(unit), place(case=case), unit, ranked(case.rows, rate), known, ids)


def latencies_of(case: Case, known: Mapping[str, Look], ids: Iterator[int]) -> Markup | None:
    caption = f"Latency: share of {case.rows[0].unit}s that took no longer"
    return latency_plot(caption, place(case=case), {row.contender: row.latency_curve for row in case.rows}, known, ids)


def cpu_of(case: Case, known: Mapping[str, Look], ids: Iterator[int]) -> Markup | None:
    lowest_first = sorted(ranked(case.rows, cpu), key=lambda entry: (entry.figure, entry.contender))
    return rank_plot("CPU per message", place(case=case), CPU_UNIT, lowest_first, known, ids)


def chosen_cases(group: Group) -> list[Case]:
    """Up to four numbers of sessions with the smallest messages; if there is but one, smallest and largest messages."""
    if len(sessions(group)) > 1:
        smallest = of_size(group, sizes(group)[0])
        last = len(smallest) - 1
        return [smallest[at] for at in dict.fromkeys(round(last * third / 3) for third in range(4))]
    return [*group.cases[:1], *group.cases[1:][-1:]]


def sizes(group: Group) -> list[float | None]:
    return list(dict.fromkeys(case.size for case in group.cases))


def sessions(group: Group) -> list[float | None]:
    return list(dict.fromkeys(case.sessions for case in group.cases))


def of_size(group: Group, size: float | None) -> list[Case]:
    """Ascending by sessions."""
    return [case for case in group.cases if case.size == size]


def of_sessions(group: Group, number: float | None) -> list[Case]:
    """Ascending by size."""
    return [case for case in group.cases if case.sessions == number]


def ends(values: Sequence[float | None]) -> list[float | None]:
    return list(dict.fromkeys([*values[:1], *values[-1:]]))


def rate(row: Row) -> tuple[float, float, float] | None:
    """The median and the ends of the runs."""
    return None if row.rate is None else (row.rate, row.low or row.rate, row.high or row.rate)


def throughput(row: Row) -> tuple[float, float, float] | None:
    """MB/s, and the ends of the runs in the same measure."""
    if row.mb_per_s is None:
        return None
    if row.rate is None or row.lower_is_better:
        return (row.mb_per_s, row.mb_per_s, row.mb_per_s)
    scale = row.mb_per_s / row.rate
    return (row.mb_per_s, (row.low or row.rate) * scale, (row.high or row.rate) * scale)


def cpu(row: Row) -> tuple[float, float, float] | None:
    value = row.cpu_us_per_message
    return None if value is None else (value, value, value)


def collect(
    cases: Iterable[Case], known: Mapping[str, Look], parameter: Callable[[Row], float | None], measure: Measure
) -> dict[str, list[Point]]:
    """The points of each contender's line."""
    series: dict[str, list[Point]] = {name: [] for name in known}
    for case in cases:
        for row in case.rows:
            x, figure = parameter(row), measure(row)
            if x is not None and figure is not None:
                series[row.contender].append(Point(x, *figure))
    return series


def ranked(rows: Iterable[Row], measure: Measure) -> list[Ranked]:
    return [Ranked(row.contender, *figure) for row in rows if (figure := measure(row)) is not None]


def place(*, size: float | None = None, sessions: float | None = None, case: Case | None = None) -> str:
    return case_name(case or Case(sessions, size, ()))


def capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def whole(value: float) -> str:
    return f"{value:,.0f}"
