"""What the opener makes of what it hears of its node."""

from __future__ import annotations

import os

import pytest

from partywire import NodeUnavailable
from partywire.engine.node_commands import NodeFailed, NodeLane, NodeLost
from partywire.workers.watched_node import NodeWatch

LANE = NodeLane(1, "ab" * 13, [])


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_a_party_waits_for_its_node_until_it_stands() -> None:
    watch = NodeWatch("alice", has_node=True)
    awaited = [NodeWatch("alice", has_node=False).is_awaited, watch.is_awaited]
    for message in (LANE, NodeLost("it was killed", True)):
        watch.hear(message, [])
        awaited.append(watch.is_awaited)
    assert awaited == [False, True, False, True]


def test_a_lane_is_handed_on_or_closed() -> None:
    watch = NodeWatch("alice", has_node=True)
    taken: list[tuple[NodeLane, list[int]]] = []
    fd, other = os.eventfd(0), os.eventfd(0)
    watch.hear(LANE, [fd])
    assert not is_open(fd)
    watch.on_lane = lambda lane, fds: taken.append((lane, fds))
    watch.hear(LANE, [other])
    assert taken == [(LANE, [other])]
    assert is_open(other)
    os.close(other)


def test_who_uses_the_node_hears_of_its_loss() -> None:
    watch = NodeWatch("alice", has_node=True)
    heard: list[NodeLost] = []
    watch.on_lost = heard.append
    watch.hear(NodeLost("it was killed", True), [])
    assert heard == [NodeLost("it was killed", True)]


def test_a_node_that_never_will_stand_is_an_error_and_one_that_is_late_has_a_cause() -> None:
    watch = NodeWatch("alice", has_node=True)
    assert "within 3 s; is this machine busy" in str(watch.late_error(3.0))
    watch.hear(NodeLost("the node's process was killed by SIGKILL", True), [])
    assert "within 3 s; the node's process was killed by SIGKILL" in str(watch.late_error(3.0))
    watch.hear(NodeFailed("the node of alice cannot start: its address is taken"), [])
    with pytest.raises(NodeUnavailable, match=r"^the node of alice cannot start: its address is taken$"):
        _ = watch.is_awaited
