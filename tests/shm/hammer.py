"""`python -m tests.shm.hammer TASK ...`: what two processes do to one ring, each in a process of its own.

The test starts the producer and the consumer with the descriptors of one segment and two doorbells; each checks what
it sees and prints its figures as one JSON object. Nothing here waits longer than STALL_MAX_S.
"""

from __future__ import annotations

import json
import random
import select
import sys
from typing import TYPE_CHECKING

from partywire.shm import Bell, Doorbell, RingReader, RingWriter, Segment, probe, register

if TYPE_CHECKING:
    from collections.abc import Callable

STALL_MAX_S = 60.0
# The safety net under every sleep. What a bell should have ended and this ended instead is counted.
SLEEP_S = 1.0
# After such a sleep, how long a bell may still come late before it counts as lost: the waker may have been off its CPU.
LATE_BELL_S = 10.0

PATTERN = bytes(range(251)) * 300
TABLE_SIZE = 4096


class SleeperLost(Exception):
    """Raised when nothing happened for STALL_MAX_S."""


class Sleeper:
    """One process's doorbell, and the count of its sleeps and of the wake-ups that never came."""

    def __init__(self, doorbell: Doorbell) -> None:
        self.doorbell = doorbell
        self.sleeps = 0
        self.timeouts_with_data = 0
        self._poller = select.poll()
        self._poller.register(doorbell.fileno(), select.POLLIN)

    def poll(self, timeout_s: float) -> bool:
        rung = bool(self._poller.poll(timeout_s * 1000))
        self.doorbell.drain()
        return rung

    def sleep_until(self, ready: Callable[[], bool]) -> None:
        """Sleep armed until a bell or the data is there. `ready` is the look after the arming."""
        slept_s = 0.0
        self.doorbell.arm()
        while not ready():
            self.sleeps += 1
            if self.poll(SLEEP_S):
                break
            if ready():
                if not self.poll(LATE_BELL_S):
                    self.timeouts_with_data += 1
                break
            slept_s += SLEEP_S
            if slept_s > STALL_MAX_S:
                raise SleeperLost
            self.doorbell.arm()
        self.doorbell.disarm()


def sizes_of(seed: int, size_max: int) -> list[int]:
    """Sizes spread evenly over their logarithm, zero among them."""
    chance = random.Random(seed)
    return [int((size_max + 1) ** chance.random()) - 1 for _ in range(TABLE_SIZE)]


def content_of(number: int, size: int) -> bytes:
    start = number * 31 % 251
    return PATTERN[start : start + size]


def hammer_produce(writer: RingWriter, sleeper: Sleeper, count: int, size_max: int, seed: int) -> None:
    """Numbered records of all sizes, in batches of all lengths."""
    sizes = sizes_of(seed, size_max)
    batches = sizes_of(seed + 1, 300)
    number = batch = 0
    while number < count:
        stop = min(count, number + 1 + batches[batch % TABLE_SIZE])
        batch += 1
        while number < stop:
            size = sizes[number % TABLE_SIZE]
            while not writer.try_write((content_of(number, size),), size, 1 + (number & 0xFF), number & 0xFFFF):
                if not writer.request_space() and not sleeper.poll(STALL_MAX_S):
                    raise SleeperLost
            number += 1
        writer.publish()


def hammer_consume(reader: RingReader, sleeper: Sleeper, count: int, size_max: int, seed: int) -> None:
    """Every record exactly once, in order, whole; released in parts that have nothing to do with the batches."""
    sizes = sizes_of(seed, size_max)
    limits = sizes_of(seed + 2, 500)
    number = turn = 0
    while number < count:
        records = reader.poll(1 + limits[turn % TABLE_SIZE])
        turn += 1
        if not records:
            reader.release_all()  # whoever sleeps on held records may wait for a producer that waits for their room
            sleeper.sleep_until(lambda: not reader.is_empty())
            continue
        for kind, connection, _, sequence, payload in records:
            if (
                sequence != number
                or payload != content_of(number, sizes[number % TABLE_SIZE])
                or kind != 1 + (number & 0xFF)
                or connection != number & 0xFFFF
            ):
                raise AssertionError(f"record {number} is wrong")
            number += 1
        if turn % 3:
            reader.release_all()
        else:
            reader.release(len(records) // 2)
    reader.release_all()
    assert reader.is_empty()
    assert reader.poll() == []


def echo(writer: RingWriter, reader: RingReader, sleeper: Sleeper, count: int, begins: bool) -> None:
    """Ping-pong: each side sleeps until the other's record is there. One lost wake-up would stop both."""
    for number in range(count):
        if begins or number:
            write_one(writer, number)
        while not (records := reader.poll()):
            sleeper.sleep_until(lambda: not reader.is_empty())
        assert len(records) == 1
        reader.release_all()
    if not begins:
        write_one(writer, count)


def write_one(writer: RingWriter, number: int) -> None:
    assert writer.try_write((number.to_bytes(8, "little"),), 8, 1)
    writer.publish()


def starve(writer: RingWriter, sleeper: Sleeper, count: int) -> None:
    """Fill the ring, sleep until there is room, and so on: each record needs a wake-up for space."""
    size = writer.record_size_max
    for number in range(count):
        payload = content_of(number, size)
        while not writer.try_write((payload,), size, 1):
            if not writer.request_space():
                sleeper.sleeps += 1
                if not sleeper.poll(STALL_MAX_S):
                    raise SleeperLost
        writer.publish()


def eat(reader: RingReader, sleeper: Sleeper, count: int) -> None:
    number = 0
    while number < count:
        records = reader.poll(1)
        if not records:
            sleeper.sleep_until(lambda: not reader.is_empty())
            continue
        assert records[0].payload == content_of(number, len(records[0].payload))
        number += 1
        reader.release_all()


def main() -> None:
    task, count, size_max, seed = sys.argv[1], *map(int, sys.argv[2:5])
    tx_fd, rx_fd, our_bell, our_page, their_bell, their_page = map(int, sys.argv[5:])
    register()
    fence = probe()
    sleeper = Sleeper(Doorbell.from_fds(our_bell, our_page, fence))
    bell = Bell.from_fds(their_bell, their_page)
    writer = RingWriter(Segment.attach(tx_fd), fence, bell)
    reader = RingReader(Segment.attach(rx_fd), fence, bell)
    if task == "produce":
        hammer_produce(writer, sleeper, count, size_max, seed)
    elif task == "consume":
        hammer_consume(reader, sleeper, count, size_max, seed)
    elif task in ("ping", "pong"):
        echo(writer, reader, sleeper, count, task == "ping")
    elif task == "starve":
        starve(writer, sleeper, count)
    elif task == "eat":
        eat(reader, sleeper, count)
    figures = {"sleeps": sleeper.sleeps, "timeouts_with_data": sleeper.timeouts_with_data, "fence": fence.name}
    print(json.dumps(figures))
    for end in (writer, reader, bell, sleeper.doorbell):
        end.close()


if __name__ == "__main__":
    main()
