"""What is done for every message, in plain Python: the bases of Worker, Wait, Mailbox, Lane, Session and Slot.

The compiled core (workers/core/) offers the same classes and functions; hot.py picks one of the two. This file is their
specification: same names, same order of events, same errors. Whatever is not done for every message is a method of the
subclass, called from here by name.

An entry of a mailbox's queue is the body itself for a whole BYTES message, and a Frame tuple for everything else.

One difference is left: the compiled lane polls record by record, so it delivers what stands before a record with a
corrupt header; here a poll hands out all of its records or, when one of them is corrupt, none.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from partywire.engine import limits
from partywire.engine.errors import LinkProtocolError
from partywire.engine.frames import FRAGMENT_BEGIN_HEADER, HEADER, Descriptor, fragment_begin_header, frame_header
from partywire.engine.records import DATA
from partywire.shm.errors import ShmError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator

    from partywire.engine.connection_pump import ConnectionPump
    from partywire.engine.filler import Filler
    from partywire.engine.frame_buffer import FrameBuffer
    from partywire.engine.frames import Buffer, Frame
    from partywire.shm.ring import RingReader, RingWriter

    from .errors import SessionError
    from .lane import Lane
    from .mailbox import Mailbox
    from .session import Session
    from .worker import Worker

    Entry = bytes | Frame

NEVER: Final = math.inf
"""The deadline of a wait without one."""

RECORDS_MAX: Final = 256
SLICE_SIZE: Final = 1024 * 1024
"""What a lane takes in before others have their turn, unless it is a bulk one."""

FRAGMENT_SIZE_MIN: Final = 16 * 1024
"""A fragment is cut to the room that the ring has, but not below this: smaller ones cost more than waiting."""

Queue = deque


class WorkerHot:
    """The fields of a worker that every message touches."""

    inbox_size: int
    """Bytes of all messages that nobody has received yet, with an overhead for each."""
    inbox_size_max: int
    driving: bool
    """True while a native driver resumes coroutines: a Wait then yields itself instead of a future."""


class WaitHot:
    """One place where a coroutine can stand still."""

    __slots__ = ("deadline", "timer_at", "waker", "worker")

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        # Set by the driver while a coroutine stands here; taken by whoever wakes it.
        self.waker: Callable[[], object] | None = None
        # When Worker.expire wakes it, on the monotonic clock.
        self.deadline = NEVER
        # The earliest entry of this wait among the worker's timers; entries that are later or void are skipped there.
        self.timer_at = NEVER

    def wake(self) -> None:
        """Let the coroutine go on, if one stands here. It runs at its driver's next turn, not inside this call."""
        waker = self.waker
        if waker is not None:
            self.waker = None
            waker()

    def __await__(self) -> Generator[Any, None, None]:
        if self.worker.driving:
            # Hot: a tuple's iterator instead of a generator; resuming it runs no Python frame (0.1 us per wait).
            iterator: Iterator[WaitHot] = iter((self,))
            return iterator  # type: ignore[return-value]
        return self._await_in_loop()

    if TYPE_CHECKING:

        def _await_in_loop(self) -> Generator[Any, None, None]: ...


class MailboxHot(WaitHot):
    """What a session has received from one peer; waiting on it is waiting for the next message."""

    __slots__ = ("behind", "failure", "is_sending", "lane", "queue", "session")

    session: Session
    lane: Lane

    def __init__(self, worker: Worker) -> None:
        super().__init__(worker)
        self.queue: deque[Entry] = deque()
        # Why nothing more comes or goes; the queue may still hold messages when it is PeerClosed.
        self.failure: SessionError | None = None
        # Whether a send has begun that is not finished; a second one has to wait for it.
        self.is_sending = False
        # Jobs that ended here and whose marker the peer has not sent; anything but a marker is then out of step.
        self.behind = 0


class ReceiverHot:
    """Whatever a worker receives from: a lane, or a control lane."""

    if TYPE_CHECKING:

        def receive(self) -> int: ...
        def is_idle(self) -> bool: ...

    def __init__(self, reader: RingReader) -> None:
        self.reader: Final = reader
        # Whether `receive` has something to do although nothing may be new in the ring: what waits to be written, or
        # the consequences of an exception (Ctrl-C) in the last one.
        self.is_urgent = False


def receive_all(receivers: list[Any]) -> int:
    """Let every receiver take in what is there. Returns the count of records."""
    count = 0
    for receiver in receivers:
        count += receiver.receive()
    return count


def all_idle(receivers: list[Any]) -> bool:
    """Whether no receiver has anything to take in."""
    return all(receiver.is_idle() for receiver in receivers)


def watch(receivers: list[Any], quiet_ns: int) -> bool:
    """Look at every receiver, offering the core to others in between, until one has something or the time is over."""
    stop = time.monotonic_ns() + quiet_ns
    while all_idle(receivers):
        os.sched_yield()
        if time.monotonic_ns() >= stop:
            return False
    return True


class WriteInterrupted(ShmError):
    """Raised when nobody knows whether frames were written, because an exception (Ctrl-C) came in between."""

    def __str__(self) -> str:
        return "an exception interrupted the worker while it wrote"


class LaneHot(ReceiverHot):
    """Small frames on their way to the ring, and records on their way to the mailboxes."""

    if TYPE_CHECKING:
        frames: FrameBuffer

        def deliver_untrusted(self, frames: list[Frame]) -> None: ...
        def take_record(self, kind: int, connection: int, epoch: int, payload: memoryview) -> None: ...
        def peer_broke_protocol(self, error: LinkProtocolError) -> None: ...
        def ring_failed(self, error: ShmError) -> None: ...
        def go_on_with_body(self, session: int, descriptor: int, length: int, body: Filler) -> None:
            """In the compiled one alone: take the rest of a body that `take_carefully` has begun."""

        def receive_was_interrupted(self) -> None: ...

    def __init__(self, worker: Worker, writer: RingWriter, reader: RingReader, connection: int, epoch: int) -> None:
        super().__init__(reader)
        self.writer = writer
        self.connection = connection
        self.epoch = epoch
        # session id -> mailbox, for the sessions of this connection that are alive here.
        self.mailboxes: dict[int, Mailbox] = {}
        # Small frames that are not in the ring yet. Session._send gathers itself, as long as parts_size is below
        # parts_size_max, which is 0 while senders wait for room so that nobody overtakes them.
        # An exception (Ctrl-C) may come behind any call, so a sender first counts, then tells the worker, then gathers:
        # a frame is then sent whole or not at all, and parts_size is at worst too large until the next write.
        self._parts: list[Buffer] = []
        self.gather: Callable[[Iterable[Buffer]], None] = self._parts.extend
        # Where the writer stands while a record is written, else -1: found set, an exception came in between, and if
        # the writer has moved since then, the frames are out and were not forgotten.
        self._writing_at = -1
        self.parts_size = 0
        self.parts_size_max = 0
        self.small_size_max = 0
        # Largest `bytes` that one frame takes and the limits of both ends allow; the compiled core writes it by itself.
        self.whole_size_max = 0
        self.fragment_size = 0
        # What one `receive` takes before others have their turn, but for a last record.
        self.slice_size = SLICE_SIZE
        # Whether the worker knows that there is something to write or publish.
        self.is_dirty = False
        # Set when the stream is over or unusable; what still comes is thrown away.
        self.is_over = False
        # Whether nothing is held back in `frames`.
        self.is_between_frames = True
        # The FRAGMENT whose data the compiled core goes on to split off, and how much of it is still to come.
        self.fragment_session = 0
        self.fragment_missing = 0
        self.messages_received = 0
        self.bytes_received = 0
        self.bytes_sent = 0
        # Who moves the rings' bytes, where that is in this process and bytes may pass the rings by.
        self.pump: ConnectionPump | None = None

    def send_direct(self) -> bool:
        """Send what is gathered straight to the socket of `pump`, and what the kernel does not take to the ring, not
        published. Whether nothing is left to send. Only the compiled core can; here nothing is sent."""
        return False

    def write_gathered(self) -> bool:
        """Commit what has gathered, as one record of whole frames; False when there is no room now.

        More than a record holds (thousands of resets at once) is cut at any byte, which a byte stream does not mind.

        Raises:
            ShmError: the ring failed, or an exception left an earlier call, so that frames might be written twice.
        """
        parts = self._parts
        writer = self.writer
        while parts:
            if self._writing_at >= 0 and self._writing_at != writer._pending:
                raise WriteInterrupted
            count = len(parts)
            data = b"".join(parts)
            size = min(len(data), writer.record_size_max)
            rest = data[size:]
            self._writing_at = writer._pending
            if not writer.try_write((data[:size],), size, DATA, self.connection, self.epoch):
                self._writing_at = -1
                parts[:count] = (data,)
                return False
            parts[:count] = (rest,) if rest else ()
            self._writing_at = -1
            self.bytes_sent += size
        self.parts_size = 0
        return True

    def write_chunk(
        self, session: int, descriptor: int, length: int, head: bytes, body: memoryview, position: int
    ) -> int:
        """Write the frame of a large message (head, then body) that begins at `position` of it, and publish it.

        Written behind what has gathered. Returns the bytes of the message that the frame holds, 0 when there is no room
        for it now. The body is copied once, straight into the ring.

        Raises:
            ShmError: the ring failed.
        """
        size = len(head) + len(body)
        left = size - position
        whole = size <= self.fragment_size
        header_size = FRAGMENT_BEGIN_HEADER.size if not whole and position == 0 else HEADER.size
        room = min(left, self.fragment_size)
        if not whole and position == 0:
            room = min(room, limits.FRAME_SIZE_MAX - 5)  # the frame holds a description as well
        least = left if whole else max(min(room, FRAGMENT_SIZE_MIN), len(head) - position)
        claim = self.writer.try_claim(header_size + room, header_size + least) if self.write_gathered() else None
        if claim is None:
            return 0
        try:
            room = len(claim) - header_size
            if whole:
                claim[:header_size] = frame_header(session, descriptor, length)
            elif position == 0:
                claim[:header_size] = fragment_begin_header(session, descriptor, length, room)
            else:
                claim[:header_size] = HEADER.pack(session, Descriptor.FRAGMENT, room)
            start = header_size
            if position < len(head):  # only in the first frame, which has room for it
                claim[start : start + len(head)] = head
                start += len(head)
            begin = position + (start - header_size) - len(head)
            claim[start:] = body[begin : begin + len(claim) - start]
            written = len(claim)
            claim.release()
            self.writer.commit(written, DATA, self.connection, self.epoch)
            self.writer.publish()
            self.bytes_sent += written
        except BaseException:
            # An exception (Ctrl-C) came while the frame was written: an open claim would refuse everything after it.
            claim.release()
            if self.writer.is_claimed:
                self.writer.abort()
            raise
        return room

    def take_gathered(self) -> bytes:
        """Hand over what has gathered; afterwards nothing has."""
        taken = b"".join(self._parts)
        self._parts.clear()
        self.parts_size = 0
        return taken

    def receive(self) -> int:
        """Deliver everything that the I/O process has published. Returns the count of records.

        `is_urgent` is set while records are delivered: found set at its beginning, an exception has interrupted that.
        """
        if self.is_urgent:
            self.receive_was_interrupted()
            self.is_urgent = False
        try:
            records = self.reader.poll(RECORDS_MAX, self.slice_size)
        except ShmError as error:
            if self.is_over:
                return 0
            self.ring_failed(error)
            return 1
        if not records:
            return 0
        # Nothing was called since the records left the ring, so no exception of a signal's handler could lose them.
        self.is_urgent = True
        for kind, connection, epoch, _, payload in records:
            if self.is_over:
                break
            if kind == DATA and connection == self.connection and epoch == self.epoch:
                self._receive_data_untrusted(payload)
            else:
                self.take_record(kind, connection, epoch, payload)
        count = len(records)
        del records, payload
        try:
            self.reader.release_all()
        except ShmError as error:
            if not self.is_over:  # else somebody who was called above has closed the party, and the ring with it
                self.ring_failed(error)
        self.is_urgent = False
        return count

    def _receive_data_untrusted(self, payload: memoryview) -> None:
        """A slice of the stream: what stands before a bad frame is delivered before that ends the lane."""
        frames: list[Frame] = []
        bad: LinkProtocolError | None = None
        try:
            self.frames.split(payload, frames)
        except LinkProtocolError as error:
            bad = error
        try:
            self.deliver_untrusted(frames)
        except LinkProtocolError as error:
            bad = error
        if bad is not None:
            self.peer_broke_protocol(bad)
        self.bytes_received += len(payload)


class SessionHot:
    """The calls for neighbours return the coroutine of the call that they stand for: one frame less per message."""

    if TYPE_CHECKING:

        def send(self, peer: str | int, value: object, *, timeout: float | None = None) -> Coroutine[Any, Any, None]:
            """See Session._send."""

        def recv(self, peer: str | int, *, out: Any = None, timeout: float | None = None) -> Coroutine[Any, Any, Any]:
            """See Session._recv."""

    def __init__(self, worker: Worker, session_id: int, next_peer: int, previous_peer: int) -> None:
        self.worker: Final = worker
        # Changed by `reset` alone.
        self.id = session_id
        # By name and by index, so that either is one look-up.
        self._mailboxes: dict[str | int, Mailbox] = {}
        self._next: Final = next_peer
        self._previous: Final = previous_peer

    def send_next(self, value: object, *, timeout: float | None = None) -> Coroutine[Any, Any, None]:
        """Send to the party with the next index, the first after the last. Raises like `send`."""
        return self.send(self._next, value, timeout=timeout)

    def send_prev(self, value: object, *, timeout: float | None = None) -> Coroutine[Any, Any, None]:
        """Send to the party with the index before ours. Raises like `send`."""
        return self.send(self._previous, value, timeout=timeout)

    def recv_next(self, *, out: Any = None, timeout: float | None = None) -> Coroutine[Any, Any, Any]:
        """Receive from the party with the next index. Raises like `recv`."""
        return self.recv(self._next, out=out, timeout=timeout)

    def recv_prev(self, *, out: Any = None, timeout: float | None = None) -> Coroutine[Any, Any, Any]:
        """Receive from the party with the index before ours. Raises like `recv`."""
        return self.recv(self._previous, out=out, timeout=timeout)


class SlotHot:
    """One coroutine of the scheduler."""

    __slots__ = ("coroutine", "is_done", "send", "session", "task", "wait", "wake")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], ready: deque[Any]) -> None:
        self.coroutine = coroutine
        self.session: Session | None = None
        # Where the coroutine stands; None while it runs, is ready, or is a task.
        self.wait: WaitHot | None = None
        # Set when the coroutine has become a task.
        self.task: Any = None
        self.is_done = False
        # Hot: bound once, because a pass calls both for every message.
        self.send = coroutine.send
        self.wake = partial(ready.append, self)


def run_slots(
    ready: deque[Any],
    limit: int,
    enough: int,
    time_ns: int,
    time_max_ns: int,
    finish: Callable[[Any, Any, BaseException | None], None],
    promote: Callable[[Any, Any], None],
) -> int:
    """Resume ready slots, at most `limit`. Returns how many.

    No further one once `time_max_ns` have passed, or `time_ns` if `enough` were resumed. The compiled one looks at the
    clock after every eighth only. `finish(slot, result, error)` is told of each end, `promote(slot, awaited)` of what
    awaits no Wait of ours.
    """
    clock = time.monotonic_ns
    start = clock()
    count = 0
    limit = min(limit, len(ready))
    while count < limit and ready:
        slot = ready.popleft()
        count += 1
        if slot.is_done:
            continue
        slot.wait = None
        try:
            wait = slot.send(None)
        except StopIteration as stopped:
            finish(slot, stopped.value, None)
        except (KeyboardInterrupt, SystemExit):
            finish(slot, None, None)
            raise
        except BaseException as error:
            finish(slot, None, error)
        else:
            if isinstance(wait, WaitHot):
                slot.wait = wait
                wait.waker = slot.wake
            else:
                promote(slot, wait)
        if clock() - start > (time_max_ns if count < enough else time_ns):
            break
    return count
