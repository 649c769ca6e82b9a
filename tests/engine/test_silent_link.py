"""The life of a link without a control connection: facts in, events out."""

from __future__ import annotations

from partywire.engine.link import LinkState
from partywire.engine.link_events import LinkClosed, LinkLost, LinkTimeouts, LinkUp
from partywire.engine.silent_link import SilentLink

TIMES = LinkTimeouts(close_s=5, goodbye_grace_s=1)


def make(connections: int = 2) -> SilentLink:
    link = SilentLink("alice", "bob", 10.0, TIMES, connections=connections, epoch=3)
    link.check_invariants()
    return link


def up(connections: int = 2) -> SilentLink:
    link = make(connections)
    for index in range(connections):
        link.attached(10.0, index)
    assert link.next_event() == LinkUp()
    link.check_invariants()
    return link


def test_it_is_up_with_its_last_connection_and_then_waits_for_nothing() -> None:
    link = make()
    link.attached(10.0, 1)
    assert link.next_event() is None
    link.attached(10.0, 0)
    assert link.next_event() == LinkUp()
    assert (link.state, link.epoch, link.connections) == (LinkState.UP, 3, 2)
    assert link.next_deadline() is None
    link.tick(1e9)  # however long the peer is silent
    assert link.next_event() is None
    link.check_invariants()


def test_a_connection_that_ends_before_all_stand_loses_the_attempt() -> None:
    link = make()
    link.attached(10.0, 0)
    link.stream_ended(11.0, 0)
    assert link.next_event() == LinkLost("bob closed connection 0 before the link was up")
    link.check_invariants()


def test_the_peers_end_is_over_when_all_of_its_streams_ended() -> None:
    link = up()
    link.stream_ended(20.0, 1)
    assert link.next_event() is None
    assert link.next_deadline() == 21.0
    link.stream_ended(20.5, 0)
    assert link.next_event() == LinkClosed(True, "bob closed its connections")
    assert link.is_dead
    link.check_invariants()


def test_one_stream_that_ends_alone_loses_the_link_after_a_moment() -> None:
    link = up()
    link.stream_ended(20.0, 1)
    link.tick(20.9)
    assert link.next_event() is None
    link.tick(21.0)
    assert isinstance(link.next_event(), LinkLost)


def test_a_stream_that_breaks_loses_the_link() -> None:
    link = up()
    link.stream_failed(1, "connection reset by peer")
    assert link.next_event() == LinkLost("connection 1 to bob broke: connection reset by peer")


def test_our_end_waits_for_the_peers() -> None:
    link = up()
    link.stream_ended(20.0, 0)
    link.goodbye_said(20.5)
    link.check_invariants()
    assert link.next_deadline() == 25.5  # the stream that ended alone is no fault any more
    link.stream_ended(22.0, 1)
    assert link.next_event() == LinkClosed(True, "")
    link.check_invariants()


def test_a_peer_that_never_ends_is_given_up() -> None:
    link = up(1)
    link.goodbye_said(20.0)
    link.tick(25.0)
    closed = link.next_event()
    assert isinstance(closed, LinkClosed)
    assert not closed.clean
