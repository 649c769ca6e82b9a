"""Drives the handshake cores over streams: the bytes between a preamble and the first frame.

Between the I/O processes of two parties. The one invariant: when this raises, the peer has been told why if there was
something to tell, and the stream is closed; when it returns, nothing behind the handshake was consumed unseen.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeAlias

from . import limits
from .errors import HandshakeRejected, LinkProtocolError, PartyWireError
from .exchange import RECEIVE_SIZE, receive_some, send_all

if TYPE_CHECKING:

    from .channel.channel import Channel
    from .handshake import Attach, Handshake
    from .iris_handshake import Exchange, Introducing
    from .pairing.meeting import Meeting
    from .transport import Stream

    Core: TypeAlias = Handshake | Attach | Exchange | Introducing | Meeting | Channel

FAREWELL_TIMEOUT_S: Final = 1.0
"""How long a refused peer may take to read why. Closing at once could destroy the sentence: received bytes that are
left unread turn a close into a reset."""

FAREWELL_SIZE_MAX: Final = 64 * 1024
"""How much of what a refused peer had still to say is taken off its socket: several times what a handshake has. Who
sends without end would else hold up every link of this process, since receiving what is there never waits."""


class GreetingFailure(Enum):
    """What kept a greeting from succeeding, for whoever must advise."""

    SILENT = "silent"  # not done in time
    CLOSED = "closed"  # end of file, or a broken stream
    GARBLED = "garbled"  # bytes that are no handshake


class GreetingFailed(PartyWireError):
    """Raised when a handshake came to nothing without either side refusing; another attempt may succeed."""

    def __init__(
        self, peer: str, address: str, cause: str, kind: GreetingFailure = GreetingFailure.GARBLED
    ) -> None:
        super().__init__(peer, address, cause, kind)
        self.peer = peer
        self.address = address
        self.cause = cause
        self.kind = kind

    def __str__(self) -> str:
        return f"no handshake with {self.peer} at {self.address}: {self.cause}"


async def greet(
    stream: Stream,
    core: Core,
    peer: str,
    preamble: bytes = b"",
    *,
    is_dialler: bool = True,
) -> bytes:
    """Exchange handshake messages until `core` is done; the initiator passes the preamble that goes out first.

    `is_dialler`: whether the address of the stream is where we dialled, and may be wrong.

    Returns:
        Bytes behind the handshake, the start of the frame stream.

    Raises:
        HandshakeRejected: one side refused; the peer knows why.
        GreetingFailed: time, end of file, a broken stream, or bytes that are no handshake.
    """
    is_end_of_file = False
    try:
        async with asyncio.timeout(limits.HANDSHAKE_TIMEOUT_S):
            await send_all(stream, preamble + core.data_to_send())
            while core.result is None:
                if data := await receive_some(stream):
                    core.receive_data(data)
                else:
                    is_end_of_file = True
                    core.receive_eof()
                await send_all(stream, core.data_to_send())
        return core.trailing_data
    except HandshakeRejected:
        await dismiss(stream, core.data_to_send())
        raise
    except LinkProtocolError as error:
        await dismiss(stream, core.data_to_send())
        cause = f"{error.what} {error.seen}"
        if is_end_of_file:
            hint = "; does another party listen at this address?" if is_dialler else ""
            cause = f"it closed the connection without a word{hint}"
        kind = GreetingFailure.CLOSED if is_end_of_file else GreetingFailure.GARBLED
        raise GreetingFailed(peer, stream.peer_address, cause, kind) from error
    except TimeoutError:
        stream.close()
        cause = f"not done within {limits.HANDSHAKE_TIMEOUT_S:g} s"
        raise GreetingFailed(peer, stream.peer_address, cause, GreetingFailure.SILENT) from None
    except OSError as error:
        try:
            _hear_last_words(stream, core)
        finally:
            stream.close()
        cause = (error.strerror or str(error)).lower()
        raise GreetingFailed(peer, stream.peer_address, cause, GreetingFailure.CLOSED) from error
    except BaseException:
        stream.close()
        raise


def _hear_last_words(stream: Stream, core: Core) -> None:
    """Look at what a peer sent before it broke the stream off, which may be why.

    Raises:
        HandshakeRejected: it refused us.
    """
    buffer = memoryview(bytearray(RECEIVE_SIZE))
    try:
        count = stream.try_recv_into(buffer)
        if count and core.result is None:
            core.receive_data(bytes(buffer[:count]))
    except (OSError, LinkProtocolError):
        pass  # it said nothing, or nothing that tells


async def dismiss(stream: Stream, last_words: bytes) -> None:
    """Send the last words, wait a moment until the peer has read them, and close."""
    try:
        async with asyncio.timeout(FAREWELL_TIMEOUT_S):
            await send_all(stream, last_words)
            stream.shutdown_write()
            received = 0
            while received < FAREWELL_SIZE_MAX and (data := await receive_some(stream)):
                received += len(data)
    except (OSError, TimeoutError):
        pass  # the peer is gone, or does not listen
    finally:
        stream.close()
