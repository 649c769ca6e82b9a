"""A stream behind a channel, over a network in memory: little room, cuts, ends, and what shows on no socket."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest
import uvloop

from partywire.engine import greeting, limits
from partywire.engine.channel.link_security import LinkSecurity
from partywire.engine.errors import HandshakeRejected, RejectCode
from partywire.engine.exchange import receive_some, send_all
from partywire.engine.greeting import GreetingFailed
from partywire.engine.guard import Guard
from partywire.engine.memory import memory_pair
from partywire.engine.preamble import PREAMBLE_SIZE, ConnectionClass, Preamble, SecurityMode
from partywire.engine.tcp import TcpStream, tune
from partywire.engine.topology import routing_tag
from tests.support.certificates import issue, noise_links, tls_link

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from partywire.engine.transport import Stream

Ends = tuple[LinkSecurity, LinkSecurity]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Ends:
    folder = tmp_path_factory.mktemp("tls")
    ca = issue("ca", is_ca=True).write(folder, "ca")
    alice, bob = (tls_link(issue(name, ca).write(folder, name), ca=ca) for name in ("alice", "bob"))
    return alice, bob


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Ends:
    alice, bob = noise_links(tmp_path_factory.mktemp("noise"), SecurityMode.NOISE_XX_AES)
    return alice, bob


@pytest.fixture(params=["tls", "noise"])
def ends(request: pytest.FixtureRequest) -> Ends:
    found: Ends = request.getfixturevalue(request.param)
    return found


def preamble(mode: SecurityMode) -> bytes:
    return Preamble(ConnectionClass.CONTROL, 0, routing_tag("alice", "bob"), mode).encode()


class Link:
    """Bob, who dials, and alice: the streams below, and those behind the channel once it is made."""

    def __init__(self, ends: Ends, capacity: int) -> None:
        """`capacity` 0: over a unix socket."""
        self.loop = asyncio.get_running_loop()
        self.below: tuple[Stream, Stream] = memory_pair(self.loop, capacity or 1)
        if not capacity:
            bob, alice = socket.socketpair()
            for sock in (bob, alice):
                tune(sock)
            self.below = TcpStream(bob, self.loop), TcpStream(alice, self.loop)
        self.alice_guard = Guard(self.loop, "alice", "bob", ends[0])
        self.bob_guard = Guard(self.loop, "bob", "alice", ends[1])

    async def dial(self) -> Stream:
        stream, opening = await self.bob_guard.admit_dialled(self.below[0], preamble(self.bob_guard.mode))
        await send_all(stream, opening)
        return stream

    async def accept(self) -> Stream:
        received = b""
        while len(received) < PREAMBLE_SIZE:  # as the gateway does, not a byte more
            view = memoryview(bytearray(PREAMBLE_SIZE - len(received)))
            if count := self.below[1].try_recv_into(view):
                received += view[:count]
            await asyncio.sleep(0)
        return await self.alice_guard.admit_accepted(self.below[1], received)

    async def up(self) -> tuple[Stream, Stream]:
        return await asyncio.gather(self.dial(), self.accept())


def run(ends: Ends, scenario: Callable[[Link], Awaitable[None]], capacity: int = 1 << 16) -> None:
    async def main() -> None:
        link = Link(ends, capacity)
        try:
            await asyncio.wait_for(scenario(link), 20)
        finally:
            for stream in link.below:
                stream.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def receive_all(stream: Stream) -> bytes:
    received = b""
    while data := await receive_some(stream):
        received += data
    return received


@pytest.mark.parametrize("capacity", [7, 1000, 1 << 20, 0])
def test_everything_arrives_both_ways_at_once_whatever_room_there_is(ends: Ends, capacity: int) -> None:
    data = bytes(range(256)) * (200 if capacity == 7 else 3000)

    async def scenario(link: Link) -> None:
        bob, alice = await link.up()

        async def send(stream: Stream, what: bytes) -> None:
            await send_all(stream, what)
            stream.shutdown_write()

        results = await asyncio.gather(send(bob, data), send(alice, data[::-1]), receive_all(alice), receive_all(bob))
        assert (results[2] == data, results[3] == data[::-1]) == (True, True)
        assert bob.try_recv_into(memoryview(bytearray(1))) == 0  # again and again

    run(ends, scenario, capacity)


def test_what_was_sealed_may_be_changed_and_resized_at_once(ends: Ends) -> None:
    """As the multiplexer does with what it has to say on the control connection."""

    async def scenario(link: Link) -> None:
        bob, alice = await link.up()
        data = bytearray(b"first and second")
        assert bob.try_send([memoryview(data)[:5]]) == 5
        assert bob.try_send([data]) == 16
        del data[:16]
        data += bytes(300_000)
        while (count := bob.try_send([data])) is None:
            data += b"more"  # behind what is being sent
            await receive_some(alice)
        del data[:count]

    run(ends, scenario, capacity=100_000)


def test_a_reader_is_called_for_what_was_received_and_not_taken(ends: Ends) -> None:
    """Nothing of it shows on the socket any more."""

    async def scenario(link: Link) -> None:
        bob, alice = await link.up()
        await send_all(bob, b"0123456789")
        taken = bytearray()
        done = asyncio.Event()

        def read() -> None:
            room = memoryview(bytearray(3))
            if count := alice.try_recv_into(room):
                taken.extend(room[:count])
            if len(taken) == 10:
                done.set()
            elif len(taken) == 6 and not paused:
                paused.append(True)
                alice.on_readable(None)
                link.loop.call_soon(alice.on_readable, read)

        paused: list[bool] = []
        alice.on_readable(read)
        await done.wait()
        assert taken == b"0123456789"

    run(ends, scenario)


def test_a_stream_that_is_cut_off_breaks_and_does_not_end(ends: Ends) -> None:
    async def scenario(link: Link) -> None:
        bob, alice = await link.up()
        await send_all(bob, b"the last that arrives")
        assert await receive_some(alice) == b"the last that arrives"
        link.below[0].shutdown_write()  # as an attacker could, or a host that dies
        for _ in range(2):
            with pytest.raises(OSError, match="cut off"):
                await receive_some(alice)

    run(ends, scenario)


def test_a_changed_byte_breaks_the_stream(tls: Ends) -> None:
    async def scenario(link: Link) -> None:
        _, alice = await link.up()
        link.below[0].try_send([b"\x17\x03\x03\x00\x20" + bytes(32)])
        with pytest.raises(OSError, match="record"):
            await receive_some(alice)

    run(tls, scenario)


def test_no_more_than_one_batch_is_sealed_for_a_kernel_that_takes_nothing(ends: Ends) -> None:
    async def scenario(link: Link) -> None:
        bob, alice = await link.up()
        data = bytes(1 << 20)
        assert bob.try_send([data]) is None
        for _ in range(3):
            assert bob.try_send([data]) is None
        received = 0
        room = memoryview(bytearray(4096))
        while (count := bob.try_send([data])) is None:
            received += alice.try_recv_into(room) or 0
        assert count == 256 * 1024  # what was sealed at first, and is told when the kernel has all of it
        assert received <= count

    run(ends, scenario, capacity=4096)


def test_silence_in_a_handshake_ends_it_in_time(tls: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HANDSHAKE_TIMEOUT_S", 0.1)

    async def scenario(link: Link) -> None:
        await send_all(link.below[0], preamble(SecurityMode.TLS) + b"\x16\x03\x01")  # and not a byte more
        with pytest.raises(GreetingFailed, match="not done within"):
            await link.accept()
        with pytest.raises(OSError, match="closed"):
            link.below[1].try_recv_into(memoryview(bytearray(1)))

    run(tls, scenario)


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x16\x03\x03\x40\x00" + bytes(0x4000)])
def test_garbage_in_a_handshake_is_no_more_than_a_failed_greeting(
    tls: Ends, garbage: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(greeting, "FAREWELL_TIMEOUT_S", 0.05)

    async def scenario(link: Link) -> None:
        await send_all(link.below[0], preamble(SecurityMode.TLS) + garbage)
        with pytest.raises(GreetingFailed):
            await link.accept()

    run(tls, scenario)


def test_a_dialler_of_another_mode_is_refused_and_never_followed(tls: Ends) -> None:
    async def scenario(link: Link) -> None:
        accepting = asyncio.ensure_future(link.accept())
        with pytest.raises(HandshakeRejected, match="by 'none' at alice but by 'tls' at bob") as caught:
            await link.dial()
        assert caught.value.code is RejectCode.SECURITY
        with pytest.raises(GreetingFailed, match="by 'none' at alice but by 'tls' at bob"):
            await accepting

    run((LinkSecurity(), tls[1]), scenario)


def test_new_files_hold_for_the_next_connection(tls: Ends, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keys are rotated without a restart."""
    folder = tmp_path_factory.mktemp("rotation")
    ca = issue("ca", is_ca=True).write(folder, "ca")
    expired = issue("bob", ca, days=(-9, -1)).write(folder, "bob")
    ends = tls_link(issue("alice", ca).write(folder, "alice"), ca=ca), tls_link(expired, ca=ca)

    async def scenario(link: Link) -> None:
        accepting = asyncio.ensure_future(link.accept())
        bob = await link.dial()
        with pytest.raises(HandshakeRejected, match="says that our certificate has expired"):
            await receive_some(bob)
        bob.close()
        with pytest.raises(GreetingFailed, match="has expired"):
            await accepting
        issue("bob", ca).write(folder, "bob")
        link.below = memory_pair(link.loop, 1 << 16)
        bob, alice = await link.up()
        await send_all(bob, b"good")
        assert await receive_some(alice) == b"good"

    run(ends, scenario)


def test_an_abort_of_a_unix_socket_is_no_end_of_a_secured_stream(ends: Ends) -> None:
    """Its kernel knows no reset, and would show the end of the stream."""

    async def scenario(link: Link) -> None:
        bob, alice = await link.up()
        bob.abort()
        with pytest.raises(OSError, match="cut off"):
            await receive_some(alice)

    run(ends, scenario, capacity=0)
