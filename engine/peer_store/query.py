"""Which peers are asked for, in what order, and where in the store those near an id are. Without I/O or clock."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from ..peers.peer_id import PEER_ID_SIZE, PeerId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .codec import RecordHead
    from .record import PeerRecord

ID_BITS: Final = 8 * PEER_ID_SIZE

PREFIX_DIGITS_MIN: Final = 4
"""Hexadecimal digits that an id may be shortened to where exactly one peer is meant."""


class Order(Enum):
    """In which order peers are given. Peers that were never seen come last, whatever the order of the others."""

    ID = "id"
    SEEN = "seen"  # the one that was seen last comes first
    ADDED = "added"  # the newest comes first


@dataclass(frozen=True, slots=True)
class PeerFilter:
    """Which peers. Everything that is given has to hold."""

    features: int = 0
    """All of these bits are in its claim."""
    protocol: str = ""
    """Its claim names this protocol."""
    seen_since: float | None = None
    """It was seen at this time or later, in seconds since the epoch."""
    has_address: bool = False
    """Some address of it is known."""
    exclude: frozenset[PeerId] = frozenset()
    is_banned: bool | None = False
    """Banned ones only, the others only, or (None) both."""
    is_deleted: bool | None = False
    """Removed ones only, the others only, or (None) both."""
    where: Callable[[PeerRecord], bool] | None = None
    """Anything else. It may not call the store."""

    def may_match(self, head: RecordHead, is_banned: bool) -> bool:
        """Whether the rest of the record is worth reading."""
        return (
            head.features & self.features == self.features
            and (self.seen_since is None or head.seen_at >= max(self.seen_since, 0.0))
            and self.is_banned in (None, is_banned)
            and self.is_deleted in (None, head.deleted_at >= 0)
            and (not self.exclude or PeerId(head.raw) not in self.exclude)
        )

    def matches(self, record: PeerRecord) -> bool:
        """Whether a record fits whose head may match."""
        return (
            (not self.has_address or bool(record.addresses))
            and (not self.protocol or self.protocol in record.protocols)
            and (self.where is None or self.where(record))
        )


EVERYBODY: Final = PeerFilter()
"""All peers that were neither removed nor banned."""


def sort_key(order: Order) -> Callable[[RecordHead], tuple[float, bytes]]:
    """What heads are sorted by."""
    if order is Order.SEEN:
        return lambda head: (-head.seen_at, head.raw)  # never is -1.0, and so behind all others
    if order is Order.ADDED:
        return lambda head: (-head.added_at, head.raw)
    return lambda head: (0.0, head.raw)


def prefix_range(prefix: str) -> tuple[bytes, bytes]:
    """The least and the greatest id that begin with these hexadecimal digits.

    Raises:
        ValueError: these are no such digits, or too many.
    """
    digits = 2 * PEER_ID_SIZE
    if len(prefix) > digits or not all(digit in "0123456789abcdefABCDEF" for digit in prefix):
        raise ValueError(f"{prefix[:40]!r} is not the beginning of an id: at most {digits} hexadecimal digits")
    return bytes.fromhex(prefix.ljust(digits, "0")), bytes.fromhex(prefix.ljust(digits, "f"))


def common_bits(first: bytes, second: bytes) -> int:
    """How many bits two ids begin with alike."""
    return ID_BITS - (int.from_bytes(first, "big") ^ int.from_bytes(second, "big")).bit_length()


def rings_around(target: PeerId, deepest: int = ID_BITS) -> Iterator[tuple[bytes, bytes]]:
    """Ranges of ids, (least, greatest), that together are all ids, each nearer to `target` by XOR than all behind it.

    Ids that have exactly k leading bits in common with the target lie beside each other, and are all nearer than those
    with fewer. `deepest`: begin with this k, because nobody has more; ID_BITS begins with the target itself.
    """
    if deepest >= ID_BITS:
        yield target.raw, target.raw
        deepest = ID_BITS - 1
    number = int.from_bytes(target.raw, "big")
    for common in range(deepest, -1, -1):
        free = ID_BITS - common - 1
        least = ((number >> free) ^ 1) << free
        greatest = least | ((1 << free) - 1)
        yield least.to_bytes(PEER_ID_SIZE, "big"), greatest.to_bytes(PEER_ID_SIZE, "big")
