"""Who waits for a peer that was never met: until when, and what they are told.

Between a peer's calls and what its channel says of attempts. The one invariant: whoever waits here ends with the first
life of the channel, an attempt that shows that waiting is vain, or its deadline, whichever is first.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from ..errors import ConnectFailed
from .errors import PeerRefused

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

    from .links import PeerChannel

log = logging.getLogger("partywire.pool")

HINT_S: Final = 10.0
"""How long such a peer is waited for before the log says so, once: somebody may have mistyped a port."""

POOL: Final = "the pool"


class Late:
    """Driven by the peer: whoever begins to wait, and what became of the attempts."""

    def __init__(self, channel: PeerChannel, fail: Callable[[asyncio.Future[Any], ConnectFailed], None]) -> None:
        """`fail` ends one of those who wait."""
        self._channel = channel
        self._fail = fail
        self._waiting: dict[asyncio.Future[Any], asyncio.TimerHandle | None] = {}
        self._hint: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def wait(self, future: asyncio.Future[Any], seconds: float | None) -> None:
        """It waits so long and no longer; None for no limit. Ended in any other way, it waits no more."""
        loop = future.get_loop()
        if self._hint is None:
            self._hint = loop.call_later(HINT_S, self._tell)
        self._waiting[future] = None if seconds is None else loop.call_later(seconds, self._time_is_up, future, seconds)
        future.add_done_callback(self.leave)

    def leave(self, future: asyncio.Future[Any]) -> None:
        """It does not wait any more."""
        timer = self._waiting.pop(future, None)
        if timer is not None:
            timer.cancel()

    def clear(self) -> None:
        """Nobody waits any more: the peer is there, or never will be."""
        for timer in (*self._waiting.values(), self._hint):
            if timer is not None:
                timer.cancel()
        self._waiting.clear()
        self._hint = None

    def refused(self, cause: str) -> None:
        """An attempt has shown that waiting is vain."""
        waiting = tuple(self._waiting)
        self.clear()
        for future in waiting:
            self._fail(future, PeerRefused(self._channel.name, cause))

    def not_met(self, seconds: float) -> ConnectFailed:
        """What is raised when the time is up."""
        return ConnectFailed(POOL, ((self._channel.name, self._channel.why_not_open),), float(seconds))

    def _time_is_up(self, future: asyncio.Future[Any], seconds: float) -> None:
        self._waiting.pop(future, None)
        self._fail(future, self.not_met(seconds))

    def _tell(self) -> None:
        log.warning("still waiting for %s: %s", self._channel.name, self._channel.why_not_open)
