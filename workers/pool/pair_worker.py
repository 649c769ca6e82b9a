"""The worker behind one channel of a pool: one link, one lane, and a reader that may pause.

Between the channel and everything that a worker is for a party (`worker`). The one invariant: while it is paused
nothing is taken from the lane's ring, so that fills, the pair engine stops reading the connection, and TCP holds the
peer.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from partywire.engine.pairing.meeting import with_peer_name

from ..link_life import LinkLife
from ..worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from partywire.engine.records import StreamEnd

    from ..lane import Lane
    from ..peer_link import PeerLink


class PairLinkLife(LinkLife):
    """What ends the link is told in the names of its handshakes, of which nobody here knows, nor is to learn."""

    _worker: PairWorker

    def fail_lane(self, lane: Lane, cause: str, error: Exception | None = None) -> None:
        """As of any worker."""
        super().fail_lane(lane, with_peer_name(cause, lane.link.name), error)

    def end_control(self, link: PeerLink, end: StreamEnd) -> None:
        """As of any worker."""
        super().end_control(link, end._replace(cause=with_peer_name(end.cause, link.name)))

    def lose_link(self, link: PeerLink, cause: str) -> None:
        """As of any worker."""
        super().lose_link(link, with_peer_name(cause, link.name))

    def drop_lanes(self, link: PeerLink, cause: str) -> None:
        """As of any worker."""
        self._worker.resume()
        super().drop_lanes(link, cause)


class PairWorker(Worker):
    """Of a party of two: us, index 0, and the peer, index 1."""

    link_life_type = PairLinkLife
    _paused: Lane | None = None
    on_failure: Callable[[], None] | None = None
    """Called when the pair engine is gone."""

    @property
    def link(self) -> PeerLink:
        """The one link."""
        return self.links[1]

    @property
    def is_paused(self) -> bool:
        """Whether the present lane is not read."""
        return self._paused is not None

    def pause(self) -> None:
        """Leave what arrives where it is. The control lane is still read, so a loss is noticed."""
        for lane in self.link.lanes.values():
            if self._paused is None and lane in self._receivers:
                self._paused = lane
                self._receivers.remove(lane)

    def resume(self) -> None:
        """Take what has arrived, from the next pass on."""
        lane, self._paused = self._paused, None
        if lane is not None:
            self._receivers.append(lane)
            if self.loop_driver is not None:
                self.loop_driver.schedule()

    def fail(self, cause: str) -> None:
        """The pair engine is gone, which is the only way in which this happens."""
        super().fail("its pair engine, the process that serves its links, has ended; make a new pool")
        if self.on_failure is not None:
            self.on_failure()

    def close(self) -> None:
        """As any worker's; also when the loop that drove it was closed before."""
        driver = self.loop_driver
        if driver is None or not driver.loop.is_closed():
            super().close()
            return
        self.loop_driver = None
        with suppress(RuntimeError):  # whoever waits in that loop cannot be told any more
            super().close()
