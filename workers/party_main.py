"""The process of one party that the command starts: reads its order from a pipe, writes its events to another.

Between the launcher (its parent, with which it dies) and `run_order`. Arguments: descriptor of the order, descriptor
for the events, descriptor of the listening socket or -1, pid of the parent. Nothing else of the parent is inherited;
what a job prints goes to standard output, which the parent shows with the party's name.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import socket

    from .launcher import Order
    from .run_event import Progressed, RunEvent

EVENT_INTERVAL_S = 0.1
"""Between two progress events: a person sees no more, and each costs the launcher time on the same cores."""


class EventPipe:
    """Writes events as lines of JSON. A launcher that is gone is none of our business: the kernel ends us with it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()  # a log line may come from the thread that runs an application's callbacks
        self._written_at = 0.0
        self._withheld: Progressed | None = None

    def write(self, event: RunEvent) -> None:
        """Write one event; progress in quick succession is thinned out, but the last word of it is never lost."""
        with self._lock:
            self._write_in_turn(event)

    def _write_in_turn(self, event: RunEvent) -> None:
        from .run_event import Progressed

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
        from .run_event import encode_event

        data = memoryview(encode_event(event))
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except BrokenPipeError:
            pass


def main() -> int:
    gc.disable()  # while there is only what was imported, as in engine/program.py
    # Until somebody can report it, an interrupt just ends us; a trace from the middle of an import helps nobody.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    order_fd, events_fd, listener_fd, parent_pid = (int(argument) for argument in sys.argv[1:5])
    begin(parent_pid, (order_fd, events_fd, listener_fd))
    from .exit_code import ExitCode, failure
    from .run_event import Failed

    order = read_order(order_fd)
    events = EventPipe(events_fd)
    try:
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, interrupt)
        show_logs(order, events)
        from .party_run import run_order  # numpy comes with it

        gc.freeze()
        gc.enable()
        event: RunEvent = run_order(order, listener_of(listener_fd), events.write)
    except (Exception, KeyboardInterrupt) as error:
        event = failure(order.party, error)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the outcome stands; only its report is left
    sys.stdout.flush()
    events.write(event)
    return event.exit_code if isinstance(event, Failed) else ExitCode.OK


def interrupt(number: int, _frame: object) -> NoReturn:
    """End whatever runs. A job may stand between a call and its await; that this is so tells nobody anything."""
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    raise KeyboardInterrupt


def begin(parent_pid: int, fds: tuple[int, ...]) -> None:
    """What comes before numpy and before any thread; afterwards this process dies with the launcher."""
    from partywire.engine.child_process import die_with_parent
    from partywire.shm import fence

    from .worker_main import hold_blas_to_one_thread

    fence.register()
    hold_blas_to_one_thread()
    for fd in fds:
        if fd >= 0:
            os.set_inheritable(fd, False)
    die_with_parent()
    if os.getppid() != parent_pid:
        os._exit(1)


def show_logs(order: Order, events: EventPipe) -> None:
    """Log lines for people go to standard error, as what a job prints; for machines they are events."""
    from .logs import LineHandler, configure_logs, install
    from .run_event import Logged

    if order.log_format == "json":
        handler = LineHandler(lambda line: events.write(Logged(order.party, line)))
        install(handler, order.log_format, order.log_level)
    else:
        configure_logs(order.log_format, order.log_level)


def read_order(fd: int) -> Order:
    import pickle

    with os.fdopen(fd, "rb") as pipe:
        order: Order = pickle.load(pipe)
    return order


def listener_of(fd: int) -> socket.socket | None:
    import socket

    return socket.socket(fileno=fd) if fd >= 0 else None


if __name__ == "__main__":
    sys.exit(main())
