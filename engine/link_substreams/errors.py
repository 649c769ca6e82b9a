"""What can go wrong with the substreams of a link, beside what substreams and peers raise."""

from __future__ import annotations

from ..errors import PartyWireError


class NoControlPlane(PartyWireError):
    """Raised when a substream to the peer of a link is wanted, and the peer takes none: its link carries sessions and
    nothing else."""

    def __init__(self, peer: str) -> None:
        super().__init__(peer)
        self.peer = peer

    def __str__(self) -> str:
        return (
            f"the link to {self.peer} carries no substreams: {self.peer} has no [node] table; add one to its "
            "configuration and start it again"
        )
