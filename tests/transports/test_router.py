"""What goes where, what is refused, and that nothing takes longer than it may or is left open."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import uvloop

from partywire.engine.exchange import receive_some, send_all
from partywire.engine.listening import ListenError
from partywire.engine.multiaddr import Multiaddr
from partywire.engine.resolver import Resolver
from partywire.engine.transports import (
    AddressNotSupported,
    DialFailed,
    DialTimeout,
    ProxyScope,
    Router,
    SocksCredentials,
    SocksProxy,
    TransportSettings,
    WebSocketSettings,
    acceptor,
)
from partywire.engine.transports.errors import (
    SocksCommandNotSupported,
    SocksConnectionRefused,
    SocksHostUnreachable,
    SocksMethodRefused,
    SocksPasswordRefused,
    SocksProtocolError,
    SocksUnreachable,
    WebSocketFailed,
)
from tests.support.ipv6 import needs_ipv6
from tests.support.scripted_tor import onion_id
from tests.support.socks_proxy import CONNECT, RESOLVE, SmallProxy
from tests.support.websockets import websocket_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from pathlib import Path

    from partywire.engine.transport import Stream

DEADLINE_S = 20.0
ONION = onion_id(4)


def parse(text: str) -> Multiaddr:
    return Multiaddr.parse(text)


def run(scenario: Coroutine[object, object, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(scenario, DEADLINE_S))


class Names(Resolver):
    """A resolver that knows some names, and writes down what it was asked."""

    def __init__(self, **known: list[str]) -> None:
        self.asked: list[str] = []

        def look_up(host: str, port: int, *_: object) -> list[tuple[int, int, int, str, tuple[object, ...]]]:
            self.asked.append(host)
            if host not in known:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return [
                (socket.AF_INET6, 1, 6, "", (text, port, 0, 0))
                if ":" in text
                else (socket.AF_INET, 1, 6, "", (text, port))
                for text in known[host]
            ]

        super().__init__(look_up)


@asynccontextmanager
async def greeter(text: str = "/ip4/127.0.0.1/tcp/0", settings: TransportSettings | None = None) -> AsyncIterator[str]:
    """Says hello and where one comes from to whoever comes; gives where it listens."""
    router = Router(asyncio.get_running_loop(), settings)
    streams: list[Stream] = []

    def greet(stream: Stream, source: Multiaddr) -> None:
        streams.append(stream)
        assert stream.try_send([f"hello {source}".encode()])
        stream.shutdown_write()

    listening = await router.listen(parse(text), greet)
    try:
        yield str(listening.address)
    finally:
        listening.close()
        for stream in streams:
            stream.close()


async def greeting(router: Router, text: str) -> str:
    stream = await router.dial(parse(text), DEADLINE_S)
    try:
        received = b""
        while part := await receive_some(stream, 100):
            received += part
        return received.decode()
    finally:
        stream.close()


def port_of(text: str) -> int:
    port = parse(text).value_of("tcp")
    assert isinstance(port, int)
    return port


# Directly.


def test_a_listening_says_its_real_port_and_where_one_comes_from(tmp_path: Path) -> None:
    async def scenario() -> None:
        router = Router(asyncio.get_running_loop())
        async with greeter() as text:
            assert (await greeting(router, text)).startswith("hello /ip4/127.0.0.1/tcp/")
        async with greeter("/ip4/127.0.0.1/tcp/0/ws") as text:
            assert text.endswith("/ws")
            assert (await greeting(router, text)).startswith("hello /ip4/127.0.0.1/tcp/")
        unix = f"/unix{tmp_path}/a.sock"
        async with greeter(unix) as text:
            assert text == unix
            assert await greeting(router, text) == f"hello {unix}"

    run(scenario())


def test_names_are_tried_at_each_of_their_addresses_and_families_are_kept_to() -> None:
    async def scenario() -> None:
        names = Names(bob=["127.0.0.2", "127.0.0.1"], six=["::1"], both=["::1", "127.0.0.1"])
        router = Router(asyncio.get_running_loop(), resolver=names)
        async with greeter() as text:
            port = port_of(text)
            assert await greeting(router, f"/dns/bob/tcp/{port}")
            assert await greeting(router, f"/dns4/both/tcp/{port}")
            with pytest.raises(DialFailed, match="no IPv4 address"):
                await router.dial(parse(f"/dns4/six/tcp/{port}"))
            with pytest.raises(DialFailed, match="no IPv6 address"):
                await router.dial(parse(f"/dns6/bob/tcp/{port}"))
            with pytest.raises(DialFailed, match="cannot be looked up"):
                await router.dial(parse(f"/dns/carol/tcp/{port}"))
        with pytest.raises(DialFailed, match=r"127\.0\.0\.2:\d+: .*; 127\.0\.0\.1:\d+: "):
            await router.dial(parse(f"/dns/bob/tcp/{port}"))

    run(scenario())


@needs_ipv6
def test_ipv6_has_addresses_of_its_own() -> None:
    async def scenario() -> None:
        async with greeter("/ip6/::1/tcp/0") as text:
            router = Router(asyncio.get_running_loop(), resolver=Names(both=["127.0.0.1", "::1"]))
            assert (await greeting(router, text)).startswith("hello /ip6/::1/tcp/")
            assert await greeting(router, f"/dns6/both/tcp/{port_of(text)}")
        async with greeter("/ip6/::1/tcp/0/ws") as text:
            assert (await greeting(router, text)).startswith("hello /ip6/::1/tcp/")

    run(scenario())


def test_what_cannot_be_listened_on_is_a_typed_error() -> None:
    async def scenario() -> None:
        router = Router(asyncio.get_running_loop(), resolver=Names())
        for text, words in (("/ip4/192.0.2.1/tcp/0", "cannot listen"), ("/dns/carol/tcp/0", "looked up")):
            with pytest.raises(ListenError, match=words):
                await router.listen(parse(text), lambda stream, source: None)
        for text in ("/ip4/127.0.0.1/tcp/0/wss", "/ip4/127.0.0.1/udp/1", f"/onion3/{ONION}:1"):
            with pytest.raises(AddressNotSupported):
                await router.listen(parse(text), lambda stream, source: None)

    run(scenario())


@asynccontextmanager
async def silent() -> AsyncIterator[int]:
    """A port that accepts and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


def test_every_step_of_a_dial_ends_in_time_and_says_what_it_was() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with silent() as port:
            proxy = SocksProxy(
                parse(f"/ip4/127.0.0.1/tcp/{port}"), is_direct=lambda address: "127.0.0.1" in str(address)
            )
            router = Router(loop, TransportSettings(proxy))
            for text, words in (
                (f"/ip4/127.0.0.1/tcp/{port}/ws", "opening the WebSocket"),
                (f"/ip4/127.0.0.1/tcp/{port}/wss", "opening the WebSocket"),
                (f"/onion3/{ONION}:80", "answer of the SOCKS5 proxy"),
                ("/dns/bob.example/tcp/80", "looking up bob.example through"),
            ):
                with pytest.raises(DialTimeout, match=words):
                    await router.dial(parse(text), 0.05)

    run(scenario())


def test_a_dial_that_is_cancelled_leaves_nothing_open() -> None:
    async def scenario() -> None:
        async with silent() as port:
            task = asyncio.ensure_future(
                Router(asyncio.get_running_loop()).dial(parse(f"/ip4/127.0.0.1/tcp/{port}/ws"), DEADLINE_S)
            )
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(scenario())  # the leak check of conftest.py looks


# By way of a proxy.


@asynccontextmanager
async def proxied(
    scope: ProxyScope,
    names: Names,
    *,
    password: tuple[str, str] | None = None,
    credentials: SocksCredentials | None = None,
    resolves: dict[str, str] | None = None,
    targets: dict[str, tuple[str, int]] | None = None,
    direct: str = "no such address",
) -> AsyncIterator[tuple[SmallProxy, Router]]:
    loop = asyncio.get_running_loop()
    proxy = SmallProxy(loop, password=password, names=resolves, targets=targets)
    address = parse(f"/ip4/127.0.0.1/tcp/{proxy.port}")
    settings = SocksProxy(address, credentials, scope, lambda address: direct in str(address))
    try:
        yield proxy, Router(loop, TransportSettings(settings), resolver=names)
    finally:
        await proxy.aclose()


def test_with_a_tor_proxy_onions_and_look_ups_go_through_it_and_nothing_leaks() -> None:
    async def scenario() -> None:
        names = Names(local=["127.0.0.1"])
        async with greeter() as text:
            port = port_of(text)
            targets = {f"{ONION}.onion": ("127.0.0.1", port)}
            resolves = {"bob.example": "127.0.0.1", "six.example": "::1"}
            async with proxied(ProxyScope.ONION, names, resolves=resolves, targets=targets, direct="/dns/local/") as (
                proxy,
                router,
            ):
                assert await greeting(router, f"/onion3/{ONION}:80")
                assert await greeting(router, f"/dns4/bob.example/tcp/{port}")
                assert await greeting(router, text)
                assert proxy.requests == [(CONNECT, f"{ONION}.onion", 80), (RESOLVE, "bob.example", 0)]
                assert names.asked == []
                with pytest.raises(DialFailed, match="no IPv4 address"):
                    await router.dial(parse(f"/dns4/six.example/tcp/{port}"))
                with pytest.raises(SocksHostUnreachable):
                    await router.dial(parse(f"/dns/carol.example/tcp/{port}"))
                assert names.asked == []
                assert await greeting(router, f"/dns/local/tcp/{port}")
                assert names.asked == ["local"]

    run(scenario())


def test_with_a_proxy_for_all_everything_but_what_is_direct_goes_through_it() -> None:
    async def scenario() -> None:
        names = Names()
        async with greeter() as text, greeter() as direct:
            port = port_of(text)
            targets = {"bob.example": ("127.0.0.1", port)}
            async with proxied(
                ProxyScope.ALL, names, password=("bob", "pw"), credentials=SocksCredentials("bob", "pw"),
                targets=targets, direct=f"/{port_of(direct)}"
            ) as (proxy, router):  # fmt: skip
                assert await greeting(router, text)
                assert await greeting(router, f"/dns6/bob.example/tcp/{port}")
                assert await greeting(router, direct)
                assert proxy.requests == [(CONNECT, "127.0.0.1", port), (CONNECT, "bob.example", port)]
                assert names.asked == []

    run(scenario())


def test_what_a_proxy_refuses_is_a_typed_error() -> None:
    async def scenario() -> None:
        names = Names()
        right = ("bob", "right")
        onion = parse(f"/onion3/{ONION}:80")
        async with proxied(ProxyScope.ONION, names, password=right) as (_, router):
            with pytest.raises(SocksMethodRefused, match="user name"):
                await router.dial(onion)
        wrong = SocksCredentials("bob", "incorrect")
        async with proxied(ProxyScope.ONION, names, password=right, credentials=wrong) as (_, router):
            with pytest.raises(SocksPasswordRefused) as caught:
                await router.dial(onion)
            assert "incorrect" not in str(caught.value)
        async with greeter() as text:
            port = port_of(text)
        async with proxied(ProxyScope.ALL, names) as (_, router):
            with pytest.raises(SocksConnectionRefused):
                await router.dial(parse(f"/ip4/127.0.0.1/tcp/{port}"))

    run(scenario())


async def answering(answers: bytes) -> asyncio.Server:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answers)
        writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", 0)


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        (b"", SocksProtocolError),
        (b"\x05", SocksProtocolError),
        (b"\x05\0\x05\x07", SocksCommandNotSupported),
        (b"\x05\0\x05\0\0\x03\x03abc\0\0", SocksProtocolError),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", SocksProtocolError),
    ],
)
def test_what_is_no_proxy_of_tor_is_a_typed_error_and_no_name_leaks(answers: bytes, kind: type[DialFailed]) -> None:
    async def scenario() -> None:
        names = Names()
        async with await answering(answers) as server:
            address = parse(f"/ip4/127.0.0.1/tcp/{server.sockets[0].getsockname()[1]}")
            router = Router(asyncio.get_running_loop(), TransportSettings(SocksProxy(address)), resolver=names)
            with pytest.raises(kind):
                await router.dial(parse("/dns/bob.example/tcp/80"))
            assert names.asked == []

    run(scenario())


def test_a_proxy_that_breaks_off_is_a_typed_error() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[None]] = []

        async def reset(stream: Stream) -> None:
            await receive_some(stream, 100)
            stream.abort()

        plain = Router(loop)
        listening = await plain.listen(
            parse("/ip4/127.0.0.1/tcp/0"), lambda stream, source: tasks.append(loop.create_task(reset(stream)))
        )
        router = Router(loop, TransportSettings(SocksProxy(listening.address)))
        with pytest.raises(SocksProtocolError, match="connection broke"):
            await router.dial(parse(f"/onion3/{ONION}:80"))
        await asyncio.gather(*tasks)
        listening.close()

    run(scenario())


def test_a_proxy_that_is_not_there_is_named_and_not_gone_around() -> None:
    async def scenario() -> None:
        names = Names()
        async with greeter() as text:
            pass
        for scope in ProxyScope:
            router = Router(
                asyncio.get_running_loop(), TransportSettings(SocksProxy(parse(text), scope=scope)), resolver=names
            )
            with pytest.raises(SocksUnreachable, match=rf"SOCKS5 proxy at {text}: it cannot be reached"):
                await router.dial(parse("/dns/bob.example/tcp/80"))
        assert names.asked == []
        with pytest.raises(AddressNotSupported, match="proxy"):
            await Router(asyncio.get_running_loop()).dial(parse(f"/onion3/{ONION}:80"))

    run(scenario())


@pytest.mark.parametrize("text", ["/memory/1", "/ip4/127.0.0.1/tcp/1/ws", f"/onion3/{ONION}:1", "/ip4/127.0.0.1/tcp/0"])
def test_where_no_proxy_can_be_is_refused_at_once(text: str) -> None:
    with pytest.raises(AddressNotSupported):
        SocksProxy(parse(text))


# WebSockets.


def test_a_websocket_needs_the_path_and_the_certificate(tmp_path: Path) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        settings = websocket_settings(tmp_path, "/party")
        async with greeter("/ip4/127.0.0.1/tcp/0/wss", TransportSettings(websocket=settings)) as text:
            assert await greeting(Router(loop, TransportSettings(websocket=settings)), text)
            with pytest.raises(WebSocketFailed, match="TLS"):
                await Router(loop).dial(parse(text))
            other = WebSocketSettings("/other", settings.client_context)
            with pytest.raises(WebSocketFailed, match="404"):
                await Router(loop, TransportSettings(websocket=other)).dial(parse(text))
        for path in ("party", "/par ty", "/ü"):
            with pytest.raises(ValueError, match="path"):
                WebSocketSettings(path)

    run(scenario())


def test_what_opens_no_websocket_is_closed_in_time_and_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "UPGRADE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(acceptor, "UPGRADES_MAX", 2)

    async def scenario() -> None:
        router = Router(asyncio.get_running_loop())
        async with greeter("/ip4/127.0.0.1/tcp/0/ws") as text:
            plain = parse(text.removesuffix("/ws"))
            streams = [await router.dial(plain) for _ in range(2)]
            try:
                streams.append(await router.dial(plain))
                assert await ended(streams[2]) == "break"
            except DialFailed:
                pass  # it was turned away before we came to look
            assert [await ended(stream) for stream in streams[:2]] == ["end", "end"]
            stranger = await router.dial(plain)
            await send_all(stranger, b"SSH-2.0-x\r\n\r\n")
            assert await ended(stranger) == "end"
            assert await greeting(router, text)
            for stream in (*streams, stranger):
                stream.close()

    run(scenario())


async def ended(stream: Stream) -> str:
    try:
        while await receive_some(stream, 1000):
            pass
    except OSError:
        return "break"
    return "end"


def test_a_listening_that_is_closed_turns_away_who_has_not_opened_the_websocket_yet() -> None:
    async def scenario() -> None:
        router = Router(asyncio.get_running_loop())
        async with greeter("/ip4/127.0.0.1/tcp/0/ws") as text:
            stream = await router.dial(parse(text.removesuffix("/ws")))
            await asyncio.sleep(0.01)
        assert await ended(stream) in ("end", "break")
        stream.close()

    run(scenario())


@pytest.mark.parametrize("host", [".bob", "b..ob", f"{'a' * 64}.example", "ü" * 63, "a" * 253])
def test_a_host_that_no_request_or_certificate_can_name_is_a_typed_error(host: str) -> None:
    async def scenario() -> None:
        router = Router(asyncio.get_running_loop(), resolver=Names())
        for upgrade in ("ws", "wss"):
            with pytest.raises((AddressNotSupported, DialFailed)):
                await router.dial(parse(f"/dns/{host}/tcp/80/{upgrade}"))

    run(scenario())


def test_what_fails_in_on_accept_is_reported_and_closes_the_stream() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        reported: list[object] = []
        loop.set_exception_handler(lambda loop, context: reported.append(context["exception"]))
        router = Router(loop)

        def fail(stream: Stream, source: Multiaddr) -> None:
            raise KeyError("planted")

        listening = await router.listen(parse("/ip4/127.0.0.1/tcp/0/ws"), fail)
        stream = await router.dial(listening.address)
        assert await ended(stream) == "break"
        assert [type(error) for error in reported] == [KeyError]
        stream.close()
        listening.close()

    run(scenario())


def test_a_context_of_the_other_end_is_refused_at_once(tmp_path: Path) -> None:
    settings = websocket_settings(tmp_path)
    with pytest.raises(ValueError, match="client_context"):
        WebSocketSettings(client_context=settings.server_context)
    with pytest.raises(ValueError, match="server_context"):
        WebSocketSettings(server_context=settings.client_context)


def test_without_the_package_a_websocket_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partywire.engine.transports.router.find_spec", lambda name: None)

    async def scenario() -> None:
        router = Router(asyncio.get_running_loop())
        for attempt in (
            router.dial(parse("/ip4/127.0.0.1/tcp/1/ws")),
            router.listen(parse("/ip4/127.0.0.1/tcp/0/ws"), lambda stream, source: None),
        ):
            with pytest.raises(AddressNotSupported, match="pip install"):
                await attempt

    run(scenario())


def test_the_router_imports_wsproto_only_for_a_websocket() -> None:
    import subprocess
    import sys

    program = "import sys, partywire.engine.transports; print('wsproto' in sys.modules, 'h11' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert printed.stdout.split() == ["False", "False"]
