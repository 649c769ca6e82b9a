"""A worker's end of a connection to a peer that speaks the protocol of iris-mpc's TCP stack.

Between the sessions of a worker and the I/O process of such a link. What differs from other lanes
(docs/iris-compat.md):

- A message is one frame, however large: a frame is copied once more, waits here, and goes into the ring in slices.
- Only what that protocol has words for can be sent; numpy arrays of ring elements become ring vectors.
- Nothing can be told to the peer but messages: not the end of a session, nor that of a job, nor of the party.
- A message may come on any connection of the link, and before its session was made here: then it is kept.
- One connection that ends or fails takes the whole link with it.

The one invariant: a frame that has begun is finished, whatever becomes of its session, or the link is lost.

Other lanes pay nothing for it: this is a class of its own, and the size limits of the calls' quick ways are below zero
here, so that every `send` comes to `chunks`.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import numpy as np

from partywire.engine.errors import LinkProtocolError
from partywire.engine.frames import Descriptor, frame_header
from partywire.engine.iris_frame_buffer import OURS_FROM, IrisFrameBuffer
from partywire.engine.records import DATA, FINISH, STREAM_END, decode_stream_end
from partywire.shm.errors import ShmError

from .errors import PeerLost, UnsupportedByPeer
from .hot_pure import FRAGMENT_SIZE_MIN, WriteInterrupted
from .lane import Lane
from .mailbox import MESSAGE_OVERHEAD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire.engine.frames import Buffer, Frame
    from partywire.shm.ring import RingReader, RingWriter

    from .errors import SessionError
    from .peer_link import PeerLink
    from .worker import Worker

_SCALARS: Final = {b"<u2": Descriptor.RING_16, b"<u4": Descriptor.RING_32, b"<u8": Descriptor.RING_64}
_VECTORS: Final = {b"<u2": Descriptor.VEC_RING_16, b"<u4": Descriptor.VEC_RING_32, b"<u8": Descriptor.VEC_RING_64}
_BOOL: Final = b"|b1"

_ADVICE: Final = "send bytes, a ring element or vector, or an array of one dimension of uint16, uint32, uint64 or bool"


class IrisLane(Lane):
    """Driven like a Lane."""

    carries_job_ends = False
    carries_objects = False

    def __init__(
        self,
        worker: Worker,
        link: PeerLink,
        connection: int,
        writer: RingWriter,
        reader: RingReader,
        message_size_max: int,
    ) -> None:
        super().__init__(worker, link, connection, writer, reader, message_size_max)
        # Below every size: the quick ways of `send` are for frames of our own protocol.
        self.small_size_max = self.whole_size_max = -1
        # The compiled core then hands all that comes to `take_carefully`.
        self.is_between_frames = False
        self.frames = self._iris_frames = IrisFrameBuffer(message_size_max, link.name, self._room)
        # The size of a message of which a part is missing, as it is counted in the worker's inbox.
        self._open_size = 0
        # Frames that wait for the end of the pass, and what is left of those that are being written.
        self._waiting: list[Buffer] = []
        self._unwritten = memoryview(b"")
        self._is_slicing = False

    # Sending.

    def post(self, frame: bytes) -> None:
        """Resets cannot be told: the peer's own time-out, or the end of the link, ends its part of the session."""

    def chunks(self, session: int, descriptor: int, length: int, head: bytes, body: Buffer) -> Iterator[bool]:
        """Append the one frame of a message. Yields False while there is no room."""
        descriptor, length, body = self._as_iris(descriptor, length, head, body)
        header = frame_header(session, descriptor, length)
        return self._append(header, body)

    def _append(self, header: bytes, body: Buffer) -> Iterator[bool]:
        while self.parts_size >= self._parts_limit and not self.flush():
            yield False
        kept = body if isinstance(body, bytes) else bytes(body)
        self.parts_size += len(header) + len(kept)
        if not self.is_dirty:
            self.mark_dirty()
        self._waiting += (header, kept)

    def _as_iris(self, descriptor: int, length: int, head: bytes, body: Buffer) -> tuple[int, int, Buffer]:
        """Descriptor, length field and body as that protocol has them.

        Raises:
            UnsupportedByPeer: it has nothing for such a value.
        """
        if descriptor < OURS_FROM:
            return descriptor, length, body
        dimensions, text_size = head[0], int.from_bytes(head[1:3], "little")
        text = head[3 : 3 + text_size].rstrip()
        if dimensions == 0 and text in _SCALARS:
            return _SCALARS[text].value, len(body), body
        if dimensions == 0 and text == _BOOL:
            return (Descriptor.BIT_1 if body[0] else Descriptor.BIT_0).value, 0, b""
        if dimensions == 1 and text in _VECTORS:
            return _VECTORS[text].value, len(body), body
        if dimensions == 1 and text == _BOOL:
            bits = np.frombuffer(body, np.uint8)
            return Descriptor.VEC_RING_BIT.value, len(bits), np.packbits(bits, bitorder="little").tobytes()
        shape = struct.unpack_from(f"<{dimensions}Q", head, 3 + text_size)
        kind = text.decode("ascii") if len(text) <= 8 else "fields"
        raise UnsupportedByPeer(self.link.name, f"sending an array of {kind}{list(shape)}", _ADVICE)

    def write_gathered(self) -> bool:
        """Write what waits, in slices of any size, and publish it. False when there is no room for the next one.

        Raises:
            ShmError: the ring failed, or an exception left an earlier call, so that nobody knows what it wrote.
        """
        if self._is_slicing:
            raise WriteInterrupted
        while self._unwritten or self._waiting:
            if not self._write_slice():
                self.writer.publish()
                return False
        self.writer.publish()
        self.parts_size = 0
        return True

    def _write_slice(self) -> bool:
        """Commit as much as there is room for; False when that is too little."""
        self._is_slicing = True  # found set, an exception (Ctrl-C) has left this
        if not self._unwritten:
            self._unwritten = memoryview(b"".join(self._waiting))
            self._waiting.clear()
        left = self._unwritten
        size = min(len(left), self.writer.record_size_max)
        claim = self.writer.try_claim(size, min(size, FRAGMENT_SIZE_MIN))
        if claim is not None:
            try:
                size = len(claim)
                claim[:] = left[:size]
                claim.release()
                self.writer.commit(size, DATA, self.connection, self.epoch)
            except BaseException:
                # An open claim would refuse the end that tells the I/O process.
                claim.release()
                if self.writer.is_claimed:
                    self.writer.abort()
                raise
            self._unwritten = left[size:]
            self.bytes_sent += size
        self._is_slicing = False
        return claim is not None

    def take_gathered(self) -> bytes:
        """Forget what waits: nobody will get it."""
        self._waiting.clear()
        self._unwritten = memoryview(b"")
        self.parts_size = 0
        return b""

    # Receiving.

    def _room(self) -> int:
        return self._worker.inbox_size_max - self._worker.inbox_size + self._open_size

    def _count_open(self, size: int) -> None:
        """A message counts as inbox from its header on."""
        self._worker.inbox_size += size - self._open_size
        self._open_size = size

    def _receive_data_untrusted(self, payload: memoryview) -> None:
        self.take_carefully(payload)
        self.bytes_received += len(payload)

    def take_carefully(self, data: memoryview) -> int:
        """A slice of the stream: what stands before a bad frame is delivered before that ends the lane."""
        frames: list[Frame] = []
        bad: LinkProtocolError | None = None
        try:
            self.frames.split(data, frames)
        except LinkProtocolError as error:
            bad = error
        self._count_open(self._iris_frames.open_size)
        try:
            self.deliver_untrusted(frames)
        except LinkProtocolError as error:
            bad = error
        if bad is not None:
            self.peer_broke_protocol(bad)
        return len(data)

    def _deliver_unknown_untrusted(self, frame: Frame) -> None:
        """A message whose session uses another connection in our direction, or is not made yet."""
        session, descriptor, length, body = frame
        for lane in self.link.lanes.values():
            if session in lane.mailboxes:
                lane.deliver_parked([frame])
                return
        worker = self._worker
        if worker.table.is_past(session):
            worker.counters.dropped_stale += 1
            return
        cost = len(body) + MESSAGE_OVERHEAD
        if worker.inbox_size + cost > worker.inbox_size_max:
            what = "messages of sessions that were not made here, which limits.inbox_mib does not hold, bytes"
            raise LinkProtocolError(self.link.name, what, worker.inbox_size + cost, worker.inbox_size_max)
        worker.counters.parked += 1
        worker.inbox_size += cost
        self.link.parked.setdefault(session, []).append((session, descriptor, length, body))

    def take_record(self, kind: int, connection: int, epoch: int, payload: memoryview) -> None:
        """The end of the stream is orderly behind a whole frame only."""
        if kind == STREAM_END and not self.frames.is_between_frames:
            try:
                is_clean = decode_stream_end(payload).clean
            except ValueError:
                is_clean = False  # the Lane says what is wrong
            if is_clean:
                cause = f"{self.link.name} closed connection {self.connection} inside a message"
                self._worker.link_life.lose_lane(self, cause)
                return
        super().take_record(kind, connection, epoch, payload)

    # Ending.

    def end_error(self, session_id: int) -> SessionError:
        """The peer closed its connections, which may be its end or its death."""
        cause = "it closed its connections, and its protocol has no goodbye"
        return PeerLost(self.link.name, session_id, self.epoch, cause)

    def abandon(self, cause: str) -> None:
        """Nothing more comes or goes; with a cause, on no connection of the link."""
        was_finished = self.is_finished
        self._count_open(0)
        super().abandon(cause)
        if not cause:
            return
        if not was_finished:
            self._finish_ring()
        link = self.link
        self._worker.table.forget_parked(link)
        if all(lane.is_finished or lane.is_over for lane in link.lanes.values()) and link.control is not None:
            link.control.finish()
        self._worker.link_life.lose_link(link, cause)

    def _finish_ring(self) -> None:
        """Have the I/O process end our half of the stream, so that the peer hears of it; if the ring has no room, it
        ends with the party."""
        self.is_finished = True
        try:
            self.writer.try_write((b"",), 0, FINISH, self.connection, self.epoch)
            self.writer.publish()
        except ShmError:
            pass  # the lane is over already

    def _write_goodbye(self, goodbye: bytes) -> bool:
        """There is none: the end of the stream stands for it."""
        if not self.write_gathered():
            return False
        if not self.writer.try_write((b"",), 0, FINISH, self.connection, self.epoch):
            return False
        self.writer.publish()
        return True
