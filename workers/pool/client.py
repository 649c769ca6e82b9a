"""How a pool tells classes who gets or who sent their objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class PoolClient:
    """A peer as `serialize(destination=)` and `deserialize(origin=)` of registered classes see it."""

    def __init__(self, name: str, addr: str | None, port: int | None, cert: Path | None) -> None:
        self.name = name
        self.addr = addr
        self.port = port
        self.cert = cert

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.addr!r}, {self.port!r})"
