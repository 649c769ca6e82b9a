"""The substreams of a link beside that of its control codec, as the connection of one peer knows its substreams.

Between an EstablishedConnection (peers.connection) and the connection of a link. The one invariant: whatever is done
here, the link stands: closing this resets its substreams and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..peers.connection import SubstreamGate
from ..yamux.errors import SubstreamRefused, SubstreamSessionOver

if TYPE_CHECKING:
    import asyncio

    from ..substreams.streams import SubstreamReader, SubstreamWriter
    from .connection import LinkConnection


FORGET_MIN: Final = 32
"""Substreams that are remembered before it is looked for those that are over."""


class ApplicationSubstreams:
    """See peers.connection.Substreams. Of one event loop; over when the link's connection is, or before."""

    violation: Final = None
    """What the peer does to yamux is a matter of the link."""

    def __init__(self, connection: LinkConnection) -> None:
        """Does not own the connection."""
        self.loop: Final = connection.loop
        self.closed: Final[asyncio.Future[str]] = connection.loop.create_future()
        """Done when it is over, with the cause; empty after a goodbye of ours, or of the link."""
        self.gate: Final = SubstreamGate()
        """Gets what the peer opens."""
        self._connection = connection
        self._is_ending = False
        self._forget_at = FORGET_MIN
        self._writers: dict[SubstreamWriter, None] = {}  # of those that are open, and some that were
        self.closed.add_done_callback(self.gate.end)
        connection.closed.add_done_callback(self._on_connection_closed)

    def offer(self, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        """The peer opened one."""
        if self._is_ending:
            writer.reset("no substreams are taken at the moment")
            return
        self._remember(writer)
        self.gate(reader, writer)

    # For the connection above.

    @property
    def substreams(self) -> int:
        """How many are open."""
        return sum(writer.is_open for writer in self._writers)

    @property
    def is_leaving(self) -> bool:
        """Whether either side opens no further substreams."""
        return self._is_ending or self._connection.is_leaving

    def name_peer(self, peer: str) -> None:
        """Errors go on calling the peer of a link by its name, not by the id that it has proven."""

    async def open(self) -> tuple[SubstreamReader, SubstreamWriter]:
        """As SubstreamConnection.open."""
        if self._is_ending and not self._connection.is_over:
            raise SubstreamRefused(self._connection.peer, "this use of the link was closed", is_final=True)
        reader, writer = await self._connection.open()
        self._remember(writer)
        return reader, writer

    def _remember(self, writer: SubstreamWriter) -> None:
        if len(self._writers) >= self._forget_at:
            self._writers = {one: None for one in self._writers if one.is_open}
            self._forget_at = max(2 * len(self._writers), FORGET_MIN)
        self._writers[writer] = None

    async def ping(self) -> float:
        """As SubstreamConnection.ping."""
        if self.closed.done():
            raise SubstreamSessionOver(self._connection.peer, self.closed.result() or "we closed the connection")
        return await self._connection.ping()

    async def aclose(self, timeout_s: float) -> None:
        """Take and open no further substreams, let those that are open end for at most `timeout_s`, and reset them."""
        self._is_ending = True
        deadline = self.loop.time() + timeout_s
        while self.substreams and not self.closed.done() and (left_s := deadline - self.loop.time()) > 0:
            await self._connection.wait_for_change(left_s)
        self._end("", "the connection was closed")

    def abort(self, cause: str) -> None:
        """Reset all at once."""
        self._end(cause, cause)

    def _end(self, cause: str, reset: str) -> None:
        self._is_ending = True
        if not self.closed.done():
            for writer in list(self._writers):
                if writer.is_open:
                    writer.reset(reset)
            self.closed.set_result(cause)

    def _on_connection_closed(self, closed: asyncio.Future[str]) -> None:
        self._is_ending = True
        if not self.closed.done():
            self.closed.set_result(closed.result())
