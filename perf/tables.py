"""Rows as a person reads them: one table for each workload, the fastest of a cell first, rows that we lose included."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from .matrix import size_text
from .measure import OTHERS_CORES_MAX
from .report import print_table, scaled

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .rows import Row

HEADER = (
    "sessions", "size", "contender", "rate", "spread", "/ best rival", "/ c-split", "p50", "p99", "p99.9",
    "CPU/msg", "switches/msg", "syscalls/msg", "memory/party", "ready", "others' cores",
)  # fmt: skip


def print_rows(rows: Sequence[Row]) -> None:
    """Print everything; figures of single measurements of ours last."""
    for workload, members in groupby(rows, key=lambda row: str(row["workload"])):
        print_workload(workload, list(members))


def print_workload(workload: str, rows: list[Row]) -> None:
    """One table, headed by what its rate counts."""
    print(f"\n{workload}: {rows[0]['unit']}s per second, summed over sessions")
    lines = []
    for _, cell in groupby(rows, key=cell_key):
        ranked = sorted(cell, key=lambda row: -(row["rate"] or 0.0))
        lines += [line_of(row, is_first=number == 0) for number, row in enumerate(ranked) if row["error"] is None]
    kept = [column for column in range(len(HEADER)) if any(line[column] for line in lines)]
    print_table([HEADER[column] for column in kept], [[line[column] for column in kept] for line in lines])
    for row in rows:
        if row["error"] is not None and row["is_offered"]:
            print(f"  {row['contender']}, {cell_text(row)}: {row['error']}")
    left_out = list(dict.fromkeys(row["contender"] for row in rows if not row["is_offered"]))
    if left_out:
        print(f"  not offered by {', '.join(left_out)}")


def cell_key(row: Row) -> tuple[str, ...]:
    return tuple(str(row.get(name)) for name in ("sessions", "size", "parameters", "rtt_ms", "mbit"))


def cell_text(row: Row) -> str:
    """The cell in words, for a line of its own."""
    size = "" if row["size"] is None else f" x {size_text(row['size'])}"
    return f"{row['sessions']}{size}{parameters_text(row)}"


def parameters_text(row: Row) -> str:
    return "".join(f" {name}={value}" for name, value in row["parameters"].items())


def line_of(row: Row, *, is_first: bool) -> tuple[str, ...]:
    """One line; the cell is named in its first one only."""
    latency = row.get("latency_us") or {}
    size = "" if row["size"] is None else size_text(row["size"])
    rate = f"{scaled(row['rate'])}/s"
    if row.get("mb_per_s") and (row["size"] or 0) >= 4096:
        rate += f" {scaled(row['mb_per_s'])}MB/s"
    if row.get("stream_mb_per_s"):
        rate += f" + {scaled(row['stream_mb_per_s'])}MB/s"
    return (
        f"{row['sessions']}{parameters_text(row)}" if is_first else "",
        size if is_first else "",
        row["contender"],
        rate,
        f"{scaled(min(row['samples']))} .. {scaled(max(row['samples']))}",
        ratio(row.get("ratio_to_best_rival")),
        ratio(row.get("ratio_to_c_split")),
        micros(latency.get("p50")),
        micros(latency.get("p99")),
        micros(latency.get("p99.9")),
        micros(row.get("cpu_us_per_message")),
        some("{:.3f}", row.get("context_switches_per_message")),
        some("{:.3f}", row.get("syscalls_per_message")),
        some("{:.0f} MiB", row.get("pss_mib_per_party")),
        some("{:.2f} s", row.get("ready_s")),
        some("{:.1f}", row["others_cores"]) if is_doubtful(row) else "",
    )


def some(form: str, value: float | None) -> str:
    return "" if value is None else form.format(value)


def ratio(value: float | None) -> str:
    return some("{:.2f} x", value)


def micros(value: float | None) -> str:
    """Three digits, in microseconds or milliseconds."""
    if value is None:
        return ""
    return f"{value / 1e3:.3g} ms" if value >= 1e3 else f"{value:.3g} us"


def is_doubtful(row: Row) -> bool:
    """Whether somebody else used the machine during the row's plays."""
    return (row.get("others_cores") or 0.0) > OTHERS_CORES_MAX


def busy_warning(rows: Iterable[Row]) -> str:
    """What to say of a machine that was busy; empty if it was quiet."""
    doubtful = [row["others_cores"] for row in rows if is_doubtful(row)]
    if not doubtful:
        return ""
    return (
        f"warning: others kept up to {max(doubtful):.1f} cores busy while {len(doubtful)} of these rows were measured; "
        "they say little"
    )
