"""What the supervisor sees of rings and doorbells that belong to others."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from partywire.engine import stat_rings
from partywire.engine.commands import Lanes
from partywire.engine.stat_rings import StatRings
from partywire.shm import fence
from partywire.shm.doorbell import Bell, Doorbell
from partywire.shm.ring import RingReader, RingWriter
from partywire.shm.segment import Segment

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("alice", "bob")
CAPACITY = 4096


class Link:
    """A ring pair as the I/O process and a worker share it."""

    def __init__(self) -> None:
        fence.register()
        self.fence = fence.probe()
        self.doorbell = Doorbell.create(self.fence)
        self.tx = Segment.create(CAPACITY, 1)
        self.rx = Segment.create(CAPACITY, 2)
        self.bells = [Bell.from_fds(*map(os.dup, self.doorbell.fds)) for _ in range(2)]
        self.writer = RingWriter(Segment.attach(os.dup(self.tx.fileno())), self.fence, self.bells[0])
        self.reader = RingReader(Segment.attach(os.dup(self.tx.fileno())), self.fence, self.bells[1])

    def lanes(self, peer: int = 1, worker: int = 0) -> tuple[Lanes, list[int]]:
        message = Lanes(worker, peer, 7, 1, [0], 1, worker == 0, 1 << 20)
        return message, [*self.doorbell.fds, self.tx.fileno(), self.rx.fileno()]

    def close(self) -> None:
        self.writer.close()
        self.reader.close()
        for bell in self.bells:
            bell.close()
        self.tx.close()
        self.rx.close()
        self.doorbell.close()


@pytest.fixture
def link() -> Iterator[Link]:
    link = Link()
    yield link
    link.close()


@pytest.fixture
def rings() -> Iterator[StatRings]:
    rings = StatRings(NAMES)
    yield rings
    rings.close()


def value(rings: StatRings, name: str, **labels: str) -> int:
    [found] = [value.value for value in rings.values() if value.name == name and labels.items() <= set(value.labels)]
    return found


def test_depth_and_stall_follow_the_ring(link: Link, rings: StatRings) -> None:
    rings.add_lanes(*link.lanes())
    tx = {"direction": "tx", "peer": "bob"}
    assert value(rings, "ring_depth_bytes", **tx) == 0
    while link.writer.try_write([bytes(200)], 200, 1):
        pass
    assert value(rings, "ring_stalled", **tx) == 0  # refused, and nobody waits yet
    assert not link.writer.request_space()
    assert value(rings, "ring_depth_bytes", **tx) > CAPACITY // 2
    assert value(rings, "ring_full_total", **tx) == 1
    assert value(rings, "ring_stalled", **tx) == 1
    assert value(rings, "ring_stalled", direction="rx") == 0
    while link.reader.poll():
        link.reader.release_all()
    assert value(rings, "ring_stalled", **tx) == 0  # its bell has been rung
    assert value(rings, "ring_depth_bytes", **tx) == 0
    assert value(rings, "ring_records_total", **tx) > 10
    assert value(rings, "ring_space_bells_total", **tx) == 1


def test_a_sleeping_process_is_seen(link: Link, rings: StatRings) -> None:
    rings.add_doorbell("worker 0", link.doorbell.fds[1])
    assert value(rings, "process_asleep", process="worker 0") == 0
    link.doorbell.arm()
    assert value(rings, "process_asleep", process="worker 0") == 1
    link.doorbell.disarm()
    assert value(rings, "process_asleep", process="worker 0") == 0
    assert value(rings, "process_sleeps_total", process="worker 0") == 1


def test_a_link_that_ended_is_not_held_in_memory(link: Link, rings: StatRings) -> None:
    rings.add_lanes(*link.lanes())
    assert rings.values()
    rings.drop_link(1)
    assert not rings.values()


def test_a_link_made_anew_takes_the_place_of_the_old_one(link: Link, rings: StatRings) -> None:
    rings.add_lanes(*link.lanes())
    count = len(rings.values())
    rings.add_lanes(*link.lanes())
    assert len(rings.values()) == count


def test_what_is_no_ring_is_left_out(link: Link, rings: StatRings) -> None:
    message, fds = link.lanes()
    rings.add_lanes(message, [link.tx.fileno(), fds[1], link.doorbell.fds[1], link.rx.fileno()])
    assert {dict(found.labels).get("direction") for found in rings.values()} == {None, "rx"}
    rings.add_doorbell("worker 0", link.tx.fileno())
    assert not [found for found in rings.values() if ("process", "worker 0") in found.labels]


@pytest.mark.parametrize(("rings_max", "seen"), [(2, 2), (1, 1)])
def test_rings_beyond_the_limit_are_left_out(
    link: Link, rings: StatRings, monkeypatch: pytest.MonkeyPatch, rings_max: int, seen: int
) -> None:
    monkeypatch.setattr(stat_rings, "RINGS_MAX", rings_max)
    rings.add_lanes(*link.lanes())
    assert len([found for found in rings.values() if found.name == "ring_capacity_bytes"]) == seen
