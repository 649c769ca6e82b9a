"""What a connection's pump does by calls of the compiled core, and what it makes of what these meet.

A part of `connection_pump`, whose plain methods do the same and are what everything unusual is left to. The one
invariant: a call here moves bytes only in the usual state of both halves, and leaves each where the plain form would.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from partywire.shm.compiled import core
from partywire.shm.errors import ShmError

from .pump_states import Incoming, Outgoing
from .secure_stream import SecureStream
from .tcp import TcpStream

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    from partywire.shm.ring import RingReader, RingWriter

    from .pump_states import JoinedLane
    from .transport import Stream


class PumpsInCore:
    """For `ConnectionPump`, whose fields these are."""

    if TYPE_CHECKING:
        incoming: Incoming
        outgoing: Outgoing
        bytes_moved: int
        wants_space: bool
        _owner: Any  # an Owner, which takes a whole pump
        _stream: Stream
        _tx: RingReader
        _rx: RingWriter
        _is_compiled: bool
        _is_blocked: bool
        _finish_seen: bool
        _is_joined: bool
        _has_discarded: bool
        _orphaned: bool
        _unsent: list[memoryview]
        _on_received: Callable[[], object] | None
        _receive_size_min: int

        @property
        def connection(self) -> int: ...

        @property
        def epoch(self) -> int: ...

        @property
        def _receive_size(self) -> int: ...

        @property
        def _receive_batch(self) -> int: ...

        @property
        def _send_size(self) -> int: ...

        def _discard(self) -> None: ...
        def _meet_full_ring(self) -> None: ...
        def _reach_end(self) -> None: ...
        def _fail_send(self, error: OSError) -> None: ...
        def _send(self) -> None: ...
        def _serve_plain(self) -> bool: ...
        def _end_orphan(self) -> None: ...

    # Past the rings, where the lane is in this process.

    @property
    def direct_fd(self) -> int:
        """Where the lane may send what need not wait for anything in the ring; -1 while it may not."""
        if (
            self._is_blocked
            or self._finish_seen
            or self._orphaned
            or self.outgoing is not Outgoing.OPEN
            or not isinstance(self._stream, TcpStream)
        ):
            return -1
        return self._stream.fd

    @property
    def joined_fd(self) -> int:
        """Where bytes come for a lane in this process that takes them at once; -1 if there is none."""
        return self._stream.fd if self._is_joined and isinstance(self._stream, TcpStream) else -1

    # Socket -> ring.

    def _receive_compiled(self, core: ModuleType, stream: TcpStream) -> None:
        if self._has_discarded:
            self._discard()
            return
        count, outcome = core.receive_into_ring(
            self._rx,
            stream.fd,
            self.connection,
            self.epoch,
            self._receive_size,
            self._receive_size_min,
            self._receive_batch,
        )
        self.bytes_moved += count
        if count and self._on_received is not None:
            self._on_received()
        if outcome != core.DRAINED and outcome != core.MORE:  # else the socket is still watched
            self._meet_outcome(core, outcome)

    def _receive_joined(self, core: ModuleType, stream: TcpStream, lane: JoinedLane) -> None:
        """As above, and nobody need look for an answer: the lane's worker does. Written out again because a call, a
        packed argument list or a test for the lane would cost every batch of both."""
        if self._has_discarded:
            self._discard()
            return
        count, outcome = core.receive_joined(
            self._rx,
            stream.fd,
            self.connection,
            self.epoch,
            self._receive_size,
            self._receive_size_min,
            self._receive_batch,
            lane,
        )
        self.bytes_moved += count
        if outcome != core.DRAINED and outcome != core.MORE:
            self._meet_outcome(core, outcome)

    def _meet_outcome(self, core: ModuleType, outcome: int) -> None:
        if outcome == core.FULL:
            self._meet_full_ring()
        elif outcome == core.ENDED:
            self._reach_end()
        else:
            self._owner.pump_failed(self, os.strerror(-outcome).lower())

    # Ring -> socket.

    def _serve_compiled(self, core: ModuleType, stream: TcpStream) -> bool:
        if self.outgoing is not Outgoing.OPEN:
            return self._serve_plain()
        sent = core.send_from_ring(self._tx, stream.fd, self._send_size)
        if type(sent) is int:
            self.bytes_moved += sent
            if not sent and self._orphaned:
                self._end_orphan()
            return sent > 0
        self._meet_rest(sent)
        return not self._is_blocked and not self._finish_seen

    def _meet_rest(self, rest: tuple[int, int, bool, list[memoryview]]) -> None:
        count, error, self._finish_seen, self._unsent = rest
        self.bytes_moved += count
        if error:
            self._fail_send(OSError(error, os.strerror(error)))
        else:
            self._send()

    # Both ways in one call of the compiled core, which moves bytes and leaves everything else to `meet`.

    @property
    def line(self) -> tuple[RingReader, RingWriter, int, int, int, int, int] | None:
        """What `core.pump_while_busy` needs; None unless both halves are open, unblocked and compiled."""
        if (
            not self._is_compiled
            or self._is_blocked
            or self._finish_seen
            or self.wants_space
            or self._has_discarded
            or self._orphaned
            or self.incoming is not Incoming.OPEN
            or self.outgoing is not Outgoing.OPEN
        ):
            return None
        assert isinstance(self._stream, TcpStream)
        fd = self._stream.fd
        return self._tx, self._rx, fd, self.connection, self.epoch, self._receive_size, self._receive_size_min

    @property
    def source(self) -> tuple[RingReader, int] | None:
        """What `core.look_around` needs of a secured connection: the ring, and the descriptor whose bytes `receive`
        takes; None unless both halves are open and unblocked, and everything that was received is opened."""
        stream = self._stream
        if (
            not isinstance(stream, SecureStream)
            or (fd := stream.fd) < 0
            or self._is_blocked
            or self._finish_seen
            or self.wants_space
            or self._has_discarded
            or self._orphaned
            or self.incoming is not Incoming.OPEN
            or self.outgoing is not Outgoing.OPEN
        ):
            return None
        return self._tx, fd

    def meet(self, rest: int | tuple[int, int, bool, list[memoryview]] | Exception) -> None:
        """Deal with what the compiled core met on our line: how a receive ended, what a send left, a broken ring."""
        assert core is not None
        try:
            if isinstance(rest, Exception):
                raise rest
            if isinstance(rest, int):
                self._meet_outcome(core, rest)
            else:
                self._meet_rest(rest)
        except ShmError as error:
            self._owner.ring_broke(self, error)
