"""What can go wrong between peers, as types with fields.

PartyWireError
├── PeerNotKnown            nobody told us where the peer is
├── PeerIsBanned            we do not want it
├── PeerNotReached          every attempt to connect to it failed
├── UpgradeFailed           one connection did not become that of a peer
│   └── PeerRefused         ... since one side refused the other, with a code
├── NegotiationTimedOut     the peer did not say in time what it serves
└── ConnectionsClosed       the node has ended
"""

from __future__ import annotations

from enum import IntEnum

from ..errors import PartyWireError


class RefusalCode(IntEnum):
    """Why a peer was refused behind the secure channel; the number is on the wire (docs/peers.md)."""

    IDENTITY = 1  # what it says about itself does not hold
    BANNED = 2
    FULL = 3  # no room for another connection at the moment
    DUPLICATE = 4  # there is a connection, which stays
    OURSELVES = 5  # both ends are the same peer
    NOT_ALLOWED = 6  # it is none of those that may dial us


class PeerNotKnown(PartyWireError):
    """Raised when a peer shall be dialled and no address of it is known."""

    def __init__(self, peer: str) -> None:
        super().__init__(peer)
        self.peer = peer

    def __str__(self) -> str:
        return f"no address of peer {self.peer} is known. Add one, or wait until the peer dials"


class PeerIsBanned(PartyWireError):
    """Raised when a peer shall be dialled, or dialled us, that is banned."""

    def __init__(self, peer: str, reason: str, until: float) -> None:
        super().__init__(peer, reason, until)
        self.peer = peer
        self.reason = reason
        self.until = until

    def __str__(self) -> str:
        return f"peer {self.peer} is banned: {self.reason or 'no reason was given'}. Unban it to connect all the same"


class PeerNotReached(PartyWireError):
    """Raised when every attempt to connect to a peer failed. `causes` are those of the last attempt, one for each
    address, the address before it."""

    def __init__(self, peer: str, attempts: int, causes: tuple[str, ...]) -> None:
        super().__init__(peer, attempts, causes)
        self.peer = peer
        self.attempts = attempts
        self.causes = causes

    def __str__(self) -> str:
        times = "once" if self.attempts == 1 else f"{self.attempts} times"
        return f"peer {self.peer} was not reached, tried {times}: {'; '.join(self.causes) or 'no address is left'}"


class UpgradeFailed(PartyWireError):
    """Raised when a stream did not become a connection of a peer: time, a broken stream, or bytes that are no such
    handshake."""

    def __init__(self, address: str, step: str, cause: str) -> None:
        super().__init__(address, step, cause)
        self.address = address
        self.step = step
        self.cause = cause

    def __str__(self) -> str:
        return f"the connection with {self.address} was given up at its {self.step}: {self.cause}"


class PeerRefused(UpgradeFailed):
    """Raised when one of the two ends refused the other, by what the other one proved or said."""

    def __init__(self, address: str, code: RefusalCode, cause: str, by_us: bool) -> None:
        PartyWireError.__init__(self, address, code, cause, by_us)
        self.address = address
        self.step = "identity exchange"
        self.code = code
        self.cause = cause
        self.by_us = by_us

    def __str__(self) -> str:
        who = f"we refused {self.address}" if self.by_us else f"{self.address} refused us"
        return f"{who} ({self.code.name}): {self.cause}"


class NegotiationTimedOut(PartyWireError):
    """Raised when a peer did not answer in time what it serves on a new substream, which was reset."""

    def __init__(self, peer: str, protocols: tuple[str, ...], timeout_s: float) -> None:
        super().__init__(peer, protocols, timeout_s)
        self.peer = peer
        self.protocols = protocols
        self.timeout_s = timeout_s

    def __str__(self) -> str:
        return f"peer {self.peer} did not say within {self.timeout_s:g} s whether it serves {', '.join(self.protocols)}"


class ConnectionsClosed(PartyWireError):
    """Raised by everything on connections after `aclose`."""

    def __str__(self) -> str:
        return "the node has ended, and its connections with it"
