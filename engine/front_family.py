"""The supervisor's part in serving HTTP: starts the front and the worker that answers, and replaces either.

Between the Supervisor, which owns every child and calls this for the two of them, and the opener, which asks for HTTP
and is told of each worker. The one invariant: both sides have the same two rings, or know that they have none; a side
that died leaves its rings to nobody, and new ones are made once both live again.

Imported only when a party is asked to serve HTTP.
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from partywire.shm.doorbell import create_doorbell
from partywire.shm.errors import SegmentError
from partywire.shm.segment import Segment

from .commands import Close
from .http_commands import (
    AnswerHttp,
    HttpFailed,
    HttpLaneLost,
    HttpLaneMade,
    HttpWorkerStarted,
    ServeHttp,
    StartHttp,
)
from .http_lane import RING_SIZE
from .shortage import describe_shortage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .children import Child
    from .commands import Message
    from .control_socket import ControlSocket
    from .supervisor_retries import Retries

FRONT_MODULE: Final = "partywire.engine.front"
FRONT_ROLE: Final = "http front"
WORKER_ROLE: Final = "http worker"

RESTARTS_MAX: Final = 5
RESTARTS_WINDOW_S: Final = 60.0
"""A process that dies more often than this within the window dies of something that a restart does not cure."""

RING_ID: Final = 0x48545450 << 32
"""Apart from those of links, which carry small numbers there; for whoever looks at stat pages."""


class SupervisorSteps(NamedTuple):
    """What the supervisor does for this part of it."""

    start_child: Callable[[str, str], Child]
    """Starts a process and watches it: role, module."""
    send: Callable[[ControlSocket, Message, Sequence[int]], None]
    """Sends or holds a message; never waits."""
    retries: Retries
    """Start a process in the place of one that died, later if the machine cannot now."""


class FrontFamily:
    """Driven by the supervisor, at its single thread."""

    def __init__(self, steps: SupervisorSteps, opener: ControlSocket, listener: socket.socket) -> None:
        """Takes ownership of the listener only."""
        self._start_child = steps.start_child
        self._send = steps.send
        self._retries = steps.retries
        self._opener = opener
        self._listener = listener
        self._start: StartHttp | None = None  # set by `start`
        self._front: Child | None = None
        self._worker: Child | None = None
        self._has_lane = False  # whether both have the same rings
        self._bells: dict[str, tuple[int, int]] = {}
        self._deaths: list[float] = []
        self._is_closing = False

    def start(self, command: StartHttp) -> None:
        """Start both processes; the opener is told if that cannot be."""
        self._start = command
        try:
            self._bells["front"] = create_doorbell()
            self._bells["worker"] = create_doorbell()
            self._make_whole()
        except (OSError, SegmentError) as error:
            self._give_up(f"the HTTP front and its worker cannot be started: {describe_shortage(error)}")

    def on_end(self, child: Child, cause: str) -> None:
        """One of the two has ended: replace it, as soon as the machine can; or say that HTTP is over."""
        is_front = child is self._front
        if is_front:
            self._front = None
        elif child is self._worker:
            self._worker = None
        if self._is_closing or self._start is None:
            self._end_worker()
            return
        cause = cause or "ended unexpectedly"
        if not is_front and self._front is not None:
            self._send(self._front.control, HttpLaneLost(cause), ())
        now = time.monotonic()
        self._deaths = [at for at in self._deaths if now - at < RESTARTS_WINDOW_S] + [now]
        what = "HTTP front" if is_front else "HTTP worker"
        if len(self._deaths) > RESTARTS_MAX:
            self._give_up(f"the {what} {cause}, for the {len(self._deaths)}th time within {RESTARTS_WINDOW_S:g} s")
            return
        self._has_lane = False
        self._retries.start(child.process.role, self._make_whole, now)

    def close(self) -> None:
        """Let the front finish its answers, and then end the worker."""
        self._is_closing = True
        if self._front is not None:
            self._send(self._front.control, Close(), ())
        self._end_worker()

    def free(self) -> None:
        """Give every descriptor back. May be called again."""
        bells, self._bells = self._bells, {}
        for pair in bells.values():
            for fd in pair:
                os.close(fd)
        self._listener.close()

    def _end_worker(self) -> None:
        if self._front is None and self._worker is not None:
            self._send(self._worker.control, Close(), ())

    def _give_up(self, why: str) -> None:
        self.close()
        self._start = None
        for role in (FRONT_ROLE, WORKER_ROLE):
            self._retries.forget(role)
        for child in (self._front, self._worker):
            if child is not None:
                child.process.kill()
        self._send(self._opener, HttpFailed(f"{why}; look at what it wrote, and start the service again"), ())

    def _make_whole(self) -> None:
        """Start what does not run, and give both new rings if they have none.

        Raises:
            OSError, SegmentError: the machine cannot; what was done stays done.
        """
        assert self._start is not None
        if self._worker is None:
            self._start_worker(self._start)
        if self._front is None:
            self._start_front(self._start)
        if not self._has_lane:
            self._make_lane()
            self._has_lane = True

    def _start_front(self, command: StartHttp) -> None:
        self._front = self._start_child(FRONT_ROLE, FRONT_MODULE)
        fds = [self._listener.fileno(), *self._bells["front"]]
        self._send(self._front.control, ServeHttp(command.options), fds)

    def _start_worker(self, command: StartHttp) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._worker = child = self._start_child(WORKER_ROLE, command.worker_module)
            fds = [*self._bells["worker"], theirs.fileno()]
            self._send(child.control, AnswerHttp(command.options, command.handlers), fds)
            self._send(self._opener, HttpWorkerStarted(child.process.pid), [ours.fileno()])

    def _make_lane(self) -> None:
        """New rings for both, which are there: what a dead side left in the old ones is never looked at."""
        assert self._front is not None
        assert self._worker is not None
        requests = Segment.create(RING_SIZE, RING_ID)
        try:
            answers = Segment.create(RING_SIZE, RING_ID | 1)
            try:
                self._send_lane(self._front, [*self._bells["worker"], requests.fileno(), answers.fileno()])
                self._send_lane(self._worker, [*self._bells["front"], answers.fileno(), requests.fileno()])
            finally:
                answers.close()
        finally:
            requests.close()

    def _send_lane(self, child: Child, fds: Sequence[int]) -> None:
        self._send(child.control, HttpLaneMade(), fds)
