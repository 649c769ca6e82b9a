"""`partywire peers`: what a person types, and what they read; beside a node that runs, too."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING

import pytest

from partywire.engine.peer_store.known_address import KnownAddress, Source
from partywire.engine.peer_store.record import NAME_KEY, PeerRecord
from partywire.engine.peer_store.store import PeerStore
from partywire.engine.peers.contract import Ban
from tests.cli.command import Outcome, command, refused
from tests.peer_store.peers import ADDRESSES, key, peer_id, record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Peers = Callable[..., Outcome]

BOB = key(1).hex()
BOB_ID = str(peer_id(1))
ADDRESS = "/dns4/bob.example/tcp/7201"


@pytest.fixture
def peers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Peers:
    """The command in this process, on one store."""

    def run(*arguments: str) -> Outcome:
        return refused(capsys, "peers", *arguments, "--store", "store", cwd=tmp_path)

    return run


def said(outcome: Outcome) -> str:
    assert outcome.code == 0, outcome.err
    return outcome.out.strip()


def mistake(outcome: Outcome) -> str:
    assert outcome.code == 2
    assert not outcome.out
    return outcome.sentence


def test_a_peer_is_added_named_listed_and_removed(peers: Peers) -> None:
    assert said(peers("add", BOB, ADDRESS, "--name", "bob")) == f"bob ({BOB_ID}) is in the store; its addresses: 1"
    assert said(peers("add", "bob", "/ip4/10.0.0.1/tcp/1")).endswith("its addresses: 2")
    head, row = said(peers("list")).splitlines()
    assert head.split() == ["id", "name", "seen", "addresses", "the", "best", "one", "score"]
    assert row.split() == [BOB_ID[:16], "bob", "never", "2", "/ip4/10.0.0.1/tcp/1", "-"]
    assert said(peers("remove", BOB_ID[:4])) == f"bob ({BOB_ID}) is removed"
    assert said(peers("list")) == "no peers"
    assert "removed 0 s ago" in said(peers("list", "--removed"))
    assert "2" in said(peers("add", "bob"))
    assert said(peers("add", "bob", "--name", "")) == f"{BOB_ID} is in the store; its addresses: 2"
    assert said(peers("remove", BOB, "--forget")) == f"{BOB_ID} is forgotten"
    assert said(peers("list", "--removed")) == "no peers"


def test_a_ban_is_made_shown_and_ended(peers: Peers) -> None:
    peers("add", BOB, "--name", "bob")
    assert said(peers("ban", "bob", "--for", "2h", "--reason", "sends \x1b[31mrubbish")).startswith(
        f"bob ({BOB_ID}) is banned for 1 h 59 min: sends  [31mrubbish"
    )
    assert "for 1 h" in said(peers("ban", "bob", "--for", "30m")), "the longer one stays"
    stranger = str(peer_id(2))
    assert said(peers("ban", stranger)) == f"{stranger} is banned for good: banned by hand"
    lines = said(peers("list", "--banned")).splitlines()
    assert [line.split()[0] for line in lines[1:]] == [BOB_ID[:16], stranger[:16]]
    assert "banned for 1 h" in said(peers("list")).splitlines()[1]
    assert said(peers("unban", "bob")) == f"bob ({BOB_ID}) is no more banned"
    assert "is not banned; `partywire peers list --banned`" in mistake(peers("unban", "bob"))


def test_json_has_everything(peers: Peers) -> None:
    peers("add", BOB, ADDRESS, "--name", "bob")
    document = peers("ban", "bob", "--json").document
    assert document["ban"] == {"reason": "banned by hand", "until": None}
    (bob,) = peers("list", "--json").document["peers"]
    assert bob == document
    assert (bob["id"], bob["public_key"], bob["name"]) == (BOB_ID, BOB, "bob")
    assert bob["addresses"] == [{
        "address": ADDRESS, "source": "config", "score": None, "last_seen": None, "last_attempt": None, "attempts": 0,
        "failures": 0, "latency_s": None, "last_failure": None,
    }]  # fmt: skip
    assert peers("ban", str(peer_id(2)), "--json").document["is_known"] is False
    failed = peers("unban", "nobody", "--json")
    assert failed.document["exit_code"] == failed.code == 2


def test_the_list_is_sorted_and_cut_as_asked_for(peers: Peers, tmp_path: Path) -> None:
    now = time.time()
    with PeerStore(tmp_path / "store") as store:
        served = KnownAddress(ADDRESSES[1], Source.CLAIM).succeeded(now - 3700, 0.5).failed(now, "refused")
        store.add(
            PeerRecord.of_key(key(1), now - 30).with_addresses([served], now).seen(now - 3700),
            PeerRecord.of_key(key(2), now - 20).seen(now - 60).with_metadata(NAME_KEY, b"carol"),
            PeerRecord(peer_id(3), now - 10, protocols=("/chat/1",)),
        )

    def listed(*arguments: str) -> list[str]:
        return [one["id"] for one in peers("list", "--json", *arguments).document["peers"]]

    everybody = [peer_id(number) for number in (1, 2, 3)]
    assert listed() == sorted(map(str, everybody))
    assert listed("--sort", "seen") == [str(peer_id(number)) for number in (2, 1, 3)]
    assert listed("--sort", "added") == [str(peer_id(number)) for number in (3, 2, 1)]
    nearest = [str(one) for one in sorted(everybody, key=peer_id(2).distance)]
    assert listed("--closest-to", "carol") == nearest
    assert listed("--closest-to", str(peer_id(9)), "--limit", "1") == [str(min(everybody, key=peer_id(9).distance))]
    assert listed("--seen-within", "30m") == [str(peer_id(2))]
    assert listed("--seen-within", "2h", "--sort", "seen") == [str(peer_id(2)), str(peer_id(1))]
    assert listed("--protocol", "/chat/1") == [str(peer_id(3))]
    assert listed(str(peer_id(1))[:5]) == [str(peer_id(1))]
    cut = peers("list", "--limit", "2", "--sort", "seen")
    assert len(cut.out.splitlines()) == 3
    assert "--limit shows more than 2" in cut.sentence
    assert "1 h 1 min ago" in cut.out
    assert "failures in a row: 1 (refused)" in cut.out
    assert peers("list", "--limit", "2", "--json").document["has_more"] is True
    assert peers("list", "--limit", "3", "--json").document["has_more"] is False


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("list",), "there is no peer store in store"),
        (("unban", "bob"), "there is no peer store in store"),
        (("remove", BOB), "there is no peer store in store"),
        (("add", "bob", ADDRESS), "there is no peer store in store"),
        (("add", BOB, "/ip4/1.2.3.4.5/tcp/1"), "/ip4/1.2.3.4.5/tcp/1 is not an address that can be added"),
        (("add", BOB, *["/ip4/1.2.3.4/tcp/1"] * 11), "11 addresses, at most 10"),
        (("add", BOB, "--name", "x" * 65), "at most 64 bytes"),
        (("ban", BOB, "--for", "5"), "no time such as 90s, 30m, 2h, 7d or forever"),
        (("ban", BOB, "--for", "0s"), "no time such as"),
        (("ban", BOB, "--for", "99999999d"), "no time such as"),
        (("list", "--seen-within", "forever"), "no time such as 90s, 30m, 2h, 7d"),
        (("list", "abc", "--sort", "seen"), "leave --sort out"),
        (("list", "abc", "--closest-to", BOB), "neither PREFIX nor --sort"),
        (("list", "--limit", "0"), "--limit"),
    ],
)
def test_a_mistake_is_one_sentence_and_makes_nothing(
    peers: Peers, tmp_path: Path, arguments: tuple[str, ...], what: str
) -> None:
    assert what in mistake(peers(*arguments))
    assert list(tmp_path.iterdir()) == []


def test_whoever_is_meant_must_be_one_peer(peers: Peers, tmp_path: Path) -> None:
    twins = [record(number).with_metadata(NAME_KEY, b"twin") for number in (1, 2)]
    with PeerStore(tmp_path / "store") as store:
        store.add(*twins)
    assert "say more digits of one of these" in mistake(peers("remove", "twin"))
    assert "no peer of this store" in mistake(peers("remove", BOB_ID[:3]))
    assert "no peer of this store" in mistake(peers("remove", "\x1b[31m"))
    assert "is not in this store" in mistake(peers("remove", str(peer_id(3))))
    assert "not the beginning of an id" in mistake(peers("list", "xyz"))
    peers("ban", BOB_ID[:4])
    with PeerStore(tmp_path / "store", "read") as store:
        assert store.bans().keys() == {peer_id(1)}


def test_what_cannot_be_read_is_told(peers: Peers, tmp_path: Path) -> None:
    with PeerStore(tmp_path / "store") as store:
        store.add(record(1), record(2))
        environment = store._environment
        environment.write(lambda transaction: transaction.put(peer_id(1).raw, b"x", db=environment.databases["peers"]))
    for _ in range(2):
        listed = peers("list")
        assert len(said(listed).splitlines()) == 2
        assert listed.sentence.startswith("records that cannot be read, and count as unknown: 1")
        peers("add", str(peer_id(3)))
        peers("remove", str(peer_id(3)), "--forget")
    assert peers("list", "--json").document["unreadable"] == 1


def test_a_store_that_cannot_be_used_is_a_mistake(peers: Peers, tmp_path: Path) -> None:
    peers("add", BOB)
    (tmp_path / "store").chmod(0o777)
    assert "chmod go-w" in mistake(peers("list"))
    (tmp_path / "store").chmod(0o700)
    with PeerStore(tmp_path / "store", schema=2, migrations={1: lambda *_: None}):
        pass
    assert "a newer PartyWire wrote it" in mistake(peers("list"))


def test_the_command_works_beside_a_node_that_hears_of_it_at_once(tmp_path: Path) -> None:
    with PeerStore(tmp_path / "store") as node:
        node.add(record(1))
        banned = command("peers", "ban", BOB_ID[:6], "--for", "7d", "--store", "store", cwd=tmp_path)
        assert "is banned for 6 d 23 h" in said(banned)
        ban = node.ban_of(peer_id(1))
        assert ban is not None
        assert not math.isinf(ban.until)
        node.ban(peer_id(1), Ban("for good", math.inf))
        assert "for good" in said(command("peers", "list", "--store", "store", cwd=tmp_path))


def test_without_the_library_the_command_says_what_to_install(
    peers: Peers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    assert mistake(peers("add", BOB)).endswith("pip install 'partywire[node]'")
    assert list(tmp_path.iterdir()) == []
