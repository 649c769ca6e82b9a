"""Names, addresses and the arithmetic of links."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine import limits
from partywire.engine.topology import (
    PartySpec,
    PeerSpec,
    check_name,
    connection_count,
    connection_of_session,
    dials,
    is_bulk_connection,
    routing_tag,
    worker_of_connection,
)

ABC = tuple(PeerSpec(name, index, "127.0.0.1", 7001 + index) for index, name in enumerate(["alice", "bob", "charlie"]))
names = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, categories=["L", "N"]), min_size=1, max_size=12)


def test_a_party_knows_itself_and_its_peers_in_index_order() -> None:
    party = PartySpec("bob", 1, ABC)
    assert party.ours is ABC[1]
    assert party.peers == (ABC[0], ABC[2])
    assert party.names == ("alice", "bob", "charlie")


@pytest.mark.parametrize(
    ("name", "index", "parties", "message"),
    [
        ("alice", 0, (), "0 parties, between 2 and 9"),
        ("alice", 0, (PeerSpec("alice", 0, "h", 1),), "1 parties, between 2 and 9"),
        ("p0", 0, tuple(PeerSpec(f"p{i}", i, "h", 1) for i in range(10)), "10 parties, between 2 and 9"),
        ("alice", 0, (ABC[1], ABC[0]), "order of their indices"),
        ("alice", 0, (ABC[0], PeerSpec("alice", 1, "h", 1)), "same name"),
        ("dave", 0, ABC, "dave is not party 0"),
        ("alice", 1, ABC, "alice is not party 1"),
        ("alice", 3, ABC, "alice is not party 3"),
    ],
)
def test_an_impossible_party_is_refused(name: str, index: int, parties: tuple[PeerSpec, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PartySpec(name, index, parties)


@pytest.mark.parametrize("port", [-1, 65536])
def test_an_impossible_port_is_refused(port: int) -> None:
    with pytest.raises(ValueError, match="port"):
        PeerSpec("alice", 0, "h", port)


@pytest.mark.parametrize("name", ["", "a b", "a\tb", "a\nb", "\x1b[31m", "x" * 65, "ß" * 33, "\ud800", "a\u00a0b"])
def test_a_name_that_could_not_be_shown_or_sent_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        check_name(name)


@pytest.mark.parametrize("name", ["a", "x" * 64, "ß" * 32, "party-0.example.org", "7"])
def test_an_ordinary_name_is_accepted(name: str) -> None:
    check_name(name)


@given(names, names)
def test_exactly_one_of_two_different_names_dials(one: str, other: str) -> None:
    assert dials(one, other) + dials(other, one) == (one != other)


def test_the_greater_name_in_byte_order_dials() -> None:
    assert dials("charlie", "alice")
    assert dials("bob", "alice")
    assert not dials("Zoe", "alice")
    # Byte order, not the order of code points in UTF-16 or of a locale.
    assert dials("\U0001f600", "\ufb01")


@given(st.integers(1, 16), st.integers(1, 16))
def test_a_connection_never_mixes_workers(our_workers: int, their_workers: int) -> None:
    if math.lcm(our_workers, their_workers) > limits.CONNECTIONS_MAX:
        with pytest.raises(ValueError, match="connections"):
            connection_count(our_workers, their_workers)
        return
    count = connection_count(our_workers, their_workers)
    assert count == connection_count(their_workers, our_workers)
    for session in range(200):
        normal, bulk = (connection_of_session(session, count, is_bulk=is_bulk) for is_bulk in (False, True))
        assert (is_bulk_connection(normal, count), is_bulk_connection(bulk, count)) == (False, True)
        assert bulk - normal == count
        for connection in (normal, bulk):
            assert worker_of_connection(connection, our_workers) == session % our_workers
            assert worker_of_connection(connection, their_workers) == session % their_workers
    assert not is_bulk_connection(2 * count, count)


@pytest.mark.parametrize("workers", [0, -1, 65])
def test_an_impossible_worker_count_is_refused(workers: int) -> None:
    with pytest.raises(ValueError, match="workers"):
        connection_count(workers, 1)
    with pytest.raises(ValueError, match="workers"):
        connection_count(1, workers)


@given(st.sets(st.tuples(names, names), min_size=2, max_size=8))
def test_routing_tags_tell_links_apart(links: set[tuple[str, str]]) -> None:
    tags = {routing_tag(acceptor, dialler) for acceptor, dialler in links}
    assert len(tags) == len(links)
    assert {len(tag) for tag in tags} == {16}


def test_a_routing_tag_keeps_its_value() -> None:
    assert routing_tag("alice", "bob").hex() == "634f6dacd090f22600f647cefa6a0306"
    assert routing_tag("al", "icebob") != routing_tag("alice", "bob")
