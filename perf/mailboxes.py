"""Where messages wait for the session that they are for, when the sessions are asyncio tasks.

Shared by the rivals that run on asyncio: whatever reads the library's stream delivers, a session's task receives, and a
future joins the two when the task came first. One task receives from one mailbox.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from .contender import SAMPLED_SESSIONS
from .workloads import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from .workloads import Channel, Workload


class Mailbox:
    """The messages of one session that have arrived at one party, in order for each peer."""

    __slots__ = ("_arrived", "_awaited_peer", "_loop", "_waiter")

    def __init__(self, parties: int) -> None:
        """In the loop in which it is used."""
        self._arrived: list[deque[bytes]] = [deque() for _ in range(parties)]
        self._awaited_peer = -1
        self._waiter: asyncio.Future[None]  # only while a peer is awaited
        self._loop = asyncio.get_running_loop()

    def deliver(self, peer: int, message: bytes) -> None:
        """Put the peer's next message in; wakes the task if it is this peer that it waits for."""
        self._arrived[peer].append(message)
        if self._awaited_peer == peer and not self._waiter.done():
            self._waiter.set_result(None)

    def fail(self, peer: int, error: Exception) -> None:
        """The peer is gone: a task that waits for it gets the error instead of waiting for good."""
        if self._awaited_peer == peer and not self._waiter.done():
            self._waiter.set_exception(error)

    async def recv(self, peer: int) -> bytes:
        """The peer's next message, waited for if it has not arrived."""
        arrived = self._arrived[peer]
        if not arrived:
            self._awaited_peer = peer
            self._waiter = self._loop.create_future()
            await self._waiter
            self._awaited_peer = -1
        return arrived.popleft()


def plays_of(
    work: Workload, party: int, channels: Sequence[Channel], units: int
) -> tuple[list[Coroutine[Any, Any, None]], list[list[int]]]:
    """One coroutine for each session, and the lists into which the sampled ones of them put their latencies."""
    stopwatches = [Stopwatch() for _ in channels[:SAMPLED_SESSIONS]]
    plays = [
        work.play(channel, party, session, units, stopwatch)
        for session, (channel, stopwatch) in enumerate(
            zip(channels, chain(stopwatches, repeat(None)), strict=False)  # the rest are not sampled
        )
    ]
    return plays, [stopwatch.latencies_ns for stopwatch in stopwatches]


async def play_in_tasks(work: Workload, party: int, channels: Sequence[Channel], units: int) -> list[list[int]]:
    """Play all sessions at once, a task for each. Returns the latencies of the sampled ones."""
    plays, latencies = plays_of(work, party, channels, units)
    await asyncio.gather(*plays)
    return latencies
