"""What can go wrong with the substreams of a link, beside what substreams and peers raise."""

from __future__ import annotations

from ..errors import PartyWireError


class NoControlPlane(PartyWireError):
    """Raised when a substream to the peer of a link is wanted, and the peer takes none: its link carries sessions and
    nothing else."""

    def __init__(self, peer: str, is_foreign: bool = False) -> None:
        """`is_foreign`: whether the link speaks another protocol than our own."""
        super().__init__(peer, is_foreign)
        self.peer = peer
        self.is_foreign = is_foreign

    def __str__(self) -> str:
        if self.is_foreign:
            why = f"[compat.{self.peer}] has it speak a protocol that knows none"
            return f"the link to {self.peer} carries no substreams: {why}"
        return (
            f"the link to {self.peer} carries no substreams: {self.peer} has no [node] table; add one to its "
            "configuration and start it again"
        )
