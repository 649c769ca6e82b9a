"""`partywire check` against everything that can be at a peer's address, gateways and parties that run among it."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import select
import socket
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from partywire.engine import prober as prober_module
from partywire.engine.commands import LinkEnded, LinkFailed, LinkLost, LinkProgress, Serve
from partywire.engine.gateway import Gateway, make_answers
from partywire.engine.handshake import Role
from partywire.engine.handshake_messages import Hello
from partywire.engine.link_options import LinkOptions
from partywire.engine.preamble import PREAMBLE_SIZE
from partywire.engine.probe import Probe
from partywire.engine.topology import PartySpec, PeerSpec, routing_tag
from partywire.workers import cli_check
from partywire.workers.cli import run
from partywire.workers.config import PartyConfig, write_config
from partywire.workers.socks_config import SocksConfig
from tests.support.family import make_listener, open_all
from tests.support.scripted_tor import onion_id
from tests.support.socks_proxy import CONNECT, SmallProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from partywire.workers.check_row import Row

NAMES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan")


def address_of(sock: socket.socket) -> tuple[str, int]:
    host, port = sock.getsockname()[:2]
    return str(host), int(port)


def spec_of(name: str, names: tuple[str, ...]) -> PartySpec:
    parties = tuple(PeerSpec(other, index, "127.0.0.1", 1) for index, other in enumerate(names))
    return PartySpec(name, names.index(name), parties)


@contextmanager
def gateway(answers: dict[bytes, Any]) -> Iterator[tuple[str, int]]:
    """A gateway without links, at work in a thread."""
    listener = make_listener()
    address = address_of(listener)
    stop, stopped = socket.socketpair()
    running = Gateway([listener], {}, answers)

    watched: list[Any] = [running, stopped]

    def work() -> None:
        while stopped not in select.select(watched, [], [])[0]:
            running.do_work(0.0)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield address
    finally:
        stop.close()
        thread.join()
        stopped.close()
        running.close()


def party(name: str, names: tuple[str, ...] = NAMES, options: LinkOptions | None = None) -> dict[bytes, Any]:
    """The answers of a party with this configuration."""
    return make_answers(Serve(spec_of(name, names), [], options=options or LinkOptions()))


@contextmanager
def web_server() -> Iterator[tuple[str, int]]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield address_of(server.socket)
        finally:
            server.shutdown()
            thread.join()


def config_file(folder: Path, parties: dict[str, Any], name: str = "alice", **settings: Any) -> str:
    path = folder / f"{name}.toml"
    path.write_text(write_config(PartyConfig(name=name, parties=parties, **settings)))
    return str(path)


def check(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and the document with its peers by name."""
    code = run(["check", *arguments, "--json"])
    document = orjson.loads(capsys.readouterr().out)
    assert document["exit_code"] == code
    document["peers"] = {peer["name"]: peer for peer in document["peers"]}
    return code, document


def test_whatever_is_at_a_peers_address_is_named_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prober_module, "HALF_CLOSE_AFTER_S", 0.2)
    monkeypatch.setattr(prober_module, "ANSWER_TIMEOUT_S", 1.5)
    with ExitStack() as stack:
        ours = stack.enter_context(socket.socket())
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        ours.bind(("127.0.0.1", 0))  # reserved and not listened on, so it is free for us
        refusing = stack.enter_context(socket.socket())
        refusing.bind(("127.0.0.1", 0))
        silent = stack.enter_context(make_listener())
        other_digest = LinkOptions(parameter_digest=b"x" * 32)
        parties: dict[str, Any] = {
            "alice": address_of(ours),
            "bob": address_of(refusing),
            "carol": address_of(silent),
            "dave": stack.enter_context(web_server()),
            "erin": stack.enter_context(gateway(party("ivan"))),
            "frank": stack.enter_context(gateway(party("frank"))),
            "grace": stack.enter_context(gateway(party("grace", options=other_digest))),
            "heidi": ("no-such-host.invalid", 7001),
            "ivan": stack.enter_context(gateway({})),
        }
        code, document = check(capsys, config_file(tmp_path, parties, insecure=True))
    assert code == 3
    assert document["listen"][0]["found"] == "free"
    peers = document["peers"]
    found = {name: peer["found"] for name, peer in peers.items()}
    assert found == {
        "bob": "refused",
        "carol": "says nothing",
        "dave": "not PartyWire",
        "erin": "another party",
        "frank": "ok",
        "grace": "other parameters",
        "heidi": "name not resolved",
        "ivan": "closes without a word",
    }
    assert [name for name, peer in peers.items() if peer["ok"]] == ["frank"]
    assert all(peer["advice"] for name, peer in peers.items() if name != "frank")
    assert "Start bob" in peers["bob"]["advice"]
    assert "it answered" in peers["dave"]["detail"]
    assert peers["erin"]["answers_as"] == "ivan"
    assert "78787878" in peers["grace"]["detail"]  # both digests, in part
    assert peers["frank"]["round_trip_ms"] > 0
    assert abs(peers["frank"]["clock_ahead_s"]) < 5


@pytest.mark.parametrize(
    ("answers", "found"),
    [
        (party("bob", ("alice", "bob", "eve")), "other parties"),
        (party("bob", ("bob", "alice")), "other parties"),
        (party("alice", ("alice", "bob")), "another party"),
        (party("eve", ("eve", "alice")), "closes without a word"),
        (party("bob", ("bob", "eve")), "closes without a word"),
        (
            {
                routing_tag("bob", "alice"): lambda *_: Probe(
                    Role.RESPONDER, Hello("bob", "alice", b"b" * 32, party_set=("alice", "bob"), version=2)
                )
            },
            "another version",
        ),
        (
            {
                routing_tag("bob", "alice"): lambda *_: Probe(
                    Role.RESPONDER, Hello("carol", "alice", b"b" * 32, party_set=("alice", "bob"))
                )
            },
            "another party",
        ),
    ],
)
def test_a_party_that_does_not_fit_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answers: dict[bytes, Any], found: str
) -> None:
    with gateway(answers) as address:
        code, document = check(capsys, config_file(tmp_path, {"alice": f"unix:{tmp_path}/a.sock", "bob": address}))
    assert code == 3
    assert document["peers"]["bob"]["found"] == found


def test_an_address_that_answers_nothing_at_all_is_given_up_in_time_and_waiting_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_check, "PROGRESS_AFTER_S", 0.05)
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(2):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        parties = {"alice": f"unix:{tmp_path}/a.sock", "bob": address_of(full)}
        assert run(["check", config_file(tmp_path, parties), "--timeout", "0.5"]) == 3
    captured = capsys.readouterr()
    assert "no answer" in captured.out
    assert "firewall" in captured.out
    assert "partywire: still waiting for bob (connecting)" in captured.err


def test_a_peer_behind_a_proxy_is_asked_by_way_of_it_and_a_proxy_that_fails_is_told_apart() -> None:
    onion = f"/onion3/{onion_id(7)}:7101"

    async def scenario(alice: tuple[str, int]) -> list[Row]:
        targets = {f"{onion_id(7)}.onion": alice}
        proxy = SmallProxy(asyncio.get_running_loop(), targets=targets)
        config = PartyConfig(
            name="bob",
            parties={"alice": onion, "bob": f"/ip4/{own[0]}/tcp/{own[1]}"},
            insecure=True,
            socks=SocksConfig(address=f"127.0.0.1:{proxy.port}", scope="all"),
        )
        try:
            # Our own address is looked at directly, whatever goes through the proxy.
            [listen], _, [through] = await cli_check.Check(config, 10, {}, quiet=True).run()
            assert listen.found == "in use by this party"
            assert proxy.requests == [(CONNECT, f"{onion_id(7)}.onion", 7101)]
        finally:
            await proxy.aclose()
        _, _, [without] = await cli_check.Check(config, 10, {}, quiet=True).run()
        return [through, without]

    names = ("alice", "bob")
    with gateway(party("bob", names)) as own, gateway(party("alice", names)) as alice:
        through, without = asyncio.run(scenario(alice))
    assert (through.ok, through.found, through.address) == (True, "ok", onion)
    assert (without.ok, without.found) == (False, "no way through the proxy")
    assert "it cannot be reached: connection refused" in without.detail
    assert without.advice.startswith("Check [dial.socks]")


def test_the_clock_of_a_peer_that_is_far_off_is_worth_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prober_module, "ANSWER_TIMEOUT_S", 1.0)
    hello = Hello("bob", "alice", b"b" * 32, party_set=("alice", "bob"))
    late = {routing_tag("bob", "alice"): lambda *_: Probe(Role.RESPONDER, hello, int(time.time() - 60) * 1000)}
    with gateway(late) as address, make_listener() as taken:
        path = config_file(tmp_path, {"alice": address_of(taken), "bob": address})
        assert run(["check", path]) == 3
    said = capsys.readouterr().out
    assert "s behind ours" in said
    assert "NTP" in said
    assert "stop the program that uses the address" in said  # ours is taken, and not by us
    assert "1 of 2 need care" in said


def test_a_running_party_answers_and_does_not_notice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ExitStack() as stack:
        listeners = [stack.enter_context(make_listener()) for _ in range(2)]
        parties = {name: address_of(sock) for name, sock in zip(NAMES, listeners, strict=False)}
        alice, bob = open_all(
            [PartySpec(name, index, tuple(PeerSpec(other, at, *parties[other]) for at, other in enumerate(parties)))
             for index, name in enumerate(parties)],
            listeners,
            stack,
            options=LinkOptions(ring_size=256 * 1024, control_ring_size=64 * 1024),
        )  # fmt: skip
        heard = [len(opener.messages) for opener in (alice, bob)]
        for name in parties:  # each asks the other, one of them in the direction that no link is dialled
            code, document = check(capsys, config_file(tmp_path, parties, name=name))
            assert code == 0
            assert document["listen"][0]["found"] == "in use by this party"
            assert [peer["found"] for peer in document["peers"].values()] == ["ok"]
        alice.send(1, b"still here", others=[bob])
        bob.wait(lambda: bytes(bob.lanes[0, 0].received) == b"still here", [alice])
        for opener, before in zip((alice, bob), heard, strict=True):
            changes = (LinkEnded, LinkFailed, LinkLost, LinkProgress)
            assert not [message for message in opener.messages[before:] if isinstance(message, changes)]


def test_our_own_party_is_found_whatever_client_host_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with gateway(party("bob", ("alice", "bob"))) as address:
        parties = {"alice": f"unix:{tmp_path}/a.sock", "bob": address}
        _, document = check(capsys, config_file(tmp_path, parties, name="bob", client_host="::1"))
    assert document["listen"][0]["found"] == "in use by this party"


def test_a_configuration_that_cannot_be_used_is_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('name = "alice"\n[parties]\nalice = "nowhere"\n')
    assert run(["check", str(path)]) == 2
    assert "parties.alice" in capsys.readouterr().err
    assert run(["check", str(tmp_path / "none.toml")]) == 2


def test_a_file_whose_name_is_no_text_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / os.fsdecode(b"no\xfftext")
    folder.mkdir()
    with gateway(party("bob", ("alice", "bob"))) as address:
        path = config_file(folder, {"alice": f"unix:{tmp_path}/a.sock", "bob": address})
        assert run(["check", path, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["config"] == path
        assert run(["check", path]) == 0
        assert "no\ufffdtext/alice.toml: alice, party 0 of 2" in capsys.readouterr().out


def test_all_well_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with gateway(party("bob", ("alice", "bob"))) as address:
        path = config_file(tmp_path, {"alice": f"unix:{tmp_path}/a.sock", "bob": address})
        assert run(["check", path, "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "all of it is ready" in said
    assert "its clock agrees with ours" in said
    assert not (tmp_path / "a.sock").exists()


def test_a_probe_begins_with_a_preamble_that_an_older_gateway_refuses_without_harm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An older gateway reads 32 bytes, meets a class that it does not know, and closes."""
    with make_listener() as listener:
        seen: list[bytes] = []

        def close_each() -> None:
            listener.settimeout(20)
            sock, _ = listener.accept()
            listener.close()
            with sock:
                seen.append(sock.recv(PREAMBLE_SIZE, socket.MSG_WAITALL))

        thread = threading.Thread(target=close_each)
        thread.start()
        try:
            path = config_file(tmp_path, {"alice": f"unix:{tmp_path}/a.sock", "bob": address_of(listener)})
            code, document = check(capsys, path)
        finally:
            thread.join()
    assert code == 3
    assert seen[0][11] == 3
    assert document["peers"]["bob"]["found"] == "closes without a word"
    assert "older PartyWire" in document["peers"]["bob"]["advice"]
