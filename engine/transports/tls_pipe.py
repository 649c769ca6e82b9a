"""TLS beneath a WebSocket, without I/O: as the web has it, where the dialled end shows a certificate and nobody else.

Between a WebSocket and the bytes of its carrier. The one invariant: nothing is decrypted or encrypted before the
handshake is complete, which includes, at the dialler, that the certificate is valid for the host's name.

It hides traffic from those on the way and passes through proxies of the web. Who the peers are is shown above it: the
certificate is the host's, not the party's.
"""

from __future__ import annotations

import ssl
from typing import Final

ANSWERS_SIZE_MAX: Final = 64 * 1024
"""What OpenSSL may have written of its own accord and we not taken: answers to a peer that takes new keys."""

_READ_SIZE: Final = 64 * 1024


class TlsPipe:
    """One end. Driven by the carrier's bytes and by what is to be sent."""

    def __init__(self, context: ssl.SSLContext, server_name: str | None) -> None:
        """`server_name` is the host's at the dialler, None at the acceptor."""
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_name is None, server_hostname=server_name
        )
        self.is_established = False
        self._held = bytearray()  # what is to be sent once the handshake is complete; only an opening request
        self._shake()

    def receive(self, data: bytes) -> bytes:
        """What these bytes of the carrier decrypt to.

        Raises:
            ssl.SSLError: they are no TLS, or the certificate is not to be trusted.
        """
        self._incoming.write(data)
        if not self.is_established and not self._shake():
            return b""
        opened = bytearray()
        try:
            while part := self._object.read(_READ_SIZE):
                opened += part
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            pass  # the end that counts is the WebSocket's
        if self._outgoing.pending > ANSWERS_SIZE_MAX:
            raise ssl.SSLError("the peer takes new keys without end")
        return bytes(opened)

    def _shake(self) -> bool:
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.is_established = True
        if self._held:
            self._object.write(self._held)
            self._held.clear()
        return True

    def send(self, data: bytes | bytearray) -> None:
        """Encrypt; before the handshake is complete it waits for that."""
        if self.is_established:
            self._object.write(data)
        else:
            self._held += data

    def data_to_send(self) -> bytes:
        """What is to be sent now; each byte once."""
        return self._outgoing.read()
