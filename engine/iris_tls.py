"""TLS as connections of iris-mpc's protocol have it: from their first byte on, and without a word of ours.

Between whoever dials or accepts such a connection and its stream; what `guard` is for other links. What differs
(docs/iris-compat.md):

- Nothing stands before the handshake, so an acceptor must know whom it expects by the port that was dialled.
- No protocol is named (ALPN), and a refusal is an alert of TLS or the end of the stream, never a sentence.
- That stack ends its streams without the end that TLS has for it, so every end of file is taken for one. That deceives
  nobody: messages end by their own length, and a link whose peer ended its streams is lost in any case.

The one invariant: no stream comes out of `admit` whose other end has not proven to be the peer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from .channel.credentials import tls_context, tls_pin
from .channel.maker import ChannelMaker
from .channel.tls import TlsChannel
from .errors import RejectCode
from .greeting import greet
from .handshake import Role
from .link_addresses import onion_name
from .secure_stream import SecureStream

if TYPE_CHECKING:
    import asyncio
    import ssl

    from .channel.channel import Channel
    from .channel.credentials import TlsPin
    from .channel.link_security import LinkSecurity
    from .topology import PeerSpec
    from .transport import Stream


class IrisTlsChannel(TlsChannel):
    """Either end of one connection's TLS. Driven like a TlsChannel."""

    _alpn: ClassVar[str | None] = None

    def __init__(
        self, context: ssl.SSLContext, role: Role, peer: str, pin: TlsPin, server_name: str | None = None
    ) -> None:
        super().__init__(context, role, peer, pin, server_name)
        self._refusal = None  # an answer in the clear is no refusal of that stack

    def _refuse_inside(self, detail: str) -> None:
        self._refuse(RejectCode.CREDENTIALS, detail)

    def receive_end_of_file(self) -> None:
        self._is_ended = True


class _IrisChannelMaker(ChannelMaker):
    """Makes the channels of one link that speaks TLS; the peer is dialled by the name of its host."""

    def __init__(self, our_name: str, peer: PeerSpec, security: LinkSecurity) -> None:
        super().__init__(our_name, peer.name, security)
        assert peer.iris is not None
        self._host = onion_name(peer.host)
        self._certificate_name = peer.iris.certificate_name or peer.name

    def _make_tls(self, role: Role) -> Channel:
        is_acceptor = role is Role.RESPONDER
        if role not in self._tls:
            context = tls_context(self._security, accepts=is_acceptor, alpn=None)
            self._tls[role] = context, tls_pin(self._security, self._certificate_name)
        context, pin = self._tls[role]
        return IrisTlsChannel(context, role, self._peer, pin, None if is_acceptor else self._host)


class IrisGuard:
    """Guards the connections of one link that speaks TLS, dialled or accepted."""

    def __init__(self, loop: asyncio.AbstractEventLoop, our_name: str, peer: PeerSpec, security: LinkSecurity) -> None:
        self._loop = loop
        self._peer = peer.name
        self._maker = _IrisChannelMaker(our_name, peer, security)

    def check(self) -> None:
        """Have a look at our files before anybody is dialled or waited for.

        Raises:
            CredentialError: one cannot be used.
        """
        self._maker.make(Role.RESPONDER, b"")

    async def admit(self, stream: Stream, role: Role) -> Stream:
        """Shake hands, and return the stream that all further bytes go through.

        Raises:
            HandshakeRejected: one side refused the other's proof. As the acceptor we do not know whose it was.
            GreetingFailed: time, end of file, a broken stream, or bytes that are no such handshake.
            CredentialError: a file of ours cannot be used. In each case the stream is closed.
        """
        try:
            channel = self._maker.make(role, b"")
        except BaseException:
            stream.close()
            raise
        await greet(stream, channel, self._peer, is_dialler=role is Role.INITIATOR)
        return SecureStream(stream, channel, self._loop)
