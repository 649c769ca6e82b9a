"""What a link tells its owner, its events, and the times that make some of them due.

Between `link` and whoever drives one. Events are pulled, each once, in the order in which they came about.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from . import limits

if TYPE_CHECKING:
    from .errors import HandshakeRejected


@dataclass(frozen=True, slots=True)
class LinkTimeouts:
    """The times of a link, in seconds."""

    connect_s: float = limits.CONNECT_TIMEOUT_S
    handshake_s: float = limits.HANDSHAKE_TIMEOUT_S
    heartbeat_interval_s: float = limits.HEARTBEAT_INTERVAL_S
    heartbeat_timeout_s: float = limits.HEARTBEAT_TIMEOUT_S
    close_s: float = limits.CLOSE_TIMEOUT_S
    goodbye_grace_s: float = limits.GOODBYE_GRACE_S

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat_interval_s < self.heartbeat_timeout_s:
            raise ValueError("the heartbeat timeout must be longer than the heartbeat interval")
        if min(self.connect_s, self.handshake_s, self.close_s, self.goodbye_grace_s) <= 0:
            raise ValueError("times of a link must be positive")


@dataclass(frozen=True, slots=True)
class GreetingTimedOut:
    """The handshake took too long: its socket must be closed. The link awaits the next one."""


@dataclass(frozen=True, slots=True)
class LinkUp:
    """Every stream is attached."""


@dataclass(frozen=True, slots=True)
class PingDue:
    """A PING with this token must be sent on the control connection."""

    token: int


@dataclass(frozen=True, slots=True)
class PeerSaidGoodbye:
    """The peer sends nothing more; we should deliver what came and answer with our own goodbye."""


@dataclass(frozen=True, slots=True)
class LinkClosed:
    """The link is over as agreed; not `clean` when the peer did not finish within the close timeout."""

    clean: bool
    cause: str = ""


@dataclass(frozen=True, slots=True)
class LinkLost:
    """The link is over without a goodbye: every stream must be closed."""

    cause: str


@dataclass(frozen=True, slots=True)
class LinkRejected:
    """The two sides do not fit together: no use in trying again."""

    error: HandshakeRejected


LinkEvent: TypeAlias = (
    GreetingTimedOut | LinkUp | PingDue | PeerSaidGoodbye | LinkClosed | LinkLost | LinkRejected
)
