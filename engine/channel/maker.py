"""Makes the channels of one link from the files that its security names.

Between a process that has connections of the link and the implementations, which are imported when the first channel of
their kind is made. The one invariant: a channel is made of the files as they are now; what was read of them is kept
only as long as none of them was replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..handshake import Role
from ..preamble import SecurityMode

if TYPE_CHECKING:
    import ssl

    from ..noise import PrivateKey
    from .channel import Channel
    from .credentials import TlsPin
    from .link_security import LinkSecurity


class ChannelMaker:
    """One link's. Reads what it needs of the files when a channel is made, which takes about a millisecond."""

    def __init__(self, our_name: str, peer: str, security: LinkSecurity) -> None:
        self._our_name = our_name
        self._peer = peer
        self._security = security
        self._stamp: tuple[tuple[int, ...], ...] = ()  # of the files as they were read
        self._noise_key: PrivateKey | None = None
        self._tls: dict[Role, tuple[ssl.SSLContext, TlsPin]] = {}

    def make(self, role: Role, preamble: bytes) -> Channel:
        """A fresh end of a channel for a connection that began with this preamble; not for plaintext links.

        Raises:
            CredentialError: a file cannot be used.
        """
        from .credentials import stamp_of

        stamp = stamp_of(self._security)
        if stamp != self._stamp:
            self._stamp = stamp
            self._tls.clear()
            self._noise_key = None
        if self._security.security_mode is SecurityMode.TLS:
            return self._make_tls(role)
        return self._make_noise(role, preamble)

    def _make_tls(self, role: Role) -> Channel:
        """The preamble is covered by the transcript of the handshake that follows inside."""
        from .credentials import tls_context, tls_pin
        from .tls import TlsChannel

        if role not in self._tls:
            context = tls_context(self._security, accepts=role is Role.RESPONDER)
            self._tls[role] = context, tls_pin(self._security, self._peer)
        return TlsChannel(self._tls[role][0], role, self._peer, self._tls[role][1])

    def _make_noise(self, role: Role, preamble: bytes) -> Channel:
        from .credentials import noise_private_key
        from .noise import NoiseChannel

        if self._noise_key is None:
            self._noise_key = noise_private_key(self._security.noise_key)
        names = (self._our_name, self._peer) if role is Role.INITIATOR else (self._peer, self._our_name)
        return NoiseChannel(
            self._security.security_mode, role, self._peer, self._noise_key, self._security.peer_key, preamble, names
        )
