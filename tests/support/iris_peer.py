"""A party of iris-mpc's TCP stack, written from its byte layout alone: blocking sockets, `ssl`, none of our code.

It may be wrong in the same way as ours only where the description of the layout is. Its TLS is that of OpenSSL, like
ours; that of the real stack is of rustls.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections import deque

DEADLINE_S = 20.0

FIXED_SIZES = {0x01: 16, 0x02: 0, 0x12: 0, 0x03: 2, 0x04: 4, 0x05: 8, 0x09: 16, 0x0B: 16, 0x0D: 6}
BYTE_LENGTHS = {0x06, 0x07, 0x08, 0x0A, 0x0C, 0x0E}
BIT_LENGTH = 0x0F


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(min(size - len(data), 1 << 20))
        if not piece:
            raise EOFError(f"end of file with {len(data)} of {size} bytes")
        data += piece
    return data


def receive_value(sock: socket.socket) -> tuple[int, bytes]:
    """The next (session, value); a value begins with its descriptor."""
    session, descriptor = struct.unpack("<IB", receive_exactly(sock, 5))
    head = bytes((descriptor,))
    if descriptor in FIXED_SIZES:
        return session, head + receive_exactly(sock, FIXED_SIZES[descriptor])
    assert descriptor in BYTE_LENGTHS or descriptor == BIT_LENGTH, f"descriptor {descriptor:#04x}"
    length = receive_exactly(sock, 4)
    size = int.from_bytes(length, "little")
    if descriptor == BIT_LENGTH:
        size = -(-size // 8)
    return session, head + length + receive_exactly(sock, size)


class Tls:
    """Both ends of its TLS: certificates of both, vouched for by any of its roots; a dialler also checks the host.

    A connection ends with its TCP stream, without the end that TLS has for it.
    """

    def __init__(self, certificate: str, key: str, roots: str, host: str) -> None:
        """Paths of PEM files. `host` is the name that our peer's certificate must have when we dial it."""
        self.host = host
        self.dialling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the host, as every client does by default
        self.accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.accepting.verify_mode = ssl.CERT_REQUIRED
        for context in (self.dialling, self.accepting):
            context.load_cert_chain(certificate, key)
            context.load_verify_locations(roots)

    def dialled(self, sock: socket.socket) -> socket.socket:
        return self.dialling.wrap_socket(sock, server_hostname=self.host, suppress_ragged_eofs=False)

    def accepted(self, sock: socket.socket) -> socket.socket:
        return self.accepting.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)


class IrisPeer:
    """All connections to one party. Session i is sent on connection i mod C and may arrive on any."""

    def __init__(
        self, name: str, *, connections: int = 1, says_ready: bool = False, tls: Tls | None = None
    ) -> None:
        self.name = name
        self.count = connections
        self.says_ready = says_ready
        self.tls = tls
        self.sockets: list[socket.socket] = []
        self.refusals = 0
        self._waiting: dict[int, deque[bytes]] = {}

    # Coming up.

    def dial(self, address: tuple[str, int]) -> None:
        """The greater name dials; until it is waited for, it is turned away and comes again."""
        for connection in range(self.count):
            deadline = time.monotonic() + DEADLINE_S
            while (sock := self._try_dial(address, connection)) is None:
                self.refusals += 1
                assert time.monotonic() < deadline, "nobody waits for this connection"
                time.sleep(0.02)
            self.sockets.append(sock)

    def _try_dial(self, address: tuple[str, int], connection: int) -> socket.socket | None:
        try:
            sock = socket.create_connection(address, DEADLINE_S)
        except OSError:
            return None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if self.tls is not None:
                sock = self.tls.dialled(sock)
            sock.sendall(connection.to_bytes(4, "big"))
            assert receive_exactly(sock, 4) == connection.to_bytes(4, "big")
            sock.sendall(len(self.name).to_bytes(4, "big"))
            sock.sendall(self.name.encode())
            if sock.recv(3) != b"2ok":
                raise EOFError
            self._ready(sock)
        except (OSError, EOFError):
            sock.close()
            return None
        return sock

    def accept(self, listener: socket.socket, name: str) -> None:
        """Take every connection of the party that dials, in the order of their ids."""
        listener.settimeout(DEADLINE_S)
        found: dict[int, socket.socket] = {}
        while len(found) < self.count:
            sock, _ = listener.accept()
            sock.settimeout(DEADLINE_S)
            try:
                if self.tls is not None:
                    sock = self.tls.accepted(sock)
                connection = receive_exactly(sock, 4)
                sock.sendall(connection)
                size = int.from_bytes(receive_exactly(sock, 4), "big")
                assert receive_exactly(sock, size) == name.encode()
                sock.sendall(b"2ok")
                self._ready(sock)
            except BaseException:
                sock.close()
                raise
            found[int.from_bytes(connection, "big")] = sock
        self.sockets = [found[connection] for connection in range(self.count)]

    def _ready(self, sock: socket.socket) -> None:
        if self.says_ready:
            sock.sendall(b"\x02ok")
            assert receive_exactly(sock, 3) == b"\x02ok"

    # Messages.

    def send(self, session: int, value: bytes, connection: int | None = None) -> None:
        connection = session % self.count if connection is None else connection
        self.sockets[connection].sendall(session.to_bytes(4, "little") + value)

    def receive(self, session: int) -> bytes:
        while not self._waiting.get(session):
            other, value = receive_value(self.sockets[session % self.count])
            self._waiting.setdefault(other, deque()).append(value)
        return self._waiting[session].popleft()

    def validate(self, sessions: range) -> None:
        """What both ends of new sessions do before anything else, one session after another."""
        for index, session in enumerate(sessions):
            probe = b"\x01" + index.to_bytes(8, "little") + bytes(8)
            self.send(session, probe)
            assert self.receive(session) == probe

    # Ending.

    def expect_end(self) -> None:
        """The other party closes all of its connections, and nothing is left to receive; then we close ours."""
        for sock in self.sockets:
            assert sock.recv(1) == b""
        self.close()

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
        self.sockets.clear()
        self._waiting.clear()
