"""An MPyC program, as it is, over PartyWire: parties that MPyC starts, parties that are started by hand, and deaths."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from partywire.workers.adapters.mpyc_config import CONNECT_LOCAL_S, CONNECT_S, MpycSettings, config_of
from partywire.workers.errors import ConfigError
from tests.support.processes import wait_until_gone
from tests.support.reserved_ports import reserved_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("mpyc")

PROGRAM = Path(__file__).with_name("mpyc_program.py")
COMMAND = [sys.executable, "-m", "partywire.workers.adapters.mpyc"]
INSTALL = """
import runpy, sys
from partywire.workers.adapters.mpyc import install
del sys.argv[0]
install()
runpy.run_path(sys.argv[0], run_name="__main__")
"""
INSTALLED = [sys.executable, "-c", INSTALL]
DEADLINE_S = 100.0
QUIET = ["--no-log"]
EXPECTED = {
    "arguments": ["results"],
    "name": "__main__",
    "spared": True,
    "sum": 10 + 11 + 12,
    "max": 12,
    "products": sum((k + 1) ** 3 for k in range(100)),
    "chain": 5040,
    "random": True,
    "matrix": [[5, 14], [14, 50]],
}


@contextmanager
def three_ports_in_a_row() -> Iterator[int]:
    """The first of three ports, held like those of `reserved_ports`: MPyC counts from one base port."""
    for _ in range(100):
        with ExitStack() as stack:
            (first,) = stack.enter_context(reserved_ports(1))
            try:
                for port in (first + 1, first + 2):
                    holder = stack.enter_context(socket.socket())
                    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    holder.bind(("127.0.0.1", port))
            except (OSError, OverflowError):
                continue
            yield first
            return
    raise AssertionError("there are no three free ports in a row")


def parts(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key not in ("pid", "large")}


def test_mpyc_starts_its_parties_over_partywire_itself(tmp_path: Path) -> None:
    with three_ports_in_a_row() as base:
        ran = subprocess.run(
            [*COMMAND, PROGRAM, "-M3", "-B", str(base), "--output-file", "results"],
            capture_output=True, text=True, cwd=tmp_path, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout + ran.stderr
        logs = [ran.stdout]
        found = [json.loads(next(line for line in ran.stdout.splitlines() if line.startswith("{")))]
        for pid in (1, 2):
            file = tmp_path / f"party3_{pid}.log"
            found.append(json.loads(next(line for line in file.read_text().splitlines() if line.startswith("{"))))
            wait_until_gone([found[-1]["pid"]])
            logs.append(file.read_text())
    for one, log in zip(found, logs, strict=True):
        assert parts(one) == EXPECTED
        assert one["large"] == [3_000_000, 3_000_001, 3_000_002]
        assert "All 3 parties connected by PartyWire." in log
        assert "Stop MPyC" in log
        assert "Traceback" not in log


@pytest.mark.parametrize(
    ("command", "how", "code", "sentence"),
    [
        (COMMAND, "killed", 3, "partywire: session 0 lost party1"),
        (INSTALLED, "raises", 1, "PeerAborted: party1 gave up session 0: its program ended with ValueError"),
    ],
    ids=["killed", "raises"],
)
def test_a_party_that_ends_early_is_named_to_the_other(
    tmp_path: Path, command: list[str], how: str, code: int, sentence: str
) -> None:
    with reserved_ports(2) as ports, ExitStack() as stack:
        addresses = [word for port in ports for word in ("-P", f"localhost:{port}")]
        parties = [
            stack.enter_context(
                subprocess.Popen(
                    [*command, PROGRAM, *addresses, "-I", str(pid), *QUIET, how],
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
                )
            )
            for pid in (0, 1)
        ]  # fmt: skip
        try:
            said = [party.communicate(timeout=DEADLINE_S) for party in parties]
        finally:
            for party in parties:
                party.kill()
    (_, err), (_, err_of_1) = said
    assert parties[0].returncode == code, err
    assert sentence in err
    assert ("Traceback" in err) == (command is INSTALLED), err
    assert "what only party 1 knows" not in err
    assert ("what only party 1 knows" in err_of_1) == (how == "raises")


# MPyC's options as a configuration.


def options(**given: Any) -> Any:
    defaults = {"no_prss": False, "mix32_64bit": False, "ssl": False, "index": None, "parties": None}
    return SimpleNamespace(**{**defaults, "config": None, **given})


LOCAL = [("localhost", 11365), ("localhost", 11366), ("localhost", 11367)]
REMOTE = [("10.0.0.1", 11365), ("localhost", 11366), ("10.0.0.3", 11365)]


def test_parties_of_one_host_listen_on_its_loopback_interface_only() -> None:
    config = config_of(1, LOCAL, 1, options(), MpycSettings())
    assert config.name == "party1"
    assert config.parties == {f"party{pid}": ("127.0.0.1", 11365 + pid) for pid in range(3)}
    assert config.is_loopback
    assert config.connect_s == CONNECT_LOCAL_S
    assert config_of(1, LOCAL, 1, options(index=1), MpycSettings()).connect_s == CONNECT_S
    assert config_of(1, LOCAL, 1, options(), MpycSettings(connect_s=5)).connect_s == 5


def test_plaintext_to_other_hosts_has_to_be_asked_for_by_name() -> None:
    with pytest.raises(ConfigError, match="insecure"):
        config_of(1, REMOTE, 1, options(parties=["x"]), MpycSettings())
    config = config_of(1, REMOTE, 1, options(parties=["x"]), MpycSettings(insecure=True))
    assert config.listen == (("*", 11366),)
    assert config.parties["party0"] == ("10.0.0.1", 11365)


def test_whatever_makes_parties_misunderstand_each_other_is_compared() -> None:
    ours = config_of(0, LOCAL, 1, options(), MpycSettings()).parameter_digest
    assert config_of(0, LOCAL, 0, options(), MpycSettings()).parameter_digest != ours
    for other in ({"no_prss": True}, {"mix32_64bit": True}):
        assert config_of(0, LOCAL, 1, options(**other), MpycSettings()).parameter_digest != ours


def test_ssl_takes_mpycs_files_and_pins_the_peers_certificates_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".config").mkdir()
    (tmp_path / ".config" / "party_2.crt").touch()
    security = config_of(1, REMOTE, 1, options(ssl=True), MpycSettings()).security
    assert security is not None
    assert security.mode == "tls"
    folder = os.path.join(tmp_path, ".config")
    assert security.certificate == f"{folder}/party_1.crt"
    assert security.key == f"{folder}/party_1.key"
    assert security.ca == f"{folder}/mpyc_ca.crt"
    assert {name: peer.certificate for name, peer in security.peers.items()} == {"party2": f"{folder}/party_2.crt"}


def test_more_parties_than_there_can_be_are_refused() -> None:
    addresses = [("localhost", 11365 + pid) for pid in range(10)]
    with pytest.raises(ConfigError, match="lists 10, between 2 and 9"):
        config_of(0, addresses, 4, options(), MpycSettings())
