"""A connection divided into substreams, in an asyncio loop."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .divided import CLOSE_TIMEOUT_S as CLOSE_TIMEOUT_S
from .divided import WRITE_TIMEOUT_S, DividedStream
from .turns import LoopTurns

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ..transport import Stream
    from ..yamux.limits import YamuxLimits
    from .divided import OnSubstream


class SubstreamConnection(DividedStream):
    """Runs in one event loop, from `start` to `closed`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stream: Stream,
        *,
        is_client: bool,
        on_substream: OnSubstream,
        peer: str = "",
        limits: YamuxLimits | None = None,
        write_timeout_s: float = WRITE_TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """As DividedStream. `write_timeout_s`: for the peer to take anything at all of what waits for it."""
        self.loop = loop
        self.closed: asyncio.Future[str] = loop.create_future()
        """Done when the connection is over, with the cause; empty after a goodbye of ours."""
        super().__init__(
            LoopTurns(loop),
            stream,
            is_client=is_client,
            on_substream=on_substream,
            peer=peer,
            limits=limits,
            write_timeout_s=write_timeout_s,
            clock=clock,
        )

    def was_ended(self, cause: str) -> None:
        """As DividedStream.was_ended."""
        self.closed.set_result(cause)
