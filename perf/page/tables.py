"""The tables: who stands where, every figure of every row, what it ran on, and the key of the marks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .looks import Look, swatch
from .markup import Markup, element
from .quantities import NO_FIGURE, SPACE, bytes_size, count, digits, plural, ratio
from .rows import Case, Group, Row, Verdict, advantage, latency_verdict, ratio_to_rival, verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

SIGNS: Final = {Verdict.AHEAD: "▲", Verdict.LEVEL: "≈", Verdict.BEHIND: "▼"}
ERROR_SIZE_MAX: Final = 600


@dataclass(frozen=True, slots=True)
class Column:
    """Of the table of all figures. It is left out where no row has its figure."""

    heading: str
    unit: str
    cell: Callable[[Row, Case], Markup | None]


def plain(value: float | None, write: Callable[[float], str] = digits) -> Markup | None:
    return None if value is None else element("td", write(value))


def rate_cell(row: Row, _: Case) -> Markup | None:
    return plain(row.rate, digits if row.lower_is_better else count)


def spread_cell(row: Row, _: Case) -> Markup | None:
    if row.low is None or row.high is None:
        return None
    write = digits if row.lower_is_better else count
    return element("td", f"{write(row.low)} … {write(row.high)}")


def rival_cell(row: Row, case: Case) -> Markup | None:
    factor = ratio_to_rival(row, case)
    return None if factor is None else ratio_cell(factor, verdict(row, case))


def floor_cell(row: Row, case: Case) -> Markup | None:
    return plain(advantage(row, case.best_floor), ratio)


def p99_cell(row: Row, case: Case) -> Markup | None:
    found = latency_verdict(row, case)
    return None if found is None else ratio_cell(found[0], found[1] if row.is_ours else None)


def ratio_cell(factor: float, judged: Verdict | None) -> Markup:
    """A ratio and what to think of it: sign and word say so besides the colour."""
    if judged is None:
        return element("td", ratio(factor))
    return element("td", f"{SIGNS[judged]} {ratio(factor)}", class_=judged.value, title=judged.value)


def percentile(name: str) -> Callable[[Row, Case], Markup | None]:
    return lambda row, _: plain(row.latency_us.get(name))


COLUMNS: Final = (
    Column("rate", "median", rate_cell),
    Column("runs", "least … greatest", spread_cell),
    Column("rate ratio", "to best rival", rival_cell),
    Column("rate ratio", "to best floor", floor_cell),
    Column("rate ratio", "to split in C", lambda row, _: plain(row.ratio_to_c_split, ratio)),
    Column("p99 ratio", "rival's to this", p99_cell),
    Column("MB/s", "10⁶ bytes", lambda row, _: plain(row.mb_per_s)),
    Column("stream", "MB/s beside", lambda row, _: plain(row.stream_mb_per_s)),
    *(Column(name, "µs", percentile(name)) for name in ("p50", "p90", "p99", "p99.9", "max")),
    Column("CPU", "µs/message", lambda row, _: plain(row.cpu_us_per_message)),
    Column("switches", "per message", lambda row, _: plain(row.context_switches_per_message)),
    Column("system calls", "per message", lambda row, _: plain(row.syscalls_per_message)),
    Column("memory", "MiB PSS/party", lambda row, _: plain(row.pss_mib_per_party)),
    Column("ready", "s", lambda row, _: plain(row.ready_s)),
)


def figures_table(group: Group, known: Mapping[str, Look]) -> Markup:
    """Every row of the group, best first in each case, those that failed last with what they said."""
    columns = [column for column in COLUMNS if any(column.cell(row, case) for case in group.cases for row in case.rows)]
    units = sorted({row.rate_unit for row in group.rows})
    head = element(
        "tr",
        element("th", "contender", scope="col"),
        *(
            element(
                "th",
                f"{', '.join(units)}" if column.heading == "rate" else column.heading,
                element("small", column.unit),
                scope="col",
            )
            for column in columns
        ),
    )
    bodies = []
    for case in group.cases:
        title = element("tr", element("th", case_name(case), colspan=len(columns) + 1, scope="rowgroup"))
        lines = []
        for row in case.rows:
            name = element(
                "th", swatch(known[row.contender]), row.contender, scope="row", class_="ours" if row.is_ours else None
            )
            cells = [column.cell(row, case) or element("td", NO_FIGURE) for column in columns]
            if row.rate is None and row.error:
                cells = [element("td", shortened(row.error), colspan=max(1, len(columns)), class_="error")]
            lines.append(element("tr", name, *cells))
            if row.rate is not None and row.error:
                note = element("td", shortened(row.error), colspan=max(1, len(columns)), class_="error")
                lines.append(element("tr", element("th", ""), note))
        bodies.append(element("tbody", title, *lines, class_="case"))
    return scrolling(element("table", element("thead", head), *bodies), "All figures")


def scoreboard(groups: Sequence[Group], known: Mapping[str, Look]) -> Markup | None:
    """The rate of each of our contenders over that of the best rival, case by case. None without rivals."""
    names = [name for name in known if any(row.is_ours and row.contender == name for g in groups for row in g.rows)]
    bodies = []
    for group in groups:
        lines = [line for case in group.cases if (line := score_line(case, names)) is not None]
        if lines:
            what = element("th", group_name(group), colspan=len(names) + 2, scope="rowgroup")
            bodies.append(element("tbody", element("tr", what), *lines, class_="case"))
    if not bodies:
        return None
    head = element(
        "tr",
        element("th", "case", scope="col"),
        *(element("th", swatch(known[name]), name, scope="col") for name in names),
        element("th", "best rival", scope="col", class_="l"),
    )
    return scrolling(element("table", element("thead", head), *bodies), "Ratios of rates")


def score_line(case: Case, names: Sequence[str]) -> Markup | None:
    rival = case.best_rival
    if rival is None or rival.rate is None:
        return None
    cells = []
    for name in names:
        row = next((row for row in case.rows if row.contender == name), None)
        factor = None if row is None else ratio_to_rival(row, case)
        if row is None:
            cells.append(element("td", NO_FIGURE))
        elif factor is None:
            cells.append(element("td", "no figure", class_=Verdict.BEHIND.value, title=shortened(row.error)))
        else:
            cells.append(ratio_cell(factor, verdict(row, case)))
    rate = digits(rival.rate) if rival.lower_is_better else count(rival.rate)
    best = element("td", f"{rival.contender}, {rate} {rival.rate_unit}", class_="l")
    return element("tr", element("th", case_name(case), scope="row"), *cells, best)


def single_figures(rows: Sequence[Row], summaries: Mapping[str, str]) -> Markup:
    """Measurements of ours that nobody else has, with what they are to reach."""
    head = element(
        "tr",
        element("th", "figure", scope="col"),
        element("th", "median", scope="col"),
        element("th", "runs", element("small", "least … greatest"), scope="col"),
        element("th", "target", scope="col"),
    )
    bodies = []
    for workload in sorted({row.workload for row in rows}):
        title = f"{workload}: {summaries[workload]}" if workload in summaries else workload
        lines = [single_line(row) for row in rows if row.workload == workload]
        bodies.append(
            element("tbody", element("tr", element("th", title, colspan=4, scope="rowgroup")), *lines, class_="case")
        )
    return scrolling(element("table", element("thead", head), *bodies), "Single measurements")


def single_line(row: Row) -> Markup:
    write = digits if row.lower_is_better else count
    name = element("th", row.figure, scope="row")
    if row.rate is None:
        return element("tr", name, element("td", shortened(row.error) or NO_FIGURE, colspan=3, class_="error"))
    spread = f"{write(row.low or row.rate)} … {write(row.high or row.rate)}"
    target = element("td", "")
    if row.target is not None:
        bound = f"{'≤' if row.lower_is_better else '≥'} {write(row.target)}"
        judged = None if row.met is None else Verdict.AHEAD if row.met else Verdict.BEHIND
        word = "" if row.met is None else ", met" if row.met else ", missed"
        target = element("td", bound + word, class_=judged.value if judged else None)
    return element("tr", name, element("td", f"{write(row.rate)} {row.unit}"), element("td", spread), target)


def machine_table(rows: Iterable[Row]) -> Markup | None:
    """What the rows ran on, once for each machine, commit and Python."""
    loads: dict[tuple[str, ...], list[float]] = {}
    amounts: dict[tuple[str, ...], int] = {}
    for row in rows:
        key = tuple(row.machine.get(name, "") for name in MACHINE_FIELDS)
        if any(key):
            amounts[key] = amounts.get(key, 0) + 1
            loads.setdefault(key, []).extend([] if row.load is None else [row.load])
    if not amounts:
        return None
    head = [element("th", name, scope="col") for name in (*MACHINE_FIELDS, "load at the start of rows", "rows")]
    lines = []
    for key in sorted(amounts):
        seen = loads[key]
        load = f"{digits(min(seen))} … {digits(max(seen))}" if seen else NO_FIGURE
        cells = [element("td", value or NO_FIGURE) for value in (*key[1:], load, str(amounts[key]))]
        lines.append(element("tr", element("th", key[0] or NO_FIGURE, scope="row"), *cells))
    return scrolling(element("table", element("thead", element("tr", *head)), element("tbody", *lines)), "Machine")


def key_table(known: Mapping[str, Look]) -> Markup:
    """Every contender with its mark and what it is."""
    lines = [
        element("tr", element("th", swatch(look), name, scope="row", class_=look.colour), element("td", look.summary))
        for name, look in known.items()
    ]
    return element("table", element("tbody", *lines), class_="key")


MACHINE_FIELDS: Final = ("cpu", "cores", "kernel", "python", "commit")
SEPARATOR: Final = ", "


def group_name(group: Group) -> str:
    setting = str(group.setting)
    return f"{group.workload}, {setting}" if setting else group.workload


def case_name(case: Case) -> str:
    parts = [plural(round(case.sessions), "session").replace(" ", SPACE)] if case.sessions else []
    parts += [bytes_size(case.size)] if case.size else []
    return SEPARATOR.join(parts) or "no parameters"


def scrolling(table: Markup, label: str) -> Markup:
    """A wide table scrolls in itself, by keyboard too, and not the page with it."""
    return element("div", table, class_="scroll", tabindex="0", role="region", aria_label=label)


def shortened(message: str) -> str:
    return message if len(message) <= ERROR_SIZE_MAX else message[: ERROR_SIZE_MAX - 1] + "…"
