"""Programs for tno.mpc.communication 4.x on PartyWire: what they import, look at and rely on.

Published packages are run by tests/interop/test_tno_suites.py.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from partywire.workers.errors import UnknownPeer
from partywire.workers.pool.pool_groups import PoolGroups
from partywire.workers.tno.fixtures import finish, generate_http_test_pools
from partywire.workers.tno.httphandlers import HTTPClient
from partywire.workers.tno.pool import Pool
from tests.pool.asyncio_run import run
from tests.support.reserved_ports import reserved_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = Path(__file__).with_name("comparison.py")
DEADLINE_S = 60


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def python(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True, text=True, timeout=DEADLINE_S, check=False, cwd=folder, env=environment(),
    )  # fmt: skip


@pytest.fixture
def pools(tmp_path: Path) -> Iterator[tuple[Any, ...]]:
    groups = PoolGroups("tcp", lambda: tmp_path, Pool)
    try:
        yield groups.make(2)
    finally:
        groups.end()


def test_a_program_written_for_the_package_runs_unchanged_as_two_processes() -> None:
    with reserved_ports(2) as ports:
        arguments = [str(port) for port in ports]
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "partywire.workers.tno", PROGRAM, name, *arguments],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
            )
            for name in ("alice", "bob")
        ]  # fmt: skip
        try:
            said = [process.communicate(timeout=DEADLINE_S) for process in started]
        finally:
            for process in started:
                process.kill()
                process.wait()
    assert [process.returncode for process in started] == [0, 0], said
    assert said[0][0].splitlines() == said[1][0].splitlines() == ["3 < 5 is True", "5 < 3 is False", "keys sent: 1"]


def test_modules_are_found_under_the_names_of_the_package_and_forgotten_again() -> None:
    done = python("-W", "error", "-c", """
import importlib.util
from partywire.workers.tno import install, uninstall
install()
install()
import tno.mpc.communication as package
import tno.mpc.communication.pool, tno.mpc.communication.test.pool_fixtures_http
from tno.mpc.communication.httphandlers import HTTPClient, HTTPServer, logger
from tno.mpc.communication.exceptions import OptionalImportError
from tno.mpc.communication.functions import redirect_importerror_oserror_to_optionalimporterror
from pytest_tno.tno.mpc.communication import determine_pool_scope
from partywire.workers.tno import pool, httphandlers
assert package.Pool is tno.mpc.communication.pool.Pool is pool.Pool
assert HTTPClient is httphandlers.HTTPClient and package.__version__ == "4.12.0"
try:
    with redirect_importerror_oserror_to_optionalimporterror():
        import there_is_no_such_module
except OptionalImportError as error:
    print(type(error.__cause__).__name__)
uninstall()
uninstall()
import sys
print(any(name.startswith("tno.mpc.communication") for name in sys.modules), hasattr(tno.mpc, "communication"))
""")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ModuleNotFoundError", "False", "False"]


def test_installing_after_the_package_was_imported_is_refused() -> None:
    done = python("-c", """
import sys, types
sys.modules["tno.mpc.communication"] = types.ModuleType("tno.mpc.communication")
from partywire.workers.tno import install
install()
""")  # fmt: skip
    assert "RuntimeError: tno.mpc.communication has been imported already" in done.stderr


@pytest.mark.parametrize("arguments", [(), ("-m",), ("nowhere.py",)])
def test_the_command_says_what_it_needs(arguments: tuple[str, ...]) -> None:
    done = python("-m", "partywire.workers.tno", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(("usage: ", "there is no program nowhere.py"))


def test_a_module_is_run_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "shown.py").write_text(
        "import sys, tno.mpc.communication as c\nprint(sys.argv[1:], c.Pool.__module__)\n"
    )
    done = python("-m", "partywire.workers.tno", "-m", "shown", "-x", folder=tmp_path)
    assert done.stdout == "['-x'] partywire.workers.tno.pool\n", done.stderr


def test_handlers_are_what_packages_look_at(pools: tuple[Any, ...]) -> None:
    async def main() -> None:
        alice, bob = pools
        handler = alice.pool_handlers["local1"]
        assert isinstance(handler, HTTPClient)
        assert (handler.addr, handler.port) == ("127.0.0.1", bob.http_server.port)
        assert handler == HTTPClient(bob, "other", "127.0.0.1", handler.port, None)
        assert handler != bob.pool_handlers["local0"]
        with pytest.raises(TypeError):
            hash(handler)
        await alice.send("local1", "hello", "id")
        await alice.send("local1", "hello")
        assert bob.pool_handlers["local0"].buffer == {"id": "hello", 1: "hello"}
        assert handler.msg_send_counter == 2
        assert handler.total_bytes_sent == bob.http_server.total_bytes_recv > 0
        assert bob.http_server.msg_recv_counter == 2
        assert bob.pool_handlers["local0"].msg_recv_counter == 0
        handler.msg_prefix = "run-"
        await alice.send("local1", "hello")
        assert (handler.msg_prefix, await bob.recv("local0", "run-2")) == ("run-", "hello")
        for call in (alice.send, alice.asend, alice.recv, alice.broadcast):
            arguments = {"send": ("x", 1), "asend": ("x", 1), "recv": ("x",), "broadcast": (1, "id", ["x"])}
            for kind in (AttributeError, KeyError, UnknownPeer):
                with pytest.raises(kind, match="'x' is not a peer"):
                    await call(*arguments[call.__name__])
        await asyncio.gather(alice.shutdown(), bob.shutdown())
        assert alice.pool_handlers == {}

    run(main())


def test_external_port_is_accepted_with_a_warning() -> None:
    pool = Pool()
    try:
        with pytest.warns(DeprecationWarning, match="external_port"):
            pool.add_http_server(0, "127.0.0.1", 8080)
        assert pool.http_server is not None
        assert pool.http_server.external_port == 8080
        assert pool.http_server.port == pool.port
    finally:
        pool.kill()


def test_the_generators_of_4_5_make_groups_and_shut_them_down() -> None:
    async def main() -> None:
        generator = generate_http_test_pools(2)
        pools = await generator.asend(None)
        await pools[0].send("local1", 1)
        assert await pools[1].recv("local0") == 1
        await finish(generator)
        assert pools[0].pool_handlers == {}

    run(main())


SUITE = """
import asyncio
from tno.mpc.communication import Pool
from tno.mpc.communication.test import pool_http_2p
from pytest_tno.tno.mpc.communication import determine_pool_scope

def test_two(http_pool_duo):
    assert isinstance(http_pool_duo[0], Pool)
    async def main():
        await http_pool_duo[0].send("local1", 1)
        assert await http_pool_duo[1].recv("local0") == 1
    asyncio.run(main())

def test_many(http_pool_group_factory, http_pool_trio, pool_http_2p):
    assert len(http_pool_trio) == 3 and http_pool_group_factory(3) is http_pool_trio
    assert len(pool_http_2p) == 2
"""


def test_a_suite_runs_by_the_plugin_where_the_package_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "partywire.workers.tno.plugin",
                  "--fixture-pool-scope", "function", folder=tmp_path)  # fmt: skip
    assert "2 passed" in done.stdout, done.stdout + done.stderr
