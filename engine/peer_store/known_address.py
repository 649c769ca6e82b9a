"""One address of a peer with what dialling it brought, and which of several is dialled first. Without I/O or clock.

The one invariant: merging knows no order. Whatever two stores know of an address, both end with the same, however often
and in which direction they tell each other. Times are seconds since the epoch.

The score is that of Tari Comms: nothing for an address that was never dialled; 0 after a failure; else 800, and up to
100 for its latency (one less for each 100 ms), and from 100 down to -700 for the seconds since it was seen. Theirs
dials what failed before what it never tried; `dial_order` does not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..multiaddr import Multiaddr

ADDRESSES_MAX: Final = 10
"""Addresses of one peer that are kept: what Tari Comms keeps, and two more than a peer may claim."""

ADDRESS_SIZE_MAX: Final = 320
"""Bytes of one address: those of the longest that a peer may claim."""

ADDRESSES_CACHED: Final = 4096
"""Addresses whose bytes are remembered, and bytes whose address is: a few MiB, and most of the time of reading."""

FAILURE_SIZE_MAX: Final = 200
"""Bytes of the cause of a failure: a sentence."""

SAMPLES_MAX: Final = 100
"""The weight of the past in the mean latency: after so many dials a further one counts for a hundredth."""

COUNT_MAX: Final = 2**32 - 1
"""Attempts and failures are counted up to here."""

LATENCY_MAX_S: Final = 3600.0
TIME_MAX: Final = 2.0**40
"""The year 36812: what is beyond it is no time."""

SCORE_MIN: Final = 0.0
SCORE_MAX: Final = 1000.0

_SCORE_BASE: Final = 800.0
_LATENCY_POINTS: Final = 100.0
_FRESH_POINTS: Final = 100.0
_STALE_POINTS: Final = -700.0


class Source(IntEnum):
    """From whom we have an address; of two the greater is kept. The number is on disk."""

    OTHER_PEER = 1  # a peer told us about another one
    DISCOVERY = 2  # found by a search
    CLAIM = 3  # the peer signed it
    CONFIG = 4  # a person said so; such an address is never dropped for others


@dataclass(frozen=True, slots=True)
class KnownAddress:
    """An address and its past. Checked when it is made.

    Raises:
        ValueError: a number or text is outside its bounds.
    """

    address: Multiaddr
    source: Source
    last_seen: float | None = None
    """When the peer was last reached there."""
    last_attempt: float | None = None
    """When it was last dialled."""
    attempts: int = 0
    """Dials ever."""
    failures: int = 0
    """Dials that failed since the last one that did not."""
    latency_s: float = 0.0
    """Mean time that a dial took which reached the peer; 0 without `samples`."""
    samples: int = 0
    """Dials that the mean is of, at most SAMPLES_MAX."""
    last_failure: str = ""
    """Why the last dial failed; empty if it did not."""
    encoded: bytes = field(init=False, repr=False, compare=False)
    """The bytes of the address, which sorting and storing ask for again and again."""

    def __post_init__(self) -> None:
        for time in (self.last_seen, self.last_attempt):
            check_time(time)
        if not (0 <= self.failures <= self.attempts <= COUNT_MAX and 0 <= self.samples <= SAMPLES_MAX):
            raise ValueError("counts of an address that cannot be")
        if not (math.isfinite(self.latency_s) and 0 <= self.latency_s <= LATENCY_MAX_S):
            raise ValueError(f"a latency of {self.latency_s} s")
        if (self.latency_s != 0) > (self.samples != 0):
            raise ValueError("a latency without a sample")
        if self.last_failure and bounded_text(self.last_failure, FAILURE_SIZE_MAX) != self.last_failure:
            raise ValueError("the cause of a failure is too long, or cannot be printed")
        object.__setattr__(self, "encoded", _encoded(self.address))
        if len(self.encoded) > ADDRESS_SIZE_MAX:
            raise ValueError(f"an address has at most {ADDRESS_SIZE_MAX} bytes")

    def succeeded(self, now: float, latency_s: float) -> KnownAddress:
        """The peer was reached there, after `latency_s`."""
        samples = min(self.samples + 1, SAMPLES_MAX)
        latency_s = min(max(latency_s, 0.0), LATENCY_MAX_S)
        mean = self.latency_s + (latency_s - self.latency_s) / samples
        return replace(
            self,
            last_seen=now,
            last_attempt=now,
            attempts=min(self.attempts + 1, COUNT_MAX),
            failures=0,
            latency_s=min(max(mean, 0.0), LATENCY_MAX_S),
            samples=samples,
            last_failure="",
        )

    def failed(self, now: float, cause: str) -> KnownAddress:
        """The peer was not reached there."""
        return replace(
            self,
            last_attempt=now,
            attempts=min(self.attempts + 1, COUNT_MAX),
            failures=min(self.failures + 1, COUNT_MAX),
            last_failure=bounded_text(cause, FAILURE_SIZE_MAX) or "failed",
        )

    def score(self, now: float) -> float | None:
        """How well it served, SCORE_MIN to SCORE_MAX; None if it was never tried."""
        if self.failures:
            return SCORE_MIN
        if self.last_seen is None:
            return None
        latency = max(0.0, _LATENCY_POINTS - self.latency_s * 10) if self.samples else _LATENCY_POINTS
        age_s = max(0.0, now - self.last_seen)
        return _SCORE_BASE + latency + max(_STALE_POINTS, _FRESH_POINTS - age_s)

    def merged(self, other: KnownAddress) -> KnownAddress:
        """What both know of the same address."""
        latest = max(self, other, key=_attempt_key)
        surer = max(self, other, key=lambda one: (one.samples, -one.latency_s))
        return KnownAddress(
            address=self.address,
            source=max(self.source, other.source),
            last_seen=latest_time(self.last_seen, other.last_seen),
            last_attempt=latest.last_attempt,
            attempts=max(self.attempts, other.attempts),
            failures=latest.failures,
            latency_s=surer.latency_s,
            samples=surer.samples,
            last_failure=latest.last_failure,
        )


def dial_order(addresses: Iterable[KnownAddress], now: float) -> tuple[KnownAddress, ...]:
    """Those that served, by score; then those never tried; then those that failed, the fewest times in a row first."""
    return tuple(sorted(addresses, key=lambda one: _rank(one, now)))


def merged_addresses(
    first: Iterable[KnownAddress], second: Iterable[KnownAddress], now: float
) -> tuple[KnownAddress, ...]:
    """All addresses of both, in the order in which they are dialled; of too many the first ones, those of a person
    before all others."""
    merged: dict[Multiaddr, KnownAddress] = {}
    for one in (*first, *second):
        there = merged.get(one.address)
        merged[one.address] = one if there is None else there.merged(one)
    return best_addresses(merged.values(), now)


def best_addresses(addresses: Iterable[KnownAddress], now: float) -> tuple[KnownAddress, ...]:
    """The best ADDRESSES_MAX of them, in the order in which they are dialled."""
    kept = sorted(addresses, key=lambda one: (one.source != Source.CONFIG, _rank(one, now)))[:ADDRESSES_MAX]
    return dial_order(kept, now)


def latest_time(first: float | None, second: float | None) -> float | None:
    """The later of two times, of which any may never have been."""
    if first is None or second is None:
        return first if second is None else second
    return max(first, second)


def check_time(time: float | None) -> None:
    """Raises:
    ValueError: this is no time.
    """
    if time is not None and not (math.isfinite(time) and 0 <= time <= TIME_MAX):
        raise ValueError(f"{time} is not a time in seconds since the epoch")


def bounded_text(text: str, size_max: int) -> str:
    """`text` on one line, without what cannot be printed, cut to `size_max` bytes of UTF-8."""
    text = "".join(character if character.isprintable() else " " for character in text[: size_max + 1])
    return text.strip().encode("utf-8", "replace")[:size_max].decode("utf-8", "ignore").strip()


@lru_cache(ADDRESSES_CACHED)
def _encoded(address: Multiaddr) -> bytes:
    return address.encode()


def _rank(one: KnownAddress, now: float) -> tuple[int, float, float, bytes]:
    """Less is better; never equal for two addresses."""
    if one.failures:
        return 2, one.failures, one.last_attempt or 0.0, one.encoded
    score = one.score(now)
    if score is None:
        return 1, -one.source, 0.0, one.encoded
    return 0, -score, 0.0, one.encoded


def _attempt_key(one: KnownAddress) -> tuple[float, int, str]:
    """Whose last attempt is the later one; the rest only makes it the same from both sides."""
    return -1.0 if one.last_attempt is None else one.last_attempt, one.failures, one.last_failure
