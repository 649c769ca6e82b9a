"""Listens at an address and dials it: the same program for TCP, a WebSocket, a unix socket, or within the process.

python transports.py /ip4/127.0.0.1/tcp/0 /ip4/127.0.0.1/tcp/0/ws /memory/0
"""

import asyncio
import sys

from partywire.engine.multiaddr import Multiaddr
from partywire.engine.transport import Stream
from partywire.engine.transports import Router, TransportError


def greet(stream: Stream, source: Multiaddr) -> None:
    stream.try_send([b"hello"])
    stream.close()


async def listen_and_dial(router: Router, text: str) -> None:
    listening = await router.listen(Multiaddr.parse(text), greet)
    try:
        stream = await router.dial(listening.address, timeout_s=5)
        readable = asyncio.Event()
        stream.on_readable(readable.set)
        await readable.wait()
        buffer = memoryview(bytearray(100))
        count = stream.try_recv_into(buffer)
        print(f"{'/'.join(listening.address.protocols)}: {bytes(buffer[:count]).decode()}")
        stream.close()
    finally:
        listening.close()


async def main() -> None:
    router = Router(asyncio.get_running_loop())
    for text in sys.argv[1:]:
        try:
            await listen_and_dial(router, text)
        except TransportError as error:
            print(error)


asyncio.run(main())
