"""`pytest -p partywire.workers.tno.plugin`: a test suite written for tno.mpc.communication 4.x, run on PartyWire.

Before anything of the suite is imported, `tno.mpc.communication` is made PartyWire's. The fixtures of the package's own
plugin work unchanged, since they make whatever that name is. Where it is not installed, the ones here take their place.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import pytest

from .finder import install

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

THEIRS = "tno_communication_pools"
"""The plugin of tno.mpc.communication 4.8 to 4.12, by the name of its entry point."""

SCOPES = ("function", "class", "module", "package", "session")

__all__ = ["determine_pool_scope"]


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before the first conftest.py is loaded."""
    install()
    if not _is_theirs_installed():
        early_config.pluginmanager.register(Fixtures(), "partywire-tno-fixtures")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--fixture-pool-scope`, if the package's own plugin is not there."""
    if not _is_theirs_installed():
        parser.getgroup("partywire").addoption(
            "--fixture-pool-scope",
            default="function",
            choices=SCOPES,
            help="accepted for suites that give it; pools that outlive a test need an event loop that does",
        )


def _is_theirs_installed() -> bool:
    return any(point.name == THEIRS for point in entry_points(group="pytest11"))


def determine_pool_scope(fixture_name: str, config: pytest.Config) -> Any:
    """The scope of the fixtures, which packages give to fixtures of their own."""
    return config.getoption("--fixture-pool-scope")


class Fixtures:
    """The three fixtures of the package's own plugin."""

    @pytest.fixture(scope=determine_pool_scope)
    def http_pool_group_factory(
        self, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Callable[[int], tuple[Any, ...]]]:
        """Called with n: n pools that know each other as local0, local1 ..."""
        from ..pool.pool_groups import PoolGroups
        from .pool import Pool

        def folder() -> Path:
            return tmp_path_factory.mktemp("pools")

        groups = PoolGroups("tcp", folder, Pool)
        made: dict[int, tuple[Any, ...]] = {}

        def make(count: int) -> tuple[Any, ...]:
            if count not in made:
                made[count] = groups.make(count)
            return made[count]

        try:
            yield make
        finally:
            groups.end()

    @pytest.fixture(scope=determine_pool_scope)
    def http_pool_duo(self, http_pool_group_factory: Callable[[int], tuple[Any, ...]]) -> tuple[Any, ...]:
        """Two pools."""
        return http_pool_group_factory(2)

    @pytest.fixture(scope=determine_pool_scope)
    def http_pool_trio(self, http_pool_group_factory: Callable[[int], tuple[Any, ...]]) -> tuple[Any, ...]:
        """Three pools."""
        return http_pool_group_factory(3)
