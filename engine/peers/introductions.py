"""Drives the identity exchange over the first substream of a connection.

Between a fresh SubstreamConnection and the pool. When these raise, the other end has been told why if it was refused;
the connection is the caller's to close.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from ..errors import LinkProtocolError
from ..negotiation import OPTIMISTIC, TERMINATE, NegotiationFailed, encode
from ..yamux.errors import SubstreamRefused, SubstreamReset, SubstreamSessionOver
from .errors import NegotiationTimedOut, PeerRefused, RefusalCode, UpgradeFailed
from .identity_exchange import IDENTITY_PROTOCOL, encode_acceptance, encode_refusal
from .negotiating import answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..substreams.streams import SubstreamReader, SubstreamWriter
    from .claims import PeerClaim
    from .connection import SubstreamGate
    from .identity_exchange import IdentityMessage, IdentityReader

_STEP: Final = "identity exchange"


class OpensSubstreams(Protocol):
    """A connection on which we can introduce ourselves."""

    async def open(self) -> tuple[SubstreamReader, SubstreamWriter]:
        """As SubstreamConnection.open."""


async def introduce_dialled(
    connection: OpensSubstreams,
    ours: IdentityMessage,
    theirs: IdentityReader,
    address: str,
    timeout_s: float,
    protocol: str = IDENTITY_PROTOCOL,
) -> IdentityMessage:
    """Tell who we are, and hear who accepted us.

    Raises:
        PeerRefused: it did not.
        UpgradeFailed: it told nothing in time, or what it told does not hold.
    """
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await connection.open()
            try:
                writer.write(encode(OPTIMISTIC | TERMINATE, protocol) + ours.encode())
                message = await read_message(reader, theirs)
            except BaseException:
                writer.reset("the identity exchange failed")
                raise
            writer.close()
            return message
    except TimeoutError:
        raise UpgradeFailed(address, _STEP, f"not done within {timeout_s:g} s") from None
    except (LinkProtocolError, SubstreamRefused, SubstreamReset, SubstreamSessionOver) as error:
        raise _failed(address, error) from None


async def introduce_accepted(
    gate: SubstreamGate,
    is_banned: bool,
    theirs: IdentityReader,
    admit: Callable[[PeerClaim], Awaitable[tuple[RefusalCode, str] | None]],
    establish: Callable[[IdentityMessage], IdentityMessage],
    address: str,
    timeout_s: float,
    protocol: str = IDENTITY_PROTOCOL,
) -> None:
    """Hear who dialled us, decide, and tell who we are.

    Args:
        gate: where the connection's substreams come in.
        is_banned: whether the key of the channel says already that we want nothing more to hear.
        theirs: for what it tells.
        admit: whether a claim is refused, why, and in which words.
        establish: makes a connection that stands of who was admitted, at once, and returns what we tell.
        address: of the other end, for messages.
        timeout_s: for all of it.
        protocol: what the first substream must be for.

    Raises:
        PeerRefused: we refused it, and told it so.
        UpgradeFailed: it told nothing in time, or what it told does not hold.
    """
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await gate.first()
            await answer(reader, writer, protocol.__eq__, timeout_s)
            if is_banned:
                refusal: tuple[RefusalCode, str] | None = (RefusalCode.BANNED, "the peer is banned")
            else:
                try:
                    message = await read_message(reader, theirs)
                except LinkProtocolError as error:
                    refusal = RefusalCode.IDENTITY, f"{error.what}: {error.seen}"
                else:
                    refusal = await admit(message.claim)
            if refusal is not None:
                _refuse(writer, *refusal)
                raise PeerRefused(address, *refusal, by_us=True)
            # The verdict and the connection come to be in one turn of the loop: see `pool`.
            writer.write(encode_acceptance(establish(message)))
            writer.close()
    except TimeoutError:
        raise UpgradeFailed(address, _STEP, f"not done within {timeout_s:g} s") from None
    except (
        LinkProtocolError, NegotiationFailed, NegotiationTimedOut, SubstreamReset, SubstreamSessionOver
    ) as error:  # fmt: skip
        raise _failed(address, error) from None


async def read_message(reader: SubstreamReader, theirs: IdentityReader) -> IdentityMessage:
    """What the other end tells.

    Raises:
        PeerRefused: that it refused us.
        LinkProtocolError: what is no such message, or does not hold.
        SubstreamReset, SubstreamSessionOver: it gave up.
    """
    while missing := theirs.missing:
        data = await reader.read(missing)
        if not data:
            raise LinkProtocolError(theirs.peer, "an identity exchange", "the end in its midst")
        theirs.receive_untrusted(data)
    assert theirs.result is not None
    return theirs.result


def _refuse(writer: SubstreamWriter, code: RefusalCode, reason: str) -> None:
    writer.write(encode_refusal(code, reason))
    writer.close()


def _failed(address: str, error: Exception) -> UpgradeFailed:
    match error:
        case LinkProtocolError(what=what, seen=seen):
            return UpgradeFailed(address, _STEP, f"{what}: {seen}")
        case SubstreamSessionOver(cause=cause):
            return UpgradeFailed(address, _STEP, cause)
        case _:
            return UpgradeFailed(address, _STEP, str(error))
