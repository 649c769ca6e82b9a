"""The words of a segment's header page, and how to read a ring's figures without disturbing it.

Every word has exactly one writer: the creator before anybody else maps the page, then the producer or the consumer.
The groups lie 128 bytes apart, since CPUs fetch 64-byte lines in pairs. Numbers are indices of 8-byte words.

A `RingStat` is a snapshot of words that two processes keep changing: each figure was true at some instant of the call,
not all of them at the same one.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

# Creator, once: what attach() validates and nobody reads again.
WORD_MAGIC: Final = 0
WORD_LAYOUT: Final = 1
WORD_CAPACITY: Final = 2
WORD_RECORD_SIZE_MAX: Final = 3
WORD_EPOCH: Final = 4
WORD_RING_ID: Final = 5
WORD_FEATURES: Final = 6
WORD_DIGEST: Final = 7

# Producer, hot: stored at each publication.
WORD_TAIL: Final = 32
WORD_RECORDS_PUBLISHED: Final = 33

# Producer, warm.
WORD_PRODUCER_STATE: Final = 48
WORD_PRODUCER_PID: Final = 49
WORD_PRODUCER_FENCE: Final = 50
WORD_SPACE_WANTED: Final = 51  # the head at which the producer wants its bell; 0 when it does not wait
WORD_FULL_EVENTS: Final = 52
WORD_PRODUCER_BELLS: Final = 53

# Consumer, hot: stored at each release.
WORD_HEAD: Final = 64
WORD_RECORDS_RELEASED: Final = 65

# Consumer, warm.
WORD_CONSUMER_STATE: Final = 80
WORD_CONSUMER_PID: Final = 81
WORD_CONSUMER_FENCE: Final = 82
WORD_CONSUMER_BELLS: Final = 83
WORD_DEPTH_MAX: Final = 84
WORD_SLEEPS: Final = 85
WORD_TIMEOUTS_WITH_DATA: Final = 86
WORD_BAD_RECORDS: Final = 87
WORD_LAST_ERROR: Final = 88
WORD_ERROR_POSITION: Final = 89

# What a side says about itself in its state word.
STATE_NEW: Final = 0  # has not come yet
STATE_OPEN: Final = 1
STATE_CLOSED: Final = 2  # left in an orderly way
STATE_FAILED: Final = 3  # found the other side corrupt and will never touch the ring again
STATES: Final = ("new", "open", "closed", "failed")

# The fields that a validation can refuse; WORD_LAST_ERROR holds an index of this tuple.
ERROR_FIELDS: Final = (
    "none",
    "tail",
    "length",
    "kind",
    "flags",
    "pad",
    "sequence",
    "reserved",
    "head",
    "consumer state",
)


class HeaderPage(Protocol):
    """Whoever maps the header page of a segment: the whole of it, or that page alone."""

    @property
    def words(self) -> memoryview: ...
    @property
    def capacity(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def ring_id(self) -> int: ...


class RingStat(NamedTuple):
    """One ring's figures."""

    ring: int  # the id that the creator gave it
    epoch: int
    capacity: int
    depth: int  # bytes published and not released yet
    depth_max: int  # the most the consumer ever found waiting, in bytes
    records: int  # published since creation
    records_released: int
    bytes: int  # of ring that passed, headers and padding included
    bells: int  # rung by the producer
    space_bells: int  # rung by the consumer
    full_events: int  # claims that were refused for lack of room
    sleeps: int
    timeouts_with_data: int  # sleeps that only the timeout ended although data was there: not 0 means a missing fence
    bad_records: int
    last_error: str  # the field that was refused, or "none"
    error_position: int
    producer_state: str
    producer_pid: int
    consumer_state: str
    consumer_pid: int


def read_stat(segment: HeaderPage) -> RingStat:
    """The figures of a ring, read by anybody who maps its header page. Stores nothing, waits for nothing."""
    words = segment.words
    # May be stale: head is read first, so that a moving ring shows too much depth rather than a negative one.
    head = words[WORD_HEAD]
    tail = words[WORD_TAIL]
    return RingStat(
        ring=segment.ring_id,
        epoch=segment.epoch,
        capacity=segment.capacity,
        depth=max(0, tail - head),
        depth_max=words[WORD_DEPTH_MAX],
        records=words[WORD_RECORDS_PUBLISHED],
        records_released=words[WORD_RECORDS_RELEASED],
        bytes=tail,
        bells=words[WORD_PRODUCER_BELLS],
        space_bells=words[WORD_CONSUMER_BELLS],
        full_events=words[WORD_FULL_EVENTS],
        sleeps=words[WORD_SLEEPS],
        timeouts_with_data=words[WORD_TIMEOUTS_WITH_DATA],
        bad_records=words[WORD_BAD_RECORDS],
        last_error=name_of(ERROR_FIELDS, words[WORD_LAST_ERROR]),
        error_position=words[WORD_ERROR_POSITION],
        producer_state=name_of(STATES, words[WORD_PRODUCER_STATE]),
        producer_pid=words[WORD_PRODUCER_PID],
        consumer_state=name_of(STATES, words[WORD_CONSUMER_STATE]),
        consumer_pid=words[WORD_CONSUMER_PID],
    )


def name_of(names: tuple[str, ...], value: int) -> str:
    """The name of a stored number; the other process may have stored anything."""
    return names[value] if value < len(names) else f"unknown ({value})"
