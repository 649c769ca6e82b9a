"""Fixtures for tests of programs that use a pool: several pools in one test, connected to each other.

pytest loads this module in every run of every project that has PartyWire installed, so it imports nothing of it before
a fixture is used. docs/pool.md says how to use them. They need no plugin for asyncio and fit every one, because a pool
belongs to the loop of its first call and is ended without one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .pool import Pool

LINKS = ("memory", "tcp", "tls")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--pool-links`."""
    parser.getgroup("partywire").addoption(
        "--pool-links",
        default="memory",
        choices=LINKS,
        help="what the pools of PartyWire's fixtures are connected by (default: memory)",
    )


@pytest.fixture
def pool_links(request: pytest.FixtureRequest) -> str:
    """What pools are connected by: memory, tcp or tls. By default what `--pool-links` says; parametrize it for all."""
    links: str = request.config.getoption("--pool-links")
    return links


@pytest.fixture
def pool_group_factory(request: pytest.FixtureRequest, pool_links: str) -> Iterator[Callable[[int], tuple[Pool, ...]]]:
    """Called with n: n pools that know each other as local0, local1 ... in this order. Ended after the test."""
    from .pool_groups import PoolGroups

    groups = PoolGroups(pool_links, lambda: request.getfixturevalue("tmp_path"))
    try:
        yield groups.make
    finally:
        groups.end()


@pytest.fixture
def pool_duo(pool_group_factory: Callable[[int], tuple[Pool, ...]]) -> tuple[Pool, ...]:
    """Two pools, local0 and local1."""
    return pool_group_factory(2)


@pytest.fixture
def pool_trio(pool_group_factory: Callable[[int], tuple[Pool, ...]]) -> tuple[Pool, ...]:
    """Three pools, local0 to local2."""
    return pool_group_factory(3)
