"""What `tno.mpc.communication.pool` has: our Pool with the attributes and the errors that programs for 4.x look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import UnknownPeer
from ..pool.pool import Pool as PartyWirePool
from .httphandlers import HTTPClient, HTTPServer

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Pool"]


class UnknownHandler(UnknownPeer, AttributeError, KeyError):  # type: ignore[misc]
    """Raised when there is no handler of a name: by some calls of 4.x as AttributeError, by others as KeyError."""

    __str__ = UnknownPeer.__str__


class Pool(PartyWirePool):
    """See partywire.Pool. What differs from tno.mpc.communication stands in docs/migration.md."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.http_server: HTTPServer | None = None
        # In the order in which they were added; empty after shutdown.
        self.pool_handlers: dict[str, HTTPClient] = {}

    def add_http_server(self, port: int | None = None, addr: str = "0.0.0.0", external_port: int | None = None) -> None:
        """See partywire.Pool."""
        super().add_http_server(port, addr, external_port)
        assert self.port is not None
        self.http_server = HTTPServer(self, addr, self.port, external_port)

    def _new_client(self, name: str, addr: str | None, port: int | None, cert: Path | None) -> HTTPClient:
        client = self.pool_handlers[name] = HTTPClient(self, name, addr, port, cert)
        return client

    def _unknown(self, name: object) -> Exception:
        error = UnknownPeer.of(name, self.peers)
        return UnknownHandler(*error.args)

    async def shutdown(self) -> None:
        """See partywire.Pool."""
        try:
            await super().shutdown()
        finally:
            self.pool_handlers.clear()
