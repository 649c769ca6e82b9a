"""`partywire check` with peers that speak iris-mpc's protocol: what can be found out without a word that they know."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from partywire.workers.cli import run
from tests.support.certificates import issue
from tests.support.iris_peer import DEADLINE_S, Tls
from tests.support.reserved_ports import reserved_ports

if TYPE_CHECKING:
    from pathlib import Path


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


@pytest.mark.parametrize(
    ("shows", "roots", "then", "found", "words"),
    [
        ("alice", "ca", "waits", "takes connections", "its certificate is the one that we expect"),
        ("bob", "ca", "waits", "not proven", "we refuse it: the certificate shown for alice belongs to bob"),
        ("alice", "other", "waits", "not proven", "it refuses us"),
        # As one of ours does to whom it expects another name of; after the handshake there is no alert for it.
        ("alice", "ca", "hangs up", "not proven", "it refuses us"),
    ],
)
def test_both_certificates_are_tried_at_a_peer_that_speaks_tls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shows: str, roots: str, then: str, found: str, words: str
) -> None:
    ca, other = issue("ca", is_ca=True).write(tmp_path, "ca"), issue("other", is_ca=True).write(tmp_path, "other")
    issued = {name: issue(name, ca).write(tmp_path, name) for name in ("alice", "bob")}
    root = ca if roots == "ca" else other
    peer = Tls(issued[shows].certificate_path, issued[shows].key_path, root.certificate_path, "")
    seen: list[bytes] = []

    def accept() -> None:
        sock, _ = alice.accept()
        sock.settimeout(DEADLINE_S)
        with suppress(OSError), peer.accepted(sock) as accepted:
            if then == "waits":
                seen.append(accepted.recv(100))
        sock.close()

    config = tmp_path / "bob.toml"
    with reserved_ports(2) as ports, socket.create_server(("127.0.0.1", 0)) as alice:
        thread = threading.Thread(target=accept)
        thread.start()
        tables = "".join(f'[compat.{name}]\nprotocol = "iris"\ntls = true\n' for name in ("alice", "charlie"))
        config.write_text(
            f'name = "bob"\n[parties]\nalice = "127.0.0.1:{alice.getsockname()[1]}"\nbob = "127.0.0.1:{ports[0]}"\n'
            f'charlie = "127.0.0.1:9"\n{tables}listen = "127.0.0.1:{ports[1]}"\n'
            '[security]\ncertificate = "bob.crt"\nkey = "bob.key"\nca = "ca.crt"\n'
        )
        code = run(["check", str(config), "--json"])
        thread.join(DEADLINE_S)
    document = json.loads(capsys.readouterr().out)
    of_alice, of_charlie = document["peers"]
    assert of_alice["found"] == found
    assert words in of_alice["detail"]
    assert code == (0 if of_alice["ok"] else 3)
    assert seen in ([b""], [])  # not a byte behind the handshake
    assert of_charlie["found"] == "dials us"
    assert f"at 127.0.0.1:{ports[1]}, by TLS" in of_charlie["detail"]
    assert [row["address"] for row in document["listen"]] == [f"127.0.0.1:{port}" for port in ports]
