"""Calls between nodes: answers, streams, every status, deadlines, cancellation, limits and losses."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from partywire.engine.errors import LinkProtocolError
from partywire.engine.negotiation import NegotiationFailed
from partywire.engine.rpc import wire
from partywire.engine.rpc.client import RpcClient
from partywire.engine.rpc.errors import RpcError, RpcLost, RpcTimeout
from partywire.engine.rpc.server import RpcLimits, RpcServer
from partywire.engine.rpc.service import RpcCall, RpcService
from partywire.engine.rpc.wire import End, Request, RpcStatus
from tests.peers.peer_net import PeerNet, scenario, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.peers.peer_net import Node

NUMBERS = "/test/numbers/1"


class Numbers:
    """A service with a method for each way in which a call goes."""

    def __init__(self) -> None:
        self.service = service = RpcService(NUMBERS)
        self.running = 0
        self.cancelled = 0
        self.calls: list[RpcCall] = []

        @service.method("double")
        async def double(call: RpcCall, payload: bytes) -> bytes:
            self.calls.append(call)
            return payload * 2

        @service.method("count")
        async def count(_: RpcCall, payload: bytes) -> AsyncIterator[bytes]:
            for number in range(int(payload)):
                yield b"%d" % number

        @service.method("endless")
        async def endless(_: RpcCall, payload: bytes) -> AsyncIterator[bytes]:
            self.running += 1
            try:
                while True:
                    yield payload
                    self.calls.append(_)
            finally:
                self.cancelled += 1

        @service.method("never")
        async def never(_: RpcCall, _payload: bytes) -> bytes:
            self.running += 1
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            raise AssertionError

        @service.method("missing")
        async def missing(_: RpcCall, payload: bytes) -> bytes:
            raise RpcError(RpcStatus.NOT_FOUND, f"there is no {payload.decode()}")

        @service.method("broken")
        async def broken(_: RpcCall, _payload: bytes) -> bytes:
            raise ValueError("a secret of the service")

        @service.method("nothing")
        async def nothing(_: RpcCall, _payload: bytes) -> AsyncIterator[bytes]:
            for item in list[bytes]():
                yield item


async def service_of(net: PeerNet, **limits: float) -> tuple[Node, Node, Numbers, RpcServer]:
    """alice, who asks, and bob, who serves."""
    alice, bob = await net.pair()
    numbers = Numbers()
    server = RpcServer(bob.peers, RpcLimits(**limits))  # type: ignore[arg-type]
    server.add(numbers.service)
    return alice, bob, numbers, server


def client_of(alice: Node, bob: Node, **settings: int) -> RpcClient:
    return RpcClient(alice.peers, bob.peers.peer_id, NUMBERS, **settings)


@scenario
async def test_a_call_has_an_answer_and_the_peer_is_dialled_for_it(net: PeerNet) -> None:
    alice, bob, numbers, server = await service_of(net)
    async with client_of(alice, bob) as client:
        assert await client.call("double", b"ab", timeout=7) == b"abab"
        assert await client.call("double") == b""
    assert [(call.peer_id, call.method) for call in numbers.calls] == [(alice.peers.peer_id, "double")] * 2
    assert 6 < numbers.calls[0].timeout_s <= 7
    assert (server.counts.calls, server.counts.failed) == (2, 0)


@scenario
async def test_calls_at_the_same_time_share_a_bounded_number_of_substreams(net: PeerNet) -> None:
    alice, bob, _, server = await service_of(net)
    async with client_of(alice, bob, substreams_max=3) as client:
        answers = await asyncio.gather(*(client.call("double", b"%d" % index) for index in range(100)))
        assert answers == [b"%d%d" % (index, index) for index in range(100)]
        assert len(server._substreams) == 1
        assert server._substreams.total() <= 3


@scenario
async def test_a_stream_has_answers_in_order(net: PeerNet) -> None:
    alice, bob, _, _ = await service_of(net)
    async with client_of(alice, bob) as client:
        assert [item async for item in client.stream("count", b"300")] == [b"%d" % number for number in range(300)]
        assert [item async for item in client.stream("nothing")] == []


@scenario
async def test_the_largest_payload_fits_and_one_byte_more_does_not(net: PeerNet) -> None:
    alice, bob, _, _ = await service_of(net, payload_size_max=2000)
    async with client_of(alice, bob, payload_size_max=2000) as client:
        assert len(await client.call("double", bytes(1000))) == 2000
        with pytest.raises(ValueError, match="2001 bytes"):
            await client.call("double", bytes(2001))
        with pytest.raises(RpcError, match="an answer of 2002 bytes, at most 2000") as caught:
            await client.call("double", bytes(1001))
        assert caught.value.status is RpcStatus.MALFORMED_RESPONSE
        assert await client.call("double", b"x") == b"xx"
    async with client_of(alice, bob) as client:
        with pytest.raises(RpcLost):
            await client.call("double", bytes(2000 + wire.OVERHEAD_MAX))


@scenario
async def test_every_failure_of_a_service_has_its_status(net: PeerNet, caplog: pytest.LogCaptureFixture) -> None:
    alice, bob, _, server = await service_of(net)
    async with client_of(alice, bob) as client:
        with pytest.raises(RpcError, match="answered missing with NOT_FOUND: there is no spoon") as caught:
            await client.call("missing", b"spoon")
        assert (caught.value.status, caught.value.peer) == (RpcStatus.NOT_FOUND, str(bob.peers.peer_id))
        with pytest.raises(RpcError, match="has no method 'absent'; do both ends"):
            await client.call("absent")
        with caplog.at_level(logging.ERROR), pytest.raises(RpcError) as caught:
            await client.call("broken")
        assert "the handler failed with ValueError" in str(caught.value)
        assert "secret" not in str(caught.value)
        assert "a secret of the service" in caplog.text
        for method, why in (("count", "several answers"), ("nothing", "no answer")):
            with pytest.raises(RpcError, match=why):
                await client.call(method, b"2")
        assert await client.call("double", b"x") == b"xx"
    assert server.counts.failed == 3


@scenario
async def test_a_peer_without_the_service_says_so(net: PeerNet) -> None:
    alice, bob = await net.pair()
    async with client_of(alice, bob) as client:
        with pytest.raises(NegotiationFailed):
            await client.call("double")


@scenario
async def test_the_service_ends_what_takes_too_long_and_the_substream_is_kept(net: PeerNet) -> None:
    alice, bob, numbers, server = await service_of(net)
    async with client_of(alice, bob) as client:
        with pytest.raises(RpcError, match="answered never with TIMEOUT: not done within") as caught:
            await client.call("never", timeout=0.05)
        assert caught.value.status is RpcStatus.TIMEOUT
        assert numbers.cancelled == 1
        assert await client.call("double", b"x") == b"xx"
        assert server._substreams.total() == 1


@scenario
async def test_the_service_has_the_last_word_about_deadlines(net: PeerNet) -> None:
    alice, bob, _, _ = await service_of(net, timeout_max_s=0.05)
    async with client_of(alice, bob) as client:
        with pytest.raises(RpcError, match=r"not done within 0.05 s"):
            await client.call("never", timeout=1000)


@scenario
async def test_a_service_that_never_answers_is_given_up(net: PeerNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partywire.engine.rpc.client.GRACE_S", 0.02)
    alice, bob = await net.pair()

    async def silent(*_: object) -> None:
        await asyncio.get_running_loop().create_future()

    bob.peers.serve(NUMBERS, silent)
    async with client_of(alice, bob) as client:
        with pytest.raises(RpcTimeout, match=r"no answer within 0.05 s; give it more time"):
            await client.call("double", timeout=0.05)


@scenario
async def test_a_cancelled_call_ends_at_the_service_too(net: PeerNet) -> None:
    alice, bob, numbers, server = await service_of(net)
    async with client_of(alice, bob) as client:
        calling = asyncio.create_task(client.call("never"))
        await until(lambda: numbers.running)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await until(lambda: numbers.cancelled)
        assert await client.call("double", b"x") == b"xx"
    assert server.counts.lost == 1


@scenario
async def test_a_stream_that_is_left_ends_at_the_service_too(net: PeerNet) -> None:
    alice, bob, numbers, _ = await service_of(net)
    async with client_of(alice, bob) as client:
        async with aclosing(client.stream("endless", b"x")) as answers:
            async for _ in answers:
                break
        await until(lambda: numbers.cancelled)
        assert await client.call("double", b"y") == b"yy"


@scenario
async def test_a_stream_that_nobody_reads_waits(net: PeerNet) -> None:
    alice, bob, numbers, _ = await service_of(net)
    async with client_of(alice, bob) as client:
        answers = client.stream("endless", bytes(64 * 1024))
        await anext(answers)
        before = -1
        while len(numbers.calls) != before:
            before = len(numbers.calls)
            for _ in range(50):
                await asyncio.sleep(0)
        assert before < 50  # windows and buffers between the two
        await answers.aclose()


@scenario
async def test_when_all_substreams_are_in_use_a_call_waits_no_longer_than_it_may(net: PeerNet) -> None:
    alice, bob, numbers, _ = await service_of(net)
    async with client_of(alice, bob, substreams_max=1) as client:
        calling = asyncio.create_task(client.call("never"))
        await until(lambda: numbers.running)
        with pytest.raises(RpcTimeout, match="every substream is in use"):
            await client.call("double", timeout=0.02)
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)


@scenario
async def test_a_peer_has_a_bounded_number_of_substreams(net: PeerNet) -> None:
    alice, bob, numbers, server = await service_of(net, substreams_per_peer_max=2)
    async with client_of(alice, bob, substreams_max=5) as client:
        calling = [asyncio.create_task(client.call("never")) for _ in range(2)]
        await until(lambda: numbers.running == 2)
        with pytest.raises(RpcError, match="too many substreams are open already; try again later") as caught:
            await client.call("double", b"x")
        assert caught.value.status is RpcStatus.BUSY
        for call in calling:
            call.cancel()
        await asyncio.gather(*calling, return_exceptions=True)
        await until(lambda: not server._substreams)
        assert await client.call("double", b"x") == b"xx"
    assert server.counts.refused == 1


@scenario
async def test_a_lost_connection_is_an_error_and_the_next_call_dials_again(net: PeerNet) -> None:
    alice, bob, numbers, _ = await service_of(net)
    async with client_of(alice, bob) as client:
        calling = asyncio.create_task(client.call("never"))
        await until(lambda: numbers.running)
        connection = bob.to(alice)
        assert connection is not None
        await connection.aclose()
        with pytest.raises(RpcLost, match=r"the call of never at .* was lost, done or not"):
            await calling
        await until(lambda: alice.to(bob) is None)
        assert await client.call("double", b"x") == b"xx"
        assert numbers.cancelled == 1


@scenario
async def test_an_idle_substream_is_closed_and_another_one_opened(net: PeerNet) -> None:
    alice, bob, _, server = await service_of(net, idle_timeout_s=0.02)
    async with client_of(alice, bob) as client:
        assert await client.call("double", b"x") == b"xx"
        await until(lambda: not server._substreams)
        assert await client.call("double", b"y") == b"yy"


@scenario
async def test_a_request_within_a_call_ends_the_substream(net: PeerNet) -> None:
    alice, bob, numbers, _ = await service_of(net)
    connection = await alice.connect(bob)
    _, reader, writer = await connection.open([NUMBERS])
    for call in (1, 2):
        writer.writelines(wire.encode_request(Request(call, "never", 10_000, b"")))
    await until(lambda: numbers.cancelled)
    with pytest.raises(Exception, match="reset substream"):
        await reader.read(1)


@scenario
async def test_answers_that_are_none_end_the_call(net: PeerNet) -> None:
    alice, bob = await net.pair()
    answers = [
        wire.encode_end(End(7, RpcStatus.OK)),
        b"\x00\x00\x00\x05\x09\x00\x00\x00\x01",
        b"\xff\xff\xff\xff",
        b"\x00\x00",
        b"",
    ]

    async def lie(_: object, reader: object, writer: object) -> None:
        await reader.read(1)  # type: ignore[attr-defined]
        writer.write(answers.pop(0))  # type: ignore[attr-defined]
        writer.close()  # type: ignore[attr-defined]

    bob.peers.serve(NUMBERS, lie)
    async with client_of(alice, bob) as client:
        while answers:
            with pytest.raises(LinkProtocolError):
                await client.call("double")


@scenario
async def test_a_closed_client_asks_nothing(net: PeerNet) -> None:
    alice, bob, _, server = await service_of(net)
    client = client_of(alice, bob)
    assert await client.call("double", b"x") == b"xx"
    await client.aclose()
    await until(lambda: not server._substreams)
    with pytest.raises(RuntimeError, match="the client is closed"):
        await client.call("double")


@scenario
async def test_a_service_that_was_removed_is_served_no_more(net: PeerNet) -> None:
    alice, bob, numbers, server = await service_of(net)
    with pytest.raises(ValueError, match="served already"):
        server.add(numbers.service)
    server.remove(numbers.service)
    server.remove(numbers.service)
    async with client_of(alice, bob) as client:
        with pytest.raises((NegotiationFailed, RpcLost)):
            await client.call("double")


def test_names_of_methods_are_checked_and_taken_once() -> None:
    service = RpcService(NUMBERS)

    async def handler(_: RpcCall, payload: bytes) -> bytes:
        return payload

    service.method("x")(handler)
    for name in ("", "x" * 256, "x"):
        with pytest.raises(ValueError, match=r"name of a method|has a method x already"):
            service.method(name)


@pytest.mark.parametrize("timeout", [0, -1.0, float("inf"), float("nan")])
def test_a_call_has_to_end(timeout: float) -> None:
    async def main() -> None:
        async with PeerNet() as net:
            alice, bob = await net.pair()
            with pytest.raises(ValueError, match="a call has to end"):
                await client_of(alice, bob).call("double", timeout=timeout)

    asyncio.run(main())
