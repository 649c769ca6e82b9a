"""A LinkRig whose control connection carries substreams; multiplexers, rings and workers are as there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import uvloop

from partywire.engine.link_events import LinkTimeouts
from partywire.engine.link_substreams.dividing import divide
from partywire.engine.memory import MemoryStream, memory_pair
from tests.support.link_rig import LinkRig, Side

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from partywire.engine.link_substreams.connection import LinkConnection
    from partywire.engine.link_substreams.control_substream import ControlSubstream
    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter
    from partywire.engine.transport import Stream

    Ends = tuple[SubstreamReader, SubstreamWriter]

HEARTBEAT_TIMEOUT_S = 20.0


class _LinkOf:
    """The link of a side that is made behind its connection."""

    side: Side

    def heard(self, now: float) -> None:
        self.side.link.heard(now)

    @property
    def cause(self) -> str:
        return self.side.link.cause


class DividedSide:
    """One end: the side with its multiplexer, its connection, and the substreams that the other one opened."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        names: tuple[str, str],
        stream: Stream,
        streams: list[MemoryStream],
        timeouts: LinkTimeouts,
        *,
        is_dialler: bool,
    ) -> None:
        self.offered: list[Ends] = []
        link: Any = _LinkOf()
        self.connection: LinkConnection
        self.control: ControlSubstream
        self.connection, self.control = divide(
            loop,
            stream,
            link,
            peer=names[1],
            is_dialler=is_dialler,
            heartbeat_timeout_s=HEARTBEAT_TIMEOUT_S,
            close_timeout_s=timeouts.close_s,
            clock=time.monotonic,
            on_substream=lambda *ends: self.offered.append(ends),
        )
        control: Any = self.control  # a stream like any other
        self.side = link.side = Side(loop, names, control, streams, 16 * 1024, timeouts, None)

    def start(self) -> None:
        self.side.start()
        self.connection.start()


class DividedRig(LinkRig):
    """Alice dials bob. Where alice is missing, a test says what she does, on `streams[0]`."""

    def __init__(
        self, capacity: int = 4096, timeouts: LinkTimeouts | None = None, *, is_alice_missing: bool = False
    ) -> None:
        self.loop = uvloop.new_event_loop()
        self.loop.set_exception_handler(self._take_bug)
        self.bugs = []
        timeouts = timeouts or LinkTimeouts()
        self.streams = memory_pair(self.loop, capacity, ("alice", "bob"))
        left, right = memory_pair(self.loop, capacity, ("alice", "bob"))
        self.at_bob = DividedSide(self.loop, ("bob", "alice"), self.streams[1], [right], timeouts, is_dialler=False)
        self.bob = self.at_bob.side
        self._sides = [self.at_bob]
        if not is_alice_missing:
            self.at_alice = DividedSide(self.loop, ("alice", "bob"), self.streams[0], [left], timeouts, is_dialler=True)
            self.alice = self.at_alice.side
            self._sides.append(self.at_alice)

    def up(self) -> DividedRig:
        for side in self._sides:
            self.loop.call_soon(side.start)
        self.wait(lambda: all(side.side.is_up for side in self._sides))
        return self

    def do(self, what: Coroutine[object, object, Any]) -> Any:
        """Run it to its end, beside everything else."""
        task = self.loop.create_task(what)
        self.wait(task.done)
        return task.result()

    def open(self) -> tuple[Ends, Ends]:
        """A substream that alice opens: her ends, and bob's."""
        before = len(self.at_bob.offered)
        ends = self.do(self.at_alice.connection.open())
        self.wait(lambda: len(self.at_bob.offered) > before)
        return ends, self.at_bob.offered[-1]

    def finish(self, each: Callable[[], object] = lambda: None) -> None:
        """Both parties close, and the link ends."""
        self.alice.finish_all()
        self.bob.finish_all()

        def step() -> None:
            self.read_both()
            each()

        self.wait(lambda: self.alice.ended and self.bob.ended, step)

    def close(self) -> None:
        for side in self._sides:
            side.connection.abort("the test is over")
            side.side.close()
        self.turns(2)
        self.loop.close()
