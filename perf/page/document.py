"""The page as a whole: what was measured, on what, why to distrust it, then plots and figures of each workload.

The same rows give the same bytes. Plots show a choice of the cases, the tables all of them.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..report import QUIET_LOAD_MAX
from ..workloads import WORKLOADS
from .looks import Look, looks, marker_shapes
from .markup import Markup, element, joined, text
from .plots import Point, Ranked, latency_plot, line_plot, rank_plot
from .quantities import bytes_size, digits, plural
from .rows import Case, Group, Row, Verdict, group, parse_rows, verdict
from .style import style_sheet
from .tables import case_name, figures_table, key_table, machine_table, scoreboard

if TYPE_CHECKING:
    from pathlib import Path

SPREAD_MAX = 0.3
"""Runs of one row that lie further apart, as a part of their median, are worth a warning."""

CPU_UNIT = "µs of CPU per message, all parties together"

RUNS_MIN = 3
"""Fewer say nothing about the spread."""


def write_page(rows: Iterable[Mapping[str, object]], path: Path) -> None:
    """Write the page of these rows, the objects of the JSON lines, to a file. Raises OSError where that fails."""
    # A lone surrogate, which JSON may bring, is no text that UTF-8 could hold.
    path.write_bytes(render_page(rows).encode("utf-8", "replace"))


def render_page(rows: Iterable[Mapping[str, object]]) -> str:
    """The page as text. No row, whatever it holds, makes it fail."""
    parsed = parse_rows(rows)
    known = looks(parsed)
    groups = group(parsed)
    ids = itertools.count(1)
    body = joined(
        marker_shapes(),
        element(
            "main",
            opening(parsed, groups, known),
            *(
                workload_section(name, list(members), known, ids)
                for name, members in itertools.groupby(groups, key=lambda each: each.workload)
            ),
        ),
    )
    head = joined(
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width,initial-scale=1"),
        element("title", "PartyWire measured"),
        element("style", Markup(style_sheet(known.values()))),
    )
    return "<!doctype html>\n" + element("html", element("head", head), element("body", body), lang="en") + "\n"


# The opening.


def opening(rows: Sequence[Row], groups: Sequence[Group], known: Mapping[str, Look]) -> Markup:
    if not rows:
        return joined(element("h1", "PartyWire measured"), element("p", "No rows: nothing was measured."))
    contenders = len({row.contender for row in rows})
    lead = (
        f"{plural(len({row.workload for row in rows}), 'workload')}, {plural(contenders, 'contender')}, "
        f"{plural(len(rows), 'row')}. Every contender ran the same workloads, each party in processes of its own."
    )
    board = scoreboard(groups, known)
    return joined(
        element("h1", "PartyWire measured"),
        element("p", lead, class_="lead"),
        table_of_contents(groups),
        element("h2", "Before you believe it", id="doubts"),
        doubts(),
        *(element("p", warning, class_="warn") for warning in warnings(rows)),
        machine_table(rows),
        element("h2", "Where we stand", id="standing"),
        element("p", balance(groups)),
        board and element("p", "Rates over that of the best rival: ▲ ahead, ▼ behind, ≈ level: the runs overlap."),
        board,
        element("h2", "Contenders", id="contenders"),
        element("p", "Mark and colour of a contender are the same in every plot. ", "Point at a line to see it alone."),
        key_table(known),
    )


def table_of_contents(groups: Sequence[Group]) -> Markup:
    links = {"doubts": "Before you believe it", "standing": "Where we stand", "contenders": "Contenders"}
    links |= {anchor(each.workload): each.workload for each in groups}
    anchors = [joined(element("a", words, href=f"#{target}"), " ") for target, words in links.items()]
    return element("nav", *anchors, aria_label="Contents")


def balance(groups: Sequence[Group]) -> str:
    """Wins and losses counted, in one sentence."""
    judged = [
        (row, found)
        for each in groups
        for case in each.cases
        for row in case.rows
        if (found := verdict(row, case)) is not None
    ]
    if not judged:
        return "There is no case here with both a row of PartyWire and one of a rival, so nothing is compared."
    sentences = []
    for name in dict.fromkeys(row.contender for row, _ in sorted(judged, key=lambda pair: pair[0].contender)):
        verdicts = [found for row, found in judged if row.contender == name]
        counts = {kind: verdicts.count(kind) for kind in Verdict}
        sentences.append(
            f"{name} is ahead of the best rival in {counts[Verdict.AHEAD]}, level with it in {counts[Verdict.LEVEL]} "
            f"and behind it in {counts[Verdict.BEHIND]} of {plural(len(verdicts), 'case')}."
        )
    return " ".join(sentences) + " The best rival is chosen anew in every case; floors written in C are no rivals."


def doubts() -> Markup:
    reasons = (
        "Compare rows, not digits. Absolute figures belong to the machine below, and the same code on it moved by "
        "tens of percent from one hour to the next.",
        "A rate is the median of its runs. Whiskers and the column of runs reach from the slowest to the fastest; "
        "where they overlap with the best rival's, the row counts as level with it.",
        "All parties share the cores of one host and talk over its loopback, unless a link emulator is named. "
        "Contenders that use more CPU are held back by it here as they would not be on hosts of their own.",
        "Rivals are written the way their documentation advises, by people who know PartyWire better than them.",
        "Latencies are those of a few sampled sessions, from before the send until the answer is there. Their worst "
        "values need more runs than these to be repeatable.",
    )
    return element("ul", *(element("li", reason) for reason in reasons))


def warnings(rows: Sequence[Row]) -> list[str]:
    """What these rows themselves say against the figures."""
    found = []
    busy = [row for row in rows if row.load is not None and row.load > QUIET_LOAD_MAX * (row.cores or 1)]
    if busy:
        worst = max(row.load for row in busy if row.load is not None)
        found.append(
            f"The machine was busy: {len(busy)} of {plural(len(rows), 'row')} started at a load average above "
            f"{digits(QUIET_LOAD_MAX, trim=True)} a core, the highest at {digits(worst)}. "
            "Rows that ran just before count in it too."
        )
    places = {tuple(sorted((name, value) for name, value in row.machine.items() if name != "load")) for row in rows}
    if len(places) > 1:
        found.append(f"The rows come from {len(places)} different machines, commits or versions of Python.")
    measured = [row for row in rows if row.rate is not None]
    few = [row for row in measured if len(row.samples) < RUNS_MIN]
    if few:
        found.append(f"{plural(len(few), 'row')} of {len(measured)} with figures rest on fewer than {RUNS_MIN} runs.")
    wide = [(spread, row) for row in measured if (spread := relative_spread(row)) > SPREAD_MAX]
    if wide:
        spread, row = max(wide, key=lambda pair: pair[0])
        found.append(
            f"In {plural(len(wide), 'row')} the runs lie further apart than {SPREAD_MAX:.0%} of their median; most "
            f"of all for {row.contender} in {row.workload} ({place(sessions=row.sessions, size=row.size)}): "
            f"{spread:.0%}."
        )
    failed = [row for row in rows if row.error]
    if failed:
        names = ", ".join(sorted({row.contender for row in failed}))
        found.append(f"{plural(len(failed), 'row')} failed or were left out ({names}); the tables say why.")
    return found


def relative_spread(row: Row) -> float:
    if len(row.samples) < 2 or row.rate is None:
        return 0.0
    return (max(row.samples) - min(row.samples)) / row.rate


# A workload.


def workload_section(name: str, groups: Sequence[Group], known: Mapping[str, Look], ids: Iterator[int]) -> Markup:
    parts: list[Markup] = [element("h2", name, id=anchor(name))]
    if name in WORKLOADS:
        parts.append(element("p", description(WORKLOADS[name])))
    for each in groups:
        if len(groups) > 1 or str(each.setting):
            parts.append(element("h3", str(each.setting) or "as it is"))
        plots = [plot for plot in group_plots(each, known, ids) if plot is not None]
        if plots:
            parts.append(element("div", *plots, class_="plots"))
        parts.append(figures_table(each, known))
    return element("section", *parts)


def description(workload: type) -> Markup:
    """The workload's own words: the first paragraph of its docstring."""
    paragraph = " ".join((inspect.getdoc(workload) or "").split("\n\n")[0].split())
    pieces = paragraph.split("`")
    return joined(*(element("code", piece) if at % 2 else text(piece) for at, piece in enumerate(pieces)))


def anchor(name: str) -> str:
    """A fragment for a link, from a name of any characters."""
    return "w-" + re.sub(r"[^A-Za-z0-9]", lambda match: f"-{ord(match[0]):x}", name)


def group_plots(each: Group, known: Mapping[str, Look], ids: Iterator[int]) -> Iterator[Markup | None]:
    """Rates over sessions for each size, throughput over size, then latency and CPU of a few cases."""
    unit = each.rows[0].rate_unit
    all_sessions = sorted({case.sessions for case in each.cases if case.sessions})
    all_sizes = sorted({case.size for case in each.cases if case.size})
    by_sessions = f"{capital(unit)} over sessions"
    if len(all_sessions) > 1:
        for size in dict.fromkeys(case.size for case in each.cases):
            cases = [case for case in each.cases if case.size == size]
            series = collect(cases, known, lambda row: row.sessions, rate)
            yield line_plot(by_sessions, place(size=size), "sessions", unit, series, known, whole, ids)
    if len(all_sizes) > 1:
        ends = {*all_sessions[:1], *all_sessions[-1:]}
        for sessions in dict.fromkeys(case.sessions for case in each.cases if not ends or case.sessions in ends):
            cases = [case for case in each.cases if case.sessions == sessions]
            series = collect(cases, known, lambda row: row.size, throughput)
            where = place(sessions=sessions)
            yield line_plot("MB/s over size", where, "message size", "MB/s", series, known, bytes_size, ids)
    if len(each.cases) == 1:
        yield rank_plot(capital(unit), place(case=each.cases[0]), unit, ranked(each.cases[0].rows, rate), known, ids)
    within = f"Latency: share of {each.rows[0].unit}s that took no longer"
    for case in chosen_cases(each, all_sessions, all_sizes):
        curves = {row.contender: row.latency_curve for row in in_order(case.rows, known)}
        yield latency_plot(within, place(case=case), curves, known, ids)
    for case in chosen_cases(each, all_sessions[:1] + all_sessions[-1:], all_sizes):
        lowest_first = sorted(ranked(case.rows, cpu), key=lambda entry: (entry.figure, entry.contender))
        yield rank_plot("CPU per message", place(case=case), CPU_UNIT, lowest_first, known, ids)


def chosen_cases(each: Group, all_sessions: Sequence[float], all_sizes: Sequence[float]) -> list[Case]:
    """Up to four numbers of sessions with the smallest messages; if there is but one, smallest and largest messages."""
    if len(all_sessions) > 1:
        sessions, sizes = few(all_sessions), list(all_sizes[:1])
    else:
        sessions, sizes = list(all_sessions), [*all_sizes[:1], *all_sizes[-1:]]
    return [
        case for case in each.cases if (not sessions or case.sessions in sessions) and (not sizes or case.size in sizes)
    ]


def few(values: Sequence[float]) -> list[float]:
    """At most four of them, the ends among these."""
    last = len(values) - 1
    return list(dict.fromkeys(values[round(last * third / 3)] for third in range(4)))


def whole(value: float) -> str:
    return f"{value:,.0f}"


Measure = Callable[[Row], tuple[float, float, float] | None]


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


def in_order(rows: Iterable[Row], known: Mapping[str, Look]) -> list[Row]:
    place = {name: at for at, name in enumerate(known)}
    return sorted(rows, key=lambda row: place[row.contender])


def place(*, size: float | None = None, sessions: float | None = None, case: Case | None = None) -> str:
    return case_name(case or Case(sessions, size, ()))


def capital(words: str) -> str:
    return words[:1].upper() + words[1:]
