"""A side that dies at any instruction: the other sees whole published records and nothing else.

Crash points are enumerated: spy memory carries out k - 1 stores, half of the k-th when it is more than one word, and
then ends the operation for good, as SIGKILL would. Such memory can be shown to plain Python only; the loops with real
processes and real SIGKILLs, which tests/shm/kill_loop.py runs in a process of its own, are for both implementations.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from partywire.shm import Bell, Segment, compiled, probe, pure
from partywire.shm.counters import WORD_HEAD, WORD_TAIL
from partywire.shm.record import RECORD_HEADER
from tests.shm.implementations import PURE, implementation
from tests.shm.ring_pair import RingPair, payload_of


class KilledError(BaseException):
    """Stands for SIGKILL; no handler of the code under test may catch it."""


class Spy:
    """Counts the stores of one process and ends it at the chosen one."""

    def __init__(self, stores_left: int) -> None:
        self.stores_left = stores_left

    def about_to_store(self) -> bool:
        self.stores_left -= 1
        return self.stores_left >= 0


class SpyWords:
    """Control words: each store happens as a whole or not at all."""

    def __init__(self, words: memoryview, spy: Spy) -> None:
        self._words, self._spy = words, spy

    def __getitem__(self, index: int) -> int:
        return self._words[index]

    def __setitem__(self, index: int, value: int) -> None:
        if not self._spy.about_to_store():
            raise KilledError
        self._words[index] = value


class SpyData:
    """Ring bytes: a store that is cut leaves its first half."""

    def __init__(self, data: memoryview, spy: Spy) -> None:
        self.data, self._spy = data, spy

    def __getitem__(self, place: slice) -> memoryview:
        return self.data[place]

    def __setitem__(self, place: slice, content: bytes | memoryview) -> None:
        if not self._spy.about_to_store():
            half = len(content) // 2
            self.data[place.start : place.start + half] = content[:half]
            raise KilledError
        self.data[place] = content

    def toreadonly(self) -> memoryview:
        return self.data.toreadonly()


class SpySegment:
    """Looks like a segment to a ring's end."""

    closed = False

    def __init__(self, segment: Segment, spy: Spy) -> None:
        self.words = SpyWords(segment.words, spy)
        self.data = SpyData(segment.data, spy)
        self.capacity, self.ring_id = segment.capacity, segment.ring_id


def spying_segment(segment: Segment, spy: Spy) -> Segment:
    fake: Any = SpySegment(segment, spy)
    return fake  # type: ignore[no-any-return]


@pytest.fixture
def header_stores_are_spied(monkeypatch: pytest.MonkeyPatch) -> None:
    def pack(data: SpyData, index: int, *fields: int) -> None:
        data[index : index + RECORD_HEADER.size] = RECORD_HEADER.pack(*fields)

    monkeypatch.setattr(pure, "pack_header_into", pack)


class Producer:
    """Runs a script of writes; knows what it committed and what it may have published when it is killed."""

    def __init__(self, segment: Segment, bell: Bell, sizes: tuple[int, ...], first: int) -> None:
        self._spied = segment
        self._bell = bell
        self._sizes = sizes
        self.sequence = first
        self.published = first

    def run(self) -> None:
        writer = PURE.writer(self._spied, probe(), self._bell)
        for turn, size in enumerate(self._sizes):
            payload = payload_of(self.sequence, size)
            if turn % 3 == 2:
                claim = writer.try_claim(size + 7, size)
                written = claim is not None
                if claim is not None:
                    half = size // 2
                    claim[:half] = payload[:half]
                    claim[half:size] = payload[half:]
                    writer.commit(size, 1)
            else:
                written = writer.try_write((payload,), size, 1)
            if not written:
                break
            self.sequence += 1
            if turn % 2:
                writer.publish()
                self.published = self.sequence
        writer.request_space(self._sizes[0])
        self.published = self.sequence


SCRIPTS = [(0, 0, 0, 0, 0, 0), (1, 31, 32, 33, 64, 65), (96, 1, 96), (64, 64, 64, 64), (95, 33, 0, 1)]


@pytest.mark.usefixtures("header_stores_are_spied")
@pytest.mark.parametrize("sizes", SCRIPTS)
def test_a_producer_killed_at_any_store_leaves_only_whole_published_records(sizes: tuple[int, ...]) -> None:
    points = 0
    for position in range(0, 256, 32):
        for stores in range(1000):
            ended = run_producer_until(stores, position, sizes)
            points += 1
            if ended:
                break
        else:
            raise AssertionError("the script never came to its end")
    assert points > 8 * len(sizes), "every position has several crash points"


def run_producer_until(stores: int, position: int, sizes: tuple[int, ...]) -> bool:
    """Kill the producer after so many stores and check what the consumer finds; whether the script ended first."""
    with RingPair(256, position) as pair:
        # One record of an earlier batch is there and unread; it must survive whatever happens.
        pair.send(payload_of(0, 5))
        pair.reader_doorbell.arm()
        tail_before = pair.writer_segment.words[WORD_TAIL]
        spy = Spy(stores)
        producer = Producer(spying_segment(pair.writer_segment, spy), pair.reader_bell, sizes, first=1)
        ended = True
        try:
            producer.run()
        except KilledError:
            ended = False
        payloads = pair.receive()
        expected = [payload_of(0, 5)] + [payload_of(1 + turn, size) for turn, size in enumerate(sizes)]
        assert payloads == expected[: len(payloads)]
        assert producer.published <= len(payloads) <= producer.sequence
        if len(payloads) == 1:
            assert pair.reader_segment.words[WORD_TAIL] == tail_before
        assert pair.receive() == []
        return ended


def test_a_consumer_killed_at_any_store_never_harms_the_producer() -> None:
    for position in range(0, 256, 32):
        for stores in range(1000):
            if run_consumer_until(stores, position):
                break
        else:
            raise AssertionError("the script never came to its end")


def run_consumer_until(stores: int, position: int) -> bool:
    with RingPair(256, position) as pair:
        spied = spying_segment(pair.reader_segment, Spy(stores))
        ended = True
        received = 0
        try:
            reader = PURE.reader(spied, probe(), pair.writer_bell)
            for _ in range(4):
                while pair.writer.try_write((b"abc",), 3, 1):
                    pass
                assert not pair.writer.request_space()
                received += len(reader.poll(3))
                reader.release(1)
                reader.release_part(1)
                received += len(reader.poll())
                reader.release_all()
        except KilledError:
            ended = False
        fill_after_the_consumers_death(pair)
        assert received or not ended
        return ended


def fill_after_the_consumers_death(pair: RingPair) -> None:
    """The producer goes on until the ring is full, is told so, and never overwrites what was not released."""
    writer = pair.writer
    head = pair.writer_segment.words[WORD_HEAD]
    for _ in range(100):
        if not writer.try_write((b"more",), 4, 1):
            break
    else:
        raise AssertionError("a ring without a consumer took more than it holds")
    assert not writer.request_space()
    assert pair.writer_segment.words[WORD_TAIL] - head <= 256


@pytest.mark.parametrize("core", ["pure", "compiled"])
@pytest.mark.parametrize("role", ["producer", "consumer"])
def test_sigkill_at_any_moment_leaves_whole_records_and_a_working_survivor(role: str, core: str) -> None:
    implementation(core)
    done = subprocess.run(
        [sys.executable, "-m", "tests.shm.kill_loop", role, "200", "4711"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        env={**os.environ, compiled.VARIABLE: core},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kills, records = map(int, done.stdout.split())
    assert kills == 200
    assert records > 200
