"""What is known of one peer, and how two such records, or a record and news, become one. Without I/O or clock.

The one invariant: merging the same record again changes nothing, and which of two comes first does not matter, with two
exceptions: of metadata under the same key the newcomer's stays, and of an address that was dropped because there were
too many it is not remembered how it had served. Times are seconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Final

from ..peers.peer_id import PUBLIC_KEY_SIZE, PeerId
from .known_address import (
    ADDRESSES_MAX,
    KnownAddress,
    Source,
    best_addresses,
    bounded_text,
    check_time,
    latest_time,
    merged_addresses,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..multiaddr import Multiaddr
    from ..peers.claims import PeerClaim

FEATURES_MAX: Final = 2**32 - 1
PROTOCOLS_MAX: Final = 64
PROTOCOL_SIZE_MAX: Final = 255
USER_AGENT_SIZE_MAX: Final = 64
CLAIM_SIZE_MAX: Final = 8192
"""These five are what a claim may hold."""

METADATA_MAX: Final = 16
METADATA_SIZE_MAX: Final = 256
METADATA_KEY_MAX: Final = 255
"""Entries of metadata, bytes of one, and the greatest key: room for notes, not for data."""

NAME_KEY: Final = 1
"""Metadata under this key is the name that a person gave to the peer, UTF-8. Keys below 32 are PartyWire's."""

NAME_SIZE_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """All that is known of a peer but whether it is banned. Checked when it is made.

    Raises:
        ValueError: something breaks a limit, or does not fit together.
    """

    peer_id: PeerId
    added_at: float
    public_key: bytes = b""
    """Its identity key (Ed25519), of which the id follows; empty as long as only the id is known."""
    noise_key: bytes = b""
    """The static key of Noise in its claim; empty without a claim."""
    addresses: tuple[KnownAddress, ...] = ()
    """In the order in which they were best when the record was last changed; `dial_order` says how it is now."""
    seen_at: float | None = None
    """When it was last connected, whoever dialled."""
    features: int = 0
    protocols: tuple[str, ...] = ()
    user_agent: str = ""
    """These three as in its claim."""
    claimed_at: int = 0
    """When it signed its claim, by its clock; 0 without one."""
    claim: bytes = b""
    """The claim as the peer signed it."""
    metadata: tuple[tuple[int, bytes], ...] = ()
    """What users of the store keep beside a peer, by ascending keys."""
    deleted_at: float | None = None
    """When it was removed; it is no more found by queries, but comes back with its past when it is added again."""

    def __post_init__(self) -> None:
        for time in (self.added_at, self.seen_at, self.deleted_at):
            check_time(time)
        if self.public_key and PeerId.of_key(self.public_key) != self.peer_id:
            raise ValueError("the id does not follow from the public key")
        if len(self.noise_key) not in (0, PUBLIC_KEY_SIZE):
            raise ValueError(f"a key of Noise is {PUBLIC_KEY_SIZE} bytes")
        if len(self.addresses) > ADDRESSES_MAX or len({one.address for one in self.addresses}) < len(self.addresses):
            raise ValueError(f"at most {ADDRESSES_MAX} addresses, each once")
        if any(one.last_seen is not None and one.last_seen > (self.seen_at or 0.0) for one in self.addresses):
            raise ValueError("the peer was seen at an address after it was last seen")
        if not (0 <= self.features <= FEATURES_MAX and 0 <= self.claimed_at < 1 << 64):
            raise ValueError("features are 32 bits, the time of a claim 64")
        if len(self.protocols) > PROTOCOLS_MAX or not all(
            0 < len(one.encode()) <= PROTOCOL_SIZE_MAX and one.isprintable() for one in self.protocols
        ):
            raise ValueError(f"at most {PROTOCOLS_MAX} printable protocol ids of 1 to {PROTOCOL_SIZE_MAX} bytes")
        if len(self.user_agent.encode()) > USER_AGENT_SIZE_MAX or not self.user_agent.isprintable():
            raise ValueError(f"a user agent is printable and has at most {USER_AGENT_SIZE_MAX} bytes")
        if len(self.claim) > CLAIM_SIZE_MAX:
            raise ValueError(f"a claim has at most {CLAIM_SIZE_MAX} bytes")
        self._check_metadata()

    def _check_metadata(self) -> None:
        keys = [key for key, _ in self.metadata]
        if len(keys) > METADATA_MAX or keys != sorted(set(keys)) or (keys and not 0 <= keys[0] <= keys[-1] <= 255):
            raise ValueError(f"at most {METADATA_MAX} entries of metadata, by ascending keys up to {METADATA_KEY_MAX}")
        if any(len(value) > METADATA_SIZE_MAX for _, value in self.metadata):
            raise ValueError(f"an entry of metadata has at most {METADATA_SIZE_MAX} bytes")

    @classmethod
    def of_key(cls, public_key: bytes, now: float) -> PeerRecord:
        """A new peer of which only the key is known."""
        return cls(PeerId.of_key(public_key), now, public_key)

    @property
    def name(self) -> str:
        """What a person called it; empty if nobody did."""
        return bounded_text(dict(self.metadata).get(NAME_KEY, b"").decode("utf-8", "replace"), NAME_SIZE_MAX)

    @property
    def is_kept(self) -> bool:
        """Whether a person put it here, so that it is not dropped to make room for others."""
        return any(key == NAME_KEY for key, _ in self.metadata) or any(
            one.source == Source.CONFIG for one in self.addresses
        )

    def with_metadata(self, key: int, value: bytes) -> PeerRecord:
        """With an entry in the place of the one under `key`; empty: without one."""
        rest = {**dict(self.metadata), key: value}
        if not value:
            del rest[key]
        return replace(self, metadata=tuple(sorted(rest.items())))

    def with_addresses(self, addresses: Iterable[KnownAddress], now: float) -> PeerRecord:
        """With further addresses, or with more about those that are known."""
        merged = merged_addresses(self.addresses, addresses, now)
        seen_at = reduce(latest_time, (one.last_seen for one in merged), self.seen_at)
        return replace(self, addresses=merged, seen_at=seen_at)

    def reached(self, address: Multiaddr, now: float, latency_s: float) -> PeerRecord:
        """It was dialled at `address`, and answered. An address that is not known any more is not learnt by that."""
        tried = [one.succeeded(now, latency_s) if one.address == address else one for one in self.addresses]
        return replace(self, addresses=best_addresses(tried, now), seen_at=latest_time(self.seen_at, now))

    def not_reached(self, address: Multiaddr, now: float, cause: str) -> PeerRecord:
        """It was dialled at `address` in vain."""
        tried = [one.failed(now, cause) if one.address == address else one for one in self.addresses]
        return replace(self, addresses=best_addresses(tried, now))

    def seen(self, now: float) -> PeerRecord:
        """The peer was connected."""
        return replace(self, seen_at=latest_time(self.seen_at, now))

    def with_claim(self, claim: PeerClaim, now: float) -> PeerRecord:
        """With what the peer signed last: unless a later claim is there its addresses take the place of those that it
        claimed before. A removed peer is back."""
        encoded = claim.encode()
        if (self.claimed_at, self.claim) >= (claim.updated_at, encoded):
            return replace(self, deleted_at=None)
        stays = [one for one in self.addresses if one.source != Source.CLAIM or one.address in claim.addresses]
        claimed = [KnownAddress(address, Source.CLAIM) for address in dict.fromkeys(claim.addresses)]
        return replace(
            self,
            public_key=claim.public_key,
            noise_key=claim.noise_key,
            addresses=merged_addresses(stays, claimed, now),
            features=claim.features,
            protocols=claim.protocols,
            user_agent=claim.user_agent,
            claimed_at=claim.updated_at,
            claim=encoded,
            deleted_at=None,
        )


def merged_records(old: PeerRecord, new: PeerRecord, now: float) -> PeerRecord:
    """What two records know of the same peer.

    The earlier `added_at` and the later `seen_at` stay; what the peer claimed is that of the later claim; addresses are
    merged one by one (known_address.py); it is removed only if both say so.

    Raises:
        ValueError: they are of two peers.
    """
    if old.peer_id != new.peer_id:
        raise ValueError("records of two peers cannot be merged")
    later = max(old, new, key=_claim_key)
    removed = old.deleted_at is not None and new.deleted_at is not None
    return PeerRecord(
        peer_id=old.peer_id,
        added_at=min(old.added_at, new.added_at),
        public_key=old.public_key or new.public_key,
        noise_key=later.noise_key,
        addresses=merged_addresses(old.addresses, new.addresses, now),
        seen_at=latest_time(old.seen_at, new.seen_at),
        features=later.features,
        protocols=later.protocols,
        user_agent=later.user_agent,
        claimed_at=later.claimed_at,
        claim=later.claim,
        metadata=_merged_metadata(old, new),
        deleted_at=latest_time(old.deleted_at, new.deleted_at) if removed else None,
    )


def _merged_metadata(old: PeerRecord, new: PeerRecord) -> tuple[tuple[int, bytes], ...]:
    """The newcomer's, and of the others as many as fit, PartyWire's own first."""
    merged = dict(new.metadata)
    for key, value in old.metadata:
        if len(merged) < METADATA_MAX:
            merged.setdefault(key, value)
    return tuple(sorted(merged.items()))


def _claim_key(record: PeerRecord) -> tuple[int, bytes, bytes, int, tuple[str, ...], str]:
    """Whose claim is the later one; the rest only makes it the same from both sides."""
    return (
        record.claimed_at,
        record.claim,
        record.noise_key,
        record.features,
        record.protocols,
        record.user_agent,
    )
