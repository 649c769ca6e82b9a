"""Sessions as plain coroutines without an event loop: for the rivals whose libraries do their own waiting.

The party resumes whichever sessions can go on (`Turns.run`), then asks its library for messages and delivers them,
blocking in it when no session can go on (`Turns.wait_s`). A message makes the coroutine that waits for it ready without
a task or a future. A coroutine that yields None (a bare `yield`) has only given way and is resumed in the next pass.
"""

from __future__ import annotations

import heapq
import itertools
import time
import types
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Iterable

PARKED = object()


@types.coroutine
def park() -> Generator[object, None, None]:
    """Stop the coroutine until whoever keeps it makes it ready again."""
    yield PARKED


@types.coroutine
def give_way() -> Generator[None, None, None]:
    """Let the others run first."""
    yield


class Turns:
    """The coroutines of one party, and which of them can go on."""

    def __init__(self) -> None:
        self.ready: deque[Coroutine[object, None, None]] = deque()
        self.current: Coroutine[object, None, None]
        """The one that runs, for the channel that parks it to keep."""
        self.unfinished_count = 0
        self._sleepers: list[tuple[float, int, Coroutine[object, None, None]]] = []
        self._sleep_numbers = itertools.count()  # no two sleepers are equal

    def start(self, plays: Iterable[Coroutine[object, None, None]]) -> None:
        """All of them can go on."""
        self.ready.extend(plays)
        self.unfinished_count = len(self.ready)

    def run(self) -> None:
        """Resume each that was ready at the call once. Whatever a session raises comes out of here."""
        if self._sleepers:
            self._wake()
        ready = self.ready
        for _ in range(len(ready)):
            self.current = coroutine = ready.popleft()
            try:
                if coroutine.send(None) is not PARKED:
                    ready.append(coroutine)
            except StopIteration:
                self.unfinished_count -= 1

    def wait_s(self) -> float | None:
        """How long the party may block in its library, in seconds: None for as long as no message comes."""
        if self.ready:
            return 0.0
        if self._sleepers:
            return max(0.0, self._sleepers[0][0] - time.monotonic())
        return None

    async def sleep(self, seconds: float) -> None:
        """Let the others run, and go on after this time."""
        if seconds <= 0.0:
            await give_way()
            return
        due = time.monotonic() + seconds
        heapq.heappush(self._sleepers, (due, next(self._sleep_numbers), self.current))
        await park()

    def _wake(self) -> None:
        now = time.monotonic()
        while self._sleepers and self._sleepers[0][0] <= now:
            self.ready.append(heapq.heappop(self._sleepers)[2])


class TurnMailbox:
    """The messages of one session that have arrived at one party, in order for each peer. One coroutine receives."""

    __slots__ = ("_arrived", "_awaited_peer", "_parked", "_turns")

    def __init__(self, parties: int, turns: Turns) -> None:
        self._arrived: list[deque[bytes]] = [deque() for _ in range(parties)]
        self._awaited_peer = -1
        self._parked: Coroutine[object, None, None]  # only while a peer is awaited
        self._turns = turns

    def deliver(self, peer: int, message: bytes) -> None:
        """Put the peer's next message in; makes the coroutine ready if it is this peer that it waits for."""
        self._arrived[peer].append(message)
        if self._awaited_peer == peer:
            self._awaited_peer = -1
            self._turns.ready.append(self._parked)

    async def recv(self, peer: int) -> bytes:
        """The peer's next message, waited for if it has not arrived."""
        arrived = self._arrived[peer]
        if not arrived:
            self._awaited_peer = peer
            self._parked = self._turns.current
            await park()
        return arrived.popleft()

    async def sleep(self, seconds: float) -> None:
        """As in `Channel`."""
        await self._turns.sleep(seconds)
