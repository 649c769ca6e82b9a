"""The opener's small ring pair with one I/O process, for what the openers of two parties tell each other.

Between `Party` and the control connection of a link. A record is the body of one CONTROL frame. The one invariant:
messages go out in order, and what does not fit the ring now waits here, at most PENDING_MAX messages.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from partywire.engine.records import CONTROL, FINISH, STREAM_END, decode_stream_end
from partywire.shm.errors import ShmError

from .hot import ReceiverHot

if TYPE_CHECKING:
    from partywire.shm.ring import RingReader, RingWriter

    from .peer_link import PeerLink
    from .worker import Worker

PENDING_MAX: Final = 1024
"""Each round of a rendezvous is one message, and no peer may be more than 64 rounds behind."""


class ControlLane(ReceiverHot):
    """Driven by the Party (send, try_finish) and by its worker (the rest). Finished by STREAM_END or `close`."""

    def __init__(self, worker: Worker, link: PeerLink, writer: RingWriter, reader: RingReader) -> None:
        super().__init__(reader)
        self._worker = worker
        self._link = link
        self._writer = writer
        self._pending: deque[tuple[int, bytes]] = deque()
        self._is_finished = False
        self.is_over = False
        # Set while `receive` hands records on, and while `_write` writes one: found set at the beginning, an exception
        # (Ctrl-C) has interrupted the last one.
        self._is_receiving = False
        self._is_writing = False

    def send(self, body: bytes) -> None:
        """Send the body of one CONTROL frame. Never waits. Nothing happens when the link is gone.

        Raises:
            RuntimeError: the peer takes nothing and PENDING_MAX messages wait; the caller's protocol is broken.
        """
        if self.is_over or self._is_finished:
            return
        if len(self._pending) >= PENDING_MAX:
            raise RuntimeError(f"{PENDING_MAX} control messages to {self._link.name} wait already")
        self._pending.append((CONTROL, body))
        self._write()

    def finish(self) -> None:
        """Tell the I/O process that this party closes."""
        if not self._is_finished and not self.is_over:
            self._is_finished = True
            self._pending.append((FINISH, b""))
            self._write()

    @property
    def is_written(self) -> bool:
        """Whether the I/O process has been told everything."""
        return self.is_over or not self._pending

    def _write(self) -> int:
        written = 0
        if self._is_writing and not self.is_over:
            self._lose("an exception interrupted the worker while it wrote")
        try:
            while self._pending:
                kind, body = self._pending[0]
                self._is_writing = True
                is_written = self._writer.try_write((body,), len(body), kind, 0, self._link.epoch)
                if is_written:
                    self._pending.popleft()
                    written += 1
                self._is_writing = False
                if not is_written:
                    break
            self._writer.publish()
            self.is_urgent = self._is_receiving or bool(self._pending)
        except ShmError as error:
            self._lose(f"the control ring failed: {error}")
        return written

    def receive(self) -> int:
        """Hand on what the peer's opener wrote. Returns the count of records."""
        work = self._write() if self._pending else 0
        if self._is_receiving and not self.is_over:
            self._lose("an exception interrupted the worker while it received")
        self._is_receiving = self.is_urgent = True
        try:
            records = self.reader.poll()
        except ShmError as error:
            self._received()
            if not self.is_over:
                self._lose(f"the control ring failed: {error}")
            return work
        if not records:
            self._received()
            return work
        for kind, _, _, _, payload in records:
            if self.is_over:
                break
            if kind == CONTROL and self._worker.on_control is not None:
                self._worker.on_control(self._link, bytes(payload))
            elif kind == STREAM_END:
                self._take_end(payload)
        work += len(records)
        del records, payload
        try:
            self.reader.release_all()
        except ShmError as error:
            if not self.is_over:  # else somebody who was called above has closed the party, and the ring with it
                self._lose(f"the control ring failed: {error}")
        self._received()
        self._worker.notify()
        return work

    def _take_end(self, payload: memoryview) -> None:
        try:
            end = decode_stream_end(payload)
        except ValueError as error:
            self._lose(f"the I/O process wrote an end of the stream that is none: {error}")
            return
        self.is_over = True
        self._worker.link_life.end_control(self._link, end)

    def _received(self) -> None:
        self._is_receiving = False
        self.is_urgent = bool(self._pending)

    def _lose(self, cause: str) -> None:
        self.is_over = True
        self._pending.clear()
        self._worker.link_life.lose_link(self._link, cause)
        self._worker.link_life.ask_for_link(self._link, cause)

    def is_idle(self) -> bool:
        """The look after the doorbell was armed: nothing to receive, and no room for what waits."""
        try:
            if self._pending and not self.is_over and self._writer.request_space():
                return False
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

    def close(self) -> None:
        """Give the rings back."""
        self.is_over = True
        self._writer.close()
        self.reader.close()
