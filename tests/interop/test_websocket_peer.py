"""Our WebSockets against the library websockets, as dialler and as acceptor, in the clear and over TLS."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvloop

from partywire.engine.exchange import receive_some, send_all
from partywire.engine.multiaddr import Multiaddr
from partywire.engine.transports import Router, TransportSettings
from tests.interop.own_python import python_with
from tests.interop.tor_programs import end
from tests.support.websockets import websocket_settings

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from partywire.engine.transport import Stream

pytestmark = pytest.mark.interop

DEADLINE_S = 60.0
PEER = Path(__file__).with_name("websocket_peer.py")
SIZE = 1 << 20


@pytest.fixture(scope="module")
def python() -> Path:
    return python_with("websockets", "websockets>=15")


def run(scenario: Coroutine[object, object, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(scenario, DEADLINE_S))


def test_we_dial_and_a_mebibyte_comes_back_in_fragments_between_pings(python: Path) -> None:
    async def scenario(port: int) -> None:
        stream = await Router(asyncio.get_running_loop()).dial(Multiaddr.parse(f"/ip4/127.0.0.1/tcp/{port}/ws"))
        sent = bytes(range(256)) * (SIZE // 256)
        sending = asyncio.ensure_future(send_all(stream, sent))
        received = b""
        while len(received) < SIZE:
            part = await receive_some(stream, 1 << 16)
            assert part
            received += part
        await sending
        assert received == sent
        stream.shutdown_write()  # which it answers with its own end
        assert await receive_some(stream, 1) == b""
        stream.close()

    peer = subprocess.Popen([python, PEER, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert peer.stdout is not None
        assert peer.stdin is not None
        run(scenario(int(peer.stdout.readline())))
        peer.stdin.close()
        assert peer.wait(DEADLINE_S) == 0
        peer.stdout.close()
    finally:
        end(peer)


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_we_accept_and_send_a_mebibyte_back(scheme: str, python: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[None]] = []

        async def echo(stream: Stream) -> None:
            while part := await receive_some(stream, 1 << 16):
                await send_all(stream, part)
            stream.close()

        router = Router(loop, TransportSettings(websocket=websocket_settings(tmp_path)))
        listening = await router.listen(
            Multiaddr.parse(f"/ip4/127.0.0.1/tcp/0/{scheme}"),
            lambda stream, source: tasks.append(loop.create_task(echo(stream))),
        )
        url = f"{scheme}://127.0.0.1:{listening.address.value_of('tcp')}/"
        authority = [str(tmp_path / "ca.crt")] if scheme == "wss" else []
        peer = await asyncio.create_subprocess_exec(
            python, PEER, "dial", url, *authority, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        try:
            out, errors = await peer.communicate()
        finally:
            listening.close()
            if peer.returncode is None:
                peer.kill()
                await peer.wait()
        assert out == b"OK\n", errors.decode()
        await asyncio.gather(*tasks)

    run(scenario())
