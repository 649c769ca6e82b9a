"""What goes wrong in waiting for a substream; the rest is in `yamux.errors`."""

from __future__ import annotations

from ..errors import PartyWireError


class SubstreamTimeout(PartyWireError):
    """Raised when one wait of a reader or a writer took longer than its `timeout_s`. Nothing was lost: the call may be
    made again, and what `drain` waited for still goes out."""

    def __init__(self, peer: str, substream: int, what: str, seconds: float) -> None:
        super().__init__(peer, substream, what, seconds)
        self.peer = peer
        self.substream = substream
        self.what = what
        self.seconds = seconds

    def __str__(self) -> str:
        return (
            f"nothing happened for {self.seconds:g} s in an attempt to {self.what} substream {self.substream} "
            f"with {self.peer or 'the peer'}; try again, or reset it"
        )
