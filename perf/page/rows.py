"""The rows of a measurement as the page sees them, and how they compare.

Input are the objects that `partywire perf` prints as JSON lines. Any field may be missing, null or of a wrong type, and
is then a figure that nobody has: nothing here raises on what a row holds.

A case is what contenders are compared in: workload, setting, sessions, size. A rival is a contender that is neither
ours nor a floor.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from ..contender import CONTENDERS
from ..workloads import WORKLOADS
from .quantities import digits

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
"""Names of the latencies in a row and the fraction of messages that are at most as late; `max` stands beside them."""


P99_NOISE = 0.05
"""Percentiles nearer than that count as level. Arbitrary: rows hold one p99 of all runs together, and so no spread."""


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """What is the same for all rows of one group of plots, besides the workload."""

    parties: float | None
    rtt_ms: float | None
    mbit: float | None
    security: str
    parameters: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        words = [f"{digits(self.parties, trim=True)} parties"] if self.parties else []
        words += [f"{digits(self.rtt_ms, trim=True)} ms round trip added"] if self.rtt_ms else []
        words += [f"{digits(self.mbit, trim=True)} Mbit/s"] if self.mbit else []
        words += [self.security] if self.security else []
        words += [f"{name} = {value}" for name, value in self.parameters]
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class Row:
    """One contender in one case. None is a figure that the row does not have."""

    workload: str
    setting: Setting
    sessions: float | None
    size: float | None
    contender: str
    is_ours: bool
    is_floor: bool
    unit: str
    lower_is_better: bool
    rate: float | None
    samples: tuple[float, ...]
    mb_per_s: float | None
    latency_us: Mapping[str, float]
    latency_curve: tuple[tuple[float, float], ...]
    """(microseconds, fraction of messages not later than that), both ascending; percentiles included."""
    cpu_us_per_message: float | None
    context_switches_per_message: float | None
    syscalls_per_message: float | None
    pss_mib_per_party: float | None
    ready_s: float | None
    stream_mb_per_s: float | None
    ratio_to_c_split: float | None
    figure: str
    """What it is, in a row that is a single measurement of ours and belongs to no case; empty in all others."""
    target: float | None
    met: bool | None
    given_ratio: float | None
    error: str
    machine: Mapping[str, str]
    load: float | None
    cores: float | None
    others_cores: float | None
    """Cores that processes outside the measurement used meanwhile."""

    @property
    def is_rival(self) -> bool:
        return not (self.is_ours or self.is_floor)

    @property
    def low(self) -> float | None:
        return min(self.samples, default=self.rate)

    @property
    def high(self) -> float | None:
        return max(self.samples, default=self.rate)

    @property
    def rate_unit(self) -> str:
        return self.unit if self.lower_is_better or self.figure else f"{self.unit}s/s"


@dataclass(frozen=True, slots=True)
class Case:
    """All rows that may be compared with each other, best first, those without a rate last."""

    sessions: float | None
    size: float | None
    rows: tuple[Row, ...]

    @property
    def best_rival(self) -> Row | None:
        return next((row for row in self.rows if row.is_rival and row.rate), None)

    @property
    def best_floor(self) -> Row | None:
        return next((row for row in self.rows if row.is_floor and row.rate), None)

    @property
    def best_rival_p99(self) -> float | None:
        found = (row.latency_us.get("p99") for row in self.rows if row.is_rival)
        return min((latency for latency in found if latency is not None), default=None)


@dataclass(frozen=True, slots=True)
class Group:
    """One workload in one setting."""

    workload: str
    setting: Setting
    cases: tuple[Case, ...]

    @property
    def rows(self) -> list[Row]:
        return [row for case in self.cases for row in case.rows]


class Verdict(Enum):
    """What a row says against the best rival of its case."""

    AHEAD = "ahead"
    LEVEL = "level"
    """The slowest run of the better one is no better than the best run of the other: within the noise."""
    BEHIND = "behind"


def parse_rows(objects: Iterable[Mapping[str, object]]) -> list[Row]:
    return [parse_row(fields) for fields in objects]


def parse_row(fields: Mapping[str, object]) -> Row:
    contender = words(fields.get("contender")) or "unnamed"
    known = CONTENDERS.get(contender)
    samples = tuple(value for item in items(fields.get("samples")) if (value := positive(item)) is not None)
    rate = positive(fields.get("rate"))
    if rate is None and samples:
        rate = statistics.median(samples)
    latency = {
        name: value
        for name in (*PERCENTILES, "max")
        if (value := positive(mapping(fields.get("latency_us")).get(name))) is not None
    }
    machine = mapping(fields.get("machine"))
    parameters = {str(name): words(value) for name, value in mapping(fields.get("parameters")).items()}
    figure = parameters.pop("figure", "")
    security = words(fields.get("security"))
    met = fields.get("met")
    return Row(
        workload=words(fields.get("workload")) or "unnamed",
        setting=Setting(
            parties=positive(fields.get("parties")),
            rtt_ms=positive(fields.get("rtt_ms")),
            mbit=positive(fields.get("mbit")),
            security="" if security == "none" else security,
            parameters=tuple(sorted(parameters.items())),
        ),
        sessions=positive(fields.get("sessions")),
        size=positive(fields.get("size")),
        contender=contender,
        is_ours=flag(fields.get("is_ours"), known is not None and known.is_ours),
        is_floor=flag(fields.get("is_floor"), False),
        unit=words(fields.get("unit")) or "unit",
        lower_is_better=flag(fields.get("lower_is_better"), False),
        rate=rate,
        samples=samples,
        mb_per_s=positive(fields.get("mb_per_s")),
        latency_us=latency,
        latency_curve=latency_curve(fields.get("latency_cdf_us"), latency),
        cpu_us_per_message=positive(fields.get("cpu_us_per_message")),
        context_switches_per_message=positive(fields.get("context_switches_per_message"), zero=True),
        syscalls_per_message=positive(fields.get("syscalls_per_message"), zero=True),
        pss_mib_per_party=positive(fields.get("pss_mib_per_party")),
        ready_s=positive(fields.get("ready_s")),
        stream_mb_per_s=positive(fields.get("stream_mb_per_s")),
        ratio_to_c_split=positive(fields.get("ratio_to_c_split")),
        figure=figure,
        target=positive(fields.get("target"), zero=True),
        met=met if isinstance(met, bool) else None,
        given_ratio=positive(fields.get("ratio_to_best_rival")),
        error=words(fields.get("error")),
        machine={str(name): words(value) for name, value in machine.items()},
        load=positive(machine.get("load"), zero=True),
        cores=positive(machine.get("cores")),
        others_cores=positive(fields.get("others_cores"), zero=True),
    )


def latency_curve(points: object, latency: Mapping[str, float]) -> tuple[tuple[float, float], ...]:
    """The curve's points and the percentiles together: the latter reach further into the tail."""
    found = {(latency[name], fraction) for name, fraction in PERCENTILES.items() if name in latency}
    for point in items(points):
        pair = items(point)
        if len(pair) == 2 and (at := positive(pair[0])) is not None:
            fraction = positive(pair[1], zero=True)
            if fraction is not None and fraction <= 1:
                found.add((at, fraction))
    curve: list[tuple[float, float]] = []
    for at, fraction in sorted(found):
        if not curve or fraction > curve[-1][1]:
            curve.append((at, fraction))
    return tuple(curve)


# Reading fields of which nothing is known.


def positive(value: object, *, zero: bool = False) -> float | None:
    """A number above zero (or zero), which is all that a figure can be; anything else is no figure."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        figure = float(value)
    except OverflowError:
        return None
    return figure if math.isfinite(figure) and (figure > 0 or (zero and figure == 0)) else None


def words(value: object) -> str:
    """As text; a float as people write it."""
    if value is None:
        return ""
    if isinstance(value, float) and math.isfinite(value):
        return digits(value, trim=True)
    return str(value)


def flag(value: object, default: bool) -> bool:
    return value if isinstance(value, bool) else default


def items(value: object) -> Sequence[object]:
    return value if isinstance(value, (list, tuple)) else ()


def mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


# Grouping and comparing.


def group(rows: Iterable[Row]) -> list[Group]:
    """Workloads in the order of WORKLOADS, then others by name; within them settings, sizes and sessions ascending."""
    by_group: dict[tuple[str, Setting], dict[tuple[float, float], list[Row]]] = {}
    for row in rows:
        cases = by_group.setdefault((row.workload, row.setting), {})
        cases.setdefault((row.size or 0, row.sessions or 0), []).append(row)
    order = {name: at for at, name in enumerate(WORKLOADS)}

    def place(key: tuple[str, Setting]) -> tuple[object, ...]:
        workload, setting = key
        return (
            order.get(workload, len(order)), workload, setting.rtt_ms or 0, setting.mbit or math.inf,
            setting.parties or 0, setting.security, setting.parameters,
        )  # fmt: skip

    return [
        Group(
            workload,
            setting,
            tuple(
                Case(sessions or None, size or None, tuple(sorted(members, key=rank)))
                for (size, sessions), members in sorted(by_group[workload, setting].items())
            ),
        )
        for workload, setting in sorted(by_group, key=place)
    ]


def rank(row: Row) -> tuple[bool, float, str, str]:
    rate = row.rate or 0.0
    return (row.rate is None, rate if row.lower_is_better else -rate, row.contender, row.error)


def advantage(row: Row, other: Row | None) -> float | None:
    """How many times as good as the other row; above 1 is better whichever way the figure counts."""
    if other is None or row.rate is None or other.rate is None:
        return None
    return other.rate / row.rate if row.lower_is_better else row.rate / other.rate


def latency_verdict(row: Row, case: Case) -> tuple[float, Verdict] | None:
    """How the best rival's p99 stands to this row's, above 1 where ours is lower."""
    best, own = case.best_rival_p99, row.latency_us.get("p99")
    if best is None or own is None:
        return None
    factor = best / own
    if abs(factor - 1) <= P99_NOISE:
        return factor, Verdict.LEVEL
    return factor, Verdict.AHEAD if factor > 1 else Verdict.BEHIND


def ratio_to_rival(row: Row, case: Case) -> float | None:
    """The harness's figure where the row has it, so that page and JSON lines agree."""
    return row.given_ratio if row.given_ratio is not None else advantage(row, case.best_rival)


def verdict(row: Row, case: Case) -> Verdict | None:
    """None without a rival to be compared with."""
    rival = case.best_rival
    factor = ratio_to_rival(row, case)
    if rival is None or factor is None or not row.is_ours:
        return None
    overlap = (
        len(row.samples) > 1
        and len(rival.samples) > 1
        and min(row.samples) <= max(rival.samples)
        and min(rival.samples) <= max(row.samples)
    )
    if overlap or factor == 1:
        return Verdict.LEVEL
    return Verdict.AHEAD if factor > 1 else Verdict.BEHIND
