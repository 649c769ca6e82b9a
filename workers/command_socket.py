"""A worker's end of its control socket: what the supervisor tells it, and the little that it asks for.

Between the supervisor and one worker. The one invariant: every descriptor that came with a command has an owner when
the command was dealt with; and once the supervisor's end is gone the worker has failed, and nobody looks here again.
"""

from __future__ import annotations

import errno
import os
from threading import get_ident
from typing import TYPE_CHECKING

from partywire.engine.bulk_commands import BulkFailed, BulkLane
from partywire.engine.commands import Close, CommandError, Lanes, LinkLost, WorkerLost
from partywire.engine.control_socket import ControlClosed, ControlTimeout, DescriptorsLost, close_all
from partywire.engine.shortage import describe_shortage, say

from .errors import WorkerDied

if TYPE_CHECKING:
    from partywire.engine.commands import Message
    from partywire.engine.control_socket import ControlSocket

    from .worker import Worker


class CommandSocket:
    """Driven by the worker, which watches the descriptor, and by its links. Not safe for several threads."""

    def __init__(self, worker: Worker, control: ControlSocket | None) -> None:
        """Owns the socket. None: a worker without a supervisor, whose commands others hand to `take`."""
        self._worker = worker
        self._control = control
        # Whether either end is gone. A socket whose other end is gone is readable for ever.
        self._is_over = control is None
        if control is not None:
            worker.watch(control.fileno(), self._take_all)

    def fileno(self) -> int:
        """The descriptor that the worker watches; -1 if there is none."""
        return -1 if self._control is None else self._control.fileno()

    def look(self) -> None:
        """Take in what the supervisor has said. Never waits, and does nothing in a thread that another one serves."""
        if self._is_over:
            return
        worker = self._worker
        if worker.loop_driver is None and worker.driving_thread in (0, get_ident()):
            self._take_all()
        elif worker.loop_driver is not None and worker.loop_driver.is_running_here:
            self._take_all()
            if worker.loop_driver is not None:  # a callback may have closed the party
                worker.loop_driver.schedule()  # a ring that came may hold something already

    def _take_all(self) -> None:
        control = self._control
        assert control is not None
        while not self._is_over:
            self._worker.link_life.free_lost()
            try:
                received = control.try_receive()
            except DescriptorsLost:
                short = describe_shortage(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
                cause = f"no descriptor is left for what its supervisor sends: {short}"
                if self._worker.index:  # it ends, and another one takes its place, to whom nobody tells why
                    say(self._worker.party.name, f"worker {self._worker.index}", cause)
                self._fail(control, cause)
                return
            except (ControlClosed, CommandError) as error:
                self._fail(control, f"its supervisor is gone: {error}")
                return
            if received is None:
                return
            self.take(*received)

    def _fail(self, control: ControlSocket, cause: str) -> None:
        self._is_over = True
        self._worker.unwatch(control.fileno())
        self._worker.fail(cause)

    def take(self, message: Message, fds: list[int]) -> None:
        """Do what a command says, or hand it to whoever listens. Owns the descriptors."""
        worker = self._worker
        match message:
            case Lanes():
                worker.link_life.add_lanes(message, fds)
            case BulkLane():
                worker.link_life.add_bulk_lane(message, fds)
            case BulkFailed(peer=peer, epoch=epoch, cause=cause):
                if epoch == worker.links[peer].epoch:
                    worker.links[peer].bulk_failure = cause
            case LinkLost():
                worker.link_life.lose_link(worker.links[message.peer], message.cause)
            case WorkerLost():
                died = WorkerDied(worker.party.name, message.index, message.cause)
                worker.lost_workers[message.index] = died
                if worker.on_worker_lost is not None:
                    worker.on_worker_lost(died)
            case Close():
                worker.is_closing = True
                if worker.on_command is not None:
                    worker.on_command(message, fds)
            case _ if worker.on_command is not None:
                worker.on_command(message, fds)
            case _:
                close_all(fds)
        worker.notify()

    def ask(self, message: Message) -> None:
        """Have the supervisor do something. One that is gone is not told: its end says more, or follows."""
        if self._control is None:
            return
        try:
            self._control.send(message)
        except (ControlClosed, ControlTimeout):
            pass

    def close(self) -> None:
        """Close our end. May be called again."""
        self._is_over = True
        control, self._control = self._control, None
        if control is not None:
            control.close()
