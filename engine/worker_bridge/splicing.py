"""Moves the bytes of one substream to another and back, as if the two were one.

Between a substream with a peer and one with the opener. The one invariant: whoever is at one end sees what happens at
the other: bytes in order, the end of a side behind them, and a reset; only its cause travels by another way.

What is held here is one piece of SPLICE_SIZE for each direction, beside the windows of the two substreams: who does not
take is not read for, and nobody else waits for it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from ..yamux.errors import SubstreamReset, SubstreamSessionOver
from .limits import SPLICE_SIZE

if TYPE_CHECKING:
    from ..substreams.streams import SubstreamReader, SubstreamWriter


NO_REASON: Final = "it gave no reason"
"""What yamux says of why a peer reset a substream."""


class Ends(NamedTuple):
    """One of the two substreams."""

    reader: SubstreamReader
    writer: SubstreamWriter


class Breach(NamedTuple):
    """One of the substreams broke; the other one is to be reset."""

    is_far: bool
    """Whether it was the second of the two."""
    cause: str
    is_told_all: bool
    """Whether the other one has everything that was sent on it, and the end: then a reset, which drops what is unread,
    is to wait until its user wants to send."""


async def splice(near: Ends, far: Ends) -> Breach | None:
    """Until both sides of both have ended, which is None, or one of them broke. Of a substream whose connection is gone
    is carried over first what had arrived. Cancelled, it leaves both as they are."""
    return await _Splice(near, far).run()


class _Splice:
    """Driven by its two copying tasks, and by what the connections tell the writers."""

    def __init__(self, near: Ends, far: Ends) -> None:
        self._ends = near, far
        self._breach: Breach | None = None
        self._copies: tuple[asyncio.Task[bool], ...] = ()  # from the first end, and from the second one

    async def run(self) -> Breach | None:
        near, far = self._ends
        loop = asyncio.get_running_loop()
        self._copies = loop.create_task(_copy(near, far)), loop.create_task(_copy(far, near))
        near.writer.on_wake = far.writer.on_wake = self._look
        try:
            self._look()
            await asyncio.wait(self._copies)
        finally:
            near.writer.on_wake = far.writer.on_wake = None
            for copy in self._copies:
                copy.cancel()
            await asyncio.gather(*self._copies, return_exceptions=True)
        self._look()
        for copy in self._copies:
            if not copy.cancelled() and (error := copy.exception()) is not None:
                raise error  # none that substreams raise
        if self._breach is None:
            return None
        from_broken = self._copies[self._breach.is_far]
        return self._breach._replace(is_told_all=not from_broken.cancelled() and from_broken.result())

    def _look(self) -> None:
        """Note which substream broke first, and stop copying what nobody will get."""
        if all(copy.done() and not copy.cancelled() and copy.result() for copy in self._copies):
            return  # both have ended in order; what becomes of their connections does not matter any more
        for at, end in enumerate(self._ends):
            if (failure := end.writer.failure) is None:
                continue
            if self._breach is None:
                self._breach = Breach(bool(at), failure.cause or NO_REASON, False)
            self._copies[1 - at].cancel()
            if isinstance(failure, SubstreamReset):  # of another one what had arrived can still be read
                self._copies[at].cancel()


async def _copy(source: Ends, target: Ends) -> bool:
    """All of one direction, and its end. False: a substream broke, and `_look` says which one."""
    try:
        while data := await source.reader.read(SPLICE_SIZE):
            target.writer.write(data)
            await target.writer.drain()
        target.writer.write_eof()
    except (SubstreamReset, SubstreamSessionOver):
        return False
    return True
