"""The opener's end of a bridge, as small as it can be: says heads, and keeps what it hears."""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from partywire.engine.memory import memory_pair
from partywire.engine.substreams.connection import SubstreamConnection
from partywire.engine.worker_bridge import heads
from partywire.engine.worker_bridge.bridge import Bridge
from partywire.engine.worker_bridge.failures import error_of
from partywire.engine.worker_bridge.limits import BRIDGE_LIMITS
from partywire.engine.worker_bridge.splicing import Ends
from partywire.engine.worker_bridge.talk import read_head_untrusted, write_head
from partywire.engine.yamux.errors import SubstreamReset, SubstreamSessionOver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from partywire.engine.peers.contract import ConnectionManager, PeerConnection
    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter
    from partywire.engine.transport import Stream
    from partywire.engine.worker_bridge.heads import Head

H = TypeVar("H")

OfferHandler = "Callable[[heads.Offer, Ends], Awaitable[None]]"


class Opener:
    """One end. Offers are answered by `on_offer`; news are in `news`, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stream: Stream) -> None:
        self.loop = loop
        self.connection = SubstreamConnection(
            loop,
            stream,
            is_client=True,
            on_substream=self._on_substream,
            peer="the bridge",
            limits=BRIDGE_LIMITS,
            write_timeout_s=math.inf,
        )
        self.news: asyncio.Queue[Head | None] = asyncio.Queue()
        self.on_offer: Callable[[heads.Offer, Ends], Awaitable[None]] = refuse
        self.standing: Ends | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def _spawn(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            await work

        self._tasks.append(self.loop.create_task(run()))

    def _on_substream(self, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        async def take() -> None:
            offer = await read_head_untrusted(reader)
            assert isinstance(offer, heads.Offer)
            await self.on_offer(offer, Ends(reader, writer))

        self._spawn(take())

    async def attend(self) -> heads.Attending:
        """Open the standing substream."""
        self.standing = Ends(*await self.connection.open())
        await write_head(self.standing.writer, heads.Attend())
        answer = await read_head_untrusted(self.standing.reader)
        assert isinstance(answer, heads.Attending)
        self._spawn(self._listen(self.standing.reader))
        return answer

    async def _listen(self, reader: SubstreamReader) -> None:
        try:
            while (head := await read_head_untrusted(reader)) is not None:
                self.news.put_nowait(head)
        except (SubstreamReset, SubstreamSessionOver):
            self.news.put_nowait(None)
        else:
            assert self.standing is not None
            self.standing.writer.close()

    async def say(self, head: Head) -> None:
        """On the standing substream."""
        assert self.standing is not None
        await write_head(self.standing.writer, head)

    async def heard(self, kind: type[H]) -> H:
        """The next of the news that is of a kind."""
        while True:
            head = await self.news.get()
            assert head is not None
            if isinstance(head, kind):
                return head

    async def ask(self, head: Head) -> Head | None:
        """The answer to what a substream begins with; None if it ends without one."""
        ends = Ends(*await self.connection.open())
        await write_head(ends.writer, head)
        answer = await read_head_untrusted(ends.reader)
        ends.writer.close()
        return answer

    async def begin(self, head: heads.Open) -> tuple[heads.Opened, Ends]:
        """A substream to a peer.

        Raises:
            Whatever the bridge says.
        """
        ends = Ends(*await self.connection.open())
        await write_head(ends.writer, head)
        answer = await read_head_untrusted(ends.reader)
        if isinstance(answer, heads.Failed):
            ends.writer.close()
            raise error_of(answer)
        assert isinstance(answer, heads.Opened)
        return answer, ends

    async def aclose(self) -> None:
        """End it, and raise what a handler of offers raised."""
        await self.connection.aclose(0.0)
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, AssertionError):
                raise result


async def refuse(offer: heads.Offer, ends: Ends) -> None:
    """Nobody takes it."""
    await write_head(ends.writer, heads.Refused(f"nobody serves {offer.protocol}"))
    ends.writer.close()


@asynccontextmanager
async def bridged(
    manager: ConnectionManager,
    streams: tuple[Stream, Stream] | None = None,
    connect_link: Callable[[], Awaitable[PeerConnection]] | None = None,
    **options: float,
) -> AsyncIterator[tuple[Bridge, Opener]]:
    """A bridge over `manager` and its opener, over streams of their own."""
    loop = asyncio.get_running_loop()
    ours, theirs = streams or memory_pair(loop)
    bridge = Bridge(loop, theirs, manager, name="bob", connect_link=connect_link, **options)
    opener = Opener(loop, ours)
    bridge.start()
    opener.connection.start()
    try:
        yield bridge, opener
    finally:
        await opener.aclose()
        await bridge.aclose()
