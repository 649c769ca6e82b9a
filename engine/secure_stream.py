"""A stream behind a secure channel: what is above it sends and receives as on any other, and nothing travels unsealed.

Between a pump, a greeting or the multiplexer, and the stream of one connection. The one invariant: ciphertext reaches
the stream below whole and in the order in which it was sealed, so a batch that the kernel did not take whole is
finished before anything else is sealed.

Each batch costs one sealing of all that is there (up to SEAL_SIZE) and one `send`, or one `recv_into` and the opening
of what came. Memory of a stream: RECEIVE_SIZE, a batch of ciphertext while the kernel does not take it, and what its
channel holds.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from partywire.shm.blank_pages import blank_pages

from . import limits
from .channel.channel import END_OF_FILE
from .errors import HandshakeRejected, LinkProtocolError
from .tcp import TcpStream
from .transport import VIEWS_MAX, Stream

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from .channel.channel import Channel
    from .transport import Buffer

SEAL_SIZE: Final = 256 * 1024
"""Plaintext sealed at once: one fragment. More would only delay its first byte and cost memory."""

RECEIVE_SIZE: Final = 256 * 1024
"""Ciphertext received at once."""


class SecureStream(Stream):
    """One end of a connection whose channel is made.

    As any stream, but: a `try_send` that finds no room may have sealed the front of what it was given, so the next one
    must be given the same bytes again, and tells when all of them are with the kernel.
    """

    def __init__(self, stream: Stream, channel: Channel, loop: asyncio.AbstractEventLoop) -> None:
        """Owns `stream`, on which the handshake of `channel` is done."""
        self._stream = stream
        self._channel = channel
        self._loop = loop
        self._received = blank_pages(RECEIVE_SIZE)  # what the channel opens, until it `has_more` no more
        self._unsent: memoryview = memoryview(b"")  # ciphertext that the kernel has not taken
        self._taken = 0  # bytes of plaintext in it
        self._is_shut = False  # whether our end was sealed
        self._reader: Callable[[], object] | None = None
        self._will_read = False  # whether the reader is called in the loop's next turn
        self._error: tuple[int, str] | None = None  # why nothing can be received any more, as an OSError has it
        self._closing: asyncio.TimerHandle | None = None  # set by a close that left our end unsent

    @property
    def peer_address(self) -> str:
        return self._stream.peer_address

    @property
    def fd(self) -> int:
        """The descriptor that has something whenever `try_recv_into` would not return None; -1 if there is none, or it
        is not all that there is."""
        stream = self._stream
        return stream.fd if isinstance(stream, TcpStream) and not self._channel.has_more else -1

    # Sending.

    def try_send(self, views: Sequence[Buffer]) -> int | None:
        if self._is_shut:
            raise OSError(errno.EPIPE, "the sending half was shut down")
        if not self._unsent:
            if len(views) > VIEWS_MAX:
                views = views[:VIEWS_MAX]
            sealed, self._taken = self._channel.seal(views, SEAL_SIZE)
            count = self._stream.try_send((sealed,))
            if count == len(sealed):
                return self._taken
            self._unsent = memoryview(sealed)[count or 0 :]
        return self._taken if self._flush() else None

    def _flush(self) -> bool:
        """Send what is sealed; whether the kernel has all of it."""
        while self._unsent:
            count = self._stream.try_send((self._unsent,))
            if count is None:
                return False
            self._unsent = self._unsent[count:]
        return True

    def shutdown_write(self) -> None:
        """As any stream's; the end is sealed behind what was sent, so that the other one can tell it from a cut."""
        if self._is_shut:
            return
        self._is_shut = True
        self._unsent = memoryview(bytes(self._unsent) + self._channel.seal_end())
        self._finish()

    def _finish(self) -> None:
        """Send the rest, the end included, as soon as there is room."""
        try:
            if not self._flush():
                self._stream.on_writable(self._finish)
                return
            self._stream.on_writable(None)
        except OSError:
            self._unsent = memoryview(b"")  # broken; the next receive says so
        self._stream.shutdown_write()
        if self._closing is not None:
            self._stop_lingering()

    # Receiving.

    def try_recv_into(self, view: memoryview) -> int | None:
        if self._error is not None:
            raise OSError(*self._error)
        channel = self._channel
        try:
            if not channel.has_more:
                count = self._stream.try_recv_into(self._received)
                if count is None:
                    return None
                if count == 0:
                    channel.receive_end_of_file()
                    return 0
                channel.feed(self._received[:count])
            opened = channel.open_into(view)
        except LinkProtocolError as error:
            cause = error.what if error.seen == END_OF_FILE else f"{error.what}: {error.seen}"
            self._error = errno.EPROTO, cause
            raise OSError(*self._error) from error
        except HandshakeRejected as error:
            self._error = errno.EACCES, error.detail
            raise
        if channel.has_more:
            self._read_soon()
        return opened

    def on_readable(self, callback: Callable[[], object] | None) -> None:
        self._reader = callback
        self._stream.on_readable(callback)
        if callback is not None and self._channel.has_more:
            self._read_soon()

    def _read_soon(self) -> None:
        """What was received and not opened shows on no socket."""
        if self._reader is not None and not self._will_read:
            self._will_read = True
            self._loop.call_soon(self._read_more)

    def _read_more(self) -> None:
        self._will_read = False
        reader = self._reader
        if reader is not None and self._channel.has_more:
            self._read_soon()  # also if it takes nothing now: who had no room is not told again by the socket
            reader()

    # Readiness and ending.

    def on_writable(self, callback: Callable[[], object] | None) -> None:
        if not self._is_shut:  # else the stream below is writable for its last bytes only
            self._stream.on_writable(callback)

    def close(self) -> None:
        """As any stream's; if there was no room for our end yet, it is still sent within CLOSE_TIMEOUT_S."""
        self._stop_receiving()
        if not (self._is_shut and self._unsent):
            self._stream.close()
        elif self._closing is None:
            self._stream.on_readable(None)
            self._closing = self._loop.call_later(limits.CLOSE_TIMEOUT_S, self._stop_lingering)

    @property
    def is_lingering(self) -> bool:
        return self._closing is not None

    def _stop_lingering(self) -> None:
        """Our end is sent, or nobody wants it."""
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        self._unsent = memoryview(b"")
        self._stream.close()

    def abort(self) -> None:
        self._stop_receiving()
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
        self._unsent = memoryview(b"")
        self._stream.abort()

    def _stop_receiving(self) -> None:
        self._reader = None
        self._error = errno.EBADF, "the stream is closed"
