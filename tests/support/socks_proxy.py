"""A small SOCKS5 proxy for tests, on one event loop: methods, CONNECT, Tor's RESOLVE, and what it was asked for."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import TYPE_CHECKING

from partywire.engine.exchange import receive_some, send_all
from partywire.engine.tcp import TcpTransport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from partywire.engine.transport import Stream

CONNECT = 1
RESOLVE = 0xF0


class SmallProxy:
    """Listens on loopback. `requests` has (command, host, port) of each request."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        password: tuple[str, str] | None = None,
        names: Mapping[str, str] | None = None,
        targets: Mapping[str, tuple[str, int]] | None = None,
        port: int = 0,
    ) -> None:
        """`names` answers RESOLVE; `targets` says where a host really is that CONNECT asks for."""
        self._loop = loop
        self._tcp = TcpTransport(loop)
        self._password = password
        self._names = names or {}
        self._targets = targets or {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener = self._tcp.listen("127.0.0.1", port, self._accept)
        self.port = self._listener.address[1]
        self.requests: list[tuple[int, str, int]] = []

    def _accept(self, stream: Stream) -> None:
        task = self._loop.create_task(self._serve(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        self._listener.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, stream: Stream) -> None:
        far: Stream | None = None
        try:
            far = await self._greet(stream)
            if far is not None:
                await self._forward(stream, far)
        except OSError:
            stream.abort()
            if far is not None:
                far.abort()
        finally:
            stream.close()
            if far is not None:
                far.close()

    async def _greet(self, stream: Stream) -> Stream | None:
        _, count = await exactly(stream, 2)
        offered = await exactly(stream, count)
        method = 0 if self._password is None else 2
        if method not in offered:
            await send_all(stream, b"\x05\xff")
            return None
        await send_all(stream, bytes((5, method)))
        if self._password is not None:
            _, size = await exactly(stream, 2)
            name = (await exactly(stream, size)).decode()
            password = (await exactly(stream, (await exactly(stream, 1))[0])).decode()
            is_right = (name, password) == self._password
            await send_all(stream, bytes((1, 0 if is_right else 1)))
            if not is_right:
                return None
        _, command, _, kind = await exactly(stream, 4)
        if kind == 3:
            host = (await exactly(stream, (await exactly(stream, 1))[0])).decode()
        else:
            host = str(ipaddress.ip_address(await exactly(stream, 4 if kind == 1 else 16)))
        port = int.from_bytes(await exactly(stream, 2), "big")
        self.requests.append((command, host, port))
        if command == RESOLVE:
            await self._resolve(stream, host)
            return None
        try:
            far = await self._tcp.connect(self._targets.get(host, (host, port)), None, 5)
        except OSError:
            await send_all(stream, b"\x05\x05\0\x01" + bytes(6))
            return None
        await send_all(stream, b"\x05\0\0\x01" + bytes(6))
        return far

    async def _resolve(self, stream: Stream, host: str) -> None:
        if host not in self._names:
            await send_all(stream, b"\x05\x04\0\x01" + bytes(6))
            return
        packed = ipaddress.ip_address(self._names[host]).packed
        await send_all(stream, b"\x05\0\0" + (b"\x01" if len(packed) == 4 else b"\x04") + packed + bytes(2))

    async def _forward(self, near: Stream, far: Stream) -> None:
        pumps = [asyncio.ensure_future(pump(near, far)), asyncio.ensure_future(pump(far, near))]
        try:
            await asyncio.gather(*pumps)
        finally:
            for each in pumps:
                each.cancel()
            await asyncio.wait(pumps)


async def pump(source: Stream, sink: Stream) -> None:
    """Everything from one to the other, the end too."""
    while data := await receive_some(source, 1 << 16):
        await send_all(sink, data)
    sink.shutdown_write()


async def exactly(stream: Stream, size: int) -> bytes:
    """So many bytes, or OSError at the end."""
    data = b""
    while len(data) < size:
        if not (part := await receive_some(stream, size - len(data))):
            raise OSError("an end in the middle")
        data += part
    return data
