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

Here is what refuses, fails or waits. The hot half of each end is its base class, which exists twice: in plain Python
(pure.py, the specification of both) and in C (core/). compiled.py says which one is used.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from .compiled import core
from .counters import (
    ERROR_FIELDS,
    STATE_CLOSED,
    STATE_FAILED,
    STATE_NEW,
    STATE_OPEN,
    STATES,
    WORD_BAD_RECORDS,
    WORD_CONSUMER_FENCE,
    WORD_CONSUMER_PID,
    WORD_CONSUMER_STATE,
    WORD_ERROR_POSITION,
    WORD_FULL_EVENTS,
    WORD_LAST_ERROR,
    WORD_PRODUCER_FENCE,
    WORD_PRODUCER_PID,
    WORD_PRODUCER_STATE,
    WORD_SLEEPS,
    WORD_SPACE_WANTED,
    WORD_TIMEOUTS_WITH_DATA,
)
from .errors import RecordTooLarge, RingClosed, RingCorrupt, UnsoundOrdering
from .fence import FENCE_IDS
from .record import ALIGNMENT, GRID, KIND_PAD, PADDING
from .segment import RECORD_HEADER_SIZE

if TYPE_CHECKING:
    from .counters import RingStat
    from .doorbell import Bell
    from .fence import Fence
    from .segment import Segment

if TYPE_CHECKING or core is None:
    from .pure import ReaderCore, WriterCore
else:
    ReaderCore, WriterCore = core.ReaderCore, core.WriterCore

# A producer that waits for room is woken when this part of the ring is free, not at the first free byte: each wake-up
# costs more than the records that a few bytes could take. Arbitrary; throughput through a full ring would settle it.
WAKE_FREE_PART: Final = 8


class RingWriter(WriterCore):
    """The producer's end. Driven by the user of the ring only; the consumer shows through `head`.

    Writing (`try_write`, `try_claim`, `commit`, `abort`, `publish`) is that of pure.WriterCore, compiled or not.
    Finished by `close`, or by RingCorrupt, after which every call raises it again. Owns the segment, not the bell.
    """

    def __init__(self, segment: Segment, fence: Fence, consumer_bell: Bell | None) -> None:
        super().__init__(segment, fence, consumer_bell)
        self._segment = segment
        self._words = segment.words
        self._fence = fence
        self._refused_total = ALIGNMENT  # ring bytes that the last refused claim needed
        self._full_events = 0
        self._failed: RingCorrupt | None = None
        self._closed = False
        enter(self._words, fence, "producer", WORD_PRODUCER_STATE, WORD_PRODUCER_PID, WORD_PRODUCER_FENCE)
        if not 0 <= self._tail - self._head_seen <= self._capacity or (self._tail | self._head_seen) % ALIGNMENT:
            self._fail("head", self._head_seen, f"at most {self._capacity} before the tail {self._tail}")

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
    def has_refused_room(self) -> bool:
        """Whether as much is free as what was refused last needed: `request_space` without a bell."""
        return self.free_size >= self._refused_total

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
        self._detach()  # what was committed and never published is gone
        self._segment.close()

    def _total(self, size: int) -> int:
        """The ring bytes that a record of `size` bytes takes at the present position, pad included."""
        need = (size + PADDING) & GRID
        room = self._capacity - self._pending % self._capacity
        return need if need <= room else room + need

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

    def _refuse_head(self, head: int) -> None:
        self._fail("head", head, f"a multiple of {ALIGNMENT} from {self._head_seen} to {self._tail}")

    def _refuse_dead(self) -> None:
        if self._failed is not None:
            raise RingCorrupt(*self._failed.args)
        raise RingClosed("the ring")

    def _fail(self, field: str, seen: int, allowed: str) -> None:
        self._failed = RingCorrupt(self._segment.ring_id, field, seen, allowed)
        self._die()
        self._words[WORD_PRODUCER_STATE] = STATE_FAILED
        raise RingCorrupt(*self._failed.args)


class RingReader(ReaderCore):
    """The consumer's end. Driven by the user of the ring only; the producer shows through `tail` and the records.

    Reading (`poll`, `release`, `release_all`, `release_part`, `is_empty`) is that of pure.ReaderCore, compiled or not.
    Finished by `close`, or by RingCorrupt, after which every call raises it again. Owns the segment, not the bell.
    """

    def __init__(self, segment: Segment, fence: Fence, producer_bell: Bell | None) -> None:
        super().__init__(segment, fence, producer_bell)
        self._segment = segment
        self._words = segment.words
        self._failed: RingCorrupt | None = None
        self._closed = False
        enter(self._words, fence, "consumer", WORD_CONSUMER_STATE, WORD_CONSUMER_PID, WORD_CONSUMER_FENCE)
        if self._head % ALIGNMENT:
            self._fail("head", self._head, f"a multiple of {ALIGNMENT}", self._head)

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
        self._detach()
        self._segment.close()

    # Refusing.

    def _refuse_tail(self, tail: int) -> None:
        allowed = f"a multiple of {ALIGNMENT} from {self._position} to {self._head + self._capacity}"
        self._fail("tail", tail, allowed, self._position)

    def _refuse_header(self, position: int, tail: int, sequence: int, header: tuple[int, int, int, int, int]) -> None:
        """Fail with the first field that is wrong in the header at `position`."""
        size, kind, flags, sequence_seen, reserved = header
        room = self._capacity - position % self._capacity
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
        self._die()
        raise RingCorrupt(*self._failed.args)


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
