"""The supervisor's part in the compute processes that a party has beside its opener: how they start, how all are told.

Between the Supervisor, which decides whether one that died is replaced, these processes, and the opener, which gets a
channel to each. The one invariant: whoever takes the place of a worker has its doorbell, and no ring that it had.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from .children import Kind
from .commands import Welcome, WorkerStarted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .children import Children
    from .commands import Message, Start
    from .control_socket import ControlSocket
    from .shared_parts import SharedParts
    from .stat_rings import StatRings


class WorkerFamily:
    """Driven by the supervisor, at its single thread. Holds nothing that has to be given back."""

    def __init__(
        self,
        send: Callable[[ControlSocket, Message, Sequence[int]], None],
        opener: ControlSocket,
        children: Children,
        parts: SharedParts,
    ) -> None:
        self._send = send
        self._opener = opener
        self._children = children
        self._parts = parts

    def start(self, start: Start, index: int) -> None:
        """Start a worker, for the first time or again.

        Raises:
            OSError: the machine cannot.
        """
        ours, theirs = socket.socketpair()
        with ours, theirs:
            child = self._children.start(Kind.WORKER, index, start.worker_module)
            welcome = Welcome(index, start.workers, start.party, start.options, start.main_path)
            self._send(child.control, welcome, [*self._parts.doorbell_of(index), theirs.fileno()])
            self._send(self._opener, WorkerStarted(index, child.process.pid), [ours.fileno()])

    def start_again(self, start: Start, index: int, rings: StatRings) -> None:
        """As `start`, in the place of one that died; its doorbell is shown to who reads figures."""
        self.start(start, index)
        rings.add_doorbell(f"{Kind.WORKER.value} {index}", self._parts.doorbell_of(index)[1])

    def tell(self, message: Message, but: int = -1) -> None:
        """Send or hold a message for each worker, the opener among them."""
        self._send(self._opener, message, ())
        for child in self._children:
            if child.kind is Kind.WORKER and child.index != but:
                self._send(child.control, message, ())
