"""Which of many peers: the nearest to an id, or any, with certain features and protocols. Without I/O.

Between who asks and whoever knows peers: the connections that stand, and an address book.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Collection

    from .claims import PeerClaim
    from .peer_id import PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What a peer must be like, and which of those that are come first."""

    near: PeerId | None = None
    """The nearest to this id by XOR, the nearest first; None: any, each as likely as any other."""
    features: int = 0
    """All of these bits are in its claim."""
    protocol: str = ""
    """Its claim names this protocol."""
    exclude: frozenset[PeerId] = frozenset()

    def fits(self, peer_id: PeerId, claim: PeerClaim | None) -> bool:
        """Whether a peer is one of them. Of one that never claimed anything nothing is known but its id."""
        if peer_id in self.exclude:
            return False
        if claim is None:
            return not self.features and not self.protocol
        return claim.features & self.features == self.features and (
            not self.protocol or self.protocol in claim.protocols
        )

    def choose(self, found: Collection[PeerId], limit: int, chance: random.Random) -> list[PeerId]:
        """At most `limit` of those that fit."""
        near = self.near
        if near is None:
            return chance.sample(list(found), min(limit, len(found)))
        return heapq.nsmallest(limit, found, key=near.distance)
