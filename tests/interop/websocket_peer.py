"""A WebSocket peer made of the library websockets; run in an environment of its own by test_websocket_peer.py.

websocket_peer.py serve            prints its port, then echoes every message, until its input ends
websocket_peer.py dial URL [CA]    sends 1 MiB in messages of all kinds, checks that it comes back, and prints OK
"""

import asyncio
import itertools
import ssl
import sys

import websockets

SIZE = 1 << 20


async def echo(connection: websockets.ServerConnection) -> None:
    async for message in connection:
        await connection.ping()
        if isinstance(message, bytes):
            await connection.send([message[:1], message[1:]])  # in two fragments


async def serve() -> None:
    async with websockets.serve(echo, "127.0.0.1", 0) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def dial(url: str, ca: str | None) -> None:
    context = None if ca is None else ssl.create_default_context(cafile=ca)
    async with websockets.connect(url, ssl=context, compression="deflate") as connection:
        sent = bytes(range(256)) * (SIZE // 256)
        received = bytearray()

        async def receive() -> None:
            while len(received) < SIZE:
                message = await connection.recv()
                assert isinstance(message, bytes)
                received.extend(message)

        receiving = asyncio.ensure_future(receive())
        sizes = itertools.cycle([1, 125, 126, 65535, 65536, 65537, 200_000])
        at = 0
        while at < SIZE:
            size = next(sizes)
            await connection.send(sent[at : at + size])
            await (await connection.ping())
            at += size
        await receiving
        assert received == sent
    assert connection.close_code == 1000, connection.close_code
    print("OK", flush=True)


def main() -> None:
    if sys.argv[1] == "serve":
        asyncio.run(serve())
    else:
        asyncio.run(dial(sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None))


main()
