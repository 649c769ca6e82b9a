"""How many substreams of peers wait for the opener, and how many it has taken, of each peer. Without I/O.

Between a bridge and its limits. The one invariant: at most OFFERS_MAX wait; and where a bridge leads to many peers, no
single one has more than its share of what waits, and of what there is.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .limits import OFFERS_MAX, OFFERS_SHARE_MAX, SUBSTREAMS_SHARE_MAX

if TYPE_CHECKING:
    from ..peers.peer_id import PeerId


class Offers:
    """Of one bridge."""

    def __init__(self, *, is_of_many: bool) -> None:
        """`is_of_many`: whether the bridge leads to more than one peer."""
        self._is_of_many = is_of_many
        self._all: Counter[PeerId] = Counter()
        self._waiting: Counter[PeerId] = Counter()

    def is_full_for(self, peer: PeerId) -> bool:
        """Whether a further substream of this peer is to be refused."""
        if self._waiting.total() >= OFFERS_MAX:
            return True
        is_greedy = self._waiting[peer] >= OFFERS_SHARE_MAX or self._all[peer] >= SUBSTREAMS_SHARE_MAX
        return self._is_of_many and is_greedy

    def held(self, peer: PeerId) -> Counted:
        """While a substream of this peer is with us."""
        return Counted(self._all, peer)

    def waiting(self, peer: PeerId) -> Counted:
        """While one of these waits for the opener."""
        return Counted(self._waiting, peer)


class Counted:
    """One more of a peer's, within its block, or from `begin` to `end`."""

    __slots__ = ("_counter", "_peer")

    def __init__(self, counter: Counter[PeerId], peer: PeerId) -> None:
        self._counter = counter
        self._peer = peer

    def begin(self) -> None:
        """It is one from now on."""
        self._counter[self._peer] += 1

    def end(self) -> None:
        """It is none any more."""
        self._counter[self._peer] -= 1
        if not self._counter[self._peer]:
            del self._counter[self._peer]  # of peers that are gone nothing is kept

    def __enter__(self) -> None:
        self.begin()

    def __exit__(self, *_: object) -> None:
        self.end()
