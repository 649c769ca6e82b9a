"""One link of an I/O process: makes it, and makes it anew whenever it was lost, until the party closes.

Between the I/O process, which serves one or several links in one event loop, the workers (rings and doorbells) and one
peer (sockets). The one invariant: there is one attempt at a time, no two have the same epoch, and none begins before
every lane of the one before has its STREAM_END and LinkEnded has told the supervisor.

    dial or be dialled -> greet -> make rings -> attach C connections -> Lanes -> multiplex -> LinkEnded -> again

An attempt that is lost before the link is up is followed by another one, with a greater epoch and new rings. The first
time the link must be up before the connect timeout has passed, or be possible at all, else LinkFailed is the last word.
From then on nothing but the end of the party ends the attempts: whatever happened, a refusal included, a restart of the
peer may put right. Only one side dials, and it backs off; the other one waits. Nothing here knows of the other links of
the process: one that fails disturbs none.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, Final

from partywire.shm.doorbell import Doorbell
from partywire.shm.errors import ShmError

from . import limits, tcp
from .antechamber import Antechamber, origin_of
from .attempt import Attempt, Lane
from .channel.errors import CredentialError
from .channel.link_security import PROVING_MODES, security_of
from .commands import (
    Accepted,
    CommandError,
    Lanes,
    LinkEventKind,
)
from .connection_pump import ConnectionPump
from .control_lane import ControlLane
from .control_socket import ControlClosed, close_all
from .dialler import DialFailed, Dialler
from .errors import HandshakeRejected, RejectCode
from .greeting import GreetingFailed, dismiss, greet
from .guard import Guard
from .handshake import Attach, Handshake, Role
from .hello import hello_of
from .link import Link, LinkState, LinkTimeouts
from .link_report import LinkReport
from .multiplexer import Multiplexer
from .preamble import ConnectionClass, Preamble
from .redial import Redial
from .topology import dials, routing_tag, worker_of_connection

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from partywire.shm.doorbell import Bell
    from partywire.shm.fence import Fence

    from .commands import OpenLinks
    from .control_socket import ControlSocket
    from .errors import PartyWireError
    from .handshake import HandshakeResult
    from .handshake_messages import Hello
    from .link_report import Home
    from .stat_page import Value
    from .transport import Stream, Transport

DUPLICATE_GRACE_S: Final = 0.3
"""How long a second control connection waits before it is refused: the end of file of the first one, whose process was
restarted, may be a moment behind on its own socket; or the first one is asked for a sign of life, and gives none."""

ACCEPTED_MAX: Final = 64
"""Accepted connections in a handshake at one time: four times what a link has. A routing tag is no secret, so anybody
may claim to be our peer; beyond this one that claimed it earlier is closed."""

ACCEPTED_MIN: Final = 24
"""The same where a process serves many links, whose descriptors are of one process: all connections of a link fit."""

ACCEPTED_PROCESS_MAX: Final = 128
"""The same over all links of a process; each costs two descriptors, of which there are 1,024 by default."""

ACCEPT_BATCH: Final = 16
"""Accepted connections taken in one turn of the loop, so that a crowd of them delays no message for long."""

_PEER_AT_ONCE: Final = 1 + limits.CONNECTIONS_MAX
"""What a peer may attach at once, all from one address."""

_MISFITS: Final = frozenset({RejectCode.VERSION, RejectCode.PARTY_SET, RejectCode.PARAMETERS})
"""What an honest peer can be refused for until somebody changes its configuration or ours. Anything else that is wrong
with a handshake behind our routing tag is a stranger's doing and ends nothing but its connection."""

UNTAKEN_MAX: Final = 2
"""Epochs that are over and whose lanes some worker, deep in a computation, has not taken yet. A link that is made anew
again and again would else fill memory with rings that nobody looks at, and control sockets with word of them."""

UNTAKEN_LOOK_S: Final = 0.05
"""Between two looks whether a worker has taken its lanes. Nobody could use the link meanwhile."""

EXIT_TIMEOUT_S: Final = 0.5
"""For tasks that were cancelled at the end."""


class LinkKeeper:
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
        self._guard = Guard(loop, self._our_name, self._peer.name, security_of(self._options.security, peer))
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
        self._untaken: list[Attempt] = []  # that are over, with lanes that some worker has not taken yet
        self._redial = Redial(loop.time)
        self._report = LinkReport(home, self._peer)
        self._dropped: set[int] = set()  # workers that died
        self._tasks: set[asyncio.Task[None]] = set()
        places = max(ACCEPTED_MIN, min(ACCEPTED_MAX, ACCEPTED_PROCESS_MAX // len(command.peers)))
        self._accepted: Antechamber[asyncio.Task[None]] = Antechamber(places, max(places // 2, _PEER_AT_ONCE))
        self._proven: Antechamber[asyncio.Task[None]] = Antechamber(places, places)  # no stranger moves them
        self._greetings = 0  # of accepted control connections, under way
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
                self._loop.remove_reader(self._gateway.fileno())  # what is accepted from now on would begin anew
            await self._cancel_tasks()
            self._close()

    def begin_close(self) -> None:
        """The party closes: a link that is up says goodbye first, any other is given up."""
        self._is_closing = True
        if (multiplexer := self._standing) is not None:
            multiplexer.begin_close()
        else:
            self._end()

    def replace_worker(self, index: int) -> None:
        """A worker died, and another one took its place: the link is made anew, since rings are never repaired."""
        self._free_untaken()
        if (multiplexer := self._standing) is not None:
            multiplexer.lose(f"worker {index} of {self._our_name} died")

    def drop_worker(self, index: int) -> None:
        """A worker died for good: its connections break, and its lanes count as finished."""
        self._dropped.add(index)
        self._free_untaken()
        if (multiplexer := self._standing) is not None:
            multiplexer.drop_worker(index, self._command.workers)

    def stat_values(self) -> list[Value]:
        """What only this process knows of the link, for who reads figures; of one that is over there is nothing."""
        if self._standing is None or self._attempt is None:
            return []
        from .stat_page import Value  # only here: most parties are never watched

        heard_ns = int(self._attempt.link.last_heard * 1e9)  # the loop's clock is CLOCK_MONOTONIC
        return [Value("link_heartbeat_age_seconds", (("peer", self._peer.name),), heard_ns)]

    @property
    def _standing(self) -> Multiplexer | None:
        """The multiplexer from UP to the end of the link; behind it, others of the process may go on for long."""
        is_standing = self._is_up and not self._over.done()
        return self._attempt.multiplexer if is_standing and self._attempt is not None else None

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _spawn(
        self, coroutine: Coroutine[object, object, None], stream: Stream | None = None
    ) -> asyncio.Task[None]:
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
            self._guard.check()
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
        assert self._attempt is not None
        self._redial.link_is_up()
        clean, cause = await self._attempt.ended
        self._is_up = False
        self._report.ended(clean, cause)
        if self._is_closing:
            self._end()
            return False
        self._untaken.append(self._attempt)
        self._attempt = None
        while len(self._untaken) >= UNTAKEN_MAX:
            self._free_taken()
            if len(self._untaken) >= UNTAKEN_MAX:
                await asyncio.sleep(UNTAKEN_LOOK_S)
        if dials(self._our_name, self._peer.name):
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
                if attempt.link.role is Role.INITIATOR:
                    await self._dial_link(attempt, dialler)
                else:
                    await self._wait_for_link(attempt)
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
            if attempt.link.role is Role.INITIATOR:
                await dialler.back_off()

    def _attempt_failed(self, attempt: Attempt, error: PartyWireError | ShmError) -> None:
        self._report.attempt_failed(attempt.dialled, str(error))
        self._report.progress(str(error))

    def _new_dialler(self) -> Dialler:
        return Dialler(self._transport, self._peer.name, self._peer.host, self._peer.port, self._options.client_host)

    def _new_link(self) -> Link:
        options = self._options
        timeouts = LinkTimeouts(
            connect_s=options.connect_timeout_s,
            heartbeat_interval_s=options.heartbeat_interval_s,
            heartbeat_timeout_s=options.heartbeat_timeout_s,
            close_s=options.close_timeout_s,
        )
        return Link(self._our_name, self._peer.name, self._loop.time(), timeouts)

    def _hello(self) -> Hello:
        return hello_of(self._command.party, self._peer.name, self._command.workers, self._options, self._epoch)

    # As the initiator.

    async def _dial_link(self, attempt: Attempt, dialler: Dialler) -> None:
        stream = await dialler.dial(lambda cause: self._report.dial_failed(dialler.state, cause))
        attempt.dialled = stream.peer_address
        if isinstance(stream, tcp.TcpStream):
            stream.bound_unacknowledged(self._options.heartbeat_timeout_s)
        preamble = self._preamble(ConnectionClass.CONTROL, 0)
        stream, opening = await self._guard.admit_dialled(stream, preamble)
        core = Handshake(Role.INITIATOR, self._hello(), preamble)
        attempt.link.greeting_started(self._loop.time())
        received = await greet(stream, core, self._peer.name, opening)
        assert core.result is not None
        self._begin_attaching(attempt, stream, core.result, received)
        self._report.opened(LinkEventKind.CONNECTED, attempt.dialled)
        await self._until_up_or_lost(
            attempt, [self._dial_connection(attempt, index) for index in range(core.result.connections)]
        )

    async def _dial_connection(self, attempt: Attempt, index: int) -> None:
        result = attempt.result
        assert result is not None
        dialler = self._new_dialler()
        stream = await dialler.dial(self._report.progress)
        preamble = self._preamble(ConnectionClass.NORMAL, index)
        stream, opening = await self._guard.admit_dialled(stream, preamble)
        core = Attach(
            Role.INITIATOR, self._our_name, self._peer.name, result.epoch, result.secret, index, preamble=preamble
        )
        received = await greet(stream, core, self._peer.name, opening)
        self._add_connection(attempt, stream, index, received)

    def _preamble(self, class_: ConnectionClass, index: int) -> bytes:
        return Preamble(class_, index, routing_tag(self._peer.name, self._our_name), self._guard.mode).encode()

    # As the responder.

    async def _wait_for_link(self, attempt: Attempt) -> None:
        if not self._report.last_cause:
            name = self._peer.name
            when = "again" if self._was_up else "yet"
            self._report.progress(f"{name} has not dialled us {when}; is it running, and is our address right there?")
        await attempt.greeted.wait()
        if attempt.failure is not None:
            raise attempt.failure
        await self._until_up_or_lost(attempt, [])

    def _on_accepted(self) -> None:
        """The gateway hands over connections of our peer, or of somebody who knows its routing tag."""
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

    def _take_connection(self, received: bytes, sock: socket.socket) -> None:
        preamble = Preamble.decode_untrusted(received)
        assert preamble is not None  # the gateway routes complete ones only
        is_control = preamble.connection_class is ConnectionClass.CONTROL
        try:
            tcp.tune(sock, self._options.heartbeat_timeout_s if is_control else None)
        except OSError:
            sock.close()  # gone already
            return
        self.take_stream(preamble, received, tcp.TcpStream(sock, self._loop))

    def take_stream(self, preamble: Preamble, received: bytes, stream: Stream) -> None:
        """Greet whoever dialled `stream` and began with `preamble`, whose bytes are `received`. Owns the stream."""
        if preamble.connection_class is ConnectionClass.CONTROL:
            task = self._spawn(self._accept_link(stream, received), stream)
        elif preamble.connection_class is ConnectionClass.NORMAL:
            task = self._spawn(self._accept_connection(stream, preamble.index, received), stream)
        else:
            stream.close()
            return
        if (crowded_out := self._accepted.enter(task, origin_of(stream.peer_address))) is not None:
            crowded_out.cancel()
        task.add_done_callback(self._accepted.leave)
        task.add_done_callback(self._proven.leave)

    async def _accept_link(self, stream: Stream, preamble: bytes) -> None:
        """Greet a dialler of the control connection. Several are greeted at a time, since one of them may be a stranger
        that says nothing; whose handshake is done first has the link."""
        if (admitted := await self._admit(stream, preamble)) is None:
            return
        stream = admitted
        asked_at = self._loop.time()
        if self._refusal_of_greeting() is not None:
            if (multiplexer := self._standing) is not None:
                multiplexer.ask_for_sign_of_life()
            await asyncio.sleep(DUPLICATE_GRACE_S)
        core = Handshake(Role.RESPONDER, self._hello(), preamble)
        if (refusal := self._refusal_of_greeting(asked_at)) is not None:
            try:
                core.reject(*refusal)
            except HandshakeRejected:
                await dismiss(stream, core.data_to_send())
            return
        self._greetings += 1
        try:
            received = await greet(stream, core, self._peer.name)
        except HandshakeRejected as error:
            self._greeting_rejected(error)
            return
        except GreetingFailed as error:
            # The next dialler may do better; the attempt goes on waiting for it.
            self._report.stranger_failed(str(error), self._loop.time())
            return
        finally:
            self._greetings -= 1
        attempt, result = self._attempt, core.result
        assert result is not None
        if attempt is None or self._refusal_of_greeting() is not None or result.epoch < self._epoch:
            stream.close()  # another one was faster; this one hears why when it dials again
            return
        attempt.link.greeting_started(self._loop.time())
        try:
            self._begin_attaching(attempt, stream, result, received)
        except ShmError as error:
            attempt.failure = error
            attempt.greeted.set()
        else:
            self._report.opened(LinkEventKind.ACCEPTED, stream.peer_address)

    def _refusal_of_greeting(self, asked_at: float = 0.0) -> tuple[RejectCode, str] | None:
        """`asked_at`: when the peer of the link that is up was asked for a sign of life. One that has not given any may
        be gone, so whoever says that it is the same is to come again."""
        if self._attempt is None:
            return RejectCode.BUSY, "not ready"
        link = self._attempt.link
        refusal = link.refusal_of_greeting()
        if refusal is not None and refusal[0] is RejectCode.DUPLICATE_IDENTITY and link.last_heard < asked_at:
            silent_s = self._loop.time() - link.last_heard
            linked = f"{self._our_name} has been linked with a {self._peer.name}"
            return RejectCode.BUSY, f"{linked} that is silent for {silent_s:.1f} s"
        return refusal

    def _greeting_rejected(self, error: HandshakeRejected) -> None:
        attempt = self._attempt
        if error.by_us and error.code in _MISFITS and attempt is not None and self._refusal_of_greeting() is None:
            attempt.link.rejected(error)
            attempt.failure = error
            attempt.greeted.set()
        else:
            self._report.stranger_failed(str(error), self._loop.time())

    async def _admit(self, stream: Stream, preamble: bytes) -> Stream | None:
        """The accepted stream as the peer's, once its other end has proven to be the peer if it must; else closed."""
        try:
            admitted = await self._guard.admit_accepted(stream, preamble)
        except (GreetingFailed, CredentialError) as error:
            self._report.stranger_failed(str(error), self._loop.time())
            return None
        task = asyncio.current_task()
        if self._guard.mode in PROVING_MODES and task is not None:
            self._accepted.leave(task)
            if (crowded_out := self._proven.enter(task, "")) is not None:
                crowded_out.cancel()
        return admitted

    async def _accept_connection(self, stream: Stream, index: int, preamble: bytes) -> None:
        if (admitted := await self._admit(stream, preamble)) is None:
            return
        stream = admitted
        attempt = self._attempt
        if attempt is not None and attempt.result is None and self._greetings:
            # It overtook the last message of the greeting, which travels on another connection.
            try:
                await asyncio.wait_for(attempt.greeted.wait(), limits.HANDSHAKE_TIMEOUT_S)
            except TimeoutError:
                pass  # refused below
        if attempt is None or attempt.result is None or attempt.link.refusal_of_attach_untrusted(index) is not None:
            # Without the link's secret there is nothing to tell it; its dialler finds out on the control connection.
            stream.close()
            return
        result = attempt.result
        core = Attach(
            Role.RESPONDER, self._our_name, self._peer.name, result.epoch, result.secret, index, preamble=preamble
        )
        try:
            received = await greet(stream, core, self._peer.name)
        except (HandshakeRejected, GreetingFailed) as error:
            self._report.stranger_failed(str(error), self._loop.time())
            return
        if attempt.link.refusal_of_attach_untrusted(index) is None and attempt.link.state is LinkState.ATTACHING:
            self._add_connection(attempt, stream, index, received)
        else:
            stream.close()

    # As either.

    def _begin_attaching(self, attempt: Attempt, stream: Stream, result: HandshakeResult, received: bytes) -> None:
        """The peer is known: make the rings, and serve the control connection from now on."""
        self._epoch = result.epoch + 1
        try:
            attempt.link.greeted(self._loop.time(), result)
            attempt.control_lane = Lane(
                self._options.control_ring_size, self._ring_id(0xFFFF), self._fence, self._bells[0]
            )
            for index in range(result.connections):
                bell = self._bells[worker_of_connection(index, self._command.workers)]
                attempt.lanes[index] = Lane(self._options.ring_size, self._ring_id(index), self._fence, bell)
        except BaseException:
            stream.close()
            raise
        lane = attempt.control_lane
        attempt.multiplexer = Multiplexer(
            self._loop,
            attempt.link,
            self._peer.name,
            stream,
            ControlLane(lane.tx, lane.rx, result.epoch),
            self._doorbell,
            on_up=lambda: self._announce(attempt),
            on_end=attempt.set_ended,
            close_timeout_s=self._options.close_timeout_s,
            links=len(self._command.peers),
        )
        attempt.result = result
        attempt.multiplexer.start(received)
        attempt.greeted.set()

    def _ring_id(self, connection: int) -> int:
        return self._peer.index << 32 | connection << 1

    def _add_connection(self, attempt: Attempt, stream: Stream, index: int, received: bytes) -> None:
        multiplexer, result, lane = attempt.multiplexer, attempt.result, attempt.lanes[index]
        if multiplexer is None or result is None or attempt.link.state is not LinkState.ATTACHING:
            stream.close()
            return
        pump = ConnectionPump(multiplexer, stream, lane.tx, lane.rx, index, result.epoch)
        multiplexer.add(pump, received)

    async def _until_up_or_lost(self, attempt: Attempt, dials_: list[Coroutine[object, object, None]]) -> None:
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
            raise GreetingFailed(self._peer.name, self._peer.host, attempt.link.cause)

    def _announce(self, attempt: Attempt) -> None:
        """The link is up: give every worker its lanes."""
        result = attempt.result
        assert result is not None
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
            lanes = Lanes(
                worker=worker,
                peer=self._peer.index,
                epoch=result.epoch,
                peer_workers=result.peer.workers,
                connections=connections,
                connection_count=result.connections,
                control=worker == 0,
                message_size_max=result.message_size_max,
            )
            self._home.tell(lanes, fds)
        for worker in self._dropped:
            self._loop.call_soon(self.drop_worker, worker)  # it died before the link was up
