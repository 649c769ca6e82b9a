"""What can go wrong in the engine, as types with fields; `__str__` makes the sentence.

    PartyWireError
    ├── LocalProtocolError      we used a protocol core in a way that its state does not allow
    ├── LinkProtocolError       the peer sent bytes that the wire format does not allow
    │   └── FrameTooLarge       ... namely a size above a limit
    ├── HandshakeRejected       one side of a link refused the other, with a documented code
    ├── SetupMismatch           the parties entered the same round with different intentions
    └── SetupAborted            a party gave up a round that the others are in

Functions whose names end in `_untrusted` raise LinkProtocolError, HandshakeRejected or SetupMismatch only; another type
escaping from them is a bug. Arguments that no caller may pass are plain ValueErrors. Fields hold names, sizes, ids and
states, never payload, keys or nonces. All of these survive pickling: `args` are the fields, in order.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = [
    "FrameTooLarge",
    "HandshakeRejected",
    "LinkProtocolError",
    "LocalProtocolError",
    "PartyWireError",
    "RejectCode",
    "SetupAborted",
    "SetupMismatch",
]


class RejectCode(IntEnum):
    """Why a handshake was refused; the number is on the wire (docs/wire.md, REJECT)."""

    PROTOCOL = 1  # a message that the handshake does not allow at this point
    VERSION = 2  # the protocol versions differ
    UNKNOWN_PEER = 3  # the name is not one of our parties
    WRONG_IDENTITY = 4  # the name is not the one expected on this connection
    DUPLICATE_IDENTITY = 5  # the peer has our own name, or a second process uses the name of a linked one
    PARTY_SET = 6  # the lists of parties differ
    PARAMETERS = 7  # the parameters that must be equal differ, or cannot be joined
    EPOCH = 8  # the connection belongs to another life of the link
    TOKEN = 9  # the connection does not prove that it belongs to the link
    BUSY = 10  # no room for another connection at the moment; trying again later is right
    SECURITY = 11  # the two ends protect their link in different ways
    CREDENTIALS = 12  # the peer did not prove that it is who it must be


_ADVICE = {
    RejectCode.PROTOCOL: "Check that both addresses belong to PartyWire and both run the same version",
    RejectCode.VERSION: "Install the same PartyWire version at both parties",
    RejectCode.UNKNOWN_PEER: "Compare the [parties] tables of both configurations",
    RejectCode.WRONG_IDENTITY: "Compare names and addresses in the [parties] tables of both configurations",
    RejectCode.DUPLICATE_IDENTITY: "Give each party its own name and stop a party that is still running under this one",
    RejectCode.PARTY_SET: "Make the [parties] tables of both configurations equal, in the same order",
    RejectCode.PARAMETERS: "Make the settings that must be equal the same in both configurations",
    RejectCode.EPOCH: "The connection is of an earlier life of the link and is dialled again",
    RejectCode.TOKEN: "Something between the parties mixes up their connections; check proxies and addresses",
    RejectCode.BUSY: "Try again later",
    RejectCode.SECURITY: "Give [security] the same mode, pattern and cipher in both configurations",
    RejectCode.CREDENTIALS: "Compare certificates and keys of both configurations; `partywire check` says more",
}


class PartyWireError(Exception):
    """Root of every error that PartyWire raises on purpose."""


class LocalProtocolError(PartyWireError):
    """Raised when our own code asks a protocol core for something that its state does not allow.

    It is a bug in the caller, not the peer's fault.
    """

    def __init__(self, machine: str, state: str, event: str) -> None:
        super().__init__(machine, state, event)
        self.machine = machine
        self.state = state
        self.event = event

    def __str__(self) -> str:
        return f"{self.machine} in state {self.state} does not allow {self.event}; this is a bug, please report it"


class LinkProtocolError(PartyWireError):
    """Raised when a peer sends what the wire format does not allow. The link cannot go on."""

    def __init__(self, peer: str, what: str, seen: object, limit: object = None) -> None:
        super().__init__(peer, what, seen, limit)
        self.peer = peer
        self.what = what
        self.seen = seen
        self.limit = limit

    def __str__(self) -> str:
        allowed = "" if self.limit is None else f", allowed is {self.limit}"
        return (
            f"{self.peer or 'a stranger'} broke the wire protocol: {self.what}: {self.seen}{allowed}. "
            "The link is closed; check that both parties run the same PartyWire version"
        )


class FrameTooLarge(LinkProtocolError):
    """Raised when a peer announces a size above the limit. Nothing has been allocated for it."""

    def __init__(self, peer: str, what: str, seen: int, limit: int) -> None:
        super().__init__(peer, what, seen, limit)

    def __str__(self) -> str:
        return (
            f"{self.peer or 'a stranger'} announced {self.what} of {self.seen} bytes, the limit is {self.limit}. "
            "The link is closed; use the same limits at all parties"
        )


class HandshakeRejected(PartyWireError):
    """Raised at both ends when one of them refuses the other. Only BUSY and EPOCH are worth another try."""

    def __init__(self, peer: str, code: RejectCode, detail: str, by_us: bool) -> None:
        super().__init__(peer, code, detail, by_us)
        self.peer = peer
        self.code = code
        self.detail = detail
        self.by_us = by_us

    @property
    def is_transient(self) -> bool:
        """Whether the same handshake may succeed later without anybody changing a configuration."""
        return self.code in (RejectCode.BUSY, RejectCode.EPOCH)

    def __str__(self) -> str:
        who = f"we refused {self.peer or 'a stranger'}" if self.by_us else f"{self.peer or 'a stranger'} refused us"
        return f"{who} ({self.code.name}): {self.detail}. {_ADVICE[self.code]}"


class SetupMismatch(PartyWireError):
    """Raised at every party when two of them enter the same round with different intentions."""

    def __init__(self, round_: int, field: str, ours: object, theirs: object, peer: str) -> None:
        super().__init__(round_, field, ours, theirs, peer)
        self.round = round_
        self.field = field
        self.ours = ours
        self.theirs = theirs
        self.peer = peer

    def __str__(self) -> str:
        if self.field == "kind":
            return (
                f"{self.peer} is in {self.theirs}, we are in {self.ours} (round {self.round}). "
                "All parties must run the same program"
            )
        return (
            f"{self.field} is {self.theirs!r} at {self.peer} but {self.ours!r} here (round {self.round}). "
            "All parties must run the same job with the same settings"
        )


class SetupAborted(PartyWireError):
    """Raised when a peer gives up a round that we are in or about to enter.

    `is_skipped`: the peer, whose link was lost, goes on behind that round, which it or another party has left already.
    """

    def __init__(self, round_: int, peer: str, reason: str, is_skipped: bool = False) -> None:
        super().__init__(round_, peer, reason, is_skipped)
        self.round = round_
        self.peer = peer
        self.reason = reason
        self.is_skipped = is_skipped

    def __str__(self) -> str:
        return f"{self.peer} gave up round {self.round}: {self.reason}"
