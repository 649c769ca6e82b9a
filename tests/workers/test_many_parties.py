"""The fewest parties and the most: all of them talk to all, each with its own family of processes.

The openers share this process and one event loop, so that nine parties are not nine more interpreters with numpy. Three
parties are in test_party_end_to_end.py, five in tests/cli/test_sum.py.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import numpy as np
import pytest

from partywire import LinkEvent, LinkEventKind, Party, Ring64
from partywire.workers.local import NAMES, make_local_parties

if TYPE_CHECKING:
    from partywire import Session

pytestmark = pytest.mark.slow
TIMEOUT_S = 60.0


async def talk(party: Party) -> int:
    """Everything that a session does with all peers at once, and with each."""
    sessions: list[Session] = await party.make_sessions(2, timeout=TIMEOUT_S)
    one, other = sessions
    count, index = len(party.names), party.index
    gathered = await one.gather(Ring64(index * index), timeout=TIMEOUT_S)
    assert gathered == [Ring64(k * k) for k in range(count)]
    await other.broadcast(np.full(1000, index), timeout=TIMEOUT_S)
    heard = await other.recv_all(timeout=TIMEOUT_S)
    assert [None if row is None else int(row.sum()) for row in heard] == [
        None if k == index else 1000 * k for k in range(count)
    ]
    for peer in range(count):
        if peer != index:
            assert await one.exchange(peer, bytes((index, peer)), timeout=TIMEOUT_S) == bytes((peer, index))
    await other.send_next(party.name.encode(), timeout=TIMEOUT_S)
    assert await other.recv_prev(timeout=TIMEOUT_S) == party.names[index - 1].encode()
    await party.barrier(timeout=TIMEOUT_S)
    return sum(gathered)


@pytest.mark.parametrize("count", [2, 9])
def test_all_parties_talk_to_all(count: int) -> None:
    events: list[tuple[str, LinkEvent]] = []

    async def everybody() -> list[int]:
        async with AsyncExitStack() as stack:
            parties = [
                Party(config, listener, on_event=lambda event, name=config.name: events.append((name, event)))  # type: ignore[misc]
                for config, listener in zip(local.configs, local.listeners, strict=True)
            ]
            await asyncio.gather(*(stack.enter_async_context(party) for party in parties))
            assert [len(set(links_of(party))) for party in parties] == [1 if count > 3 else count - 1] * count
            answers = await asyncio.gather(*(talk(party) for party in parties))
            await asyncio.gather(*(party.close() for party in parties))
            return answers

    with make_local_parties(count) as local:
        assert asyncio.run(everybody()) == [sum(k * k for k in range(count))] * count
    for index, name in enumerate(NAMES[:count]):
        told = [(event.kind, event.peer) for whose, event in events if whose == name]
        # The greater name dials; and every link is closed with goodbyes.
        for peer in NAMES[:index]:
            assert [kind for kind, whom in told if whom == peer][-2:] == [LinkEventKind.CONNECTED, LinkEventKind.CLOSED]
        for peer in NAMES[index + 1 : count]:
            assert [kind for kind, whom in told if whom == peer] == [LinkEventKind.ACCEPTED, LinkEventKind.CLOSED]
    assert {event.cause for _, event in events if event.kind is LinkEventKind.CLOSED} == {""}


def links_of(party: Party) -> list[int]:
    """The process of each link."""
    return [pid for role, pid in party.pids.items() if role.startswith("link ")]
