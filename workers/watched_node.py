"""What the opener hears of the process of its party's node: that it stands, died, stands again, or never will.

Between the supervisor's commands and whoever uses the node (party.node). The one invariant: a lane is handed on once,
in the order in which lanes came, or its descriptors are closed here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from partywire.engine.control_socket import close_all
from partywire.engine.node_commands import NodeFailed, NodeLane, NodeLost

from .errors import NodeUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from partywire.engine.commands import Message


class NodeWatch:
    """Of one party. Driven by what its supervisor says."""

    def __init__(self, party: str, *, has_node: bool) -> None:
        self._party = party
        self._has_node = has_node
        # Whether it stands; its lane is as good as its process.
        self.stands = False
        # Why there is none, though the configuration asks for one; and why its last process died.
        self._failure = ""
        self._last_cause = ""
        # Who wants the lane to it, with its descriptors to own, and word of the end of that lane.
        self.on_lane: Callable[[NodeLane, list[int]], object] | None = None
        self.on_lost: Callable[[NodeLost], object] | None = None

    def hear(self, message: Message, fds: list[int]) -> None:
        """Take in a command that concerns the node. Owns the descriptors."""
        match message:
            case NodeLane():
                self.stands = True
                if self.on_lane is not None:
                    self.on_lane(message, fds)
                    return
            case NodeLost():
                self.stands = False
                self._last_cause = message.cause
                if self.on_lost is not None:
                    self.on_lost(message)
            case NodeFailed():
                self._failure = message.message
            case _:
                pass
        close_all(fds)

    @property
    def is_awaited(self) -> bool:
        """Whether the party has a node that does not stand.

        Raises:
            NodeUnavailable: it never will.
        """
        if self._failure:
            raise NodeUnavailable(self._party, self._failure)
        return self._has_node and not self.stands

    def late_error(self, seconds: float) -> NodeUnavailable:
        """It does not stand, and the time is up."""
        why = self._last_cause or "is this machine busy, or Tor slow?"
        return NodeUnavailable(self._party, f"the node of {self._party} did not start within {seconds:g} s; {why}")
