"""Streams inside one process: of tests, which find them deterministic, and of /memory addresses (`transports`).

Between two owners on one event loop. The one invariant: it keeps the contract of `transport` with the smallest buffers
one likes, so that partial sends, full buffers and broken streams happen where a test wants them.

Callbacks are driven by `loop.call_soon`; nothing here has a timer.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from .transport import VIEWS_MAX, BindError, Buffer, Listener, Stream, Transport

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from .addresses import Address

CAPACITY_DEFAULT: Final = 64 * 1024
"""Bytes under way in one direction; small enough that a test message of some hundred KiB meets a full buffer."""


class _Direction:
    """Bytes from one stream to the other."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.buffer = bytearray()
        self.ended = False  # the writer shut down, or closed
        self.abandoned = False  # the reader closed: writing breaks
        self.broken = False  # aborted by either end: both see an error


class MemoryStream(Stream):
    """One end of a pair made by `memory_pair`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, incoming: _Direction, outgoing: _Direction, peer: str) -> None:
        self._loop = loop
        self._incoming = incoming
        self._outgoing = outgoing
        self._peer_address = peer
        self._other: MemoryStream | None = None  # set by memory_pair; woken when something changed for it
        self._readable: Callable[[], object] | None = None
        self._writable: Callable[[], object] | None = None
        self._scheduled = False
        self._closed = False

    def attach_other(self, other: MemoryStream) -> None:
        """Called once, by `memory_pair`."""
        self._other = other

    @property
    def peer_address(self) -> str:
        return self._peer_address

    # Bytes.

    def try_send(self, views: Sequence[Buffer]) -> int | None:
        self._require_open()
        direction = self._outgoing
        if direction.broken or direction.abandoned:
            raise ConnectionResetError(errno.ECONNRESET, "connection reset by peer")
        if direction.ended:
            raise BrokenPipeError(errno.EPIPE, "the sending half was shut down")
        room = direction.capacity - len(direction.buffer)
        if room <= 0:
            return None
        taken = 0
        for view in views[:VIEWS_MAX]:
            part = memoryview(view)[: room - taken]
            direction.buffer += part
            taken += len(part)
            if taken == room:
                break
        self._wake_other()
        return taken

    def try_recv_into(self, view: memoryview) -> int | None:
        self._require_open()
        direction = self._incoming
        if not direction.buffer:
            if direction.broken:
                raise ConnectionResetError(errno.ECONNRESET, "connection reset by peer")
            return 0 if direction.ended else None
        size = min(len(view), len(direction.buffer))
        view[:size] = direction.buffer[:size]
        del direction.buffer[:size]
        self._wake_other()
        return size

    def shutdown_write(self) -> None:
        self._require_open()
        self._outgoing.ended = True
        self._wake_other()

    # Readiness.

    def on_readable(self, callback: Callable[[], object] | None) -> None:
        if callback is not None:
            self._require_open()
        self._readable = callback
        self._schedule()

    def on_writable(self, callback: Callable[[], object] | None) -> None:
        if callback is not None:
            self._require_open()
        self._writable = callback
        self._schedule()

    def _schedule(self) -> None:
        if self._scheduled or self._closed:
            return
        if (self._readable and self._is_readable) or (self._writable and self._is_writable):
            self._scheduled = True
            self._loop.call_soon(self._call_back)

    @property
    def _is_readable(self) -> bool:
        return bool(self._incoming.buffer) or self._incoming.ended or self._incoming.broken

    @property
    def _is_writable(self) -> bool:
        direction = self._outgoing
        failed = direction.broken or direction.abandoned or direction.ended
        return failed or len(direction.buffer) < direction.capacity

    def _call_back(self) -> None:
        self._scheduled = False
        if self._readable and self._is_readable:
            self._readable()
        if self._writable and self._is_writable:
            self._writable()
        self._schedule()  # level-triggered: again while it holds

    def _wake_other(self) -> None:
        if self._other is not None:
            self._other._schedule()

    # Ending.

    def close(self) -> None:
        if self._closed:
            return
        if self._incoming.buffer:
            self._break()  # as TCP does: unread bytes turn an orderly end into a reset
        self._incoming.abandoned = True
        self._outgoing.ended = True
        self._end()

    def abort(self) -> None:
        if not self._closed:
            self._break()
            self._end()

    def _break(self) -> None:
        for direction in (self._incoming, self._outgoing):
            direction.broken = True
            direction.ended = True
        self._incoming.buffer.clear()

    def _end(self) -> None:
        self._closed = True
        self._readable = self._writable = None
        self._wake_other()
        self._other = None

    def _require_open(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "the stream is closed")


def memory_pair(
    loop: asyncio.AbstractEventLoop, capacity: int = CAPACITY_DEFAULT, names: tuple[str, str] = ("left", "right")
) -> tuple[MemoryStream, MemoryStream]:
    """Two connected streams with `capacity` bytes of buffer each way."""
    there, back = _Direction(capacity), _Direction(capacity)
    left = MemoryStream(loop, back, there, names[1])
    right = MemoryStream(loop, there, back, names[0])
    left.attach_other(right)
    right.attach_other(left)
    return left, right


class MemoryListener(Listener):
    """A name in a MemoryTransport's network."""

    def __init__(self, network: MemoryTransport, address: Address, on_accept: Callable[[Stream], object]) -> None:
        self._network = network
        self._address = address
        self.on_accept = on_accept

    @property
    def address(self) -> Address:
        return self._address

    def close(self) -> None:
        self._network.listeners.pop(self._address, None)


class MemoryTransport(Transport):
    """A network of its own: streams reach only listeners of the same object."""

    def __init__(self, loop: asyncio.AbstractEventLoop, capacity: int = CAPACITY_DEFAULT) -> None:
        self._loop = loop
        self._capacity = capacity
        self._next_port = 1
        self.listeners: dict[Address, MemoryListener] = {}

    async def resolve(self, host: str, port: int) -> list[Address]:
        if not host or ("." in host and host.rsplit(".", 1)[1] == "invalid"):
            raise OSError(errno.ENOENT, f"{host} cannot be resolved")
        return [(host, port)]

    async def connect(self, address: Address, client_host: str | None, timeout_s: float) -> Stream:
        if client_host is not None and client_host not in ("localhost", "127.0.0.1"):
            raise BindError(errno.EADDRNOTAVAIL, f"cannot dial from {client_host}")
        listener = self.listeners.get(address)
        if listener is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        ours, theirs = memory_pair(self._loop, self._capacity, ("dialler", f"{address[0]}:{address[1]}"))
        self._loop.call_soon(listener.on_accept, theirs)
        return ours

    def listen(self, host: str, port: int, on_accept: Callable[[Stream], object]) -> Listener:
        if port == 0:
            port, self._next_port = self._next_port, self._next_port + 1
        if (host, port) in self.listeners:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        listener = self.listeners[(host, port)] = MemoryListener(self, (host, port), on_accept)
        return listener
