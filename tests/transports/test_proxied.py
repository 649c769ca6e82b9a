"""Links by way of a SOCKS5 proxy: what goes through it, what does not, and what is said when it fails."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from partywire.engine.attempt import Lane
from partywire.engine.connection_pump import ConnectionPump
from partywire.engine.dialler import DialCause, DialFailed, Dialler
from partywire.engine.link_options import LinkOptions
from partywire.engine.link_transport import transport_of
from partywire.engine.resolver import Resolver
from partywire.engine.socks_options import SocksOptions
from partywire.engine.tcp import TcpStream, TcpTransport
from partywire.engine.transports import proxied
from partywire.engine.transports.proxied import ProxiedTransport
from partywire.shm import fence
from partywire.shm.compiled import core
from partywire.shm.doorbell import Bell, Doorbell
from tests.support.scripted_tor import onion_id
from tests.support.socks_proxy import CONNECT, RESOLVE, SmallProxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from pathlib import Path

DEADLINE_S = 20.0
ONION = f"/onion3/{onion_id(3)}"
ONION_NAME = f"{onion_id(3)}.onion"


def run(scenario: Coroutine[object, object, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(scenario, DEADLINE_S))


def own_name_only(host: str, port: int, *_: object) -> list[Any]:
    """This host's own resolver, which is to hear of no other name."""
    assert host == "localhost"
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


class Rig:
    """A proxy, a server behind it, and a transport that is told of the proxy."""

    def __init__(self, proxy: SmallProxy, server: socket.socket, scope: str, username: str, path: str) -> None:
        self.proxy = proxy
        self.server = server
        self.port: int = server.getsockname()[1]
        options = SocksOptions(f"/ip4/127.0.0.1/tcp/{proxy.port}", scope, username, path)
        self.transport = ProxiedTransport(asyncio.get_running_loop(), options, Resolver(own_name_only))

    async def dial(self, host: str, port: int, client_host: str | None = None) -> TcpStream:
        """A stream to the server."""
        stream = await Dialler(self.transport, "bob", host, port, client_host).attempt()
        assert isinstance(stream, TcpStream)
        return stream

    async def failure(self, host: str, port: int) -> DialFailed:
        with pytest.raises(DialFailed) as failed:
            (await self.dial(host, port)).close()
        return failed.value


def is_pumped_in_c(stream: TcpStream) -> bool:
    """Whether the compiled pump takes the stream for a socket of its own; true without a compiled core."""
    fence.register()
    fence_ = fence.probe()
    doorbell = Doorbell.create(fence_)
    bell = Bell.from_fds(*(os.dup(fd) for fd in doorbell.fds))
    lane = Lane(16 * 1024, 1, fence_, bell)
    try:
        line = ConnectionPump(object(), stream, lane.tx, lane.rx, 0, 1).line  # type: ignore[arg-type]
        return core is None or (line is not None and line[2] == stream.fd)
    finally:
        lane.close()
        bell.close()
        doorbell.close()


@asynccontextmanager
async def rig(
    scope: str = "onion", password: tuple[str, str] | None = None, username: str = "", path: str = ""
) -> AsyncIterator[Rig]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = server.getsockname()
        targets = {ONION_NAME: here, "bob.example": here, "far.example": here}
        names = {"bob.example": "127.0.0.1", "six.example": "::1"}
        proxy = SmallProxy(asyncio.get_running_loop(), password=password, names=names, targets=targets)
        try:
            yield Rig(proxy, server, scope, username, path)
        finally:
            await proxy.aclose()


def test_an_onion_service_is_a_plain_socket_behind_the_proxys_answer() -> None:
    async def scenario() -> None:
        async with rig() as the:
            stream = await the.dial(ONION, 80, "192.0.2.1")  # which nothing can be dialled from
            assert the.proxy.requests == [(CONNECT, ONION_NAME, 80)]
            assert stream.peer_address == f"{ONION}:80"
            assert is_pumped_in_c(stream)
            with socket.socket(fileno=os.dup(stream.fd)) as sock:
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert not os.get_blocking(stream.fd)
            stream.close()

    run(scenario())


def test_tor_looks_names_up_and_what_it_found_is_dialled_directly() -> None:
    async def scenario() -> None:
        async with rig() as the:
            for host in ("bob.example", "/dns4/bob.example"):
                (await the.dial(host, the.port, "127.0.0.7")).close()
                sock, (dialled_from, _) = the.server.accept()
                sock.close()
                assert dialled_from == "127.0.0.7"
            (await the.dial("127.0.0.1", the.port)).close()
            (await the.dial("localhost", the.port)).close()  # this host's own name needs nobody
            assert the.proxy.requests == [(RESOLVE, "bob.example", 0)] * 2
            for host, what in (("six.example", "no IPv4 address"), ("none.example", "host unreachable")):
                failed = await the.failure(f"/dns4/{host}", the.port)
                assert failed.kind is DialCause.UNRESOLVED
                assert what in failed.cause
                assert failed.address == f"/dns4/{host}/tcp/{the.port}"

    run(scenario())


def test_everything_of_tcp_goes_through_a_proxy_for_all_and_unix_sockets_do_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with rig("all") as the:
            for host in ("far.example", "/dns6/far.example", "127.0.0.1"):
                (await the.dial(host, the.port)).close()
            assert the.proxy.requests == [
                (CONNECT, "far.example", the.port),
                (CONNECT, "far.example", the.port),
                (CONNECT, "127.0.0.1", the.port),
            ]
            path = f"unix:{tmp_path}/a.sock"
            listener = the.transport.listen(path, 0, lambda stream: stream.close())
            stream = await the.dial(path, 0)
            assert stream.peer_address == path
            assert is_pumped_in_c(stream)
            stream.close()
            listener.close()
            assert len(the.proxy.requests) == 3

    run(scenario())


def test_what_the_proxy_says_of_the_peer_is_told_apart_from_what_is_wrong_with_the_proxy() -> None:
    async def scenario() -> None:
        async with rig("all") as the:
            the.server.close()
            refused = await the.failure("127.0.0.1", the.port)
            assert refused.kind is DialCause.REFUSED
            where = f"the SOCKS5 proxy at /ip4/127.0.0.1/tcp/{the.proxy.port}"
            assert f"({where}: it answered with 0x05, connection refused)" in str(refused)
            await the.proxy.aclose()
            gone = await the.failure(ONION, 80)
            assert gone.kind is DialCause.PROXY
            assert f" {ONION}:80 ({where}: it cannot be reached: connection refused)" in str(gone)

    run(scenario())


def test_a_password_is_read_from_its_file_at_each_dial_and_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "password"

    async def scenario() -> None:
        async with rig("onion", ("us", "geheim-7"), "us", str(path)) as the:
            assert (await the.failure(ONION, 80)).cause.endswith("cannot be read: no such file or directory")
            path.write_text("geheim-6\n")
            path.chmod(0o600)
            refused = await the.failure(ONION, 80)
            assert refused.kind is DialCause.PROXY
            assert "geheim" not in repr(refused)
            path.write_text("geheim-7\n")
            (await the.dial(ONION, 80)).close()
            path.write_bytes(b"\xff")
            assert "UTF-8" in (await the.failure(ONION, 80)).cause
            path.write_text("x" * 256)
            assert "1 to 255 bytes" in (await the.failure(ONION, 80)).cause
            path.chmod(0o644)
            assert "chmod 600" in (await the.failure("bob.example", the.port)).cause

    run(scenario())


def test_a_proxy_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxied, "PROXY_TIMEOUT_S", 0.05)
    monkeypatch.setattr(proxied, "LOOK_UP_TIMEOUT_S", 0.05)

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            options = SocksOptions(f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}")
            transport = ProxiedTransport(asyncio.get_running_loop(), options)
            for host, kind in ((ONION, DialCause.NO_ANSWER), ("bob.example", DialCause.UNRESOLVED)):
                with pytest.raises(DialFailed, match=r"SOCKS5 proxy at .* took longer than 0\.05 s") as failed:
                    await Dialler(transport, "bob", host, 80).attempt()
                assert failed.value.kind is kind

    run(scenario())


def test_a_host_that_cannot_be_sent_to_a_proxy_is_a_failed_dial() -> None:
    async def scenario() -> None:
        async with rig("all") as the:
            assert "fe80::1%lo" in (await the.failure("fe80::1%lo", 80)).cause
            assert the.proxy.requests == []

    run(scenario())


def test_links_without_a_proxy_reach_no_onion_service_and_say_what_to_set() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        plain = transport_of(loop, LinkOptions())
        assert isinstance(plain, TcpTransport)
        assert isinstance(transport_of(loop, LinkOptions(socks=SocksOptions("/unix/a"))), ProxiedTransport)
        with pytest.raises(DialFailed, match=r"set \[dial.socks\]") as failed:
            await Dialler(plain, "bob", ONION, 80).attempt()
        assert failed.value.kind is DialCause.PROXY

    run(scenario())
