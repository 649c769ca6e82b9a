"""One substream: an ordered byte stream each way over a yamux session, ended one way at a time or reset both ways.

Between its user (write, read, close_write, reset) and its session, which moves frames. The invariant of the receiving
half: what the peer may still send (with the rest of a frame on its way), what waits to be read, and what was read and
not credited, are together the window. So a substream that nobody reads costs its window and stalls nobody else. (Of a
slice that was read in part all is kept until the rest was read: one slice more.)
Nothing here blocks or does I/O.

Copies: one of what is written, if it is small or may change later (anything but bytes); one out of the received slice,
and one more for slices that are small or are read together with others.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from .errors import SubstreamClosed, SubstreamReset, SubstreamSessionOver
from .frames import WINDOW_SIZE

if TYPE_CHECKING:
    from .session import YamuxSession

Buffer = bytes | bytearray | memoryview

SLICE_SIZE_MIN: Final = 512
"""Smaller slices are joined as they come and as they are written: else who sends byte by byte would cost fifty times
the window, and a frame of small messages many times what it costs to copy them."""

SLICE_JOINED_MAX: Final = 16 * 1024


class Substream:
    """Made by `YamuxSession.open` and by the peer. Attributes without an underscore are for reading only."""

    def __init__(self, session: YamuxSession, substream_id: int, is_ours: bool, now: float) -> None:
        self._session = session
        self.id = substream_id
        self.peer = ""  # whose the far end is, where that is not who the session is with
        self.is_ours = is_ours
        self.is_answered = False  # ours: the peer has acknowledged it; the peer's: we have accepted it
        self.is_reset = False
        # Sending half, moved on by the session.
        self.send_queue: deque[Buffer] = deque()
        self.send_size = 0
        self.send_window = WINDOW_SIZE
        self.owes_syn = is_ours
        self.owes_ack = False
        self.owes_fin = False
        self.fin_sent = False
        self.is_write_refused = False
        # Receiving half.
        self.received: deque[bytes | bytearray] = deque()
        self.received_size = 0
        self.read_offset = 0  # where the first slice was read up to: cutting it would copy the rest for each read
        self.receive_window = WINDOW_SIZE  # what the peer may still send
        self.window_size = WINDOW_SIZE
        self.uncredited = 0  # read since the peer heard of it last
        self.owed_credit = 0
        self.credited_at = now
        self.is_ended_by_peer = False
        self.is_in_turn = False  # in the session's line of those with something to send
        self._reset_by_us = False
        self._reset_cause = ""

    def __repr__(self) -> str:
        return f"<Substream {self.id} with {self._far_end or 'the peer'}>"

    # For the user.

    def accept(self, *, is_unhurried: bool = False) -> None:
        """Tell the peer that its substream is welcome, as writing to it does too. A second call does nothing.

        `is_unhurried`: with what is sent next, or a moment later (outgoing.UNHURRIED_S).
        """
        if not self.is_answered and not self.is_ours:
            self._session.accepted(self, is_unhurried)

    def write(self, data: Buffer) -> int:
        """Take what there is room for, from the front of `data`. The caller may change it afterwards.

        Returns:
            How many bytes were taken; with fewer than were given, `Writable` tells when there is room again.

        Raises:
            SubstreamClosed: behind `close_write`.
            SubstreamReset: one of the sides gave the substream up.
            SubstreamSessionOver: the connection is gone.
        """
        self._check_alive()
        if self.owes_fin or self.fin_sent:
            raise SubstreamClosed(self._far_end, self.id)
        self.accept()
        size = len(data)
        room = self._session.limits.send_size_max - self.send_size
        if size > room:
            self.is_write_refused = True
            data = memoryview(data)[: max(room, 0)]
            size = len(data)
        if size:
            self._queue(data, size)
            self.send_size += size
            if not self.is_in_turn:
                self._session.has_output(self)
        return size

    def ask_for_room(self) -> bool:
        """Whether `write` would take anything; if not, `Writable` tells when it would."""
        self.is_write_refused = self.is_write_refused or self.send_size >= self._session.limits.send_size_max
        return self.send_size < self._session.limits.send_size_max

    def close_write(self, *, is_unhurried: bool = False) -> None:
        """End our side behind everything that was written. Reading goes on. A second call does nothing.

        `is_unhurried`: with what is sent next, or a moment later (outgoing.UNHURRIED_S).
        """
        self._check_alive()
        if not self.fin_sent and not self.owes_fin:
            self.accept(is_unhurried=is_unhurried)
            self.owes_fin = True
            (self._session.has_unhurried_output if is_unhurried else self._session.has_output)(self)

    def read(self, size_max: int) -> bytes:
        """What has arrived, at most `size_max` bytes. Empty: nothing now, or for ever if `is_at_end`.

        Raises:
            SubstreamReset: one of the sides gave the substream up; what was unread is dropped.
            SubstreamSessionOver: the connection is gone, and everything that had arrived was read.
        """
        if self.is_reset:
            raise self._reset_error()
        received = self.received
        if not received:
            if self._session.cause and not self.is_ended_by_peer:
                raise SubstreamSessionOver(self._far_end, self._session.cause)
            return b""
        data = self._take(size_max)
        self.received_size -= len(data)
        self._session.was_read(self, len(data))
        return data

    def reset(self, cause: str = "") -> None:
        """Give the substream up in both directions; the peer's reads and writes fail. A second call does nothing."""
        if not self.is_reset:
            self._session.reset(self, cause)

    def abandon(self) -> None:
        """Nobody is interested any more: an orderly end if the peer has ended its side already, else a reset."""
        if self.is_reset or self._session.cause:
            return
        if self.is_ended_by_peer:
            self.close_write()
            while self.received:
                self.read(self.received_size)
        else:
            self.reset("nobody reads it")

    @property
    def readable(self) -> int:
        """Bytes that have arrived and were not read."""
        return self.received_size

    @property
    def is_at_end(self) -> bool:
        """Whether the peer has ended its side and everything before was read."""
        return self.is_ended_by_peer and not self.received

    @property
    def is_ended_by_us(self) -> bool:
        """Whether nothing more can be written."""
        return self.owes_fin or self.fin_sent or self.is_reset

    @property
    def is_open(self) -> bool:
        """Whether anything can still be written or come."""
        return not (self.is_reset or (self.fin_sent and self.is_ended_by_peer) or self._session.cause)

    @property
    def failure(self) -> SubstreamReset | SubstreamSessionOver | None:
        """What a write raises; None while it would not for this reason."""
        return self._failure() if self.is_reset or self._session.cause else None

    def explain(self, cause: str) -> None:
        """What a reset by the peer, of which yamux cannot say the cause, is to be put down to."""
        if not self._reset_by_us:
            self._reset_cause = self._reset_cause or cause

    @property
    def _far_end(self) -> str:
        return self.peer or self._session.peer

    # For the session.

    def set_reset(self, by_us: bool, cause: str) -> None:
        """The substream is over; nothing of it is kept."""
        self.is_reset = True
        self._reset_by_us = by_us
        self._reset_cause = cause or self._reset_cause
        self.drop_unsent()
        self.received.clear()
        self.received_size = 0
        self.read_offset = 0

    def drop_unsent(self) -> None:
        """Nothing more goes out."""
        self.send_queue.clear()
        self.send_size = 0
        self.owes_syn = self.owes_ack = self.owes_fin = False
        self.owed_credit = 0

    @property
    def sendable(self) -> int:
        """Bytes of the queue that the peer's window allows."""
        return min(self.send_size, self.send_window)

    def take_unsent(self, size: int) -> list[Buffer]:
        """The next `size` bytes of the queue, which has as many."""
        queue = self.send_queue
        self.send_size -= size
        self.send_window -= size
        taken: list[Buffer] = []
        while size:
            piece = queue[0]
            if len(piece) <= size:
                taken.append(queue.popleft())
                size -= len(piece)
            else:
                view = memoryview(piece)
                taken.append(view[:size])
                queue[0] = view[size:]
                size = 0
        return taken

    def _queue(self, data: Buffer, size: int) -> None:
        queue = self.send_queue
        if size < SLICE_SIZE_MIN:
            if queue and type(last := queue[-1]) is bytearray and len(last) < SLICE_JOINED_MAX:
                last += data
            else:
                queue.append(bytearray(data))
        elif type(data) is bytes or (type(data) is memoryview and type(data.obj) is bytes):
            queue.append(data)
        else:
            queue.append(bytes(data))

    def put(self, piece: memoryview) -> None:
        """Bytes arrived, within the window."""
        received = self.received
        if len(piece) >= SLICE_SIZE_MIN:
            received.append(bytes(piece))
        elif received and type(last := received[-1]) is bytearray and len(last) < SLICE_JOINED_MAX:
            last += piece
        else:
            received.append(bytearray(piece))
        self.received_size += len(piece)

    def _take(self, size_max: int) -> bytes:
        received = self.received
        start = self.read_offset
        end = start + size_max
        if end < len(received[0]):
            self.read_offset = end
            return bytes(received[0][start:end])
        pieces: list[bytes | bytearray] = []
        while received and size_max > 0:
            piece = received[0]
            if start + size_max < len(piece):
                self.read_offset = start + size_max
                pieces.append(piece[start : self.read_offset])
                break
            received.popleft()
            self.read_offset = 0
            if start:
                piece = piece[start:]
                start = 0
            pieces.append(piece)
            size_max -= len(piece)
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)

    def _check_alive(self) -> None:
        if self.is_reset or self._session.cause:
            raise self._failure()

    def _failure(self) -> SubstreamReset | SubstreamSessionOver:
        return self._reset_error() if self.is_reset else SubstreamSessionOver(self._far_end, self._session.cause)

    def _reset_error(self) -> SubstreamReset:
        return SubstreamReset(self._far_end, self.id, self._reset_by_us, self._reset_cause)
