"""Closing behind a peer that broke the protocol: with a goodbye if it takes one, and without a long wait."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from partywire import Party, PartyConfig, PeerLost
from partywire.shm.compiled import core

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from partywire import Session
    from partywire.workers.lane import Lane

DEADLINE_S = 20.0
CLOSE_S = 600.0
"""Whoever waits for it misses the deadline of the test."""


def run(io: str, play: Callable[[tuple[Party, Session], tuple[Party, Session]], Coroutine[Any, Any, object]]) -> None:
    """Play with two parties, the first of which is in this process, and a session of each."""

    async def playing() -> None:
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in "ab"]
        parties = {name: listener.getsockname()[:2] for name, listener in zip("ab", listeners, strict=True)}
        async with asyncio.timeout(DEADLINE_S), AsyncExitStack() as stack:
            opened = []
            for name, kind, listener in zip("ab", ("in-process", io), listeners, strict=True):
                config = PartyConfig(name=name, parties=parties, io=kind, close_s=CLOSE_S, ring_mib=1)
                opened.append(Party(config, listener))
                stack.push_async_callback(opened[-1].close)
            await asyncio.gather(*(party.open() for party in opened))
            (one,), (other,) = await asyncio.gather(*(party.make_sessions(1) for party in opened))
            await play((opened[0], one), (opened[1], other))
        for listener in listeners:
            listener.close()

    asyncio.run(playing())


def lane_of(party: Party) -> Lane:
    (link,) = party.worker.links.values()
    return link.lanes[0]


def err(party: Party, session: Session) -> None:
    """Send a frame that there is not."""
    lane_of(party).post(session.id.to_bytes(4, "little") + b"\x7f" + bytes(4))
    party.worker.flush()


@pytest.mark.parametrize("io", ["in-process", "processes"])
def test_a_peer_that_broke_the_protocol_is_told_goodbye_and_answers(io: str, caplog: pytest.LogCaptureFixture) -> None:
    async def play(erring: tuple[Party, Session], ours: tuple[Party, Session]) -> None:
        party, session = ours
        err(*erring)
        with pytest.raises(PeerLost, match="unknown frame descriptor"):
            await session.recv("a")
        await party.close()

    run(io, play)
    assert "could not be closed" not in caplog.text
    assert "did not finish closing" not in caplog.text


@pytest.mark.skipif(core is None, reason="a lane knows its pump only with the compiled core")
def test_a_peer_that_broke_the_protocol_and_takes_nothing_is_left_without_a_goodbye() -> None:
    async def play(erring: tuple[Party, Session], ours: tuple[Party, Session]) -> None:
        party, session = ours
        lane = lane_of(party)
        pump = lane_of(erring[0]).pump
        assert pump is not None
        pump._stream.on_readable(None)
        sending = asyncio.ensure_future(session.send("a", bytes(64 << 20)))
        while not lane.waiters:  # noqa: ASYNC110 - until neither the kernel nor the ring takes more
            await asyncio.sleep(0)
        err(*erring)
        with pytest.raises(PeerLost):
            await sending
        await party.close()

    run("in-process", play)
