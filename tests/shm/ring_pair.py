"""Both ends of one ring in one process, each on its own mapping, as two processes would have them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

from partywire.shm import Doorbell, Segment, probe
from partywire.shm.counters import WORD_HEAD, WORD_TAIL
from tests.shm.implementations import OWN

if TYPE_CHECKING:
    from partywire.shm import Bell, Fence, Record

# No period that is a power of two, so that a wrong offset within a ring shows.
PATTERN = bytes(range(251)) * 300


# Whose classes the two ends are made of; the marks of conftest.py set them.
writing = OWN
reading = OWN


class RingPair:
    """A writer, a reader, and a doorbell for each of them. `position` is where the ring starts its life."""

    def __init__(self, capacity: int = 1024, position: int = 0, fence: Fence | None = None) -> None:
        fence = fence or probe()
        self.capacity = capacity
        segment = Segment.create(capacity, ring_id=7)
        segment.words[WORD_TAIL] = segment.words[WORD_HEAD] = position
        self.writer_segment = segment
        self.reader_segment = Segment.attach(os.dup(segment.fileno()), segment.epoch)
        self.writer_doorbell = Doorbell.create(fence)
        self.reader_doorbell = Doorbell.create(fence)
        self.writer_bell = bell_of(self.writer_doorbell, reading.bell)
        self.reader_bell = bell_of(self.reader_doorbell, writing.bell)
        self.writer = writing.writer(self.writer_segment, fence, self.reader_bell)
        self.reader = reading.reader(self.reader_segment, fence, self.writer_bell)

    def send(self, *payloads: bytes) -> None:
        """Write and publish; the test says that there is room."""
        for payload in payloads:
            assert self.writer.try_write((payload,), len(payload), 1)
        self.writer.publish()

    def receive(self) -> list[bytes]:
        """Everything published, copied out and released."""
        payloads = []
        while records := self.reader.poll():
            payloads += payloads_of(records)
            self.reader.release_all()
        return payloads

    def close(self) -> None:
        for end in (self.writer, self.reader, self.writer_bell, self.reader_bell):
            end.close()
        self.writer_doorbell.close()
        self.reader_doorbell.close()
        # Also where a test closed only an end whose segment was replaced by a spy.
        self.writer_segment.close()
        self.reader_segment.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def bell_of(doorbell: Doorbell, kind: type[Bell] | None = None) -> Bell:
    return (kind or writing.bell).from_fds(*(os.dup(fd) for fd in doorbell.fds))


def payloads_of(records: list[Record]) -> list[bytes]:
    return [bytes(record.payload) for record in records]


def payload_of(sequence: int, size: int) -> bytes:
    """Bytes that tell both the record and the place within it."""
    start = sequence * 31 % 251
    return PATTERN[start : start + size]
