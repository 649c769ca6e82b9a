"""The I/O process: serves one link, or several of a party's in turns, and ends when all of them are over.

Between the supervisor (commands) and the links (keeper.py), each of which has its peer, rings, doorbell and
sockets to itself. The one invariant: a link that fails, however it does, disturbs no other; only a bug, a signal or the
end of the supervisor ends the process, and then every link of it is lost with that cause.

Runs on uvloop. With one link a process, the default, a slow peer delays no other; where links share one, each has its
turn of the loop after a bounded piece of work of the others, and while little moves they look after each other
(`Multiplexer`, neighbours).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import uvloop

from partywire.shm import fence
from partywire.shm.doorbell import Bell

from .bulk_commands import OpenBulk
from .child_logs import log_as
from .child_process import begin_child
from .commands import AreYouThere, Close, CommandError, DropWorker, Here, OpenLinks, RemakeLink
from .control_socket import ControlClosed, ControlSocket, close_all
from .keeper import EXIT_TIMEOUT_S
from .link_keeper import LinkKeeper
from .link_transport import transport_of
from .stat_publish import StatPublisher
from .time_slice import shorten_slices
from .topology import dials

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .bulk_commands import BulkFailed, BulkLane
    from .commands import Lanes, LinkClaimed, LinkEnded, LinkFailed, LinkNews, LinkProgress
    from .keeper import Keeper


class IoProcess:
    """Serves one OpenLinks. Driven by the supervisor's commands."""

    def __init__(self, loop: asyncio.AbstractEventLoop, control: ControlSocket, command: OpenLinks, fds: list[int]):
        """Takes ownership of `fds`, as OpenLinks orders them."""
        self._loop = loop
        self._control = control
        self._over: asyncio.Future[None] = loop.create_future()  # the process may end
        self._bells = [Bell.from_fds(*fds[2 * worker : 2 * worker + 2]) for worker in range(command.workers)]
        accepted = dict(zip(dialled_by(command), fds[2 * command.workers :], strict=True))
        gateways = {peer: ControlSocket.from_fd(fd, "the gateway") for peer, fd in accepted.items()}
        fence_ = fence.probe()
        transport = transport_of(loop, command.options)
        self._links = [
            keeper_of(command, peer)(self, loop, command, peer, self._bells, fence_, gateways.get(peer), transport)
            for peer in command.peers
        ]
        for link in self._links:
            link.neighbours = self._links[0].neighbours
        self._standing = len(self._links)
        self._stat = StatPublisher(lambda: [value for link in self._links for value in link.stat_values()])
        loop.set_exception_handler(self._on_bug)

    async def run(self) -> None:
        """Until every link is over, or the supervisor says so."""
        self._loop.add_reader(self._control.fileno(), self._on_command)
        tasks = [self._loop.create_task(link.run()) for link in self._links]
        for task in tasks:
            task.add_done_callback(self._link_over)
        try:
            await self._over
        finally:
            self._loop.remove_reader(self._control.fileno())
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=2 * EXIT_TIMEOUT_S)
            for bell in self._bells:
                bell.close()
            self._stat.close()

    def _on_command(self) -> None:
        try:
            while (received := self._control.try_receive()) is not None:
                command, fds = received
                self._stat.take(command, fds)
                if isinstance(command, Close):
                    for link in self._links:
                        link.begin_close()
                elif isinstance(command, DropWorker):
                    for link in self._links:
                        (link.replace_worker if command.is_replaced else link.drop_worker)(command.index)
                elif isinstance(command, RemakeLink):
                    for link in self._links:
                        link.remake(command)
                elif isinstance(command, OpenBulk):
                    for link in self._links:
                        link.open_bulk(command)
                elif isinstance(command, AreYouThere):
                    self.tell(Here())
        except ControlClosed:
            self._end()  # the supervisor died

    def _link_over(self, task: asyncio.Task[None]) -> None:
        self._standing -= 1
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)
        elif not self._standing:
            self._end()

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    # What links say.

    def tell(
        self,
        message: LinkProgress
        | LinkFailed
        | LinkEnded
        | LinkNews
        | LinkClaimed
        | Lanes
        | BulkLane
        | BulkFailed
        | Here,
        fds: Sequence[int] = (),
    ) -> None:
        """Send to the supervisor; without one there is nothing left to serve."""
        try:
            self._control.send(message, fds)
        except ControlClosed:
            self._end()

    def fail(self, error: BaseException) -> None:
        """A bug: the process ends with its traceback, the supervisor reports it."""
        if not self._over.done():
            self._over.set_exception(error)

    def _on_bug(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception escaped from a callback."""
        self.fail(context.get("exception") or RuntimeError(context["message"]))


def keeper_of(command: OpenLinks, peer: int) -> type[Keeper]:
    """What serves the link to a peer, by the protocol that it speaks."""
    if command.party.parties[peer].iris is None:
        return LinkKeeper
    from .iris_keeper import IrisKeeper  # only here: most parties have no such peer

    return IrisKeeper


def dialled_by(command: OpenLinks) -> list[int]:
    """The peers of these links that dial us, in order; the gateway hands their connections over."""
    parties = command.party.parties
    return [peer for peer in command.peers if dials(parties[peer].name, command.party.name)]


async def serve(control: ControlSocket) -> None:
    """Serve the one OpenLinks that the supervisor sends first."""
    command, fds = control.receive(60.0)
    if not isinstance(command, OpenLinks):
        close_all(fds)
        raise CommandError(f"{type(command).__name__} instead of OpenLinks")
    if len(fds) != 2 * command.workers + len(dialled_by(command)):
        close_all(fds)
        raise CommandError(f"OpenLinks with {len(fds)} descriptors")
    peers = ", ".join(command.party.parties[peer].name for peer in command.peers)
    log_as(command.party.name, f"the I/O process of the link{'s' if len(command.peers) > 1 else ''} to {peers}")
    await IoProcess(asyncio.get_running_loop(), control, command, fds).run()


def main() -> None:
    """The program of an I/O process."""
    fence.register()
    shorten_slices()
    with ControlSocket.from_fd(begin_child(), "the supervisor") as control:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serve(control))
        except ControlClosed:
            pass  # the supervisor ended before it told us anything
