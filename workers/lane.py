"""A worker's end of one connection: a ring each way, and the frames in them.

Between the sessions of a worker and the I/O process of a link. Sending: small frames gather and become one record of
whole frames at `flush`; a large body is copied once, straight into claimed ring space. Receiving: records are
slices of the connection's byte stream, which a FrameBuffer splits and `receive` hands to the mailboxes.

The one invariant: the peer's frame buffer sees the frames of each session in the order of its sends; so what has
gathered is always written before anything larger, and a session whose large message has begun sends nothing else.

Copies: sending a small frame two (joined, written), a large one one; receiving, what FrameBuffer and Mailbox say.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from partywire.engine import limits
from partywire.engine.errors import FrameTooLarge, LinkProtocolError
from partywire.engine.frame_buffer import FrameBuffer
from partywire.engine.frames import (
    FRAGMENT_BEGIN_HEADER,
    SPEC_OF,
    Descriptor,
    decode_job_end_untrusted,
    decode_reset_untrusted,
    encode_goodbye,
)
from partywire.engine.records import DATA, FINISH, PEER_ERRED, STREAM_END, decode_stream_end
from partywire.engine.topology import connection_of_session
from partywire.shm.errors import ShmError

from .errors import PeerClosed
from .hot import LaneHot
from .mailbox import MESSAGE_OVERHEAD
from .value_codec import SMALL_SIZE_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire.engine.frames import Buffer, Frame
    from partywire.shm.ring import RingReader, RingWriter

    from .errors import SessionError
    from .mailbox import Mailbox
    from .peer_link import PeerLink
    from .waiting import Wait
    from .worker import Worker

PARTS_SIZE_MAX: Final = 256 * 1024
"""Bytes of small frames that gather before they are written without waiting for the end of the pass: enough for a
thousand sessions with 64-byte messages, and what one send call of the I/O process takes well."""

BULK_SLICE_SIZE: Final = 256 * 1024
"""What a worker receives from a bulk lane before all others have their turn: one fragment."""

_BYTES: Final = Descriptor.BYTES.value
_LAST_VALUE: Final = Descriptor.OBJECT.value
"""Descriptors above it are no messages of sessions but steer them, or are pieces of messages."""


class Lane(LaneHot):
    """Driven by the sessions (append, chunks), by its worker (receive, flush, is_idle) and by the peer (what arrives).

    Finished by `finish` (we said goodbye), by the STREAM_END of the I/O process, or by `close`.
    """

    carries_job_ends = True
    """Whether the peer can be told that a job has ended."""

    carries_objects = True
    """Whether Python objects can be sent."""

    def __init__(
        self,
        worker: Worker,
        link: PeerLink,
        connection: int,
        writer: RingWriter,
        reader: RingReader,
        message_size_max: int = limits.MESSAGE_SIZE_MAX,
        *,
        is_bulk: bool = False,
    ) -> None:
        super().__init__(worker, writer, reader, connection, link.epoch)
        self.is_bulk: Final = is_bulk
        if is_bulk:
            self.slice_size = BULK_SLICE_SIZE
        self._worker = worker
        self.link = link
        self.frames = FrameBuffer(peer=link.name)
        self.message_size_max = message_size_max
        self.cut_above(limits.FRAGMENT_SIZE)
        self.small_size_max = min(SMALL_SIZE_MAX, writer.record_size_max // 4, self.whole_size_max)
        self._parts_limit = min(PARTS_SIZE_MAX, writer.record_size_max // 2)
        self.parts_size_max = self._parts_limit
        # Senders that found the ring full, first come first served, and how many of them were woken: these stand in
        # line until they have run, or who sends without a pause would be there before them, again and again.
        self.waiters: deque[Wait] = deque()
        self._woken = 0
        self.is_stalled = False
        self._has_said_goodbye = False
        self.is_finished = False
        # Whether the peer broke the protocol: then our direction still works, for our resets and our goodbye.
        self.peer_has_erred = False
        # Why the stream is over; empty after a goodbye.
        self.cause = ""

    def cut_above(self, size: int) -> None:
        """Send larger messages in fragments of so many bytes, or as many as the ring holds: only rings below 1 MiB make
        them smaller."""
        self.fragment_size = min(size, self.writer.record_size_max - FRAGMENT_BEGIN_HEADER.size)
        self.whole_size_max = min(self.fragment_size, self.message_size_max, self._worker.message_size_max)

    # Sending.

    def mark_dirty(self) -> None:
        """Tell the worker that this lane has something to publish at the end of the pass."""
        self._worker.add_dirty(self)
        self.is_dirty = True  # not before: an exception (Ctrl-C) in between would leave a lane that nobody flushes

    def post(self, frame: bytes) -> None:
        """Append a small frame of our own (a reset, a job's end) without waiting. Lost when the lane is over."""
        if self.is_finished or self.is_over:
            return
        self.parts_size += len(frame)
        if not self.is_dirty:
            self.mark_dirty()
        self.gather((frame,))

    def try_append(self, header: bytes, head: bytes, body: Buffer, in_turn: bool) -> bool:
        """Append a small frame of a session if there is room; the body must not change afterwards.

        `in_turn`: the sender has stood in line, so others who still do are behind it.
        """
        if in_turn:
            if self.parts_size >= self._parts_limit and not self.flush():
                return False
        elif self.parts_size >= self.parts_size_max and (self.waiters or not self.flush()):
            return False
        self.parts_size += len(header) + len(head) + len(body)
        if not self.is_dirty:
            self.mark_dirty()
        self.gather((header, head, body))
        return True

    def chunks(self, session: int, descriptor: int, length: int, head: bytes, body: Buffer) -> Iterator[bool]:
        """Write a large message frame by frame. Yields True after each but the last, False when there is no room now.

        Each frame is published at once, so that the I/O process sends one while the next is copied.
        """
        size = len(head) + len(body)
        view = memoryview(body)
        position = 0
        while position < size:
            taken = self.write_chunk(session, descriptor, length, head, view, position)
            position += taken
            if position < size:
                yield taken > 0

    def flush(self) -> bool:
        """Write what has gathered and publish everything, with one store and at most one bell. False: the ring is full,
        and the worker tries again when there is room.
        """
        self.is_dirty = False
        if self.is_over or self.is_finished:
            return True
        try:
            if (self.pump is not None and self.send_direct()) or self.write_gathered():
                self.writer.publish()
                return True
            self.writer.publish()
        except ShmError as error:
            self._worker.link_life.lose_ring(self, f"the ring to the I/O process failed: {error}")
            return True
        self.stall()
        return False

    # A full ring.

    def stall(self) -> None:
        """The ring is full: the worker tries again until it is not."""
        if not self.is_stalled:
            self.is_stalled = True
            self._worker.stalled.append(self)
            if self._worker.loop_driver is not None:
                self._worker.loop_driver.schedule()  # it may sleep already, without having asked for room

    def retry(self) -> int:
        """Write what is still here, and let the first in line try if what was refused last would fit now.

        Returns the count of things that went on; 0 asks for patience, not for another call at once. The lane stays
        stalled as long as somebody in line sleeps: whoever was woken may be unable to run now, and need not wake the
        next.
        """
        try:
            if not self.write_gathered():
                return 0
            self.writer.publish()
            if self._woken < len(self.waiters) and not self.writer.request_space():
                return 0
        except ShmError as error:
            self._worker.link_life.lose_ring(self, f"the ring to the I/O process failed: {error}")
        self._wake_first()
        if self._woken == len(self.waiters):
            self.unstall()
        return 1

    def unstall(self) -> None:
        """Nothing is refused at the moment."""
        if self.is_stalled:
            self.is_stalled = False
            self._worker.stalled.remove(self)

    def request_space(self) -> bool:
        """Ask for a bell when there is room again. True: there already is, do not sleep."""
        try:
            return self.writer.request_space()
        except ShmError:
            return True  # retry finds the same error and deals with it

    def add_waiter(self, wait: Wait) -> None:
        """Stand in line for room; nobody who comes later gets any first."""
        self.waiters.append(wait)
        self.parts_size_max = 0
        if not self.is_over:
            self.stall()
        else:
            wait.wake()

    def remove_waiter(self, wait: Wait) -> None:
        """Leave the line, whether woken or not."""
        if wait in self.waiters:  # but in a fork
            self._woken -= self.waiters.index(wait) < self._woken
            self.waiters.remove(wait)
        if not self.waiters:
            self.parts_size_max = self._parts_limit

    def wake_next(self) -> None:
        """Let the next in line try, if what was refused last would fit: in vain it would lose its place."""
        try:
            if self._woken < len(self.waiters) and self.writer.has_refused_room:
                self._wake_first()
        except ShmError:
            self._wake_first()  # who finds the same error and deals with it

    def _wake_first(self) -> None:
        if self._woken < len(self.waiters):
            self.waiters[self._woken].wake()
            self._woken += 1

    # Receiving.

    def receive_was_interrupted(self) -> None:
        """Between two calls of `receive` an exception (Ctrl-C) left the first: what it had polled is half delivered."""
        self._worker.link_life.lose_ring(self, "an exception interrupted the worker while it received")

    def ring_failed(self, error: ShmError) -> None:
        """The ring from the I/O process cannot be read."""
        self._worker.link_life.lose_ring(self, f"the ring from the I/O process failed: {error}")

    def peer_broke_protocol(self, error: LinkProtocolError) -> None:
        """What arrived is not what the protocol allows: all sessions of this connection fail, and the peer is told."""
        self._worker.link_life.lose_lane(self, str(error), error)

    def take_record(self, kind: int, connection: int, epoch: int, payload: memoryview) -> None:
        """A record that is no data of this connection."""
        if kind == STREAM_END:
            try:
                end = decode_stream_end(payload)
            except ValueError as error:
                cause = f"the I/O process wrote an end of the stream that is none: {error}"
                self._worker.link_life.lose_lane(self, cause)
                return
            if end.clean:
                self._worker.link_life.end_lane(self)
            else:
                self._worker.link_life.lose_lane(self, end.cause)

    def take_carefully(self, data: memoryview) -> int:
        """One frame, or a piece of one, that the compiled core leaves to us. Returns the bytes taken."""
        try:
            frames, count = self.frames.step(data)
            self.deliver_untrusted(frames)
        except LinkProtocolError as error:
            self.peer_broke_protocol(error)
            return len(data)
        fragment = self.frames.lend_fragment()
        if fragment is not None:
            self.fragment_session, self.fragment_missing = fragment
        elif (body := self.frames.lend_body()) is not None:
            self.go_on_with_body(*body)
        self.is_between_frames = self.frames.is_between_frames
        return count

    def take_fragment(self, session: int, piece: memoryview) -> None:
        """Data of a FRAGMENT, whose header the compiled core has read."""
        # Hot: several times for each 256 KiB. What neither ends its message nor may be too much is only put there.
        mailbox = self.mailboxes.get(session)
        if mailbox is not None and mailbox.put_fragment(piece):
            return
        self.deliver_parked([(session, Descriptor.FRAGMENT.value, len(piece), piece)])

    def receive_fragment(self, fd: int) -> tuple[int, int] | None:
        """Receive data of an open FRAGMENT from a socket, for the compiled core, to where its message is put together.

        Returns the bytes and the outcome as `receive_into_ring` does. None: it has to pass the ring.
        """
        mailbox = self.mailboxes.get(self.fragment_session)
        if mailbox is None or (received := mailbox.receive_fragment(fd, self.fragment_missing)) is None:
            return None
        self._note_fragment(mailbox)
        return received

    def take_cut(self, session: int, descriptor: int, length: int, body: Buffer) -> None:
        """A frame that the compiled core put together, for a session that does not live here."""
        self.deliver_parked([(session, descriptor, length, body)])

    def deliver_untrusted(self, frames: list[Frame]) -> None:
        """Hand frames to their sessions, in order, until the lane is over.

        The inbox ends up at most one message above its budget: the session of the message that passes it fails at once.
        """
        # Hot: one dictionary look-up and one append per message; the inbox is counted once per slice, and compared with
        # a sum of our own. Whoever is called below may give back, so `room` may be too small; it is never too large.
        mailboxes = self.mailboxes
        worker = self._worker
        room = worker.inbox_size_max - worker.inbox_size
        size = 0  # in the queues, and not counted by the inbox yet
        special = 0
        done = -1
        was_over = self.is_over  # then these were parked before the peer left, and are still to be had
        frame: Frame | None = None
        try:
            for frame in frames:
                session, descriptor, _, body = frame
                mailbox = mailboxes.get(session)
                if mailbox is None or descriptor > _LAST_VALUE:
                    special += 1
                    worker.inbox_size += size
                    size = 0
                    self._deliver_special_untrusted(frame, mailbox)
                    if self.is_over and not was_over:
                        break
                    room = worker.inbox_size_max - worker.inbox_size
                    continue
                mailbox.queue.append(body if type(body) is bytes and descriptor == _BYTES else frame)
                size += len(body) + MESSAGE_OVERHEAD
                waker = mailbox.waker
                if waker is not None:
                    mailbox.waker = None
                    waker()
                    if self.is_over and not was_over:
                        break
                if size > room:
                    worker.inbox_size += size
                    size = 0
                    if worker.inbox_size > worker.inbox_size_max:
                        worker.overflow(mailbox)
                    room = worker.inbox_size_max - worker.inbox_size
            else:
                done = len(frames)
        finally:
            if done < 0:  # not to the end: what stands in the queues is counted all the same
                done = next((at for at, other in enumerate(frames, 1) if other is frame), 0)
            self.messages_received += done - special
            worker.inbox_size += size

    def _deliver_special_untrusted(self, frame: Frame, mailbox: Mailbox | None) -> None:
        """Whatever is not a whole message for a session that we have."""
        _, descriptor, length, body = frame
        if descriptor == Descriptor.GOODBYE:
            return  # the STREAM_END behind it says the same to us
        if SPEC_OF[descriptor].link_scope:
            raise LinkProtocolError(self.link.name, "frame outside the control connection", f"{descriptor:#04x}")
        if mailbox is None:
            self._deliver_unknown_untrusted(frame)
        elif descriptor == Descriptor.FRAGMENT:
            mailbox.take_fragment_untrusted(body)
            self._note_fragment(mailbox)
        elif descriptor == Descriptor.FRAGMENT_BEGIN:
            mailbox.begin_untrusted(body[0], length)
        elif descriptor == Descriptor.RESET:
            code, reason = decode_reset_untrusted(body, self.link.name)
            mailbox.session.reset_by_peer(mailbox, code, reason)
        elif descriptor == Descriptor.JOB_END:
            mailbox.session.job_ended_by_peer_untrusted(mailbox, *decode_job_end_untrusted(body, self.link.name))
            if self._worker.inbox_size > self._worker.inbox_size_max:
                self._worker.overflow(mailbox)

    def _note_fragment(self, mailbox: Mailbox) -> None:
        """Data of a message in fragments has come, perhaps the last of it."""
        if mailbox.assembly is None:
            self.messages_received += 1
        if self._worker.inbox_size > self._worker.inbox_size_max:
            self._worker.overflow(mailbox)  # it was to lie in memory of the receiver, and does not

    def _deliver_unknown_untrusted(self, frame: Frame) -> None:
        session = frame[0]
        if connection_of_session(session, self.link.connection_count, self.is_bulk) != self.connection:
            raise LinkProtocolError(
                self.link.name, f"session {session} on a connection that is not its own", self.connection
            )
        self._worker.table.take_unknown(self, frame)

    def check_message_size_untrusted(self, size: int) -> None:
        """Refuse a message above the limit of the link before anything is allocated for it."""
        if size > self.message_size_max:
            raise FrameTooLarge(self.link.name, "a message", size, self.message_size_max)

    def is_idle(self) -> bool:
        """The look after the doorbell was armed: nothing to receive. A corrupt ring is something to receive."""
        try:
            return self.reader.is_empty()
        except ShmError:
            return self.is_over

    def note_sleep(self, timed_out: bool) -> None:
        """Count a sleep on this ring, and whether the net had to catch a lost wake-up."""
        try:
            self.reader.count_sleep()
            if timed_out and not self.reader.is_empty():
                self.reader.count_timeout_with_data()
        except ShmError:
            pass  # the next receive deals with it

    def deliver_parked(self, frames: list[Frame]) -> None:
        """Frames of this connection that are split already, such as those that came before their session was made."""
        try:
            self.deliver_untrusted(frames)
        except LinkProtocolError as error:
            self._worker.link_life.lose_lane(self, str(error), error)

    # Ending.

    def end_error(self, session_id: int) -> SessionError:
        """What a session meets behind the orderly end of the peer's stream."""
        return PeerClosed(self.link.name, session_id, self.epoch)

    def abandon(self, cause: str) -> None:
        """Nothing more comes or goes; who waits for room looks and finds its session failed."""
        if not self.is_over and not self.is_finished:
            self.flush()  # our RESETs to a peer that broke the protocol
        self.is_over = True
        self.cause = cause
        self.take_gathered()
        self.unstall()
        for wait in self.waiters:
            wait.wake()

    def try_finish(self, reason: str = "") -> bool:
        """Say goodbye as the last frame and FINISH behind it. Also to a peer that broke the protocol, since the goodbye
        of a link waits for that of each lane. False: no room now, try again."""
        if self.is_finished or (self.is_over and not self.peer_has_erred):
            self.is_finished = True
            return True
        if self.peer_has_erred and self.pump is not None and self.pump.direct_fd < 0:
            return False  # it takes nothing, so a goodbye would stay in the ring, full or not
        try:
            if not self._write_goodbye(encode_goodbye(reason)):
                return False
        except ShmError as error:
            self._worker.link_life.lose_ring(self, f"the ring to the I/O process failed: {error}")
        self.is_finished = True
        return True

    def _write_goodbye(self, goodbye: bytes) -> bool:
        if not self.write_gathered():
            return False
        if not self._has_said_goodbye:
            if not self.writer.try_write((goodbye,), len(goodbye), DATA, self.connection, self.epoch):
                return False
            self._has_said_goodbye = True
        if not self.writer.try_write((b"",), 0, FINISH, self.connection, self.epoch):
            return False
        if self.peer_has_erred:
            self.writer.try_write((b"",), 0, PEER_ERRED, self.connection, self.epoch)  # no room: the link waits longer
        self.writer.publish()
        return True

    def leave_to_parent(self, cause: str) -> None:
        """This process is a fork: nothing may be written to the rings, which the parent goes on using."""
        self.is_over = True
        self.is_finished = True
        self.cause = cause
        self.is_stalled = False
        self.take_gathered()
        self.waiters.clear()
        self._woken = 0

    def close(self) -> None:
        """Give the rings back. Waiting senders find the lane over."""
        self.is_over = True
        self.is_finished = True
        self.pump = None
        self.unstall()
        self.writer.close()
        self.reader.close()
