"""`partywire serve`: a party that stays up and takes jobs over HTTP.

Between the command line and serve_main. Nothing here imports numpy or starts anything but what is served.
"""

from __future__ import annotations

import dataclasses
import os
import select
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from partywire.engine import limits
from partywire.engine.addresses import format_address, is_loopback

from .cli_options import log_options, refuse_security_with_config, retry_options, retrying, security_option
from .config import load_config
from .exit_code import ExitCode, UsageMistake
from .http_config import HttpConfig
from .http_listener import open_http_listener
from .jobs import JOBS, load_job
from .local import make_local_parties
from .serve_jobs import ServeSettings, jobs_of, refusal_of
from .serve_main import ServeOrder, run_reported, say, start_serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from .config import PartyConfig

HELP = """Run a party as a service: it stays up, takes jobs over HTTP, and runs them with the other parties.

With --config this is one party; start the others likewise, each with its own file. What it serves stands in the file:

\b
  [http]
  listen = "127.0.0.1:8080"      # or "unix:/run/partywire/alice"
  jobs = ["digits"]              # what may be run here, whoever asks
  token_file = "alice.token"     # optional: requests need it (chmod 600)
  handlers = "my_module:app"     # optional: routes of your own
  [http.options.digits]          # this party's own data; no client can name files
  gallery = "gallery.npy"
  labels = "labels.npy"

With --local N all parties run here, party i at the port of --listen + i, with every job for N parties.

\b
Try it:
  partywire serve --local 3
  curl -X POST localhost:8081/jobs -H 'Content-Type: application/json' \\
       -d '{"job": "digits", "options": {"probes": 20}}'
  curl localhost:8080/jobs                    the same job, seen by another party
  curl localhost:8080/openapi.json            everything that can be asked

Ctrl-C or SIGTERM ends it in good order. There is no TLS: by default only this host can connect. docs/http.md has the
routes, limits and errors.
"""

SESSIONS_DEFAULT = 8
"""As `partywire run` has it."""

END_GRACE_S = 15.0
"""From the signal until a party of a local run is killed: answers, goodbyes and the end of its processes take less."""


@click.command("serve", help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Serve one party: the one that this configuration belongs to.",
)
@click.option(
    "--local",
    type=click.IntRange(limits.PARTIES_MIN, limits.PARTIES_MAX),
    metavar="N",
    help="Serve all N parties on this host.",
)
@click.option(
    "--listen",
    default=None,
    metavar="HOST:PORT",
    help="Where party 0 of a local run serves HTTP, or a multiaddress; port 0 lets the kernel choose all.  "
    "[default: 127.0.0.1:8080]",
)
@click.option(
    "--jobs",
    default=None,
    metavar="NAME,...",
    help="Jobs of a local run, names or module:Class.  [default: all that are for N parties]",
)
@click.option("--handlers", default=None, metavar="MODULE:NAME", help="Routes of your own, for a local run.")
@click.option(
    "--sessions",
    type=click.IntRange(1, 4096),
    metavar="S",
    default=SESSIONS_DEFAULT,
    show_default=True,
    help="Sessions per worker that run a job; the same at all parties.",
)
def serve_command(
    config: Path | None,
    local: int | None,
    listen: str | None,
    jobs: str | None,
    handlers: str | None,
    sessions: int,
    security: str | None,
    retries: int | None,
    no_retry: bool,
    retry_timeout: float,
    log_format: str,
    log_level: str | None,
) -> int:
    settings = ServeSettings(sessions, retrying(retries, no_retry), retry_timeout)
    make_order = partial(ServeOrder, settings=settings, log_format=log_format, log_level=log_level)
    if (config is None) == (local is None):
        raise UsageMistake("serve needs either --config FILE or --local N; try `partywire serve --local 3`")
    if config is None:
        assert local is not None
        return serve_local(local, listen or "127.0.0.1:8080", jobs, handlers, security or "none", make_order)
    refuse_security_with_config(security)
    if listen is not None or jobs is not None or handlers is not None:
        raise UsageMistake("--listen, --jobs and --handlers are for --local; a configuration says them in [http]")
    return serve_one(make_order(load_config(config)))


serve_command.params += [security_option(), *retry_options(), *log_options()]


def serve_one(order: ServeOrder) -> int:
    """Serve one party in this process."""
    from partywire.shm import fence

    from .worker_main import hold_blas_to_one_thread

    fence.register()
    hold_blas_to_one_thread()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return run_reported(order, None, None, say)


def serve_local(
    count: int,
    listen: str,
    jobs: str | None,
    handlers: str | None,
    security: str,
    make_order: Callable[[PartyConfig], ServeOrder],
) -> int:
    """Serve all parties, each in a process of its own, until a signal or the first of them ends."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    names = (
        tuple(jobs.split(","))
        if jobs
        else tuple(name for name in sorted(JOBS) if refusal_of(load_job(name), count) is None)
    )
    first = HttpConfig(listen=listen, jobs=names, handlers=handlers or "")
    if first.unix_path is not None or not is_loopback(first.address[0]):
        raise UsageMistake("--listen of a local run is host:port, or /ip4/HOST/tcp/PORT, on this host")
    host, port = first.address
    processes: list[tuple[int, int]] = []
    with make_local_parties(count, security=security) as parties:
        jobs_of(parties.configs[0], first)  # one sentence here instead of one from each party
        fronts: list[Any] = []
        try:
            for index, party in enumerate(parties.configs):
                one = dataclasses.replace(first, listen=format_address((host, port and port + index)))
                fronts.append(open_http_listener(party.name, one))
                order = make_order(dataclasses.replace(party, http=one))
                processes.append(start_serving(order, parties.listeners[index], fronts[-1]))
        except BaseException:
            for pid, pidfd in processes:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                os.close(pidfd)
            raise
        finally:
            for front in fronts:
                front.close()
            for listener in parties.listeners:
                listener.close()  # ours would keep a dead party's address alive
        return watch(processes)  # the keys that secure the links end behind it


def watch(processes: list[tuple[int, int]]) -> int:
    """Wait for all to end; the first end, or a signal, ends them all. The worst exit code."""
    stopping = False
    signals = passed_on = 0

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal signals
        signals += 1

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    before = signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    poller = select.poll()
    poller.register(wake_read, select.POLLIN)
    running = {pidfd: pid for pid, pidfd in processes}
    for pidfd in running:
        poller.register(pidfd, select.POLLIN)
    codes: list[int] = []
    deadline: float | None = None
    try:
        while running:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            for fd, _ in poller.poll(left):
                if fd == wake_read:
                    os.read(wake_read, 4096)
                elif fd in running:
                    codes.append(os.waitstatus_to_exitcode(os.waitpid(running.pop(fd), 0)[1]))
                    poller.unregister(fd)
                    stopping = True
            if (stopping and deadline is None) or passed_on < signals:
                deadline = deadline or time.monotonic() + END_GRACE_S
                passed_on = signals
                signal_all(running, signal.SIGINT)  # a second one is for a job that does not look at the first
            elif deadline is not None and time.monotonic() >= deadline:
                signal_all(running, signal.SIGKILL)
    finally:
        signal_all(running, signal.SIGKILL)
        for pid in running.values():
            os.waitpid(pid, 0)
        for _, pidfd in processes:
            os.close(pidfd)
        signal.set_wakeup_fd(before)
        os.close(wake_read)
        os.close(wake_write)
        for number, handler in previous.items():
            signal.signal(number, handler)
    return max((code if code >= 0 else ExitCode.JOB for code in codes), default=ExitCode.OK)


def signal_all(running: dict[int, int], number: signal.Signals) -> None:
    """Through their pidfds, so never to a stranger that has taken over a number."""
    for pidfd in running:
        try:
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            pass  # it has just ended
