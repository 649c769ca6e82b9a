"""Keeps the link of two pools that have introduced themselves.

Between a pair, which knows who the peer is, and the life that every link has (`keeper`). The one invariant: on a
secured pool no connection becomes the link's whose other end has not shown the certificate that was seen in the
introduction.

What differs from a link of two parties: there is no set of parties, no time within which it must be up, nothing that
ends it for good but the pair, and what the peer dials is handed over by a call.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..callers import Callers
from ..guard import Guard
from ..link_keeper import PEER_AT_ONCE, LinkKeeper

if TYPE_CHECKING:
    import asyncio
    import socket

    from partywire.shm.doorbell import Bell
    from partywire.shm.fence import Fence

    from ..commands import OpenLinks
    from ..handshake_messages import Hello
    from ..link_report import Home
    from ..transport import Transport
    from .pool_tls import PairTls


class PairKeeper(LinkKeeper):
    """Driven like a Keeper, and by its pair."""

    has_bulk = False

    def __init__(
        self,
        home: Home,
        loop: asyncio.AbstractEventLoop,
        command: OpenLinks,
        bell: Bell,
        fence: Fence,
        transport: Transport,
        tls: PairTls | None,
        links: int,
    ) -> None:
        """`command` is of two parties, us and the peer as party 1; `links` are served by this process."""
        super().__init__(home, loop, command, 1, [bell], fence, None, transport)
        self._was_up = True  # no attempt is the last
        self._links_here = links
        self._callers = Callers(links, PEER_AT_ONCE)
        security = command.options.security[1]
        self._guard = Guard(loop, self._our_name, self._peer.name, security, tls)

    @property
    def is_standing(self) -> bool:
        """Whether the link is up."""
        return self._standing is not None

    @property
    def last_heard(self) -> float:
        """When the peer gave its last sign of life, on the loop's clock; 0 while there is no link."""
        return self._attempt.link.last_heard if self._standing is not None and self._attempt is not None else 0.0

    def ask_for_sign_of_life(self) -> None:
        """Whatever the peer answers moves `last_heard`."""
        if (multiplexer := self._standing) is not None:
            multiplexer.ask_for_sign_of_life()

    def take_accepted(self, beginning: bytes, sock: socket.socket) -> None:
        """Somebody dialled our link, beginning with this preamble. Owns the socket."""
        self._take_connection(beginning, sock)

    def abandon(self, cause: str) -> None:
        """End for good, without a goodbye: lanes are told the cause, then `run` returns."""
        self._is_closing = True
        if (multiplexer := self._standing) is not None:
            multiplexer.lose(cause)
        else:
            self._end()

    def _hello(self) -> Hello:
        return replace(super()._hello(), party_set=())
