"""Dials one peer until it answers: resolve, bind if asked, connect to each address in turn, back off, again.

Between the I/O process that wants a stream and a transport. The one invariant: every step is an event of the
connection machine (`connection.TRANSITIONS`), so the dialler is always in a state that the table names.

The dialler has no deadline of its own; whoever calls `dial` cancels it, and has heard from `on_failure` why it took so
long.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
from typing import TYPE_CHECKING, Final

from .connection import ConnectionEvent, ConnectionMachine, ConnectionState
from .errors import PartyWireError
from .transport import BindError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .transport import Address, Stream, Transport

ATTEMPT_TIMEOUT_S: Final = 3.0
"""One connect to one address: long enough for a SYN to be repeated once (1 s) over a slow path."""

BACKOFF_MIN_S: Final = 0.05
"""First pause after a refusal. Parties are started within the same second, and nobody wants to wait for the second
attempt; on loopback one attempt costs 0.1 ms."""

BACKOFF_MAX_S: Final = 1.0
"""Longest pause: a party that was started late is found within a second."""

_EVENT = ConnectionEvent
_STATE = ConnectionState


class DialFailed(PartyWireError):
    """Raised when one attempt on all addresses of a peer came to nothing. Another attempt may succeed."""

    def __init__(self, peer: str, address: str, cause: str) -> None:
        super().__init__(peer, address, cause)
        self.peer = peer
        self.address = address
        self.cause = cause

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
        """Try each address of the peer once.

        Raises:
            DialFailed: none of them answered; says why the last one did not.
        """
        self._begin()
        addresses = await self._resolve()
        cause = "it has no address"
        for address in addresses:
            self._machine.apply(_EVENT.ADDRESS_CHOSEN)
            try:
                stream = await self._transport.connect(address, self._client_host, ATTEMPT_TIMEOUT_S)
            except OSError as error:
                self._machine.apply(_EVENT.ADDRESS_FAILED)
                cause = _describe(error)
                if isinstance(error, BindError):
                    break  # no other address of the peer helps
                continue
            except BaseException:
                self._machine.apply(_EVENT.ADDRESS_FAILED)
                self._machine.apply(_EVENT.ADDRESSES_EXHAUSTED)
                raise
            self._machine.apply(_EVENT.CONNECT_SUCCEEDED)
            return stream
        self._machine.apply(_EVENT.ADDRESSES_EXHAUSTED)
        raise self._failure(cause)

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
            raise self._failure(f"the name cannot be looked up ({_describe(error)})") from error
        except BaseException:
            self._machine.apply(_EVENT.RESOLVE_FAILED)
            raise

    def _failure(self, cause: str) -> DialFailed:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return DialFailed(self._peer, f"{host}:{self._port}", cause)


def _describe(error: OSError) -> str:
    """The kernel's words without the numbers that asyncio puts around them."""
    if error.errno in (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNRESET):
        return os.strerror(error.errno).lower()
    return error.strerror or str(error)
