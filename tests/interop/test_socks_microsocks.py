"""Our SOCKS5 client against microsocks: with and without a password, and every refusal that it knows."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import uvloop

from partywire.engine.exchange import receive_some, send_all
from partywire.engine.multiaddr import Multiaddr
from partywire.engine.transports import ProxyScope, Router, SocksCredentials, SocksProxy, TransportSettings
from partywire.engine.transports.errors import (
    SocksConnectionRefused,
    SocksError,
    SocksMethodRefused,
    SocksPasswordRefused,
    SocksProtocolError,
    SocksReplyError,
)
from tests.interop.tor_programs import needs, running, wait_for_port
from tests.support.reserved_ports import reserved_ports
from tests.support.scripted_tor import onion_id
from tests.support.websockets import websocket_settings

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from pathlib import Path

    from partywire.engine.transport import Stream

pytestmark = pytest.mark.interop

DEADLINE_S = 60.0
SIZE = 1 << 20


@contextmanager
def microsocks(*arguments: str) -> Iterator[Multiaddr]:
    needs("microsocks", "microsocks")
    with (
        reserved_ports(1) as (port,),
        running(["microsocks", "-i", "127.0.0.1", "-p", str(port), *arguments]) as (process,),
    ):
        wait_for_port(port, process)
        yield Multiaddr.parse(f"/ip4/127.0.0.1/tcp/{port}")


def run(scenario: Coroutine[object, object, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(scenario, DEADLINE_S))


async def echoed(router: Router, text: str) -> None:
    """Send a MiB to somebody who sends it back, at once."""
    tasks: list[asyncio.Task[None]] = []

    async def echo(stream: Stream) -> None:
        while part := await receive_some(stream, 1 << 16):
            await send_all(stream, part)
        stream.shutdown_write()

    def accept(stream: Stream, source: Multiaddr) -> None:
        tasks.append(asyncio.ensure_future(echo(stream)))
        streams.append(stream)

    streams: list[Stream] = []
    listening = await router.listen(Multiaddr.parse(text), accept)
    try:
        stream = await router.dial(listening.address)
        streams.append(stream)
        sent = bytes(range(256)) * (SIZE // 256)
        sending = asyncio.ensure_future(send_all(stream, sent))
        received = b""
        while len(received) < SIZE:
            part = await receive_some(stream, 1 << 16)
            assert part
            received += part
        await sending
        assert received == sent
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in streams:
            each.close()
        listening.close()


@pytest.mark.parametrize("text", ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/tcp/0/ws", "/ip4/127.0.0.1/tcp/0/wss"])
def test_a_mebibyte_goes_there_and_back(text: str, tmp_path: Path) -> None:
    with microsocks() as proxy:
        loop_settings = TransportSettings(SocksProxy(proxy, scope=ProxyScope.ALL), websocket_settings(tmp_path))

        async def scenario() -> None:
            await echoed(Router(asyncio.get_running_loop(), loop_settings), text)

        run(scenario())


@pytest.mark.parametrize("credentials", [SocksCredentials("bob", "s3 cret"), SocksCredentials("b", "w" * 255), None])
def test_a_password_is_checked(credentials: SocksCredentials | None) -> None:
    async def scenario(proxy: Multiaddr) -> None:
        settings = TransportSettings(SocksProxy(proxy, credentials, ProxyScope.ALL))
        router = Router(asyncio.get_running_loop(), settings)
        if credentials is None:
            with pytest.raises(SocksMethodRefused, match="user name"):
                await echoed(router, "/ip4/127.0.0.1/tcp/0")
        elif credentials.password == "s3 cret":
            await echoed(router, "/ip4/127.0.0.1/tcp/0")
        else:
            with pytest.raises(SocksPasswordRefused):
                await echoed(router, "/ip4/127.0.0.1/tcp/0")

    with microsocks("-u", "bob", "-P", "s3 cret") as proxy:
        run(scenario(proxy))


def test_refusals_are_typed() -> None:
    async def scenario(proxy: Multiaddr, free: int) -> None:
        loop = asyncio.get_running_loop()
        router = Router(loop, TransportSettings(SocksProxy(proxy, scope=ProxyScope.ALL)))
        with pytest.raises(SocksConnectionRefused):
            await router.dial(Multiaddr.parse(f"/ip4/127.0.0.1/tcp/{free}"))
        for text in ("/dns/no-such-party.invalid/tcp/80", f"/onion3/{onion_id(1)}:80"):
            with pytest.raises(SocksReplyError):
                await router.dial(Multiaddr.parse(text))
        # It resolves nothing on its own, and what it says to that is no name's address: nothing is looked up elsewhere.
        tor_like = Router(loop, TransportSettings(SocksProxy(proxy)))
        with pytest.raises((SocksReplyError, SocksProtocolError)) as caught:
            await tor_like.dial(Multiaddr.parse("/dns/bob.example/tcp/80"))
        assert isinstance(caught.value, SocksError)

    with microsocks() as proxy, reserved_ports(1) as (free,):
        run(scenario(proxy, free))
