"""One link to a peer that speaks the protocol of iris-mpc's TCP stack: makes it, keeps it, and ends with it.

Between the I/O process, the workers (rings and doorbells) and one such peer; what `link_keeper` is for other links. The
one invariant: no worker is left with a lane that will never say STREAM_END, and each Lanes is followed by one LinkEnded
(unless the process dies). LinkFailed says that the very first link will not come up.

    dial or be dialled C times -> Lanes -> multiplex -> LinkEnded -> the same again, until the party closes

There is no control connection: how many connections there are stands in the configuration, nobody says hello, and each
connection is dialled until the peer takes it. A connection that is lost before all of them stand ends the attempt, and
all are made anew.

Nobody proves a name here: whoever reaches our address and claims the peer's gets its connection.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, Final

from partywire.shm.doorbell import Doorbell
from partywire.shm.errors import ShmError

from . import tcp
from .attempt import Attempt, Lane
from .commands import Accepted, CommandError, Lanes, LinkEventKind
from .connection_pump import ConnectionPump
from .control_lane import ControlLane
from .control_socket import ControlClosed, close_all
from .dialler import Dialler
from .errors import LinkProtocolError
from .greeting import GreetingFailed, greet
from .iris_handshake import accepting, dialling, introduction_untrusted
from .link import LinkState, LinkTimeouts
from .link_report import LinkReport
from .redial import Redial
from .silent_link import SilentLink
from .silent_multiplexer import SilentMultiplexer
from .topology import dials

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from partywire.shm.doorbell import Bell
    from partywire.shm.fence import Fence

    from .commands import OpenLinks
    from .control_socket import ControlSocket
    from .link_report import Home
    from .stat_page import Value
    from .transport import Stream, Transport

EXIT_TIMEOUT_S: Final = 0.5
"""For tasks that were cancelled at the end."""

AGAIN_S: Final = 0.5
"""Pause between two attempts. The peer notices that its connections are gone within a round trip."""

UNTAKEN_LOOK_S: Final = 0.05
"""How often is looked whether the worker has taken the lanes of a link that is over."""

ACCEPT_BATCH: Final = 16
"""Accepted connections taken in one turn of the loop."""


class IrisKeeper:
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
        assert self._peer.iris is not None
        self._iris = self._peer.iris
        self._fence = fence
        self._doorbell = Doorbell.create(fence)
        self._bells = bells
        self._gateway = gateway
        self._transport = transport
        self._epoch = command.epochs.get(str(peer), 1) - 1  # of the present attempt, or the one before the first
        self._attempt: Attempt | None = None
        self._taken: set[int] = set()  # connections of the attempt that were accepted
        self._address = ""  # where the peer is, once a connection to it stands
        self._has_refused = False  # whether a connection was told of that the peer should not dial
        self._is_up = False  # from the announcement of the attempt's lanes to its end
        self._was_up = self._epoch > 0  # an attempt was up: from now on none is the last
        self._is_closing = False
        self._redial = Redial(loop.time)
        self._report = LinkReport(home, self._peer)
        self._tasks: set[asyncio.Task[None]] = set()
        self._over: asyncio.Future[None] = loop.create_future()

    # The life of the link.

    async def run(self) -> None:
        """Until the link is over, or was asked to close; cancelling it ends it at once. Then nothing of it is left."""
        if self._gateway is not None:
            self._loop.add_reader(self._gateway.fileno(), self._on_accepted)
        self._spawn(self._keep_link())
        try:
            await self._over
        finally:
            if self._gateway is not None:
                self._loop.remove_reader(self._gateway.fileno())
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=EXIT_TIMEOUT_S)
            self._close()

    def begin_close(self) -> None:
        """The party closes: a link that is up delivers what was sent first, any other is given up."""
        self._is_closing = True
        if (multiplexer := self._standing) is not None:
            multiplexer.begin_close()
        else:
            self._end()

    def replace_worker(self, index: int) -> None:
        """A worker died, and another one took its place: the link is made anew, since rings are never repaired."""
        if (multiplexer := self._standing) is not None:
            multiplexer.lose(f"worker {index} of {self._our_name} died")

    def drop_worker(self, index: int) -> None:
        """A worker died: its connections break, and the link with them."""
        if (multiplexer := self._standing) is not None:
            multiplexer.drop_worker(index, self._command.workers)

    def stat_values(self) -> list[Value]:
        """What only this process knows of the link: nothing, because it has no heartbeat."""
        return []

    @property
    def _standing(self) -> SilentMultiplexer | None:
        """The multiplexer from UP to the end of the link."""
        is_standing = self._is_up and not self._over.done() and self._attempt is not None
        multiplexer = self._attempt.multiplexer if is_standing and self._attempt is not None else None
        assert multiplexer is None or isinstance(multiplexer, SilentMultiplexer)
        return multiplexer

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _spawn(self, coroutine: Coroutine[object, object, None], stream: Stream | None = None) -> None:
        """Have it done. `stream` is closed if it is cancelled, perhaps before its first step."""
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        if stream is not None:
            task.add_done_callback(lambda task: stream.close() if task.cancelled() else None)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._home.fail(error)

    def _close(self) -> None:
        if self._attempt is not None:
            self._attempt.close()
        if self._gateway is not None:
            self._gateway.close()
        self._doorbell.close()

    # Making the link.

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
            async with asyncio.timeout_at(deadline):
                await self._bring_up()
        except TimeoutError:
            if not self._is_up:  # else it came up in the last moment, and workers have its lanes
                name = self._peer.name
                last = self._report.last_cause or f"nothing answered at {self._peer.address}"
                self._fail("TIMEOUT", f"no link to {name} within {self._options.connect_timeout_s:g} s; {last}")
        except ShmError as error:
            self._fail("LOCAL", f"the link to {self._peer.name} cannot be made: {error}")
        return self._is_up

    async def _until_lost(self) -> bool:
        """Wait for the end of the attempt that is up. False: the party closes, and the keeper with it."""
        attempt = self._attempt
        assert attempt is not None
        self._redial.link_is_up()
        clean, cause = await attempt.ended
        self._is_up = False
        self._report.ended(clean and attempt.link.goodbye_sent, cause)
        if self._is_closing:
            self._end()
            return False
        while not attempt.is_taken:  # noqa: ASYNC110  (a worker that opens its rings tells nobody)
            await asyncio.sleep(UNTAKEN_LOOK_S)
        attempt.close()
        if dials(self._our_name, self._peer.name):
            await self._redial.pause(clean)
        return True

    def _fail(self, code: str, message: str) -> None:
        self._report.failed(code, message)
        self._end()

    async def _bring_up(self) -> None:
        """Make attempts until all connections of one stand; its lanes are announced.

        Raises:
            ShmError: there is no memory for the rings of the very first link.
        """
        is_dialling = dials(self._our_name, self._peer.name)
        while True:
            try:
                attempt = self._attempt = self._new_attempt()
            except ShmError as error:
                if not self._was_up:
                    raise
                self._report.progress(str(error))
                await asyncio.sleep(AGAIN_S)
                continue
            try:
                if not is_dialling and not self._report.last_cause:
                    when = "again" if self._was_up else "yet"
                    unheard = f"has not dialled us {when}; is it running, and is our address right there?"
                    self._report.progress(f"{self._peer.name} {unheard}")
                dialled = [self._dial(attempt, index) for index in range(self._iris.connections)] if is_dialling else []
                await self._until_up_or_lost(attempt, dialled)
                return
            except GreetingFailed as error:
                self._report.attempt_failed(self._address if is_dialling else "", str(error))
                self._report.progress(str(error))
            finally:
                if not self._is_up:
                    attempt.close()
            await asyncio.sleep(AGAIN_S)

    def _new_attempt(self) -> Attempt:
        """Rings for every connection, and what will move bytes between them and sockets."""
        self._epoch += 1
        self._taken.clear()
        options = self._options
        timeouts = LinkTimeouts(connect_s=options.connect_timeout_s, close_s=options.close_timeout_s)
        link = SilentLink(
            self._our_name,
            self._peer.name,
            self._loop.time(),
            timeouts,
            connections=self._iris.connections,
            epoch=self._epoch,
        )
        attempt = Attempt(link)
        try:
            lane = attempt.control_lane = Lane(
                options.control_ring_size, self._ring_id(0xFFFF), self._fence, self._bells[0]
            )
            for index in range(self._iris.connections):
                attempt.lanes[index] = Lane(options.ring_size, self._ring_id(index), self._fence, self._bells[0])
        except BaseException:
            attempt.close()
            raise
        multiplexer = attempt.multiplexer = SilentMultiplexer(
            self._loop,
            link,
            self._peer.name,
            ControlLane(lane.tx, lane.rx, self._epoch),
            self._doorbell,
            on_up=lambda: self._announce(attempt),
            on_end=attempt.set_ended,
            close_timeout_s=options.close_timeout_s,
            links=len(self._command.peers),
        )
        multiplexer.start()
        return attempt

    def _ring_id(self, connection: int) -> int:
        return self._peer.index << 32 | connection << 1

    async def _until_up_or_lost(self, attempt: Attempt, dials_: list[Coroutine[object, object, None]]) -> None:
        """Return when the link is up.

        Raises:
            GreetingFailed: a connection of it was lost on the way.
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
            raise GreetingFailed(self._peer.name, self._address or self._peer.address, attempt.link.cause)

    # As the dialler.

    async def _dial(self, attempt: Attempt, index: int) -> None:
        """Dial one connection until the peer, which refuses what it does not wait for yet, takes it."""
        peer = self._peer
        dialler = Dialler(self._transport, peer.name, peer.host, peer.port, self._options.client_host)
        while True:
            stream = await dialler.dial(lambda cause: self._dial_failed(dialler, index, cause))
            self._address = stream.peer_address
            try:
                core = dialling(peer.name, self._our_name, index, self._iris)
                received = await greet(stream, core, peer.name)
            except GreetingFailed as error:
                self._report.progress(f"{error} (a party that is not waiting for us yet does so, too)")
                dialler.lost()
                await dialler.back_off()
                continue
            self._attach(attempt, stream, index, received)
            return

    def _dial_failed(self, dialler: Dialler, index: int, cause: str) -> None:
        if index == 0:
            self._report.dial_failed(dialler.state, cause)
        else:
            self._report.progress(cause)

    # As the acceptor.

    def _on_accepted(self) -> None:
        """The gateway hands over connections of whoever claimed the peer's name."""
        assert self._gateway is not None
        try:
            for _ in range(ACCEPT_BATCH):
                if (received := self._gateway.try_receive()) is None:
                    return
                command, fds = received
                if not isinstance(command, Accepted) or len(fds) != 1:
                    close_all(fds)
                    continue
                self._take_connection(command.preamble, socket.socket(fileno=fds[0]))
        except (ControlClosed, CommandError):
            self._loop.remove_reader(self._gateway.fileno())

    def _take_connection(self, introduction: bytes, sock: socket.socket) -> None:
        """A connection that nobody waits for is closed, as that stack does; an honest dialler comes again."""
        try:
            index = introduction_untrusted(introduction).connection
        except LinkProtocolError:
            sock.close()
            return
        attempt = self._attempt
        is_ours = index < self._iris.connections
        if not is_ours and not self._has_refused and not self._is_up:
            self._has_refused = True
            name, count = self._peer.name, self._iris.connections
            self._report.progress(f"{name} dials more connections than the {count} that [compat.{name}] has here")
        waits = attempt is not None and attempt.link.state is LinkState.ATTACHING and index not in self._taken
        if attempt is None or not is_ours or not waits:
            sock.close()
            return
        try:
            tcp.tune(sock)
        except OSError:
            sock.close()  # gone already
            return
        stream = tcp.TcpStream(sock, self._loop)
        self._taken.add(index)
        self._spawn(self._accept(attempt, stream, index), stream)

    async def _accept(self, attempt: Attempt, stream: Stream, index: int) -> None:
        try:
            received = await greet(stream, accepting(self._peer.name, self._iris), self._peer.name)
        except GreetingFailed as error:
            self._report.stranger_failed(str(error), self._loop.time())
            if attempt is self._attempt:
                self._taken.discard(index)
            return
        self._address = stream.peer_address
        self._attach(attempt, stream, index, received)

    # As either.

    def _attach(self, attempt: Attempt, stream: Stream, index: int, received: bytes) -> None:
        multiplexer = attempt.multiplexer
        if multiplexer is None or attempt.link.state is not LinkState.ATTACHING:
            stream.close()
            return
        lane = attempt.lanes[index]
        multiplexer.add(ConnectionPump(multiplexer, stream, lane.tx, lane.rx, index, self._epoch), received)

    def _announce(self, attempt: Attempt) -> None:
        """The link is up: give our one worker its lanes."""
        assert attempt.control_lane is not None
        self._is_up = self._was_up = True
        attempt.up.set_result(None)
        is_dialling = dials(self._our_name, self._peer.name)
        self._report.opened(LinkEventKind.CONNECTED if is_dialling else LinkEventKind.ACCEPTED, self._address)
        fds = [*self._doorbell.fds]
        for lane in (*(attempt.lanes[index] for index in sorted(attempt.lanes)), attempt.control_lane):
            fds += lane.fds
        lanes = Lanes(
            worker=0,
            peer=self._peer.index,
            epoch=self._epoch,
            peer_workers=1,
            connections=sorted(attempt.lanes),
            connection_count=len(attempt.lanes),
            control=True,
            message_size_max=self._options.message_size_max,
        )
        self._home.tell(lanes, fds)
