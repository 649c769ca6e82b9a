"""An AddressBook in memory: for tests, examples, and nodes that begin anew with every start.

Between the connections and what the program told about peers. The one invariant: at most `peers_max` peers are kept;
beyond, the one that was heard of longest ago and is not banned is forgotten. An address that was told is never
forgotten for one that a peer claims.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from .claims import ADDRESSES_MAX

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from ..multiaddr import Multiaddr
    from .claims import PeerClaim
    from .contract import Ban
    from .peer_id import PeerId
    from .selection import Selection

PEERS_MAX: Final = 10_000


@dataclass(slots=True)
class _Tried:
    """How one address served."""

    is_told: bool
    succeeded_at: float = 0.0
    failures: int = 0  # since it last succeeded
    latency_s: float = 0.0

    @property
    def rank(self) -> tuple[int, float, float]:
        """Smaller is better: what served last, then what was never tried, then what failed least often."""
        return self.failures, 0.0 if self.succeeded_at else 1.0, self.latency_s


@dataclass(slots=True)
class _Known:
    """One peer."""

    claim: PeerClaim | None = None
    ban: Ban | None = None
    addresses: dict[Multiaddr, _Tried] = field(default_factory=dict)


class MemoryAddressBook:
    """See `contract.AddressBook`."""

    def __init__(self, peers_max: int = PEERS_MAX, clock: Callable[[], float] = time.time) -> None:
        self._peers_max = peers_max
        self._clock = clock
        self._peers: dict[PeerId, _Known] = {}  # the one heard of last is at the end
        self._of_noise_key: dict[bytes, PeerId] = {}

    def add(self, peer_id: PeerId, addresses: Sequence[Multiaddr]) -> None:
        """Tell where a peer may be dialled, beside what is known already."""
        known = self._known(peer_id)
        for address in addresses[:ADDRESSES_MAX]:
            known.addresses.setdefault(address, _Tried(is_told=True)).is_told = True

    def claim_of(self, peer_id: PeerId) -> PeerClaim | None:
        known = self._peers.get(peer_id)
        return None if known is None else known.claim

    def peer_of_noise_key(self, noise_key: bytes) -> PeerId | None:
        return self._of_noise_key.get(noise_key)

    def addresses_of(self, peer_id: PeerId) -> Sequence[Multiaddr]:
        known = self._peers.get(peer_id)
        if known is None:
            return ()
        return sorted(known.addresses, key=lambda address: known.addresses[address].rank)

    def find(self, selection: Selection, limit: int, chance: random.Random) -> Sequence[PeerId]:
        found = [
            peer_id
            for peer_id, known in self._peers.items()
            if known.addresses and selection.fits(peer_id, known.claim) and self.ban_of(peer_id) is None
        ]
        return selection.choose(found, limit, chance)

    def learn(self, claim: PeerClaim) -> None:
        known = self._known(claim.peer_id)
        if known.claim is not None:
            if known.claim.updated_at > claim.updated_at:
                return
            self._of_noise_key.pop(known.claim.noise_key, None)
        known.claim = claim
        self._of_noise_key[claim.noise_key] = claim.peer_id
        claimed = {address: _Tried(is_told=False) for address in claim.addresses}
        known.addresses = claimed | {
            address: tried for address, tried in known.addresses.items() if tried.is_told or address in claimed
        }

    def dial_succeeded(self, peer_id: PeerId, address: Multiaddr, latency_s: float) -> None:
        if (tried := self._tried(peer_id, address)) is not None:
            tried.succeeded_at = self._clock()
            tried.failures = 0
            tried.latency_s = latency_s

    def dial_failed(self, peer_id: PeerId, address: Multiaddr, cause: str) -> None:
        if (tried := self._tried(peer_id, address)) is not None:
            tried.failures += 1

    def ban_of(self, peer_id: PeerId) -> Ban | None:
        known = self._peers.get(peer_id)
        if known is None or known.ban is None or known.ban.until <= self._clock():
            return None
        return known.ban

    def ban(self, peer_id: PeerId, ban: Ban) -> None:
        known = self._known(peer_id)
        if known.ban is None or known.ban.until < ban.until:
            known.ban = ban

    def unban(self, peer_id: PeerId) -> bool:
        was_banned = self.ban_of(peer_id) is not None
        if was_banned:
            self._peers[peer_id].ban = None
        return was_banned

    def _known(self, peer_id: PeerId) -> _Known:
        known = self._peers.pop(peer_id, None)
        if known is None:
            known = _Known()
            if len(self._peers) >= self._peers_max:
                self._forget_one()
        self._peers[peer_id] = known
        return known

    def _forget_one(self) -> None:
        peer_id = next((one for one in self._peers if self.ban_of(one) is None), next(iter(self._peers)))
        claim = self._peers.pop(peer_id).claim
        if claim is not None:
            self._of_noise_key.pop(claim.noise_key, None)

    def _tried(self, peer_id: PeerId, address: Multiaddr) -> _Tried | None:
        known = self._peers.get(peer_id)
        return None if known is None else known.addresses.get(address)
