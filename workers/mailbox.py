"""One session's end towards one peer: the messages that wait to be received, and where both ends stand in their jobs.

Between the lane, which delivers frames, and the session, which receives messages. The one invariant: the queue holds
whole messages and JOB_END markers in the order in which the peer sent them; what is counted for them in the worker's
inbox is what `Mailbox.discard` gives back.

A message in fragments is put together here: in a buffer of its announced size, or, when a `recv(out=...)` is already
waiting for exactly that array, in the caller's own memory. Copies: one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from partywire.engine.errors import LinkProtocolError
from partywire.engine.filler import Filler
from partywire.engine.frames import Descriptor, JobStatus, ResetCode, body_size

from .errors import SessionClosed, SessionDesync, SessionError
from .hot import MailboxHot
from .waiting import Wait

if TYPE_CHECKING:
    from partywire.engine.frames import Buffer, Frame

    from .hot_pure import Entry
    from .lane import Lane
    from .session import Session

MESSAGE_OVERHEAD: Final = 128
"""What one waiting message costs beside its bytes: a tuple, a bytes header and a place in the queue."""

IN_PLACE: Final = -1
"""Stands for the descriptor of a message that already lies in the memory given to `recv(out=...)`."""

_BYTES: Final = Descriptor.BYTES.value
_ARRAY: Final = Descriptor.ARRAY.value
_JOB_END: Final = Descriptor.JOB_END.value


def descriptor_of(entry: Entry) -> int:
    """What kind of message an entry of a queue is."""
    return entry[1] if isinstance(entry, tuple) else _BYTES


def frame_of(entry: Entry, session_id: int) -> Frame:
    """An entry of a queue as the frame that it came in."""
    return entry if isinstance(entry, tuple) else (session_id, _BYTES, len(entry), entry)


class Target:
    """The memory that a waiting `recv(out=...)` wants an array in, and the description that the array must have."""

    __slots__ = ("meta", "view")

    def __init__(self, meta: bytes, view: memoryview) -> None:
        self.meta = meta
        self.view = view


class Assembly:
    """A message of which fragments are still missing."""

    __slots__ = ("body", "descriptor", "filled", "head", "length", "size", "target")

    def __init__(self, descriptor: int, length: int, size: int, target: Target | None) -> None:
        self.descriptor = descriptor
        self.length = length
        self.size = size
        self.filled = 0
        # The caller's memory, as long as the message may still turn out to be what it is meant for.
        self.target = target
        # The description of the array while it is compared with the target's.
        self.head = bytearray()
        self.body = None if target is not None else Filler(size, descriptor != _BYTES)

    def take(self, piece: Buffer) -> None:
        """Append the next data; the caller has checked that it fits."""
        if self.target is not None:
            piece = self._take_in_place(self.target, piece)
            if not len(piece):
                return
        assert self.body is not None
        self.body.put(piece)
        self.filled += len(piece)

    def _take_in_place(self, target: Target, piece: Buffer) -> Buffer:
        """What is left of the piece when it does not belong into the target."""
        missing = len(target.meta) - len(self.head)
        if missing:
            self.head += piece[:missing]
            piece = piece[missing:]
            self.filled = len(self.head)
            if not target.meta.startswith(self.head):
                self.leave_target()
                return piece
        if len(piece):
            start = self.filled - len(target.meta)
            target.view[start : start + len(piece)] = piece
            self.filled += len(piece)
        return b""

    def leave_target(self) -> None:
        """Go on in a buffer of our own: nobody waits at the target any more, or it is not meant."""
        target = self.target
        assert target is not None
        self.body = Filler(self.size, True)
        self.target = None
        self.body.put(self.head)
        self.body.put(target.view[: self.filled - len(self.head)])


class Mailbox(MailboxHot, Wait):
    """What a session has received from one peer. Driven by the lane (deliver...) and the session (the rest).

    Waiting on the mailbox itself is waiting for its next message.
    """

    __slots__ = ("assembly", "markers_seen", "peer", "room_waits", "target")

    def __init__(self, session: Session, lane: Lane, peer: str) -> None:
        super().__init__(session.worker)
        self.session = session
        self.lane = lane
        self.peer = peer
        self.assembly: Assembly | None = None
        # Set while a recv(out=...) of an array waits at an empty queue.
        self.target: Target | None = None
        # Senders of this session that wait for room in the lane.
        self.room_waits: list[Wait] = []
        # The number of the next marker that the peer may send.
        self.markers_seen = 0

    # What arrives.

    def deliver(self, frame: Frame) -> None:
        """Put what is no plain message in line and wake whoever waits."""
        self.queue.append(frame)
        self.worker.inbox_size += len(frame[3]) + MESSAGE_OVERHEAD
        self.wake()

    def begin_untrusted(self, descriptor: int, length: int) -> None:
        """A message in fragments begins. If the inbox cannot take it the session fails, and nothing is allocated.

        Raises:
            LinkProtocolError: another one is not finished, or it is above the limit of the link.
        """
        if self.assembly is not None:
            raise LinkProtocolError(self.peer, "a fragmented message inside another one, session", self.session.id)
        size = body_size(descriptor, length)
        self.lane.check_message_size_untrusted(size)
        target = self.target
        if self.queue or descriptor != _ARRAY:
            target = None
        if target is not None and size != len(target.meta) + len(target.view):
            target = None
        if target is None and self.worker.inbox_size + size + MESSAGE_OVERHEAD > self.worker.inbox_size_max:
            self.worker.overflow(self, size)
            return
        try:
            self.assembly = Assembly(descriptor, length, size, target)
        except MemoryError:
            self._no_memory(size)
            return
        if target is None:
            self.worker.inbox_size += size + MESSAGE_OVERHEAD
        if not size:
            self._complete(self.assembly)

    def take_fragment_untrusted(self, piece: Buffer) -> None:
        """Data of the open message.

        Raises:
            LinkProtocolError: no message is open, or the data is more than was announced.
        """
        assembly = self.assembly
        if assembly is None:
            raise LinkProtocolError(self.peer, "a fragment without a beginning, session", self.session.id)
        if len(piece) > assembly.size - assembly.filled:
            raise LinkProtocolError(self.peer, "fragments are longer than announced", len(piece), assembly.size)
        was_in_place = assembly.target is not None
        try:
            assembly.take(piece)
        except MemoryError:
            self._no_memory(assembly.size)
            return
        if was_in_place and assembly.target is None:
            self.worker.inbox_size += assembly.size + MESSAGE_OVERHEAD
        if assembly.filled == assembly.size:
            self._complete(assembly)

    def put_fragment(self, piece: Buffer) -> bool:
        """Data of the open message, of which more is to come behind it. False: it is something else, or belongs into
        the memory of a receiver, and nothing was done."""
        assembly = self.assembly
        if assembly is None or assembly.target is not None or assembly.filled + len(piece) >= assembly.size:
            return False
        assert assembly.body is not None
        assembly.body.put(piece)
        assembly.filled += len(piece)
        return True

    def receive_fragment(self, fd: int, size: int) -> tuple[int, int] | None:
        """Receive up to `size` bytes of the open message from a socket, where they will stay.

        Returns the bytes and the outcome, as of the compiled core. None: they belong elsewhere, or are too many.
        """
        assembly = self.assembly
        if assembly is None or assembly.body is None or size > assembly.size - assembly.filled:
            return None
        count, outcome = assembly.body.receive(fd, size)
        assembly.filled += count
        if assembly.filled == assembly.size:
            self._complete(assembly)
        return count, outcome

    def _no_memory(self, size: int) -> None:
        """The inbox would take a message that the machine has no memory for: its session fails everywhere."""
        reason = f"there is no memory for a message of {size} bytes from {self.peer}"
        self.session.fail(SessionClosed(self.session.id, reason), ResetCode.OVERFLOW, reason)

    def _complete(self, assembly: Assembly) -> None:
        self.assembly = None
        if assembly.body is None:
            self.queue.append((self.session.id, IN_PLACE, assembly.length, b""))
        else:
            body = assembly.body.take()
            if isinstance(body, bytes):
                self.queue.append(body)
            else:
                self.queue.append((self.session.id, assembly.descriptor, assembly.length, body))
        self.wake()

    @property
    def size_of_latest(self) -> int:
        """Bytes of the message that came last: the one at hand, or the last in line."""
        if self.assembly is not None:
            return self.assembly.size
        return len(frame_of(self.queue[-1], self.session.id)[3]) if self.queue else 0

    # What the session does.

    def clear_target(self) -> None:
        """The `recv(out=...)` that waited is over. A message that is not whole yet goes on in a buffer of our own."""
        self.target = None
        assembly = self.assembly
        if assembly is not None and assembly.target is not None:
            try:
                assembly.leave_target()
            except MemoryError:
                self._no_memory(assembly.size)
                return
            self.worker.inbox_size += assembly.size + MESSAGE_OVERHEAD

    def give_up_target(self) -> None:
        """`clear_target` for a `recv` that ends without its message: one that is whole already is kept as well."""
        target = self.target
        self.clear_target()
        if target is not None and self.queue and descriptor_of(self.queue[0]) == IN_PLACE:
            session, _, length, _ = frame_of(self.queue[0], self.session.id)
            body = bytearray(target.meta)
            body += target.view
            self.queue[0] = (session, _ARRAY, length, body)
            self.worker.inbox_size += length + MESSAGE_OVERHEAD

    def discard(self) -> None:
        """Forget everything that was received."""
        worker = self.worker
        for entry in self.queue:
            if descriptor_of(entry) != IN_PLACE:
                worker.inbox_size -= len(frame_of(entry, self.session.id)[3]) + MESSAGE_OVERHEAD
        self.queue.clear()
        assembly, self.assembly = self.assembly, None
        if assembly is not None and assembly.target is None:
            worker.inbox_size -= assembly.size + MESSAGE_OVERHEAD
        self.target = None

    def fail(self, error: SessionError) -> None:
        """Nothing more comes or goes; wakes everybody who waits here."""
        if self.failure is None:
            self.failure = error
        self.wake()
        for wait in self.room_waits:
            wait.wake()

    # Jobs in lockstep.

    def take_marker_untrusted(self, job: int, status: JobStatus) -> bool:
        """The peer ended a job. True: we ended that job too, so it is settled between the two of us.

        Raises:
            LinkProtocolError: markers are numbered 0, 1, 2 ...
            SessionDesync: a message of that job was never received here.
        """
        if job != self.markers_seen:
            raise LinkProtocolError(self.peer, "number of a job's end", job, self.markers_seen)
        self.markers_seen += 1
        if not self.behind:
            self.deliver((self.session.id, _JOB_END, job, bytes((status,))))
            return False
        if self.queue or self.assembly is not None:
            raise self._leftover(job)
        self.behind -= 1
        return True

    def end_job(self, job: int) -> bool:
        """We ended a job. True: the peer ended it before.

        Raises:
            SessionDesync: a message of the peer was not received by that job.
        """
        if not self.behind and self.queue:
            if descriptor_of(self.queue[0]) == _JOB_END:
                self.worker.inbox_size -= len(frame_of(self.queue.popleft(), self.session.id)[3]) + MESSAGE_OVERHEAD
                return True
            raise self._leftover(job)
        self.behind += 1
        return False

    def _leftover(self, job: int) -> SessionDesync:
        what = f"{self.peer} sent a message that the job did not receive here"
        return SessionDesync(self.session.id, self.peer, job, what)
