"""`partywire stat`: the figures of running parties of this user on this host, once.

Between the command line and the stat reader. The one invariant: standard output carries the figures in the format that
was asked for and nothing else; a party is never asked for anything but its figures.
"""

from __future__ import annotations

import select
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import click
import orjson

from .exit_code import ExitCode, UsageMistake
from .metrics import prometheus_text
from .stat_reader import PartyEnded, StatReader, StatUnavailable, running_parties
from .stat_table import duration_text, party_lines
from .stat_view import SCHEMA, party_view

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .stat_reader import PartySnapshot
    from .stat_view import PartyView

INTERVAL_S: Final = 1.0
INTERVAL_MIN_S: Final = 0.5
INTERVAL_MAX_S: Final = 3600.0
FIRST_ANSWER_S: Final = 1.0
"""For the processes' first figures; one that computes for longer is shown with dashes."""

HELP = """Show the figures of a running party: rates, ring depths, who holds up whom, heartbeats, processes.

PARTY is a party's name, or the pid of the process that opened it or of its supervisor. Without PARTY: the only one that
runs; of several a list, or with --json and --format prometheus all of them. Reading slows nobody.

What each figure means, and what to do when it is bad: docs/operations.md.
"""


@click.command("stat", help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("parties", metavar="[PARTY]...", nargs=-1)
@click.option("--all", "show_all", is_flag=True, help="Show every party that runs.")
@click.option(
    "--interval",
    type=click.FloatRange(0, INTERVAL_MAX_S),
    default=INTERVAL_S,
    show_default=True,
    metavar="S",
    help="Take the rates over so many seconds; 0 shows no rates and answers at once.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "json", "prometheus"]),
    default="text",
    show_default=True,
    help="prometheus: the text exposition format 0.0.4.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def stat_command(parties: tuple[str, ...], show_all: bool, interval: float, format_: str, as_json: bool) -> int:
    format_ = "json" if as_json else format_
    with ExitStack() as stack:
        readers = attach(stack, parties)
        if len(readers) > 1 and not parties and not show_all and format_ == "text":
            click.echo("\n".join(list_lines(readers)))
            return ExitCode.OK
        for reader in readers:
            reader.watch()
        snapshots = [reader.read_fresh(FIRST_ANSWER_S) for reader in readers]
        if format_ == "prometheus":
            click.echo(prometheus_text(snapshots), nl=False)
            return ExitCode.OK
        views = [party_view(snapshot) for snapshot in snapshots]
        if interval:
            pause(readers, max(interval, INTERVAL_MIN_S))
            views = later_views(readers, snapshots)
    if format_ == "json":
        click.echo(views_json(views))
    else:
        click.echo("\n\n".join("\n".join(party_lines(view)) for view in views))
    return ExitCode.OK


def views_json(views: Sequence[PartyView]) -> str:
    """The documented object; see docs/operations.md."""
    return orjson.dumps({"schema": SCHEMA, "parties": [view.as_dict() for view in views]}).decode()


def later_views(readers: Sequence[StatReader], before: Sequence[PartySnapshot]) -> list[PartyView]:
    """What the parties look like now, with rates since `before`; without those that have ended meanwhile.

    Raises:
        PartyEnded: all have.
    """
    views = []
    ended: PartyEnded | None = None
    for reader, snapshot in zip(readers, before, strict=True):
        try:
            views.append(party_view(reader.read(), snapshot))
        except PartyEnded as error:
            ended = error
    if ended is not None and not views:
        raise ended
    return views


def pause(readers: Sequence[StatReader], seconds: float) -> None:
    """Wait, or until a party has something to say: that it ended, most often."""
    poller = select.poll()
    for reader in readers:
        poller.register(reader, select.POLLIN)
    poller.poll(seconds * 1000)


def attach(stack: ExitStack, wanted: Sequence[str]) -> list[StatReader]:
    """Readers of the parties that were named, or of all that run, that do not watch yet; the stack closes them.

    Raises:
        StatUnavailable: none runs.
        UsageMistake: one that was named does not run, or the name is that of several.
    """
    readers: list[StatReader] = []
    unanswered: StatUnavailable | None = None
    for running in running_parties():
        try:
            readers.append(stack.enter_context(StatReader(running, watch=False)))
        except StatUnavailable as error:
            unanswered = error  # it ends, or is another version; the others may be those that were meant
    if not readers:
        raise unanswered or StatUnavailable("no party of this user runs on this host (in this network namespace)")
    if not wanted:
        return sorted(readers, key=lambda reader: (reader.party, reader.pid))
    return [named(readers, name) for name in dict.fromkeys(wanted)]


def named(readers: Sequence[StatReader], name: str) -> StatReader:
    """The one party of that name or pid."""
    found = [reader for reader in readers if name in (reader.party, str(reader.pid), str(reader.opener_pid))]
    if len(found) == 1:
        return found[0]
    if not found:
        running = ", ".join(sorted({reader.party for reader in readers}))
        raise UsageMistake(f"no party {name} of this user runs on this host; running: {running}")
    pids = ", ".join(str(reader.pid) for reader in found)
    raise UsageMistake(f"several parties are named {name}; name one by the pid of its supervisor: {pids}")


def list_lines(readers: Sequence[StatReader]) -> list[str]:
    """The parties that run, for who has to choose one."""
    lines = [f"{len(readers)} parties of this user run here; show one with `partywire stat PARTY`, or all with --all:"]
    for reader in readers:
        up = f"{reader.links_up} of {len(reader.parties) - 1} links up"
        since = duration_text(max(0.0, time.time() - reader.started_ns / 1e9))
        lines.append(f"  {reader.party}  pid {reader.opener_pid}, supervisor {reader.pid}, {up}, for {since}")
    return lines
