"""Where the two halves of a connection's pump stand, and whom it tells.

Between `connection_pump` and whoever drives one.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from partywire.shm.errors import ShmError

    from .connection_pump import ConnectionPump


class Owner(Protocol):
    """What a pump tells its multiplexer."""

    def pump_ended(self, pump: ConnectionPump) -> None:
        """The peer's stream ended; everything before is in the ring."""

    def pump_failed(self, pump: ConnectionPump, cause: str) -> None:
        """The socket broke in either direction."""

    def pump_finished(self, pump: ConnectionPump) -> None:
        """The worker's FINISH was reached and everything before it is in the socket."""

    def pump_told(self, pump: ConnectionPump) -> None:
        """STREAM_END is in the ring (or nobody is left to read it): the pump has nothing more to receive."""

    def pump_has_more(self, pump: ConnectionPump) -> None:
        """The ring holds more than one turn's worth: serve it again once others had theirs."""

    def ring_broke(self, end: ConnectionPump, error: ShmError) -> None:
        """A worker wrote nonsense into a ring of this pump."""


class JoinedLane(Protocol):
    """A compiled lane of a worker in this process."""

    pump: ConnectionPump | None


class Incoming(Enum):
    """Where the socket -> ring half stands."""

    OPEN = "open"
    ENDED = "ended"  # end of file; whether that is clean is not known yet
    TELLING = "telling"  # STREAM_END waits for room in the ring
    TOLD = "told"  # STREAM_END is written, or nobody reads


class Outgoing(Enum):
    """Where the ring -> socket half stands."""

    OPEN = "open"
    FINISHED = "finished"  # FINISH came and everything before it was sent
    BROKEN = "broken"  # the socket takes nothing any more; records are thrown away until FINISH
