"""What is printed of a contender in a cell: one self-describing object, the same in JSON lines, tables and pages.

The fields are explained in perf/README.md. A figure that nobody has is null. Rows of one cell are compared with each
other: with the best rival library, and with the C floor of our own shape.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .contender import CONTENDERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .floors import FloorResult
    from .matrix import Cell
    from .report import Figure
    from .run import Sample

Row = dict[str, Any]

SPLIT_FLOOR = "c-split"
"""The floor of our own shape: compute and I/O processes joined by rings, in C."""

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}

CURVE_STEPS = 100
"""Points of the latency curve, evenly spread over the fractions; the tail has further ones."""
CURVE_TAIL = (0.995, 0.998, 0.999, 0.9995, 0.9999, 0.99999)

MIB = 1 << 20


def empty_row(cell: Cell, contender: str, *, is_floor: bool) -> Row:
    """What is known before anything has been measured."""
    known = CONTENDERS.get(contender)
    return {
        "workload": cell.work.name,
        "contender": contender,
        "is_ours": known is not None and known.is_ours,
        "is_floor": is_floor,
        "parties": cell.work.parties,
        "sessions": cell.sessions,
        "size": cell.size,
        "parameters": cell.parameters,
        "rtt_ms": cell.link.rtt_ms if cell.link else None,
        "mbit": cell.link.mbit if cell.link else None,
        "security": "none" if known is None else known.security,
        "unit": cell.work.unit,
        "lower_is_better": False,
        "rate": None,
        "samples": [],
        "error": None,
        "is_offered": True,
    }


def failed_row(cell: Cell, contender: str, error: str, *, is_offered: bool = True, is_floor: bool = False) -> Row:
    """A row with a reason instead of figures."""
    return empty_row(cell, contender, is_floor=is_floor) | {"error": error, "is_offered": is_offered}


def measured_row(cell: Cell, contender: str, samples: Sequence[Sample], syscalls: dict[str, float] | None) -> Row:
    """The row of a contender that was visited at least once."""
    work = cell.work
    rate = statistics.median(sample.rate for sample in samples)
    units = sum(sample.units for sample in samples) * work.counted_sessions
    messages = units * work.messages_per_unit
    usages = [usage for sample in samples for usage in sample.usage]
    streams = [sample.stream_mb_s for sample in samples if sample.stream_mb_s is not None]
    voluntary = sum(usage.switches_voluntary for usage in usages) / messages
    involuntary = sum(usage.switches_involuntary for usage in usages) / messages
    return empty_row(cell, contender, is_floor=False) | {
        "rate": rate,
        "samples": [sample.rate for sample in samples],
        "mb_per_s": rate * work.bytes_per_unit / 1e6,
        **latency_fields([latency for sample in samples for latency in sample.latencies_ns]),
        "cpu_us_per_message": sum(usage.cpu_s for usage in usages) * 1e6 / messages,
        "cpu_system_share": share(sum(usage.system_s for usage in usages), sum(usage.cpu_s for usage in usages)),
        "cores_per_party": [
            statistics.median(sample.usage[party].cpu_s / sample.seconds for sample in samples)
            for party in range(work.parties)
        ],
        "context_switches_per_message": voluntary + involuntary,
        "context_switches_voluntary_per_message": voluntary,
        "context_switches_involuntary_per_message": involuntary,
        "syscalls_per_message": None if syscalls is None else sum(syscalls.values()),
        "syscalls_by_name_per_message": syscalls,
        "pss_mib_per_party": statistics.median(sum(sample.pss) / len(sample.pss) / MIB for sample in samples),
        "ready_s": statistics.median(sample.ready_s for sample in samples),
        "stream_mb_per_s": statistics.median(streams) if streams else None,
        "others_cores": max(sample.others_cores for sample in samples),
        "visits": [visit_fields(sample) for sample in samples],
    }


def visit_fields(sample: Sample) -> Row:
    """One visit, whole but for its latencies."""
    return {
        "units": sample.units,
        "seconds": sample.seconds,
        "rate": sample.rate,
        "ready_s": sample.ready_s,
        "usage_by_party": [asdict(usage) for usage in sample.usage],
        "pss_mib_by_party": [size / MIB for size in sample.pss],
        "others_cores": sample.others_cores,
        "load": sample.load,
    }


def floor_row(cell: Cell, name: str, results: Sequence[FloorResult]) -> Row:
    """The row of a floor in C."""
    work = cell.work
    rate = statistics.median(result.rate for result in results)
    messages = sum(result.rate * result.elapsed_s for result in results) * work.messages_per_unit
    cpu_s = sum(sum(result.cpu_s_per_party) for result in results)
    return empty_row(cell, name, is_floor=True) | {
        "rate": rate,
        "samples": [result.rate for result in results],
        "mb_per_s": rate * work.bytes_per_unit / 1e6,
        **latency_fields([latency for result in results for latency in result.latencies_ns]),
        "cpu_us_per_message": cpu_s * 1e6 / messages,
        "cores_per_party": [
            statistics.median(result.cpu_s_per_party[party] / result.elapsed_s for result in results)
            for party in range(work.parties)
        ],
        "context_switches_per_message": sum(result.context_switches for result in results) / messages,
    }


def figure_row(workload: str, figure: Figure) -> Row:
    """The row of a single figure of ours, which nobody else has."""
    return {
        "workload": workload,
        "contender": "partywire",
        "is_ours": True,
        "is_floor": False,
        "parameters": {"figure": figure.name},
        "unit": figure.unit,
        "lower_is_better": figure.lower_is_better,
        "rate": figure.median,
        "samples": list(figure.samples),
        "target": figure.target,
        "met": figure.met,
        "error": None,
        "is_offered": True,
    }


def latency_fields(latencies_ns: Iterable[int]) -> Row:
    """Percentiles and the curve, in microseconds."""
    ordered = sorted(latencies_ns)
    if not ordered:
        return {"latency_us": None, "latency_count": 0, "latency_cdf_us": None}
    fractions = [step / CURVE_STEPS for step in range(1, CURVE_STEPS)]
    # A fraction is only said where at least ten latencies lie beyond it.
    fractions += [fraction for fraction in CURVE_TAIL if round((1 - fraction) * len(ordered)) >= 10]
    percentiles = {name: at_fraction(ordered, fraction) / 1e3 for name, fraction in PERCENTILES.items()}
    return {
        "latency_us": percentiles | {"max": ordered[-1] / 1e3},
        "latency_count": len(ordered),
        "latency_cdf_us": [[at_fraction(ordered, fraction) / 1e3, fraction] for fraction in fractions],
    }


def at_fraction(ordered: Sequence[int], fraction: float) -> int:
    """The least value that this fraction of all does not exceed."""
    rank = -(-round(fraction * len(ordered) * 1_000_000) // 1_000_000)
    return ordered[max(0, min(len(ordered), rank) - 1)]


def share(part: float, whole: float) -> float | None:
    """At most one: the parts are rounded to clock ticks."""
    return min(1.0, part / whole) if whole else None


def compare(rows: Sequence[Row]) -> None:
    """Add to each row of one cell how it stands to the best rival and to the C floor of our shape."""
    rivals = [row for row in rows if row["rate"] and not row["is_ours"] and not row["is_floor"]]
    best = max(rivals, key=lambda row: float(row["rate"]), default=None)
    split = next((row for row in rows if row["contender"] == SPLIT_FLOOR and row["rate"]), None)
    for row in rows:
        rate = row["rate"]
        row["best_rival"] = best["contender"] if best else None
        row["ratio_to_best_rival"] = rate / best["rate"] if rate and best else None
        row["ratio_to_c_split"] = rate / split["rate"] if rate and split else None
