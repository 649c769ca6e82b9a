"""TCP: the transport of real parties, on bare non-blocking descriptors.

Between this process and the kernel. The one invariant: every socket of a link is non-blocking, has TCP_NODELAY and
keepalive, and is watched only by `loop.add_reader` and `loop.add_writer` (an asyncio transport would copy what it is
given, or take a view without saying when it is free).

Importable without asyncio, because the supervisor and the gateway need `open_listener` and nothing else.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from typing import TYPE_CHECKING, Final

from .transport import VIEWS_MAX, Address, BindError, Buffer, Listener, Stream, Transport

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

BACKLOG: Final = 128
"""Connections that the kernel completes before the gateway accepts them: 64 parties with a few connections each arrive
within the same second, and the kernel's own limit is 4,096."""

# A dead peer host on an idle session connection is noticed after 30 + 4 * 30 s; the control connection's heartbeat is
# much faster, this only keeps half-open sockets from living for ever.
KEEPALIVE_IDLE_S: Final = 30
KEEPALIVE_INTERVAL_S: Final = 30
KEEPALIVE_COUNT: Final = 4

CONNECT_USER_TIMEOUT_MS: Final = 10_000
"""TCP_USER_TIMEOUT while connecting: bounds the retries of a SYN in the kernel should our own deadline not."""

LOOPBACK_CONGESTION: Final = b"cubic"
"""On loopback bbr (some systems' default) reaches half of cubic's rate for large messages."""


def tune(sock: socket.socket, user_timeout_s: float | None = None) -> None:
    """Set what every connection of a link has. `user_timeout_s` bounds unacknowledged data: control connections only.

    On a session connection TCP_USER_TIMEOUT would kill a link whose receiver merely computes.
    """
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT)
    _set_user_timeout(sock, user_timeout_s)
    try:
        if _is_loopback(sock.getpeername()[0]):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, LOOPBACK_CONGESTION)
    except OSError:
        pass  # not connected any more, or a kernel without cubic: only slower


def _set_user_timeout(sock: socket.socket, seconds: float | None) -> None:
    milliseconds = 0 if seconds is None else max(1, int(seconds * 1000))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def _is_loopback(host: str) -> bool:
    return host.startswith("127.") or host in ("::1", "::ffff:127.0.0.1")


def open_listener(host: str, port: int) -> socket.socket:
    """A listening, non-blocking socket on the first resolved address that can be bound.

    Raises:
        OSError: the host cannot be resolved, or no address of it can be bound.
    """
    failure: OSError | None = None
    hints = socket.AI_PASSIVE | socket.AI_NUMERICSERV
    for family, _, _, _, address in socket.getaddrinfo(
        host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=hints
    ):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            # Without it a restarted party could not listen for a minute, while its old connections are in TIME_WAIT.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(BACKLOG)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            failure = failure or error
        else:
            return sock
    raise failure or OSError(f"{host} has no address to listen on")


class TcpStream(Stream):
    """A connected TCP socket. Copies nothing: views go to `sendmsg`, bytes arrive by `recv_into`.

    uvloop calls a reader only once more when a socket breaks, whether or not that call took all that had arrived
    before: libuv gives a descriptor up at the first EPOLLERR. So that readiness stays level-triggered, a second epoll
    instance waits for nothing but the break, which costs no system call until then, and the stream calls its reader
    itself from there on.
    """

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        """Takes ownership of a connected, tuned socket."""
        self._sock = sock
        self._loop = loop
        self._fd = sock.fileno()
        self.fd = self._fd
        """For whoever reads and writes the socket without this object: the descriptor, or -1 once it is closed."""
        self._reader: Callable[[], object] | None = None
        self._writing = False
        self._break: select.epoll | None = None  # readable once the socket broke; made with the first reader
        self._is_broken = False
        self._will_read = False  # whether the reader of a broken socket is called in the loop's next turn
        try:
            host, port = sock.getpeername()[:2]
            self._peer_address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        except OSError:
            self._peer_address = "a peer that is gone"

    @property
    def peer_address(self) -> str:
        return self._peer_address

    def bound_unacknowledged(self, seconds: float) -> None:
        """Break when the peer's host has acknowledged nothing for so long; for control connections, see `tune`."""
        _set_user_timeout(self._sock, seconds)

    def try_send(self, views: Sequence[Buffer]) -> int | None:
        try:
            if len(views) == 1:
                return self._sock.send(views[0])
            return self._sock.sendmsg(views if len(views) <= VIEWS_MAX else views[:VIEWS_MAX])
        except (BlockingIOError, InterruptedError):
            return None

    def try_recv_into(self, view: memoryview) -> int | None:
        try:
            return self._sock.recv_into(view)
        except (BlockingIOError, InterruptedError):
            return None

    def shutdown_write(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # broken already; the next receive says so

    def on_readable(self, callback: Callable[[], object] | None) -> None:
        was_reading = self._reader is not None
        self._reader = callback
        if self._is_broken:
            self._read_soon()
        elif callback is not None:
            self._loop.add_reader(self._open_fd(), callback)
            if self._break is None:
                self._break = select.epoll()
                self._break.register(self._fd, 0)  # errors and hang-ups are reported unasked
                self._loop.add_reader(self._break.fileno(), self._on_break)
        elif was_reading:
            self._loop.remove_reader(self._fd)

    def _on_break(self) -> None:
        self._is_broken = True
        self._forget_break()
        if self._reader is not None:
            self._loop.remove_reader(self._fd)
            self._read_soon()

    def _forget_break(self) -> None:
        if self._break is not None:
            self._loop.remove_reader(self._break.fileno())
            self._break.close()
            self._break = None

    def _read_soon(self) -> None:
        if self._reader is not None and not self._will_read:
            self._will_read = True
            self._loop.call_soon(self._read_broken)

    def _read_broken(self) -> None:
        """What arrived before the break is still there; the reader ends this when it meets the end."""
        self._will_read = False
        reader = self._reader
        if reader is not None:
            self._read_soon()
            reader()

    def on_writable(self, callback: Callable[[], object] | None) -> None:
        if callback is not None:
            self._loop.add_writer(self._open_fd(), callback)
            self._writing = True
        elif self._writing:
            self._loop.remove_writer(self._fd)
            self._writing = False

    def _open_fd(self) -> int:
        if self._sock.fileno() < 0:
            raise OSError("the stream is closed")
        return self._fd

    def close(self) -> None:
        self.fd = -1
        self.on_readable(None)
        self.on_writable(None)
        self._forget_break()
        self._sock.close()

    def abort(self) -> None:
        try:
            # Zero linger: the kernel sends RST, so the other end cannot take this for an orderly end.
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except OSError:
            pass  # gone already
        self.close()


class TcpListener(Listener):
    """Accepts on one socket within an event loop. (A party's gateway accepts for itself, without asyncio.)"""

    def __init__(
        self, sock: socket.socket, loop: asyncio.AbstractEventLoop, on_accept: Callable[[Stream], object]
    ) -> None:
        self._sock = sock
        self._loop = loop
        self._on_accept = on_accept
        loop.add_reader(sock.fileno(), self._accept)

    @property
    def address(self) -> Address:
        host, port = self._sock.getsockname()[:2]
        return host, port

    def _accept(self) -> None:
        try:
            sock, _ = self._sock.accept()
        except OSError:
            return  # it went away before we came to it
        try:
            tune(sock)
        except OSError:
            sock.close()  # the same
        else:
            self._on_accept(TcpStream(sock, self._loop))

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()


class TcpTransport(Transport):
    """Dials and listens on one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    async def resolve(self, host: str, port: int) -> list[Address]:
        host = host.strip("[]")
        try:
            # A literal needs no thread of the resolver.
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [(str(address[0]), int(address[1])) for *_, address in found]
        return list(dict.fromkeys(addresses))

    async def connect(self, address: Address, client_host: str | None, timeout_s: float) -> Stream:
        import asyncio

        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, CONNECT_USER_TIMEOUT_MS)
            if client_host is not None:
                try:
                    sock.bind((client_host, 0))
                except OSError as error:
                    raise BindError(error.errno, f"cannot dial from {client_host}: {error.strerror}") from error
            try:
                async with asyncio.timeout(timeout_s):
                    await self._loop.sock_connect(sock, address)
            except TimeoutError:
                raise TimeoutError(f"no answer within {timeout_s:.3g} s") from None
            if sock.getsockname() == sock.getpeername():
                # Dialling a free port of the ephemeral range on loopback can connect a socket to itself.
                raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
            tune(sock)
            return TcpStream(sock, self._loop)
        except BaseException:
            sock.close()
            raise

    def listen(self, host: str, port: int, on_accept: Callable[[Stream], object]) -> Listener:
        return TcpListener(open_listener(host, port), self._loop, on_accept)
