"""The page as a whole: what was measured, on what, why to distrust it, then plots and figures of each workload.

The same rows give the same bytes. Plots show a choice of the cases, the tables all of them.
"""

from __future__ import annotations

import inspect
import itertools
import re
from typing import TYPE_CHECKING

from ..figures import MEASUREMENTS
from ..measure import OTHERS_CORES_MAX
from ..report import QUIET_LOAD_MAX
from ..workloads import WORKLOADS
from .looks import Look, looks, marker_shapes
from .markup import Markup, element, joined, text
from .quantities import digits, plural
from .rows import Group, Row, Verdict, group, parse_rows, verdict
from .selection import group_plots, place
from .style import style_sheet
from .tables import figures_table, key_table, machine_table, scoreboard, single_figures

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

SPREAD_MAX = 0.3
"""Runs of one row that lie further apart, as a part of their median, are worth a warning."""

SINGLES = "Single measurements"

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
    singles = [row for row in parsed if row.figure]
    groups = group(row for row in parsed if not row.figure)
    ids = itertools.count(1)
    body = joined(
        marker_shapes(),
        element(
            "main",
            opening(parsed, groups, known, has_singles=bool(singles)),
            *(
                workload_section(name, list(members), known, ids)
                for name, members in itertools.groupby(groups, key=lambda each: each.workload)
            ),
            singles_section(singles) if singles else None,
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


def opening(rows: Sequence[Row], groups: Sequence[Group], known: Mapping[str, Look], *, has_singles: bool) -> Markup:
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
        table_of_contents(groups, has_singles=has_singles),
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


def table_of_contents(groups: Sequence[Group], *, has_singles: bool) -> Markup:
    links = {"doubts": "Before you believe it", "standing": "Where we stand", "contenders": "Contenders"}
    links |= {anchor(each.workload): each.workload for each in groups}
    links |= {"singles": SINGLES} if has_singles else {}
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
        "Latencies are those of a few sampled sessions, from before the send until the message that was waited for is "
        "there. In rounds around a ring it often is there already, so their low percentiles are no travel times: "
        "compare the high ones, or ping-pong. Worst values need more runs than these to be repeatable.",
    )
    return element("ul", *(element("li", reason) for reason in reasons))


def warnings(rows: Sequence[Row]) -> list[str]:
    """What these rows themselves say against the figures."""
    found = []
    busy = [row for row in rows if (row.others_cores or 0) > OTHERS_CORES_MAX]
    if busy:
        worst = max(row.others_cores or 0 for row in busy)
        found.append(
            f"The machine was busy: beside {len(busy)} of {plural(len(rows), 'row')} other processes used more than "
            f"{digits(OTHERS_CORES_MAX, trim=True)} cores, at most {digits(worst)}."
        )
    loaded = [row.load for row in rows if row.load is not None and row.load > QUIET_LOAD_MAX * (row.cores or 1)]
    if loaded:
        found.append(
            f"The load average was {digits(max(loaded))} before {len(loaded)} of {plural(len(rows), 'row')}, which is "
            f"above {digits(QUIET_LOAD_MAX, trim=True)} a core."
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


# Parts for workloads.


def singles_section(rows: Sequence[Row]) -> Markup:
    summaries = {name: measurement.summary for name, measurement in MEASUREMENTS.items()}
    words = "Measurements of PartyWire that no rival has a counterpart to, held against what they are to reach."
    heading = element("h2", SINGLES, id="singles")
    return element("section", heading, element("p", words), single_figures(rows, summaries))


def workload_section(name: str, groups: Sequence[Group], known: Mapping[str, Look], ids: Iterator[int]) -> Markup:
    parts: list[Markup] = [element("h2", name, id=anchor(name))]
    if name in WORKLOADS:
        parts.append(element("p", description(WORKLOADS[name])))
    for each in groups:
        if len(groups) > 1 or str(each.setting):
            parts.append(element("h3", str(each.setting) or "as it is"))
        parts += [element("div", *plots, class_="plots") for plots in group_plots(each, known, ids) if plots]
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
