"""Looks names up, with a deadline that holds: the system's resolver itself cannot be interrupted.

Between whoever dials or listens and `getaddrinfo`. The one invariant: no call takes longer than RESOLVE_TIMEOUT_S, and
one name costs at most one thread, however often it is asked for while the resolver hangs.

A literal address needs no thread. Every call asks anew: a peer that has moved is found at its new address. (What the
system's resolver remembers, and for how long, is the system's matter.)
"""

from __future__ import annotations

import errno
import socket
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final, TypeAlias

from .addresses import Address, is_unix, split_family

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Found: TypeAlias = Sequence[tuple[int, int, int, str, tuple[object, ...]]]

RESOLVE_TIMEOUT_S: Final = 5.0
"""For one name. As long as the system's resolver waits for one server; a second one is asked at the next dial."""

ADDRESSES_MAX: Final = 16
"""Addresses of one name that are tried; the rest is ignored. A party has a handful, and each costs a connect."""


def literal_of(sockaddr: tuple[object, ...]) -> Address:
    """Host and port of what `getaddrinfo` or a socket gives; a link-local host keeps its scope id."""
    host, port = str(sockaddr[0]), int(str(sockaddr[1]))
    if len(sockaddr) == 4 and sockaddr[3] and "%" not in host:
        host = f"{host}%{sockaddr[3]}"
    return host, port


def interleave(addresses: list[Address]) -> list[Address]:
    """The families by turns, beginning with that of the first, the order within each kept (RFC 8305, section 4)."""
    first = [address for address in addresses if (":" in address[0]) == (":" in addresses[0][0])]
    second = [address for address in addresses if address not in first]
    paired = [address for pair in zip(first, second, strict=False) for address in pair]
    shorter = min(len(first), len(second))
    return paired + first[shorter:] + second[shorter:]


class Resolver:
    """Looks names up in threads. For one process; safe from any of its threads."""

    def __init__(self, look_up: Callable[..., Found] = socket.getaddrinfo) -> None:
        """`look_up` is called like `socket.getaddrinfo` and answers like it."""
        self._look_up = look_up
        self._lock = threading.Lock()
        self._pending: dict[Address, Future[list[Address]]] = {}

    def begin(self, host: str, port: int) -> Future[list[Address]]:
        """Start to look `host` up, or join whoever has; the future gives what `resolve` returns, or OSError."""
        future: Future[list[Address]] = Future()
        if is_unix(host):
            future.set_result([(host, 0)])
            return future
        name, family = split_family(host)
        try:
            future.set_result(_literals(socket.getaddrinfo(name, port, 0, socket.SOCK_STREAM, 0, _LITERAL), family))
            return future
        except (OSError, UnicodeError):
            if ":" in name:
                unknown = OSError(errno.ENODEV, "not an IPv6 address of this host's interfaces")
                future.set_exception(unknown)
                return future
        with self._lock:
            pending = self._pending.get((host, port))
            if pending is not None:
                return pending
            self._pending[host, port] = future
        # A daemon: one that hangs must not keep the process from ending.
        thread = threading.Thread(target=self._run, args=(host, port, future), name="partywire-resolver", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._answer(host, port, future, [], OSError(errno.EAGAIN, "there is no thread to look it up in"))
        return future

    def _run(self, host: str, port: int, future: Future[list[Address]]) -> None:
        found: list[Address] = []
        failure: OSError | None = None
        name, family = split_family(host)
        try:
            found = _literals(self._look_up(name, port, _FAMILIES[family], socket.SOCK_STREAM), family)
        except OSError as error:
            failure = error
        except UnicodeError:
            failure = OSError(errno.EINVAL, "not a valid host name")
        if failure is None and not found:
            failure = OSError(errno.ENODATA, f"the name has no {f'IPv{family} ' if family else ''}address")
        self._answer(host, port, future, found, failure)

    def _answer(
        self, host: str, port: int, future: Future[list[Address]], found: list[Address], failure: OSError | None
    ) -> None:
        with self._lock:
            del self._pending[host, port]
        if failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(found)

    def resolve(self, host: str, port: int, timeout_s: float = RESOLVE_TIMEOUT_S) -> list[Address]:
        """Addresses to try, in order, at least one. Waits.

        Raises:
            OSError: the name cannot be looked up; TimeoutError: not in time.
        """
        try:
            return self.begin(host, port).result(timeout_s)
        except TimeoutError:
            raise late(timeout_s) from None


def late(timeout_s: float) -> TimeoutError:
    """What a look-up that takes too long raises."""
    return TimeoutError(errno.ETIMEDOUT, f"the resolver has not answered within {timeout_s:.3g} s")


_LITERAL: Final = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV

_FAMILIES: Final = {0: 0, 4: int(socket.AF_INET), 6: int(socket.AF_INET6)}


def _literals(found: Found, version: int) -> list[Address]:
    stream_families = (_FAMILIES[version],) if version else (socket.AF_INET, socket.AF_INET6)
    literals = [literal_of(sockaddr) for family, *_, sockaddr in found if family in stream_families]
    return interleave(list(dict.fromkeys(literals)))[:ADDRESSES_MAX] if literals else []
