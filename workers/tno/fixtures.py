"""What `tno.mpc.communication.test` has: groups of 2 to 5 pools as fixtures, by the names of 4.5, and what made them.

Each group is ended with the test that used it, and ports come from the kernel.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from ..pool.pool_groups import PoolGroups
from .pool import Pool

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

__all__ = [
    "finish", "generate_http_test_pools",
    "pool_http_2p", "pool_http_3p", "pool_http_4p", "pool_http_5p",
    "pool_https_2p", "pool_https_3p", "pool_https_3p_certs_as_id", "pool_https_4p", "pool_https_5p",
]  # fmt: skip


def group_fixture(name: str, count: int, links: str) -> Callable[..., Any]:
    """A fixture of a group of pools."""

    @pytest.fixture(name=name)
    def group(tmp_path: Path) -> Iterator[tuple[Pool, ...]]:
        groups = PoolGroups(links, lambda: tmp_path, Pool)
        try:
            yield groups.make(count)
        finally:
            groups.end()

    return group


pool_http_2p = group_fixture("pool_http_2p", 2, "tcp")
pool_http_3p = group_fixture("pool_http_3p", 3, "tcp")
pool_http_4p = group_fixture("pool_http_4p", 4, "tcp")
pool_http_5p = group_fixture("pool_http_5p", 5, "tcp")
pool_https_2p = group_fixture("pool_https_2p", 2, "tls")
pool_https_3p = group_fixture("pool_https_3p", 3, "tls")
pool_https_3p_certs_as_id = group_fixture("pool_https_3p_certs_as_id", 3, "tls")
pool_https_4p = group_fixture("pool_https_4p", 4, "tls")
pool_https_5p = group_fixture("pool_https_5p", 5, "tls")


async def generate_http_test_pools(clients: int, tls: bool = False, **_: Any) -> AsyncGenerator[tuple[Pool, ...], None]:
    """Yields one group of pools, and shuts it down when it is asked for more."""
    with TemporaryDirectory() as folder:
        groups = PoolGroups("tls" if tls else "tcp", lambda: Path(folder), Pool)
        try:
            pools = groups.make(clients)
            yield pools
            await asyncio.gather(*(pool.shutdown() for pool in pools))
        finally:
            groups.end()


async def finish(generator: AsyncGenerator[Any, None]) -> None:
    """Ask a generator for everything that it still has."""
    async for _ in generator:
        pass
