"""The bridge of a link: between its peer's substreams and the opener, for one epoch.

Between the keeper of the link, which announces the lane to the opener and gives it back, and the bridge. The one
invariant: rings and doorbell are used from the making of this to the moment when it `is_over`.
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


FINISH_TIMEOUT_S: Final = 2.0
"""For an opener to take what its peer had sent before it left in order. Arbitrary. The link is made anew meanwhile."""


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
        self._loop = loop
        self._name = peers.peer_name
        self._is_ending = False
        self._finishing: asyncio.Task[None] | None = None
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

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._bridge.closed.done()

    def finish(self) -> None:
        """The link was closed in order: end once what the peer had sent has reached the opener."""
        if not self._is_ending:
            self._is_ending = True
            self._finishing = self._loop.create_task(self._bridge.finish(FINISH_TIMEOUT_S))

    def abort(self, cause: str) -> None:
        """End at once; the opener hears `cause`, which is not empty, and substreams of peers are reset."""
        self._is_ending = True
        if self._finishing is not None:
            self._finishing.cancel()
        self._stream.abort(cause)
        self._bridge.abort(cause)
        self._doorbell.close()
