"""Groups of pools in one process, for the fixtures of pytest_plugin.py.

The one invariant: every pool that was made is ended by `end`, with its processes and ports, whatever the test did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .memory_links import MemoryNetwork
from .pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CERTIFICATE_DAYS = 1
LOOPBACK = "127.0.0.1"


class PoolGroups:
    """Makes groups of pools until `end`."""

    def __init__(self, links: str, folder: Callable[[], Path], pool_type: Callable[..., Any] = Pool) -> None:
        """`folder()`: where keys and certificates are written, if there are any."""
        self._links = links
        self._folder = folder
        self._pool_type = pool_type
        self._made: list[Any] = []

    def make(self, count: int) -> tuple[Any, ...]:
        """A new group of `count` pools that know each other as local0, local1 ...

        Raises:
            ValueError: the count is less than 1.
        """
        if count < 1:
            raise ValueError("a group has at least one pool")
        names = [f"local{index}" for index in range(count)]
        if self._links == "memory":
            return self._make_in_memory(names)
        return self._make_on_loopback(names)

    def _add(self, **settings: Any) -> Any:
        pool = self._pool_type(**settings)
        self._made.append(pool)
        return pool

    def _make_in_memory(self, names: list[str]) -> tuple[Any, ...]:
        network = MemoryNetwork()
        pools = tuple(self._add(links=network.links(name)) for name in names)
        for pool, own in zip(pools, names, strict=True):
            for name in names:
                if name != own:
                    pool.add_client(name)
        return pools

    def _make_on_loopback(self, names: list[str]) -> tuple[Any, ...]:
        certificates = self._certificates(names) if self._links == "tls" else {}
        pools = tuple(self._add(**certificates.get(name, {})) for name in names)
        for pool in pools:
            pool.add_http_server(addr=LOOPBACK, port=0)
        for pool, own in zip(pools, names, strict=True):
            for peer, name in zip(pools, names, strict=True):
                if name != own:
                    pool.add_http_client(name, LOOPBACK, peer.port, peer.cert)
        return pools

    def _certificates(self, names: list[str]) -> dict[str, dict[str, Any]]:
        from ..keygen import tls_files, write_files

        folder = self._folder() / f"pools-{len(self._made)}"
        folder.mkdir()
        write_files(folder, tls_files(names, CERTIFICATE_DAYS))
        return {
            name: {"key": folder / f"{name}.key", "cert": folder / f"{name}.crt", "ca_cert": folder / "ca.crt"}
            for name in names
        }

    def end(self) -> None:
        """End every pool of every group."""
        made, self._made = self._made, []
        for pool in made:
            pool.kill()
