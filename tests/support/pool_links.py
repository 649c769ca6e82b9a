"""The pool's end of a channel for tests: what the channel calls is written down, and can be waited for."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from partywire.workers.pool.pairs import PairLinks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from partywire.workers.errors import SessionError
    from partywire.workers.pool.errors import PoolFailed
    from partywire.workers.pool.links import PeerChannel

DEADLINE_S = 20.0


class Ear:
    """A Receiver. Renews nothing by itself."""

    def __init__(self, channel: PeerChannel) -> None:
        self.channel = channel
        self.lives = 0
        self.messages: deque[bytes | bytearray] = deque()
        self.ends: list[SessionError] = []
        self.refusals: list[str] = []
        self.failures: list[PoolFailed] = []
        self._changed = asyncio.Event()
        channel.attach(self)

    def channel_opened(self) -> None:
        self.lives += 1
        self._changed.set()

    def message_arrived(self, data: bytes | bytearray) -> None:
        self.messages.append(data)
        self._changed.set()

    def channel_ended(self, error: SessionError) -> None:
        self.ends.append(error)
        self._changed.set()

    def channel_refused(self, cause: str) -> None:
        self.refusals.append(cause)
        self._changed.set()

    def links_failed(self, error: PoolFailed) -> None:
        self.failures.append(error)
        self._changed.set()

    async def until(self, condition: Callable[[], bool], timeout_s: float = DEADLINE_S) -> None:
        """Wait for what the channel does, or for what it says of itself."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._changed.clear()
                    try:
                        await asyncio.wait_for(self._changed.wait(), 0.02)  # the reasons change without a call
                    except TimeoutError:
                        pass
        except TimeoutError:
            raise AssertionError(f"{self.channel.name}: {self.channel.why_not_open}; ends {self.ends}") from None

    async def opened(self, lives: int = 1) -> None:
        await self.until(lambda: self.lives >= lives and self.channel.is_open)

    async def next(self) -> bytes | bytearray:
        await self.until(lambda: bool(self.messages))
        return self.messages.popleft()

    async def ended(self, timeout_s: float = DEADLINE_S) -> SessionError:
        await self.until(lambda: bool(self.ends), timeout_s)
        return self.ends.pop(0)

    async def says(self, *words: str) -> str:
        """Wait until the reason why there is no life has all these words."""
        await self.until(lambda: all(word in self.channel.why_not_open for word in words))
        return self.channel.why_not_open

    async def send(self, data: bytes) -> None:
        await self.channel.send([data], len(data))


def run(scenario: Callable[[Rig], Awaitable[None]]) -> None:
    """Run a scenario; every pool that it made is ended."""

    async def main() -> None:
        rig = Rig(asyncio.get_running_loop())
        try:
            await asyncio.wait_for(scenario(rig), 3 * DEADLINE_S)
        finally:
            for links in rig.made:
                links.kill()

    asyncio.run(main())


class Rig:
    """Makes pools' links, driven by the loop of the test."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.made: list[PairLinks] = []

    def links(self, *files: str, **options: Any) -> PairLinks:
        """`files`: key, cert and ca_cert, for TLS."""
        links = PairLinks(*files, **options)
        links.start(self.loop)
        self.made.append(links)
        return links

    async def linked(self, **options: Any) -> tuple[tuple[PairLinks, Ear], tuple[PairLinks, Ear]]:
        """Two pools that listen and know each other as alice and bob, with their first life."""
        alice, bob = self.links(**options), self.links(**options)
        ports = alice.listen("127.0.0.1", 0), bob.listen("127.0.0.1", 0)
        ears = (
            Ear(alice.add_peer("bob", "127.0.0.1", ports[1], None)),
            Ear(bob.add_peer("alice", "localhost", ports[0], None)),
        )
        for ear in ears:
            await ear.opened()
        return (alice, ears[0]), (bob, ears[1])


def engine_pid(links: PairLinks) -> int:
    """The process behind the links."""
    assert links._engine is not None
    return links._engine.process.pid
