"""Talking over a stream before anybody owns it: send all of something, receive at most so many bytes.

For the short conversations that come before a stream's use: a handshake, a proxy, a WebSocket's server. The one
invariant: not one byte more is taken from the stream than was asked for, and no callback stays registered, however the
wait ends. No function here has a deadline; each is called under one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from .transport import Stream


RECEIVE_SIZE: Final = 4096


async def send_all(stream: Stream, data: bytes) -> None:
    """Until the stream has taken all of `data`.

    Raises:
        OSError: the stream is broken.
    """
    view = memoryview(data)
    while view:
        count = stream.try_send((view,))
        if count is None:
            await _until(stream.on_writable)
        else:
            view = view[count:]


async def receive_some(stream: Stream, size_max: int = RECEIVE_SIZE) -> bytes:
    """At least one byte and at most `size_max`; none at end of file.

    Raises:
        OSError: the stream is broken.
    """
    view = memoryview(bytearray(size_max))
    while (count := stream.try_recv_into(view)) is None:
        await _until(stream.on_readable)
    return bytes(view[:count])


async def _until(register: Callable[[Callable[[], object] | None], None]) -> None:
    ready = asyncio.Event()
    register(ready.set)
    try:
        await ready.wait()
    finally:
        register(None)
