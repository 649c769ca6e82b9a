"""Settings of WebSockets over TLS on loopback, with a certificate made on the fly."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from partywire.engine.transports import WebSocketSettings
from tests.support.certificates import issue

if TYPE_CHECKING:
    from pathlib import Path

LOOPBACK_NAME = b"\x30\x06\x87\x04\x7f\x00\x00\x01"
"""subjectAltName, DER: the IP address 127.0.0.1."""


def websocket_settings(folder: Path, path: str = "/") -> WebSocketSettings:
    """Both ends': the certificate is 127.0.0.1's, and its issuer is known."""
    ca = issue("ca", is_ca=True, to_the_letter=True).write(folder, "ca")
    host = issue("loopback", ca, raw_names=LOOPBACK_NAME, to_the_letter=True).write(folder, "host")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(host.certificate_path, host.key_path)
    return WebSocketSettings(path, ssl.create_default_context(cafile=ca.certificate_path), server)
