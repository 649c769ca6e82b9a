"""The two ends of one substream as asyncio knows streams: a reader and a writer.

Between user code (a protocol handler) and the connection that moves bytes. Names and meanings are those of
asyncio.StreamReader and StreamWriter where both have them. One task reads and one writes; a second one that waits for
the same thing is a RuntimeError, as in asyncio. Cancelling a wait loses nothing. They run under whatever drives their
connection (`turns`), which is an asyncio loop or a worker of a party.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

from ..errors import PartyWireError
from .errors import SubstreamTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..yamux.errors import SubstreamReset, SubstreamSessionOver
    from ..yamux.substream import Buffer, Substream
    from .divided import DividedStream
    from .turns import Place

LINE_SIZE_MAX: Final = 64 * 1024
"""What `readuntil` holds without having found its separator."""


async def _wait_at_most(place: Place, what: str, substream: Substream, peer: str, timeout_s: float) -> None:
    try:
        await place.wait(what, timeout_s)
    except TimeoutError:
        raise SubstreamTimeout(peer, substream.id, what, timeout_s) from None


def _fail(error: PartyWireError, _: Substream) -> bool:
    raise error


class SubstreamReader:
    """The receiving half. What is not read costs the peer its window, and nobody else anything."""

    def __init__(self, connection: DividedStream, substream: Substream) -> None:
        self.timeout_s: float | None = None
        """For any one wait of this half: a call that waits several times begins anew each time."""
        self.on_wake: Callable[[], object] | None = None
        """Called when something arrived, or the substream is over; in the midst of other things."""
        self._connection = connection
        self._substream = substream
        self._place = connection.turns.make_place()
        self._held = b""  # read from the substream by a call that needed more, and was cancelled or went too far
        self._preface: Callable[[Substream], bool] | None = None  # until it is whole

    async def read(self, n: int = -1) -> bytes:
        """At most `n` bytes as soon as there are any; with -1 everything until the end. b"" is the peer's end.

        Raises:
            SubstreamReset: one of the sides gave the substream up.
            SubstreamSessionOver: the connection is gone, and everything that had arrived was read.
            SubstreamTimeout: nothing came for `timeout_s`.
        """
        if n < 0:
            parts: list[bytes] = []
            try:
                while part := await self.read(LINE_SIZE_MAX):
                    parts.append(part)
            except BaseException:
                self._held = b"".join(parts) + self._held
                raise
            return b"".join(parts)
        if not n:
            return b""
        if self._held:
            data, self._held = self._held[:n], self._held[n:]
            return data
        while not (data := self._take(n)) and not self._substream.is_at_end:
            if self.timeout_s is None:
                await self._place.wait("read from")
            else:
                await _wait_at_most(self._place, "read from", self._substream, self._far_end, self.timeout_s)
        return data

    def read_nowait(self, n: int) -> bytes:
        """At most `n` bytes of what has come; b"" is nothing, or the peer's end if `at_eof()`.

        Raises:
            SubstreamReset, SubstreamSessionOver: as `read`.
        """
        if self._held:
            data, self._held = self._held[:n], self._held[n:]
            return data
        return self._take(n)

    async def peek(self) -> bytes:
        """What the next `read` gives, without taking it: something as soon as there is any, b"" at the peer's end.

        Raises:
            SubstreamReset, SubstreamSessionOver, SubstreamTimeout: as `read`.
        """
        if not self._held:
            self._held = await self.read(LINE_SIZE_MAX)
        return self._held

    async def readexactly(self, n: int) -> bytes:
        """`n` bytes.

        Raises:
            asyncio.IncompleteReadError: the peer's end came before; it has what there was.
        """
        if not self._held and self._preface is None and 0 < n <= self._substream.received_size:
            return self._take(n)
        parts: list[bytes] = []
        missing = n
        try:
            while missing:
                part = await self.read(missing)
                if not part:
                    raise asyncio.IncompleteReadError(b"".join(parts), n)
                parts.append(part)
                missing -= len(part)
        except asyncio.IncompleteReadError:
            raise
        except BaseException:  # cancelled, by whatever drives us, or out of time
            self._held = b"".join(parts) + self._held
            raise
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def readuntil(self, separator: bytes = b"\n") -> bytes:
        """Everything up to and with `separator`, at most 64 KiB.

        Raises:
            asyncio.IncompleteReadError: the peer's end came before.
            asyncio.LimitOverrunError: no separator in 64 KiB; they stay unread.
        """
        found = bytearray()
        searched = 0
        try:
            while (at := found.find(separator, searched)) < 0:
                searched = max(len(found) - len(separator) + 1, 0)
                if len(found) >= LINE_SIZE_MAX:
                    raise asyncio.LimitOverrunError(f"no separator in {len(found)} bytes", len(found))
                part = await self.read(LINE_SIZE_MAX - len(found))
                if not part:
                    partial = bytes(found)
                    found.clear()
                    raise asyncio.IncompleteReadError(partial, None)
                found += part
        except BaseException:  # behind an IncompleteReadError nothing is left
            self._held = bytes(found) + self._held
            raise
        end = at + len(separator)
        self._held = bytes(found[end:]) + self._held
        return bytes(found[:end])

    async def readline(self) -> bytes:
        """A line with its end; at the peer's end what there is, which may be nothing."""
        try:
            return await self.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            return error.partial

    def at_eof(self) -> bool:
        """Whether the peer has ended its side and everything was read."""
        return not self._held and self._substream.is_at_end

    def wake(self) -> None:
        """For the connection: something arrived, or will not any more."""
        if self._preface is not None:
            try:
                self._take_preface()
            except PartyWireError as error:
                self._preface = partial(_fail, error)  # whoever reads next is told
        self._place.wake()
        if self.on_wake is not None:
            self.on_wake()

    def expect(self, preface: Callable[[Substream], bool]) -> None:
        """Nobody reads what stands before the bytes of this half: `preface` takes it off the substream as it comes, and
        says whether it is whole. A PartyWireError of its own is raised by the next read."""
        self._preface = preface

    def _take_preface(self) -> bool:
        """Whether it is whole."""
        preface, self._preface = self._preface, None
        if preface is not None and not preface(self._substream):
            self._preface = preface
        self._connection.was_read()
        return self._preface is None

    @property
    def _far_end(self) -> str:
        return self._substream.peer or self._connection.peer

    def _take(self, size_max: int) -> bytes:
        if self._preface is not None and not self._take_preface():
            return b""
        data = self._substream.read(size_max)
        if data:
            self._connection.was_read()
        return data


class SubstreamWriter:
    """The sending half. What was written in one turn of the event loop travels together."""

    def __init__(self, connection: DividedStream, substream: Substream) -> None:
        self.timeout_s: float | None = None
        """For any one wait of `drain`."""
        self.on_wake: Callable[[], object] | None = None
        """Called when there may be room again, or the substream is over; in the midst of other things."""
        self._connection = connection
        self._substream = substream
        self._place = connection.turns.make_place()
        self._waiting: list[memoryview] = []  # what the substream has no room for

    @property
    def id(self) -> int:
        """What the connection calls the substream, at both of its ends; no later one of it has the same."""
        return self._substream.id

    @property
    def peer(self) -> str:
        """Name of the peer."""
        return self._substream.peer or self._connection.peer

    def name_peer(self, peer: str) -> None:
        """From now on errors of both halves call the peer so: the substream leads on to somebody else."""
        self._substream.peer = peer

    def explain(self, cause: str) -> None:
        """What a reset by the peer, of which nobody was told the cause, is to be put down to."""
        self._substream.explain(cause)

    @property
    def is_open(self) -> bool:
        """Whether anything can still be written or come."""
        return self._substream.is_open

    @property
    def has_ended(self) -> bool:
        """Whether our side is at its end: by `write_eof`, `close` or a reset."""
        return self._substream.is_ended_by_us

    @property
    def failure(self) -> SubstreamReset | SubstreamSessionOver | None:
        """Why the substream is of no use any more: what a write raises, without writing."""
        return self._substream.failure

    def write(self, data: Buffer) -> None:
        """Send `data` behind what was written before; it may be changed afterwards. `drain` waits for room.

        Raises:
            SubstreamClosed: behind `write_eof` or `close`.
            SubstreamReset, SubstreamSessionOver: the substream, or the connection, is gone.
        """
        taken = 0 if self._waiting else self._substream.write(data)
        if taken < len(data):
            rest = memoryview(data)[taken:]
            self._waiting.append(rest if type(data) is bytes else memoryview(bytes(rest)))
        self._connection.flush_soon()

    @property
    def has_room(self) -> bool:
        """Whether the substream has taken everything that was written, so that `drain` would not wait."""
        return not self._waiting

    def writelines(self, data: Iterable[Buffer]) -> None:
        """Send all of `data`, in order."""
        for part in data:
            self.write(part)

    async def drain(self) -> None:
        """Wait until the substream has taken everything that was written: 256 KiB may still be on their way.

        Raises:
            SubstreamReset, SubstreamSessionOver: it never will.
            SubstreamTimeout: nothing of it was taken for `timeout_s`.
        """
        while self._push():
            if self.timeout_s is None:
                await self._place.wait("write to")
            else:
                await _wait_at_most(self._place, "write to", self._substream, self.peer, self.timeout_s)

    def accept(self) -> None:
        """Tell the peer that the substream it opened is welcome, with what is written next or a moment later."""
        self._connection.accept(self._substream)

    def write_eof(self) -> None:
        """End our side behind everything that was written.

        Raises:
            RuntimeError: something still waits for room: `await drain()` before.
        """
        if self._waiting:
            raise RuntimeError("await drain() before the end: the substream has not taken everything")
        self._connection.end_write(self._substream)

    def close(self) -> None:
        """End our side, and read nothing more. Behind the peer's end it is an orderly end, else the peer hears that
        what it sends is not read."""
        if self._waiting:
            self.reset("it was closed before everything was sent")
        elif self._substream.is_open:
            self._connection.close(self._substream)

    def reset(self, cause: str = "") -> None:
        """Give the substream up in both directions."""
        self._waiting.clear()
        self._substream.reset(cause)
        self._connection.flush_soon()

    def wake(self) -> None:
        """For the connection: there may be room again, or never any more."""
        if self._waiting and self._substream.failure is None:
            self._push()  # whoever gave it to us need not be waiting in `drain`
        self._place.wake()
        if self.on_wake is not None:
            self.on_wake()

    def _push(self) -> bool:
        """Hand on what waits. Returns whether something still does."""
        while self._waiting:
            data = self._waiting[0]
            taken = self._substream.write(data)
            self._connection.flush_soon()
            if taken < len(data):
                self._waiting[0] = data[taken:]
                return True
            del self._waiting[0]
        return False
