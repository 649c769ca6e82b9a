"""A control connection that is divided: a SubstreamConnection whose end is a matter of the link that it belongs to.

Between the stream of the connection, and its control substream (`control_substream`), readers and writers. Beyond its
base it has one substream without reader and writer whose frames go before all others, says when anything came, and
can end as a link does: both sides know that it is over, and each hears the other out.

What ends it is the link alone: its heartbeat judges the peer, so neither a peer that takes nothing for a while nor one
that is slow to answer the pings of yamux ends it earlier.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from ..substreams.connection import SubstreamConnection
from ..yamux.limits import YamuxLimits

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ..substreams.divided import OnSubstream, Woken
    from ..substreams.turns import Timer
    from ..transport import Stream
    from ..yamux.substream import Substream

KEEPALIVE_S: Final = 30.0
"""Between the pings of yamux, which only measure."""

PATIENCE: Final = 4
"""An answer to one is late behind so many heartbeat timeouts: the link would be lost long before."""


def limits_of_link(heartbeat_timeout_s: float) -> YamuxLimits:
    """What the peer of a link may make us hold: a link is one of few, and its peer is known."""
    return YamuxLimits(
        substreams_max=256,
        unaccepted_max=128,
        growth_max=32 * 1024 * 1024,
        keepalive_s=KEEPALIVE_S,
        ping_timeout_s=PATIENCE * heartbeat_timeout_s,
    )


class LinkConnection(SubstreamConnection):
    """As SubstreamConnection."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stream: Stream,
        *,
        is_client: bool,
        on_substream: OnSubstream,
        peer: str,
        limits: YamuxLimits,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(
            loop,
            stream,
            is_client=is_client,
            on_substream=on_substream,
            peer=peer,
            limits=limits,
            write_timeout_s=math.inf,
            clock=clock,
        )
        self.was_ended_by_peer = False
        """Whether it is over because the peer ended the stream."""
        self.on_received: Callable[[], object] = int
        """Called whenever bytes came, of whatever substream."""
        self.on_flushed: Callable[[], object] = int
        """Called behind every flush, in the midst of things."""
        self.on_offered: Callable[[Substream], Woken | None] = lambda _: None
        """Asked first for each substream of the peer. Who it returns has that substream bare, without reader and
        writer, and is woken in their place."""
        self._finish_timer: Timer | None = None  # set by `finish`
        self._is_shut = False  # our direction of the stream is ended
        self._is_heard_out = False  # the peer's is

    @property
    def peer_address(self) -> str:
        """Where the other end of the stream is, for messages."""
        return self._stream.peer_address

    # Substreams.

    def open_bare(self, woken: Woken) -> Substream:
        """As `open`, at once, without reader and writer: `woken` is woken in their place.

        Raises:
            SubstreamRefused, SubstreamSessionOver: as `open`.
        """
        substream = self._session.open()
        self._ends[substream] = woken, woken
        self.flush_soon()
        return substream

    def prefer(self, substream: Substream) -> None:
        """From now on what this one sends goes before what all others send."""
        self._session.prefer(substream)

    def is_sending(self, but: Substream) -> bool:
        """Whether any substream but one has something to send."""
        return any(substream is not but and substream.send_size for substream in self._ends)

    def _offer(self, substream: Substream) -> None:
        if (woken := self.on_offered(substream)) is not None:
            self._ends[substream] = woken, woken
        else:
            super()._offer(substream)

    async def wait_for_change(self, timeout_s: float) -> None:
        """Until a substream was opened or is over, the connection is, or `timeout_s` have passed."""
        try:
            await self._wait_for_room(timeout_s)
        except TimeoutError:
            pass

    # Moving bytes.

    def receive(self) -> None:
        """Look whether something came, for who cannot wait until the loop says so."""
        if self._is_reading and not self.is_over:
            self._on_readable()

    def _take(self, data: memoryview) -> None:
        self.on_received()
        super()._take(data)

    def _flush(self) -> None:
        super()._flush()
        if not self.is_over:
            self.on_flushed()
        if self._finish_timer is not None and not self.is_over:
            self._finish_if_done()

    # Ending.

    def leave(self) -> None:
        """Open and take no further substreams; those that are open go on."""
        if not self.is_over and not self._session.is_leaving:
            self._session.go_away()
            self.flush_soon()

    def finish(self, timeout_s: float) -> None:
        """End a connection of whose end both sides know: send what was written, end our direction of the stream, read
        until the peer has ended its own, and close. What is not done within `timeout_s` is given up."""
        if self.is_over or self._finish_timer is not None:
            return
        self.leave()
        self._finish_timer = self.turns.call_later(timeout_s, self._end, "")
        self._flush()

    def _finish_if_done(self) -> None:
        if not (self._is_shut or self._unsent or self._session.has_something_to_send):
            self._is_shut = self._is_blocked = True  # nothing more goes out
            try:
                self._stream.shutdown_write()
            except OSError:
                self._is_heard_out = True  # it is broken: nothing more comes either
        if self._is_shut and self._is_heard_out:
            self._end("")

    @property
    def is_lingering(self) -> bool:
        """Whether it is over, and something that was sent is still with this process."""
        return self.is_over and self._stream.is_lingering

    def _take_end(self) -> None:
        self._is_heard_out = True
        if self._finish_timer is not None:
            self._read_on()
            self._finish_if_done()
        else:
            self.was_ended_by_peer = True
            super()._take_end()

    @property
    def _may_read(self) -> bool:
        return super()._may_read and not self._is_heard_out

    def _end(self, cause: str) -> None:
        if self._finish_timer is not None:
            self._finish_timer.cancel()
        super()._end(cause)
