"""The ring against a model made of deques: the same records in the same order, and every refusal is a right one.

The model knows the sizes of records and where they must lie, so it says for each claim whether it has to succeed.
"""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from partywire.shm import RecordTooLarge
from partywire.shm.counters import WORD_HEAD, WORD_TAIL
from tests.shm.ring_pair import RingPair, payload_of

HEADER_SIZE = 32
# Without Phase.explain, which traces every line and takes minutes.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)

sizes = st.one_of(st.integers(0, 100), st.integers(0, 1 << 15))
starts = st.one_of(
    st.just(0),
    st.integers(0, 1 << 12).map(lambda slot: slot * 32),
    st.integers(-(1 << 10), 1 << 10).map(lambda slot: (1 << 63) + slot * 32),
)


def ring_bytes(size: int) -> int:
    return (size + HEADER_SIZE + 31) // 32 * 32


class RingMachine(RuleBasedStateMachine):
    """One ring; the rules are the calls that its two users may make in any order."""

    @initialize(capacity=st.sampled_from([128, 256, 1024, 65536]), start=starts)
    def make(self, capacity: int, start: int) -> None:
        self.pair = RingPair(capacity, start)
        self.capacity = capacity
        self.head = self.tail = self.pending = start
        self.claim_size: int | None = None
        self.claim_view: memoryview | None = None
        self.next_sequence = 0
        self.committed: deque[tuple[int, int, int]] = deque()  # sequence, size, where it ends
        self.published: deque[tuple[int, int, int]] = deque()
        self.polled: deque[tuple[int, int, int, memoryview]] = deque()

    # The model's own arithmetic.

    def place(self, size: int) -> int | None:
        """Where a record of `size` bytes must begin now; None when it must be refused."""
        room = self.capacity - self.pending % self.capacity
        free = self.capacity - (self.pending - self.head)
        need = ring_bytes(size)
        if need <= room:
            return self.pending if need <= free else None
        return self.pending + room if room + need <= free else None

    def commit(self, position: int, size: int) -> None:
        self.pending = position + ring_bytes(size)
        self.committed.append((self.next_sequence, size, self.pending))
        self.next_sequence += 1

    # The producer.

    @precondition(lambda self: self.claim_size is None)
    @rule(size=sizes, split=st.integers(0, 1 << 15))
    def try_write(self, size: int, split: int) -> None:
        payload = payload_of(self.next_sequence, size)
        split = min(split, size)
        parts = (payload[:split], memoryview(payload)[split:])
        if size > self.capacity // 2 - HEADER_SIZE:
            try:
                self.pair.writer.try_write(parts, size, 1)
            except RecordTooLarge:
                return
            raise AssertionError("a record that can never fit was taken")
        position = self.place(size)
        assert self.pair.writer.try_write(parts, size, 1, size, self.next_sequence) is (position is not None)
        if position is not None:
            self.commit(position, size)

    @precondition(lambda self: self.claim_size is None)
    @rule(size_min=sizes, more=sizes)
    def try_claim(self, size_min: int, more: int) -> None:
        size_min = min(size_min, self.capacity // 2 - HEADER_SIZE)
        size_max = size_min + more
        position = self.place(size_min)
        view = self.pair.writer.try_claim(size_max, size_min)
        assert (view is None) is (position is None)
        if view is not None and position is not None:
            assert size_min <= len(view) <= size_max
            contiguous = self.capacity - position % self.capacity
            free = self.capacity - (position - self.head)
            assert len(view) == min(size_max, contiguous - 32, free - 32, self.capacity // 2 - 32)
            self.claim_position = position
            self.claim_size = len(view)
            self.claim_view = view

    @precondition(lambda self: self.claim_size is not None)
    @rule(part=st.floats(0, 1))
    def commit_claim(self, part: float) -> None:
        assert self.claim_size is not None
        assert self.claim_view is not None
        size = int(self.claim_size * part)
        self.claim_view[:size] = payload_of(self.next_sequence, size)
        self.pair.writer.commit(size, 1, size, self.next_sequence)
        self.commit(self.claim_position, size)
        self.claim_size = self.claim_view = None

    @precondition(lambda self: self.claim_size is not None)
    @rule()
    def abort_claim(self) -> None:
        self.pair.writer.abort()
        self.claim_size = self.claim_view = None

    @rule()
    def publish(self) -> None:
        self.pair.writer.publish()
        self.note_publication()

    def note_publication(self) -> None:
        self.tail = self.pending
        self.published.extend(self.committed)
        self.committed.clear()

    @precondition(lambda self: self.claim_size is None)
    @rule(size=sizes)
    def request_space(self, size: int) -> None:
        size = min(size, self.capacity // 2 - HEADER_SIZE)
        assert self.pair.writer.request_space(size) is (self.place(size) is not None)
        self.note_publication()

    # The consumer.

    @rule(records_max=st.integers(1, 20), bytes_max=st.integers(1, 1 << 16))
    def poll(self, records_max: int, bytes_max: int) -> None:
        records = self.pair.reader.poll(records_max, bytes_max)
        assert len(records) <= records_max
        assert bool(records) or not self.published
        for record in records:
            sequence, size, end = self.published.popleft()
            assert (record.sequence, record.connection, record.link_epoch) == (sequence, size, sequence)
            self.polled.append((sequence, size, end, record.payload))

    @rule(count=st.integers(0, 20))
    def release(self, count: int) -> None:
        count = min(count, len(self.polled))
        self.pair.reader.release(count)
        for _ in range(count):
            self.note_release()

    def note_release(self) -> None:
        _, size, end, payload = self.polled.popleft()
        assert len(payload) == size
        self.head = end

    @rule()
    def release_all(self) -> None:
        self.pair.reader.release_all()
        while self.polled:
            self.note_release()

    # Whatever happened.

    @invariant()
    def lent_payload_is_untouched(self) -> None:
        for sequence, size, _, payload in getattr(self, "polled", ()):
            assert bytes(payload) == payload_of(sequence, size)

    @invariant()
    def positions_are_those_of_the_model(self) -> None:
        if hasattr(self, "pair"):
            words = self.pair.writer_segment.words
            assert words[WORD_HEAD] == self.head
            assert words[WORD_TAIL] == self.tail
            assert 0 <= self.tail - self.head <= self.capacity
            assert self.pair.reader.is_empty() is (not self.published)

    def teardown(self) -> None:
        if hasattr(self, "pair"):
            self.claim_view = None
            self.polled.clear()
            self.pair.close()


@pytest.mark.mixed
def test_a_ring_does_what_the_model_does() -> None:
    run_state_machine_as_test(RingMachine, settings=settings(max_examples=200, stateful_step_count=60, phases=PHASES))
