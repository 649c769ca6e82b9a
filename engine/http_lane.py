"""One end of the pair of rings between the HTTP front and the worker that answers.

Between the process at this end, whose loop drives it, and the other one, of which it sees records only. The one
invariant: messages leave in the order of `send`, whole and once; nothing here waits. What does not fit the ring is held
by its owner's own bound: the front holds no more than its requests in flight, the worker no more than their answers.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, TypeVar

from partywire.shm.doorbell import Bell
from partywire.shm.ring import RingReader, RingWriter
from partywire.shm.segment import Segment, close_owned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from partywire.shm.fence import Fence

End = TypeVar("End", RingWriter, RingReader)

RING_SIZE: Final = 1024 * 1024
"""Each way. Requests and answers are small; a large one passes in pieces, while its reader empties the ring."""

RECORD_SIZE_MAX: Final = 256 * 1024
"""A quarter of the ring, so that reader and writer of a large body work at the same time."""

BATCH_SIZE_MAX: Final = 512 * 1024
RECORDS_MAX: Final = 64
"""Records taken in one turn of the loop, so that sockets are served beside a full ring."""


class HttpLane:
    """A writer and a reader with the other side's bell. Not for several threads."""

    def __init__(self, fds: Sequence[int], fence: Fence) -> None:
        """Takes ownership of `fds`: the other side's bell (eventfd, page), then the segments to write and to read.

        Raises:
            SegmentError, UnsoundOrdering: they are not what the supervisor makes; everything is closed again.
        """
        eventfd, page, tx, rx = fds
        try:
            self._bell = Bell.from_fds(eventfd, page)
        except BaseException:
            close_owned(tx)
            close_owned(rx)
            raise
        try:
            self._writer = _attach(RingWriter, tx, fence, self._bell)
        except BaseException:
            close_owned(rx)
            self._bell.close()
            raise
        try:
            self._reader = _attach(RingReader, rx, fence, self._bell)
        except BaseException:
            self._writer.close()
            self._bell.close()
            raise
        self._pending: deque[Iterator[tuple[int, Sequence[bytes | memoryview]]]] = deque()
        self._held: tuple[int, Sequence[bytes | memoryview]] | None = None  # refused by the full ring

    # Sending.

    def send(self, records: Iterator[tuple[int, Sequence[bytes | memoryview]]]) -> None:
        """Write one message, or hold what does not fit. Visible to the other side after `flush`."""
        self._pending.append(records)

    def flush(self) -> bool:
        """Write and publish what is held, as far as there is room; whether nothing is left.

        Raises:
            RingCorrupt: the other side broke the ring.
        """
        writer = self._writer
        try:
            while self._pending:
                record = self._held
                if record is None:
                    record = next(self._pending[0], None)
                if record is None:
                    self._pending.popleft()
                    continue
                kind, parts = record
                if not writer.try_write(parts, sum(map(len, parts)), kind):
                    self._held = record
                    return False
                self._held = None
        finally:
            writer.publish()
        return True

    # Receiving.

    def receive(self, take: Callable[[int, memoryview], None]) -> int:
        """Hand out up to RECORDS_MAX records, each lent for the call; how many there were.

        Raises:
            RingCorrupt, and what `take` raises; the lane is of no use afterwards.
        """
        records = self._reader.poll(RECORDS_MAX, BATCH_SIZE_MAX)
        for record in records:
            take(record.kind, record.payload)
        self._reader.release_all()
        return len(records)

    # Sleeping.

    def may_sleep(self) -> bool:
        """The look after Doorbell.arm: nothing to read, and a bell comes when held records fit."""
        if not self._reader.is_empty():
            return False
        return not self._pending or not self._writer.request_space()

    def close(self) -> None:
        """Leave both rings. What was published stays readable for the other side."""
        self._pending.clear()
        self._held = None
        self._writer.close()
        self._reader.close()
        self._bell.close()


def _attach(kind: type[End], fd: int, fence: Fence, bell: Bell) -> End:
    segment = Segment.attach(fd)
    try:
        return kind(segment, fence, bell)
    except BaseException:
        segment.close()
        raise
