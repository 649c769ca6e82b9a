"""Whether the node is online, and how each peer stands to it. Without I/O.

Between the pool and the dialler, who tell, and who asks. The one invariant: `state` is that of the number of
connections that was told last, and every change of it is an event. Memory: FAILURES_MAX peers that were not reached.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum
from typing import TYPE_CHECKING, Final

from .events import NodeStateChanged

if TYPE_CHECKING:
    from .events import EventHub
    from .peer_id import PeerId

FAILURES_MAX: Final = 4096


class NodeState(Enum):
    """How many connections stand."""

    OFFLINE = "offline"
    """None."""
    DEGRADED = "degraded"
    """Fewer than `online_min`."""
    ONLINE = "online"


class PeerState(Enum):
    """How a peer stands to us."""

    UNKNOWN = "unknown"
    """Neither a claim nor an address of it is known."""
    KNOWN = "known"
    """It is not connected, and the last attempt to reach it, if there was one, did not fail."""
    DIALLING = "dialling"
    CONNECTED = "connected"
    FAILED = "failed"
    """It was not reached when it was dialled last, and was not connected since."""
    BANNED = "banned"


class Connectivity:
    """Of one node."""

    def __init__(self, online_min: int, hub: EventHub) -> None:
        self.state = NodeState.OFFLINE
        self._online_min = online_min
        self._hub = hub
        self._failures: OrderedDict[PeerId, str] = OrderedDict()  # the latest is at the end

    def count(self, connections: int) -> None:
        """So many connections stand now."""
        state = NodeState.ONLINE
        if connections < self._online_min:
            state = NodeState.DEGRADED if connections else NodeState.OFFLINE
        if state is not self.state:
            self.state = state
            self._hub.publish(NodeStateChanged(state, connections))

    def reached(self, peer_id: PeerId) -> None:
        """It is connected."""
        self._failures.pop(peer_id, None)

    def not_reached(self, peer_id: PeerId, cause: str) -> None:
        """Every attempt to dial it failed."""
        self._failures.pop(peer_id, None)
        self._failures[peer_id] = cause
        if len(self._failures) > FAILURES_MAX:
            self._failures.popitem(last=False)

    def failure_of(self, peer_id: PeerId) -> str | None:
        """Why it was not reached the last time; None if it was, or was not tried."""
        return self._failures.get(peer_id)
