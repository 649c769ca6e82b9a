"""The load of a control plane: messages and short substreams at a steady pace, and what takes them in.

Two ways to load one party. In the openers: the opener of a party sends messages to that of another one and opens
substreams that this serves, over the control connection of their link. Beside: a node that is no party dials the
party's port, and handlers that `[node.protocols]` names take everything in its node's process; no opener and no link
has a part in it. There a message is 64 bytes that are written and drained on one standing substream.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from partywire import Party
    from partywire.engine.peers.contract import PeerConnection
    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter

MESSAGE: Final = bytes(64)
MESSAGES_PER_S: Final = 1000
OPENS_PER_S: Final = 100
TICK_S: Final = 0.01
"""What is due is sent together this often: ten messages, and one substream is opened."""

OPENER_ECHO: Final = "/perf/opener-echo/1"
PROCESS_ECHO: Final = "/perf/process-echo/1"
PROCESS_SINK: Final = "/perf/process-sink/1"
PROTOCOLS: Final = {
    PROCESS_ECHO: f"{__name__}:echo",
    PROCESS_SINK: f"{__name__}:sink",
}
"""What a party's node serves in its own process."""

BEHIND_MAX: Final = 100
"""Substreams that may be open at once: of more, the load is not kept up, and the figure says so."""


class Done(NamedTuple):
    """What was sent and answered, and in how many seconds."""

    messages: int = 0
    opens: int = 0
    seconds: float = 1.0


async def echo(connection: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
    """Send back one byte."""
    writer.write(await reader.readexactly(1))
    await writer.drain()


async def sink(connection: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
    """Take in everything."""
    while await reader.read(1 << 16):
        pass


async def ask(open_: Awaitable[Any]) -> None:
    """Open a substream, send a byte, wait for its return, close."""
    *_, reader, writer = await open_
    writer.write(b"?")
    await reader.readexactly(1)
    writer.close()


async def pace(
    send: Callable[[], Awaitable[object]], open_: Callable[[], Coroutine[Any, Any, None]], is_over: asyncio.Event
) -> Done:
    """Send and open at the steady rates until it is over; what is late is made up for."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    messages = opens = 0
    asking: set[asyncio.Task[None]] = set()
    while not is_over.is_set():
        passed_s = loop.time() - start
        for _ in range(min(int(passed_s * MESSAGES_PER_S) + 1 - messages, MESSAGES_PER_S)):
            await send()
            messages += 1
        while opens <= int(passed_s * OPENS_PER_S) and len(asking) < BEHIND_MAX:
            task = loop.create_task(open_())
            asking.add(task)
            task.add_done_callback(asking.discard)
            opens += 1
        await asyncio.sleep(TICK_S)
    seconds = loop.time() - start
    if asking:
        await asyncio.gather(*asking)
    return Done(messages, opens, seconds)


async def load_openers(party: Party, peer: str, is_over: asyncio.Event) -> Done:
    """From this opener to that of a linked party, until it is over and every message is acknowledged."""
    node = party.node
    last: list[Any] = []

    async def send() -> None:
        last[:] = [await node.messages.send(peer, MESSAGE)]

    done = await pace(send, lambda: ask(node.open(peer, OPENER_ECHO)), is_over)
    if last:
        await last[0].acknowledged()
    return done


async def load_process(connection: PeerConnection, is_over: asyncio.Event) -> Done:
    """From a node that is no party, over its connection with a party's node, until it is over."""
    _, _, writer = await connection.open([PROCESS_SINK])

    async def send() -> None:
        writer.write(MESSAGE)
        await writer.drain()

    done = await pace(send, lambda: ask(connection.open([PROCESS_ECHO])), is_over)
    writer.close()
    return done
