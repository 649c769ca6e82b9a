"""`partywire perf`: what a person types, and what they read.

Results go to stdout or into files, everything else to stderr.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from .contender import CONTENDERS
from .figures import MEASUREMENTS, MeasurementFailed, figure_of, take
from .matrix import cells, parse_size
from .measure import FLOOR_NAMES, Plan, chosen, measure, present
from .party_set import Link
from .report import QUIET_LOAD_MAX, machine, print_figure_table
from .tables import busy_warning, print_rows
from .workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .rows import Row

FAILED, INTERRUPTED = 1, 130
"""Exit codes, the same as those of `partywire run`."""

INSTALL_HINT = "pip install 'partywire[perf]' brings all libraries but torch, which gloo needs"

HELP = """Measure PartyWire beside what a user would pick instead, on this machine.

Each contender plays the same workload in processes of its own, several times, and they take turns. The table shows
medians with their spread, the ratio to the best rival library of the same cell, and the ratio to the same shape written
in C. Rates count a round once for all parties, summed over sessions. Compare rows of one run, never figures of two
machines; you are told when the machine was busy.

\b
Examples:
  partywire perf                                      the usual cells and contenders, under three minutes
  partywire perf ring --sessions 1,64 --sizes 64,64K  rounds in four cells
  partywire perf ring --contenders all --repeats 5    against every library that is installed
  partywire perf oneway pingpong --contenders partywire,pyzmq
  partywire perf ring --rtt-ms 10 --mbit 100          over an emulated link
  partywire perf all --json rows.jsonl --html perf.html
  partywire perf --list                               workloads, contenders, and which are missing

\b
WORKLOADs:
{workloads}

perf/README.md explains the fields of a JSON line.
"""


def workload_lines() -> str:
    """For the help: each name with one line."""
    first_lines = {name: (kind.__doc__ or "").strip().split("\n")[0] for name, kind in WORKLOADS.items()}
    lines = first_lines | {name: one.summary for name, one in MEASUREMENTS.items()} | {"all": "all of these"}
    return "\n".join(f"  {name:9} {line}" for name, line in lines.items())


def numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> list[int]:
    """`1,8,64`."""
    try:
        found = [int(part) for part in value.split(",")] if value else []
    except ValueError as error:
        raise click.BadParameter(f"{value} is not a list of numbers such as 1,8,64") from error
    if any(number < 1 for number in found):
        raise click.BadParameter("at least one session is needed")
    return found


def sizes(context: click.Context, parameter: click.Parameter, value: str | None) -> list[int]:
    """`64,4K,1M`."""
    try:
        return [parse_size(part) for part in value.split(",")] if value else []
    except ValueError as error:
        raise click.BadParameter(f"{value} is not a list of sizes such as 64,4K,1M") from error


@click.command(
    "perf",
    help=HELP.format(workloads=workload_lines()),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.argument("workloads", nargs=-1, metavar="[WORKLOAD]...")
@click.option("--sessions", callback=numbers, metavar="N,...", help="Numbers of sessions.")
@click.option("--sizes", callback=sizes, metavar="BYTES,...", help="Sizes of a message, such as 64,4K,1M.")
@click.option(
    "--contenders",
    default="usual",
    show_default=True,
    metavar="NAME,...",
    help="Who takes part: names, or usual, all, ours, rivals, floors.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.001, 600),
    default=0.5,
    show_default=True,
    help="About how long one play takes.",
)
@click.option("--repeats", type=click.IntRange(1, 100), default=3, show_default=True, help="Plays of each contender.")
@click.option("--json", "json_path", metavar="FILE", help="JSON lines into FILE, or with - instead of the table.")
@click.option("--html", "html_path", metavar="FILE", type=click.Path(dir_okay=False), help="A page with plots.")
@click.option("--rtt-ms", type=click.FloatRange(0, 10_000), help="Emulate links with this round trip.")
@click.option("--mbit", type=click.FloatRange(0.1, 1e6), help="Emulate links with this rate, in Mbit/s.")
@click.option("--syscalls", is_flag=True, help="Count system calls too, in a play of their own.")
@click.option("--smoke", is_flag=True, help="Everything, tiny: does it run at all? The figures mean nothing.")
@click.option("--list", "only_list", is_flag=True, help="Show workloads and contenders, and end.")
def perf_command(
    workloads: tuple[str, ...],
    sessions: list[int],
    sizes: list[int],
    contenders: str,
    seconds: float,
    repeats: int,
    json_path: str | None,
    html_path: str | None,
    rtt_ms: float | None,
    mbit: float | None,
    syscalls: bool,
    smoke: bool,
    only_list: bool,
) -> int:
    if only_list:
        print_lists()
        return 0
    try:
        names = chosen(contenders)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--contenders") from error
    matrix, figures = split_names(workloads, is_smoke=smoke)
    names, missing = present(names)
    if missing:
        tell(f"not installed, left out: {', '.join(missing)} ({INSTALL_HINT})")
    link = Link(rtt_ms or 0.0, mbit) if rtt_ms or mbit else None
    chosen_cells = cells(matrix, sessions, sizes, link, is_smoke=smoke) if matrix is not None else []
    if smoke:
        seconds, repeats = 0.02, 1
    else:
        warn_of_load()
    began = time.monotonic()
    if link is not None:
        names = [name for name in names if name not in FLOOR_NAMES]  # they know no emulated links
    rows, code = run(Plan(chosen_cells, names, seconds, repeats, syscalls), figures, is_smoke=smoke)
    tell(f"took {time.monotonic() - began:.0f} s")
    publish(rows, json_path, html_path)
    if not smoke and (warning := busy_warning(rows)):
        tell(warning)
    return code


def split_names(workloads: Sequence[str], *, is_smoke: bool) -> tuple[list[str] | None, list[str]]:
    """The workloads of the matrix (none of them: None; the usual cells: empty), and the single measurements.

    Raises:
        click.BadParameter: a name is unknown.
    """
    for name in workloads:
        if name not in WORKLOADS and name not in MEASUREMENTS and name != "all":
            known = ", ".join([*WORKLOADS, *MEASUREMENTS, "all"])
            raise click.BadParameter(f"there is no workload {name}; there are {known}", param_hint="WORKLOAD")
    if "all" in workloads or (is_smoke and not workloads):
        return list(WORKLOADS), list(MEASUREMENTS)
    if not workloads:
        return [], []
    return [name for name in workloads if name in WORKLOADS] or None, [
        name for name in workloads if name in MEASUREMENTS
    ]


def run(plan: Plan, figures: Sequence[str], *, is_smoke: bool) -> tuple[list[Row], int]:
    """Everything, one after the other, and the exit code.

    What fails is told of, and the rest goes on; what was measured before an interruption counts.
    """
    where = machine()
    rows: list[Row] = []
    code = 0
    try:
        for found in measure(plan, tell):
            rows += [row | {"seconds": plan.seconds, "machine": where} for row in found]
        for name in figures:
            tell(name)
            try:
                rows += take(name, is_smoke=is_smoke)
            except MeasurementFailed as failed:
                tell(str(failed))
                code = FAILED
    except KeyboardInterrupt:
        tell("interrupted; here is what was measured by then")
        return rows, INTERRUPTED
    if any(row["error"] is not None and row["is_offered"] for row in rows):
        code = FAILED
    return rows, code


def publish(rows: Sequence[Row], json_path: str | None, html_path: str | None) -> None:
    """Into files, or for a person to read."""
    if json_path is not None:
        lines = b"".join(orjson.dumps(row) + b"\n" for row in rows)
        if json_path == "-":
            sys.stdout.buffer.write(lines)
            sys.stdout.flush()
        else:
            Path(json_path).write_bytes(lines)
    if html_path is not None:
        from .page import write_page

        write_page(list(rows), Path(html_path))
        tell(f"wrote {html_path}")
    if json_path != "-":
        print_rows([row for row in rows if row["workload"] in WORKLOADS])
        print_figure_table([figure_of(row) for row in rows if row["workload"] in MEASUREMENTS])


def print_lists() -> None:
    """Workloads and contenders, for --list."""
    click.echo("workloads:")
    click.echo(workload_lines())
    click.echo("contenders:")
    for name, contender in CONTENDERS.items():
        missing = contender.missing()
        note = f"  (not installed: {', '.join(missing)})" if missing else ""
        click.echo(f"  {name:16} {contender.summary}{note}")
    for name in FLOOR_NAMES:
        click.echo(f"  {name:16} floor in C, compiled on the spot")
    click.echo(INSTALL_HINT)


def warn_of_load() -> None:
    """Before anything of ours raises it."""
    load = os.getloadavg()[0]
    if load > QUIET_LOAD_MAX * (os.cpu_count() or 1):
        tell(f"warning: the load average is {load:.1f}; these figures will be poor")


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> Any:
    """For `python -m partywire.perf`."""
    return perf_command.main(list(sys.argv[1:] if arguments is None else arguments), prog_name="partywire perf")
