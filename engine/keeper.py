"""Keeps one link of an I/O process: makes it, and makes it anew whenever it was lost, until the party closes.

Between the I/O process, which serves one or several links in one event loop, the workers (rings and doorbells), and one
peer. What an attempt does until its link is up is each kind of link's own (`link_keeper`, `iris_keeper`); its life is
here. The one invariant: there is one attempt at a time, no two have the same epoch, and none begins before every lane
of the one before has its STREAM_END and LinkEnded has told the supervisor.

    make the link -> Lanes -> multiplex -> LinkEnded -> again

An attempt that is lost before the link is up is followed by another one, with a greater epoch and new rings. The first
time the link must be up before the connect timeout has passed, or be possible at all, else LinkFailed is the last word.
From then on nothing but the end of the party ends the attempts: whatever happened, a refusal included, a restart of the
peer may put right. Only one side dials, and it backs off; the other one waits. Nothing here knows of the other links of
the process: one that fails disturbs none.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final

from partywire.shm.doorbell import Doorbell
from partywire.shm.errors import ShmError

from .attempt import Attempt, Lane, SubstreamLane
from .channel.errors import CredentialError
from .commands import CommandError, Lanes
from .connection_pump import ConnectionPump
from .control_socket import ControlClosed
from .dialler import DialFailed, Dialler
from .errors import HandshakeRejected, PartyWireError
from .greeting import GreetingFailed
from .handed_over import handed_over
from .link import LinkState
from .link_report import LinkReport
from .redial import Redial
from .topology import dials, worker_of_connection

if TYPE_CHECKING:
    import socket
    from collections.abc import Coroutine, Sequence

    from partywire.shm.doorbell import Bell
    from partywire.shm.fence import Fence

    from .bulk_commands import OpenBulk
    from .commands import OpenLinks, RemakeLink
    from .control_socket import ControlSocket
    from .link import Link
    from .link_report import Home
    from .link_substreams.link_peers import LinkPeers
    from .multiplexer import Multiplexer
    from .polling_in_core import PollsInCore
    from .stat_page import Value
    from .transport import Stream, Transport

UNTAKEN_MAX: Final = 2
"""Epochs that are over and whose lanes some worker, deep in a computation, has not taken yet. A link that is made anew
again and again would else fill memory with rings that nobody looks at, and control sockets with word of them."""

UNTAKEN_LOOK_S: Final = 0.05
"""Between two looks whether a worker has taken its lanes. Nobody could use the link meanwhile."""

EXIT_TIMEOUT_S: Final = 0.5
"""For tasks that were cancelled at the end."""


class Keeper(ABC):
    """Serves one link from the first dial to its end. Driven by its home, the gateway's descriptors, and the link."""

    def __init__(
        self,
        home: Home,
        loop: asyncio.AbstractEventLoop,
        command: OpenLinks,
        peer: int,
        bells: Sequence[Bell],
        fence: Fence,
        gateway: ControlSocket | None,
        transport: Transport,
    ):
        """Owns `gateway`, on which what the peer dialled arrives, or None if we dial; not the workers' `bells`."""
        self._home = home
        self._loop = loop
        self._command = command
        self._options = command.options
        self._our_name = command.party.name
        self._peer = command.party.parties[peer]
        self._is_dialling = dials(self._our_name, self._peer.name)
        self._fence = fence
        self._doorbell = Doorbell.create(fence)
        self._bells = bells
        self._gateway = gateway
        self._transport = transport
        self._epoch = command.epochs.get(str(peer), 1)  # the least epoch of the next attempt
        self._attempt: Attempt | None = None
        self._is_up = False  # from the announcement of the attempt's lanes to its end
        self._was_up = self._epoch > 1  # an attempt was up: from now on none is the last
        self._is_closing = False
        self._has_begun = False
        self._untaken: list[Attempt] = []  # that are over, with lanes that some worker has not taken yet
        self._redial = Redial(loop.time)
        self._report = LinkReport(home, self._peer)
        self._dropped: set[int] = set()  # workers that died
        self._tasks: set[asyncio.Task[None]] = set()
        self._over: asyncio.Future[None] = loop.create_future()
        self.neighbours: list[PollsInCore] = []
        """What moves the bytes of this process, to look after each other; its home's, who may set another one."""
        self.peers: LinkPeers | None = None
        """Connections to the peer for substreams, whatever the epoch; None where we have no substreams."""

    # What each kind of link does in its own way.

    @abstractmethod
    def _check_files(self) -> None:
        """Have a look at the files that the link needs, before anybody is dialled or waited for.

        Raises:
            PartyWireError: one cannot be used.
        """

    @abstractmethod
    def _new_link(self) -> Link:
        """The state machine of a fresh attempt."""

    @abstractmethod
    async def _make_link(self, attempt: Attempt, dialler: Dialler) -> None:
        """Bring the link of the attempt up; `dialler` backs off between attempts.

        Raises:
            DialFailed, GreetingFailed: not this time.
            HandshakeRejected, ShmError, CredentialError: there will be no link, unless one was up before.
        """

    @abstractmethod
    def _take_connection(self, beginning: bytes, sock: socket.socket) -> None:
        """The gateway hands over a connection that began with these bytes, perhaps a stranger's. Owns the socket."""

    @abstractmethod
    async def _pause(self, dialler: Dialler) -> None:
        """Wait between an attempt that failed and the next one."""

    # The life of the link.

    async def run(self) -> None:
        """Until the link is over, or was asked to close; cancelling it ends it at once. Then nothing of it is left.

        A task that is cancelled before its first step never comes here: `discard` is for that.
        """
        self._has_begun = True
        if self._gateway is not None:
            self._loop.add_reader(self._gateway.fileno(), self._on_accepted)
        self._spawn(self._keep_link())
        try:
            await self._over
        finally:
            if self._gateway is not None:
                self._loop.remove_reader(self._gateway.fileno())  # what is accepted from now on would begin anew
            try:
                await self._cancel_tasks()
            finally:
                self._close()  # though cancelled amid it

    def discard(self) -> None:
        """Close one that has never run. One that has is left to `run`."""
        if not self._has_begun:
            self._has_begun = True
            self._close()

    def begin_close(self) -> None:
        """The party closes: a link that is up delivers what was sent and says goodbye, any other is given up."""
        self._is_closing = True
        if (multiplexer := self._standing) is not None:
            multiplexer.begin_close()
        else:
            self._end()

    def replace_worker(self, index: int) -> None:
        """A worker died, and another one took its place: the link is made anew, since rings are never repaired."""
        self._free_untaken()
        if (multiplexer := self._standing) is not None and self._attempt is not None:
            self._attempt.is_orphaned = True
            multiplexer.lose(f"worker {index} of {self._our_name} died")

    def remake(self, command: RemakeLink) -> None:
        """A worker cannot use its rings any more: the link is made anew, unless it has been meanwhile."""
        multiplexer, attempt = self._standing, self._attempt
        if multiplexer is None or attempt is None or self._is_closing:
            return
        if (command.peer, command.epoch) == (self._peer.index, attempt.link.epoch):
            multiplexer.forsake(command.worker, self._command.workers, command.cause)

    def open_bulk(self, command: OpenBulk) -> None:  # noqa: B027 - links without them ignore it
        """Our opener needs bulk connections. Not every kind of link has them."""

    def drop_worker(self, index: int) -> None:
        """A worker died for good: its connections break, and its lanes count as finished."""
        self._dropped.add(index)
        self._free_untaken()
        if (multiplexer := self._standing) is not None:
            multiplexer.drop_worker(index, self._command.workers)

    def stat_values(self) -> list[Value]:
        """What only this process knows of the link, for who reads figures."""
        return []

    @property
    def _standing(self) -> Multiplexer | None:
        """The multiplexer from UP to the end of the link; behind it, others of the process may go on for long."""
        is_standing = self._is_up and not self._over.done()
        return self._attempt.multiplexer if is_standing and self._attempt is not None else None

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _spawn(self, coroutine: Coroutine[object, object, None], stream: Stream | None = None) -> asyncio.Task[None]:
        """Have it done. `stream` is closed if it is cancelled, perhaps before its first step."""
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        if stream is not None:
            task.add_done_callback(lambda task: stream.close() if task.cancelled() else None)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._home.fail(error)

    async def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=EXIT_TIMEOUT_S)

    def _free_untaken(self) -> None:
        while self._untaken:
            self._untaken.pop().close()

    def _close(self) -> None:
        self._free_untaken()
        if self._attempt is not None:
            self._attempt.close()
        if self._gateway is not None:
            self._gateway.close()
        self._doorbell.close()

    # Attempt after attempt.

    async def _keep_link(self) -> None:
        """Bring the link up, the first time within the connect timeout; then, whenever it is over, make it anew."""
        if self._was_up:
            await self._bring_up()
        elif not await self._bring_up_in_time():
            return
        while await self._until_lost():
            await self._bring_up()

    async def _bring_up_in_time(self) -> bool:
        """False: the link will not come up, and that was told."""
        deadline = self._loop.time() + self._options.connect_timeout_s
        try:
            self._check_files()
        except PartyWireError as error:
            self._fail("LOCAL", f"the link to {self._peer.name} cannot be made: {error}")
            return False
        try:
            async with asyncio.timeout_at(deadline):
                await self._bring_up()
        except TimeoutError:
            if not self._is_up:  # else it came up in the last moment, and workers have its lanes
                peer = self._peer
                unheard = f"nothing answered at {peer.address}; is it running, is the address right?"
                last = self._report.last_cause or unheard
                self._fail("TIMEOUT", f"no link to {peer.name} within {self._options.connect_timeout_s:g} s; {last}")
        except HandshakeRejected as error:
            self._fail(error.code.name, str(error))
        except (ShmError, CredentialError) as error:
            self._fail("LOCAL", f"the link to {self._peer.name} cannot be made: {error}")
        return self._is_up

    async def _until_lost(self) -> bool:
        """Wait for the end of the attempt that is up. False: the party closes, and the keeper with it."""
        attempt = self._attempt
        assert attempt is not None
        self._redial.link_is_up()
        clean, cause = await attempt.ended
        self._is_up = False
        # A peer that has no word for goodbye may end cleanly when we did not mean to.
        self._report.ended(clean and attempt.link.goodbye_sent, cause)
        if self._is_closing:
            self._end()
            return False
        self._untaken.append(attempt)
        self._attempt = None
        while len(self._untaken) >= UNTAKEN_MAX:
            self._free_taken()
            if len(self._untaken) >= UNTAKEN_MAX:
                await asyncio.sleep(UNTAKEN_LOOK_S)
        if self._is_dialling:
            await self._redial.pause(clean)
        return True

    def _free_taken(self) -> None:
        for attempt in [attempt for attempt in self._untaken if attempt.is_taken]:
            self._untaken.remove(attempt)
            attempt.close()

    def _fail(self, code: str, message: str) -> None:
        self._report.failed(code, message)
        self._end()

    async def _bring_up(self) -> None:
        """Make attempts until one reached UP; its lanes are announced.

        Raises:
            HandshakeRejected, ShmError, CredentialError: the very first link is not possible.
        """
        dialler = self._new_dialler()
        while True:
            self._free_taken()
            attempt = self._attempt = Attempt(self._new_link())
            try:
                await self._make_link(attempt, dialler)
                return
            except (GreetingFailed, DialFailed) as error:
                self._attempt_failed(attempt, error)
            except (HandshakeRejected, ShmError, CredentialError) as error:
                self._attempt_failed(attempt, error)
                if not self._was_up and not (isinstance(error, HandshakeRejected) and error.is_transient):
                    raise
            finally:
                if not self._is_up:
                    attempt.close()
                    dialler.lost()
            await self._pause(dialler)

    def _attempt_failed(self, attempt: Attempt, error: PartyWireError | ShmError) -> None:
        self._report.attempt_failed(attempt.dialled, str(error))
        self._report.progress(str(error))

    def _new_dialler(self) -> Dialler:
        return Dialler(self._transport, self._peer.name, self._peer.host, self._peer.port, self._options.client_host)

    def _on_accepted(self) -> None:
        """The gateway hands over connections of our peer, or of somebody who claims to be it."""
        assert self._gateway is not None
        try:
            for accepted, sock in handed_over(self._gateway):
                self._take_connection(accepted.preamble, sock)
        except (ControlClosed, CommandError):
            self._loop.remove_reader(self._gateway.fileno())

    def _say_waiting(self) -> None:
        """Tell, unless something more telling was told, that it is the peer who has to dial."""
        if not self._report.last_cause:
            name = self._peer.name
            when = "again" if self._was_up else "yet"
            self._report.progress(f"{name} has not dialled us {when}; is it running, and is our address right there?")

    # What an attempt is made of.

    def _make_lanes(self, attempt: Attempt, connections: int, *, has_substreams: bool = False) -> Lane:
        """Rings for every connection, those of a substream lane if asked for, and the control lane, which is returned.

        Raises:
            ShmError: there is no memory for them; closing the attempt gives back what was made.
        """
        lane = attempt.control_lane = Lane(
            self._options.control_ring_size, self._ring_id(0xFFFF), self._fence, self._bells[0]
        )
        for index in range(connections):
            bell = self._bells[worker_of_connection(index, self._command.workers)]
            attempt.lanes[index] = Lane(self._options.ring_size, self._ring_id(index), self._fence, bell)
        if has_substreams:
            attempt.substream_lane = SubstreamLane(
                self._options.control_ring_size, self._ring_id(0xFFFE), self._fence, self._bells[0]
            )
        return lane

    def _ring_id(self, connection: int) -> int:
        return self._peer.index << 32 | connection << 1

    def _add_connection(self, attempt: Attempt, stream: Stream, index: int, received: bytes) -> None:
        """A connection is the peer's from now on; `received` came behind its handshake."""
        multiplexer = attempt.multiplexer
        if multiplexer is None or attempt.link.state is not LinkState.ATTACHING:
            stream.close()
            return
        lane = attempt.lanes[index]
        multiplexer.add(ConnectionPump(multiplexer, stream, lane.tx, lane.rx, index, attempt.link.epoch), received)

    async def _until_up_or_lost(self, attempt: Attempt, dials_: Sequence[Coroutine[object, object, None]]) -> None:
        """Attach what we dial; return when the link is up.

        Raises:
            GreetingFailed: it was lost on the way.
            HandshakeRejected: the peer refused a connection of it.
        """
        tasks = [self._loop.create_task(dial) for dial in dials_]
        try:
            undone = set(tasks)
            while not (attempt.up.done() or attempt.ended.done()):
                watched: list[asyncio.Future[Any]] = [*undone, attempt.up, attempt.ended]
                await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in undone if task.done()]:
                    undone.remove(task)
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if not self._is_up:
            raise GreetingFailed(self._peer.name, attempt.dialled or self._peer.address, attempt.link.cause)

    def _announce(self, attempt: Attempt, peer_workers: int, message_size_max: int) -> None:
        """The link is up: give every worker its lanes."""
        assert attempt.control_lane is not None
        self._is_up = self._was_up = True
        attempt.up.set_result(None)
        for worker in range(self._command.workers):
            connections = [
                index for index in attempt.lanes if worker_of_connection(index, self._command.workers) == worker
            ]
            fds = [*self._doorbell.fds]
            for index in connections:
                fds += attempt.lanes[index].fds
            if worker == 0:
                fds += attempt.control_lane.fds
                if attempt.substream_lane is not None:
                    fds += attempt.substream_lane.fds
            lanes = Lanes(
                worker=worker,
                peer=self._peer.index,
                epoch=attempt.link.epoch,
                peer_workers=peer_workers,
                connections=connections,
                connection_count=len(attempt.lanes),
                control=worker == 0,
                message_size_max=message_size_max,
                substreams=worker == 0 and attempt.substream_lane is not None,
            )
            self._home.tell(lanes, fds)
        for worker in self._dropped:
            self._loop.call_soon(self.drop_worker, worker)  # it died before the link was up
