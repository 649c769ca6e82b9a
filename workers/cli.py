"""The `partywire` command: what a person types, and what they read.

Between the shell and the launcher. The one invariant: standard output carries results only (one JSON object with
`--json`), standard error everything else; every mistake of the user ends in one sentence there and a documented exit
code, never a stack trace. PARTYWIRE_DEBUG=1 shows the traces all the same.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from partywire.engine.errors import PartyWireError

from .cli_group import CommandGroup
from .cli_json import json_text
from .exit_code import ExitCode, code_of, sentence_of
from .logs import document as log_document
from .logs import encode_line, wants_json_logs

if TYPE_CHECKING:
    from collections.abc import Sequence

HELP = """Secure multi-party computation over fast sessions.

Several parties compute a result together that none of them could compute alone, and see nothing of each other's data.

\b
Try it, three parties on this host:
  partywire run digits
Then on three hosts, each with its own file and data:
  partywire init alice=10.0.0.1:7001 bob=10.0.0.2:7001 charlie=10.0.0.3:7001 --insecure --out parties
  partywire run digits --config parties/alice.toml      (on alice's host; likewise bob and charlie)
If they do not find each other:
  partywire check parties/alice.toml
What a running party does, and who holds it up:
  partywire stat        (partywire top refreshes)

\b
Exit codes:
  0    the job ended, and its result is right as far as this party can check it
  1    the job failed, at whichever party, or a process of this party died, or the result is wrong
  2    the command line, a configuration or an input file cannot be used
  3    our address is taken, or a peer could not be reached, refused us, was lost or left (also amid a job), or runs
       something else
  130  interrupted by Ctrl-C (press it twice to end at once)

Links are plaintext where every address is on this host, unless the configuration says how to secure them (`partywire
keygen`); anywhere else they have to be secured, or `insecure = true` be said. PARTYWIRE_DEBUG=1 adds the stack trace to
an error.
"""


def installed_version() -> str:
    """The version of the installed distribution."""
    from importlib.metadata import PackageNotFoundError, version  # a tenth of what this module takes to import

    try:
        return version("partywire")
    except PackageNotFoundError:
        return "unknown (not installed)"


def show_version(context: click.Context, _option: click.Parameter, is_asked_for: bool) -> None:
    if is_asked_for and not context.resilient_parsing:
        click.echo(f"partywire {installed_version()}")
        context.exit()


@click.group(
    cls=CommandGroup, help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_version,
    help="Show the version and exit.",
)
def cli() -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: runs the command and exits with its code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code = run(arguments)
    except KeyboardInterrupt:
        code = int(ExitCode.INTERRUPTED)
    gc.freeze()  # nobody needs a last search for garbage
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit code, having said on stderr what went wrong."""
    wants_json = "--json" in arguments
    complain = partial(_complain, wants_json=wants_json, json_logs=wants_json_logs(arguments))
    try:
        outcome: Any = cli.main(list(arguments), prog_name="partywire", standalone_mode=False)
        return int(outcome or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())  # the help itself
        return int(ExitCode.USAGE)
    except click.Abort:
        complain("interrupted", ExitCode.INTERRUPTED, "Interrupted")
        return int(ExitCode.INTERRUPTED)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f" (see '{context.command_path} --help')" if context is not None else ""
        complain(f"{error.format_message().rstrip('.')}{hint}", ExitCode.USAGE, type(error).__name__)
        return int(ExitCode.USAGE)
    except (PartyWireError, OSError) as error:
        complain(sentence_of(error), code_of(error), type(error).__name__)
        if os.environ.get("PARTYWIRE_DEBUG"):
            raise
        return int(code_of(error))


def _complain(sentence: str, code: int, kind: str, *, wants_json: bool, json_logs: bool) -> None:
    """One sentence for the person on stderr, and with --json the same as an object for the machine on stdout."""
    if json_logs:
        line = log_document(time.time(), "error", "ended", sentence, "partywire.run", cause=kind, exit_code=int(code))
        click.echo(encode_line(line), err=True)
    else:
        click.echo(f"partywire: {sentence}", err=True)
    if wants_json:
        document = {"error": {"kind": kind, "message": sentence}, "exit_code": int(code)}
        click.echo(json_text(document))


if __name__ == "__main__":
    main()
