"""What can go wrong with substreams, as types with fields.

    PartyWireError
    ├── LinkProtocolError           the peer broke the protocol of yamux: the session is over
    ├── SubstreamReset              one of the two sides gave the substream up
    ├── SubstreamClosed             we write behind our own end
    ├── SubstreamRefused            no further substream can be opened now, or ever
    └── SubstreamSessionOver        the connection below is gone, and all substreams with it
"""

from __future__ import annotations

from ..errors import PartyWireError


class SubstreamReset(PartyWireError):
    """Raised by reads and writes once a substream was reset; what had arrived and was not read is dropped."""

    def __init__(self, peer: str, substream: int, by_us: bool, cause: str = "") -> None:
        super().__init__(peer, substream, by_us, cause)
        self.peer = peer
        self.substream = substream
        self.by_us = by_us
        self.cause = cause

    def __str__(self) -> str:
        peer = self.peer or "the peer"
        ends = ("we", f" with {peer}") if self.by_us else (peer, "")
        why = f": {self.cause}" if self.cause else ""
        return f"{ends[0]} reset substream {self.substream}{ends[1]}{why}"


class SubstreamClosed(PartyWireError):
    """Raised by a write behind our own end of a substream. Reading goes on until the peer ends its side."""

    def __init__(self, peer: str, substream: int) -> None:
        super().__init__(peer, substream)
        self.peer = peer
        self.substream = substream

    def __str__(self) -> str:
        return (
            f"nothing can be written to substream {self.substream} with {self.peer or 'the peer'}: our side is closed"
        )


class SubstreamRefused(PartyWireError):
    """Raised when no substream can be opened: too many wait for the peer, all ids are used, or somebody is leaving."""

    def __init__(self, peer: str, cause: str, is_final: bool) -> None:
        super().__init__(peer, cause, is_final)
        self.peer = peer
        self.cause = cause
        self.is_final = is_final

    def __str__(self) -> str:
        advice = "Make the connection anew" if self.is_final else "Try again when one of them is over"
        return f"no further substream to {self.peer or 'the peer'}: {self.cause}. {advice}"


class SubstreamSessionOver(PartyWireError):
    """Raised by everything on a session whose connection ended or failed. What had arrived can still be read."""

    def __init__(self, peer: str, cause: str) -> None:
        super().__init__(peer, cause)
        self.peer = peer
        self.cause = cause

    def __str__(self) -> str:
        return f"the substreams with {self.peer or 'the peer'} are over: {self.cause}"
