"""Links of real parties that are reset: how soon everybody knows, and that everything comes back by itself."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from typing import TYPE_CHECKING, Any

import pytest

from partywire import BatchRunner
from partywire.engine.limits import HEARTBEAT_TIMEOUT_S
from partywire.workers.errors import PeerAborted, PeerLost, SessionError
from tests.faults.proxy import FaultProxy
from tests.faults.rig import DEADLINE_S, Parties, play, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire.workers.session import Session

pytestmark = pytest.mark.timeout(120)

TOLD_S = HEARTBEAT_TIMEOUT_S
"""When silence alone would tell. docs/failures.md promises a second, which a machine with other work to do may miss."""

CUTS = 5


class Table:
    """Alice and others, one of whom, bob, dials her through a proxy."""

    def __init__(self, count: int, **settings: Any) -> None:
        self.proxy: FaultProxy
        self.parties = Parties(count, self._through, **settings)

    def _through(self, alice: tuple[str, int]) -> dict[tuple[str, str], tuple[str, int]]:
        self.proxy = FaultProxy(alice)
        return {("bob", "alice"): self.proxy.address}


@pytest.fixture
def trio() -> Iterator[Table]:
    made = Table(3)
    with made.proxy:
        yield made


@pytest.fixture
def pair_with_workers() -> Iterator[Table]:
    made = Table(2, workers=2)
    with made.proxy:
        yield made


async def failure_of(session: Session, peer: int) -> tuple[SessionError, float]:
    """What a pending call raises, and when."""
    with pytest.raises((PeerLost, PeerAborted)) as raised:
        await session.recv(peer, timeout=DEADLINE_S)
    return raised.value, time.monotonic()


def test_a_lost_link_fails_pending_and_later_calls_at_every_party_at_once(trio: Table) -> None:
    """Of several cuts the one in the middle counts: whoever shares the machine may delay one or the other."""

    async def scenario() -> None:
        async with trio.parties as parties:
            told_s = []
            for _ in range(CUTS):
                for party in parties.parties:
                    await party.wait_for_links(DEADLINE_S)
                sessions = await parties.sessions()
                pending = [
                    asyncio.ensure_future(failure_of(session, peer))
                    for session in sessions
                    for peer in range(3)
                    if peer != session.party_index
                ]
                await asyncio.sleep(0)  # all wait now
                began = time.monotonic()
                trio.proxy.cut()
                failures = await asyncio.gather(*pending)
                told_s.append(max(at for _, at in failures) - began)
                for error, _ in failures:
                    assert error.session == sessions[0].id
                began = time.monotonic()
                for session in sessions:
                    for call in (session.send_next(b"later"), session.recv_prev(), session.broadcast(b"later")):
                        with pytest.raises((PeerLost, PeerAborted)):
                            await call
                assert time.monotonic() - began < TOLD_S
                # The links to charlie stand as they stood.
                charlie = parties.parties[2].worker
                assert {link.epoch for link in charlie.links.values()} == {1}
            print("told after", ", ".join(f"{seconds:.3f} s" for seconds in told_s))
            assert statistics.median(told_s) < TOLD_S

    play(scenario())


async def pid_of_worker(session: Session, number: int) -> int:
    await session.broadcast(b"%d" % number)
    assert await session.recv(1 - session.party_index, timeout=DEADLINE_S) == b"%d" % number
    return os.getpid()


def test_one_connection_of_several_that_is_reset_is_there_again_with_the_link(pair_with_workers: Table) -> None:
    """That of the second worker, of which the opener has no session."""
    table = pair_with_workers

    async def scenario() -> None:
        async with table.parties as parties:
            alice, bob = parties.parties
            sessions = await parties.sessions()
            pending = [asyncio.ensure_future(failure_of(session, 1 - session.party_index)) for session in sessions]
            table.proxy.cut_one(1)
            failures = [error for error, _ in await asyncio.gather(*pending)]
            assert any("connection 1 to " in str(error) for error in failures)
            await until(lambda: alice.worker.links[1].epoch == bob.worker.links[0].epoch == 2)
            await asyncio.gather(*(party.wait_for_links(DEADLINE_S) for party in parties.parties))
            results = await asyncio.gather(
                *(BatchRunner(party, 2).amap(pid_of_worker, range(8)) for party in parties.parties)
            )
            for party, pids in zip(parties.parties, results, strict=True):
                assert set(pids) == {os.getpid(), party.pids["worker 1"]}

    play(scenario())
