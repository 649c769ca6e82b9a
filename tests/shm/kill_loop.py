"""`python -m tests.shm.kill_loop ROLE KILLS SEED`: fork one side of a ring, SIGKILL it at a random moment, look.

Runs in a process of its own because it forks. Prints how many kills and records there were; ends with a traceback and
a code other than 0 at the first thing that is not as it must be. The seed decides the moments as far as timing can.
"""

from __future__ import annotations

import os
import random
import select
import signal
import sys
import time
from typing import TYPE_CHECKING

from partywire.shm import Doorbell, RingReader, RingWriter, Segment, probe, register
from tests.shm.ring_pair import bell_of

if TYPE_CHECKING:
    from collections.abc import Callable

CAPACITY = 4096
PATTERN = bytes(at * 131 & 0xFF for at in range(8192))
RUNNING_S_MAX = 0.004
DEADLINE_S = 100.0


def payload_of(sequence: int) -> bytes:
    size = sequence * 37 % 600
    return PATTERN[sequence % 4096 : sequence % 4096 + size]


class Loop:
    """One ring, both doorbells, and the child at one end of it."""

    def __init__(self) -> None:
        self.fence = probe()
        self.segment = Segment.create(CAPACITY)
        self.producer_doorbell = Doorbell.create(self.fence)
        self.consumer_doorbell = Doorbell.create(self.fence)
        self.producer_bell = bell_of(self.producer_doorbell)
        self.consumer_bell = bell_of(self.consumer_doorbell)

    def close(self) -> None:
        self.segment.close()
        for end in (self.producer_bell, self.consumer_bell, self.producer_doorbell, self.consumer_doorbell):
            end.close()

    def wait(self, doorbell: Doorbell, timeout_s: float) -> None:
        select.select([doorbell.fileno()], [], [], timeout_s)
        doorbell.drain()

    def produce(self, go_on: Callable[[], bool]) -> RingWriter:
        """Write numbered records, published in batches of changing size, until told to end."""
        writer = RingWriter(self.segment, self.fence, self.consumer_bell)
        sequence = 0
        while go_on():
            payload = payload_of(sequence)
            if sequence % 2:
                written = writer.try_write((payload,), len(payload), 1)
            else:
                claim = writer.try_claim(600, len(payload))
                written = claim is not None
                if claim is not None:
                    claim[: len(payload)] = payload
                    writer.commit(len(payload), 1)
            if written:
                sequence += 1
                if sequence % 7 in (0, 3, 4):
                    writer.publish()
            elif not writer.request_space():
                self.wait(self.producer_doorbell, 0.01)
        return writer

    def consume(self, go_on: Callable[[], bool]) -> int:
        """Check every record; returns how many there were once told to end and nothing is left."""
        reader = RingReader(self.segment, self.fence, self.producer_bell)
        seen = 0
        has_ended = False
        while True:
            records = reader.poll(5)
            for record in records:
                assert record.sequence == seen
                assert record.payload == payload_of(seen), f"record {seen} is damaged"
                seen += 1
            if records:
                reader.release_all()
                continue
            if has_ended:
                return seen
            if not go_on():
                has_ended = True  # what was published between the look above and the end is still to come
                continue
            self.consumer_doorbell.arm()
            if reader.is_empty():
                self.wait(self.consumer_doorbell, 0.01)
            self.consumer_doorbell.disarm()


def forever() -> bool:
    return True


def kill_once(role: str, chance: random.Random) -> int:
    """One child, one SIGKILL; how many records passed."""
    loop = Loop()
    child = os.fork()
    if child == 0:
        try:
            loop.produce(forever) if role == "producer" else loop.consume(forever)
        finally:
            os._exit(9)
    pidfd = os.pidfd_open(child)
    kill_at = time.monotonic() + chance.random() * RUNNING_S_MAX
    killed = False

    def child_lives() -> bool:
        nonlocal killed
        if not killed and time.monotonic() >= kill_at:
            os.kill(child, signal.SIGKILL)
            killed = True
        return not (killed and select.select([pidfd], [], [], 0)[0])

    try:
        if role == "producer":
            records = loop.consume(child_lives)
        else:
            writer = loop.produce(child_lives)
            records = fill(writer)
    finally:
        _, status = os.waitpid(child, 0)
        os.close(pidfd)
        loop.close()
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, f"the {role} ended by itself"
    return records


def fill(writer: RingWriter) -> int:
    """The consumer is dead: the ring fills up and says so."""
    for _ in range(CAPACITY):
        if not writer.try_write((b"x",), 1, 1):
            break
    assert not writer.try_write((b"x",), 1, 1)
    assert not writer.request_space()
    figures = writer.stat()
    assert 0 < figures.depth <= CAPACITY
    return figures.records_released


def main() -> None:
    role, kills, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    register()
    chance = random.Random(seed)
    deadline = time.monotonic() + DEADLINE_S
    records = 0
    for _ in range(kills):
        assert time.monotonic() < deadline, "the kill loop hangs"
        records += kill_once(role, chance)
    print(kills, records)


if __name__ == "__main__":
    main()
