"""The hot halves of a ring's two ends and of a bell, in plain Python.

Between RingWriter, RingReader and Bell, which add everything that refuses, fails or waits, and the memory that they
share with another process. The compiled core has the same classes in C (shm/core/): same layout, same errors, same
counters. This file is the specification of both; shm/compiled.py says which one is used.

An exception of a signal's handler (Ctrl-C) may leave any of these methods, but only behind a call, where a function
begins, or where a loop begins again: CPython looks for signals nowhere else. So what has to stand together is written
without a call in between, and whatever an exception cut off is done by the next call.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from .counters import (
    WORD_CONSUMER_BELLS,
    WORD_DEPTH_MAX,
    WORD_HEAD,
    WORD_PRODUCER_BELLS,
    WORD_RECORDS_PUBLISHED,
    WORD_RECORDS_RELEASED,
    WORD_SPACE_WANTED,
    WORD_TAIL,
)
from .errors import UnsoundOrdering
from .record import ALIGNMENT, GRID, KIND_PAD, PADDING, RECORD_HEADER, Record
from .segment import RECORD_HEADER_SIZE

if TYPE_CHECKING:
    import mmap
    from collections.abc import Sequence

    from .fence import Fence
    from .segment import Segment

    Buffer = bytes | bytearray | memoryview

pack_header_into = RECORD_HEADER.pack_into
unpack_header_from = RECORD_HEADER.unpack_from

# Up to this size the parts of a record are joined before they are copied. Measured: a part copied alone costs 0.2 us,
# the join's second copy 0.05 us a KiB, so two parts of 8 KiB break even and 256 of 64 bytes take 3.5 us instead of 54.
JOIN_SIZE_MAX: Final = 16 * 1024


# Of a doorbell's page; doorbell.py has the other word.
WORD_TICKET: Final = 0


class WriterCore:
    """The producer's hot half; see RingWriter."""

    def __init__(self, segment: Segment, fence: Fence, consumer_bell: BellCore | None) -> None:
        refuse_weak_stores(fence)
        self._words = segment.words
        self._data = segment.data
        self._capacity = segment.capacity
        self._mask = segment.capacity - 1
        self._waker = fence.waker if fence.waker_pays else None
        self._observe = fence.observe if fence.observer_pays else None
        self._bell = consumer_bell
        self._tail = self._words[WORD_TAIL]  # published
        self._pending = self._tail  # published + committed
        self._told = self._tail  # published, and the consumer woken if it slept
        self._head_seen = self._words[WORD_HEAD]  # may be stale, then it shows too little room
        self._sequence = self._words[WORD_RECORDS_PUBLISHED]  # of the next record
        self._claim_position = 0  # of the open claim's header, pad passed
        self._claim_size = 0  # of the open claim; -1 once the ring is failed or closed
        self._bells = 0
        self.record_size_max: Final = segment.capacity // 2 - RECORD_HEADER_SIZE
        # Hot: record_size_max while a record may be written, -1 while a claim is open or the ring is failed or closed.
        # One comparison then serves four conditions; the slow path tells them apart. Saves 30 of 445 ns per record.
        self._size_gate = self.record_size_max

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
        if tail == self._told:
            if self._size_gate < 0 and self._claim_size < 0:
                self._refuse_dead()
            return False
        words = self._words
        # Release: whoever sees this tail sees every byte of every record before it.
        words[WORD_TAIL] = tail
        self._tail = tail
        words[WORD_RECORDS_PUBLISHED] = self._sequence
        if self._waker is not None:
            self._waker()
        has_rung = self._bell is not None and self._bell.ring_if_asleep()
        if has_rung:
            self._bells += 1
            words[WORD_PRODUCER_BELLS] = self._bells
        self._told = tail  # not before: a call that was interrupted is made up for by the next
        return has_rung

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
        if self._observe is not None:
            self._observe()
        if not self._head_seen <= head <= self._tail or head % ALIGNMENT:
            self._refuse_head(head)
        self._head_seen = head
        return head

    # Ending.

    def _die(self) -> None:
        """Write nothing more, and publish nothing that was committed; every call refuses from here on."""
        self._size_gate = self._claim_size = -1
        self._pending = self._told = self._tail

    def _detach(self) -> None:
        """Look at the segment no more."""
        self._die()

    # What RingWriter adds. Each raises, but `_refuse`, which only counts unless the consumer gave up.

    if TYPE_CHECKING:

        def _total(self, size: int) -> int: ...
        def _refuse(self, total: int) -> None: ...
        def _refuse_size(self, size_min: int, size_max: int) -> None: ...
        def _refuse_commit(self, size: int) -> None: ...
        def _refuse_head(self, head: int) -> None: ...
        def _refuse_dead(self) -> None: ...


class ReaderCore:
    """The consumer's hot half; see RingReader."""

    def __init__(self, segment: Segment, fence: Fence, producer_bell: BellCore | None) -> None:
        refuse_weak_stores(fence)
        self._words = segment.words
        self._data = segment.data.toreadonly()
        self._capacity = segment.capacity
        self._mask = segment.capacity - 1
        self._waker = fence.waker if fence.waker_pays else None
        self._observe = fence.observe if fence.observer_pays else None
        self._bell = producer_bell
        self._head = self._words[WORD_HEAD]  # published
        self._position = self._head  # of the next record to poll
        self._sequence = self._words[WORD_RECORDS_RELEASED]  # of that record
        self._released = self._sequence
        self._ends: list[int] = []  # where each polled, unreleased record ends
        self._space_rung = 0  # the request that was answered last
        self._depth_max = 0
        self._bells = 0
        self._dead = False  # failed or closed: every call refuses

    def poll(self, records_max: int = 256, bytes_max: int = 1 << 20) -> list[Record]:
        """The next records that were not polled yet, oldest first: at most `records_max`, and no further one once
        they hold `bytes_max` bytes of ring. An empty list when nothing new is published.

        Copies: none; each payload is a read-only view, lent until its record is released. Crosses the end of the ring
        within one call. Whoever sleeps while it holds records may wait for a producer that waits for their room.
        Raises RingCorrupt at the first record that is not as the producer must write it; then none of this call's
        records is handed out, nor is any that an exception of a signal's handler cuts off: the next call has them.
        """
        if self._dead:
            self._refuse_dead()
        # Acquire: whoever sees this tail sees every byte of every record before it.
        tail = self._words[WORD_TAIL]
        position = self._position
        if tail == position:
            return []
        capacity = self._capacity
        if not position < tail <= self._head + capacity or tail % ALIGNMENT:
            self._refuse_tail(tail)
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
        ends: list[int] = []
        end_of = ends.append
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
                is_pad = kind == KIND_PAD and index + need == capacity and position + need <= tail
                if not is_pad or sequence_seen != sequence or flags or reserved:
                    self._refuse_header(position, tail, sequence, (size, kind, flags, sequence_seen, reserved))
                position += need
                stop = min(tail, stop + need)  # a pad uses up no limit: the record behind it is handed out with it
                continue
            start = index + RECORD_HEADER_SIZE
            deliver(new(Record, (kind, connection, link_epoch, sequence, data[start : start + size])))
            position += need
            end_of(position)
            sequence += 1
        # No call from here on, so that all of this is done or nothing, and whoever called has the records.
        self._ends += ends
        self._position = position
        self._sequence = sequence
        return records

    def release(self, count: int) -> None:
        """Give the room of the `count` oldest polled records back, with one store, and wake a producer that asked.

        Their payload must not be looked at any more.
        """
        if self._dead:
            self._refuse_dead()
        ends = self._ends
        if not 0 <= count <= len(ends):
            raise ValueError(f"{count} records cannot be released, {len(ends)} are polled")
        if count == len(ends):
            self.release_all()
            return
        if count:
            head = ends[count - 1]
            del ends[:count]
            self._store_head(head, count)

    def release_all(self) -> None:
        """Give the room of every polled record back, with one store, and wake a producer that asked."""
        if self._dead:
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
        if self._dead:
            self._refuse_dead()
        if not self._ends or size_left < 0:
            raise ValueError(f"no polled record has {size_left} bytes left")
        # Up to ALIGNMENT - 1 bytes of padding stand behind the payload.
        position = (self._ends[0] - size_left - (ALIGNMENT - 1)) & GRID
        if position > self._head:
            self._store_head(position, 0)

    def is_empty(self) -> bool:
        """Whether everything published has been polled: the look at this source after Doorbell.arm."""
        if self._dead:
            self._refuse_dead()
        # Acquire: whoever sees this tail sees every byte of every record before it. Here only whether it moved counts.
        return self._words[WORD_TAIL] == self._position

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

    # Ending.

    def _die(self) -> None:
        """Hand out and release nothing more."""
        self._dead = True

    def _detach(self) -> None:
        """Look at the segment no more; lent payload stays mapped until its views go."""
        self._dead = True
        self._data.release()

    # What RingReader adds. Each raises.

    if TYPE_CHECKING:

        def _refuse_tail(self, tail: int) -> None: ...
        def _refuse_header(
            self, position: int, tail: int, sequence: int, header: tuple[int, int, int, int, int]
        ) -> None: ...
        def _refuse_dead(self) -> None: ...


class BellCore:
    """A waker's look at the ticket of somebody's doorbell, and the write that wakes it; see Bell."""

    def __init__(self, eventfd: int, page: mmap.mmap) -> None:
        self._bell_fd = eventfd
        self._page = memoryview(page).cast("Q")
        self._ticket_rung = 0

    def ring_if_asleep(self) -> bool:
        """Wake the owner if it sleeps and this bell has not rung for that sleep. Call after publishing and the fence.

        Acquire, with Doorbell.arm: whoever publishes after that look sees this ticket and rings.
        """
        if self._bell_fd < 0:
            self._refuse_closed()
        ticket = self._page[WORD_TICKET]
        if ticket == 0 or ticket == self._ticket_rung:
            return False
        self.ring()
        self._ticket_rung = ticket  # not before: an exception (Ctrl-C) in between would leave the owner asleep
        return True

    def ring(self) -> None:
        """Wake the owner whether it sleeps or not."""
        if self._bell_fd < 0:
            self._refuse_closed()
        try:
            os.eventfd_write(self._bell_fd, 1)
        except BlockingIOError:
            pass  # the counter is at its limit, so it is readable already

    def _detach(self) -> None:
        """Look at the page no more."""
        self._bell_fd = -1
        self._page.release()

    if TYPE_CHECKING:

        def _refuse_closed(self) -> None: ...


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


def refuse_weak_stores(fence: Fence) -> None:
    """Plain Python stores a position without ordering it behind the records; not every fence makes up for that."""
    if not fence.orders_plain_stores:
        raise UnsoundOrdering(
            f"an end of a ring in plain Python cannot use the fence {fence.name} on this machine",
            "use the compiled core in every process of a party, or in none",
        )
