"""TCP and unix sockets: the transport of real parties, on bare non-blocking descriptors.

Between this process and the kernel. The one invariant: every socket of a link is non-blocking, has TCP_NODELAY and
keepalive if it is of TCP, and is watched only by `loop.add_reader` and `loop.add_writer` (an asyncio transport would
copy what it is given, or take a view without saying when it is free).

A unix socket has neither delay, keepalive, a limit on unacknowledged data nor a reset: its kernel is one, so the death
of either end is the end of the stream at once, and an `abort` is end of file at the other end.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from .addresses import Address, format_address, is_loopback, is_onion, is_unix, unix_path
from .listening import Listening
from .resolver import RESOLVE_TIMEOUT_S, Resolver, late, literal_of
from .transport import VIEWS_MAX, BindError, Buffer, Listener, ProxyError, Stream, Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

# A dead peer host on an idle session connection is noticed after 30 + 4 * 30 s; the control connection's heartbeat is
# much faster, this only keeps half-open sockets from living for ever.
KEEPALIVE_IDLE_S: Final = 30
KEEPALIVE_INTERVAL_S: Final = 30
KEEPALIVE_COUNT: Final = 4

CONNECT_USER_TIMEOUT_MS: Final = 10_000
"""TCP_USER_TIMEOUT while connecting: bounds the retries of a SYN in the kernel should our own deadline not."""

UNSENT_SIZE: Final = 128 * 1024
"""What `bound_unsent` allows, beside what is under way: a millisecond of a fast link, a second of one with 1 Mbit/s."""

LOOPBACK_CONGESTION: Final = b"cubic"
"""On loopback bbr (some systems' default) reaches half of cubic's rate for large messages."""


def tune(sock: socket.socket, user_timeout_s: float | None = None) -> None:
    """Set what every connection of a link has. `user_timeout_s` bounds unacknowledged data: control connections only.

    On a session connection TCP_USER_TIMEOUT would kill a link whose receiver merely computes.
    """
    sock.setblocking(False)
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT)
    _set_user_timeout(sock, user_timeout_s)
    try:
        if is_loopback(sock.getpeername()[0]):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, LOOPBACK_CONGESTION)
    except OSError:
        pass  # not connected any more, or a kernel without cubic: only slower


def _set_user_timeout(sock: socket.socket, seconds: float | None) -> None:
    milliseconds = 0 if seconds is None else max(1, int(seconds * 1000))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def peer_address_of(sockaddr: object) -> str:
    """What `accept` or `getpeername` gave, as text; the far end of an accepted unix socket has no name."""
    if isinstance(sockaddr, tuple):
        return format_address(literal_of(sockaddr))
    return f"unix:{sockaddr}" if isinstance(sockaddr, str) and sockaddr else "a unix socket"


class TcpStream(Stream):
    """A connected TCP or unix socket. Copies nothing: views go to `sendmsg`, bytes arrive by `recv_into`.

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
            self._peer_address = peer_address_of(sock.getpeername())
        except OSError:
            self._peer_address = "a peer that is gone"

    @property
    def peer_address(self) -> str:
        return self._peer_address

    def lead_to(self, address: str) -> None:
        """Be told where the other end is if it is not who the socket is connected to: behind a proxy."""
        self._peer_address = address

    def bound_unacknowledged(self, seconds: float) -> None:
        """Break when the peer's host has acknowledged nothing for so long; for control connections, see `tune`."""
        if self._sock.family != socket.AF_UNIX:
            _set_user_timeout(self._sock, seconds)

    def bound_unsent(self) -> None:
        """Have the kernel hold little that it cannot send yet, so that what is urgent need not wait behind much."""
        if self._sock.family != socket.AF_UNIX:
            with suppress(OSError):  # it is broken already; the next receive says so
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_SIZE)

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
    """Accepts within an event loop. (A party's gateway accepts for itself, without asyncio.)"""

    def __init__(
        self, listening: Listening, loop: asyncio.AbstractEventLoop, on_accept: Callable[[Stream], object]
    ) -> None:
        """Takes ownership of `listening`."""
        self._listening = listening
        self._loop = loop
        self._on_accept = on_accept
        for sock in listening.sockets:
            loop.add_reader(sock.fileno(), self._accept, sock)

    @property
    def address(self) -> Address:
        sockaddr = self._listening.sockets[0].getsockname()
        return literal_of(sockaddr) if isinstance(sockaddr, tuple) else (f"unix:{sockaddr}", 0)

    def _accept(self, listening: socket.socket) -> None:
        try:
            sock, _ = listening.accept()
        except OSError:
            return  # it went away before we came to it
        try:
            tune(sock)
        except OSError:
            sock.close()  # the same
        else:
            self._on_accept(TcpStream(sock, self._loop))

    def close(self) -> None:
        for sock in self._listening.sockets:
            self._loop.remove_reader(sock.fileno())
        self._listening.close()


class TcpTransport(Transport):
    """Dials and listens on one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, resolver: Resolver | None = None) -> None:
        self._loop = loop
        self._resolver = resolver or Resolver()

    async def resolve(self, host: str, port: int) -> list[Address]:
        if is_onion(host):
            raise ProxyError(errno.EPROTO, "an onion service is reached through Tor's SOCKS5 proxy: set [dial.socks]")
        answer = self._resolver.begin(host, port)
        if not answer.done():
            await self._answered(answer)
        return list(answer.result())

    async def _answered(self, answer: Future[list[Address]]) -> None:
        """Wait for a look-up without the power to end it: others may have joined it, and it has a thread of its own."""
        ready = asyncio.Event()

        def wake(_: Future[list[Address]]) -> None:
            try:
                self._loop.call_soon_threadsafe(ready.set)
            except RuntimeError:
                pass  # the answer came after the loop was closed: nobody waits any more

        answer.add_done_callback(wake)
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT_S):
                await ready.wait()
        except TimeoutError:
            raise late(RESOLVE_TIMEOUT_S) from None

    async def connect(self, address: Address, client_host: str | None, timeout_s: float) -> Stream:
        host, port = address
        family: int = socket.AF_UNIX
        sockaddr: object = unix_path(host)
        if not is_unix(host):
            # A literal: resolved without waiting, and with its scope id.
            flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
            family, _, _, _, sockaddr = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)[0]
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, CONNECT_USER_TIMEOUT_MS)
                if client_host is not None:
                    await self._bind(sock, client_host)  # has a deadline of its own, which is not the peer's fault
            try:
                async with asyncio.timeout(timeout_s):
                    await self._connect(sock, sockaddr)
            except TimeoutError as error:
                if error.errno is not None:
                    raise  # the kernel gave up before us
                raise TimeoutError(errno.ETIMEDOUT, f"no answer within {timeout_s:.3g} s") from None
            if family != socket.AF_UNIX and sock.getsockname() == sock.getpeername():
                # Dialling a free port of the ephemeral range on loopback can connect a socket to itself.
                raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
            tune(sock)
            return TcpStream(sock, self._loop)
        except BaseException:
            sock.close()
            raise

    async def _bind(self, sock: socket.socket, client_host: str) -> None:
        """Dial from an address of `client_host` that is of the socket's family."""
        try:
            found = await self.resolve(client_host, 0)
        except OSError as error:
            raise BindError(error.errno, f"cannot dial from {client_host}: {error.strerror}") from error
        wants_colon = sock.family == socket.AF_INET6
        for host, _ in found:
            if (":" in host) == wants_colon:
                sockaddr = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0][4]
                try:
                    sock.bind(sockaddr)
                except OSError as error:
                    raise BindError(error.errno, f"cannot dial from {client_host}: {error.strerror}") from error
                return
        kind = "IPv6" if wants_colon else "IPv4"
        raise BindError(errno.EAFNOSUPPORT, f"cannot dial from {client_host}: it has no {kind} address")

    async def _connect(self, sock: socket.socket, sockaddr: object) -> None:
        code = sock.connect_ex(sockaddr)  # type: ignore[arg-type]  # as getaddrinfo gave it, or a path
        if code in (errno.EINPROGRESS, errno.EINTR):
            done = asyncio.Event()
            self._loop.add_writer(sock.fileno(), done.set)
            try:
                await done.wait()
            finally:
                self._loop.remove_writer(sock.fileno())
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        elif code == errno.EAGAIN:
            raise BlockingIOError(code, "its queue of new connections is full")  # a unix socket that accepts nothing
        if code:
            raise OSError(code, os.strerror(code))

    def listen(self, host: str, port: int, on_accept: Callable[[Stream], object]) -> Listener:
        listening = Listening()
        try:
            listening.add((host, port))
            return TcpListener(listening, self._loop, on_accept)
        except BaseException:
            listening.close()
            raise
