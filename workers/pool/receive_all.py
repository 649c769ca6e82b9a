"""One message of each of several peers, or of none: the receive of `Pool.recv_all`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from .inbox import Arrival, Entry

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from .peer import Peer


async def receive_all(
    peers: Sequence[Peer], msg_id: Hashable | None, timeout: float | None, loop: asyncio.AbstractEventLoop
) -> list[tuple[str, Any]]:
    """(name, object) of each peer, in their order; whatever ends it early gives back what had come."""
    begun: list[tuple[Peer, Hashable, int | None, Entry | Arrival]] = []
    timers: list[asyncio.TimerHandle] = []
    waiting: list[Arrival] = []
    received: list[tuple[str, Any]] = []
    try:
        for peer in peers:
            key, place = peer.begin_receive(msg_id)
            got = peer.take(key) or peer.wait(key, place, loop)
            begun.append((peer, key, place, got))
            if isinstance(got, Arrival):
                waiting.append(got)
                if timeout is not None:
                    timers.append(loop.call_later(timeout, peer.receive_timed_out, got, key, timeout))
            elif got.error is not None:
                raise got.error
        if len(waiting) > 1:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
            for arrival in done:
                arrival.result()  # of whoever will send nothing, while others have not sent yet
        for peer, _, _, got in begun:
            received.append((peer.name, await got if isinstance(got, Arrival) else got.value))
    except BaseException as error:
        for peer, key, place, got in begun:
            peer.undo(got, key, place, error)
        raise
    finally:
        for timer in timers:
            timer.cancel()
    return received
