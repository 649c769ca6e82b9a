"""What a worker knows about the link to one peer, and what it counts.

Between the worker, which keeps it true, and the party and sessions, which look at it. The one invariant: `cause` is
empty and `is_closed` false exactly as long as new sessions with this peer may work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from partywire.engine.frames import Frame
    from partywire.engine.iris_options import IrisOptions
    from partywire.shm.doorbell import Bell

    from .control_lane import ControlLane
    from .lane import Lane
    from .party_node.lane import SubstreamLane


@dataclass(slots=True)
class WorkerCounters:
    """What happened that is no error but should not be frequent."""

    parked: int = 0
    dropped_stale: int = 0
    dropped_unknown: int = 0
    sleeps: int = 0
    bells_missed: int = 0


class PeerLink:
    """The link to one peer, over all its epochs. Passive; the worker drives it."""

    __slots__ = (
        "bell",
        "bulk_failure",
        "cause",
        "connection_count",
        "control",
        "epoch",
        "index",
        "iris",
        "is_closed",
        "lanes",
        "name",
        "parked",
        "parked_bulk",
        "peer_workers",
        "substreams",
    )

    def __init__(self, index: int, name: str, iris: IrisOptions | None = None) -> None:
        # Set when the link speaks iris-mpc's protocol, in which openers cannot talk to each other.
        self.iris: Final = iris
        self.index = index
        self.name = name
        self.epoch = 0
        # 0 until the link came up for the first time.
        self.connection_count = 0
        self.peer_workers = 0
        # Our connections of the present epoch.
        self.lanes: dict[int, Lane] = {}
        self.control: ControlLane | None = None
        # The opener's, where both ends have a control plane; it may be over.
        self.substreams: SubstreamLane | None = None
        # Wakes the I/O process of the link; shared by all its rings.
        self.bell: Bell | None = None
        # Why there is no link any more; empty while it is up or has not come up.
        self.cause = ""
        # Whether the peer said goodbye.
        self.is_closed = False
        # session id -> frames that came before the session was made here; those that came on a bulk connection apart.
        self.parked: dict[int, list[Frame]] = {}
        self.parked_bulk: dict[int, list[Frame]] = {}
        # Why a bulk connection that we asked for could not be made; empty since the last asking.
        self.bulk_failure = ""

    def parked_of(self, lane: Lane) -> dict[int, list[Frame]]:
        """Where frames of a lane wait for their sessions, which those of a lane of the wrong class never meet."""
        return self.parked_bulk if lane.is_bulk else self.parked

    @property
    def is_up(self) -> bool:
        """Whether new sessions with this peer may work."""
        return bool(self.connection_count) and not self.cause and not self.is_closed
