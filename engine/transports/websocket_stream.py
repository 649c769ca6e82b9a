"""A WebSocket as a stream: what is above sends and receives bytes as on any other.

Between the owner of a stream and the carrier beneath. The one invariant: what `try_send` took is on its way whatever
its caller does next, and an end of file is the peer's own word.

Memory of a stream: RECEIVE_SIZE, what one receive of that size opened to, and one message with its frame and TLS. Each
batch costs one message, one masking (by the dialler) and one `send`; this is a way through the proxies of the web, not
the fastest one.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from ..exchange import receive_some, send_all
from ..transport import VIEWS_MAX, Stream
from .errors import WebSocketFailed
from .websocket import MESSAGE_SIZE, WebSocketCore, WebSocketError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from ..transport import Buffer

RECEIVE_SIZE: Final = 64 * 1024

LINGER_S: Final = 5.0
"""For the kernel to take what was sent before a close, as long as for a secured stream."""

_TRIALS_MAX: Final = 4
"""Receives of a close that looks whether anything is unread."""


async def open_websocket(
    stream: Stream, core: WebSocketCore, loop: asyncio.AbstractEventLoop, address: str
) -> WebSocketStream:
    """Go through the opening handshake; the stream to use from then on.

    Raises:
        WebSocketFailed: the peer refused, or is none of WebSockets. In each case `stream` is closed.
    """
    try:
        await send_all(stream, core.data_to_send())
        while not core.is_open:
            received = await receive_some(stream, RECEIVE_SIZE)
            if not received:
                core.receive_end_of_file()
            try:
                core.receive_data_untrusted(received)
            finally:
                await send_all(stream, core.data_to_send())  # also what is said to one that is refused
        return WebSocketStream(stream, core, loop)
    except WebSocketError as error:
        stream.close()
        raise WebSocketFailed(address, str(error)) from error
    except OSError as error:
        stream.close()
        raise WebSocketFailed(address, (error.strerror or str(error)).lower()) from error
    except BaseException:
        stream.close()
        raise


class WebSocketStream(Stream):
    """One end of a WebSocket that is open. Made by `open_websocket`."""

    def __init__(self, stream: Stream, core: WebSocketCore, loop: asyncio.AbstractEventLoop) -> None:
        self._stream = stream
        self._core = core
        self._loop = loop
        self._scratch = memoryview(bytearray(RECEIVE_SIZE))
        self._unsent = memoryview(b"")  # what the kernel has not taken
        self._reader: Callable[[], object] | None = None
        self._writer: Callable[[], object] | None = None
        self._will_read = False  # whether the reader is called in the loop's next turn
        self._error: tuple[int, str] | None = None  # why nothing comes any more, as an OSError has it
        self._is_closed = False
        self._closing: asyncio.TimerHandle | None = None  # set by a close that left something unsent

    @property
    def peer_address(self) -> str:
        return self._stream.peer_address

    # Sending.

    def try_send(self, views: Sequence[Buffer]) -> int | None:
        self._require_open()
        if not self._core.may_send:
            raise OSError(errno.EPIPE, "the sending half was shut down")
        if not self._flush():
            return None
        parts: list[memoryview] = []
        room = MESSAGE_SIZE
        for view in views[:VIEWS_MAX]:
            part = memoryview(view).cast("B")[:room]
            parts.append(part)
            room -= len(part)
            if not room:
                break
        self._core.send(b"".join(parts))
        self._flush()
        return MESSAGE_SIZE - room

    def _flush(self) -> bool:
        """Send what is there; whether the kernel has all of it. What it has not is sent as soon as there is room."""
        while True:
            while self._unsent:
                count = self._stream.try_send((self._unsent,))
                if count is None:
                    self._stream.on_writable(self._on_room)
                    return False
                self._unsent = self._unsent[count:]
            self._unsent = memoryview(self._core.data_to_send())
            if not self._unsent:
                return True

    def _flush_quietly(self) -> bool:
        try:
            return self._flush()
        except OSError:
            self._unsent = memoryview(b"")  # broken; the next receive says so
            return True

    def _on_room(self) -> None:
        if not self._flush_quietly():
            return
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None
            self._stream.close()
        elif self._writer is not None:
            self._writer()
        else:
            self._stream.on_writable(None)

    def shutdown_write(self) -> None:
        if not self._is_closed:
            self._core.shut()
            self._flush_quietly()

    # Receiving.

    def try_recv_into(self, view: memoryview) -> int | None:
        self._require_open()
        if not self._has_more:
            self._receive()
        received = self._core.received
        if received:
            size = min(len(view), len(received))
            view[:size] = received[:size]
            del received[:size]
            if self._has_more:
                self._read_soon()
            return size
        if self._error is not None:
            raise OSError(*self._error)
        return 0 if self._core.is_ended else None

    @property
    def _has_more(self) -> bool:
        """Whether there is something for the reader that shows on no socket."""
        return bool(self._core.received) or self._core.is_ended or self._error is not None

    def _receive(self) -> None:
        """Once, so that a peer that sends nothing but pings does not keep us here."""
        count = self._stream.try_recv_into(self._scratch)
        if count is None:
            return
        try:
            if count == 0:
                self._core.receive_end_of_file()
            else:
                self._core.receive_data_untrusted(bytes(self._scratch[:count]))
        except WebSocketError as error:
            self._error = errno.ECONNRESET if count == 0 else errno.EPROTO, str(error)
        self._flush_quietly()

    def on_readable(self, callback: Callable[[], object] | None) -> None:
        if callback is not None:
            self._require_open()
        elif self._is_closed:
            return
        self._reader = callback
        self._stream.on_readable(None if callback is None else self._on_bytes)
        if self._has_more:
            self._read_soon()

    def _on_bytes(self) -> None:
        """Something came on the carrier, which need not be anything for the reader: a ping, half a frame."""
        if not self._has_more:
            try:
                self._receive()
            except OSError as error:
                self._error = error.errno or errno.ECONNRESET, error.strerror or str(error)
        if not self._will_read:
            self._read_more()

    def _read_soon(self) -> None:
        if self._reader is not None and not self._will_read:
            self._will_read = True
            self._loop.call_soon(self._read_more)

    def _read_more(self) -> None:
        self._will_read = False
        reader = self._reader
        if reader is not None and self._has_more:
            self._read_soon()  # again while it holds
            reader()

    def on_writable(self, callback: Callable[[], object] | None) -> None:
        if callback is not None:
            self._require_open()
        elif self._is_closed:
            return
        self._writer = callback
        self._stream.on_writable(self._on_room if callback is not None or self._unsent else None)

    # Ending.

    def _require_open(self) -> None:
        if self._is_closed:
            raise OSError(errno.EBADF, "the stream is closed")

    def close(self) -> None:
        if self._is_closed:
            return
        if self._has_unread():
            self.abort()
            return
        self.shutdown_write()
        self._end()
        if self._unsent:
            self._closing = self._loop.call_later(LINGER_S, self._give_up)
        else:
            self._stream.close()

    def _has_unread(self) -> bool:
        for _ in range(_TRIALS_MAX):
            if self._has_more:
                break
            try:
                self._receive()
            except OSError:
                break
        return bool(self._core.received)

    def _end(self) -> None:
        self._is_closed = True
        self._reader = self._writer = None
        if self._unsent:
            self._stream.on_readable(None)

    def _give_up(self) -> None:
        self._closing = None
        self._unsent = memoryview(b"")
        self._stream.abort()

    @property
    def is_lingering(self) -> bool:
        return self._closing is not None or (self._is_closed and self._stream.is_lingering)

    def abort(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._give_up()
        elif not self._is_closed:
            self._is_closed = True
            self._reader = self._writer = None
            self._stream.abort()
