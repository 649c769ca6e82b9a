"""The link to a peer that speaks the protocol of iris-mpc's TCP stack: all of its connections at once, or none.

Between the life of the link (`keeper`) and one such peer; what `link_keeper` is for other links. The one invariant: a
connection belongs to one attempt, and each place of an attempt is taken once.

    make rings -> dial or be dialled C times -> up

There is no control connection: how many connections there are stands in the configuration, nobody says hello, and each
connection is dialled until the peer takes it. A connection that is lost before all of them stand ends the attempt, and
all are made anew.

Nobody proves a name here: whoever reaches our address and claims the peer's gets its connection.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from . import tcp
from .commands import LinkEventKind
from .control_lane import ControlLane
from .errors import LinkProtocolError
from .greeting import GreetingFailed, greet
from .iris_handshake import accepting, dialling, introduction_untrusted
from .keeper import Keeper
from .link import LinkState, LinkTimeouts
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
        self._taken: set[int] = set()  # connections of the attempt that were accepted
        self._address = ""  # where the peer is, once a connection to it stands
        self._has_refused = False  # whether a connection was told of that the peer should not dial

    def _check_files(self) -> None:
        """It needs none."""

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
            links=len(self._command.peers),
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
                received = await greet(stream, dialling(name, self._our_name, index, self._iris), name)
            except GreetingFailed as error:
                self._report.progress(f"{error} (a party that is not waiting for us yet does so, too)")
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

    # As the acceptor.

    def _take_connection(self, beginning: bytes, sock: socket.socket) -> None:
        """A connection that nobody waits for is closed, as that stack does; an honest dialler comes again."""
        try:
            index = introduction_untrusted(beginning).connection
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
        self._add_connection(attempt, stream, index, received)
