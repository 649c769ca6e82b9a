"""Streams within one process, by number: the transport of /memory/N.

Between routers of one process. The one invariant: a port belongs to at most one open listener, and a stream comes to
stand only with a listener that is open when its end is handed over.

The streams are those of `memory`: both ends live in one event loop, each direction holds CAPACITY bytes, and a sender
whose reader does not read finds no room. So a listener in another loop than the dialler's is refused with a sentence
rather than served wrongly.
"""

from __future__ import annotations

import errno
import threading
from functools import cache
from typing import TYPE_CHECKING, Final

from ..listening import ListenError
from ..memory import CAPACITY_DEFAULT, memory_pair
from .errors import DialFailed

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ..memory import MemoryStream
    from ..transport import Stream

LISTENERS_MAX: Final = 65_535
"""Open listeners of one switchboard: as many as there are ports elsewhere."""


class MemoryPort:
    """A port that is listened on. Made by `Switchboard.listen`."""

    def __init__(
        self,
        switchboard: Switchboard,
        loop: asyncio.AbstractEventLoop,
        port: int,
        on_accept: Callable[[Stream], object],
    ) -> None:
        self._switchboard = switchboard
        self._on_accept = on_accept
        self.loop = loop
        self.port = port
        self.is_open = True

    def accept(self, stream: MemoryStream) -> None:
        """Hand a stream over; one that comes too late is broken."""
        if self.is_open:
            self._on_accept(stream)
        else:
            stream.abort()

    def close(self) -> None:
        """Give the port back. Streams that were accepted live on. May be called again."""
        if self.is_open:
            self.is_open = False
            self._switchboard.release(self)


class Switchboard:
    """Ports and who listens on them. May be used from several threads; each listener and dialler has its own loop."""

    def __init__(self, capacity: int = CAPACITY_DEFAULT) -> None:
        """`capacity` is the bytes under way in each direction of each stream."""
        self._capacity = capacity
        self._lock = threading.Lock()
        self._ports: dict[int, MemoryPort] = {}
        self._next = 1

    def listen(self, loop: asyncio.AbstractEventLoop, port: int, on_accept: Callable[[Stream], object]) -> MemoryPort:
        """Listen on a port; 0 stands for the next free one.

        Raises:
            ListenError: somebody listens there, or there are LISTENERS_MAX.
        """
        with self._lock:
            if len(self._ports) >= LISTENERS_MAX:
                raise ListenError(f"/memory/{port}", errno.EADDRINUSE, f"{LISTENERS_MAX} ports are listened on")
            if port == 0:
                while self._next in self._ports:
                    self._next = self._next % LISTENERS_MAX + 1
                port, self._next = self._next, self._next % LISTENERS_MAX + 1
            elif port in self._ports:
                raise ListenError(f"/memory/{port}", errno.EADDRINUSE, "address already in use")
            listener = self._ports[port] = MemoryPort(self, loop, port, on_accept)
            return listener

    def release(self, listener: MemoryPort) -> None:
        """Called once, by a listener that is closed."""
        with self._lock:
            del self._ports[listener.port]

    def dial(self, loop: asyncio.AbstractEventLoop, port: int) -> Stream:
        """A stream to whoever listens on a port.

        Raises:
            DialFailed: nobody does, or somebody in another event loop.
        """
        listener = self._ports.get(port)
        if listener is None:
            raise DialFailed(f"/memory/{port}", "connection refused: nobody in this process listens there")
        if listener.loop is not loop:
            raise DialFailed(f"/memory/{port}", "its listener runs in another event loop of this process")
        ours, theirs = memory_pair(loop, self._capacity, ("/memory/0", f"/memory/{port}"))
        loop.call_soon(listener.accept, theirs)
        return ours


@cache
def process_switchboard() -> Switchboard:
    """The one that all routers of this process share unless they are given another."""
    return Switchboard()
