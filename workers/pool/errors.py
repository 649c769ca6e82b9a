"""What only a pool raises; everything else is of workers/errors.py and workers/objects/errors.py.

    PartyWireError
    ├── ReceiveTimeout   (a TimeoutError too) nothing came in time; nothing is lost
    ├── SendTimeout      (a TimeoutError too) the peer has not taken a message in time
    ├── PoolInboxFull    (an InboxOverflow) what is asked for stands behind messages that nobody receives
    ├── OutboxFull       more was given to `asend` than may wait
    ├── PoolClosed       the pool was shut down
    ├── PoolFailed       (a PartyFailed) the process that serves the pool's links has ended
    └── PeerRefused      (a ConnectFailed) a peer and we do not accept each other's certificates

Fields hold names, ids, sizes and times. An id is shown only if it is short text or a number.
"""

from __future__ import annotations

from partywire.engine.errors import PartyWireError

from ..errors import ConnectFailed, InboxOverflow, PartyFailed, SessionError

__all__ = [
    "OutboxFull",
    "PeerRefused",
    "PoolClosed",
    "PoolFailed",
    "PoolInboxFull",
    "ReceiveTimeout",
    "SendTimeout",
    "show_id",
]

ID_SHOWN_MAX = 64


def show_id(msg_id: object) -> str:
    """A message id as text for an error."""
    if isinstance(msg_id, (str, int)):
        shown = repr(msg_id)
        if len(shown) <= ID_SHOWN_MAX:
            return shown
    return f"of type {type(msg_id).__name__}"


class ReceiveTimeout(PartyWireError, TimeoutError):
    """Raised when no message with the id came within the timeout. It can be received later, by the same call."""

    def __init__(self, peer: str, msg_id: str, seconds: float, why: str = "") -> None:
        super().__init__(peer, msg_id, seconds, why)
        self.peer = peer
        self.msg_id = msg_id
        self.seconds = seconds
        self.why = why

    def __str__(self) -> str:
        absent = f"; {self.peer} has not been met yet: {self.why}" if self.why else ""
        return f"no message with the id {self.msg_id} came from {self.peer} within {self.seconds:g} s{absent}"


class SendTimeout(PartyWireError, TimeoutError):
    """Raised when the peer has not taken a message within the timeout.

    `has_begun` says whether it has gone out, and so may still arrive; otherwise it never will.
    """

    def __init__(self, peer: str, seconds: float, has_begun: bool) -> None:
        super().__init__(peer, seconds, has_begun)
        self.peer = peer
        self.seconds = seconds
        self.has_begun = has_begun

    def __str__(self) -> str:
        what = "is on its way and may still arrive" if self.has_begun else "was not sent"
        return f"{self.peer} has not taken a message within {self.seconds:g} s; it {what}"


class PoolInboxFull(InboxOverflow):
    """Raised by a receive whose message is not there, while so much waits to be received that no more is read.

    `size` is what waits of all peers together. Nothing is lost: receive what is there, then ask again.
    """

    def __init__(self, peer: str, msg_id: str, size: int, limit: int) -> None:
        SessionError.__init__(self, peer, msg_id, size, limit)
        self.session = None
        self.peer = peer
        self.msg_id = msg_id
        self.size = size
        self.limit = limit
        self.setting = "inbox_mib"

    def __str__(self) -> str:
        return (
            f"the message {self.msg_id} of {self.peer} cannot arrive: {self.size} bytes that nobody has received fill "
            f"the inbox of {self.limit}. Receive them first, send less ahead, or raise inbox_mib"
        )


class OutboxFull(PartyWireError):
    """Raised by `asend` when too much waits to be sent to a peer already. Nothing was sent; `send` would wait."""

    def __init__(self, peer: str, size: int, limit: int) -> None:
        super().__init__(peer, size, limit)
        self.peer = peer
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"{self.size} bytes wait to be sent to {self.peer}, and outbox_mib allows {self.limit}; await send, which "
            "waits for its turn"
        )


class PoolClosed(PartyWireError):
    """Raised by every call on a pool that was shut down, and by those that were waiting then."""

    def __init__(self) -> None:
        super().__init__()

    def __str__(self) -> str:
        return "the pool was shut down"


class PoolFailed(PartyFailed):
    """Raised by every call on a pool whose own process, which serves its links, has ended. What had arrived can still
    be received; for everything else make a new pool. `cause` says what has happened."""

    def __init__(self, cause: str) -> None:
        PartyWireError.__init__(self, cause)
        self.name = "the pool"
        self.cause = cause

    def again(self) -> PoolFailed:
        """The same error as a fresh object, so that each call that meets it has its own traceback."""
        return PoolFailed(self.cause)

    def __str__(self) -> str:
        return f"the pool has failed: {self.cause}"


class PeerRefused(ConnectFailed):
    """Raised when who answers at a peer's address and we do not accept each other: a certificate is wrong, or only one
    end has certificates. Waiting would not help. `cause` says whose it is and why.

    The pool goes on trying: when the files are right, the same call, or `reconnect`, succeeds.
    """

    def __init__(self, peer: str, cause: str) -> None:
        PartyWireError.__init__(self, peer, cause)
        self.name = "the pool"
        self.causes = ((peer, cause),)
        self.seconds = None
        self.peer = peer
        self.cause = cause

    def __str__(self) -> str:
        return (
            f"no link with {self.peer}: {self.cause}. Waiting will not help: compare key, cert, ca_cert and the cert "
            "of add_client at both ends, put the right files in place, then call again"
        )
