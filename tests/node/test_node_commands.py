"""`partywire init --node`, and what `partywire check` says of a party's node."""

from __future__ import annotations

import json
import socket
import sys
from typing import TYPE_CHECKING, Any

from partywire import load_config
from partywire.workers.cli import run
from partywire.workers.exit_code import ExitCode
from partywire.workers.node.in_party import make_identity
from tests.support.reserved_ports import reserved_ports

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def checked(path: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The rows of the node; no peer runs."""
    assert run(["check", str(path), "--json", "--quiet", "--timeout", "0.2"]) == ExitCode.PEERS
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["node"]
    return rows


def test_init_writes_the_table_and_check_says_who_the_node_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with reserved_ports(2) as (ours, theirs):
        parties = [f"alice=127.0.0.1:{ours}", f"bob=127.0.0.1:{theirs}"]
        assert run(["init", *parties, "--node", "--out", str(tmp_path)]) == ExitCode.OK
        capsys.readouterr()
        path = tmp_path / "alice.toml"
        config = load_config(path)
        assert config.node is not None
        assert config.node.identity == "alice.node.key"
        told = f"its peers are told to dial /ip4/127.0.0.1/tcp/{ours}"
        [row] = checked(path, capsys)
        assert (row["found"], row["detail"], row["ok"]) == ("its identity is made at the first start", told, True)
        assert not (tmp_path / "alice.node.key").exists()
        identity = make_identity(config)
        assert identity is not None
        [row] = checked(path, capsys)
        assert (row["address"], row["found"], row["detail"]) == (str(identity.peer_id), "its id", told)
        path.write_text(path.read_text().replace("[node]", "[node]\nadvertise = []"))
        [row] = checked(path, capsys)
        assert row["detail"] == "its peers are told no address"
        assert "Set advertise" in row["advice"]
        (tmp_path / "alice.node.key").write_text("no key\n")
        assert run(["check", str(path)]) == ExitCode.USAGE
        assert "node.identity: " in capsys.readouterr().err


def test_check_loads_the_handlers_and_tries_the_addresses_of_the_node(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "handlers_to_check.py").write_text("async def echo(connection, reader, writer): ...\nplain = 3\n")
    with reserved_ports(3) as (ours, theirs, free), socket.create_server(("127.0.0.1", 0)) as taken:
        parties = [f"alice=127.0.0.1:{ours}", f"bob=127.0.0.1:{theirs}"]
        assert run(["init", *parties, "--node", "--out", str(tmp_path)]) == ExitCode.OK
        capsys.readouterr()
        path = tmp_path / "alice.toml"
        listen = [
            f"/ip4/127.0.0.1/tcp/{free}/ws",
            f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}",
            f"/unix{tmp_path}/no/such/folder",
            "/ip4/127.0.0.1/tcp/0/wss",
            "/memory/7",
        ]
        table = f"[node]\nlisten = {json.dumps(listen)}"
        targets = {"/a": "echo", "/b": "plain", "/c": "missing"}
        lines = [f'"{protocol}" = "handlers_to_check:{name}"' for protocol, name in targets.items()]
        lines.append('"/d" = "no_such_module:echo"')
        text = path.read_text().replace("[node]", table)
        path.write_text(text + "\n[node.protocols]\n" + "\n".join(lines) + "\n")
        rows = {row["address"]: row for row in checked(path, capsys)}
        assert {address: row["ok"] for address, row in rows.items() if address in (*targets, "/d", *listen)} == {
            "/a": True, "/b": False, "/c": False, "/d": False,
            listen[0]: True, listen[1]: False, listen[2]: False, listen[3]: False,
        }  # fmt: skip
        assert "handlers_to_check has no plain that is an async function" in rows["/b"]["detail"]
        assert "No module named 'no_such_module'" in rows["/d"]["detail"]
        assert str(tmp_path) in rows["/d"]["advice"]
        assert "in use" in rows[listen[1]]["detail"]
        assert "certificate" in rows[listen[3]]["detail"]
        with socket.create_server(("127.0.0.1", free)):  # nothing of ours is left there
            pass
        assert run(["check", str(path), "--quiet", "--timeout", "0.2"]) == ExitCode.PEERS
        assert "need care" in capsys.readouterr().out
