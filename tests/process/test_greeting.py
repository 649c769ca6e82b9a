"""Handshakes over real streams: refusals are heard, silence ends, and nothing behind the handshake is lost."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

import pytest
import uvloop

from partywire.engine import greeting, limits
from partywire.engine.errors import HandshakeRejected, RejectCode
from partywire.engine.greeting import GreetingFailed, dismiss, greet
from partywire.engine.handshake import Handshake, Role
from partywire.engine.handshake_messages import Hello
from partywire.engine.memory import MemoryStream, memory_pair

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def cores(theirs: bytes = bytes(32)) -> tuple[Handshake, Handshake]:
    hello = Hello("bob", "alice", b"\x01" * 32)
    answer = Hello("alice", "bob", b"\x02" * 32, parameter_digest=theirs)
    return Handshake(Role.INITIATOR, hello, b"pre"), Handshake(Role.RESPONDER, answer, b"pre")


def run(scenario: Callable[[MemoryStream, MemoryStream], Awaitable[None]], capacity: int = 1 << 16) -> None:
    async def main() -> None:
        left, right = memory_pair(asyncio.get_running_loop(), capacity)
        try:
            await asyncio.wait_for(scenario(left, right), 20)
        finally:
            left.close()
            right.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("capacity", [1, 10, 1 << 16])
def test_both_ends_finish_with_the_same_result(capacity: int) -> None:
    async def scenario(left: MemoryStream, right: MemoryStream) -> None:
        ours, theirs = cores()
        rest = await asyncio.gather(greet(left, ours, "alice"), greet(right, theirs, "bob"))
        assert rest[0] == rest[1] == b""
        assert ours.result is not None
        assert theirs.result is not None
        assert ours.result.secret == theirs.result.secret

    run(scenario, capacity)


def test_the_preamble_goes_first() -> None:
    async def scenario(left: MemoryStream, right: MemoryStream) -> None:
        ours, _ = cores()
        task = asyncio.ensure_future(greet(left, ours, "alice", b"PREAMBLE"))
        buffer = memoryview(bytearray(8))
        readable = asyncio.Event()
        right.on_readable(readable.set)
        await readable.wait()
        assert right.try_recv_into(buffer) == 8
        assert bytes(buffer) == b"PREAMBLE"
        task.cancel()
        await asyncio.wait([task])

    run(scenario)


def test_bytes_behind_the_handshake_are_handed_on() -> None:
    async def scenario(left: MemoryStream, right: MemoryStream) -> None:
        ours, theirs = cores()
        task = asyncio.ensure_future(greet(right, theirs, "bob"))
        while ours.result is None:
            left.try_send([ours.data_to_send() or b""])
            buffer = memoryview(bytearray(4096))
            if count := left.try_recv_into(buffer):
                ours.receive_data(buffer[:count])
            await asyncio.sleep(0)
        left.try_send([ours.data_to_send() + b"frames"])
        assert await task == b"frames"

    run(scenario)


def test_a_refusal_is_heard_at_both_ends() -> None:
    async def scenario(left: MemoryStream, right: MemoryStream) -> None:
        ours, theirs = cores(b"\x07" * 32)
        results = await asyncio.gather(greet(left, ours, "alice"), greet(right, theirs, "bob"), return_exceptions=True)
        for result, by_us in zip(results, (False, True), strict=True):
            assert isinstance(result, HandshakeRejected)
            assert result.code is RejectCode.PARAMETERS
            assert result.by_us is by_us

    run(scenario)


def test_a_peer_that_closes_without_a_word_is_suspected_of_being_somebody_else() -> None:
    async def scenario(left: MemoryStream, right: MemoryStream) -> None:
        right.shutdown_write()
        with pytest.raises(GreetingFailed, match="does another party listen at this address"):
            await greet(left, cores()[0], "alice")

    run(scenario)


def test_who_dialled_us_and_closes_is_at_no_address_that_could_be_wrong() -> None:
    async def scenario(left: MemoryStream, right: MemoryStream) -> None:
        left.shutdown_write()
        with pytest.raises(GreetingFailed, match=r"without a word$"):
            await greet(right, cores()[1], "bob", is_dialler=False)

    run(scenario)


def test_a_peer_that_breaks_off_or_talks_nonsense_is_reported() -> None:
    async def broken(left: MemoryStream, right: MemoryStream) -> None:
        right.abort()
        with pytest.raises(GreetingFailed, match="connection reset"):
            await greet(left, cores()[0], "alice")

    async def nonsense(left: MemoryStream, right: MemoryStream) -> None:
        right.try_send([b"HTTP/1.1 400 Bad Request\r\n\r\n"])
        right.shutdown_write()
        with pytest.raises(GreetingFailed, match="unknown handshake message type"):
            await greet(left, cores()[0], "alice")

    run(broken)
    run(nonsense)


def test_a_refusal_is_heard_although_the_stream_broke_before_we_had_said_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(views: object) -> None:
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    async def scenario(left: MemoryStream, right: MemoryStream) -> None:
        ours, theirs = cores()
        with pytest.raises(HandshakeRejected):
            theirs.reject(RejectCode.PARAMETERS, "others")
        right.try_send([theirs.data_to_send()])
        monkeypatch.setattr(left, "try_send", broken)
        with pytest.raises(HandshakeRejected, match="others"):
            await greet(left, ours, "alice")

    run(scenario)


def test_a_silent_peer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HANDSHAKE_TIMEOUT_S", 0.05)

    async def scenario(left: MemoryStream, right: MemoryStream) -> None:
        with pytest.raises(GreetingFailed, match=r"not done within 0\.05 s"):
            await greet(left, cores()[0], "alice")

    run(scenario)


def test_last_words_do_not_wait_for_a_peer_that_does_not_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greeting, "FAREWELL_TIMEOUT_S", 0.05)

    async def scenario(left: MemoryStream, right: MemoryStream) -> None:
        await dismiss(left, b"bye")
        buffer = memoryview(bytearray(10))
        assert right.try_recv_into(buffer) == 3

    run(scenario)
