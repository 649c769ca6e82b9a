"""The process of one party that the command starts: reads its order from a pipe, writes its events to another.

Between the launcher (its parent, with which it dies) and `run_order`. Arguments: descriptor of the order, descriptor
for the events, descriptor of the listening socket or -1, pid of the parent. Nothing else of the parent is inherited;
what a job prints goes to standard output, which the parent shows with the party's name.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

from partywire.shm import fence

from .exit_code import ExitCode, failure
from .run_event import Failed, Progressed, encode_event
from .worker_main import hold_blas_to_one_thread

if TYPE_CHECKING:
    from .launcher import Order
    from .run_event import RunEvent

EVENT_INTERVAL_S = 0.1
"""Between two progress events: a person sees no more, and each costs the launcher time on the same cores."""


class EventPipe:
    """Writes events as lines of JSON. A launcher that is gone is none of our business: the kernel ends us with it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._written_at = 0.0
        self._withheld: Progressed | None = None

    def write(self, event: RunEvent) -> None:
        """Write one event; progress in quick succession is thinned out, but the last word of it is never lost."""
        if isinstance(event, Progressed):
            now = time.monotonic()
            if event.jobs_done and now - self._written_at < EVENT_INTERVAL_S:
                self._withheld = event
                return
            self._written_at = now
        elif self._withheld is not None:
            self._write(self._withheld)
        self._withheld = None
        self._write(event)

    def _write(self, event: RunEvent) -> None:
        data = memoryview(encode_event(event))
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except BrokenPipeError:
            pass


def main() -> int:
    fence.register()
    hold_blas_to_one_thread()
    order_fd, events_fd, listener_fd, parent_pid = (int(argument) for argument in sys.argv[1:5])
    for fd in (order_fd, events_fd, listener_fd):
        if fd >= 0:
            os.set_inheritable(fd, False)
    die_with(parent_pid)
    signal.signal(signal.SIGTERM, lambda _number, _frame: signal.raise_signal(signal.SIGINT))
    with os.fdopen(order_fd, "rb") as pipe:
        order: Order = pickle.load(pipe)
    events = EventPipe(events_fd)
    try:
        from .party_run import run_order  # numpy comes with it

        listener = socket.socket(fileno=listener_fd) if listener_fd >= 0 else None
        event = run_order(order, listener, events.write)
    except (Exception, KeyboardInterrupt) as error:
        event = failure(order.party, error)
    sys.stdout.flush()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the outcome stands; only its report is left
    events.write(event)
    return event.exit_code if isinstance(event, Failed) else ExitCode.OK


def die_with(parent_pid: int) -> None:
    """Let the kernel kill this process when the launcher dies, so that a killed command leaves nothing behind."""
    from partywire.engine.child_process import die_with_parent

    die_with_parent()
    if os.getppid() != parent_pid:
        os._exit(ExitCode.INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
