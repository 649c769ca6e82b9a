"""The link to a peer that speaks the protocol of iris-mpc's TCP stack: all of its connections at once, or none.

Between the life of the link (`keeper`) and one such peer; what `link_keeper` is for other links. The one invariant: a
connection belongs to one attempt, and each place of an attempt is taken once.

    make rings -> dial or be dialled C times -> up

There is no control connection: how many connections there are stands in the configuration, nobody says hello, and each
connection is dialled until the peer takes it. A connection that is lost before all of them stand ends the attempt, and
all are made anew.

With TLS (`iris_tls`) both ends of each connection prove who they are before anything else is said. Without it nobody
proves a name: whoever reaches our address and claims the peer's gets its connection.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from . import tcp
from .callers import Callers
from .channel.errors import CredentialError
from .channel.link_security import security_of
from .commands import LinkEventKind
from .control_lane import ControlLane
from .errors import HandshakeRejected, LinkProtocolError
from .greeting import GreetingFailed, GreetingFailure, greet
from .handshake import Role
from .iris_handshake import Introducing, accepting, dialling, introduction_untrusted
from .keeper import Keeper
from .link import LinkState
from .link_events import LinkTimeouts
from .silent_link import SilentLink
from .silent_multiplexer import SilentMultiplexer

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from partywire.shm.doorbell import Bell
    from partywire.shm.fence import Fence

    from .attempt import Attempt
    from .commands import OpenLinks
    from .control_socket import ControlSocket
    from .dialler import Dialler
    from .iris_tls import IrisGuard
    from .link_report import Home
    from .transport import Stream, Transport

AGAIN_S: Final = 0.5
"""Pause between two attempts. The peer notices that its connections are gone within a round trip."""


class IrisKeeper(Keeper):
    """Driven like a Keeper."""

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
        assert self._peer.iris is not None
        self._iris = self._peer.iris
        self._guard: IrisGuard | None = None  # of a link that speaks TLS
        if self._iris.tls:
            from .iris_tls import IrisGuard

            self._guard = IrisGuard(loop, self._our_name, self._peer, security_of(self._options.security, peer))
        self._callers = Callers(len(command.peers), self._iris.connections)  # whose TLS or introduction is under way
        self._taken: set[int] = set()  # connections of the attempt that were accepted
        self._address = ""  # where the peer is, once a connection to it stands
        self._has_refused = False  # whether a connection was told of that the peer should not dial

    def _check_files(self) -> None:
        if self._guard is not None:
            self._guard.check()

    def _new_link(self) -> SilentLink:
        self._taken.clear()
        epoch = self._epoch
        self._epoch += 1
        options = self._options
        timeouts = LinkTimeouts(connect_s=options.connect_timeout_s, close_s=options.close_timeout_s)
        now, connections = self._loop.time(), self._iris.connections
        return SilentLink(self._our_name, self._peer.name, now, timeouts, connections=connections, epoch=epoch)

    async def _make_link(self, attempt: Attempt, dialler: Dialler) -> None:
        connections = self._iris.connections
        link = attempt.link
        assert isinstance(link, SilentLink)
        lane = self._make_lanes(attempt, connections)
        attempt.multiplexer = SilentMultiplexer(
            self._loop,
            link,
            self._peer.name,
            ControlLane(lane.tx, lane.rx, link.epoch),
            self._doorbell,
            on_up=lambda: self._on_up(attempt),
            on_end=attempt.set_ended,
            close_timeout_s=self._options.close_timeout_s,
            neighbours=self.neighbours,
        )
        attempt.multiplexer.start()
        if self._is_dialling:
            await self._until_up_or_lost(attempt, [self._dial(attempt, index) for index in range(connections)])
        else:
            self._say_waiting()
            await self._until_up_or_lost(attempt, [])

    async def _pause(self, dialler: Dialler) -> None:
        await asyncio.sleep(AGAIN_S)

    def _on_up(self, attempt: Attempt) -> None:
        self._report.opened(LinkEventKind.CONNECTED if self._is_dialling else LinkEventKind.ACCEPTED, self._address)
        self._announce(attempt, 1, self._options.message_size_max)

    # As the dialler.

    async def _dial(self, attempt: Attempt, index: int) -> None:
        """Dial one connection until the peer, which refuses what it does not wait for yet, takes it."""
        name = self._peer.name
        dialler = self._new_dialler()
        while True:
            stream = await dialler.dial(lambda cause: self._dial_failed(dialler, index, cause))
            attempt.dialled = self._address = stream.peer_address
            try:
                if self._guard is not None:
                    stream = await self._guard.admit(stream, Role.INITIATOR)
                received = await greet(stream, dialling(name, self._our_name, index, self._iris), name)
            except GreetingFailed as error:
                self._report.progress(f"{error}{self._hint(error.kind)}")
                dialler.lost()
                await dialler.back_off()
                continue
            self._add_connection(attempt, stream, index, received)
            return

    def _dial_failed(self, dialler: Dialler, index: int, cause: str) -> None:
        if index == 0:
            self._report.dial_failed(dialler.state, cause)
        else:
            self._report.progress(cause)

    def _hint(self, failure: GreetingFailure) -> str:
        """What else a dial that came to nothing may mean."""
        if failure is not GreetingFailure.CLOSED:
            return ""
        refuses = ", and one that refuses our certificate" if self._guard is not None else ""
        return f" (a party that is not waiting for us yet does so, too{refuses})"

    # As the acceptor.

    def _take_connection(self, beginning: bytes, sock: socket.socket) -> None:
        try:
            tcp.tune(sock)
        except OSError:
            sock.close()  # gone already
            return
        stream = tcp.TcpStream(sock, self._loop)
        if self._guard is not None:
            if self._standing is not None:
                stream.close()  # nobody is waited for, so nobody need prove anything: that would cost a link's time
                return
            task = self._spawn(self._admit(self._guard, stream), stream)
            self._callers.enter(task, stream.peer_address)
            return
        try:
            index = introduction_untrusted(beginning).connection
        except LinkProtocolError:
            stream.close()
        else:
            self._take(stream, index)

    async def _admit(self, guard: IrisGuard, stream: Stream) -> None:
        """Have whoever came by the peer's own port prove to be the peer, and hear which connection it dials."""
        name = self._peer.name
        try:
            stream = await guard.admit(stream, Role.RESPONDER)
            task = asyncio.current_task()
            assert task is not None
            self._callers.prove(task)
            core = Introducing(name)
            await greet(stream, core, name, is_dialler=False)
        except (GreetingFailed, HandshakeRejected, CredentialError) as error:
            self._report.stranger_failed(str(error), self._loop.time())
            return
        introduction = core.result
        assert introduction is not None
        if introduction.name != name:
            stream.close()
            said = f"{name} has proven to be {name}, and calls itself {introduction.name!r}"
            self._report.stranger_failed(said, self._loop.time())
        else:
            self._take(stream, introduction.connection)

    def _take(self, stream: Stream, index: int) -> None:
        """Accept connection `index` if the attempt waits for it, else close it, as that stack does; an honest dialler
        comes again."""
        attempt = self._attempt
        count = self._iris.connections
        if index >= count and not self._has_refused and not self._is_up:
            self._has_refused = True
            name = self._peer.name
            self._report.progress(f"{name} dials more connections than the {count} that [compat.{name}] has here")
        is_awaited = index < count and index not in self._taken
        if attempt is None or attempt.link.state is not LinkState.ATTACHING or not is_awaited:
            stream.close()
            return
        self._taken.add(index)
        self._spawn(self._accept(attempt, stream, index), stream)

    async def _accept(self, attempt: Attempt, stream: Stream, index: int) -> None:
        try:
            core = accepting(self._peer.name, self._iris)
            received = await greet(stream, core, self._peer.name, is_dialler=False)
        except GreetingFailed as error:
            self._report.stranger_failed(str(error), self._loop.time())
            if attempt is self._attempt:
                self._taken.discard(index)
            return
        self._address = stream.peer_address
        self._add_connection(attempt, stream, index, received)
