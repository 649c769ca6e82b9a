"""The first substream of a divided control connection, in the shape of a stream: what the multiplexer speaks on it is
what it speaks on a bare one.

Between the multiplexer and a LinkConnection. The one invariant: whatever is true of a bare control connection is true
of this stream. It ends when the connection does, and its end in either direction stands behind everything that the
sender's other substreams had to send, so that two sides which have both ends have all of each other (docs/wire.md,
Substreams on the control connection).

The dialler opens it and says at once what it is for. The acceptor has it from the beginning too, but there is no room
in it, and nothing to be read, until the dialler's first substream came.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from ..errors import LinkProtocolError
from ..negotiation import OPTIMISTIC, TERMINATE, Answerer, NegotiationFailed, encode
from ..transport import VIEWS_MAX, Stream
from ..yamux.errors import SubstreamClosed, SubstreamReset, SubstreamSessionOver

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from ..transport import Buffer
    from ..yamux.substream import Substream
    from .connection import LinkConnection

CONTROL_PROTOCOL: Final = "/partywire/control/1"

GRACE_S: Final = 2.0
"""For other substreams to send what was written on them before a goodbye. Longer than what is on its way takes, shorter
than the peer waits for the end (limits.CLOSE_TIMEOUT_S)."""

FINISH_TIMEOUT_S: Final = 2.0
"""For the ends of the stream below, behind those of the substream: nothing is left to be said."""


class ControlSubstream(Stream):
    """See `transport.Stream`. Driven by its owner and by the connection, which wakes it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: LinkConnection,
        *,
        is_client: bool,
        cause: Callable[[], str],
        grace_s: float = GRACE_S,
    ) -> None:
        """Owns the connection. `is_client`: whether we dialled. `cause`: why the link is lost, for an abort."""
        self._loop = loop
        self._connection = connection
        self._cause = cause
        self._grace_s = grace_s
        self._answerer: Answerer | None = None  # until the peer has said what its first substream is for
        self._substream: Substream | None = None
        self._readable: Callable[[], object] | None = None
        self._writable: Callable[[], object] | None = None
        self._is_scheduled = False
        self._is_shut = False  # the owner ended our direction
        self._is_end_said = False  # the peer will hear of it
        self._is_patient = True  # whether our end still waits for what others have to send
        self._patience: asyncio.TimerHandle | None = None
        self._is_closed = False
        connection.closed.add_done_callback(lambda _: self.wake())
        if is_client:
            self._substream = connection.open_bare(self)
            connection.prefer(self._substream)
            self._substream.write(encode(OPTIMISTIC | TERMINATE, CONTROL_PROTOCOL))
        else:
            self._answerer = Answerer(CONTROL_PROTOCOL.__eq__, connection.peer)

    def offer(self, substream: Substream) -> bool:
        """The peer opened a substream. Whether it is taken: the acceptor takes the first one."""
        if self._substream is not None or self._answerer is None:
            return False
        self._substream = substream
        self._connection.prefer(substream)
        self.wake()
        if self._is_shut:
            self._loop.call_soon(self._end_when_sent)
        return True

    @property
    def peer_address(self) -> str:
        return self._connection.peer_address

    # Bytes.

    def try_send(self, views: Sequence[Buffer]) -> int | None:
        self._require_open()
        if self._is_shut:
            raise BrokenPipeError(errno.EPIPE, "the sending half was shut down")
        if self._connection.is_over:
            raise ConnectionResetError(errno.ECONNRESET, self._connection.closed.result())
        if self._substream is None:
            return None
        total = 0
        try:
            for view in views[:VIEWS_MAX]:
                taken = self._substream.write(view)
                total += taken
                if taken < len(view):
                    break
        except (SubstreamReset, SubstreamClosed, SubstreamSessionOver) as error:
            raise ConnectionResetError(errno.ECONNRESET, str(error)) from None
        if not total:
            return None
        self._connection.flush_soon()
        return total

    def try_recv_into(self, view: memoryview) -> int | None:
        """As any stream's.

        Raises:
            LinkProtocolError: the peer used its first substream for something else, or gave it up.
        """
        self._require_open()
        count = self._take(view)
        if count is None and not self._connection.is_over:
            self._connection.receive()  # a loop that is behind has not looked yet, and who asks may judge by the time
            count = self._take(view)
        return count

    def _take(self, view: memoryview) -> int | None:
        substream = self._substream
        try:
            if substream is not None and (self._answerer is None or self._is_agreed_untrusted(substream)):
                if data := substream.read(len(view)):
                    view[: len(data)] = data
                    self._connection.was_read()
                    return len(data)
                if substream.is_at_end:
                    return 0
        except SubstreamReset:
            raise LinkProtocolError(self._connection.peer, "control substream", "it was reset") from None
        except SubstreamSessionOver:
            pass
        return self._count_at_end() if self._connection.is_over else None

    def _is_agreed_untrusted(self, substream: Substream) -> bool:
        """Whether the peer has said that its first substream is for us."""
        assert self._answerer is not None
        try:
            while missing := self._answerer.missing:
                if not (data := substream.read(missing)):
                    if substream.is_at_end:
                        raise LinkProtocolError(self._connection.peer, "control substream", "it ended at its beginning")
                    return False
                self._answerer.receive_untrusted(data)
        except NegotiationFailed:
            what = "purpose of the first substream"
            raise LinkProtocolError(self._connection.peer, what, "another one", CONTROL_PROTOCOL) from None
        substream.write(self._answerer.take_output())  # accepts it, also if that is nothing
        self._connection.flush_soon()
        self._answerer = None
        return True

    def _count_at_end(self) -> int:
        connection = self._connection
        if connection.violation is not None:
            raise connection.violation
        if connection.was_ended_by_peer:
            return 0
        raise ConnectionResetError(errno.ECONNRESET, connection.closed.result() or "the connection is closed")

    # Readiness.

    def on_readable(self, callback: Callable[[], object] | None) -> None:
        if callback is not None:
            self._require_open()
        self._readable = callback
        self.wake()

    def on_writable(self, callback: Callable[[], object] | None) -> None:
        if callback is not None:
            self._require_open()
        self._writable = callback
        self.wake()

    def wake(self) -> None:
        """For the connection: something arrived, or there is room, or never will be any more."""
        if not (self._is_scheduled or self._is_closed) and (self._can_call_reader or self._can_call_writer):
            self._is_scheduled = True
            self._loop.call_soon(self._call_back)

    @property
    def _can_call_reader(self) -> bool:
        if self._readable is None:
            return False
        substream = self._substream
        return self._connection.is_over or (
            substream is not None and bool(substream.received_size or substream.is_at_end or substream.is_reset)
        )

    @property
    def _can_call_writer(self) -> bool:
        if self._writable is None:
            return False
        if self._connection.is_over or self._is_shut:
            return True
        substream = self._substream
        return substream is not None and (substream.is_reset or substream.ask_for_room())

    def _call_back(self) -> None:
        self._is_scheduled = False
        if self._can_call_reader and self._readable is not None:
            self._readable()
        if self._can_call_writer and self._writable is not None:
            self._writable()
        self.wake()  # level-triggered: again while it holds

    # Ending.

    def shutdown_write(self) -> None:
        """As any stream's; the end stands behind what other substreams have to send, as far as the grace allows, and
        no further one is opened or taken from now on."""
        if not self._is_shut:
            self._is_shut = True
            self._connection.leave()
            self._end_when_sent()

    def _end_when_sent(self) -> None:
        """Say our end, now or later; behind it the connection may be finished."""
        connection, substream = self._connection, self._substream
        if substream is None or self._is_end_said or connection.is_over:
            return
        if self._is_patient and connection.is_sending(but=substream):
            if self._patience is None:
                self._patience = self._loop.call_later(self._grace_s, self._lose_patience)
                # Looked at behind whoever the flush woke, and who may have more to write.
                connection.on_flushed = lambda: self._loop.call_soon(self._end_when_sent)
            return
        self._is_end_said = True
        connection.on_flushed = int
        if self._patience is not None:
            self._patience.cancel()
        try:
            substream.close_write()
        except (SubstreamReset, SubstreamSessionOver):
            pass  # the peer has given up before us
        connection.flush_soon()
        if self._is_closed:
            connection.finish(FINISH_TIMEOUT_S)

    def _lose_patience(self) -> None:
        self._is_patient = False
        self._end_when_sent()

    def close(self) -> None:
        """As any stream's. What other substreams had to send before a `shutdown_write` still goes out, within the
        grace; without one nothing of theirs is waited for."""
        if self._is_closed:
            return
        if self._substream is not None and self._substream.received_size:
            self.abort()  # as TCP does: what nobody read is no orderly end
            return
        self._is_closed = True
        self._readable = self._writable = None
        self._is_patient = self._is_patient and self._is_shut
        if self._is_end_said or self._substream is None:
            self._connection.finish(FINISH_TIMEOUT_S)
        else:
            self.shutdown_write()

    @property
    def is_lingering(self) -> bool:
        return self._is_closed and (not self._connection.is_over or self._connection.is_lingering)

    def abort(self) -> None:
        self._is_closed = True
        self._readable = self._writable = None
        if self._patience is not None:
            self._patience.cancel()
        self._connection.abort(self._cause() or "the link is over")

    def _require_open(self) -> None:
        if self._is_closed:
            raise OSError(errno.EBADF, "the stream is closed")
