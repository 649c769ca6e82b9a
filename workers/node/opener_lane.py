"""The node's end of its lane to the opener: a ring pair, and the bridge from it to the node's connections.

Between the node process, which makes it, and the opener, who gets the descriptors. The one invariant: behind `aclose`
nothing of it is left, and the peers' connections stand as before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from partywire.engine.attempt import SubstreamLane
from partywire.engine.ring_stream import RingDoorbell, RingStream
from partywire.engine.worker_bridge.bridge import Bridge
from partywire.shm import fence

if TYPE_CHECKING:
    import asyncio

    from partywire.engine.peers.contract import ConnectionManager
    from partywire.shm.doorbell import Bell

RING_ID: Final = int.from_bytes(b"NODE") << 32
"""Apart from those of links, which carry small numbers there; for whoever looks at rings."""


class OpenerLane:
    """One lane, from its making to its end. Of one event loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, ring_size: int, bell: Bell, peers: ConnectionManager, epoch: int
    ) -> None:
        """`bell`: the opener's, which stays the caller's. `epoch`: another one for each lane.

        Raises:
            ShmError: there is no memory for the rings.
        """
        self._lane = SubstreamLane(ring_size, RING_ID, fence.probe(), bell)
        self._stream = RingStream(self._lane.tx, self._lane.rx, epoch, loop.call_soon, "the opener")
        self._doorbell = RingDoorbell(loop, self._lane.doorbell, self._stream)
        self._bridge = Bridge(loop, self._stream, peers)
        self.closed: Final = self._bridge.closed
        """Done when it is over, with the cause."""
        self._bridge.start()

    @property
    def fds(self) -> tuple[int, ...]:
        """As NodeLane orders them; they stay ours."""
        return self._lane.fds

    async def aclose(self) -> None:
        """Leave the opener, and wait until no task of the bridge is left."""
        await self._bridge.aclose()
        self.close()

    def close(self) -> None:
        """Give back the rings of a lane that is over."""
        self._doorbell.close()
        self._stream.close()
        self._lane.close()
