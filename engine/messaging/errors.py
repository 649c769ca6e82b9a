"""Why a message was not delivered."""

from __future__ import annotations

from ..errors import PartyWireError


class MessageNotDelivered(PartyWireError):
    """Raised for a message that was not acknowledged. `may_have_arrived` is False if it certainly did not."""

    def __init__(self, peer: str, cause: str, may_have_arrived: bool) -> None:
        super().__init__(peer, cause, may_have_arrived)
        self.peer = peer
        self.cause = cause
        self.may_have_arrived = may_have_arrived

    def __str__(self) -> str:
        what = "was not acknowledged, and may have arrived" if self.may_have_arrived else "was not delivered"
        return f"a message to {self.peer} {what}: {self.cause}"
