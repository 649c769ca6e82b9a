"""The sockets that a party listens on: one for each family of each address, and unix sockets with their files.

Between the supervisor, which opens them before anything else starts, and the gateway, which accepts on them. The one
invariant: `Listening` holds every socket that it opened and removes every file that it made, and no other file.

- A name, or `*`, that stands for addresses of both families is listened on at each. Every IPv6 socket is IPV6_V6ONLY,
  so `[::]` is IPv6 alone, and no address is shown as another family's.
- A unix socket has mode 0600 before anybody can connect. A file whose owner has died is replaced; the folder is locked
  meanwhile (flock, no file), so that of two parties that start together neither takes the other's fresh file for a
  dead one.

Importable without asyncio, which the supervisor has not. Only a name to listen on needs a thread (`resolver`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from .addresses import EVERY_ADDRESS, Address, format_address, is_unix, unix_path
from .errors import PartyWireError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BACKLOG: Final = 4096
"""Connections that the kernel completes before the gateway accepts them: the most that it allows by default. Who finds
no room tries again a second later, so hundreds of strangers must not fill it while the gateway waits for a core."""

LOCK_TIMEOUT_S: Final = 1.0
"""For the lock on the folder of a unix socket, which is held for microseconds."""

_LOCK_PAUSE_S: Final = 0.01

_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""What an address of a name may fail with while another address of it is listened on: a host without IPv6, say."""

_ADVICE = {
    errno.EADDRINUSE: "stop the program that uses the address, or choose another one in the configuration",
    errno.EADDRNOTAVAIL: "it is not an address of this host: set [listen] address to one that is, or to *:PORT",
    errno.EAFNOSUPPORT: "this host does not have that kind of address: set [listen] address to one that it has",
    errno.EACCES: "this user may not: choose a port above 1023, or a folder that you may write to",
    errno.ENOENT: "the folder of the socket must exist",
    errno.EMFILE: "raise the limit of open files of a process (`ulimit -n`)",
    errno.ENFILE: "end what holds so many open files on this host, or raise fs.file-max",
    errno.ENOBUFS: "the kernel has no memory left for it: run fewer programs here",
    errno.ENOMEM: "the kernel has no memory left for it: run fewer programs here",
}
_ADVICE_OTHERWISE = "choose another one in the configuration"


class ListenError(PartyWireError):
    """Raised when an address cannot be listened on. `number` is the errno of the cause."""

    def __init__(self, address: str, number: int, cause: str) -> None:
        super().__init__(address, number, cause)
        self.address = address
        self.number = number
        self.cause = cause

    def __str__(self) -> str:
        return f"cannot listen on {self.address} ({self.cause}); {_ADVICE.get(self.number, _ADVICE_OTHERWISE)}"


class Listening:
    """Listening, non-blocking sockets, one address after another. Owns them; `close` gives everything back."""

    def __init__(self, *, is_trial: bool = False) -> None:
        """A trial binds and does not listen: nobody can connect meanwhile."""
        self._is_trial = is_trial
        self._sockets: list[socket.socket] = []
        self._files: list[tuple[str, int, int]] = []  # path, device and inode of each unix socket that we made

    @property
    def sockets(self) -> list[socket.socket]:
        """The open sockets, in the order of their addresses."""
        return list(self._sockets)

    def adopt(self, sock: socket.socket) -> None:
        """Own a socket that somebody else bound, listening or not; its file, if it has one, stays theirs."""
        if not self._is_trial:
            sock.listen(BACKLOG)
        sock.setblocking(False)
        self._sockets.append(sock)

    def add(self, address: Address) -> None:
        """Listen on every address that `address` stands for.

        Raises:
            OSError: one of them cannot be listened on; the sockets of those before it stay open.
        """
        host, port = address
        if is_unix(host):
            self._add_unix(unix_path(host))
            return
        failed: list[tuple[str, OSError]] = []
        opened = 0
        for family, sockaddr in _addresses_of(host, port):
            if port == 0 and opened:
                sockaddr = (sockaddr[0], self._sockets[-1].getsockname()[1], *sockaddr[2:])
            try:
                self._add_tcp(family, sockaddr)
                opened += 1
            except OSError as error:
                failed.append((format_address((str(sockaddr[0]), int(str(sockaddr[1])))), error))
        fatal = [(tried, error) for tried, error in failed if not opened or error.errno not in _NOT_HERE]
        if fatal:
            cause = fatal[0][1]
            words = cause.strerror or str(cause)
            if len(failed) > 1 or opened or failed[0][0] != format_address(address):
                tried = "; ".join(f"{name} {(error.strerror or str(error)).lower()}" for name, error in failed)
                words = f"tried {tried}"
            raise OSError(cause.errno, words) from cause

    def _add_tcp(self, family: int, sockaddr: tuple[object, ...]) -> None:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            # Without it a restarted party could not listen for a minute, while its old connections are in TIME_WAIT.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(sockaddr)
            self._take(sock)
        except BaseException:
            sock.close()
            raise

    def _take(self, sock: socket.socket) -> None:
        if not self._is_trial:
            sock.listen(BACKLOG)
        sock.setblocking(False)
        self._sockets.append(sock)

    # Unix sockets.

    def _add_unix(self, path: str) -> None:
        with _locked(os.path.dirname(path)):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                try:
                    sock.bind(path)
                except OSError as error:
                    if error.errno != errno.EADDRINUSE:
                        raise
                    _remove_dead(path)
                    sock.bind(path)
                made = os.lstat(path)
                self._files.append((path, made.st_dev, made.st_ino))
                os.chmod(path, 0o600)  # nobody can connect before `listen`
                self._take(sock)
            except BaseException:
                sock.close()
                raise

    def close(self) -> None:
        """Close every socket and remove the files. May be called again."""
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()
        for path, device, inode in self._files:
            try:
                with _locked(os.path.dirname(path)):
                    now = os.lstat(path)
                    if (now.st_dev, now.st_ino) == (device, inode):
                        os.unlink(path)
            except OSError:
                pass  # somebody removed it, or its folder, before us
        self._files.clear()


def open_listening(addresses: Sequence[Address], *, is_trial: bool = False) -> Listening:
    """Listen on all of them, or on none.

    Raises:
        ListenError: one cannot be listened on.
    """
    listening = Listening(is_trial=is_trial)
    for address in addresses:
        try:
            listening.add(address)
        except OSError as error:
            listening.close()
            cause = (error.strerror or str(error)).lower()
            raise ListenError(format_address(address), error.errno or 0, cause) from error
    return listening


def _addresses_of(host: str, port: int) -> list[tuple[int, tuple[object, ...]]]:
    """(family, socket address) of each address that `host` stands for."""
    if host == EVERY_ADDRESS:
        return [(socket.AF_INET, ("0.0.0.0", port)), (socket.AF_INET6, ("::", port, 0, 0))]
    literal = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=literal)
    except (OSError, UnicodeError):
        from .resolver import Resolver  # threads and logging, which a literal address does not need

        found = []
        for resolved in Resolver().resolve(host, port):
            found += socket.getaddrinfo(*resolved, type=socket.SOCK_STREAM, flags=literal)
    return [(family, sockaddr) for family, _, _, _, sockaddr in found]


@contextmanager
def _locked(folder: str) -> Iterator[None]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        give_up_at = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= give_up_at:
                    raise OSError(errno.EBUSY, f"the folder {folder} is locked by another program") from None
                time.sleep(_LOCK_PAUSE_S)
        yield
    finally:
        os.close(fd)


def _remove_dead(path: str) -> None:
    """Remove a socket file that nobody listens on any more.

    Raises:
        OSError: it is not a socket, or somebody does.
    """
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise OSError(errno.EEXIST, "the file exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.setblocking(False)
        code = trial.connect_ex(path)
    if code != errno.ECONNREFUSED:
        raise OSError(errno.EACCES if code == errno.EACCES else errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    os.unlink(path)
