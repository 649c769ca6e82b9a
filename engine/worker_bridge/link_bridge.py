"""The bridge of a link: between its peer's substreams and the opener, for one epoch.

Between the keeper of the link, which announces the lane to the opener and gives it back, and the bridge. The one
invariant: rings and doorbell are used from `start` to `abort` or the end of `aclose`, and neither before nor after.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from ..ring_stream import RingDoorbell, RingStream
from .bridge import Bridge

if TYPE_CHECKING:
    import asyncio

    from ..attempt import SubstreamLane
    from ..link_substreams.link_peers import LinkPeers

_LOG: Final = logging.getLogger("partywire.bridge")


class LinkBridge:
    """Of one substream lane, and of one event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lane: SubstreamLane,
        epoch: int,
        peers: LinkPeers,
    ) -> None:
        """Uses the lane, which stays the caller's. `epoch`: what the opener was told with it."""
        self._name = peers.peer_name
        self._is_ending = False
        self._stream = RingStream(lane.tx, lane.rx, epoch, loop.call_soon, "the opener")
        self._doorbell = RingDoorbell(loop, lane.doorbell, self._stream)
        self._bridge = Bridge(loop, self._stream, peers, name=peers.peer_name, connect_link=peers.connect_link)
        self._bridge.closed.add_done_callback(self._on_closed)

    def start(self) -> None:
        """Begin: before it, nothing of what the opener wrote is answered."""
        self._bridge.start()

    def _on_closed(self, closed: asyncio.Future[str]) -> None:
        self._doorbell.close()
        if not self._is_ending and (cause := closed.result()):
            _LOG.warning("the opener's substreams with %s are over: %s", self._name, cause)

    def abort(self, cause: str) -> None:
        """End at once; the opener hears `cause`, which is not empty, and substreams of peers are reset."""
        self._is_ending = True
        self._stream.abort(cause)
        self._bridge.abort(cause)
        self._doorbell.close()

    async def aclose(self) -> None:
        """End with a goodbye, and wait until nothing of it is left. May be called behind `abort`."""
        self._is_ending = True
        await self._bridge.aclose()
        self._doorbell.close()
