"""The opener of a party over real rings, with the real bridge of an I/O process in another thread of this process.

In that thread two nodes, alice and bob, are connected by memory; alice's connections are bridged to the opener, who
takes them for its link to the party bob. The opener is in the test's thread, driven by whatever the test is about.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from unittest.mock import patch

from partywire.engine.attempt import SubstreamLane
from partywire.engine.commands import Lanes
from partywire.engine.node_commands import NodeLane
from partywire.engine.ring_stream import RingDoorbell, RingStream
from partywire.engine.worker_bridge.bridge import Bridge
from partywire.shm import fence
from partywire.shm.doorbell import Bell, Doorbell
from partywire.shm.segment import Segment
from partywire.workers import worker as worker_module
from partywire.workers.config import PartyConfig
from partywire.workers.node.config import NodeConfig
from partywire.workers.party_node.node import PartyNode
from partywire.workers.waiting import LoopDriver, run_blocking
from partywire.workers.worker import Worker
from tests.peers.peer_net import PeerNet, echo

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator
    from pathlib import Path

    from partywire.engine.peers.contract import ConnectionManager, PeerConnection
    from tests.peers.peer_net import Node

T = TypeVar("T")

DEADLINE_S = 20.0
RING_SIZE = 64 * 1024

ECHO = "/test/echo/1"
OURS = "/test/ours/1"


class BridgedLane:
    """What an I/O process, or the node's, has of a lane."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        bell: Bell,
        epoch: int,
        peers: ConnectionManager,
        name: str,
        connect_link: Callable[[], Awaitable[PeerConnection]] | None,
    ) -> None:
        self._lane = SubstreamLane(RING_SIZE, epoch, fence.probe(), bell)
        self.fds = self._lane.fds
        self.stream = RingStream(self._lane.tx, self._lane.rx, epoch, loop.call_soon, "the opener")
        self._doorbell = RingDoorbell(loop, self._lane.doorbell, self.stream)
        self._bridge = Bridge(loop, self.stream, peers, name=name, connect_link=connect_link)
        self._bridge.start()

    async def aclose(self) -> None:
        await self._bridge.aclose()
        self._doorbell.close()
        self.stream.close()
        self._lane.close()


class BridgeSide:
    """The other processes: a loop in a thread of its own."""

    def __init__(self) -> None:
        self._is_over = threading.Event()
        self._started: asyncio.Future[None]
        self._ready = threading.Event()
        self.alice: Node
        self.bob: Node
        self._lanes: list[BridgedLane] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="bridge")

    def __enter__(self) -> BridgeSide:
        self._thread.start()
        assert self._ready.wait(DEADLINE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with PeerNet() as net:
            self.alice, self.bob = await net.pair()
            self.bob.peers.serve(ECHO, echo)
            self._ready.set()
            await self._stop.wait()
            for lane in self._lanes:
                await lane.aclose()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Have it done there. The opener is not served meanwhile."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(DEADLINE_S)

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> Any:
        """Have it done there, in the meantime: `result(DEADLINE_S)` gives it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    async def connect(self) -> PeerConnection:
        return await self.alice.peers.connect(self.bob.peers.peer_id)

    async def make_lane(self, bell: Bell, epoch: int, name: str) -> list[int]:
        """A bridge of alice's connections; the descriptors are the opener's."""
        connect_link = self.connect if name else None
        lane = BridgedLane(self.loop, bell, epoch, self.alice.peers, name, connect_link)
        self._lanes.append(lane)
        return [os.dup(fd) for fd in lane.fds]

    async def lose_lane(self, cause: str) -> None:
        self._lanes[-1].stream.abort(cause)


class Rig:
    """An opener whose link to bob is up."""

    def __init__(self, side: BridgeSide, config: PartyConfig, loop: asyncio.AbstractEventLoop | None) -> None:
        self.side = side
        order = fence.probe()
        self._doorbell = Doorbell.create(order)  # of an I/O process that does nothing but what the bridge does
        worker_doorbell = Doorbell.create(order)
        self._bell = Bell.from_fds(*map(os.dup, worker_doorbell.fds))
        self.worker = Worker(config.spec, worker_doorbell, order)
        self._news = os.pipe()
        self.worker.watch(self._news[0], self._on_news)
        self.driver = None if loop is None else LoopDriver(self.worker, loop)
        if self.driver is not None:
            self.driver.attach()
        self.node = PartyNode(config)
        self.node.grace_s = 0.0
        self.node.begin(self.worker, side.alice.peers.peer_id, loop)

    def link_up(self, epoch: int = 1, *, substreams: bool = True) -> None:
        """What a keeper does."""
        segments = [Segment.create(RING_SIZE) for _ in range(4)]
        fds = [*map(os.dup, self._doorbell.fds), *(os.dup(segment.fileno()) for segment in segments)]
        for segment in segments:
            segment.close()
        if substreams:
            fds += self.side.run(self.side.make_lane(self._bell, epoch, "bob"))
        lanes = Lanes(0, 1, epoch, 1, [0], 1, True, 1 << 30, substreams)
        self.worker.commands.take(lanes, fds)

    def process_up(self, epoch: int = 1) -> None:
        """What the node's process does."""
        fds = self.side.run(self.side.make_lane(self._bell, epoch, ""))
        self.node.take_process_lane(NodeLane(epoch, str(self.side.alice.peers.peer_id), []), fds)

    def block(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """As a BlockingParty runs it."""
        return run_blocking(self.worker, coroutine)

    async def answer(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What comes of a coroutine on the other side, while the worker serves and sleeps as ever. Its end wakes us;
        nothing else does, so a bell that is not rung shows."""
        theirs = self.side.begin(coroutine)
        theirs.add_done_callback(lambda _: os.write(self._news[1], b"!"))
        assert await self.worker.until(theirs.done, self.worker.clock() + DEADLINE_S)
        return theirs.result()  # type: ignore[no-any-return]

    def _on_news(self) -> None:
        os.read(self._news[0], 100)
        self.worker.notify()

    def serve_until(self, condition: Callable[[], bool]) -> None:
        """As a call of a BlockingParty that waits."""
        self.block(self.until(condition))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Look often: what is waited for wakes nobody here."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline
            await self.worker.until(lambda: False, self.worker.clock() + 0.002)

    def close(self) -> None:
        assert not self.worker.counters.bells_missed
        self.node.abandon()
        if self.driver is not None:
            self.driver.detach()
        self.worker.unwatch(self._news[0])
        self.worker.close()
        for fd in self._news:
            os.close(fd)
        self._bell.close()
        self._doorbell.close()


def config_of(folder: Path) -> PartyConfig:
    return PartyConfig(
        name="alice",
        parties={"alice": "127.0.0.1:7001", "bob": "127.0.0.1:7002"},
        node=NodeConfig(identity=folder / "alice.key"),
        reconnect_s=5.0,
    )


@contextmanager
def blocking_rig(folder: Path, *, link: bool = True) -> Iterator[Rig]:
    """Driven by plain calls."""
    with BridgeSide() as side, without_net():
        side.run(side.connect())
        rig = Rig(side, config_of(folder), None)
        try:
            if link:
                rig.link_up()
            yield rig
        finally:
            rig.close()


def in_loop(folder: Path, scenario: Callable[[Rig], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario driven by an asyncio loop."""

    async def main(side: BridgeSide) -> None:
        rig = Rig(side, config_of(folder), asyncio.get_running_loop())
        try:
            rig.link_up()
            async with asyncio.timeout(DEADLINE_S):
                await scenario(rig)
                await rig.node.end(rig.worker.clock() + 2.0)
        finally:
            rig.close()

    with BridgeSide() as side, without_net():
        side.run(side.connect())
        asyncio.run(main(side))


@contextmanager
def without_net() -> Iterator[None]:
    """Let no worker wake up by itself, so that who sleeps on what is there sleeps beyond the deadline."""
    with patch.object(worker_module, "SLEEP_MAX_S", 2 * DEADLINE_S):
        yield
