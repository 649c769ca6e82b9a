"""Streams that must be upgraded before anybody may have them: each within a deadline, and only so many at once.

Between a listener and whoever is called with its streams. The one invariant: a stream is handed over only when its
opening handshake is done and the listening is open; any other is closed.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from .errors import DialFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ..transport import Stream

UPGRADE_TIMEOUT_S: Final = 10.0
"""For the opening handshake of one that came."""

UPGRADES_MAX: Final = 128
"""Opening handshakes at once; who comes then is turned away. Each holds at most a head and a receive buffer."""

_LOG: Final = logging.getLogger("partywire.transport")


class Acceptor:
    """Of one listener. For one event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        upgrade: Callable[[Stream], Coroutine[object, object, Stream]],
        on_open: Callable[[Stream, Stream], object],
    ) -> None:
        """`on_open` is called with the stream that came and the one that was made of it."""
        self._loop = loop
        self._upgrade = upgrade
        self._on_open = on_open
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, stream: Stream) -> None:
        """Own a stream that came."""
        if len(self._tasks) >= UPGRADES_MAX:
            stream.abort()
            return
        task = self._loop.create_task(self._open(stream))
        self._tasks.add(task)

        def forget(_: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            error = None if task.cancelled() else task.exception()
            if task.cancelled() or error is not None:
                stream.close()  # also if it had not begun
            if error is not None:
                self._loop.call_exception_handler({"message": "on_accept of a listening failed", "exception": error})

        task.add_done_callback(forget)

    async def _open(self, stream: Stream) -> None:
        try:
            async with asyncio.timeout(UPGRADE_TIMEOUT_S):
                opened = await self._upgrade(stream)
        except TimeoutError:
            _LOG.debug("%s did not open a WebSocket within %g s", stream.peer_address, UPGRADE_TIMEOUT_S)
        except DialFailed as error:
            _LOG.debug("%s opened no WebSocket: %s", stream.peer_address, error.cause)
        else:
            self._on_open(stream, opened)

    def close(self) -> None:
        """Hand nothing over any more."""
        for task in self._tasks:
            task.cancel()
