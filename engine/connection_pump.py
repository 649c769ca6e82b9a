"""One normal or bulk connection of a link: moves bytes between its socket and its ring pair, never looking at a frame.

Between the worker that owns the lane and the peer's pump. Driven by socket readiness and by the multiplexer, which
answers the doorbell. The one invariant: the peer's worker gets exactly the bytes of our worker's DATA records, in
order, or is told that the connection broke; what a full ring cannot take stays in the socket, so TCP is the flow
control.

Copies: incoming bytes none in user space (`recv_into` writes into claimed ring space), outgoing none (`sendmsg` reads
from ring memory, whose records are released as the kernel takes them). On a TCP stream and compiled rings the usual
case of each half is one call of the compiled core (`pump_in_core`), which leaves everything else to the methods here.
"""

from __future__ import annotations

import errno
from functools import partial
from typing import TYPE_CHECKING, Final

from partywire.shm.compiled import core
from partywire.shm.errors import ShmError

from . import records
from .pump_in_core import PumpsInCore
from .pump_states import Incoming, Outgoing
from .records import StreamEnd
from .tcp import TcpStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from partywire.shm.record import Record
    from partywire.shm.ring import RingReader, RingWriter

    from .pump_states import JoinedLane, Owner
    from .transport import Stream

RECEIVE_SIZE: Final = 256 * 1024
"""Largest record that one receive fills: one fragment. Larger slices gain nothing, smaller ones cost system calls."""

RECEIVE_SIZE_MIN: Final = 4 * 1024
"""Least room worth a system call; with less the pump waits until the worker has made room."""

RECEIVE_BATCH: Final = 4
"""Receives per readiness, so that one fast connection delays the others of its link by 1 MiB at most."""

RECORDS_MAX: Final = 256
SEND_SIZE: Final = 1024 * 1024
"""What one pass takes from a ring before other connections have their turn."""

BULK_SLICE_SIZE: Final = 256 * 1024
"""What a bulk connection receives, or sends beyond one record, before normal ones are looked at again. With slices of
64 KiB a MiB took a fifth more CPU, and small messages beside a stream were no sooner there."""

_PEER_IS_GONE = frozenset({errno.EPIPE, errno.ECONNRESET})
"""Errors of a send behind which the kernel still holds what the peer had sent before it left."""


class ConnectionPump(PumpsInCore):
    """Both halves of one connection. `serve_ring` and `fill_ring` are called by the multiplexer when the bell rang."""

    def __init__(
        self,
        owner: Owner,
        stream: Stream,
        tx: RingReader,
        rx: RingWriter,
        connection: int,
        epoch: int,
        *,
        slice_size: int = 0,
    ) -> None:
        """`tx`: what the worker sends, read here; `rx`: what it receives, written here. Owns the stream and both.

        `slice_size`: of a bulk connection, whose turns are this short.
        """
        self.connection: Final = connection
        self._receive_size: Final = slice_size or RECEIVE_SIZE
        self._receive_batch: Final = 1 if slice_size else RECEIVE_BATCH
        self._send_size: Final = slice_size or SEND_SIZE
        self.incoming = Incoming.OPEN
        self.outgoing = Outgoing.OPEN
        self.peer_has_erred = False  # broke the protocol, says our worker; known once that has finished
        self.bytes_moved = 0  # both ways; shows progress while the link closes
        self._owner = owner
        self._stream = stream
        self._tx = tx
        self._rx = rx
        self.epoch: Final = epoch
        self._end: StreamEnd | None = None  # what STREAM_END will say
        self.wants_space = False  # whether rx was full and a bell is due
        self._discards = False  # whether a full ring means that incoming bytes are thrown away
        self._has_discarded = False  # then nothing may follow in the ring: there would be a gap
        self._orphaned = False  # whether the worker is dead
        # Records that were polled and not sent whole: their payloads, oldest first.
        self._unsent: list[memoryview] = []
        self._is_blocked = False  # whether the socket's buffer is full
        self._finish_seen = False
        self._send_failure = ""  # why a send failed, while what the peer had sent before is still being received
        self._on_received: Callable[[], object] | None = None  # set by `start`
        self._receive_size_min = min(RECEIVE_SIZE_MIN, rx.record_size_max)
        # Hot: what moves bytes. The compiled core knows sockets and its own rings; other pairs go the plain way.
        self._is_compiled = False
        self._is_joined = False
        self._take: Callable[[], None] = self._receive
        self._serve: Callable[[], bool] = self._serve_plain
        if (
            core is not None
            and isinstance(stream, TcpStream)
            and isinstance(rx, core.WriterCore)
            and isinstance(tx, core.ReaderCore)
        ):
            self._is_compiled = True
            self._take = partial(self._receive_compiled, core, stream)
            self._serve = partial(self._serve_compiled, core, stream)

    def start(self, received: bytes = b"", on_received: Callable[[], object] | None = None) -> None:
        """Begin to receive. `received` came behind the handshake and is the start of the stream; `on_received` is
        called whenever more of it has come and is published."""
        self._on_received = on_received
        if received:
            written = self._rx.try_write([received], len(received), records.DATA, self.connection, self.epoch)
            assert written  # the ring is new and far larger than one read of a handshake
            self._rx.publish()
        self._stream.on_readable(self.receive)

    def join(self, lane: JoinedLane) -> None:
        """`lane` has the other ends of our rings, in this process: what need not stand in a ring passes it by from now
        on. It hands over what `receive` takes before that returns. Nothing happens where bytes are secured, or without
        the compiled core."""
        if self._is_compiled:
            assert core is not None
            assert isinstance(self._stream, TcpStream)
            lane.pump = self
            self._is_joined = True
            self._take = partial(self._receive_joined, core, self._stream, lane)

    # Socket -> ring.

    def receive(self) -> None:
        """Take what the socket has, straight into the ring; one publication and at most one bell for all of it.

        System calls: one per RECEIVE_SIZE bytes, one at end of file, and one for the bell if the worker sleeps. A
        receive that does not fill its claim emptied the socket, so none is spent to hear that there is nothing more.
        """
        try:
            self._take()
        except ShmError as error:
            self._owner.ring_broke(self, error)

    def _receive(self) -> None:
        rx = self._rx
        stream = self._stream
        if self._has_discarded:
            self._discard()
            return
        moved_before = self.bytes_moved
        for _ in range(self._receive_batch):
            claim = rx.try_claim(self._receive_size, self._receive_size_min)
            if claim is None:
                self._meet_full_ring()
                break
            try:
                count = stream.try_recv_into(claim)
            except OSError as error:
                rx.abort()
                rx.publish()
                self._owner.pump_failed(self, _describe(error))
                return
            if not count:
                rx.abort()
                if count == 0:
                    rx.publish()
                    self._reach_end()
                    return
                break
            rx.commit(count, records.DATA, self.connection, self.epoch)
            self.bytes_moved += count
            if count < len(claim):
                break
        rx.publish()
        if self.bytes_moved != moved_before and self._on_received is not None:
            self._on_received()

    def _meet_full_ring(self) -> None:
        if self._discards:
            self._discard()
        elif not self.wants_space:
            self._wait_for_space()

    def _wait_for_space(self) -> None:
        """Stop reading until the worker has made room; the sender's window closes meanwhile."""
        if not self._rx.request_space():
            self.wants_space = True
            self._stream.on_readable(None)
        # else: room appeared meanwhile; the socket is still watched, so this is called again at once.

    def _discard(self) -> None:
        self._has_discarded = True
        scratch = memoryview(bytearray(RECEIVE_SIZE))
        try:
            count = self._stream.try_recv_into(scratch)
        except OSError as error:
            self._owner.pump_failed(self, _describe(error))
            return
        if count == 0:
            self._reach_end()
        elif count:
            self.bytes_moved += count

    def _reach_end(self) -> None:
        self._stream.on_readable(None)
        self.incoming = Incoming.ENDED
        if self._send_failure:
            self._owner.pump_failed(self, self._send_failure)
        else:
            self._owner.pump_ended(self)

    def fill_ring(self) -> None:
        """The bell rang: if the ring was full and has room now, go on where we stopped."""
        if not self.wants_space:
            return
        if self.incoming is Incoming.TELLING:
            self.wants_space = False
            self._tell()
        elif self.incoming is Incoming.OPEN and (self._discards or self._rx.request_space()):
            self.wants_space = False
            self._stream.on_readable(self.receive)
            self.receive()

    def tell(self, end: StreamEnd) -> None:
        """Put STREAM_END behind everything that was received. Only the first call counts."""
        if self.incoming in (Incoming.TELLING, Incoming.TOLD):
            return
        self._stream.on_readable(None)
        self.incoming = Incoming.TELLING
        self._end = StreamEnd(False, "the party is closing") if self._has_discarded else end
        self._tell()

    def _tell(self) -> None:
        assert self._end is not None
        payload = records.encode_stream_end(self._end)
        while not self._orphaned:
            if self._rx.try_write([payload], len(payload), records.STREAM_END, self.connection, self.epoch):
                self._rx.publish()
                break
            if not self._rx.request_space():
                if self._discards:
                    break  # nobody reads any more
                self.wants_space = True
                return
        self.incoming = Incoming.TOLD
        self._owner.pump_told(self)

    def receive_rest(self) -> None:
        """Take what the socket still holds, as far as the ring has room: it was sent before the link broke.

        Into the ring also where a lane is joined, which would make room: a peer may go on sending for ever.
        """
        if self._is_compiled:
            assert core is not None
            assert isinstance(self._stream, TcpStream)
            self._take = partial(self._receive_compiled, core, self._stream)
        while self.incoming is Incoming.OPEN and not self.wants_space:
            before = self.bytes_moved
            self.receive()
            if self.bytes_moved == before:
                return

    def discard_when_full(self) -> None:
        """The party closes: a worker that reads no more must not hold up the conversation of goodbyes."""
        self._discards = True
        self.fill_ring()

    # Ring -> socket.

    @property
    def has_work(self) -> bool:
        """Whether the ring has records that could go out now, or the end of a dead worker's has not been taken note of:
        the look after the doorbell was armed."""
        if self._is_blocked or self._finish_seen:
            return False
        return (self._orphaned and self.outgoing is Outgoing.OPEN) or not self._tx.is_empty()

    def serve_ring(self) -> bool:
        """Send what the worker published, straight from ring memory. True if there may be more than one pass takes.

        System calls: one `sendmsg` per pass for all records that are there, of which one more if the kernel took a
        part; nothing is looked at while the socket's buffer is full.
        """
        if self._is_blocked or self._finish_seen:
            return False
        return self._serve()

    def _serve_plain(self) -> bool:
        polled = self._tx.poll(RECORDS_MAX, self._send_size)
        if not polled:
            if self._orphaned:
                self._end_orphan()
            return False
        for record in polled:
            if record.kind != records.DATA:
                self._finish_seen = True  # FINISH: the worker sends nothing behind it
                self._note_last(polled)
                break
            self._unsent.append(record.payload)
        self._send()
        return not self._is_blocked and not self._finish_seen

    def _send(self) -> None:
        """Send from the front of what is unsent, releasing records as the kernel has taken them."""
        unsent = self._unsent
        tx = self._tx
        while unsent and self.outgoing is Outgoing.OPEN:
            try:
                count = self._stream.try_send(unsent)
            except OSError as error:
                self._fail_send(error)
                return
            if count is None:
                self._block()
                return
            self.bytes_moved += count
            whole = 0
            while whole < len(unsent) and count >= len(unsent[whole]):
                count -= len(unsent[whole])
                whole += 1
            tx.release(whole)
            del unsent[:whole]
            if count:
                unsent[0] = unsent[0][count:]
                tx.release_part(len(unsent[0]))
        if unsent:  # the socket is broken: nobody will get these
            tx.release(len(unsent))
            unsent.clear()
        self._unblock()
        if self._finish_seen:
            self._finish()

    def _fail_send(self, error: OSError) -> None:
        """Send nothing more; but a peer that is gone may have left bytes that are received before that is told."""
        if self.incoming is Incoming.OPEN and error.errno in _PEER_IS_GONE:
            self._send_failure = _describe(error)
            self.break_outgoing()
        else:
            self.break_outgoing()
            self._owner.pump_failed(self, _describe(error))

    def _block(self) -> None:
        if not self._is_blocked:
            self._is_blocked = True
            self._stream.on_writable(self._send_more)

    def _unblock(self) -> None:
        if self._is_blocked:
            self._is_blocked = False
            self._stream.on_writable(None)

    def _send_more(self) -> None:
        """The socket has room again."""
        try:
            self._send()
            # What the worker published while this ring was not looked at may have rung a bell that was answered
            # already. One turn's worth is taken now; a worker that never pauses must not keep others waiting.
            if self.serve_ring():
                self._owner.pump_has_more(self)
        except ShmError as error:
            self._owner.ring_broke(self, error)

    def _finish(self) -> None:
        if self.outgoing is Outgoing.OPEN:
            self.outgoing = Outgoing.FINISHED
        self._note_last(self._tx.poll(1, 1))
        self._tx.release_all()
        self._owner.pump_finished(self)

    def _note_last(self, polled: Iterable[Record]) -> None:
        """See whether the peer broke the protocol, which the worker says behind FINISH."""
        if any(record.kind == records.PEER_ERRED for record in polled):
            self.peer_has_erred = True

    def break_outgoing(self) -> None:
        """Send nothing more; throw away what the worker still writes, so that it never waits for room."""
        if self.outgoing is Outgoing.OPEN:
            self.outgoing = Outgoing.BROKEN
            self._unblock()
            self._send()

    # Ending.

    @property
    def is_finished(self) -> bool:
        """Whether the worker will send nothing more, or has nowhere to send it."""
        return self.outgoing is not Outgoing.OPEN

    def orphan(self) -> None:
        """The worker died: send what it had published, then break the stream, unless it had finished it."""
        self._orphaned = True
        while self.serve_ring():
            pass
        if self.wants_space:
            self._discards = True
            self.fill_ring()

    @property
    def is_orphaned(self) -> bool:
        """Whether its worker died for good."""
        return self._orphaned

    def _end_orphan(self) -> None:
        if self.outgoing is Outgoing.OPEN:
            self.outgoing = Outgoing.BROKEN
            self._owner.pump_failed(self, "the worker of this connection died")

    def shutdown_write(self) -> None:
        """Our goodbye is on its way: the peer reads end of file behind everything we sent."""
        self._stream.shutdown_write()

    def abort(self) -> None:
        """Break the stream: the peer must not take this for an orderly end."""
        self.break_outgoing()
        self._stream.abort()

    def give_up(self) -> None:
        """A ring cannot be used any more: the worker will hear of the end from its own error."""
        self.incoming = Incoming.TOLD
        self.outgoing = Outgoing.BROKEN
        self._finish_seen = True
        self._unsent.clear()
        self._stream.abort()

    @property
    def is_lingering(self) -> bool:
        """Whether the stream is closed and still has to tell the peer of it."""
        return self._stream.is_lingering

    def close_stream(self) -> None:
        """Close the socket; both directions ended in an orderly way."""
        self._unblock()
        self._stream.close()

    def close(self) -> None:
        """Give everything back. What is in the rings stays readable for the worker."""
        self._unsent.clear()
        self._stream.close()
        self._tx.close()
        self._rx.close()


def _describe(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
