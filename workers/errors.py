"""What a user of PartyWire may have to handle, as types with fields; `__str__` makes the sentence.

    PartyWireError                  (engine/errors.py, with LinkProtocolError, HandshakeRejected, SetupMismatch ...)
    ├── ConfigError                 a configuration cannot be used; lists every problem with its key
    ├── AddressUnavailable          our own address cannot be listened on
    ├── NodeUnavailable             the peer-to-peer node of our own party cannot start
    ├── ConnectFailed               some peers could not be reached, each with its cause
    ├── PartyFailed                 our own party stopped working: a process of its family died
    │   └── WorkerDied              ... namely a compute process
    ├── SessionError                one session cannot go on (all below have its id and the epoch of the link)
    │   ├── PeerLost                the link to a peer broke without a goodbye
    │   ├── PeerClosed              the peer said goodbye and what it sent before has been received
    │   ├── PeerAborted             a party gave the session or its job up, with a reason
    │   ├── SessionTimeout          a deadline passed
    │   ├── SessionDesync           the two ends are not in the same job
    │   ├── SessionClosed           the session was closed or given up here
    │   └── InboxOverflow           peers sent more than we took and more than the budget holds
    ├── RendezvousTimeout           a peer did not come to a barrier, make_sessions or another common step
    ├── MessageTooLarge             a message is above the configured size
    ├── UnexpectedMessage           the next message is not what `recv(out=...)` or the receiver can take; it is kept
    ├── UnknownPeer                 no party of this name or index
    ├── UnsupportedByPeer           the protocol of the link to a peer has nothing for what was asked
    └── JobFailed                   a job of a batch failed at some party; the first failure with its cause

Fields hold names, ids, sizes and states, never payload or keys. All of them survive pickling: `args` are the fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from partywire.engine.errors import PartyWireError
from partywire.engine.limits import MESSAGE_SIZE_MAX, NAME_SIZE_MAX

if TYPE_CHECKING:
    from partywire.engine.errors import LinkProtocolError

    from .mailbox import Mailbox

__all__ = [
    "AddressUnavailable",
    "ConfigError",
    "ConnectFailed",
    "InboxOverflow",
    "JobFailed",
    "MessageTooLarge",
    "NodeUnavailable",
    "PartyFailed",
    "PartyWireError",
    "PeerAborted",
    "PeerClosed",
    "PeerLost",
    "RendezvousTimeout",
    "SessionClosed",
    "SessionDesync",
    "SessionError",
    "SessionTimeout",
    "UnexpectedMessage",
    "UnknownPeer",
    "UnsupportedByPeer",
    "WorkerDied",
]


class ConfigError(PartyWireError):
    """Raised when a configuration cannot be used. `problems` has every (key, what is wrong with it) at once."""

    def __init__(self, path: str, problems: tuple[tuple[str, str], ...]) -> None:
        super().__init__(path, problems)
        self.path = path
        self.problems = problems

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys at fault, in the order of the message."""
        return tuple(key for key, _ in self.problems)

    def __str__(self) -> str:
        listed = "; ".join(f"{key}: {what}" if key else what for key, what in self.problems)
        return f"{self.path or 'configuration'}: {listed}"


class AddressUnavailable(PartyWireError):
    """Raised when a party cannot listen on its own address, most often because another program does."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(name, message)
        self.name = name
        self.message = message

    def __str__(self) -> str:
        return self.message


class NodeUnavailable(PartyWireError):
    """Raised when the node of a party cannot start: its address is taken, its store in use, a file of it unusable."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(name, message)
        self.name = name
        self.message = message

    def __str__(self) -> str:
        return self.message


class ConnectFailed(PartyWireError):
    """Raised when a party could not be opened. `causes` has (peer, why) for each peer without a link."""

    def __init__(self, name: str, causes: tuple[tuple[str, str], ...], seconds: float | None = None) -> None:
        super().__init__(name, causes, seconds)
        self.name = name
        self.causes = causes
        self.seconds = seconds

    def __str__(self) -> str:
        listed = "; ".join(f"{peer}: {cause}" for peer, cause in self.causes)
        within = "" if self.seconds is None else f" within {self.seconds:g} s"
        return f"{self.name} could not connect{within} to {listed}"


class NoBulkConnection(PartyWireError):
    """Raised when sessions of the bulk class have no connection to a peer. The link stands, and so do its sessions."""

    def __init__(self, peer: str, cause: str) -> None:
        super().__init__(peer, cause)
        self.peer = peer
        self.cause = cause

    def __str__(self) -> str:
        return f"no bulk session with {self.peer}: {self.cause}"


class PartyFailed(PartyWireError):
    """Raised by every call on a party whose own processes no longer work."""

    def __init__(self, name: str, cause: str) -> None:
        super().__init__(name, cause)
        self.name = name
        self.cause = cause

    def __str__(self) -> str:
        return f"party {self.name} failed: {self.cause}. Close it and open it again"


class WorkerDied(PartyFailed):
    """Raised when a compute process of our own party ended before its work was done."""

    def __init__(self, name: str, index: int, cause: str) -> None:
        PartyWireError.__init__(self, name, index, cause)
        self.name = name
        self.index = index
        self.cause = cause

    def __str__(self) -> str:
        return f"worker {self.index} of party {self.name} died: {self.cause}"


class SessionError(PartyWireError):
    """Root of the errors after which one session cannot be used any more.

    `session` is None when the party as a whole met it, in a barrier for instance.
    """

    session: int | None

    def again(self) -> SessionError:
        """The same error as a fresh object, so that each call that meets it has its own traceback."""
        copy = type(self)(*self.args)
        copy.__cause__ = self.__cause__
        return copy


class PeerLost(SessionError):
    """Raised when the link to a peer broke: its process or host died, or the network between did; and, from the
    LinkProtocolError, when what a peer sent cannot be read."""

    def __init__(self, peer: str, session: int | None, epoch: int, cause: str) -> None:
        super().__init__(peer, session, epoch, cause)
        self.peer = peer
        self.session = session
        self.epoch = epoch
        self.cause = cause

    @classmethod
    def by_message(cls, mailbox: Mailbox, error: LinkProtocolError) -> PeerLost:
        """For a message that is whole and no value. It ends its session only: the link stands, and other sessions."""
        peer = mailbox.peer
        allowed = "" if error.limit is None else f", allowed is {error.limit}"
        what = f"a message of {peer} is malformed ({error.what}: {error.seen}{allowed})"
        cause = f"{what}; check that both parties run the same PartyWire version"
        lost = cls(peer, mailbox.session.id, mailbox.lane.epoch, cause)
        lost.__cause__ = error
        return lost

    def __str__(self) -> str:
        what = (
            f"the link to {self.peer} was lost" if self.session is None else f"session {self.session} lost {self.peer}"
        )
        return f"{what} (link epoch {self.epoch}): {self.cause}"


class PeerClosed(SessionError):
    """Raised when a peer ended its party, or its pool, in good order and nothing that it sent is left to receive."""

    def __init__(self, peer: str, session: int | None, epoch: int, what: str = "party") -> None:
        super().__init__(peer, session, epoch, what)
        self.peer = peer
        self.session = session
        self.epoch = epoch
        self.what = what

    def __str__(self) -> str:
        where = "" if self.session is None else f"session {self.session}: "
        return f"{where}{self.peer} has closed its {self.what}; no further message can come or go"


class PeerAborted(SessionError):
    """Raised when a peer gave up the session or its job."""

    def __init__(self, peer: str, session: int, reason: str) -> None:
        super().__init__(peer, session, reason)
        self.peer = peer
        self.session = session
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.peer} gave up session {self.session}: {self.reason or 'no reason given'}"


class SessionTimeout(SessionError):
    """Raised when a deadline passes. The session cannot be used afterwards: a late message must not be taken for the
    next one."""

    def __init__(self, session: int, peer: str, seconds: float, what: str) -> None:
        super().__init__(session, peer, seconds, what)
        self.session = session
        self.peer = peer
        self.seconds = seconds
        self.what = what

    def __str__(self) -> str:
        return f"session {self.session} gave up after {self.seconds:g} s {self.what} {self.peer}; reset it"


class SessionDesync(SessionError):
    """Raised when the two ends of a session are not in the same job: one sent or expects a message too many."""

    def __init__(self, session: int, peer: str, job: int, what: str) -> None:
        super().__init__(session, peer, job, what)
        self.session = session
        self.peer = peer
        self.job = job
        self.what = what

    def __str__(self) -> str:
        return (
            f"session {self.session} is out of step with {self.peer} in job {self.job}: {self.what}. "
            "All parties must run the same job"
        )


class SessionClosed(SessionError):
    """Raised when a session is used after `close`, `abort` or a failure that was ours."""

    def __init__(self, session: int, reason: str) -> None:
        super().__init__(session, reason)
        self.session = session
        self.reason = reason

    def __str__(self) -> str:
        return f"session {self.session} is closed: {self.reason}"


class InboxOverflow(SessionError):
    """Raised on the session whose message no longer fits: peers have sent more than we received.

    `size` is that of the message, `limit` what the inbox holds of all sessions together.
    """

    def __init__(self, session: int, peer: str, size: int, limit: int, setting: str) -> None:
        super().__init__(session, peer, size, limit, setting)
        self.session = session
        self.peer = peer
        self.size = size
        self.limit = limit
        self.setting = setting

    def __str__(self) -> str:
        return (
            f"session {self.session}: a message of {self.size} bytes from {self.peer} does not fit into the inbox, "
            f"which holds {self.limit} bytes of what nobody has received. Receive earlier, send less ahead, or raise "
            f"{self.setting}"
        )


class RendezvousTimeout(PartyWireError):
    """Raised when a peer does not come to a common step in time."""

    def __init__(self, kind: str, peers: tuple[str, ...], seconds: float) -> None:
        super().__init__(kind, peers, seconds)
        self.kind = kind
        self.peers = peers
        self.seconds = seconds

    def __str__(self) -> str:
        return f"{' and '.join(self.peers)} did not come to {self.kind} within {self.seconds:g} s"


class MessageTooLarge(PartyWireError):
    """Raised when a message to be sent is above what both ends allow. Nothing of it has been sent."""

    def __init__(self, session: int, peer: str, size: int, limit: int, setting: str) -> None:
        super().__init__(session, peer, size, limit, setting)
        self.session = session
        self.peer = peer
        self.size = size
        self.limit = limit
        self.setting = setting

    def __str__(self) -> str:
        what = f"session {self.session}: a message of {self.size} bytes to {self.peer} is above"
        if self.limit >= MESSAGE_SIZE_MAX:
            return f"{what} the {self.limit} bytes that any message can have; send pieces"
        return (
            f"{what} the limit of {self.limit}, the smaller {self.setting} of the two parties; raise it there, or send "
            "pieces"
        )


class UnexpectedMessage(PartyWireError):
    """Raised when the next message cannot be received as asked. The message stays first in line."""

    def __init__(self, session: int, peer: str, what: str) -> None:
        super().__init__(session, peer, what)
        self.session = session
        self.peer = peer
        self.what = what

    def __str__(self) -> str:
        return f"session {self.session}: the next message of {self.peer} {self.what}; receive it again in another way"


class UnknownPeer(PartyWireError):
    """Raised when a name or index is not that of another party."""

    def __init__(self, name: object, known: tuple[str, ...]) -> None:
        super().__init__(name, known)
        self.name = name
        self.known = known

    @classmethod
    def of(cls, given: object, known: tuple[str, ...]) -> UnknownPeer:
        """For what a caller gave as a peer. A value in its place (arguments swapped) may be secret: only its type is
        told."""
        is_name = (isinstance(given, str) and len(given) <= NAME_SIZE_MAX) or isinstance(given, int)
        return cls(given if is_name else f"a value of type {type(given).__name__}", known)

    def __str__(self) -> str:
        return f"{self.name!r} is not a peer; the peers are {', '.join(self.known) or 'none'}"


class UnsupportedByPeer(PartyWireError):
    """Raised when the protocol of the link to a peer has nothing for what was asked. Nothing has happened."""

    def __init__(self, peer: str, what: str, advice: str) -> None:
        super().__init__(peer, what, advice)
        self.peer = peer
        self.what = what
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.what} is not possible with {self.peer}, whose link speaks the iris protocol; {self.advice}"


class JobFailed(PartyWireError):
    """Raised by a batch at every party when one of its jobs fails anywhere. The first failure of the last attempt
    counts; `history` has a sentence for each attempt before it. `is_loss`: no job is to blame, but a link or a party
    that was lost; all parties that the others still reach say the same."""

    def __init__(
        self, index: int, party: str, cause: str, history: tuple[str, ...] = (), is_loss: bool = False
    ) -> None:
        super().__init__(index, party, cause, history, is_loss)
        self.index = index
        self.party = party
        self.cause = cause
        self.history = history
        self.is_loss = is_loss

    def __str__(self) -> str:
        sentence = f"job {self.index} failed at {self.party}: {self.cause}"
        if not self.history:
            return sentence
        before = "; ".join(f"{number}: {what}" for number, what in enumerate(self.history, 1))
        return f"{sentence} (attempt {len(self.history) + 1}; before it {before})"


def describe(error: BaseException) -> str:
    """An error in one line, for our own party: what a peer said is passed on as it said it."""
    if isinstance(error, PeerAborted) and error.reason:
        return error.reason
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def describe_to_peers(error: BaseException) -> str:
    """`describe` for the other parties. Errors that this package defines hold no data of a party and are told whole; of
    any other, a subclass of ours in a job's own module included, only the type is, because the message of a job's
    exception may quote what the job computes on."""
    if isinstance(error, JobFailed):
        # It quotes to its own party what the job's exception said; the peers get what is under it.
        if error.__cause__ is not None:
            return describe_to_peers(error.__cause__)
        return f"job {error.index} failed at {error.party} (the cause stays at that party)"
    if isinstance(error, PartyWireError) and type(error).__module__.partition(".")[0] == "partywire":
        return describe(error)
    return f"{type(error).__name__} (its message stays at that party)"
