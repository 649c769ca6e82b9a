"""The contract of `engine.transport`, run on every implementation: also on streams behind a secure channel, and on
those that a router dials as WebSockets, through a SOCKS5 proxy, within the process, and on the first substream of a
divided connection.

Those behind a secure channel differ in two points, where the tests say so: what found no room must be sent again as it
was, and a stream that is closed without being shut down was cut off.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import uvloop

from partywire.engine.channel.maker import ChannelMaker
from partywire.engine.handshake import Role
from partywire.engine.link import Link
from partywire.engine.link_substreams.dividing import divide
from partywire.engine.listening import ListenError
from partywire.engine.memory import MemoryTransport
from partywire.engine.multiaddr import Multiaddr
from partywire.engine.preamble import PREAMBLE_SIZE, SecurityMode
from partywire.engine.secure_stream import SecureStream
from partywire.engine.tcp import TcpStream, TcpTransport
from partywire.engine.transport import BindError, Buffer, Listener, Stream, Transport
from partywire.engine.transports import (
    DialFailed,
    ProxyScope,
    Router,
    SocksProxy,
    Switchboard,
    TransportSettings,
    WebSocketSettings,
)
from partywire.engine.transports.websocket import WebSocketCore
from partywire.engine.transports.websocket_stream import open_websocket
from tests.support.certificates import issue, noise_links, tls_link
from tests.support.channels import shake
from tests.support.ring_streams import RingTransport
from tests.support.socks_proxy import SmallProxy
from tests.support.websockets import websocket_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from partywire.engine.addresses import Address
    from partywire.engine.channel.channel import Channel
    from partywire.engine.channel.link_security import LinkSecurity
    from partywire.engine.link_substreams.control_substream import ControlSubstream
    from partywire.engine.yamux.substream import Substream

DEADLINE_S = 20.0
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Place:
    """Somewhere that is listened on."""

    address: Address | Multiaddr
    close: Callable[[], None]


class Runner:
    """Runs one scenario on one transport, and closes the streams that it leaves open."""

    def __init__(
        self, make: Callable[[asyncio.AbstractEventLoop], Transport], loop: asyncio.AbstractEventLoop, host: str = HOST
    ) -> None:
        self.transport = make(loop)
        self.is_secured = isinstance(self.transport, SecuredTransport)
        self.host = host
        self._loop = loop
        self._streams: list[Stream] = []

    def run(self, scenario: Coroutine[object, object, None]) -> None:
        self._loop.run_until_complete(asyncio.wait_for(scenario, DEADLINE_S))

    async def pair(self) -> tuple[Stream, Stream]:
        accepted: asyncio.Future[Stream] = self._loop.create_future()
        place = await self.listen(accepted.set_result)
        try:
            dialled = await self.dial(place)
            self._streams.append(dialled)
            other = await accepted
            self._streams.append(other)
        finally:
            place.close()
        return dialled, other

    async def listen(self, on_accept: Callable[[Stream], object], again: Place | None = None) -> Place:
        """At a free address, or once more where `again` is."""
        address = (self.host, 0) if again is None else again.address
        assert isinstance(address, tuple)
        host, port = address
        listener = self.transport.listen(host, port, on_accept)
        return Place(listener.address, listener.close)

    async def dial(self, place: Place) -> Stream:
        assert isinstance(place.address, tuple)
        return await self.transport.connect(place.address, None, DEADLINE_S)

    @property
    def can_reset(self) -> bool:
        """A unix socket cannot."""
        return not self.host.startswith("unix:")

    async def readable(self, stream: Stream) -> None:
        await self._wait(stream.on_readable)

    async def writable(self, stream: Stream) -> None:
        await self._wait(stream.on_writable)

    async def _wait(self, register: Callable[[Callable[[], object] | None], None]) -> None:
        event = asyncio.Event()
        register(event.set)
        await event.wait()
        register(None)

    async def receive(self, stream: Stream, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            part = memoryview(bytearray(size - len(received)))
            if (count := stream.try_recv_into(part)) is None:
                await self.readable(stream)
            elif count == 0:
                break
            else:
                received += part[:count]
        return bytes(received)

    async def send(self, stream: Stream, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if (count := stream.try_send([view])) is None:
                await self.writable(stream)
            else:
                view = view[count:]

    def close(self) -> None:
        for stream in self._streams:
            stream.close()
            if stream.is_lingering:
                stream.abort()


class RoutedRunner(Runner):
    """The same with addresses of a router; `text` is the one to listen at."""

    def __init__(self, loop: asyncio.AbstractEventLoop, text: str, settings: TransportSettings) -> None:
        super().__init__(TcpTransport, loop, text.replace("/unix", "unix:"))
        self._address = Multiaddr.parse(text)
        self._router = Router(loop, settings, switchboard=Switchboard())

    async def listen(self, on_accept: Callable[[Stream], object], again: Place | None = None) -> Place:
        address = self._address if again is None else again.address
        assert isinstance(address, Multiaddr)
        listening = await self._router.listen(address, lambda stream, source: on_accept(stream))
        return Place(listening.address, listening.close)

    async def dial(self, place: Place) -> Stream:
        assert isinstance(place.address, Multiaddr)
        return await self._router.dial(place.address, DEADLINE_S)


class SecuredTransport(Transport):
    """Streams of another transport behind channels whose handshakes are done already."""

    def __init__(self, inner: Transport, loop: asyncio.AbstractEventLoop, ends: tuple[LinkSecurity, ...]) -> None:
        self._inner = inner
        self._loop = loop
        self._accepting: deque[Channel] = deque()
        self._ends = ends

    async def resolve(self, host: str, port: int) -> list[Address]:
        return await self._inner.resolve(host, port)

    async def connect(self, address: Address, client_host: str | None, timeout_s: float) -> Stream:
        preamble = bytes(PREAMBLE_SIZE)
        alice = ChannelMaker("alice", "bob", self._ends[0]).make(Role.RESPONDER, preamble)
        bob = ChannelMaker("bob", "alice", self._ends[1]).make(Role.INITIATOR, preamble)
        shake(bob, alice)
        self._accepting.append(alice)
        return SecureStream(await self._inner.connect(address, client_host, timeout_s), bob, self._loop)

    def listen(self, host: str, port: int, on_accept: Callable[[Stream], object]) -> Listener:
        def secure(stream: Stream) -> None:
            on_accept(SecureStream(stream, self._accepting.popleft(), self._loop))

        return self._inner.listen(host, port, secure)


class DividedTransport(Transport):
    """The first substreams of connections of another transport, as the control codec of a link has them."""

    def __init__(self, inner: Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._inner = inner
        self._loop = loop

    async def resolve(self, host: str, port: int) -> list[Address]:
        return await self._inner.resolve(host, port)

    async def connect(self, address: Address, client_host: str | None, timeout_s: float) -> Stream:
        return self._divide(await self._inner.connect(address, client_host, timeout_s), is_dialler=True)

    def _divide(
        self, stream: Stream, *, is_dialler: bool, on_offered: Callable[[Stream], object] = lambda _: None
    ) -> Stream:
        connection, control = divide(
            self._loop,
            stream,
            Link("alice", "bob", 0.0),
            peer="bob",
            is_dialler=is_dialler,
            heartbeat_timeout_s=DEADLINE_S,
            close_timeout_s=DEADLINE_S,
            clock=time.monotonic,
            on_substream=lambda _, writer: writer.reset(),
        )

        def offered(substream: Substream) -> ControlSubstream | None:
            if not control.offer(substream):
                return None
            on_offered(control)
            return control

        connection.on_offered = offered
        connection.start()
        return control

    def listen(self, host: str, port: int, on_accept: Callable[[Stream], object]) -> Listener:
        def begin(stream: Stream) -> None:
            self._divide(stream, is_dialler=False, on_offered=on_accept)

        return self._inner.listen(host, port, begin)


class WebSocketTransport(Transport):
    """WebSockets over the streams of another transport."""

    def __init__(self, inner: Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._inner = inner
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()

    async def resolve(self, host: str, port: int) -> list[Address]:
        return await self._inner.resolve(host, port)

    async def connect(self, address: Address, client_host: str | None, timeout_s: float) -> Stream:
        return await self._open(await self._inner.connect(address, client_host, timeout_s), dials=True)

    async def _open(self, stream: Stream, *, dials: bool) -> Stream:
        core = WebSocketCore(dials=dials, host="bob", path="/", tls=None)
        return await open_websocket(stream, core, self._loop, "bob")

    def listen(self, host: str, port: int, on_accept: Callable[[Stream], object]) -> Listener:
        async def accept(stream: Stream) -> None:
            on_accept(await self._open(stream, dials=False))

        def begin(stream: Stream) -> None:
            task = self._loop.create_task(accept(stream))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return self._inner.listen(host, port, begin)


MAKERS: dict[str, Callable[[asyncio.AbstractEventLoop], Transport]] = {
    "memory": MemoryTransport,
    "tiny memory": lambda loop: MemoryTransport(loop, capacity=7),
    "control substream": lambda loop: DividedTransport(MemoryTransport(loop, capacity=5000), loop),
    "tcp": TcpTransport,
    "unix": TcpTransport,
    "rings": lambda loop: RingTransport(loop, 16 * 1024),
    "websocket over little memory": lambda loop: WebSocketTransport(MemoryTransport(loop, capacity=50), loop),
}


SECURED: dict[str, Callable[[asyncio.AbstractEventLoop], Transport]] = {
    "tls over tcp": TcpTransport,
    "noise over little memory": lambda loop: MemoryTransport(loop, capacity=1000),
}


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[LinkSecurity, ...]]:
    """Alice's and bob's."""
    folder = tmp_path_factory.mktemp("keys")
    ca = issue("ca", is_ca=True).write(folder, "ca")
    tls = tuple(tls_link(issue(name, ca).write(folder, name), ca=ca) for name in ("alice", "bob"))
    return {"tls over tcp": tls, "noise over little memory": noise_links(folder, SecurityMode.NOISE_XX_AES)}


ROUTED: dict[str, str] = {
    "routed tcp": "/ip4/127.0.0.1/tcp/0",
    "routed unix": "/unix",
    "routed memory": "/memory/0",
    "websocket": "/ip4/127.0.0.1/tcp/0/ws",
    "websocket over tls": "/ip4/127.0.0.1/tcp/0/wss",
    "tcp through a proxy": "/ip4/127.0.0.1/tcp/0",
    "websocket over tls through a proxy": "/ip4/127.0.0.1/tcp/0/tls/ws",
}


@pytest.fixture(scope="module")
def websockets(tmp_path_factory: pytest.TempPathFactory) -> WebSocketSettings:
    return websocket_settings(tmp_path_factory.mktemp("wss"))


@contextmanager
def plain(kind: str, folder: Path, ends: dict[str, tuple[LinkSecurity, ...]]) -> Iterator[Runner]:
    loop = uvloop.new_event_loop()
    host = f"unix:{folder}/a.sock" if kind == "unix" else HOST
    if kind in SECURED:
        runner = Runner(lambda loop: SecuredTransport(SECURED[kind](loop), loop, ends[kind]), loop, host)
    else:
        runner = Runner(MAKERS[kind], loop, host)
    try:
        yield runner
    finally:
        runner.close()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@contextmanager
def routed(kind: str, folder: Path, websockets: WebSocketSettings) -> Iterator[Runner]:
    loop = uvloop.new_event_loop()
    proxy = SmallProxy(loop) if "proxy" in kind else None
    socks = None
    if proxy is not None:
        socks = SocksProxy(Multiaddr.parse(f"/ip4/127.0.0.1/tcp/{proxy.port}"), scope=ProxyScope.ALL)
    text = ROUTED[kind].replace("/unix", f"/unix{folder}/a.sock")
    runner = RoutedRunner(loop, text, TransportSettings(socks, websockets))
    try:
        yield runner
    finally:
        runner.close()
        if proxy is not None:
            loop.run_until_complete(proxy.aclose())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@pytest.fixture(params=[*MAKERS, *SECURED, *ROUTED])
def runner(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    ends: dict[str, tuple[LinkSecurity, ...]],
    websockets: WebSocketSettings,
) -> Iterator[Runner]:
    """On every transport, and on every kind of address."""
    if request.param in ROUTED:
        with routed(request.param, tmp_path, websockets) as runner:
            yield runner
    else:
        with plain(request.param, tmp_path, ends) as runner:
            yield runner


@pytest.fixture(params=[*MAKERS, *SECURED])
def plain_runner(
    request: pytest.FixtureRequest, tmp_path: Path, ends: dict[str, tuple[LinkSecurity, ...]]
) -> Iterator[Runner]:
    """On every transport that has pairs of host and port."""
    with plain(request.param, tmp_path, ends) as runner:
        yield runner


def test_bytes_arrive_in_order_in_both_directions(runner: Runner) -> None:
    async def scenario() -> None:
        left, right = await runner.pair()
        there, back = bytes(range(256)) * 40, bytes(range(255, -1, -1)) * 40
        results = await asyncio.gather(
            runner.send(left, there),
            runner.send(right, back),
            runner.receive(right, len(there)),
            runner.receive(left, len(back)),
        )
        assert list(results[2:]) == [there, back]

    runner.run(scenario())


def test_views_of_one_send_are_joined(runner: Runner) -> None:
    async def scenario() -> None:
        left, right = await runner.pair()
        views: list[Buffer] = [b"ab", memoryview(b"cd"), bytearray(b"e"), b"fg"]
        assert left.try_send(views) == 7
        assert await runner.receive(right, 7) == b"abcdefg"

    runner.run(scenario())


def test_more_views_than_the_kernel_takes_are_taken_in_part(runner: Runner) -> None:
    async def scenario() -> None:
        left, right = await runner.pair()
        sent = left.try_send([b"x"] * 5000)
        assert sent is not None
        assert 1 <= sent < 5000
        assert await runner.receive(right, sent) == b"x" * sent

    runner.run(scenario())


def test_a_full_stream_takes_a_part_then_none_and_is_writable_once_read(runner: Runner) -> None:
    async def scenario() -> None:
        left, right = await runner.pair()
        block, sent = bytes(1 << 20), 0
        while (count := left.try_send([block])) is not None:
            assert count > 0
            sent += count
        received = bytearray()
        whole = asyncio.Event()

        async def drain() -> None:
            while not (whole.is_set() and len(received) >= sent):
                part = memoryview(bytearray(1 << 16))
                if (taken := right.try_recv_into(part)) is None:
                    await runner.readable(right)
                else:
                    received.extend(part[:taken])

        draining = asyncio.ensure_future(drain())
        await runner.writable(left)
        while (count := left.try_send([block])) is None:  # what was sealed needs room for all of it
            assert runner.is_secured
            await runner.writable(left)
        assert count >= 1
        sent += count
        whole.set()
        await draining
        assert len(received) == sent

    runner.run(scenario())


def test_nothing_there_is_none_and_not_the_end(runner: Runner) -> None:
    async def scenario() -> None:
        left, _ = await runner.pair()
        assert left.try_recv_into(memoryview(bytearray(1))) is None

    runner.run(scenario())


def test_a_shut_down_half_ends_behind_its_bytes_and_the_other_goes_on(runner: Runner) -> None:
    async def scenario() -> None:
        left, right = await runner.pair()
        await runner.send(left, b"last")
        left.shutdown_write()
        left.shutdown_write()
        assert await runner.receive(right, 10) == b"last"
        for _ in range(2):
            assert right.try_recv_into(memoryview(bytearray(1))) == 0
        await runner.send(right, b"answer")
        assert await runner.receive(left, 6) == b"answer"
        with pytest.raises(OSError):
            left.try_send([b"x"])

    runner.run(scenario())


def test_close_delivers_what_was_sent(runner: Runner) -> None:
    async def scenario() -> None:
        left, right = await runner.pair()
        assert left.try_send([b"bye"]) == 3
        left.close()
        left.close()
        assert await runner.receive(right, 3) == b"bye"
        if runner.is_secured:
            with pytest.raises(OSError, match="cut off"):
                await runner.receive(right, 1)
        else:
            assert await runner.receive(right, 1) == b""

    runner.run(scenario())


def test_a_closed_stream_refuses_everything(runner: Runner) -> None:
    async def scenario() -> None:
        left, _ = await runner.pair()
        left.close()
        with pytest.raises(OSError):
            left.try_send([b"x"])
        with pytest.raises(OSError):
            left.try_recv_into(memoryview(bytearray(1)))
        with pytest.raises(OSError):
            left.on_readable(print)
        left.on_readable(None)
        left.on_writable(None)

    runner.run(scenario())


def test_an_abort_breaks_the_other_end(runner: Runner) -> None:
    async def scenario() -> None:
        left, right = await runner.pair()
        left.abort()
        await runner.readable(right)
        if not runner.can_reset:  # a unix socket cannot be reset
            assert right.try_recv_into(memoryview(bytearray(1))) == 0
            with pytest.raises(OSError):
                right.try_send([b"x"])
            return
        with pytest.raises(OSError):
            right.try_recv_into(memoryview(bytearray(1)))

    runner.run(scenario())


def test_closing_with_unread_bytes_breaks_the_other_end(runner: Runner) -> None:
    async def scenario() -> None:
        left, right = await runner.pair()
        await runner.send(right, b"x")
        await runner.readable(left)
        left.close()
        await runner.readable(right)
        with pytest.raises(OSError):
            right.try_recv_into(memoryview(bytearray(1)))

    runner.run(scenario())


def test_sending_to_a_closed_end_fails_in_the_end(runner: Runner) -> None:
    async def scenario() -> None:
        left, right = await runner.pair()
        right.close()
        with pytest.raises(OSError):  # noqa: PT012 - the first send may still be taken
            while True:
                if left.try_send([bytes(1000)]) is None:
                    await runner.writable(left)
                await asyncio.sleep(0)

    runner.run(scenario())


def test_readiness_is_level_triggered_and_ends_when_told(runner: Runner) -> None:
    async def scenario() -> None:
        left, right = await runner.pair()
        calls = 0
        enough = asyncio.Event()

        def count() -> None:
            nonlocal calls
            calls += 1
            if calls == 3:
                right.on_readable(None)
                enough.set()

        right.on_readable(count)
        await runner.send(left, b"x")
        await enough.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        assert calls == 3

    runner.run(scenario())


def test_a_reader_is_called_until_it_has_seen_the_break(runner: Runner) -> None:
    """Also when bytes and the break are there together, and one call does not take them all."""

    async def scenario() -> None:
        ours, theirs = await runner.pair()
        calls = 0
        seen = asyncio.Event()
        piece = memoryview(bytearray(1))

        def read() -> None:
            nonlocal calls
            calls += 1
            try:
                ended = theirs.try_recv_into(piece) == 0
            except OSError:
                ended = True
            if ended:
                theirs.on_readable(None)
                seen.set()

        assert ours.try_send([b"abc"])
        ours.abort()
        theirs.on_readable(read)
        await seen.wait()
        assert calls <= 4
        for _ in range(3):
            await asyncio.sleep(0)
        assert calls <= 4

    runner.run(scenario())


def test_a_callback_may_close_its_stream(runner: Runner) -> None:
    async def scenario() -> None:
        left, right = await runner.pair()
        closed = asyncio.Event()

        def close() -> None:
            right.close()
            closed.set()

        right.on_writable(close)
        right.on_readable(close)
        await runner.send(left, b"x")
        await closed.wait()

    runner.run(scenario())


def test_nobody_listening_refuses(runner: Runner) -> None:
    async def scenario() -> None:
        place = await runner.listen(lambda stream: None)
        place.close()
        place.close()
        with pytest.raises((ConnectionRefusedError, FileNotFoundError, DialFailed), match=r"refused|No such|no such"):
            await runner.dial(place)

    runner.run(scenario())


def test_an_address_is_listened_on_once(runner: Runner) -> None:
    async def scenario() -> None:
        place = await runner.listen(lambda stream: None)
        with pytest.raises((OSError, ListenError), match="in use"):
            await runner.listen(lambda stream: None, place)
        place.close()

    runner.run(scenario())


def test_a_local_address_that_is_not_ours_cannot_be_dialled_from(plain_runner: Runner) -> None:
    async def scenario() -> None:
        with pytest.raises(BindError, match=r"192\.0\.2\.1"):
            await plain_runner.transport.connect((HOST, 1), "192.0.2.1", DEADLINE_S)

    plain_runner.run(scenario())


def test_a_literal_resolves_to_itself_and_an_invalid_name_does_not(plain_runner: Runner) -> None:
    async def scenario() -> None:
        expected = [(plain_runner.host, 5 if plain_runner.can_reset else 0)]
        assert await plain_runner.transport.resolve(plain_runner.host, 5) == expected
        with pytest.raises(OSError):
            await plain_runner.transport.resolve("no-such-party.invalid", 5)

    plain_runner.run(scenario())


def test_every_tcp_stream_has_no_delay_and_keepalive() -> None:
    loop = uvloop.new_event_loop()
    runner = Runner(TcpTransport, loop)

    async def scenario() -> None:
        for stream in await runner.pair():
            sock = stream._sock  # type: ignore[attr-defined]
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
            assert isinstance(stream, TcpStream)
            stream.bound_unacknowledged(1.5)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1500

    try:
        runner.run(scenario())
    finally:
        runner.close()
        loop.close()
