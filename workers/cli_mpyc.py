"""`partywire mpyc`: an MPyC program over PartyWire, as it is.

Between the shell and `adapters/mpyc_program.py`. The one invariant: everything behind PROGRAM is the program's and
MPyC's, and what they do with it is theirs.
"""

from __future__ import annotations

import os
import sys

import click

from partywire.engine.errors import PartyWireError

from .adapters.mpyc_config import CONNECT_S_MAX, CONNECT_S_MIN, INBOX_MIB, INBOX_MIB_MAX, MpycSettings
from .adapters.mpyc_program import run_to_end
from .exit_code import ExitCode, code_of, sentence_of

HELP = """Run an MPyC program whose messages go over PartyWire.

The program is not changed. All options behind PROGRAM are its own and MPyC's (-M, -I, -P, -C, -B, -T, --ssl ...). Every
party of a computation must be run like this. A party that is lost ends the program with an error that names it.

\b
Examples:
  partywire mpyc secretsanta.py -M3 8                         three parties on this host
  partywire mpyc secretsanta.py -P :11365 -P 10.0.0.2:11365 -P 10.0.0.3:11365 --ssl 8
                                                              party 0 of three; MPyC's certificates in .config
  partywire mpyc aes.py -1 -M3 --output-file                  output of parties 1 and 2 in party3_1.log, party3_2.log

MPyC itself is not a part of this package: pip install 'partywire[mpyc]'.
"""


@click.command(
    "mpyc",
    help=HELP,
    short_help="Run an MPyC program, as it is, over PartyWire.",
    context_settings={
        "help_option_names": ["-h", "--help"],
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "max_content_width": 110,
    },
)
@click.option("--insecure", is_flag=True, help="Allow plaintext links to other hosts (MPyC without --ssl).")
@click.option("--connect-s", type=click.FloatRange(CONNECT_S_MIN, CONNECT_S_MAX), metavar="SECONDS",
              help="How long to wait for the others. Default: 60 if MPyC starts all parties, else 600.")  # fmt: skip
@click.option("--inbox-mib", type=click.IntRange(1, INBOX_MIB_MAX), default=INBOX_MIB, show_default=True,
              help="MiB of messages that may come before the program asks for them.")  # fmt: skip
@click.option("--io", type=click.Choice(["in-process", "processes"]),
              help="Who serves the links: the program's own process (default where all parties are on this host), "
              "or processes beside it.")  # fmt: skip
@click.argument("program", metavar="PROGRAM")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGUMENTS]...")
def mpyc_command(
    insecure: bool,
    connect_s: float | None,
    inbox_mib: int,
    io: str | None,
    program: str,
    arguments: tuple[str, ...],
) -> int:
    return run_to_end(program, arguments, MpycSettings(insecure, connect_s, inbox_mib, io))


def main() -> None:
    """`python -m partywire.workers.adapters.mpyc`: the same command, without the others and what they import."""
    try:
        code = mpyc_command.main(prog_name="python -m partywire.workers.adapters.mpyc", standalone_mode=False)
    except (click.ClickException, PartyWireError) as error:
        sentence = error.format_message() if isinstance(error, click.ClickException) else sentence_of(error)
        click.echo(f"partywire: {sentence}", err=True)
        if os.environ.get("PARTYWIRE_DEBUG"):
            raise
        code = int(ExitCode.USAGE if isinstance(error, click.ClickException) else code_of(error))
    except (KeyboardInterrupt, click.Abort):
        code = int(ExitCode.INTERRUPTED)
    sys.exit(code)
