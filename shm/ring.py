"""A single-producer single-consumer ring of records in one segment, between two processes of one party.

    head <= tail <= head + capacity        all positions are monotone byte counts; index = position mod capacity

A record is a 32-byte header, its payload, and padding to 32 bytes. It never crosses the end of the data: where it
would, a pad record fills the rest. One aligned 8-byte store of `tail` publishes everything committed before it.

Guarantees
- A producer that dies at any instruction leaves only whole records below `tail`; what lies above is never looked at.
- Each header is copied once, checked field by field, and never read again: a value that the protocol does not allow
  ends in RingCorrupt, never in an over-read, an allocation or an endless loop.
- Payload is lent as a read-only view of the ring until its record is released.
- No call waits. Full and empty are results.

Assumptions
- One thread at each end. Both ends use the same `Fence`, and their processes called `fence.register`.
- Whoever lends payload on does not use it after the release; the producer will overwrite it.

Each release store and its acquire load carry one sentence; fence.py says what makes it true.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from .counters import (
    ERROR_FIELDS,
    STATE_CLOSED,
    STATE_FAILED,
    STATE_NEW,
    STATE_OPEN,
    STATES,
    WORD_BAD_RECORDS,
    WORD_CONSUMER_BELLS,
    WORD_CONSUMER_FENCE,
    WORD_CONSUMER_PID,
    WORD_CONSUMER_STATE,
    WORD_DEPTH_MAX,
    WORD_ERROR_POSITION,
    WORD_FULL_EVENTS,
    WORD_HEAD,
    WORD_LAST_ERROR,
    WORD_PRODUCER_BELLS,
    WORD_PRODUCER_FENCE,
    WORD_PRODUCER_PID,
    WORD_PRODUCER_STATE,
    WORD_RECORDS_PUBLISHED,
    WORD_RECORDS_RELEASED,
    WORD_SLEEPS,
    WORD_SPACE_WANTED,
    WORD_TAIL,
    WORD_TIMEOUTS_WITH_DATA,
)
from .errors import RecordTooLarge, RingClosed, RingCorrupt, UnsoundOrdering
from .fence import FENCE_IDS
from .segment import RECORD_HEADER_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .counters import RingStat
    from .doorbell import Bell
    from .fence import Fence
    from .segment import Segment

    Buffer = bytes | bytearray | memoryview

# length u32 | kind u16 | flags u16 | connection u32 | link epoch u32 | sequence u64 | reserved u64
RECORD_HEADER: Final = struct.Struct("<IHHIIQQ")
pack_header_into = RECORD_HEADER.pack_into
unpack_header_from = RECORD_HEADER.unpack_from

# Header size = alignment, so the room before the end is always a multiple of 32 and a pad header always fits.
ALIGNMENT: Final = RECORD_HEADER_SIZE
# (size + PADDING) & GRID = the ring bytes of a record with `size` bytes of payload.
PADDING: Final = RECORD_HEADER_SIZE + ALIGNMENT - 1
GRID: Final = ~(ALIGNMENT - 1)

KIND_PAD: Final = 0xFFFF
KIND_MAX: Final = KIND_PAD - 1

# Up to this size the parts of a record are joined before they are copied. Measured: a part copied alone costs 0.2 us,
# the join's second copy 0.05 us a KiB, so two parts of 8 KiB break even and 256 of 64 bytes take 3.5 us instead of 54.
JOIN_SIZE_MAX: Final = 16 * 1024

# A producer that waits for room is woken when this part of the ring is free, not at the first free byte: each wake-up
# costs more than the records that a few bytes could take. Arbitrary; throughput through a full ring would settle it.
WAKE_FREE_PART: Final = 8


class Record(NamedTuple):
    """One record as the consumer sees it. The payload is lent: it is valid until the record is released."""

    kind: int
    connection: int
    link_epoch: int
    sequence: int
    payload: memoryview


class RingWriter:
    """The producer's end. Driven by the user of the ring only; the consumer shows through `head`.

    Finished by `close`, or by RingCorrupt, after which every call raises it again. Owns the segment, not the bell.
    """

    def __init__(self, segment: Segment, fence: Fence, consumer_bell: Bell | None) -> None:
        self._segment = segment
        self._words = segment.words
        self._data = segment.data
        self._capacity = segment.capacity
        self._mask = segment.capacity - 1
        self._fence = fence
        self._waker = fence.waker if fence.waker_pays else None
        self._bell = consumer_bell
        self._tail = self._words[WORD_TAIL]  # published
        self._pending = self._tail  # published + committed
        self._head_seen = self._words[WORD_HEAD]  # may be stale, then it shows too little room
        self._sequence = self._words[WORD_RECORDS_PUBLISHED]  # of the next record
        self._claim_position = 0  # of the open claim's header, pad passed
        self._claim_size = 0  # of the open claim; -1 once the ring is failed or closed
        self._refused_total = ALIGNMENT  # ring bytes that the last refused claim needed
        self._full_events = 0
        self._bells = 0
        self._failed: RingCorrupt | None = None
        self._closed = False
        self.record_size_max: Final = segment.capacity // 2 - RECORD_HEADER_SIZE
        # Hot: record_size_max while a record may be written, -1 while a claim is open or the ring is failed or closed.
        # One comparison then serves four conditions; the slow path tells them apart. Saves 30 of 445 ns per record.
        self._size_gate = self.record_size_max
        enter(self._words, fence, "producer", WORD_PRODUCER_STATE, WORD_PRODUCER_PID, WORD_PRODUCER_FENCE)
        if not 0 <= self._tail - self._head_seen <= self._capacity or (self._tail | self._head_seen) % ALIGNMENT:
            self._fail("head", self._head_seen, f"at most {self._capacity} before the tail {self._tail}")

    # Writing. Nothing is visible to the consumer before publish.

    def try_write(
        self, parts: Sequence[Buffer], size: int, kind: int, connection: int = 0, link_epoch: int = 0
    ) -> bool:
        """Commit one record made of `parts`, `size` bytes in all; False when there is no room now.

        Copies: one into the ring; several parts of up to JOIN_SIZE_MAX in all are joined first, one copy more. The
        parts are free when it returns. After False nothing has changed. Raises RecordTooLarge, RingCorrupt.
        """
        pending = self._pending
        index = pending & self._mask
        need = (size + PADDING) & GRID
        if size > self._size_gate or index + need > self._capacity or pending + need - self._head_seen > self._capacity:
            position = self._make_room(size)
            if position < 0:
                return False
            pending = position
            index = pending & self._mask
        data = self._data
        start = index + RECORD_HEADER_SIZE
        if size <= JOIN_SIZE_MAX:
            data[start : start + size] = b"".join(parts)
        else:
            copy_parts(data, start, size, parts)
        pack_header_into(data, index, size, kind, 0, connection, link_epoch, self._sequence, 0)
        self._sequence += 1
        self._pending = pending + need
        return True

    def try_claim(self, size_max: int, size_min: int = 1) -> memoryview | None:
        """Lend as much contiguous room as there is, from `size_min` to `size_max` bytes; None when there is less.

        Copies: none; the caller fills the view, then calls `commit` or `abort`. None leaves everything as it was.
        Room before the end of the ring is preferred to more room at its start, so none is wasted on pads.
        Raises RecordTooLarge when `size_min` can never fit; `size_max` may be any size.
        """
        if self._size_gate < size_min or size_min < 0 or size_max < size_min:
            self._refuse_size(size_min, size_max)
        pending = self._pending
        capacity = self._capacity
        wanted = size_max if size_max < self.record_size_max else self.record_size_max
        room = capacity - (pending & self._mask)
        free = capacity - (pending - self._head_seen)
        if free < ((wanted + PADDING) & GRID):
            free = capacity - (pending - self._load_head())
        size = (room if room < free else free) - RECORD_HEADER_SIZE
        if size < size_min:
            # The start of the ring, behind a pad. The head is loaded anew: it was fresh enough for `wanted` bytes only.
            size = capacity - (pending - self._load_head()) - room - RECORD_HEADER_SIZE
            if size < size_min or size < 0:
                need = (size_min + PADDING) & GRID
                self._refuse(need if need <= room else need + room)
                return None
            self._write_pad(pending, room)
            pending += room
        if size > wanted:
            size = wanted
        self._claim_position = pending
        self._claim_size = size
        self._size_gate = -1
        start = (pending & self._mask) + RECORD_HEADER_SIZE
        return self._data[start : start + size]

    def commit(self, size: int, kind: int, connection: int = 0, link_epoch: int = 0) -> None:
        """Turn the first `size` bytes of the open claim into a record; the rest of the claim is free again.

        Private until `publish`. Copies: none. The claimed view must not be written to any more.
        """
        if self._size_gate >= 0 or not 0 <= size <= self._claim_size:
            self._refuse_commit(size)
        position = self._claim_position
        pack_header_into(self._data, position & self._mask, size, kind, 0, connection, link_epoch, self._sequence, 0)
        self._sequence += 1
        self._pending = position + ((size + PADDING) & GRID)
        self._size_gate = self.record_size_max

    def abort(self) -> None:
        """Give the open claim back unused."""
        if self._size_gate >= 0 or self._claim_size < 0:
            self._refuse_commit(0)
        self._size_gate = self.record_size_max

    def publish(self) -> bool:
        """Show every committed record to the consumer, with one store, and wake it if it sleeps.

        Returns whether the bell was rung. Does nothing when nothing is new. Per batch, not per record.
        """
        tail = self._pending
        if tail == self._tail:
            if self._failed is not None or self._closed:
                self._refuse_dead()
            return False
        words = self._words
        # Release: whoever sees this tail sees every byte of every record before it.
        words[WORD_TAIL] = tail
        self._tail = tail
        words[WORD_RECORDS_PUBLISHED] = self._sequence
        if self._waker is not None:
            self._waker()
        if self._bell is not None and self._bell.ring_if_asleep():
            self._bells += 1
            words[WORD_PRODUCER_BELLS] = self._bells
            return True
        return False

    # Waiting for room.

    def request_space(self, size: int | None = None) -> bool:
        """Ask the consumer for a bell at this process's doorbell once a record of `size` bytes fits.

        Without `size`, what the last refused claim or write needed. Publishes what was committed, since the consumer
        frees only what it has seen. True: the room is there already and no bell will come, so try again. False: the
        bell comes once an eighth of the ring, or what was asked for if that is more, is free.
        """
        self.publish()
        if size is None:
            total = self._refused_total
        else:
            if size > self._size_gate:
                self._refuse_size(size, size)
            total = self._total(size)
        tail = self._pending
        capacity = self._capacity
        comfortable = max(total, capacity // WAKE_FREE_PART)
        # The position doubles as the ticket: it only grows, so a bell rung for one request never stands for the next.
        self._words[WORD_SPACE_WANTED] = max(1, tail + comfortable - capacity)
        # Release, with RingReader.release: whoever frees space after the look below sees this request and rings.
        self._fence.sleeper()
        if tail + total - self._load_head() <= capacity:
            self._words[WORD_SPACE_WANTED] = 0
            return True
        self._refuse_failed_consumer()
        return False

    def cancel_space_request(self) -> None:
        """Ask no longer. A bell that is already on its way may still come."""
        if self._failed is not None or self._closed:
            self._refuse_dead()
        self._words[WORD_SPACE_WANTED] = 0

    @property
    def is_claimed(self) -> bool:
        """Whether a claim is open, to be ended by `commit` or `abort`."""
        return self._size_gate < 0 and self._claim_size >= 0

    @property
    def free_size(self) -> int:
        """The ring bytes that are free now, headers and pads included; a claim may still find too little in a row."""
        if self._closed or self._failed is not None:
            self._refuse_dead()
        return self._capacity - (self._pending - self._load_head())

    @property
    def peer_state(self) -> str:
        """What the consumer says about itself: new, open, closed or failed. May be stale."""
        return peer_state(self._segment, WORD_CONSUMER_STATE)

    def stat(self) -> RingStat:
        """This ring's figures. Stores nothing."""
        return self._segment.stat()

    def close(self) -> None:
        """Leave the ring and close its segment; what was published stays readable. Calling it again does nothing."""
        if self._closed:
            return
        if not self._segment.closed:
            self._words[WORD_SPACE_WANTED] = 0
            if self._failed is None:
                self._words[WORD_PRODUCER_STATE] = STATE_CLOSED
        self._closed = True
        self._size_gate = self._claim_size = -1
        self._pending = self._tail  # what was committed and never published is gone
        self._segment.close()

    # Room.

    def _make_room(self, size: int) -> int:
        """The position for a record of exactly `size` bytes, its pad written; -1 when there is no room."""
        if size > self._size_gate or size < 0:
            self._refuse_size(size, size)
        pending = self._pending
        total = self._total(size)
        if pending + total - self._head_seen > self._capacity and pending + total - self._load_head() > self._capacity:
            self._refuse(total)
            return -1
        room = self._capacity - (pending & self._mask)
        if ((size + PADDING) & GRID) > room:
            self._write_pad(pending, room)
            return pending + room
        return pending

    def _total(self, size: int) -> int:
        """The ring bytes that a record of `size` bytes takes at the present position, pad included."""
        need = (size + PADDING) & GRID
        room = self._capacity - (self._pending & self._mask)
        return need if need <= room else room + need

    def _write_pad(self, position: int, room: int) -> None:
        """Fill the rest of the ring with a record that the consumer skips. It carries a sequence but takes none."""
        pack_header_into(
            self._data, position & self._mask, room - RECORD_HEADER_SIZE, KIND_PAD, 0, 0, 0, self._sequence, 0
        )

    def _load_head(self) -> int:
        """Refresh the head.

        Acquire, with RingReader.release: whoever sees this head may overwrite every byte before it.
        """
        head = self._words[WORD_HEAD]
        if self._fence.observer_pays:
            self._fence.observe()
        if not self._head_seen <= head <= self._tail or head % ALIGNMENT:
            self._fail("head", head, f"a multiple of {ALIGNMENT} from {self._head_seen} to {self._tail}")
        self._head_seen = head
        return head

    # Refusing.

    def _refuse(self, total: int) -> None:
        self._refused_total = total
        self._full_events += 1
        self._words[WORD_FULL_EVENTS] = self._full_events
        self._refuse_failed_consumer()

    def _refuse_failed_consumer(self) -> None:
        """A consumer that gave up never frees anything: say so instead of being full for ever."""
        state = self._words[WORD_CONSUMER_STATE]
        if state not in (STATE_NEW, STATE_OPEN, STATE_CLOSED):
            self._fail("consumer state", state, "new, open or closed")

    def _refuse_size(self, size_min: int, size_max: int) -> None:
        if self._failed is not None or self._closed:
            self._refuse_dead()
        if size_min < 0 or size_max < size_min:
            raise ValueError(f"no record has between {size_min} and {size_max} bytes")
        if size_min > self.record_size_max:
            raise RecordTooLarge(size_min, self.record_size_max)
        raise ValueError("a claim is open: commit or abort it first")

    def _refuse_commit(self, size: int) -> None:
        if self._failed is not None or self._closed:
            self._refuse_dead()
        if self._size_gate >= 0:
            raise ValueError("no claim is open")
        raise ValueError(f"{size} bytes do not lie within the claim of {self._claim_size}")

    def _refuse_dead(self) -> None:
        if self._failed is not None:
            raise RingCorrupt(*self._failed.args)
        raise RingClosed("the ring")

    def _fail(self, field: str, seen: int, allowed: str) -> None:
        self._failed = RingCorrupt(self._segment.ring_id, field, seen, allowed)
        self._size_gate = self._claim_size = -1
        self._pending = self._tail  # nothing more is published
        self._words[WORD_PRODUCER_STATE] = STATE_FAILED
        raise RingCorrupt(*self._failed.args)


class RingReader:
    """The consumer's end. Driven by the user of the ring only; the producer shows through `tail` and the records.

    Finished by `close`, or by RingCorrupt, after which every call raises it again. Owns the segment, not the bell.
    """

    def __init__(self, segment: Segment, fence: Fence, producer_bell: Bell | None) -> None:
        self._segment = segment
        self._words = segment.words
        self._data = segment.data.toreadonly()
        self._capacity = segment.capacity
        self._mask = segment.capacity - 1
        self._fence = fence
        self._waker = fence.waker if fence.waker_pays else None
        self._observe = fence.observe if fence.observer_pays else None
        self._bell = producer_bell
        self._head = self._words[WORD_HEAD]  # published
        self._position = self._head  # of the next record to poll
        self._sequence = self._words[WORD_RECORDS_RELEASED]  # of that record
        self._released = self._sequence
        self._ends: deque[int] = deque()  # where each polled, unreleased record ends
        self._space_rung = 0  # the request that was answered last
        self._depth_max = 0
        self._bells = 0
        self._failed: RingCorrupt | None = None
        self._closed = False
        enter(self._words, fence, "consumer", WORD_CONSUMER_STATE, WORD_CONSUMER_PID, WORD_CONSUMER_FENCE)
        if self._head % ALIGNMENT:
            self._fail("head", self._head, f"a multiple of {ALIGNMENT}", self._head)

    # Reading.

    def poll(self, records_max: int = 256, bytes_max: int = 1 << 20) -> list[Record]:
        """The next records that were not polled yet, oldest first: at most `records_max`, and no further one once
        they hold `bytes_max` bytes of ring. An empty list when nothing new is published.

        Copies: none; each payload is a read-only view, lent until its record is released. Crosses the end of the ring
        within one call. Whoever sleeps while it holds records may wait for a producer that waits for their room.
        Raises RingCorrupt at the first record that is not as the producer must write it; then none of this call's
        records is handed out.
        """
        if self._failed is not None or self._closed:
            self._refuse_dead()
        # Acquire: whoever sees this tail sees every byte of every record before it.
        tail = self._words[WORD_TAIL]
        position = self._position
        if tail == position:
            return []
        capacity = self._capacity
        if not position < tail <= self._head + capacity or tail % ALIGNMENT:
            allowed = f"a multiple of {ALIGNMENT} from {position} to {self._head + capacity}"
            self._fail("tail", tail, allowed, position)
        if self._observe is not None:
            self._observe()
        if tail - self._head > self._depth_max:
            self._depth_max = self._words[WORD_DEPTH_MAX] = tail - self._head
        # Hot: locals, one unpack for the private snapshot of a header, and tuple.__new__ instead of Record():
        # 0.50 us per record where Record() takes 0.68 (python -m partywire.perf.ring).
        stop = min(tail, position + bytes_max)
        mask = self._mask
        data = self._data
        sequence = self._sequence
        sequence_stop = sequence + records_max
        new = tuple.__new__
        end_of = self._ends.append
        records: list[Record] = []
        deliver = records.append
        while position < stop and sequence < sequence_stop:
            index = position & mask
            size, kind, flags, connection, link_epoch, sequence_seen, reserved = unpack_header_from(data, index)
            need = (size + PADDING) & GRID
            if (
                index + need > capacity
                or position + need > tail
                or kind == 0
                or kind == KIND_PAD
                or sequence_seen != sequence
                or flags
                or reserved
            ):
                self._check_pad(index, position, tail, (size, kind, flags, sequence_seen, reserved), sequence)
                position += need
                stop = min(tail, stop + need)  # a pad uses up no limit: the record behind it is handed out with it
                continue
            start = index + RECORD_HEADER_SIZE
            deliver(new(Record, (kind, connection, link_epoch, sequence, data[start : start + size])))
            position += need
            end_of(position)
            sequence += 1
        self._position = position
        self._sequence = sequence
        return records

    def release(self, count: int) -> None:
        """Give the room of the `count` oldest polled records back, with one store, and wake a producer that asked.

        Their payload must not be looked at any more.
        """
        if self._failed is not None or self._closed:
            self._refuse_dead()
        ends = self._ends
        if not 0 <= count <= len(ends):
            raise ValueError(f"{count} records cannot be released, {len(ends)} are polled")
        if count == len(ends):
            self.release_all()
            return
        if count:
            for _ in range(count - 1):
                ends.popleft()
            self._store_head(ends.popleft(), count)

    def release_all(self) -> None:
        """Give the room of every polled record back, with one store, and wake a producer that asked."""
        if self._failed is not None or self._closed:
            self._refuse_dead()
        position = self._position
        if position != self._head:
            count = len(self._ends)
            self._ends.clear()
            self._store_head(position, count)

    def release_part(self, size_left: int) -> None:
        """Give the front of the oldest polled record back, of which only the last `size_left` payload bytes are
        still needed; it stays polled. For a record that leaves in parts, such as through a slow socket.
        """
        if self._failed is not None or self._closed:
            self._refuse_dead()
        if not self._ends or size_left < 0:
            raise ValueError(f"no polled record has {size_left} bytes left")
        # Up to ALIGNMENT - 1 bytes of padding stand behind the payload.
        position = (self._ends[0] - size_left - (ALIGNMENT - 1)) & GRID
        if position > self._head:
            self._store_head(position, 0)

    def is_empty(self) -> bool:
        """Whether everything published has been polled: the look at this source after Doorbell.arm."""
        if self._failed is not None or self._closed:
            self._refuse_dead()
        # Acquire: whoever sees this tail sees every byte of every record before it. Here only whether it moved counts.
        return self._words[WORD_TAIL] == self._position

    # Counting, for whoever sleeps on behalf of this ring.

    def count_sleep(self) -> None:
        """Count one sleep of the consumer."""
        if self._closed:
            self._refuse_dead()
        self._words[WORD_SLEEPS] += 1

    def count_timeout_with_data(self) -> None:
        """Count one sleep that ended by its timeout, with no bell, although data was there: a lost wake-up."""
        if self._closed:
            self._refuse_dead()
        self._words[WORD_TIMEOUTS_WITH_DATA] += 1

    @property
    def peer_state(self) -> str:
        """What the producer says about itself: new, open, closed or failed. May be stale."""
        return peer_state(self._segment, WORD_PRODUCER_STATE)

    def stat(self) -> RingStat:
        """This ring's figures. Stores nothing."""
        return self._segment.stat()

    def close(self) -> None:
        """Leave the ring and close its segment; lent payload stays mapped until its views go."""
        if self._closed:
            return
        if not self._segment.closed and self._failed is None:
            self._words[WORD_CONSUMER_STATE] = STATE_CLOSED
        self._closed = True
        self._data.release()
        self._segment.close()

    def _store_head(self, head: int, count: int) -> None:
        words = self._words
        # Release: whoever sees this head may overwrite every byte before it.
        words[WORD_HEAD] = head
        self._head = head
        self._released += count
        words[WORD_RECORDS_RELEASED] = self._released
        if self._waker is not None:
            self._waker()
        # Acquire, with RingWriter.request_space: whoever frees space after that look sees this request and rings.
        wanted = words[WORD_SPACE_WANTED]
        if wanted and head >= wanted and wanted != self._space_rung:
            self._space_rung = wanted
            if self._bell is not None:
                self._bell.ring()
                self._bells += 1
                words[WORD_CONSUMER_BELLS] = self._bells

    def _check_pad(
        self, index: int, position: int, tail: int, header: tuple[int, int, int, int, int], sequence: int
    ) -> None:
        """Accept the header at `index` as a pad, or fail with the first field that is wrong."""
        size, kind, flags, sequence_seen, reserved = header
        room = self._capacity - index
        need = (size + PADDING) & GRID
        if need > room or need > tail - position:
            size_max = min(room, tail - position) - RECORD_HEADER_SIZE
            self._fail("length", size, f"at most {size_max} here", position)
        if kind == 0:
            self._fail("kind", kind, f"from 1 to {KIND_PAD}", position)
        if kind == KIND_PAD and need != room:
            self._fail("pad", size, f"{room - RECORD_HEADER_SIZE}, up to the end of the ring", position)
        if flags:
            self._fail("flags", flags, "0", position)
        if sequence_seen != sequence:
            self._fail("sequence", sequence_seen, str(sequence), position)
        if reserved:
            self._fail("reserved", reserved, "0", position)

    def _refuse_dead(self) -> None:
        if self._failed is not None:
            raise RingCorrupt(*self._failed.args)
        raise RingClosed("the ring")

    def _fail(self, field: str, seen: int, allowed: str, position: int) -> None:
        self._failed = RingCorrupt(self._segment.ring_id, field, seen, allowed)
        words = self._words
        words[WORD_BAD_RECORDS] = 1
        words[WORD_LAST_ERROR] = ERROR_FIELDS.index(field)
        words[WORD_ERROR_POSITION] = position
        words[WORD_CONSUMER_STATE] = STATE_FAILED
        raise RingCorrupt(*self._failed.args)


def copy_parts(data: memoryview, start: int, size: int, parts: Sequence[Buffer]) -> None:
    """Copy large parts one behind the other into the ring, each once."""
    position = start
    stop = start + size
    for part in parts:
        view = memoryview(part)
        if view.nbytes == 0:
            continue
        part_stop = position + view.nbytes
        if part_stop > stop:
            break
        data[position:part_stop] = view.cast("B")
        position = part_stop
    else:
        if position == stop:
            return
    raise ValueError(f"the parts of a record do not add up to the {size} bytes announced")


def enter(words: memoryview, fence: Fence, role: str, word_state: int, word_pid: int, word_fence: int) -> None:
    """Say in the header page who we are, and refuse a ring whose other side orders memory in another way."""
    words[word_pid] = os.getpid()
    words[word_fence] = fence.id
    words[word_state] = STATE_OPEN
    fence.sleeper()  # of two sides that enter at once, at least one sees the other
    other = words[WORD_CONSUMER_FENCE if role == "producer" else WORD_PRODUCER_FENCE]
    if other not in (0, fence.id):
        names = {number: name for name, number in FENCE_IDS.items()}
        raise UnsoundOrdering(
            f"the {role} of a ring uses {fence.name} and its other side {names.get(other, f'the unknown {other}')}",
            "start all processes of a party with one setting",
        )


def peer_state(segment: Segment, word: int) -> str:
    if segment.closed:
        raise RingClosed("the ring")
    state = segment.words[word]
    return STATES[state] if state < len(STATES) else STATES[STATE_FAILED]
