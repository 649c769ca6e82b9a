"""What a yamux session tells its owner. Each is said once for a call; a substream that it names may be over since."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from .substream import Substream


@dataclass(frozen=True, slots=True)
class Offered:
    """The peer opened a substream; it waits for `accept`, or for `reset`."""

    substream: Substream


@dataclass(frozen=True, slots=True)
class Answered:
    """The peer accepted a substream of ours."""

    substream: Substream


@dataclass(frozen=True, slots=True)
class Readable:
    """Bytes arrived, or the peer's end."""

    substream: Substream


@dataclass(frozen=True, slots=True)
class Writable:
    """A substream that took less than it was given has room again."""

    substream: Substream


@dataclass(frozen=True, slots=True)
class WasReset:
    """The peer gave the substream up, or did not answer in time."""

    substream: Substream


@dataclass(frozen=True, slots=True)
class Over:
    """A substream is done with: reset, or ended by both sides and read to its end."""

    substream: Substream


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """A ping was answered."""

    seconds: float


@dataclass(frozen=True, slots=True)
class GoingAway:
    """The peer opens and accepts no further substream; those that are open go on."""


@dataclass(frozen=True, slots=True)
class SessionOver:
    """The session ended, and with it every substream. The connection is of no further use."""

    cause: str


Event: TypeAlias = Offered | Answered | Readable | Writable | WasReset | Over | RoundTrip | GoingAway | SessionOver
