"""Ports within a process: given once, given back, both ends of the range."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from partywire.engine.listening import ListenError
from partywire.engine.multiaddr import Multiaddr
from partywire.engine.transports import AddressNotSupported, DialFailed, Router, Switchboard
from partywire.engine.transports.switchboard import LISTENERS_MAX, process_switchboard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire.engine.transport import Stream


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def ignore(stream: Stream) -> None:
    pass


def test_port_0_gives_each_listener_another_port_and_none_that_is_taken(loop: asyncio.AbstractEventLoop) -> None:
    board = Switchboard()
    board.listen(loop, 2, ignore)
    assert [board.listen(loop, 0, ignore).port for _ in range(3)] == [1, 3, 4]
    with pytest.raises(ListenError, match="in use"):
        board.listen(loop, 3, ignore)


def test_a_port_that_was_given_back_can_be_listened_on_again(loop: asyncio.AbstractEventLoop) -> None:
    board = Switchboard()
    first = board.listen(loop, 2**64 - 1, ignore)
    first.close()
    second = board.listen(loop, 2**64 - 1, ignore)
    first.close()  # closes nothing of the second
    with pytest.raises(ListenError):
        board.listen(loop, 2**64 - 1, ignore)
    second.close()


def test_the_cursor_wraps_and_a_full_switchboard_says_so(loop: asyncio.AbstractEventLoop) -> None:
    board = Switchboard()
    ports = [board.listen(loop, 0, ignore) for _ in range(LISTENERS_MAX)]
    assert {port.port for port in ports} == set(range(1, LISTENERS_MAX + 1))
    with pytest.raises(ListenError, match=str(LISTENERS_MAX)):
        board.listen(loop, 0, ignore)
    ports[9].close()
    assert board.listen(loop, 0, ignore).port == 10


def test_nobody_there_and_another_loop_are_typed_errors(loop: asyncio.AbstractEventLoop) -> None:
    board = Switchboard()
    with pytest.raises(DialFailed, match="refused"):
        board.dial(loop, 7)
    other = asyncio.new_event_loop()
    board.listen(other, 7, ignore)
    with pytest.raises(DialFailed, match="another event loop"):
        board.dial(loop, 7)
    other.close()


def test_a_stream_that_comes_after_its_listener_closed_is_broken(loop: asyncio.AbstractEventLoop) -> None:
    board = Switchboard()
    listener = board.listen(loop, 7, ignore)
    stream = board.dial(loop, 7)
    listener.close()
    loop.run_until_complete(asyncio.sleep(0))
    with pytest.raises(ConnectionResetError):
        stream.try_recv_into(memoryview(bytearray(1)))


def test_a_sender_whose_reader_does_not_read_finds_no_room(loop: asyncio.AbstractEventLoop) -> None:
    board = Switchboard(capacity=100)
    accepted: list[Stream] = []
    board.listen(loop, 7, accepted.append)
    stream = board.dial(loop, 7)
    loop.run_until_complete(asyncio.sleep(0))
    assert stream.try_send([bytes(1000)]) == 100
    assert stream.try_send([b"x"]) is None
    assert accepted[0].try_recv_into(memoryview(bytearray(60))) == 60
    assert stream.try_send([bytes(1000)]) == 60


def test_routers_of_one_process_share_ports_unless_told_otherwise() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        sources: list[str] = []
        listening = await Router(loop).listen(
            Multiaddr.parse("/memory/0"), lambda stream, source: sources.append(str(source))
        )
        stream = await Router(loop).dial(listening.address)
        await asyncio.sleep(0)
        stream.close()
        assert sources == ["/memory/0"]
        with pytest.raises(DialFailed):
            await Router(loop, switchboard=Switchboard()).dial(listening.address)
        with pytest.raises(AddressNotSupported):
            await Router(loop).dial(Multiaddr.parse("/memory/0"))
        listening.close()
        assert not process_switchboard()._ports

    asyncio.run(scenario())
