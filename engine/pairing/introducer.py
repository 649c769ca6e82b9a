"""Either end of one introduction over a connection: the secure channel if there is one, then the meeting inside.

Between a pair, or the pair engine for who dials it, and a stream. The one invariant: what is returned was said by who
showed the certificate that is returned with it; when this raises, the other end was told why if there was something to
tell, and the stream is closed either way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..channel.channel import encode_refusal
from ..errors import HandshakeRejected, RejectCode
from ..greeting import GreetingFailed, dismiss, greet
from ..handshake import Role
from ..preamble import ConnectionClass, Preamble, SecurityMode
from ..secure_stream import SecureStream
from .meeting import INTRODUCTION_TAG, Introduction, Meeting

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ..transport import Stream
    from .meeting import Refusal
    from .pool_tls import PoolChannel, PoolTls

STRANGER = "who dialled us"
"""What an introducer is called until it is known."""


async def introduce(
    loop: asyncio.AbstractEventLoop,
    stream: Stream,
    peer: str,
    ours: Introduction,
    tls: PoolTls | None,
    fingerprints: frozenset[str],
) -> tuple[Introduction, str]:
    """Say who we are on a connection that we dialled; who the peer is, and the fingerprint of its certificate.

    `fingerprints`: of the certificates one of which the peer must show; empty: any that our issuers vouch for.

    Raises:
        HandshakeRejected: one side refused the other.
        GreetingFailed: time, end of file, a broken stream, or bytes that are no introduction.
        CredentialError: a file of ours cannot be used.
    """
    try:
        mode = SecurityMode.PLAINTEXT if tls is None else SecurityMode.TLS
        opening = Preamble(ConnectionClass.INTRODUCTION, 0, INTRODUCTION_TAG, mode).encode()
        fingerprint = ""
        if tls is not None:
            channel = tls.make(Role.INITIATOR, peer, fingerprints)
            await greet(stream, channel, peer, opening)
            stream, opening, fingerprint = SecureStream(stream, channel, loop), b"", channel.result or ""
        meeting = Meeting(Role.INITIATOR, peer, ours)
        await greet(stream, meeting, peer, opening)
        assert meeting.result is not None
        return meeting.result, fingerprint
    finally:
        stream.close()


async def be_introduced(
    loop: asyncio.AbstractEventLoop,
    stream: Stream,
    preamble: bytes,
    tls: PoolTls | None,
    answer: Callable[[Introduction, PoolChannel | None], Introduction | Refusal],
) -> None:
    """Hear who dialled us, and say what `answer` does to who was heard and the channel that it came by.

    Raises like `introduce`.
    """
    try:
        decoded = Preamble.decode_untrusted(preamble)
        assert decoded is not None  # the gateway routes complete ones only
        ours = SecurityMode.PLAINTEXT if tls is None else SecurityMode.TLS
        if decoded.mode is not ours:
            await _refuse_mode(stream, ours)
        channel: PoolChannel | None = None
        if tls is not None:
            channel = tls.make(Role.RESPONDER, STRANGER)
            await greet(stream, channel, STRANGER, is_dialler=False)
            stream = SecureStream(stream, channel, loop)
        meeting = Meeting(Role.RESPONDER, STRANGER, answer=lambda theirs: answer(theirs, channel))
        await greet(stream, meeting, STRANGER, is_dialler=False)
        await dismiss(stream, b"")  # it is to have read the answer before the connection ends
    finally:
        stream.close()


async def _refuse_mode(stream: Stream, ours: SecurityMode) -> None:
    has, lacks = ("no TLS", "TLS") if ours is SecurityMode.PLAINTEXT else ("TLS", "no TLS")
    detail = f"the pool that was dialled has {has}, the one that dials {lacks}: give key, cert and ca_cert to both"
    await dismiss(stream, encode_refusal(RejectCode.SECURITY, detail))
    raise HandshakeRejected(STRANGER, RejectCode.SECURITY, detail, by_us=True)


def words_of(error: Exception) -> str:
    """Why an introduction failed, for who runs the pool."""
    if isinstance(error, HandshakeRejected):
        return f"{f'we refused {error.peer}' if error.by_us else f'{error.peer} refused us'}: {error.detail}"
    if isinstance(error, GreetingFailed):
        return f"no introduction to {error.peer} at {error.address}: {error.cause}"
    return str(error)
