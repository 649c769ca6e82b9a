"""Places and rates of hosts whose connections have not shown who they are."""

from __future__ import annotations

import pytest

from partywire.engine.antechamber import THIS_HOST
from partywire.engine.multiaddr import Multiaddr
from partywire.engine.peers import strangers as strangers_module
from partywire.engine.peers.strangers import Strangers, origin_of_address


def at(host: str) -> Multiaddr:
    kind = "ip6" if ":" in host else "ip4"
    return Multiaddr.parse(f"/{kind}/{host}/tcp/7")


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("/ip4/203.0.113.5/tcp/7", "203.0.113.5"),
        ("/ip4/203.0.113.5/tcp/7/ws", "203.0.113.5"),
        ("/ip6/2001:db8::1/tcp/7", "20010db800000000/64"),
        ("/ip6zone/eth0/ip6/fe80::1/tcp/7", "fe80000000000000/64"),
        ("/ip6/::ffff:203.0.113.5/tcp/7", "203.0.113.5"),
        ("/ip4/127.0.0.1/tcp/7", THIS_HOST),
        ("/ip6/::1/tcp/7", THIS_HOST),
        ("/memory/0", THIS_HOST),
        ("/unix/run/x", THIS_HOST),
    ],
)
def test_what_counts_as_one_host(text: str, origin: str) -> None:
    assert origin_of_address(Multiaddr.parse(text)) == origin


def test_a_host_crowds_out_itself_and_this_host_has_all_places() -> None:
    strangers: Strangers[str] = Strangers(4, 2, 100)
    assert [strangers.enter(name, at("203.0.113.5")) for name in "abc"] == [None, None, "a"]
    assert [strangers.enter(name, at("127.0.0.1")) for name in "de"] == [None, None]
    assert strangers.enter("f", at("127.0.0.1")) == "b"  # of two with as many, who came first
    assert strangers.enter("g", at("127.0.0.1")) == "d"
    strangers.leave("c")
    strangers.leave("nobody")
    assert len(strangers) == 3


def test_a_share_above_all_places_is_all_of_them() -> None:
    strangers: Strangers[int] = Strangers(2, 25, 1)
    assert [strangers.enter(number, at("203.0.113.5")) for number in range(3)] == [None, None, 0]


def test_a_host_comes_so_often_and_others_all_the_same() -> None:
    strangers: Strangers[int] = Strangers(2, 2, 3)
    assert [strangers.may_enter(at("203.0.113.5"), 1.0) for _ in range(5)] == [True] * 3 + [False] * 2
    assert strangers.may_enter(at("203.0.113.6"), 1.0)
    assert [strangers.may_enter(at("2001:db8::7"), 1.0) for _ in range(3)] == [True] * 3
    assert not strangers.may_enter(at("2001:db8::8"), 1.0)  # of the same network
    assert strangers.may_enter(at("203.0.113.5"), 1.4)
    assert all(strangers.may_enter(at("127.0.0.1"), 1.0) for _ in range(1000))


def test_the_host_that_came_last_longest_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers_module, "ORIGINS_MAX", 2)
    strangers: Strangers[int] = Strangers(2, 2, 1)
    for host in ("203.0.113.1", "203.0.113.2"):
        assert strangers.may_enter(at(host), 1.0)
    assert not strangers.may_enter(at("203.0.113.1"), 1.0)
    assert strangers.may_enter(at("203.0.113.3"), 1.0)  # in the place of the second one
    assert not strangers.may_enter(at("203.0.113.1"), 1.0)
    assert strangers.may_enter(at("203.0.113.2"), 1.0)
