"""Two substreams spliced to one: under any schedule it behaves as one substream does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from partywire.engine.memory import memory_pair
from partywire.engine.substreams.connection import SubstreamConnection
from partywire.engine.worker_bridge.limits import BRIDGE_LIMITS, SPLICE_SIZE
from partywire.engine.worker_bridge.splicing import Breach, Ends, splice
from partywire.engine.yamux.errors import SubstreamReset, SubstreamSessionOver
from tests.peers.peer_net import until

if TYPE_CHECKING:
    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter

BROKEN = (SubstreamReset, SubstreamSessionOver)


class Side:
    """A connection of two ends in one loop, and a substream of it: whose outer end the test has, and the inner one."""

    def __init__(self, loop: asyncio.AbstractEventLoop, capacity: int) -> None:
        self._offered: asyncio.Future[Ends] = loop.create_future()
        streams = memory_pair(loop, capacity)
        self.connections = [
            SubstreamConnection(
                loop, stream, is_client=at == 0, on_substream=self._on_substream, peer="them", limits=BRIDGE_LIMITS
            )
            for at, stream in enumerate(streams)
        ]
        for connection in self.connections:
            connection.start()

    def _on_substream(self, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        self._offered.set_result(Ends(reader, writer))

    async def open(self) -> tuple[Ends, Ends]:
        outer = Ends(*await self.connections[0].open())
        outer.writer.write(b"!")  # so that it is announced
        inner = await self._offered
        assert await inner.reader.readexactly(1) == b"!"
        return outer, inner

    def close(self) -> None:
        for connection in self.connections:
            connection.abort("the test is over")


class User:
    """At an outer end: keeps what it sent and got."""

    def __init__(self, ends: Ends) -> None:
        self.ends = ends
        self.sent = bytearray()
        self.received = bytearray()
        self.has_ended = False
        self.saw_end = False
        self.saw_break = False

    def write(self, data: bytes) -> None:
        try:
            self.ends.writer.write(data)
        except BROKEN:
            self.saw_break = True
        else:
            self.sent += data

    async def read(self, size: int) -> None:
        """Something, if there is anything in the next turns of the loop."""
        try:
            async with asyncio.timeout(0):
                data = await self.ends.reader.read(size)
        except TimeoutError:
            return
        except BROKEN:
            self.saw_break = True
            return
        self.received += data
        self.saw_end |= not data

    async def read_everything(self) -> None:
        try:
            while data := await self.ends.reader.read(100_000):
                self.received += data
            self.saw_end = True
        except BROKEN:
            self.saw_break = True

    async def end(self) -> None:
        try:
            await self.ends.writer.drain()
            self.ends.writer.write_eof()
            self.has_ended = True
        except BROKEN:
            self.saw_break = True


STEPS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from(("write", "write", "read", "wait", "end", "reset", "cut")),
        st.integers(1, 150_000),
    ),
    max_size=25,
)


async def join(near: Ends, far: Ends) -> Breach | None:
    """As a bridge does it."""
    if (breach := await splice(near, far)) is not None:
        near.writer.reset(breach.cause)
        far.writer.reset(breach.cause)
    return breach


async def run(steps: list[tuple[int, str, int]], capacity: int) -> None:
    loop = asyncio.get_running_loop()
    sides = Side(loop, capacity), Side(loop, capacity)
    (outer, inner), (far_outer, far_inner) = [await side.open() for side in sides]
    users = User(outer), User(far_outer)
    splicing = loop.create_task(join(inner, far_inner))
    breaker: int | None = None
    try:
        for who, what, size in steps:
            user = users[who]
            if what == "write" and not user.has_ended:
                user.write(bytes((len(user.sent) + at) % 251 for at in range(min(size, 300))) + bytes(size))
            elif what == "read":
                await user.read(size)
            elif what == "wait":
                for _ in range(size % 5):
                    await asyncio.sleep(0)
            elif what == "end" and not user.has_ended and not user.ends.writer._waiting:
                await user.end()
            elif what in ("reset", "cut") and size < 20_000 and breaker is None:
                breaker = who
                if what == "reset":
                    user.ends.writer.reset("the test says so")
                else:
                    sides[who].connections[0].abort("the test cut it")
        readers = [loop.create_task(user.read_everything()) for user in users if not user.saw_end]
        for user in users:
            if not user.has_ended:
                await user.end()
        await asyncio.gather(*readers)
        breach = await splicing
        for user, other in (users, users[::-1]):
            assert other.sent.startswith(user.received)
            if user.saw_end:
                assert user.received == other.sent
        if breach is None:
            whole = [user for who, user in enumerate(users) if who != breaker]  # who broke it did so behind the ends
            assert all(user.saw_end for user in whole)
        else:
            assert breach.is_far == (breaker == 1)
    finally:
        splicing.cancel()
        for side in sides:
            side.close()


async def spliced(steps: list[tuple[int, str, int]], capacity: int) -> None:
    async with asyncio.timeout(20):
        await run(steps, capacity)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.sampled_from((700, 20_000, 1 << 20)))
def test_under_any_schedule_bytes_arrive_in_order_and_ends_and_breaks_behind_them(
    steps: list[tuple[int, str, int]], capacity: int
) -> None:
    asyncio.run(spliced(steps, capacity))


def test_what_had_arrived_of_a_connection_that_is_gone_is_carried_over_first() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        near, far = Side(loop, 1 << 20), Side(loop, 1 << 20)
        try:
            (outer, inner), (far_outer, far_inner) = await near.open(), await far.open()
            data = bytes(3 * SPLICE_SIZE)
            far_outer.writer.write(data)
            await far_outer.writer.drain()
            async with asyncio.timeout(20):
                await until(lambda: far_inner.reader._substream.received_size == len(data))
                far.connections[0].abort("gone")
                breach = await splice(inner, far_inner)
                assert breach is not None
                assert breach.is_far
                assert await outer.reader.readexactly(len(data)) == data
        finally:
            near.close()
            far.close()

    asyncio.run(main())
