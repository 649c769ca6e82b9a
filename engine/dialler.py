"""Dials one peer until it answers: resolve, bind if asked, race its addresses (`eyeballs`), back off, again.

Between the I/O process that wants a stream and a transport. The one invariant: every step is an event of the
connection machine (`connection.TRANSITIONS`), so the dialler is always in a state that the table names. (CONNECTING
is "at least one connect is under way".) The name is looked up for each attempt, so a peer that has moved is found.

The dialler has no deadline of its own; whoever calls `dial` cancels it, and has heard from `on_failure` why it took so
long.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
from enum import Enum
from typing import TYPE_CHECKING, Final

from .addresses import Address, format_address
from .connection import ConnectionEvent, ConnectionMachine, ConnectionState
from .errors import PartyWireError
from .eyeballs import Failed, race
from .transport import BindError, ProxyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .transport import Stream, Transport

ATTEMPT_TIMEOUT_S: Final = 3.0
"""One connect to one address: long enough for a SYN to be repeated once (1 s) over a slow path."""

BACKOFF_MIN_S: Final = 0.05
"""First pause after a refusal. Parties are started within the same second, and nobody wants to wait for the second
attempt; on loopback one attempt costs 0.1 ms."""

BACKOFF_MAX_S: Final = 1.0
"""Longest pause: a party that was started late is found within a second."""

_EVENT = ConnectionEvent
_STATE = ConnectionState


class DialCause(Enum):
    """What kept a dial from succeeding, for whoever must advise."""

    UNRESOLVED = "name not resolved"
    REFUSED = "refused"  # the host answered, nobody listens; or no such unix socket
    NO_ANSWER = "no answer"  # neither yes nor no in time
    UNREACHABLE = "unreachable"  # no way to the host, or to its kind of address
    CLIENT_HOST = "client_host"  # our own address to dial from is wrong
    PROXY = "proxy"  # the proxy on the way is not there, or does not do what it should
    OTHER = "failed"


_CAUSES: Final = {
    errno.ECONNREFUSED: DialCause.REFUSED,
    errno.ENOENT: DialCause.REFUSED,
    errno.ETIMEDOUT: DialCause.NO_ANSWER,
    errno.EAGAIN: DialCause.NO_ANSWER,
    errno.EHOSTUNREACH: DialCause.UNREACHABLE,
    errno.ENETUNREACH: DialCause.UNREACHABLE,
    errno.EAFNOSUPPORT: DialCause.UNREACHABLE,
    errno.EADDRNOTAVAIL: DialCause.UNREACHABLE,
}

_TELLING: Final = (
    DialCause.PROXY,
    DialCause.CLIENT_HOST,
    DialCause.NO_ANSWER,
    DialCause.REFUSED,
    DialCause.UNREACHABLE,
)
"""Of several causes the first of these stands for the dial: what somebody can do something about goes first."""


class DialFailed(PartyWireError):
    """Raised when one attempt on all addresses of a peer came to nothing. Another attempt may succeed.

    `cause` names each address that was tried and why it failed, unless there is only the configured one.
    """

    def __init__(self, peer: str, address: str, cause: str, kind: DialCause = DialCause.OTHER) -> None:
        super().__init__(peer, address, cause, kind)
        self.peer = peer
        self.address = address
        self.cause = cause
        self.kind = kind

    def __str__(self) -> str:
        return f"{self.peer} cannot be reached at {self.address} ({self.cause}); is it running, is the address right?"


class Dialler:
    """Makes one connection to one peer, and again after `lost`. Use another one for each further connection."""

    def __init__(
        self, transport: Transport, peer: str, host: str, port: int, client_host: str | None = None
    ) -> None:
        self._transport = transport
        self._peer = peer
        self._host = host
        self._port = port
        self._client_host = client_host
        self._machine = ConnectionMachine(f"the connection to {peer}")
        self._backoff_s = BACKOFF_MIN_S

    @property
    def state(self) -> ConnectionState:
        """Where the connection stands."""
        return self._machine.state

    async def dial(self, on_failure: Callable[[str], object]) -> Stream:
        """A connected stream, however long it takes. `on_failure` hears the cause of each failed attempt."""
        while True:
            try:
                return await self.attempt()
            except DialFailed as error:
                on_failure(str(error))
            await self.back_off()

    async def back_off(self) -> None:
        """Wait before the next attempt: twice as long each time, with jitter so that parties do not dial in step.

        It stays long after a connect that succeeded: a peer that accepts and then says nothing is no better.
        """
        await asyncio.sleep(self._backoff_s * random.uniform(0.5, 1.0))
        self._backoff_s = min(self._backoff_s * 2, BACKOFF_MAX_S)

    async def attempt(self) -> Stream:
        """Try the addresses of the peer once.

        Raises:
            DialFailed: none of them answered; says why each did not.
        """
        self._begin()
        addresses = await self._resolve()
        failed: list[Failed] = []
        under_way = 0

        async def connect(address: Address) -> Stream:
            nonlocal under_way
            if under_way == 0:
                self._machine.apply(_EVENT.ADDRESS_CHOSEN)
            under_way += 1
            try:
                return await self._transport.connect(address, self._client_host, ATTEMPT_TIMEOUT_S)
            except OSError:
                under_way -= 1
                if under_way == 0:
                    self._machine.apply(_EVENT.ADDRESS_FAILED)
                raise

        try:
            stream = await race(addresses, connect, failed.append)
        except BaseException:
            if self._machine.state is _STATE.CONNECTING:
                self._machine.apply(_EVENT.ADDRESS_FAILED)
            self._machine.apply(_EVENT.ADDRESSES_EXHAUSTED)
            raise
        if stream is not None:
            self._machine.apply(_EVENT.CONNECT_SUCCEEDED)
            return stream
        self._machine.apply(_EVENT.ADDRESSES_EXHAUSTED)
        raise self._failure(failed)

    def lost(self) -> None:
        """The stream that was handed out, if any, is over (its handshake failed, say); another attempt may begin."""
        if self._machine.state is _STATE.CONNECTED:
            self._machine.apply(_EVENT.CONNECTION_LOST)

    def _begin(self) -> None:
        machine = self._machine
        if machine.state is _STATE.DISCONNECTED:
            machine.apply(_EVENT.RECONNECT_REQUESTED)
            machine.apply(_EVENT.HANDLE_CLOSED)
        if machine.state is not _STATE.FRESH:
            machine.apply(_EVENT.RECONNECT_REQUESTED)
        elif self._client_host is not None:
            machine.apply(_EVENT.BIND_REQUESTED)
        else:
            machine.apply(_EVENT.CONNECT_REQUESTED)
        if machine.state is _STATE.BINDING:
            # The local address is bound together with each connect; a failure there ends the attempt.
            machine.apply(_EVENT.BIND_SUCCEEDED)

    async def _resolve(self) -> list[Address]:
        try:
            return await self._transport.resolve(self._host, self._port)
        except OSError as error:
            self._machine.apply(_EVENT.RESOLVE_FAILED)
            if isinstance(error, ProxyError) and (kind := _kind_of(error)) is DialCause.PROXY:
                raise DialFailed(self._peer, self._address, _describe(error), kind) from error
            cause = f"the name cannot be looked up ({_describe(error)})"
            raise DialFailed(self._peer, self._address, cause, DialCause.UNRESOLVED) from error
        except BaseException:
            self._machine.apply(_EVENT.RESOLVE_FAILED)
            raise

    @property
    def _address(self) -> str:
        return format_address((self._host, self._port))

    def _failure(self, failed: list[Failed]) -> DialFailed:
        if not failed:
            return DialFailed(self._peer, self._address, "it has no address", DialCause.UNRESOLVED)
        causes = [(format_address(one.address), _describe(one.error)) for one in failed]
        if [address for address, _ in causes] == [self._address]:
            cause = causes[0][1]
        else:
            cause = "tried " + "; ".join(f"{address} {why}" for address, why in causes)
        kinds = {_kind_of(one.error) for one in failed}
        kind = next((telling for telling in _TELLING if telling in kinds), DialCause.OTHER)
        return DialFailed(self._peer, self._address, cause, kind)


def _kind_of(error: OSError) -> DialCause:
    if isinstance(error, BindError):
        return DialCause.CLIENT_HOST if error.errno != errno.EAFNOSUPPORT else DialCause.UNREACHABLE
    if isinstance(error, ProxyError):
        return _CAUSES.get(error.errno or 0, DialCause.PROXY)
    return _CAUSES.get(error.errno or 0, DialCause.NO_ANSWER if isinstance(error, TimeoutError) else DialCause.OTHER)


def _describe(error: OSError) -> str:
    """The kernel's words without the numbers that asyncio puts around them."""
    if isinstance(error, ProxyError):
        return str(error.strerror)
    if error.errno in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNRESET, errno.ENOENT):
        return os.strerror(error.errno).lower()
    return error.strerror or str(error)
