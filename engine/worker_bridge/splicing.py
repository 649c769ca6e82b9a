"""Moves the bytes of one substream to another and back, as if the two were one.

Between a substream with a peer and one with the opener. The one invariant: whoever is at one end sees what happens at
the other: bytes in order, the end of a side behind them, and a reset; only its cause travels by another way.

What is held here is one piece of SPLICE_SIZE for each direction, beside the windows of the two substreams: who does not
take is not read for, and nobody else waits for it.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from ..yamux.errors import SubstreamReset, SubstreamSessionOver
from .limits import SPLICE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

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
    """Driven by what the connections tell readers and writers: no task stands at either substream."""

    def __init__(self, near: Ends, far: Ends) -> None:
        self._ends = near, far
        self._has_ended = [False, False]  # whether everything of that end, and its end, was carried over
        self._is_stopped = [False, False]  # whether nothing more of it will be
        self._breach: Breach | None = None
        self._is_over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> Breach | None:
        for at, end in enumerate(self._ends):
            end.reader.on_wake = partial(self._guard, self._carry, at)
            end.writer.on_wake = partial(self._guard, self._writer_woken, at)
        try:
            for at in (0, 1):
                self._guard(self._writer_woken, at)
            await self._is_over
        finally:
            for end in self._ends:
                end.reader.on_wake = end.writer.on_wake = None
        self._look()
        if self._breach is None:
            return None
        return self._breach._replace(is_told_all=self._has_ended[self._breach.is_far])

    def _guard(self, work: Callable[[int], object], at: int) -> None:
        """We are called by a connection that goes on whatever happens here."""
        if self._is_over.done():
            return
        try:
            work(at)
        except Exception as error:  # none that substreams raise
            self._is_over.set_exception(error)
            return
        ended, stopped = self._has_ended, self._is_stopped
        if (ended[0] or stopped[0]) and (ended[1] or stopped[1]):
            self._is_over.set_result(None)

    def _writer_woken(self, at: int) -> None:
        self._look()
        self._carry(1 - at)

    def _carry(self, at: int) -> None:
        """Everything that came at that end, as far as the other one takes it, and its end behind it."""
        reader, writer = self._ends[at].reader, self._ends[1 - at].writer
        if self._has_ended[at] or self._is_stopped[at]:
            return
        try:
            while writer.has_room:
                if data := reader.read_nowait(SPLICE_SIZE):
                    writer.write(data)
                elif reader.at_eof():
                    writer.write_eof()
                    self._has_ended[at] = True
                    return
                else:
                    return
        except (SubstreamReset, SubstreamSessionOver):
            self._stop(at)
            self._look()

    def _look(self) -> None:
        """Note which substream broke first, and stop carrying what nobody will get."""
        if all(self._has_ended):
            return  # both have ended in order; what becomes of their connections does not matter any more
        for at, end in enumerate(self._ends):
            if (failure := end.writer.failure) is None:
                continue
            if self._breach is None:
                self._breach = Breach(bool(at), failure.cause or NO_REASON, False)
            self._stop(1 - at)
            if isinstance(failure, SubstreamReset):  # of another one what had arrived can still be read
                self._stop(at)

    def _stop(self, at: int) -> None:
        if not self._has_ended[at]:
            self._is_stopped[at] = True
