"""What goes wrong only where a party's control plane is not there.

PartyWireError
├── NodeNotConfigured    our own party has none
├── NoWayToPeer          a peer is none of the parties, and nobody here could dial it
└── NeedsAsyncio         what was asked for runs in an asyncio loop only, and none drives this party
"""

from __future__ import annotations

from partywire.engine.errors import PartyWireError


class NodeNotConfigured(PartyWireError):
    """Raised when a party is asked for its control plane and its configuration has none."""

    def __init__(self, party: str) -> None:
        super().__init__(party)
        self.party = party

    def __str__(self) -> str:
        return (
            f"party {self.party} has no control plane: add a table [node] with an `identity` to its configuration "
            "(docs/control-plane.md)"
        )


class NoWayToPeer(PartyWireError):
    """Raised when a peer that is no linked party is wanted, and no process of ours could dial it or keep it out."""

    def __init__(self, peer: str, cause: str) -> None:
        super().__init__(peer, cause)
        self.peer = peer
        self.cause = cause

    def __str__(self) -> str:
        return f"there is no way to peer {self.peer}: {self.cause}"


class NeedsAsyncio(PartyWireError):
    """Raised when messages, calls or events are asked of a party that no asyncio loop drives."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} needs an asyncio loop: open the party with `async with Party(...)`"
