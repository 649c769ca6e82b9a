"""How a run ends: the exit codes of the command, and the one sentence for each error.

Between every error that can end a run and the user who reads one line on stderr. The one invariant: each exception has
a code and a sentence here; what we do not know is a failure of the job, never a stack trace.
"""

from __future__ import annotations

import traceback
from enum import IntEnum

from partywire.engine.errors import HandshakeRejected, LinkProtocolError, PartyWireError, SetupAborted, SetupMismatch
from partywire.engine.shortage import describe_shortage, shortage_of

from .run_event import Failed


class ExitCode(IntEnum):
    """What the command returns to its shell; documented in `partywire --help`."""

    OK = 0  # the job ended, and its result is right as far as it can be checked
    JOB = 1  # the job failed, or its result is wrong
    USAGE = 2  # the command line, a configuration or an input file cannot be used
    PEERS = 3  # our address is taken, or a peer could not be reached, refused us, left, or runs something else
    INTERRUPTED = 130  # Ctrl-C, or SIGTERM


USAGE_ERRORS = frozenset({"ConfigError", "JobInputError", "JobOptionError", "UnknownJob"})
PEER_ERRORS = frozenset(
    {
        "AddressUnavailable",
        "ConnectFailed",
        "ListenError",
        "NodeUnavailable",
        "PeerClosed",
        "PeerLost",
        "RendezvousTimeout",
        "TransportError",
    }
)


class UsageMistake(PartyWireError):
    """Raised when what the user asked for cannot be done; the text is the whole sentence for them."""


def code_of(error: BaseException) -> ExitCode:
    """The exit code of an error that ended a run."""
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    names = {type_.__name__ for type_ in type(error).__mro__}
    if "JobFailed" in names:
        return ExitCode.PEERS if getattr(error, "is_loss", False) else ExitCode.JOB
    if isinstance(error, UsageMistake) or names & USAGE_ERRORS:
        return ExitCode.USAGE
    if isinstance(error, SetupMismatch | SetupAborted | HandshakeRejected | LinkProtocolError) or names & PEER_ERRORS:
        return ExitCode.PEERS
    return ExitCode.JOB


def sentence_of(error: BaseException) -> str:
    """What happened, for a person: our own errors speak for themselves, others are named with their type."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the peers were told"
    if isinstance(error, PartyWireError):
        return str(error)
    if isinstance(error, OSError) and shortage_of(error) is not None:
        return f"this host does not give the command what it needs: {describe_shortage(error)}"
    text = str(error).strip()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def peer_of(error: BaseException) -> str | None:
    """The party whose report says more than ours: the error is ours only because of that party."""
    seen: BaseException | None = error
    while seen is not None:
        if type(seen).__name__ in ("PeerAborted", "PeerClosed", "PeerLost"):
            peer = getattr(seen, "peer", None)
            return peer if isinstance(peer, str) else None
        seen = seen.__cause__
    return None


def failure(party: str, error: BaseException) -> Failed:
    """The last event of a run that `error` ended."""
    return Failed(
        party=party,
        exit_code=int(code_of(error)),
        sentence=sentence_of(error),
        kind=type(error).__name__,
        peer=peer_of(error),
        trace="".join(traceback.format_exception(error)),
    )
