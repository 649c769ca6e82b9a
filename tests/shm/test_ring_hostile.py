"""Invariant: whatever the other process stores, a call either does its work or raises a ShmError, and ends at once.

"Its work" is narrow too: every payload handed out lies within what was published, and a writer never takes more room
than the ring has. The only exceptions allowed are those of partywire.shm.errors.
"""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from partywire.shm import RingCorrupt, RingReader, RingWriter, Segment, ShmError, probe
from partywire.shm.counters import (
    STATE_FAILED,
    WORD_CONSUMER_STATE,
    WORD_HEAD,
    WORD_SPACE_WANTED,
    WORD_TAIL,
)
from partywire.shm.record import KIND_PAD, RECORD_HEADER
from tests.shm import ring_pair
from tests.shm.ring_pair import RingPair, payload_of

pytestmark = pytest.mark.both

CAPACITY = 1024
WORDS = 512
WORD_MAX = (1 << 64) - 1

hostile_values = st.one_of(
    st.sampled_from(
        [0, 1, 31, 32, 64, CAPACITY - 32, CAPACITY, CAPACITY + 32, 1 << 32, 1 << 63, WORD_MAX, WORD_MAX - 31]
    ),
    st.integers(0, 2 * CAPACITY // 32).map(lambda slot: slot * 32),
    st.integers(0, WORD_MAX),
)


def expect_corrupt_reader(pair: RingPair, field: str) -> None:
    for _ in range(2):
        with pytest.raises(RingCorrupt) as caught:
            pair.reader.poll()
        assert caught.value.field == field
        assert caught.value.ring == 7
    for call in (pair.reader.is_empty, pair.reader.release_all, lambda: pair.reader.release_part(0)):
        with pytest.raises(RingCorrupt):
            call()
    figures = pair.reader.stat()
    assert (figures.bad_records, figures.last_error, figures.consumer_state) == (1, field, "failed")


# The consumer against a hostile producer.


@pytest.mark.parametrize("tail", [0, 32, 63, 65, 64 + CAPACITY + 32, 1 << 63, WORD_MAX, WORD_MAX - 31])
def test_a_tail_that_cannot_be_is_refused(tail: int) -> None:
    with RingPair(CAPACITY, 64) as pair:
        pair.writer_segment.words[WORD_TAIL] = tail
        expect_corrupt_reader(pair, "tail")


def test_a_tail_that_goes_backwards_is_refused() -> None:
    with RingPair(CAPACITY) as pair:
        pair.send(b"a", b"b")
        assert pair.reader.poll()
        pair.writer_segment.words[WORD_TAIL] = 64
        expect_corrupt_reader(pair, "tail")


def test_a_tail_that_overtakes_unreleased_records_is_refused() -> None:
    with RingPair(CAPACITY) as pair:
        pair.send(bytes(480))
        assert pair.reader.poll()
        pair.writer_segment.words[WORD_TAIL] = CAPACITY + 32
        expect_corrupt_reader(pair, "tail")


@pytest.mark.parametrize(
    ("field", "header"),
    [
        ("length", (33, 1, 0, 0, 0, 0, 0)),
        ("length", (64, 1, 0, 0, 0, 0, 0)),
        ("length", (CAPACITY, 1, 0, 0, 0, 0, 0)),
        ("length", (0xFFFF_FFFF, 1, 0, 0, 0, 0, 0)),
        ("length", (0xFFFF_FFE0, 1, 0, 0, 0, 0, 0)),
        ("length", (0xFFFF_FFFF, KIND_PAD, 0, 0, 0, 0, 0)),
        ("kind", (1, 0, 0, 0, 0, 0, 0)),
        ("pad", (32, KIND_PAD, 0, 0, 0, 0, 0)),
        ("flags", (32, 1, 1, 0, 0, 0, 0)),
        ("flags", (32, 1, 0x8000, 0, 0, 0, 0)),
        ("sequence", (32, 1, 0, 0, 0, 1, 0)),
        ("sequence", (32, 1, 0, 0, 0, WORD_MAX, 0)),
        ("reserved", (32, 1, 0, 0, 0, 0, 1)),
    ],
)
def test_each_field_of_a_header_is_checked(field: str, header: tuple[int, ...]) -> None:
    with RingPair(CAPACITY) as pair:
        pair.send(bytes(32))
        RECORD_HEADER.pack_into(pair.writer_segment.data, 0, *header)
        expect_corrupt_reader(pair, field)


def test_a_record_that_would_cross_the_end_is_refused_although_it_is_published() -> None:
    with RingPair(CAPACITY, CAPACITY - 64) as pair:
        pair.writer_segment.words[WORD_TAIL] = 2 * CAPACITY - 64
        RECORD_HEADER.pack_into(pair.writer_segment.data, CAPACITY - 64, 33, 1, 0, 0, 0, 0, 0)
        expect_corrupt_reader(pair, "length")


@pytest.mark.parametrize("field", ["sequence", "flags", "reserved"])
def test_the_fields_of_a_pad_are_checked_like_those_of_a_record(field: str) -> None:
    values = {"flags": (1, 0, 0), "sequence": (0, 1, 0), "reserved": (0, 0, 1)}[field]
    flags, sequence, reserved = values
    with RingPair(CAPACITY, CAPACITY - 64) as pair:
        pair.send(bytes(64))
        header = (32, KIND_PAD, flags, 0, 0, sequence, reserved)
        RECORD_HEADER.pack_into(pair.writer_segment.data, CAPACITY - 64, *header)
        expect_corrupt_reader(pair, field)


def test_an_endless_row_of_pads_ends_with_the_tail() -> None:
    with RingPair(CAPACITY, CAPACITY - 32) as pair:
        RECORD_HEADER.pack_into(pair.writer_segment.data, CAPACITY - 32, 0, KIND_PAD, 0, 0, 0, 0, 0)
        pair.writer_segment.words[WORD_TAIL] = CAPACITY
        assert pair.reader.poll() == []
        assert pair.reader.is_empty()
        pair.reader.release_all()
        assert pair.reader_segment.words[WORD_HEAD] == CAPACITY


def test_records_before_a_bad_one_in_the_same_poll_are_not_handed_out() -> None:
    with RingPair(CAPACITY) as pair:
        pair.send(b"good", b"bad")
        pair.writer_segment.data[64 + 4] = 0
        expect_corrupt_reader(pair, "kind")
        assert pair.reader.stat().error_position == 64


def test_a_header_changed_after_the_poll_changes_nothing() -> None:
    with RingPair(CAPACITY) as pair:
        pair.send(b"first", b"second")
        first, second = pair.reader.poll()
        pair.writer_segment.data[:32] = bytes([0xFF] * 32)
        assert len(first.payload) == 5
        pair.reader.release(1)
        pair.reader.release(1)
        assert bytes(second.payload) == b"second"
        assert pair.reader_segment.words[WORD_HEAD] == 128


def test_any_request_for_space_costs_at_most_one_bell_per_release() -> None:
    with RingPair(CAPACITY) as pair:
        for wanted in (1, 32, WORD_MAX, 1 << 63, 7, 64):
            pair.send(b"x")
            pair.writer_segment.words[WORD_SPACE_WANTED] = wanted
            assert pair.receive() == [b"x"]
        assert pair.reader.stat().space_bells <= 6


# The producer against a hostile consumer.


@pytest.mark.parametrize("head", [0, 32, 65, 128 + CAPACITY, 128 + 32, 1 << 63, WORD_MAX, WORD_MAX - 31])
def test_a_head_that_cannot_be_is_refused(head: int) -> None:
    with RingPair(CAPACITY, 64) as pair:
        pair.send(b"x")
        pair.reader_segment.words[WORD_HEAD] = head
        calls = (
            pair.writer.request_space,
            lambda: pair.writer.free_size,
            lambda: pair.writer.try_write((b"x",), 1, 1),
            lambda: pair.writer.try_claim(1),
            lambda: pair.writer.commit(1, 1),
            pair.writer.abort,
            pair.writer.publish,
            pair.writer.cancel_space_request,
        )
        for call in calls:
            with pytest.raises(RingCorrupt) as caught:
                call()
            assert (caught.value.field, caught.value.seen) == ("head", head)
        assert pair.writer.stat().producer_state == "failed"


@pytest.mark.parametrize("state", [STATE_FAILED, 4, WORD_MAX])
def test_a_full_ring_whose_consumer_gave_up_is_an_error_and_no_endless_wait(state: int) -> None:
    with RingPair(CAPACITY) as pair:
        while pair.writer.try_write((b"",), 0, 1):
            pass
        pair.reader_segment.words[WORD_CONSUMER_STATE] = state
        assert pair.writer.peer_state == "failed"
        with pytest.raises(RingCorrupt, match="consumer state"):
            pair.writer.request_space()
        with pytest.raises(RingCorrupt, match="consumer state"):
            pair.writer.try_write((b"",), 0, 1)


def test_the_end_of_a_failed_reader_reaches_the_writer_once_the_ring_is_full() -> None:
    with RingPair(CAPACITY) as pair:
        pair.send(b"x")
        pair.writer_segment.data[4] = 0
        expect_corrupt_reader(pair, "kind")
        assert all(pair.writer.try_write((b"x",), 1, 1) for _ in range(15))
        with pytest.raises(RingCorrupt, match="consumer state"):
            pair.writer.try_write((b"x",), 1, 1)


@pytest.mark.parametrize(("word", "value"), [(WORD_TAIL, 64 + CAPACITY + 32), (WORD_HEAD, 33), (WORD_HEAD, WORD_MAX)])
def test_a_segment_with_impossible_positions_is_refused_by_whoever_enters(word: int, value: int) -> None:
    for end in (ring_pair.writing.writer, ring_pair.reading.reader):
        segment = Segment.create(CAPACITY)
        segment.words[WORD_TAIL] = segment.words[WORD_HEAD] = 64
        segment.words[word] = value
        with pytest.raises(RingCorrupt):
            enter_and_poll(end, segment)
        segment.close()


def enter_and_poll(end: type[RingWriter | RingReader], segment: Segment) -> None:
    made = end(segment, probe(), None)
    assert isinstance(made, ring_pair.reading.reader)
    made.poll()


# Anything anywhere.


def use_both_ends(pair: RingPair) -> None:
    """What two processes do with a ring; every step ends, whatever the memory holds."""
    for number in range(3):
        pair.writer.try_write((payload_of(number, 40),), 40, 1)
        claim = pair.writer.try_claim(500, 4)
        if claim is not None:
            assert 4 <= len(claim) <= 480
            claim[:] = bytes(len(claim))
            pair.writer.commit(4, 1)
        pair.writer.publish()
        pair.writer.request_space(100)
        assert 0 <= pair.writer.free_size <= CAPACITY
        tail = pair.reader_segment.words[WORD_TAIL]
        records = pair.reader.poll()
        assert sum(32 + len(record.payload) for record in records) <= CAPACITY
        assert all(len(record.payload) <= CAPACITY - 32 for record in records)
        if records:
            pair.reader.release_part(3)
            pair.reader.release(1)
        pair.reader.release_all()
        assert pair.reader_segment.words[WORD_HEAD] <= max(tail, pair.reader_segment.words[WORD_TAIL])


def ends_in_work_or_a_typed_error(pair: RingPair) -> None:
    sentence = "it worked"
    try:
        use_both_ends(pair)
    except ShmError as error:
        sentence = str(error)
    assert sentence


@pytest.mark.parametrize("value", [0, 1, 33, 96, CAPACITY + 64, 1 << 63, WORD_MAX])
def test_every_word_of_the_header_page_may_hold_anything(value: int) -> None:
    for word in range(WORDS):
        with RingPair(CAPACITY, 64) as pair:
            pair.send(b"earlier")
            pair.writer_segment.words[word] = value
            ends_in_work_or_a_typed_error(pair)
            pair.writer_segment.stat()


@settings(max_examples=600)
@given(
    stores=st.lists(st.tuples(st.integers(0, WORDS - 1), hostile_values), max_size=4),
    position=st.integers(0, 31).map(lambda slot: slot * 32),
    flips=st.lists(st.tuples(st.integers(0, CAPACITY - 1), st.integers(0, 255)), max_size=40),
    sizes=st.lists(st.integers(0, 200), max_size=8),
)
@example(stores=[(WORD_TAIL, CAPACITY)], position=0, flips=[], sizes=[])
def test_any_stores_anywhere_end_in_work_or_a_typed_error(
    stores: list[tuple[int, int]], position: int, flips: list[tuple[int, int]], sizes: list[int]
) -> None:
    with RingPair(CAPACITY, position) as pair:
        for size in sizes:
            pair.writer.try_write((payload_of(size, size),), size, 1)
        pair.writer.publish()
        for place, value in flips:
            pair.writer_segment.data[place] = value
        for word, value in stores:
            pair.writer_segment.words[word] = value
        ends_in_work_or_a_typed_error(pair)


nearly_right_headers = st.lists(
    # A size, or None for one that ends with the ring; the kind; the sequence.
    st.tuples(
        st.sampled_from([0, 1, 32, 33, 100, None, 0xFFFF_FFFF]),
        st.sampled_from([1, 1, 1, KIND_PAD, 0]),
        st.sampled_from([0, 0, 1, 2]),
    ),
    min_size=CAPACITY // 32,
    max_size=CAPACITY // 32,
)


@settings(max_examples=250)
@given(tail_slots=st.integers(1, CAPACITY // 32), position=st.integers(0, 31), headers=nearly_right_headers)
def test_payload_never_reaches_beyond_what_was_published(
    tail_slots: int, position: int, headers: list[tuple[int | None, int, int]]
) -> None:
    """Headers that are nearly right: the checks that a random byte seldom passes."""
    with RingPair(CAPACITY, position * 32) as pair:
        ring = pair.writer_segment.data
        for slot, (size, kind, sequence) in enumerate(headers):
            length = CAPACITY - slot * 32 - 32 if size is None else size
            RECORD_HEADER.pack_into(ring, slot * 32, length, kind, 0, 0, 0, sequence, 0)
        tail = (position + tail_slots) * 32
        pair.writer_segment.words[WORD_TAIL] = tail
        try:
            records = pair.reader.poll(1000)
        except RingCorrupt:
            return
        assert sum(-len(record.payload) // 32 * -32 + 32 for record in records) <= tail_slots * 32
        assert [record.sequence for record in records] == list(range(len(records)))
        pair.reader.release_all()
        assert pair.reader_segment.words[WORD_HEAD] == tail
