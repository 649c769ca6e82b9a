"""A byte stream between two processes of one party, by a ring pair: a `transport.Stream` like any other.

Between an I/O process or the node process and the opener. Each direction is a ring of records: SUBSTREAMS with any
slice of the stream, then STREAM_END: clean for a half close, and once more when the stream is closed; not clean for a
break. The one invariant: an end of the stream always finds room in the ring, so nobody has to wait to say it, and a
process that was killed is noticed by whoever made the rings.

A ring that cannot be used (ShmError, records that this protocol does not have, an exception in the midst of a write)
is a broken stream: OSError, for good. Memory: the ring pair; nothing is held beside it.

Who drives it calls `serve` when a bell may have rung, and looks at `is_idle` once its doorbell is armed. `RingDoorbell`
does both in an event loop; a worker does in its passes. Copies: one into the ring, one out of it.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import TYPE_CHECKING, Final

from partywire.shm.errors import ShmError

from .records import STREAM_END, SUBSTREAMS, StreamEnd, decode_stream_end, encode_stream_end
from .transport import VIEWS_MAX, Stream

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from partywire.shm.doorbell import Doorbell
    from partywire.shm.ring import RingReader, RingWriter

    from .transport import Buffer

END_ROOM: Final = 4096
"""Bytes of a ring that are kept for ends of the stream: two of them, with a cause of CAUSE_SIZE_MAX and pads."""

CAUSE_SIZE_MAX: Final = 200
"""Characters of the cause of a break. JSON makes at most six bytes of each."""

WRITE_ROOM: Final = 128
"""Room in a ring that is worth a record."""


class _Interrupted(ValueError):
    """Raised when the call before never ended, so that nobody knows what it did to the rings."""


class RingStream(Stream):
    """One end. Driven by its owner (the contract of Stream) and by whoever looks at bells. Owns both rings."""

    def __init__(
        self,
        reader: RingReader,
        writer: RingWriter,
        epoch: int,
        call_soon: Callable[[Callable[[], object]], object],
        peer_address: str,
    ) -> None:
        """`epoch` stands in each record: of the link, or whatever else is another one for each ring pair.

        `call_soon` calls back behind the present call, before this process sleeps.

        Raises:
            ValueError: the ring is too small to hold anything beside the ends of the stream.
        """
        if writer.record_size_max < END_ROOM + WRITE_ROOM:
            raise ValueError(f"a ring whose records have at most {writer.record_size_max} bytes is too small")
        self.reader: Final = reader
        self._writer = writer
        self._epoch = epoch
        self._call_soon = call_soon
        self._peer_address = peer_address
        self._held: deque[memoryview] = deque()  # received, not released; of the first one what was not read
        self._at_end = False  # the other end has shut down; what is held comes before that
        self._abandoned = False  # the other end is closed, and reads no more
        self._cause = ""  # why the stream is broken
        self._broke_it = False  # whether it was this end that found that out
        self._shut = False
        self._closed = False
        self._readable: Callable[[], object] | None = None
        self._writable: Callable[[], object] | None = None
        self._scheduled = False
        self._in_ring = False  # whether a call is at work on the rings; found set, an exception has ended that one

    @property
    def peer_address(self) -> str:
        return self._peer_address

    # For who drives it.

    def serve(self) -> int:
        """Take note of what the other end did, and have its owner called back. Never waits. Returns how many records
        came."""
        count = self._poll()
        self._schedule()
        return count

    def serve_now(self) -> None:
        """The same, with its owner called back at once: for who is called by nobody but an event loop."""
        self._poll()
        if not self._scheduled and not self._closed:
            self._call_back()

    def is_idle(self) -> bool:
        """The look after the doorbell was armed: whether only the other end can bring something new. A bell comes."""
        if self._closed or self._cause:
            return True
        try:
            if not self.reader.is_empty():
                return False
            return self._writable is None or self._scheduled or not self._asks_for_room()
        except ShmError:
            return False  # the next `serve` meets it

    @property
    def is_ring_broken(self) -> bool:
        """Whether a ring cannot be used any more, as this end found: it is for this end to have it replaced."""
        return self._broke_it

    @property
    def wants_room(self) -> bool:
        """Whether its owner waits for room in the ring: then `serve` may have something to do though nothing came."""
        return self._writable is not None and not self._closed

    # Bytes.

    def try_send(self, views: Sequence[Buffer]) -> int | None:
        self._require_open()
        self.serve()  # what it takes out of the ring here rings no bell any more
        if self._cause or self._abandoned:
            raise self._broken()
        if self._shut:
            raise BrokenPipeError(errno.EPIPE, "the sending half was shut down")
        sent = 0
        try:
            self._enter()
            for view in views[:VIEWS_MAX]:
                data = memoryview(view)
                taken = self._write(data)
                sent += taken
                if taken < len(data):
                    break
            self._writer.publish()
            self._in_ring = False
        except (ShmError, ValueError) as error:
            self._fail(error)
            raise self._broken() from error
        return sent or None

    def _write(self, data: memoryview) -> int:
        """Commit as much of `data` as there is room for. Returns how much that was."""
        writer = self._writer
        taken = 0
        while taken < len(data):
            room = writer.free_size - END_ROOM
            if room < WRITE_ROOM:
                break
            claim = writer.try_claim(min(len(data) - taken, room - WRITE_ROOM // 2))
            if claim is None:
                break
            size = len(claim)
            claim[:] = data[taken : taken + size]
            writer.commit(size, SUBSTREAMS, 0, self._epoch)
            taken += size
        return taken

    def try_recv_into(self, view: memoryview) -> int | None:
        self._require_open()
        if not self._held:
            self.serve()
        held = self._held
        if not held:
            if self._cause:
                raise self._broken()
            return 0 if self._at_end else None
        count = 0
        try:
            self._enter()
            whole = 0
            while held and count < len(view):
                payload = held[0]
                size = min(len(payload), len(view) - count)
                view[count : count + size] = payload[:size]
                count += size
                if size < len(payload):
                    held[0] = payload[size:]
                else:
                    held.popleft()
                    whole += 1
            self._release(whole)
            self._in_ring = False
        except (ShmError, ValueError) as error:
            self._fail(error)
        self._schedule()  # for what was left
        return count

    def _release(self, whole: int) -> None:
        """Give back the room of `whole` records, and of what was read of the next one."""
        reader = self.reader
        if self._held:
            reader.release(whole)
            reader.release_part(len(self._held[0]))
        else:
            reader.release_all()  # an end of the stream that stands behind them, too

    def shutdown_write(self) -> None:
        self._require_open()
        if not self._shut:
            self._shut = True
            self._write_end(StreamEnd(True, ""))

    # Receiving.

    def _poll(self) -> int:
        """Take note of what the other end published, which stays in the ring until it is read. Returns the count."""
        if self._closed or self._cause:
            return 0
        count = 0
        try:
            self._enter()
            while records := self.reader.poll():
                count += len(records)
                for record in records:
                    self._take(record.kind, record.link_epoch, record.payload)
            del records
            if count and not self._held:
                self.reader.release_all()
            self._in_ring = False
        except (ShmError, ValueError) as error:
            self._fail(error)
        return count

    def _take(self, kind: int, epoch: int, payload: memoryview) -> None:
        if epoch != self._epoch:
            raise ValueError(f"a record of epoch {epoch} in a ring of epoch {self._epoch}")
        if kind == SUBSTREAMS and len(payload) and not self._at_end and not self._cause:
            self._held.append(payload)
        elif kind == STREAM_END and not self._abandoned and not self._cause:
            end = decode_stream_end(payload)
            if not end.clean:
                self._cause = end.cause or "connection reset by peer"
            elif self._at_end:
                self._abandoned = True
            self._at_end = True
        else:
            raise ValueError(f"a record of kind {kind} and {len(payload)} bytes where none may be")

    # Readiness.

    def on_readable(self, callback: Callable[[], object] | None) -> None:
        if callback is not None:
            self._require_open()
        self._readable = callback
        self.serve()

    def on_writable(self, callback: Callable[[], object] | None) -> None:
        if callback is not None:
            self._require_open()
        self._writable = callback
        self.serve()

    def _schedule(self) -> None:
        if self._scheduled or self._closed:
            return
        if (self._readable and self._is_readable) or (self._writable and self._is_writable):
            self._scheduled = True
            self._call_soon(self._call_back)

    @property
    def _is_readable(self) -> bool:
        return bool(self._held) or self._at_end or bool(self._cause)

    @property
    def _is_writable(self) -> bool:
        if self._shut or self._abandoned or self._cause:
            return True  # to hear that
        try:
            return self._asks_for_room()
        except ShmError as error:
            self._fail(error)
            return True

    def _asks_for_room(self) -> bool:
        """Whether a record has room. If not, a bell comes once it has."""
        return self._writer.request_space(END_ROOM + WRITE_ROOM)

    def _call_back(self) -> None:
        self._scheduled = False
        if self._readable and self._is_readable:
            self._readable()
        if self._writable and not self._closed and self._is_writable:
            self._writable()
        self._schedule()  # level-triggered: again while it holds

    # Ending.

    def close(self) -> None:
        if self._closed:
            return
        self._poll()
        if self._broke_it:
            self._break("")
        elif self._held:
            self._break("the other end closed the stream before it had read everything")
        elif not self._cause:
            if not self._shut:
                self._write_end(StreamEnd(True, ""))
            self._write_end(StreamEnd(True, ""))
        self._leave()

    def abort(self, cause: str = "") -> None:
        """As Stream.abort; `cause` is what the other end hears."""
        if not self._closed:
            self._break(cause)
            self._leave()

    def _break(self, cause: str) -> None:
        if not self._cause or self._broke_it:
            text = (cause or self._cause)[:CAUSE_SIZE_MAX]
            self._write_end(StreamEnd(False, text.encode(errors="replace").decode()))

    def _write_end(self, end: StreamEnd) -> None:
        payload = encode_stream_end(end)
        try:
            self._enter()
            if not self._writer.try_write((payload,), len(payload), STREAM_END, 0, self._epoch):
                raise ValueError("the room for the end of the stream is taken")
            self._writer.publish()
            self._in_ring = False
        except (ShmError, ValueError) as error:
            self._fail(error)

    def leave_to_parent(self) -> None:
        """This process is a fork of the one that the stream belongs to: be closed, and touch neither ring, since both
        are mapped here too."""
        self._closed = True
        self._readable = self._writable = None

    def _leave(self) -> None:
        self._closed = True
        self._readable = self._writable = None
        self._held.clear()
        self._writer.close()
        self.reader.close()

    def _enter(self) -> None:
        """A call begins to work on the rings."""
        if self._in_ring:
            raise _Interrupted("an exception interrupted this process while it used the ring")
        self._in_ring = True

    def _fail(self, error: ShmError | ValueError) -> None:
        """A ring cannot be used any more, or the other end does what it may not: what has come can still be read."""
        self._in_ring = isinstance(error, _Interrupted)
        if not self._cause:
            self._broke_it = True
            self._cause = f"the ring failed: {error}"
            self._at_end = True

    def _broken(self) -> OSError:
        return ConnectionResetError(errno.ECONNRESET, self._cause or "connection reset by peer")

    def _require_open(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "the stream is closed")


class RingDoorbell:
    """Drives a RingStream in an event loop: a doorbell that only this stream's other end rings."""

    def __init__(self, loop: asyncio.AbstractEventLoop, doorbell: Doorbell, stream: RingStream) -> None:
        """Neither is owned. The doorbell stays open until `close`."""
        self._loop = loop
        self._doorbell = doorbell
        self._stream = stream
        self._is_closed = False
        loop.add_reader(doorbell.fileno(), self._on_bell)
        self._on_bell()

    def _on_bell(self) -> None:
        self._doorbell.disarm()
        self._doorbell.drain()
        self._stream.serve_now()
        self._loop.call_soon(self._arm)  # behind those who were called back, and may be done by then

    def _arm(self) -> None:
        if self._is_closed:
            return
        self._doorbell.arm()
        if not self._stream.is_idle():
            self._on_bell()

    def close(self) -> None:
        """Look no more. May be called again."""
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._doorbell.fileno())
            self._doorbell.disarm()
