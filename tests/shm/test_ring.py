"""What one end of a ring promises to its user, and the named regressions of rings before this one."""

from __future__ import annotations

import array
import os
import re
import select
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from partywire.shm import Fence, RecordTooLarge, RingClosed, Segment, counters, probe, read_stat
from partywire.shm.counters import WORD_HEAD, WORD_SPACE_WANTED, WORD_TAIL
from partywire.shm.fence import do_nothing
from partywire.shm.pure import JOIN_SIZE_MAX
from partywire.shm.record import KIND_PAD, RECORD_HEADER
from tests.shm import ring_pair
from tests.shm.ring_pair import RingPair, payload_of, payloads_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire.shm import Doorbell

pytestmark = pytest.mark.mixed


@pytest.fixture
def pair() -> Iterator[RingPair]:
    with RingPair(1024) as made:
        yield made


def is_ringing(doorbell: Doorbell) -> bool:
    return bool(select.select([doorbell.fileno()], [], [], 0)[0])


# Records.


def test_a_record_arrives_with_its_header(pair: RingPair) -> None:
    assert pair.writer.try_write((b"pay", b"", b"load"), 7, 0xABC, 0xFFFF_FFFF, 0xFFFF_FFFE)
    pair.writer.publish()
    (record,) = pair.reader.poll()
    assert (record.kind, record.connection, record.link_epoch, record.sequence) == (0xABC, 0xFFFF_FFFF, 0xFFFF_FFFE, 0)
    assert bytes(record.payload) == b"payload"
    assert record.payload.readonly


def test_nothing_is_visible_before_it_is_published(pair: RingPair) -> None:
    assert pair.writer.try_write((b"x",), 1, 1)
    assert pair.reader.poll() == []
    assert pair.reader.is_empty()
    pair.writer.publish()
    assert not pair.reader.is_empty()
    assert pair.receive() == [b"x"]


def test_many_records_are_published_by_one_store_of_tail(pair: RingPair) -> None:
    for number in range(5):
        assert pair.writer.try_write((bytes([number]),), 1, 1)
    assert pair.writer_segment.words[WORD_TAIL] == 0
    pair.writer.publish()
    assert pair.writer_segment.words[WORD_TAIL] == 5 * 64
    assert pair.receive() == [bytes([number]) for number in range(5)]


def test_an_empty_record_is_a_record(pair: RingPair) -> None:
    assert pair.writer.try_write((), 0, 9)
    claim = pair.writer.try_claim(0, 0)
    assert claim is not None
    pair.writer.commit(0, 10)
    pair.writer.publish()
    assert [(record.kind, len(record.payload)) for record in pair.reader.poll()] == [(9, 0), (10, 0)]


def test_the_largest_record_fits_an_empty_ring_at_every_position() -> None:
    for position in range(0, 1024, 32):
        with RingPair(1024, position) as pair:
            size = pair.writer.record_size_max
            assert size == 480
            pair.send(payload_of(1, size))
            assert pair.receive() == [payload_of(1, size)]


def test_a_record_of_more_than_half_the_ring_is_refused(pair: RingPair) -> None:
    with pytest.raises(RecordTooLarge) as caught:
        pair.writer.try_write((bytes(481),), 481, 1)
    assert (caught.value.size, caught.value.limit) == (481, 480)
    with pytest.raises(RecordTooLarge):
        pair.writer.try_claim(1000, 481)
    with pytest.raises(RecordTooLarge):
        pair.writer.request_space(481)
    pair.send(b"still alive")
    assert pair.receive() == [b"still alive"]


@pytest.mark.parametrize(("size_max", "size_min"), [(5, 6), (5, -1), (-1, -1)])
def test_a_claim_of_impossible_sizes_is_a_mistake_of_the_caller(pair: RingPair, size_max: int, size_min: int) -> None:
    with pytest.raises(ValueError, match="no record has between"):
        pair.writer.try_claim(size_max, size_min)


@pytest.mark.parametrize("capacity", [1024, 256 * 1024])
def test_parts_that_do_not_add_up_leave_the_ring_as_it_was(capacity: int) -> None:
    size = 100 if capacity == 1024 else JOIN_SIZE_MAX + 100
    with RingPair(capacity) as pair:
        for wrong in (size - 1, size + 1):
            with pytest.raises(ValueError):
                pair.writer.try_write((bytes(wrong - 10), bytes(10)), size, 1)
        assert not pair.writer.publish()
        pair.send(b"next")
        assert pair.receive() == [b"next"]


def test_large_parts_of_any_item_type_are_copied_as_bytes() -> None:
    numbers = array.array("d", range(JOIN_SIZE_MAX // 4))
    view = memoryview(numbers)
    with RingPair(256 * 1024) as pair:
        size = view.nbytes + 3
        assert pair.writer.try_write((b"abc", b"", view), size, 1)
        pair.writer.publish()
        assert pair.receive() == [b"abc" + numbers.tobytes()]


# Claims.


def test_a_claim_is_filled_in_place_and_may_be_committed_short(pair: RingPair) -> None:
    claim = pair.writer.try_claim(300)
    assert claim is not None
    assert len(claim) == 300
    claim[:5] = b"short"
    pair.writer.commit(5, 4, 2, 1)
    pair.writer.publish()
    assert pair.reader_segment.words[WORD_TAIL] == 64
    assert pair.receive() == [b"short"]


def test_an_aborted_claim_leaves_no_trace(pair: RingPair) -> None:
    for _ in range(100):
        assert pair.writer.try_claim(480) is not None
        pair.writer.abort()
    assert not pair.writer.publish()
    assert pair.reader.poll() == []


def test_a_claim_takes_what_is_left_before_the_end_rather_than_pad() -> None:
    with RingPair(1024, 1024 - 128) as pair:
        claim = pair.writer.try_claim(480, 50)
        assert claim is not None
        assert len(claim) == 96


def test_a_claim_that_does_not_fit_before_the_end_starts_anew_behind_a_pad() -> None:
    with RingPair(1024, 1024 - 128) as pair:
        claim = pair.writer.try_claim(480, 97)
        assert claim is not None
        assert len(claim) == 480
        claim[:] = payload_of(3, 480)
        pair.writer.commit(480, 1)
        pair.writer.publish()
        assert pair.receive() == [payload_of(3, 480)]


def test_a_claim_of_more_than_the_largest_record_gets_the_largest(pair: RingPair) -> None:
    claim = pair.writer.try_claim(1 << 30)
    assert claim is not None
    assert len(claim) == pair.writer.record_size_max


def test_a_claim_gets_what_is_free_when_that_is_enough(pair: RingPair) -> None:
    pair.send(bytes(400), bytes(400))
    claim = pair.writer.try_claim(400, 10)
    assert claim is not None
    assert len(claim) == 1024 - 2 * 448 - 32
    pair.writer.abort()
    assert pair.writer.try_claim(400, 97) is None


def test_only_one_claim_is_open_at_a_time(pair: RingPair) -> None:
    pair.writer.try_claim(10)
    for call in (lambda: pair.writer.try_claim(10), lambda: pair.writer.try_write((b"x",), 1, 1)):
        with pytest.raises(ValueError, match="a claim is open"):
            call()
    with pytest.raises(ValueError, match="11 bytes do not lie within the claim of 10"):
        pair.writer.commit(11, 1)
    pair.writer.commit(10, 1)


def test_a_commit_or_abort_without_a_claim_is_a_mistake_of_the_caller(pair: RingPair) -> None:
    with pytest.raises(ValueError, match="no claim is open"):
        pair.writer.commit(0, 1)
    with pytest.raises(ValueError, match="no claim is open"):
        pair.writer.abort()


def test_a_writer_says_whether_a_claim_is_open(pair: RingPair) -> None:
    writer = pair.writer
    seen = [writer.is_claimed]
    writer.try_claim(10)
    seen.append(writer.is_claimed)
    writer.commit(5, 1)
    seen.append(writer.is_claimed)
    writer.try_claim(0, 0)
    seen.append(writer.is_claimed)
    writer.close()
    seen.append(writer.is_claimed)
    assert seen == [False, True, False, True, False]


def test_committed_records_may_be_published_while_a_claim_is_open(pair: RingPair) -> None:
    assert pair.writer.try_write((b"first",), 5, 1)
    claim = pair.writer.try_claim(6)
    assert claim is not None
    pair.writer.publish()
    assert pair.receive() == [b"first"]
    claim[:] = b"second"
    pair.writer.commit(6, 1)
    pair.writer.publish()
    assert pair.receive() == [b"second"]


# Full rings and the wrap.


def test_write_is_refused_when_the_ring_is_full_and_leaves_everything_as_it_was(pair: RingPair) -> None:
    pair.send(*[bytes(32)] * 16)
    before = bytes(pair.writer_segment.data)
    for _ in range(3):
        assert not pair.writer.try_write((b"",), 0, 1)
        assert pair.writer.try_claim(1, 0) is None
    assert pair.writer_segment.words[WORD_TAIL] == 1024
    assert bytes(pair.writer_segment.data) == before
    assert pair.writer.free_size == 0
    assert len(pair.receive()) == 16
    assert pair.writer.free_size == 1024


def test_regression_no_space_at_the_end_or_the_start_is_full_and_never_overwrites() -> None:
    """The record fits neither before the end nor before the unread records at the start, though both together do."""
    with RingPair(1024, 96) as pair:
        pair.send(*[bytes([number]) * 32 for number in range(13)])
        position = 96 + 13 * 64
        assert pair.writer.free_size == 1024 - 13 * 64
        need = 32 + 128
        assert 1024 - position < need
        assert need > 96
        assert not pair.writer.try_write((bytes(128),), 128, 1)
        assert pair.writer.try_claim(128, 128) is None
        assert pair.receive() == [bytes([number]) * 32 for number in range(13)]


def test_regression_a_record_that_ends_exactly_at_the_end_needs_no_pad() -> None:
    with RingPair(1024, 1024 - 64) as pair:
        pair.send(payload_of(1, 32))
        assert pair.writer_segment.words[WORD_TAIL] == 1024
        pair.send(payload_of(2, 32))
        assert pair.receive() == [payload_of(1, 32), payload_of(2, 32)]


def test_regression_a_pad_at_the_wrap_is_skipped_within_one_poll() -> None:
    with RingPair(1024, 1024 - 96) as pair:
        pair.send(b"fits", payload_of(1, 100))
        kind = RECORD_HEADER.unpack_from(pair.writer_segment.data, 1024 - 32)[1]
        assert kind == KIND_PAD
        records = pair.reader.poll()
        assert payloads_of(records) == [b"fits", payload_of(1, 100)]
        assert [record.sequence for record in records] == [0, 1]


def test_regression_a_pad_larger_than_the_byte_limit_does_not_make_a_poll_come_back_empty() -> None:
    with RingPair(1024, 1024 - 256) as pair:
        pair.send(payload_of(1, 300))
        assert payloads_of(pair.reader.poll(1, 1)) == [payload_of(1, 300)]


def test_regression_a_claim_behind_a_pad_is_not_refused_for_a_stale_head() -> None:
    with RingPair(128, 96) as pair:
        pair.send(b"")
        pair.send(b"")
        assert pair.receive() == [b"", b""]
        pair.send(b"")
        assert pair.receive() == [b""]
        pair.send(b"")
        assert len(pair.receive()) == 1
        claim = pair.writer.try_claim(32, 25)
        assert claim is not None
        pair.writer.commit(32, 1)


def test_regression_the_smallest_pad_is_a_header_alone() -> None:
    with RingPair(1024, 1024 - 32) as pair:
        pair.send(payload_of(0, 1))
        assert RECORD_HEADER.unpack_from(pair.writer_segment.data, 1024 - 32)[0] == 0
        assert pair.receive() == [payload_of(0, 1)]


def test_regression_an_empty_record_may_fill_the_last_slot_and_the_first() -> None:
    with RingPair(128, 96) as pair:
        for _ in range(20):
            assert pair.writer.try_write((), 0, 1)
            pair.writer.publish()
            assert pair.receive() == [b""]


def test_the_ring_may_be_filled_and_emptied_at_every_position() -> None:
    for position in range(0, 256, 32):
        with RingPair(256, position) as pair:
            assert pair.writer.try_write((bytes(96),), 96, 1)
            while pair.writer.try_write((), 0, 1):
                pass
            pair.writer.publish()
            assert pair.receive()[0] == bytes(96)
            assert pair.writer.free_size == 256


# Polling and releasing.


def test_poll_hands_out_at_most_so_many_records_and_goes_on_next_time(pair: RingPair) -> None:
    pair.send(*[bytes([number]) for number in range(10)])
    assert payloads_of(pair.reader.poll(3)) == [b"\0", b"\1", b"\2"]
    assert payloads_of(pair.reader.poll(100)) == [bytes([number]) for number in range(3, 10)]
    assert pair.reader.poll() == []
    assert pair.reader.is_empty()


def test_poll_stops_at_the_first_record_that_reaches_the_byte_limit(pair: RingPair) -> None:
    pair.send(bytes(100), bytes(100), bytes(100))
    assert len(pair.reader.poll(256, 1)) == 1
    assert len(pair.reader.poll(256, 161)) == 2


def test_release_frees_the_oldest_records_only(pair: RingPair) -> None:
    pair.send(b"a", b"b", b"c")
    pair.reader.poll()
    assert pair.writer.free_size == 1024 - 192
    pair.reader.release(2)
    assert pair.writer.free_size == 1024 - 64
    pair.reader.release(0)
    pair.reader.release(1)
    assert pair.writer.free_size == 1024


def test_what_was_not_polled_cannot_be_released(pair: RingPair) -> None:
    pair.send(b"a", b"b")
    pair.reader.poll(1)
    for count in (2, -1):
        with pytest.raises(ValueError, match="1 are polled"):
            pair.reader.release(count)
    pair.reader.release_all()
    assert payloads_of(pair.reader.poll()) == [b"b"]


def test_lent_payload_stays_until_it_is_released(pair: RingPair) -> None:
    pair.send(payload_of(0, 400), payload_of(1, 400))
    first, second = pair.reader.poll()
    assert not pair.writer.try_write((bytes(400),), 400, 1)
    assert bytes(first.payload) == payload_of(0, 400)
    pair.reader.release(1)
    pair.send(bytes(400))
    assert bytes(second.payload) == payload_of(1, 400)


def test_a_record_consumed_in_parts_gives_its_front_back_early(pair: RingPair) -> None:
    pair.send(payload_of(0, 480))
    (record,) = pair.reader.poll()
    free_before = pair.writer.free_size
    freed = []
    for size_left in (480, 400, 200, 37, 1, 0):
        pair.reader.release_part(size_left)
        freed.append(pair.writer.free_size - free_before)
        left = bytes(record.payload[480 - size_left :])
        assert left == payload_of(0, 480)[480 - size_left :]
    assert freed == sorted(freed)
    assert freed[0] <= 32
    assert all(512 - size_left - 64 <= free for size_left, free in zip((480, 400, 200, 37, 1, 0), freed, strict=True))
    pair.reader.release(1)
    assert pair.writer.free_size == 1024


def test_the_unsent_rest_of_a_record_survives_a_writer_that_takes_all_freed_room() -> None:
    for position in range(0, 1024, 32):
        with RingPair(1024, position) as pair:
            pair.send(payload_of(5, 300))
            (record,) = pair.reader.poll()
            for size_left in (299, 255, 100, 33, 5):
                pair.reader.release_part(size_left)
                while pair.writer.try_write((b"\xee",), 1, 1):
                    pair.writer.publish()
                assert bytes(record.payload[300 - size_left :]) == payload_of(5, 300)[300 - size_left :]
            pair.reader.release(1)
            assert set(pair.receive()) == {b"\xee"}


def test_a_part_of_nothing_cannot_be_released(pair: RingPair) -> None:
    with pytest.raises(ValueError, match="no polled record"):
        pair.reader.release_part(0)


# Bells.


def test_a_sleeping_consumer_is_rung_once_for_a_batch(pair: RingPair) -> None:
    pair.reader_doorbell.arm()
    assert pair.writer.try_write((b"a",), 1, 1)
    assert pair.writer.try_write((b"b",), 1, 1)
    assert pair.writer.publish()
    assert pair.writer.try_write((b"c",), 1, 1)
    assert not pair.writer.publish()
    assert is_ringing(pair.reader_doorbell)
    assert pair.writer.stat().bells == 1


def test_an_awake_consumer_is_not_rung(pair: RingPair) -> None:
    assert pair.writer.try_write((b"a",), 1, 1)
    assert not pair.writer.publish()
    assert not pair.writer.publish()
    assert not is_ringing(pair.reader_doorbell)


def test_room_that_is_there_is_reported_at_once(pair: RingPair) -> None:
    assert pair.writer.request_space(480)
    assert pair.writer.request_space()
    assert pair.writer_segment.words[WORD_SPACE_WANTED] == 0


def test_a_producer_that_asked_is_rung_when_its_record_fits_and_not_before(pair: RingPair) -> None:
    pair.send(*[b""] * 32)
    assert not pair.writer.try_write((bytes(400),), 400, 1)
    assert not pair.writer.request_space()
    assert len(pair.reader.poll()) == 32
    for _ in range(13):
        pair.reader.release(1)
    assert not is_ringing(pair.writer_doorbell)
    pair.reader.release(1)
    assert is_ringing(pair.writer_doorbell)
    assert pair.writer.try_write((bytes(400),), 400, 1)
    assert pair.writer.stat().space_bells == 1


def test_a_request_for_space_publishes_first() -> None:
    """Else the consumer would never see, and so never free, what the request waits for."""
    with RingPair(128) as pair:
        while pair.writer.try_write((), 0, 1):
            pass
        assert not pair.writer.request_space()
        assert len(pair.receive()) == 4
        assert is_ringing(pair.writer_doorbell)


def test_a_cancelled_request_is_not_rung(pair: RingPair) -> None:
    while pair.writer.try_write((), 0, 1):
        pass
    assert not pair.writer.request_space()
    pair.writer.cancel_space_request()
    pair.receive()
    assert not is_ringing(pair.writer_doorbell)


def test_every_request_is_rung_for_again(pair: RingPair) -> None:
    for _ in range(5):
        while pair.writer.try_write((), 0, 1):
            pass
        assert not pair.writer.request_space()
        pair.receive()
        assert is_ringing(pair.writer_doorbell)
        pair.writer_doorbell.drain()


def test_rings_without_bells_work() -> None:
    fence = probe()
    segment = Segment.create(128)
    writer = ring_pair.writing.writer(segment, fence, None)
    reader = ring_pair.reading.reader(Segment.attach(os.dup(segment.fileno())), fence, None)
    for _ in range(10):
        while writer.try_write((), 0, 1):
            pass
        assert not writer.request_space()
        assert len(reader.poll()) == 4
        reader.release_all()
    writer.close()
    reader.close()


@pytest.mark.parametrize("side", ["waker", "observer"])
def test_both_sides_pay_where_the_back_end_asks_them_to(side: str) -> None:
    paid = []

    def pay() -> None:
        paid.append(1)

    waker, observe = (pay, None) if side == "waker" else (None, pay)
    with RingPair(128, fence=Fence("membarrier", do_nothing, waker, observe)) as pair:
        pair.send(b"a")
        after_publish = len(paid)
        assert pair.reader.poll()
        after_poll = len(paid)
        pair.reader.release_all()
        after_release = len(paid)
        assert pair.writer.free_size == 128
        steps = (after_publish, after_poll - after_publish, after_release - after_poll, len(paid) - after_release)
    assert steps == ((1, 0, 1, 0) if side == "waker" else (0, 1, 0, 1))


# Ends.


def test_a_closed_ring_says_so_at_every_call(pair: RingPair) -> None:
    pair.send(b"published")
    assert pair.writer.try_write((b"never published",), 15, 1)
    writer, reader = pair.writer, pair.reader
    writer.close()
    writer.close()
    assert reader.peer_state == "closed"
    assert pair.receive() == [b"published"], "what was published stays readable"
    reader.close()
    reader.close()
    calls = (
        lambda: writer.try_write((b"x",), 1, 1),
        lambda: writer.try_claim(1),
        lambda: writer.commit(1, 1),
        writer.abort,
        writer.publish,
        writer.request_space,
        writer.cancel_space_request,
        lambda: writer.free_size,
        lambda: writer.peer_state,
        writer.stat,
        reader.poll,
        lambda: reader.release(0),
        reader.release_all,
        lambda: reader.release_part(0),
        reader.is_empty,
        reader.count_sleep,
        reader.count_timeout_with_data,
        lambda: reader.peer_state,
        reader.stat,
    )
    for call in calls:
        with pytest.raises(RingClosed):
            call()


def test_an_open_claim_does_not_survive_a_close(pair: RingPair) -> None:
    pair.writer.try_claim(10)
    pair.writer.close()
    with pytest.raises(RingClosed):
        pair.writer.commit(1, 1)


def test_each_end_knows_whether_the_other_has_come(pair: RingPair) -> None:
    segment = Segment.create(128)
    writer = ring_pair.writing.writer(segment, probe(), None)
    assert writer.peer_state == "new"
    assert pair.writer.peer_state == "open"
    assert pair.reader.peer_state == "open"
    writer.close()


# Figures.


def test_the_figures_of_a_ring_can_be_read_from_either_side() -> None:
    with RingPair(1024) as pair:
        pair.send(bytes(100), bytes(100))
        while pair.writer.try_write((bytes(100),), 100, 1):
            pass
        pair.writer.publish()
        pair.reader.poll(2)
        pair.reader.release(1)
        pair.reader.count_sleep()
        pair.reader.count_timeout_with_data()
        figures = pair.writer.stat()
        assert figures == pair.reader.stat() == read_stat(pair.reader_segment)
        assert (figures.ring, figures.epoch, figures.capacity) == (7, pair.writer_segment.epoch, 1024)
        assert (figures.records, figures.records_released, figures.bytes) == (6, 1, 960)
        assert (figures.depth, figures.depth_max) == (800, 960)
        assert (figures.full_events, figures.sleeps, figures.timeouts_with_data) == (1, 1, 1)
        assert (figures.producer_pid, figures.consumer_pid) == (os.getpid(), os.getpid())
        assert (figures.bad_records, figures.last_error) == (0, "none")


def test_every_word_has_one_meaning_and_each_writer_its_own_lines() -> None:
    words = {name: value for name, value in vars(counters).items() if name.startswith("WORD_")}
    assert len(set(words.values())) == len(words)
    producer = {words["WORD_TAIL"], words["WORD_RECORDS_PUBLISHED"], *range(48, 64)}
    consumer = {words["WORD_HEAD"], words["WORD_RECORDS_RELEASED"], *range(80, 96)}
    assert not {word // 16 for word in producer} & {word // 16 for word in consumer}


def test_no_control_word_is_ever_stored_by_struct() -> None:
    """struct.pack_into clears its span first: another process would see a zero that nobody stored."""
    folder = Path(counters.__file__).parent
    calls = {
        path.name: re.findall(r"pack_header_into\(\s*([\w.]+),", path.read_text())
        for path in folder.glob("*.py")
        if "pack_into" in path.read_text()
    }
    assert set(calls) == {"pure.py"}
    assert set(calls["pure.py"]) == {"data", "self._data"}


def test_positions_far_beyond_any_ring_work() -> None:
    for position in ((1 << 63) - 64, (1 << 63) - 32, 1 << 63, (1 << 64) - 65536):
        with RingPair(256, position) as pair:
            for number in range(40):
                pair.send(payload_of(number, number))
                assert pair.receive() == [payload_of(number, number)]
            assert pair.reader_segment.words[WORD_HEAD] == pair.writer_segment.words[WORD_TAIL] > position
