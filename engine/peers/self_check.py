"""Whether we are reached where we say that we are: dials our own addresses and has a line echoed.

Between the transports and our own acceptor. The one invariant: an address counts as live only if the line came to our
acceptor and back; whoever else answers there does not count. A check holds at most one stream.

Source: the self-liveness check of Tari Comms, which believes any answer.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import TYPE_CHECKING, Final

from ..errors import PartyWireError
from ..exchange import receive_some, send_all
from .events import AddressChecked
from .wire import LINE_SIZE_MAX, LIVENESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..multiaddr import Multiaddr
    from ..transport import Stream
    from .accepting import PeerAcceptor
    from .dialling import NodeParts

_LOG: Final = logging.getLogger("partywire.peers")

_NONCE_SIZE: Final = 16


class SelfCheck:
    """Checks the addresses of our claim, when asked, or again and again. Of one event loop."""

    def __init__(self, parts: NodeParts, acceptor: PeerAcceptor, addresses: Callable[[], Iterable[Multiaddr]]) -> None:
        """`addresses` gives those to be checked."""
        self.results: dict[Multiaddr, AddressChecked] = {}
        """Of the last check of all."""
        self._parts = parts
        self._acceptor = acceptor
        self._addresses = addresses
        self._turn = asyncio.Lock()

    async def run(self, interval_s: float) -> None:
        """Check all of them every `interval_s`, until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            await self.check()

    async def check(self) -> list[AddressChecked]:
        """Check all of them now, one after the other; each result is an event too."""
        async with self._turn:
            results = {address: await self._check(address) for address in tuple(self._addresses())}
            for address, result in results.items():
                before = self.results.get(address)
                if result.cause and (before is None or not before.cause):
                    _LOG.warning("peers do not reach us at %s, as far as we can see: %s", address, result.cause)
                elif before is not None and before.cause and not result.cause:
                    _LOG.info("peers reach us at %s again", address)
            self.results = results
            return list(results.values())

    async def _check(self, address: Multiaddr) -> AddressChecked:
        line = secrets.token_hex(_NONCE_SIZE).encode()
        began_at = time.monotonic()  # a loop's own clock may have milliseconds only
        cause = ""
        try:
            stream = await self._parts.transports.dial(address, self._parts.options.dial_timeout_s)
            try:
                with self._acceptor.expecting(line) as heard:
                    async with asyncio.timeout(self._parts.options.first_byte_timeout_s):
                        is_echoed = await _echoes(stream, line)
                if not is_echoed:
                    cause = "who answers there does not send back what it gets"
                elif not heard.is_set():
                    cause = "another program answers there"
            finally:
                stream.close()
        except TimeoutError:
            cause = "no answer in time"
        except OSError as error:
            cause = (error.strerror or str(error)).lower()
        except PartyWireError as error:
            cause = str(error)
        result = AddressChecked(address, None if cause else time.monotonic() - began_at, cause)
        self._parts.hub.publish(result)
        return result


async def _echoes(stream: Stream, line: bytes) -> bool:
    """Whether the line comes back, and nothing else before it."""
    wanted = line + b"\n"
    await send_all(stream, bytes((LIVENESS,)) + wanted)
    answer = b""
    while wanted.startswith(answer) and answer != wanted:
        part = await receive_some(stream, LINE_SIZE_MAX)
        if not part:
            return False
        answer += part
    return answer == wanted
