"""`partywire check` with peers that speak iris-mpc's protocol: what can be found out without a word that they know."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

from partywire.workers.cli import run

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_peer_that_knows_no_probe_is_reached_for_if_we_dial_it_and_else_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "bob.toml"
    with socket.create_server(("127.0.0.1", 0)) as alice, socket.create_server(("127.0.0.1", 0)) as closed:
        ports = alice.getsockname()[1], closed.getsockname()[1]
        closed.close()
        config.write_text(
            f'name = "bob"\n[parties]\nalice = "127.0.0.1:{ports[0]}"\nbob = "127.0.0.1:{ports[1]}"\n'
            'charlie = "127.0.0.1:9"\n[compat.alice]\nprotocol = "iris"\n[compat.charlie]\nprotocol = "iris"\n'
        )
        assert run(["check", str(config), "--json"]) == 0
        heard, _ = alice.accept()
        with heard:
            assert heard.recv(100) == b""  # not a byte that it would have to make sense of
    found = {peer["name"]: peer["found"] for peer in json.loads(capsys.readouterr().out)["peers"]}
    assert found == {"alice": "takes connections", "charlie": "dials us"}
