"""What `tno.mpc.communication.httphandlers` has, as far as other packages use it. No HTTP is spoken.

`HTTPClient` is what a program finds in `pool.pool_handlers`, and what `serialize` and `deserialize` of its classes get
as `destination` and `origin`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ..pool.client import PoolClient

if TYPE_CHECKING:
    from collections.abc import Hashable
    from pathlib import Path

    from ..pool.peer import Peer
    from .pool import Pool

__all__ = ["HTTPClient", "HTTPServer", "logger"]

logger = logging.getLogger("tno.mpc.communication.httphandlers")


class HTTPClient(PoolClient):
    """A peer. Two are equal if they have the same address, in whichever pool; so they cannot be hashed."""

    def __init__(self, pool: Pool, name: str, addr: str | None, port: int | None, cert: Path | None) -> None:
        super().__init__(name, addr, port, cert)
        self._pool = pool

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, HTTPClient):
            return NotImplemented
        return (self.addr, self.port) == (other.addr, other.port)

    __hash__ = None  # type: ignore[assignment]

    @property
    def _peer(self) -> Peer:
        return self._pool._peer(self.name)

    @property
    def msg_prefix(self) -> str | None:
        """What the ids of messages to and from this peer begin with."""
        return self._peer.prefix or None

    @msg_prefix.setter
    def msg_prefix(self, prefix: str | None) -> None:
        peer = self._peer
        peer.prefix = peer.outbox.prefix = prefix or ""

    @property
    def buffer(self) -> dict[Hashable, Any]:
        """What has arrived and was not received: id -> value. A copy."""
        return self._peer.inbox.unread

    @property
    def msg_send_counter(self) -> int:
        """Messages sent, and so the next automatic id."""
        return self._peer.outbox.places.next

    @property
    def msg_recv_counter(self) -> int:
        """Messages asked for, and so the next automatic id."""
        return self._peer.places.next

    @property
    def total_bytes_sent(self) -> int:
        """Bytes of all messages sent."""
        return self._peer.outbox.bytes_sent


class HTTPServer:
    """Where a pool listens."""

    def __init__(self, pool: Pool, addr: str, port: int, external_port: int | None) -> None:
        self._pool = pool
        self.addr = addr
        self.port = port
        self.external_port = external_port

    @property
    def msg_recv_counter(self) -> int:
        """Messages received, of all peers."""
        return self._pool.stat().total.messages_received

    @property
    def total_bytes_recv(self) -> int:
        """Bytes of them."""
        return self._pool.stat().total.bytes_received

    def __repr__(self) -> str:
        return f"HTTPServer({self.addr}:{self.port})"
