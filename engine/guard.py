"""Guards one link: has both ends of each of its connections prove who they are before anything else is said.

Between the keeper of a link, the files of its keys, and the streams of its connections. The one invariant: in a mode
other than plaintext no stream comes out of `admit` whose other end has not proven to be the peer, and a mode that is
not ours is refused, never taken over.

Files are read again when they were replaced, so new certificates hold for the next connection without a restart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .channel.channel import encode_refusal
from .channel.link_security import refusal_of_mode
from .channel.maker import ChannelMaker
from .errors import HandshakeRejected, RejectCode
from .greeting import GreetingFailed, dismiss, greet
from .handshake import Role
from .preamble import PREAMBLE_SIZE, Preamble, SecurityMode
from .secure_stream import SecureStream

if TYPE_CHECKING:
    import asyncio

    from .channel.channel import Channel
    from .channel.link_security import LinkSecurity
    from .transport import Stream


class ChannelSource(Protocol):
    """Whatever makes the channels of a link."""

    def make(self, role: Role, preamble: bytes) -> Channel:
        """As `ChannelMaker.make`."""


class Guard:
    """Guards the connections of one link, dialled or accepted. Used by the process that serves the link."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        our_name: str,
        peer: str,
        security: LinkSecurity,
        maker: ChannelSource | None = None,
    ) -> None:
        """`maker` makes the channels in the place of one that goes by the names of both ends."""
        self._loop = loop
        self._our_name = our_name
        self._peer = peer
        self.mode = security.security_mode
        """What every preamble of the link must say."""
        self._maker = maker or ChannelMaker(our_name, peer, security)

    def check(self) -> None:
        """Have a look at our files before anybody is dialled or waited for.

        Raises:
            CredentialError: one cannot be used.
        """
        if self.mode is not SecurityMode.PLAINTEXT:
            self._maker.make(Role.RESPONDER, bytes(PREAMBLE_SIZE))

    async def admit_dialled(self, stream: Stream, preamble: bytes) -> tuple[Stream, bytes]:
        """Send the preamble and shake hands.

        Returns:
            The stream that all further bytes go through, and what must go first: the preamble of a link without a
            channel, which travels with its HELLO.

        Raises:
            HandshakeRejected: one side refused the other's proof or mode.
            GreetingFailed: time, end of file, a broken stream, or bytes that are no such handshake.
            CredentialError: a file of ours cannot be used. In each case the stream is closed.
        """
        if self.mode is SecurityMode.PLAINTEXT:
            return stream, preamble
        return await self._admit(stream, Role.INITIATOR, preamble), b""

    async def admit_accepted(self, stream: Stream, preamble: bytes) -> Stream:
        """Shake hands with who dialled with this preamble, and return the stream that all further bytes go through.

        Raises:
            GreetingFailed: it did not prove to be our peer. Who it was is not known, so this decides nothing.
            CredentialError: a file of ours cannot be used. In each case the stream is closed.
        """
        decoded = Preamble.decode_untrusted(preamble)
        assert decoded is not None  # the gateway routes complete ones only
        if (refusal := refusal_of_mode(self._our_name, self._peer, self.mode, decoded.mode)) is not None:
            await dismiss(stream, encode_refusal(RejectCode.SECURITY, refusal))
            raise GreetingFailed(self._peer, stream.peer_address, f"we refused it (SECURITY): {refusal}")
        if self.mode is SecurityMode.PLAINTEXT:
            return stream
        try:
            return await self._admit(stream, Role.RESPONDER, preamble)
        except HandshakeRejected as error:
            raise GreetingFailed(self._peer, stream.peer_address, str(error)) from error

    async def _admit(self, stream: Stream, role: Role, preamble: bytes) -> Stream:
        try:
            channel = self._maker.make(role, preamble)
        except BaseException:
            stream.close()
            raise
        is_dialler = role is Role.INITIATOR
        await greet(stream, channel, self._peer, preamble if is_dialler else b"", is_dialler=is_dialler)
        return SecureStream(stream, channel, self._loop)
