"""A bridge on the rings of a substream lane: what a process of the party makes for its opener.

Between the owner of the lane (the keeper of a link, the node process), which announces it to the opener and gives it
back, and the bridge. The one invariant: the rings and the doorbell are used from `start` to the end of `aclose`, and
neither before nor after.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from ..ring_stream import RingDoorbell, RingStream
from .bridge import Bridge

if TYPE_CHECKING:
    import asyncio

    from ..attempt import SubstreamLane
    from ..peers.contract import ConnectionManager

_LOG: Final = logging.getLogger("partywire.bridge")


class LaneBridge:
    """Of one lane, from `start` to `aclose`; of one event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lane: SubstreamLane,
        epoch: int,
        manager: ConnectionManager,
        name: str = "",
    ) -> None:
        """Uses the lane, which stays the caller's. `epoch`: what the opener was told with it. `name`: of the party at
        the other end of a link, if it is one link's."""
        self._name = name
        self._is_ending = False
        self._stream = RingStream(lane.tx, lane.rx, epoch, loop.call_soon, "the opener")
        self._doorbell = RingDoorbell(loop, lane.doorbell, self._stream)
        self._bridge = Bridge(loop, self._stream, manager, name=name)
        self._bridge.closed.add_done_callback(self._on_closed)

    def start(self) -> None:
        """Begin: before it, nothing of what the opener wrote is answered."""
        self._bridge.start()

    def _on_closed(self, closed: asyncio.Future[str]) -> None:
        self._doorbell.close()
        if not self._is_ending and (cause := closed.result()):
            _LOG.warning("the opener's substreams%s are over: %s", self._name and f" with {self._name}", cause)

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
