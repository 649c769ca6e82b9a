"""`partywire top`: the figures of running parties, again and again.

Between the command line and the stat reader, in the shapes of `stat`. The one invariant: Ctrl-C, the end of the parties
and a reader of our output that leaves all end it in good order, with the terminal as it was.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from .cli_stat import (
    FIRST_ANSWER_S,
    INTERVAL_MAX_S,
    INTERVAL_MIN_S,
    INTERVAL_S,
    attach,
    list_lines,
    pause,
    views_json,
)
from .exit_code import ExitCode, UsageMistake
from .stat_reader import PartyEnded
from .stat_table import party_lines, plain_lines
from .stat_view import party_view

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .stat_reader import PartySnapshot, StatReader
    from .stat_view import PartyView

HELP = """Watch the figures of a running party until it ends, or until Ctrl-C.

PARTY as for `partywire stat`. On a terminal the tables of `stat`, refreshed in place; elsewhere a line for each link
and interval, or with --json one object a line.
"""


@click.command("top", help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("parties", metavar="[PARTY]...", nargs=-1)
@click.option("--all", "show_all", is_flag=True, help="Watch every party that runs.")
@click.option(
    "--interval",
    type=click.FloatRange(INTERVAL_MIN_S, INTERVAL_MAX_S),
    default=INTERVAL_S,
    show_default=True,
    metavar="S",
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Look once, with rates over one interval.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, as of `partywire stat --json`.")
def top_command(parties: tuple[str, ...], show_all: bool, interval: float, once: bool, as_json: bool) -> int:
    with ExitStack() as stack:
        readers = attach(stack, parties)
        if len(readers) > 1 and not parties and not show_all:
            raise UsageMistake("\n".join(list_lines(readers)).replace("stat PARTY", "top PARTY"))
        for reader in readers:
            reader.watch()
        is_live = sys.stdout.isatty() and not once and not as_json
        screen = stack.enter_context(LiveScreen()) if is_live else LineScreen(as_json, once)
        try:
            watch(readers, interval, once, screen)
        except KeyboardInterrupt:
            pass  # the way to leave
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more to flush at exit
    return ExitCode.OK


def watch(readers: list[StatReader], interval_s: float, once: bool, screen: LiveScreen | LineScreen) -> None:
    """Show the parties until all have ended, or once."""
    before: dict[StatReader, PartySnapshot] = {}
    for reader in readers:
        before[reader] = reader.read_fresh(FIRST_ANSWER_S)
    while before:
        pause(list(before), interval_s)
        views = []
        for reader, snapshot in list(before.items()):
            try:
                before[reader] = reader.read()
            except PartyEnded as error:
                del before[reader]
                screen.say(str(error))
                continue
            views.append(party_view(before[reader], snapshot))
        if views:
            screen.show(views)
        if once:
            return


class LineScreen:
    """Standard output that is no terminal, or shall not be drawn on."""

    def __init__(self, as_json: bool, whole: bool) -> None:
        """`whole`: the tables and not a line for each link."""
        self._as_json = as_json
        self._lines = party_lines if whole else plain_lines

    def show(self, views: Sequence[PartyView]) -> None:
        if self._as_json:
            print(views_json(views), flush=True)
            return
        for view in views:
            print("\n".join(self._lines(view)), flush=True)

    def say(self, sentence: str) -> None:
        click.echo(f"partywire: {sentence}", err=True)


class LiveScreen:
    """A terminal, drawn in place."""

    def __init__(self) -> None:
        self._live: Any = None
        self._said: list[str] = []

    def __enter__(self) -> LiveScreen:
        from rich.live import Live  # only here: its import takes as long as a whole `stat`

        self._live = Live(auto_refresh=False, transient=False, vertical_overflow="crop")
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, views: Sequence[PartyView]) -> None:
        from rich.text import Text

        text = Text("\n\n".join("\n".join(party_lines(view)) for view in views), no_wrap=True, overflow="ellipsis")
        text.highlight_regex(r"(?m)^! .*$", "bold red")
        text.highlight_regex(r"(?m)^  (link|worker|process)  .*$", "bold")
        self._live.update(text, refresh=True)

    def say(self, sentence: str) -> None:
        self._live.console.print(f"partywire: {sentence}", markup=False, highlight=False)
