"""What a link says of itself to the supervisor: why it is not up yet, what happened to it, how it ended.

Between the keeper of one link and its I/O process. The one invariant: whatever was told to be CONNECTED or ACCEPTED is
told to be CLOSED once, before the LinkEnded of its epoch or the LinkFailed that is the last word.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Protocol

from .commands import LinkEnded, LinkEventKind, LinkFailed, LinkNews, LinkProgress
from .connection import ConnectionState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .bulk_commands import BulkFailed, BulkLane
    from .commands import Lanes, LinkClaimed
    from .topology import PeerSpec


STRANGERS_INTERVAL_S: Final = 0.5
"""Least time between two causes that strangers gave: each says another port, and the opener may be computing."""


class Home(Protocol):
    """The I/O process, as its links see it."""

    def tell(
        self,
        message: LinkProgress | LinkFailed | LinkEnded | LinkNews | LinkClaimed | Lanes | BulkLane | BulkFailed,
        fds: Sequence[int] = (),
    ) -> None:
        """Send to the supervisor."""

    def fail(self, error: BaseException) -> None:
        """A bug: better no process than one that serves half a link. It ends, and with it all of its links."""


class LinkReport:
    """The words of one link. Driven by its keeper."""

    def __init__(self, home: Home, peer: PeerSpec) -> None:
        self._home = home
        self._peer = peer
        self._open_at: str | None = None  # the peer's address while a connection stands that was told of
        self._strangers_at = -math.inf  # when the next stranger may be told of
        self.last_cause = ""
        """Why the link is not up yet, as last said."""

    def progress(self, cause: str) -> None:
        """The link is not up yet, because of `cause`; said when it changes."""
        if cause != self.last_cause:
            self.last_cause = cause
            self._home.tell(LinkProgress(self._peer.index, cause))

    def stranger_failed(self, cause: str, now: float) -> None:
        """A connection that was dialled to us did not become the peer's. Of a crowd of them few are told, so that it
        cannot fill what the opener has to read."""
        if now < self._strangers_at:
            self.last_cause = cause
            return
        self._strangers_at = now + STRANGERS_INTERVAL_S
        self.progress(cause)

    def dial_failed(self, state: ConnectionState, cause: str) -> None:
        """An attempt of a dialler, now in `state`, came to nothing; there will be another."""
        unresolved = state is ConnectionState.RESOLVING_FAILED
        kind = LinkEventKind.RESOLVE_FAILED if unresolved else LinkEventKind.CONNECT_FAILED
        self._news(kind, self._peer.address, cause)
        self.progress(cause)

    def opened(self, kind: LinkEventKind, address: str) -> None:
        """The control connection stands and its handshake is done: ACCEPTED or CONNECTED."""
        self._open_at = address
        self._news(kind, address)

    def attempt_failed(self, dialled: str, cause: str) -> None:
        """The link did not come up this time. `dialled`: where a connection stood that we had dialled, or nothing; one
        whose handshake failed is one that did not come about. Of one that a stranger dialled nothing was said."""
        if self._open_at is None and dialled:
            self._news(LinkEventKind.CONNECT_FAILED, dialled, cause)
        self._closed(cause)

    def failed(self, code: str, message: str) -> None:
        """The link will not come up: its last word."""
        self._closed(message)
        self._home.tell(LinkFailed(self._peer.index, code, message))

    def ended(self, clean: bool, cause: str) -> None:
        """The link was up and is over; another epoch may follow."""
        self._closed("" if clean else cause)
        self.last_cause = ""
        self._home.tell(LinkEnded(self._peer.index, clean, cause))

    def _closed(self, cause: str) -> None:
        if self._open_at is not None:
            self._news(LinkEventKind.CLOSED, self._open_at, cause)
            self._open_at = None

    def _news(self, kind: LinkEventKind, address: str, cause: str = "") -> None:
        self._home.tell(LinkNews(self._peer.index, kind.value, address, cause))
