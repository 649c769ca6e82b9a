"""The link to a party of ours: dials or is dialled, greets, and attaches the connections that both ends agreed on.

Between the life of the link (`keeper`) and one peer (sockets). The one invariant: whoever is greeted or attached has
passed the link's guard, and only one control connection at a time can become the link's.

    dial or be dialled -> greet -> make rings -> attach C connections -> up
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, ClassVar, Final

from partywire.shm.errors import ShmError

from . import limits, tcp
from .allowance import Allowance
from .bulk_connections import BulkConnections
from .callers import Callers
from .channel.errors import CredentialError
from .channel.link_security import PROVING_MODES, security_of
from .commands import LinkEventKind
from .control_lane import ControlLane
from .errors import HandshakeRejected, PartyWireError, RejectCode
from .greeting import GreetingFailed, dismiss, greet
from .guard import Guard
from .handshake import Attach, Handshake, Role
from .hello import hello_of
from .keeper import Keeper
from .link import Link, LinkState
from .link_events import LinkTimeouts
from .multiplexer import Multiplexer
from .preamble import ConnectionClass, Preamble
from .topology import routing_tag

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from partywire.shm.doorbell import Bell
    from partywire.shm.fence import Fence

    from .attempt import Attempt
    from .bulk_commands import OpenBulk
    from .commands import OpenLinks
    from .control_socket import ControlSocket
    from .dialler import Dialler
    from .handshake import HandshakeResult
    from .handshake_messages import Hello
    from .link_report import Home
    from .link_substreams.connection import LinkConnection
    from .stat_page import Value
    from .transport import Stream, Transport

DUPLICATE_GRACE_S: Final = 0.3
"""How long a second control connection waits before it is refused: the end of file of the first one, whose process was
restarted, may be a moment behind on its own socket; or the first one is asked for a sign of life, and gives none."""

GREETED_WHILE_UP_PER_S: Final = 20
"""Connections that are greeted while the link stands; others are closed. Then strangers dial, whose handshakes would
take time from the messages of the link, or a peer that was started again before we have noticed: it dials again."""

PEER_AT_ONCE: Final = 1 + limits.CONNECTIONS_MAX
"""What a peer may attach at once."""

_MISFITS: Final = frozenset({RejectCode.VERSION, RejectCode.PARTY_SET, RejectCode.PARAMETERS})
"""What an honest peer can be refused for until somebody changes its configuration or ours. Anything else that is wrong
with a handshake behind our routing tag is a stranger's doing and ends nothing but its connection."""


class LinkKeeper(Keeper):
    """Driven like a Keeper."""

    multiplexer_type: ClassVar[type[Multiplexer]] = Multiplexer
    """What serves the link of a subclass while it stands."""

    has_bulk: ClassVar[bool] = True
    """Whether the peer may dial bulk connections."""

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
        super().__init__(home, loop, command, peer, bells, fence, gateway, transport)
        self._guard = Guard(loop, self._our_name, self._peer.name, security_of(self._options.security, peer))
        self._callers = Callers(len(command.peers), PEER_AT_ONCE)
        self._greeted_while_up = Allowance(GREETED_WHILE_UP_PER_S)
        self._greetings = 0  # of accepted control connections, under way
        self._brittle: frozenset[int] = frozenset()  # connections that broke soon in the last epoch
        self._bulk = BulkConnections(home, peer, self._options, bells, fence, self._dropped)
        self._clock: Callable[[], float] = time.monotonic  # for substreams; a loop's own may have milliseconds only
        self._peers_fault: PartyWireError | None = None
        if self._options.substreams:
            try:
                self._open_peers()
            except PartyWireError as error:
                self._peers_fault = error  # told when the link is to be made

    def _open_peers(self) -> None:
        from .link_substreams.link_peers import LinkPeers  # only here: most parties have none
        from .named_handlers import load_handlers

        peers = LinkPeers(self._loop, self._peer, self._options, self._home.tell)
        for protocol, handler in load_handlers(self._options.protocols).items():
            peers.serve(protocol, handler)
        self.peers = peers
        self._peers_fault = None

    def stat_values(self) -> list[Value]:
        """What only this process knows of the link, for who reads figures; of one that is over there is nothing."""
        if self._standing is None or self._attempt is None:
            return []
        from .stat_page import Value  # only here: most parties are never watched

        heard_ns = int(self._attempt.link.last_heard * 1e9)  # the loop's clock is CLOCK_MONOTONIC
        return [Value("link_heartbeat_age_seconds", (("peer", self._peer.name),), heard_ns)]

    def _check_files(self) -> None:
        self._guard.check()
        if self._peers_fault is not None:
            raise self._peers_fault

    def _new_link(self) -> Link:
        options = self._options
        timeouts = LinkTimeouts(
            connect_s=options.connect_timeout_s,
            heartbeat_interval_s=options.heartbeat_interval_s,
            heartbeat_timeout_s=options.heartbeat_timeout_s,
            close_s=options.close_timeout_s,
        )
        return Link(self._our_name, self._peer.name, self._loop.time(), timeouts)

    async def _make_link(self, attempt: Attempt, dialler: Dialler) -> None:
        if self._peers_fault is not None:
            self._open_peers()
        if self._is_dialling:
            await self._dial_link(attempt, dialler)
        else:
            await self._wait_for_link(attempt)

    async def _pause(self, dialler: Dialler) -> None:
        if self._is_dialling:
            await dialler.back_off()

    def _hello(self) -> Hello:
        return hello_of(self._command.party, self._peer.name, self._command.workers, self._options, self._epoch)

    # As the initiator.

    async def _dial_link(self, attempt: Attempt, dialler: Dialler) -> None:
        stream = await dialler.dial(lambda cause: self._report.dial_failed(dialler.state, cause))
        attempt.dialled = stream.peer_address
        if isinstance(stream, tcp.TcpStream):
            stream.bound_unacknowledged(self._options.heartbeat_timeout_s)
            self._make_way(stream)
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
        stream = await self._new_dialler().dial(self._report.progress)
        stream, received = await self._attach(attempt, stream, ConnectionClass.NORMAL, index)
        self._add_connection(attempt, stream, index, received)

    async def _dial_bulk(self, attempt: Attempt, dialler: Dialler, index: int) -> tuple[Stream, bytes]:
        return await self._attach(attempt, await dialler.attempt(), ConnectionClass.BULK, index)

    async def _attach(
        self, attempt: Attempt, stream: Stream, class_: ConnectionClass, index: int
    ) -> tuple[Stream, bytes]:
        """Make what was dialled a connection of the link; returns what protects it and what came behind."""
        result = attempt.result
        assert result is not None
        preamble = self._preamble(class_, index)
        stream, opening = await self._guard.admit_dialled(stream, preamble)
        core = Attach(
            Role.INITIATOR, self._our_name, self._peer.name, result.epoch, result.secret, index, class_, preamble
        )
        return stream, await greet(stream, core, self._peer.name, opening)

    def _make_way(self, stream: tcp.TcpStream) -> None:
        """A control connection may carry substreams, which must not delay heartbeats."""
        if self._options.substreams:
            stream.bound_unsent()

    def _preamble(self, class_: ConnectionClass, index: int) -> bytes:
        return Preamble(class_, index, routing_tag(self._peer.name, self._our_name), self._guard.mode).encode()

    # As the responder.

    async def _wait_for_link(self, attempt: Attempt) -> None:
        self._say_waiting()
        await attempt.greeted.wait()
        if attempt.failure is not None:
            raise attempt.failure
        await self._until_up_or_lost(attempt, [])

    def _take_connection(self, beginning: bytes, sock: socket.socket) -> None:
        preamble = Preamble.decode_untrusted(beginning)
        assert preamble is not None  # the gateway routes complete ones only
        is_control = preamble.connection_class is ConnectionClass.CONTROL
        try:
            tcp.tune(sock, self._options.heartbeat_timeout_s if is_control else None)
        except OSError:
            sock.close()  # gone already
            return
        stream = tcp.TcpStream(sock, self._loop)
        if is_control:
            self._make_way(stream)
        self.take_stream(preamble, beginning, stream)

    def take_stream(self, preamble: Preamble, received: bytes, stream: Stream) -> None:
        """Greet whoever dialled `stream` and began with `preamble`, whose bytes are `received`. Owns the stream."""
        if self._standing is not None and not self._greeted_while_up.take(self._loop.time()):
            stream.close()  # a stranger's, most likely
            return
        if preamble.connection_class is ConnectionClass.CONTROL:
            task = self._spawn(self._accept_link(stream, received), stream)
        elif preamble.connection_class is ConnectionClass.NORMAL:
            task = self._spawn(self._accept_connection(stream, preamble.index, received), stream)
        elif preamble.connection_class is ConnectionClass.BULK and self.has_bulk:
            task = self._spawn(self._accept_bulk(stream, preamble.index, received), stream)
        else:
            stream.close()
            return
        self._callers.enter(task, stream.peer_address)

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
            received = await greet(stream, core, self._peer.name, is_dialler=False)
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
            self._callers.prove(task)
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
        received = await self._greet_attaching(attempt, stream, ConnectionClass.NORMAL, index, preamble)
        if received is None:
            return
        if attempt.link.refusal_of_attach_untrusted(index) is None and attempt.link.state is LinkState.ATTACHING:
            self._add_connection(attempt, stream, index, received)
        else:
            stream.close()

    async def _accept_bulk(self, stream: Stream, index: int, preamble: bytes) -> None:
        if (admitted := await self._admit(stream, preamble)) is None:
            return
        stream = admitted
        attempt = self._attempt
        number = index + (attempt.link.connections if attempt is not None else 0)
        if attempt is None or not await self._bulk.until_wanted(attempt, number):
            stream.close()
            return
        received = await self._greet_attaching(attempt, stream, ConnectionClass.BULK, index, preamble)
        if received is not None:
            self._bulk.join(attempt, stream, number, received)

    async def _greet_attaching(
        self, attempt: Attempt, stream: Stream, class_: ConnectionClass, index: int, preamble: bytes
    ) -> bytes | None:
        """Have a dialler prove that it holds the link's secret. None: it does not, and the stream is closed."""
        result = attempt.result
        assert result is not None
        core = Attach(
            Role.RESPONDER, self._our_name, self._peer.name, result.epoch, result.secret, index, class_, preamble
        )
        try:
            return await greet(stream, core, self._peer.name, is_dialler=False)
        except (HandshakeRejected, GreetingFailed) as error:
            self._report.stranger_failed(str(error), self._loop.time())
            return None

    # As either.

    def open_bulk(self, command: OpenBulk) -> None:
        """Our opener needs bulk connections: dial those that do not stand yet, or let the peer dial them."""
        attempt = self._attempt
        if self._standing is None or attempt is None:
            return
        if (command.peer, command.epoch) == (self._peer.index, attempt.link.epoch):
            for number in self._bulk.want(attempt, command, we_dial=self._is_dialling):
                self._spawn(self._bulk.dial(attempt, self._new_dialler(), number, self._dial_bulk))

    def _begin_attaching(self, attempt: Attempt, stream: Stream, result: HandshakeResult, received: bytes) -> None:
        """The peer is known: make the rings, and serve the control connection from now on."""
        self._epoch = result.epoch + 1
        try:
            attempt.link.greeted(self._loop.time(), result)
            has_substreams = self.peers is not None and result.substreams
            lane = self._make_lanes(attempt, result.connections, has_substreams=has_substreams)
        except BaseException:
            stream.close()
            raise
        connection, control = self._divide(attempt, stream, result)
        attempt.multiplexer = self.multiplexer_type(
            self._loop,
            attempt.link,
            self._peer.name,
            control,
            ControlLane(lane.tx, lane.rx, result.epoch),
            self._doorbell,
            on_up=lambda: self._link_up(attempt, result),
            on_end=lambda clean, cause: self._multiplexer_ended(attempt, clean, cause),
            close_timeout_s=self._options.close_timeout_s,
            neighbours=self.neighbours,
            brittle=self._brittle,
        )
        attempt.result = result
        if connection is None:
            attempt.multiplexer.start(received)
        else:
            attempt.multiplexer.start()
            connection.start(received)
        attempt.greeted.set()

    def _link_up(self, attempt: Attempt, result: HandshakeResult) -> None:
        self._announce(attempt, result.peer.workers, result.message_size_max)
        if (lane := attempt.substream_lane) is not None and self.peers is not None:
            from .worker_bridge.link_bridge import LinkBridge  # as in `_open_peers`

            attempt.bridge = LinkBridge(self._loop, lane, result.epoch, self.peers)
            attempt.bridge.start()

    def _divide(
        self, attempt: Attempt, stream: Stream, result: HandshakeResult
    ) -> tuple[LinkConnection | None, Stream]:
        """The control connection as a carrier of substreams, where it is one, and what the control codec speaks on."""
        peers = self.peers
        if peers is None:
            return None, stream
        if not result.substreams:
            peers.begin_without()
            return None, stream
        from .link_substreams.dividing import divide  # as in `_open_peers`

        connection, control = divide(
            self._loop,
            stream,
            attempt.link,
            peer=self._peer.name,
            is_dialler=self._is_dialling,
            heartbeat_timeout_s=self._options.heartbeat_timeout_s,
            close_timeout_s=self._options.close_timeout_s,
            clock=self._clock,
            on_substream=lambda reader, writer: peers.offer(connection, reader, writer),
        )
        peers.begin(connection, result.secret, result.epoch, is_dialler=self._is_dialling)
        return connection, control

    def _close(self) -> None:
        super()._close()
        if self.peers is not None:
            self.peers.close()

    def _multiplexer_ended(self, attempt: Attempt, clean: bool, cause: str) -> None:
        if attempt.multiplexer is not None:
            self._brittle = attempt.multiplexer.broken_early
        attempt.end_bridge(clean, cause)
        attempt.set_ended(clean, cause)
