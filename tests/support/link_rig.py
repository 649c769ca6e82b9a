"""Two multiplexers in one event loop, joined by memory streams, each with real rings and a test's worker behind."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Any

import uvloop

from partywire.engine import records
from partywire.engine.attempt import Lane
from partywire.engine.connection_pump import ConnectionPump
from partywire.engine.control_lane import ControlLane
from partywire.engine.frames import encode_goodbye
from partywire.engine.handshake import HandshakeResult
from partywire.engine.handshake_messages import Hello
from partywire.engine.link import Link
from partywire.engine.link_events import LinkTimeouts
from partywire.engine.memory import MemoryStream, memory_pair
from partywire.engine.multiplexer import Multiplexer
from partywire.shm import fence
from partywire.shm.doorbell import Bell, Doorbell
from partywire.shm.ring import RingReader, RingWriter
from partywire.shm.segment import Segment
from tests.support.family import TestLane

if TYPE_CHECKING:
    from collections.abc import Callable

    from partywire.engine.polling_in_core import PollsInCore

DEADLINE_S = 20.0
EPOCH = 3


class Side:
    """One party's end: the link, the multiplexer, its lanes, and the worker's side of them."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        names: tuple[str, str],
        control: MemoryStream,
        streams: list[MemoryStream],
        ring_size: int,
        timeouts: LinkTimeouts,
        neighbours: list[PollsInCore] | None,
    ) -> None:
        fence.register()
        self._fence = fence.probe()
        self._loop = loop
        self.control = control
        self.streams = streams
        self._doorbell = Doorbell.create(self._fence)
        self._worker_doorbell = Doorbell.create(self._fence)
        self._bells: list[Bell] = []
        self.link = Link(names[0], names[1], loop.time(), timeouts)
        self.link.greeting_started(loop.time())
        hello = Hello(names[1], names[0], bytes(32))
        self.link.greeted(loop.time(), HandshakeResult(hello, EPOCH, len(streams), 1 << 20, bytes(32)))
        self._lanes = [
            Lane(ring_size, index, self._fence, self._bell(self._worker_doorbell)) for index in range(len(streams) + 1)
        ]
        self.control_lane = self._worker_lane(self._lanes[-1])
        self.lanes = [self._worker_lane(lane) for lane in self._lanes[:-1]]
        self.is_up = False
        self.ended: tuple[bool, str] | None = None
        self.multiplexer = Multiplexer(
            loop,
            self.link,
            names[1],
            control,
            ControlLane(self._lanes[-1].tx, self._lanes[-1].rx, EPOCH),
            self._doorbell,
            on_up=self._set_up,
            on_end=self._set_ended,
            close_timeout_s=timeouts.close_s,
            neighbours=neighbours,
        )
        self.pumps = [
            ConnectionPump(self.multiplexer, stream, lane.tx, lane.rx, index, EPOCH)
            for index, (stream, lane) in enumerate(zip(streams, self._lanes, strict=False))
        ]

    def start(self) -> None:
        self.multiplexer.start()
        for pump in self.pumps:
            self.multiplexer.add(pump)

    def _set_up(self) -> None:
        self.is_up = True

    def _set_ended(self, clean: bool, cause: str) -> None:
        self.ended = (clean, cause)

    def _bell(self, doorbell: Doorbell) -> Bell:
        bell = Bell.from_fds(*(os.dup(fd) for fd in doorbell.fds))
        self._bells.append(bell)
        return bell

    def _worker_lane(self, lane: Lane) -> TestLane:
        tx_fd, rx_fd = (os.dup(fd) for fd in lane.fds)
        bell = self._bell(self._doorbell)
        tx = RingWriter(Segment.attach(tx_fd), self._fence, bell)
        return TestLane(tx, RingReader(Segment.attach(rx_fd), self._fence, bell), bell)

    # The worker's acts.

    def try_send(self, data: bytes, lane: int = 0) -> bool:
        worker = self.lanes[lane]
        if not worker.tx.try_write([data], len(data), records.DATA):
            worker.tx.request_space()
            return False
        worker.tx.publish()
        return True

    def finish(self, lane: int) -> None:
        goodbye = encode_goodbye()
        worker = self.lanes[lane]
        assert worker.tx.try_write([goodbye], len(goodbye), records.DATA)
        assert worker.tx.try_write([], 0, records.FINISH)
        worker.tx.publish()

    def finish_all(self) -> None:
        for lane in range(len(self.lanes)):
            self.finish(lane)
        assert self.control_lane.tx.try_write([], 0, records.FINISH)
        self.control_lane.tx.publish()

    def read(self) -> None:
        for lane in (*self.lanes, self.control_lane):
            lane.read()

    def close(self) -> None:
        self.multiplexer.close()
        for lane in (*self.lanes, self.control_lane):
            lane.close()
        for lane_ in self._lanes:
            lane_.close()
        for bell in self._bells:
            bell.close()
        self._doorbell.close()
        self._worker_doorbell.close()


class LinkRig:
    """A standing link between alice and bob. `wait` drives both until something is true."""

    def __init__(
        self,
        connections: int = 1,
        ring_size: int = 16 * 1024,
        capacity: int = 4096,
        timeouts: LinkTimeouts | None = None,
        neighbours: list[PollsInCore] | None = None,
    ) -> None:
        """`neighbours`: multiplexers that alice's process serves beside hers."""
        self.loop = uvloop.new_event_loop()
        self.loop.set_exception_handler(self._take_bug)
        self.bugs: list[BaseException] = []  # what escaped from a callback; ends an I/O process
        timeouts = timeouts or LinkTimeouts()
        pairs = [memory_pair(self.loop, capacity, ("alice", "bob")) for _ in range(connections + 1)]
        left, right = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        self.alice = Side(self.loop, ("alice", "bob"), left[-1], left[:-1], ring_size, timeouts, neighbours)
        self.bob = Side(self.loop, ("bob", "alice"), right[-1], right[:-1], ring_size, timeouts, None)

    def up(self) -> LinkRig:
        self.loop.call_soon(self.alice.start)
        self.loop.call_soon(self.bob.start)
        self.wait(lambda: self.alice.is_up and self.bob.is_up)
        return self

    def wait(self, what: Callable[[], object], each: Callable[[], object] = lambda: None) -> None:
        """Run the event loop until `what` is true; `each` acts for the workers between two turns."""
        self.loop.run_until_complete(self._wait(what, each))

    async def _wait(self, what: Callable[[], object], each: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not what():
            if self.bugs:
                raise self.bugs[0]
            assert time.monotonic() < deadline, "the condition never came true"
            each()
            await asyncio.sleep(0)

    def _take_bug(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.bugs.append(context.get("exception") or RuntimeError(context["message"]))

    def turns(self, count: int = 20) -> None:
        """Let the event loop turn so often."""
        left = iter(range(count))
        self.wait(lambda: next(left, None) is None)

    def read_both(self) -> None:
        self.alice.read()
        self.bob.read()

    def close(self) -> None:
        self.alice.close()
        self.bob.close()
        self.turns(2)
        self.loop.close()
