"""The fixtures for tests of programs that use a pool, in a pytest of their own; and what loading them costs."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.docs.markdown import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from partywire.workers.pool.pool import Pool

DEADLINE_S = 100

PARALLEL = """
import asyncio
import pytest

@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("pool_links", ["memory", "tcp"])
def test_pools_at_once(pool_trio, number):
    async def main():
        await asyncio.gather(*(pool.broadcast(number, "id") for pool in pool_trio))
        for pool in pool_trio:
            assert [value for _, value in await pool.recv_all(msg_id="id")] == [number] * 2
    asyncio.run(main())

def test_an_option_chooses_what_connects_pools(pool_links, pool_duo):
    assert pool_links == "tls"
    assert pool_duo[0].port and pool_duo[0].cert.exists()

def test_one_that_fails_ends_its_pools_too(pool_duo):
    raise RuntimeError("on purpose")
"""


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


def test_fixtures_work_in_parallel_and_end_what_they_made(tmp_path: Path) -> None:
    (tmp_path / "test_parallel.py").write_text(PARALLEL)
    (tmp_path / "test_with_pools.py").write_text((EXAMPLES / "test_with_pools.py").read_text())
    done = run_pytest(tmp_path, "-n", "2", "--pool-links", "tls")
    assert "RuntimeError: on purpose" in done.stdout
    assert "1 failed, 8 passed" in done.stdout, done.stdout + done.stderr


def test_loading_the_plugin_loads_nothing_of_partywire_but_its_package() -> None:
    program = """
import sys
import partywire.workers.pool.pytest_plugin
print(*sorted(name for name in sys.modules if name.startswith("partywire")))
print("numpy" in sys.modules, "asyncio" in sys.modules)
"""
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    names, heavy = printed.stdout.splitlines()
    assert names.split() == [
        "partywire", "partywire.workers", "partywire.workers.pool", "partywire.workers.pool.pytest_plugin",
    ]  # fmt: skip
    assert heavy.split()[0] == "False"


def test_a_group_has_as_many_pools_as_are_asked_for(pool_group_factory: Callable[[int], tuple[Pool, ...]]) -> None:
    assert [pool.peers for pool in pool_group_factory(1)] == [()]
    seven = pool_group_factory(7)
    assert seven[3].peers == ("local0", "local1", "local2", "local4", "local5", "local6")
    with pytest.raises(ValueError, match="at least one"):
        pool_group_factory(0)
