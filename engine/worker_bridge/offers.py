"""How many substreams of peers wait for the opener, and how many it has taken, of each peer. Without I/O.

Between a bridge and its limits. The one invariant: at most OFFERS_MAX wait; and where a bridge leads to many peers, no
single one has more than its share of what waits, and of what there is.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .limits import OFFERS_MAX, OFFERS_SHARE_MAX, SUBSTREAMS_SHARE_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

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

    @contextmanager
    def held(self, peer: PeerId) -> Iterator[None]:
        """While a substream of this peer is with us."""
        with _counted(self._all, peer):
            yield

    @contextmanager
    def waiting(self, peer: PeerId) -> Iterator[None]:
        """While one of these waits for the opener."""
        with _counted(self._waiting, peer):
            yield


@contextmanager
def _counted(counter: Counter[PeerId], peer: PeerId) -> Iterator[None]:
    counter[peer] += 1
    try:
        yield
    finally:
        counter[peer] -= 1
        if not counter[peer]:
            del counter[peer]  # of peers that are gone nothing is kept
