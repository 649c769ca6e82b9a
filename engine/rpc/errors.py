"""What a call can end with."""

from __future__ import annotations

from ..errors import PartyWireError
from .wire import RpcStatus

_ADVICE = {
    RpcStatus.UNSUPPORTED_METHOD: "; do both ends run the same version of the service?",
    RpcStatus.BUSY: "; try again later",
    RpcStatus.TIMEOUT: "; give it more time, or ask for less",
}


class RpcError(PartyWireError):
    """Raised by a call that the service answered with anything but OK, and by a handler that wants it to.

    `peer` and `method` are empty where a handler raises it; the client's end fills them in.
    """

    def __init__(self, status: RpcStatus, message: str = "", peer: str = "", method: str = "") -> None:
        super().__init__(status, message, peer, method)
        self.status = status
        self.message = message
        self.peer = peer
        self.method = method

    def __str__(self) -> str:
        who = f"{self.peer or 'the service'} answered {self.method or 'the call'}"
        why = f": {self.message}" if self.message else ""
        return f"{who} with {self.status.name}{why}{_ADVICE.get(self.status, '')}"


class RpcTimeout(RpcError):
    """Raised by a call that got no end in time, from neither side."""

    def __init__(self, message: str, peer: str, method: str) -> None:
        super().__init__(RpcStatus.TIMEOUT, message, peer, method)
        self.args = (message, peer, method)


class RpcLost(PartyWireError):
    """Raised by a call whose connection or substream was lost. Whether the service acted on it is not known."""

    def __init__(self, peer: str, method: str, cause: str) -> None:
        super().__init__(peer, method, cause)
        self.peer = peer
        self.method = method
        self.cause = cause

    def __str__(self) -> str:
        return f"the call of {self.method} at {self.peer} was lost, done or not: {self.cause}"
