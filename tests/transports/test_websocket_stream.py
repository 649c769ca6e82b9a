"""What the suite of all streams does not try: an opening that is cut off, and a close while nobody takes anything."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import uvloop

from partywire.engine.exchange import receive_some
from partywire.engine.memory import memory_pair
from partywire.engine.transports import websocket_stream
from partywire.engine.transports.errors import WebSocketFailed
from partywire.engine.transports.websocket import WebSocketCore
from partywire.engine.transports.websocket_stream import WebSocketStream, open_websocket

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from partywire.engine.memory import MemoryStream

DEADLINE_S = 20.0
CAPACITY = 1000


def run(scenario: Coroutine[object, object, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(scenario, DEADLINE_S))


def core(*, dials: bool) -> WebSocketCore:
    return WebSocketCore(dials=dials, host="bob", path="/", tls=None)


async def pair() -> tuple[WebSocketStream, WebSocketStream, MemoryStream]:
    """Two ends, and the carrier of the second one."""
    loop = asyncio.get_running_loop()
    left, right = memory_pair(loop, CAPACITY)
    opened = await asyncio.gather(
        open_websocket(left, core(dials=True), loop, "bob"), open_websocket(right, core(dials=False), loop, "alice")
    )
    return opened[0], opened[1], right


@pytest.mark.parametrize("is_broken", [False, True])
def test_an_opening_that_is_cut_off_is_a_typed_error(is_broken: bool) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        left, right = memory_pair(loop, CAPACITY)
        right.abort() if is_broken else right.shutdown_write()
        with pytest.raises(WebSocketFailed, match="reset by peer" if is_broken else "without a Close"):
            await open_websocket(left, core(dials=True), loop, "bob")
        with pytest.raises(OSError, match="closed"):
            left.try_send([b"x"])

    run(scenario())


def test_a_close_lingers_until_all_that_was_sent_is_taken() -> None:
    async def scenario() -> None:
        left, right, _ = await pair()
        assert left.try_send([bytes(10 * CAPACITY)]) == 10 * CAPACITY
        assert left.try_send([b"x"]) is None
        left.close()
        left.close()
        lingered = left.is_lingering
        size = 0
        while part := await receive_some(right, 300):
            size += len(part)
        assert size == 10 * CAPACITY
        assert (lingered, left.is_lingering) == (True, False)
        right.close()

    run(scenario())


def test_a_close_gives_up_when_nobody_takes_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_stream, "LINGER_S", 0.02)

    async def scenario() -> None:
        left, right, _ = await pair()
        left.try_send([bytes(10 * CAPACITY)])
        left.close()
        while left.is_lingering:  # noqa: ASYNC110 - nothing else tells
            await asyncio.sleep(0.005)
        with pytest.raises(ConnectionResetError):  # noqa: PT012 - behind what had arrived
            while await receive_some(right, CAPACITY):
                pass
        right.close()

    run(scenario())


def test_an_abort_ends_a_close_that_lingers() -> None:
    async def scenario() -> None:
        left, right, _ = await pair()
        left.try_send([bytes(10 * CAPACITY)])
        left.close()
        left.abort()
        assert not left.is_lingering
        right.close()

    run(scenario())


def test_a_reader_is_told_of_a_broken_carrier() -> None:
    async def scenario() -> None:
        left, right, carrier = await pair()
        told = asyncio.Event()
        left.on_readable(told.set)
        carrier.abort()
        await told.wait()
        with pytest.raises(ConnectionResetError):
            left.try_recv_into(memoryview(bytearray(1)))
        left.on_readable(None)
        left.close()
        right.close()

    run(scenario())
