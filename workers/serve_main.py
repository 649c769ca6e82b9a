"""One party's service from its order to its exit code, and the program of such a party in a local run.

Between the command and Service. `serve_party` runs in the command's own process for `--config`; with `--local` each
party is a process that gets its order on a pipe and inherits its listening sockets. The one invariant: whatever ends
the service, the links are closed in order first, the sockets are given back, and one sentence says why.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .exit_code import ExitCode, UsageMistake, code_of, sentence_of
from .serve_jobs import ServedJobs, jobs_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from .config import PartyConfig
    from .serve_jobs import ServeSettings


@dataclass(frozen=True, slots=True)
class ServeOrder:
    """What one service is told; travels pickled over a pipe between our own processes."""

    config: PartyConfig
    settings: ServeSettings
    log_format: str = "text"
    log_level: str | None = None


def serve_party(
    order: ServeOrder, listener: socket.socket | None, http_listener: socket.socket | None, say: Callable[[str], None]
) -> None:
    """Serve until a signal says stop. Takes ownership of both sockets; without them the configured addresses are bound.

    Raises:
        PartyWireError, OSError: the service cannot be started, or cannot go on.
    """
    import asyncio

    from .http_listener import close_http_listener, open_http_listener
    from .serve import Service

    config = order.config
    try:
        http = config.http
        if http is None:
            raise UsageMistake(
                f"{config.path or 'the configuration'} has no table [http], so there is nothing to serve; "
                "`partywire serve --help` shows one"
            )
        jobs = jobs_of(config, http)
        token = http.token_digest()
        if http_listener is None:
            http_listener = open_http_listener(config.name, http)
        from .blocking_party import BlockingParty

        party = BlockingParty(config, listener, on_progress=lambda peer, cause: say(f"waiting for {peer}: {cause}"))
        served = ServedJobs(config.name, party.index, jobs, http.options)
        service = Service(party, http, served, order.settings, token)
        with asyncio.Runner() as runner:
            service.run(runner, http_listener, say)
    finally:
        if listener is not None:
            listener.close()
        if http_listener is not None:
            close_http_listener(http_listener)


def start_serving(order: ServeOrder, listener: socket.socket, http_listener: socket.socket) -> tuple[int, int]:
    """Start the service of one party as a process that ends with this one; its pid and a pidfd.

    The descriptors are inherited; ours may be closed afterwards.
    """
    import subprocess

    order_read, order_write = os.pipe()
    fds = (order_read, listener.fileno(), http_listener.fileno())
    arguments = [sys.executable, "-m", "partywire.workers.serve_main", *map(str, fds), str(os.getpid())]
    try:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, pass_fds=fds, process_group=0)
        process.returncode = 0  # waited for by its pid; Popen need not complain that it is alive
    finally:
        os.close(order_read)
    with os.fdopen(order_write, "wb") as pipe:
        try:
            pipe.write(pickle.dumps(order))
            pipe.flush()
        except BrokenPipeError:
            pass  # it ended at once; its exit code says so
    return process.pid, os.pidfd_open(process.pid)


def run_reported(
    order: ServeOrder, listener: socket.socket | None, http_listener: socket.socket | None, say: Callable[[str], None]
) -> int:
    """`serve_party` to its exit code, with the sentence on standard error if it failed."""
    from .logs import configure_logs

    handler = configure_logs(order.log_format, order.log_level)
    try:
        serve_party(order, listener, http_listener, say)
    except KeyboardInterrupt:
        return ExitCode.OK  # told to stop while it was starting or between two steps
    except Exception as error:
        if order.log_format == "json":
            fields = {"event": "service_failed", "party": order.config.name, "exit_code": int(code_of(error))}
            logging.getLogger("partywire").error(sentence_of(error), extra=fields)
        else:
            print(f"partywire: {sentence_of(error)}", file=sys.stderr, flush=True)
        if os.environ.get("PARTYWIRE_DEBUG"):
            raise
        return code_of(error)
    finally:
        logging.getLogger("partywire").removeHandler(handler)
    return ExitCode.OK


def main() -> int:
    """The program of one party of a local run. Arguments: descriptors of the order and both sockets, parent's pid."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    order_fd, listener_fd, http_fd, parent_pid = (int(argument) for argument in sys.argv[1:5])
    from .party_main import begin, listener_of

    begin(parent_pid, (order_fd, listener_fd, http_fd))
    with os.fdopen(order_fd, "rb") as pipe:
        order: ServeOrder = pickle.load(pipe)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    return run_reported(order, listener_of(listener_fd), listener_of(http_fd), say)


def say(line: str) -> None:
    """One line for whoever watches or reads our standard output."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
