"""`partywire run JOB`: the jobs as subcommands, each with the options of its own and those of every run.

Between the command line and the launcher: makes the orders, shows the events, prints the result. Nothing here imports
numpy or the code of a job beyond its description, unless a local result has to be checked.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from partywire.engine import limits

from .cli_json import json_text
from .cli_options import log_options, refuse_security_with_config, retry_options, retrying, security_option
from .config import load_config
from .exit_code import ExitCode, UsageMistake
from .jobs import JOBS, UnknownJob, load_job
from .launcher import Launcher, Order, primary_failure
from .local import make_local_parties
from .log_lines import LogLines
from .progress import ProgressDisplay, RunState
from .run_event import Failed, Finished
from .run_report import print_report, report_document
from .security import links_text

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from .jobs import Job, JobOption
    from .run_event import RunEvent

HELP = """Run a job together with the other parties.

Without --config all parties run on this host (--local), as separate process families that share nothing but the
loopback interface: the way to try a job. With --config this is one party of several; start the others likewise, each
with its own file and data, in any order.

\b
Examples:
  partywire run digits                                   three parties here, the built-in data
  partywire run digits --probes 20 --json                shorter, result as JSON
  partywire run digits --config alice.toml               one party of three
  partywire run sum --local 5 --security tls             five parties here, links secured by TLS
  partywire run my_package.my_module:MyJob --local 3     a job of your own (a subclass of partywire's Job)

`partywire run JOB --help` lists the options of a job.
"""

_TYPES: dict[str, click.ParamType[Any]] = {
    "path": click.Path(dir_okay=False),
    "int": click.INT,
    "float": click.FLOAT,
    "text": click.STRING,
}


class JobGroup(click.Group):
    """`run`, with a subcommand for every job by name, and for any "module:Class"."""

    def __init__(self) -> None:
        super().__init__("run", help=HELP, subcommand_metavar="JOB [OPTIONS]", no_args_is_help=True)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(JOBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # a module beside the user, as with `python -m`
        try:
            return job_command(cmd_name, load_job(cmd_name))
        except UnknownJob as error:
            raise UsageMistake(str(error)) from error
        except ImportError as error:
            raise UsageMistake(f"the job {cmd_name} cannot be imported: {error}") from error


def job_command(name: str, job: type[Job]) -> click.Command:
    """The subcommand of one job."""
    options = [job_option(option) for option in job.options]

    def callback(**values: Any) -> int:
        own = {option.name: values.pop(parameter_name(option)) for option in job.options}
        return run_job(name, job, {key: value for key, value in own.items() if value is not None}, **values)

    return click.Command(
        name,
        callback=callback,
        params=[*options, *run_options(job)],
        short_help=job.summary,
        help=f"{job.summary}\n\nFor {job.counts_text()} parties. The exit codes are those of `partywire --help`.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def parameter_name(option: JobOption) -> str:
    return f"job_{option.name.replace('-', '_')}"


def job_option(option: JobOption) -> click.Option:
    """An option of a job. Its own checks, and its default, are the job's: they hold for every way to run it."""
    default = "" if option.default is None else f"  [default: {option.default}]"
    equal = "  [same at all parties]" if option.shared else ""
    return click.Option(
        [f"--{option.name.replace('_', '-')}", parameter_name(option)],
        type=_TYPES[option.kind],
        help=f"{option.help}{default}{equal}",
    )


def run_options(job: type[Job]) -> list[click.Parameter]:
    """The options of every run."""
    return [
        click.Option(
            ["--local"],
            type=click.IntRange(limits.PARTIES_MIN, limits.PARTIES_MAX),
            metavar="N",
            help=f"Run all N parties on this host.  [default: {job.parties}, unless --config is given]",
        ),
        click.Option(
            ["--config"],
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Run one party: the one that this configuration belongs to (see `partywire init`).",
        ),
        click.Option(
            ["--workers"],
            type=click.IntRange(1, 16),
            metavar="W",
            help="Compute processes of each party run here.  [default: 1, or as the configuration says]",
        ),
        click.Option(
            ["--sessions"],
            type=click.IntRange(1, 4096),
            metavar="S",
            default=8,
            show_default=True,
            help="Sessions per worker that run jobs at the same time; the same at all parties.",
        ),
        security_option(),
        *retry_options(),
        click.Option(["--json", "as_json"], is_flag=True, help="Print the result as one JSON object."),
        click.Option(["--quiet"], is_flag=True, help="Show no progress."),
        *log_options(),
    ]


def run_job(
    name: str,
    job: type[Job],
    options: Mapping[str, object],
    *,
    local: int | None,
    config: Path | None,
    workers: int | None,
    sessions: int,
    security: str | None,
    retries: int | None,
    no_retry: bool,
    retry_timeout: float,
    as_json: bool,
    quiet: bool,
    log_format: str,
    log_level: str | None,
) -> int:
    """Run a job as one party, or as all of them, to its end; returns the exit code."""
    began_s = process_start_s()
    if config is not None and local is not None:
        raise UsageMistake("--local and --config exclude each other: either all parties run here, or one does")
    if config is not None:
        refuse_security_with_config(security)
    retry = (retrying(retries, no_retry), retry_timeout)
    orders: list[tuple[Order, socket.socket | None]]
    if config is not None:
        party = load_config(config)
        order = Order(party.name, party, name, dict(options), sessions, workers, log_format, log_level, *retry)
        return launch(name, job, [(order, None)], None, began_s, as_json, quiet)
    count = job.parties if local is None else local
    if count not in job.counts():
        raise UsageMistake(f"{job.name} is a job for {job.counts_text()} parties, not {count}; leave --local out")
    with make_local_parties(count, workers or 1, security or "none") as parties:
        orders = [
            (Order(party.name, party, name, dict(options), sessions, None, log_format, log_level, *retry), listener)
            for party, listener in zip(parties.configs, parties.listeners, strict=True)
        ]
        return launch(name, job, orders, options, began_s, as_json, quiet)


def launch(
    name: str,
    job: type[Job],
    orders: list[tuple[Order, socket.socket | None]],
    all_options: Mapping[str, object] | None,
    began_s: float,
    as_json: bool,
    quiet: bool,
) -> int:
    """Start the party processes, show their progress, print the outcome. `all_options`: of a local run."""
    state = RunState(name, tuple(order.party for order, _ in orders), began_s)
    first = orders[0][0]
    lines = LogLines(name, first.log_level) if first.log_format == "json" else None
    display = ProgressDisplay(state, quiet=quiet or lines is not None)

    def on_event(event: RunEvent) -> None:
        state.apply(event)
        display.update()
        if lines is not None:
            lines.event(event)

    def on_output(party: str, line: str) -> None:
        if lines is None:
            display.print(f"{party} | {line}")
        else:
            lines.output(party, line)

    def on_tick() -> None:
        display.update()
        if lines is not None:
            lines.tick()

    launcher = Launcher(on_event, on_output, on_tick)
    try:
        for order, listener in orders:
            launcher.start(order, listener)
            if listener is not None:
                listener.close()  # the party has its own descriptor; ours would keep a dead party's address alive
        outcomes = launcher.run()
    finally:
        launcher.close()
        display.close()
    failed = primary_failure(outcomes)
    if failed is not None:
        return report_failure(failed, outcomes, launcher.interrupted, as_json, lines)
    finished = [outcome for outcome in outcomes if isinstance(outcome, Finished)]
    checked = merged_check([*(end.checked for end in finished), launcher_check(job, all_options, finished)])
    document = report_document(state, finished, checked, links_text(first.config))
    if as_json:
        click.echo(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY).decode())
    else:
        print_report(document, finished)
    if checked is False:
        sentence = "the result differs from the plaintext answer; please report this"
        if lines is not None:
            lines.ended(sentence, ExitCode.JOB)
        else:
            click.echo(f"partywire: {sentence}", err=True)
        return ExitCode.JOB
    if lines is not None:
        lines.ended(f"{name} ended well", ExitCode.OK)
    return ExitCode.OK


def launcher_check(job: type[Job], all_options: Mapping[str, object] | None, finished: list[Finished]) -> bool | None:
    """What only the launcher of a local run can do: it was given the options, and so the data, of all parties."""
    if all_options is None or any(end.checked is not None for end in finished):
        return None
    return merged_check([job.check(all_options, end.result) for end in finished])


def merged_check(checks: list[bool | None]) -> bool | None:
    """False if anybody found a difference, True if somebody could compare and nobody did, None if nobody could."""
    known = [check for check in checks if check is not None]
    return all(known) if known else None


def report_failure(
    failed: Failed, outcomes: list[Finished | Failed], interrupted: bool, as_json: bool, lines: LogLines | None = None
) -> int:
    """One sentence on stderr: what happened and where."""
    local = len(outcomes) > 1
    if interrupted:
        failed_code, sentence = int(ExitCode.INTERRUPTED), "interrupted; all parties were told and have ended"
    else:
        failed_code = failed.exit_code
        sentence = f"{failed.party}: {failed.sentence}" if local else failed.sentence
    if lines is not None:
        lines.ended(sentence, failed_code)
    else:
        click.echo(f"partywire: {sentence}", err=True)
    if lines is None and failed.trace and (os.environ.get("PARTYWIRE_DEBUG") or failed.kind == "PartyDied"):
        click.echo(failed.trace.rstrip(), err=True)
    if as_json:
        parties = {
            outcome.party: {"kind": outcome.kind, "message": outcome.sentence, "exit_code": outcome.exit_code}
            for outcome in outcomes
            if isinstance(outcome, Failed)
        }
        error = {"kind": failed.kind, "message": sentence, "party": failed.party}
        click.echo(json_text({"error": error, "exit_code": failed_code, "parties": parties}))
    return failed_code


def process_start_s() -> float:
    """When this process was started, on CLOCK_MONOTONIC: a user waits for the interpreter's own start too."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot
    except (OSError, ValueError, IndexError):
        age = 0.0
    return time.monotonic() - max(0.0, age)
