"""One attempt to make a link, with everything that lives and dies with it: the greeting, the rings, the multiplexer.

Between the I/O process, which makes attempt after attempt, and the tasks that work on one of them. The one invariant:
nothing of an attempt is used for the next one, so a late task of a lost attempt can only touch what is closed already.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from partywire.shm.doorbell import Doorbell
from partywire.shm.ring import RingReader, RingWriter
from partywire.shm.segment import Segment

if TYPE_CHECKING:
    from partywire.shm.doorbell import Bell
    from partywire.shm.errors import ShmError
    from partywire.shm.fence import Fence

    from .errors import HandshakeRejected
    from .handshake import HandshakeResult
    from .link import Link
    from .multiplexer import Multiplexer
    from .worker_bridge.link_bridge import LinkBridge


class Lane:
    """The ring pair of one connection with the descriptors that its worker gets."""

    def __init__(self, size: int, ring_id: int, fence: Fence, bell: Bell) -> None:
        self._tx_segment = Segment.create(size, ring_id << 1)
        try:
            self._rx_segment = Segment.create(size, ring_id << 1 | 1)
        except BaseException:
            self._tx_segment.close()
            raise
        self.tx = RingReader(self._tx_segment, fence, bell)
        self.rx = RingWriter(self._rx_segment, fence, bell)

    @property
    def fds(self) -> tuple[int, ...]:
        """(tx, rx), behind a bell if it has its own, as `Lanes` orders them; they stay ours."""
        return self._tx_segment.fileno(), self._rx_segment.fileno()

    @property
    def is_taken(self) -> bool:
        """Whether the worker has opened its ends."""
        return self.rx.peer_state != "new"

    def close(self) -> None:
        """Give both back."""
        self.tx.close()
        self.rx.close()


class SubstreamLane(Lane):
    """A ring pair with a doorbell of its own at our end, so that the multiplexer's is never rung for it."""

    def __init__(self, size: int, ring_id: int, fence: Fence, bell: Bell) -> None:
        super().__init__(size, ring_id, fence, bell)
        try:
            self.doorbell = Doorbell.create(fence)
        except BaseException:
            super().close()
            raise

    @property
    def fds(self) -> tuple[int, ...]:
        return *self.doorbell.fds, *super().fds

    def close(self) -> None:
        super().close()
        self.doorbell.close()


class Attempt:
    """One life of the link: from the greeting to its end. Everything in it is made anew for the next one."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.result: HandshakeResult | None = None  # set by the greeting
        self.dialled = ""  # where the peer answered our dial
        self.multiplexer: Multiplexer | None = None  # set behind it
        self.lanes: dict[int, Lane] = {}
        # Of bulk connections, by their numbers. Who took the other lanes of an attempt reads of these before those of
        # the next, so nobody has to wait for them to be taken.
        self.bulk_lanes: dict[int, Lane] = {}
        self.is_orphaned = False  # a worker that was to take its lanes has died
        self.control_lane: Lane | None = None
        self.substream_lane: SubstreamLane | None = None  # only where the link carries substreams
        self.bridge: LinkBridge | None = None  # on that lane, while the link is up
        self.failure: HandshakeRejected | ShmError | None = None  # why there will be no link at all
        self.greeted = asyncio.Event()  # set when `result` or `failure` is, and when the attempt is given up
        loop = asyncio.get_running_loop()
        self.up: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[tuple[bool, str]] = loop.create_future()

    def set_ended(self, clean: bool, cause: str) -> None:
        """The multiplexer is done."""
        if not self.ended.done():
            self.ended.set_result((clean, cause))

    @property
    def is_taken(self) -> bool:
        """Whether the workers have opened the rings of all lanes, or one of them never will. The substream lane comes
        with the control lane, and what its peer sent has a moment to be taken."""
        if self.bridge is not None and not self.bridge.is_over:
            return False
        lanes = [*self.lanes.values(), *([] if self.control_lane is None else [self.control_lane])]
        return self.is_orphaned or all(lane.is_taken for lane in lanes)

    def end_bridge(self, clean: bool, cause: str) -> None:
        """The link is over: the opener hears it on the substream lane, too; if it is `clean`, behind all that came."""
        if self.bridge is not None and clean:
            self.bridge.finish()
        elif self.bridge is not None:
            self.bridge.abort(cause or "the link is lost")

    def close(self) -> None:
        """Give sockets and rings back."""
        self.greeted.set()
        self.end_bridge(False, "the link is over")
        if self.multiplexer is not None:
            self.multiplexer.close()
        for lane in (*self.lanes.values(), *self.bulk_lanes.values()):
            lane.close()
        if self.control_lane is not None:
            self.control_lane.close()
        if self.substream_lane is not None:
            self.substream_lane.close()
