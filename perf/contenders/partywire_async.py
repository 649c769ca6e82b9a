"""Ours in an asyncio program: `async with Party` under uvloop, one task for each session."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvloop

from partywire import Party
from partywire.perf.contender import SAMPLED_SESSIONS
from partywire.perf.workloads import Stopwatch, bulk_sessions

from .partywire_config import party_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire import Session
    from partywire.perf.contender import Place
    from partywire.perf.workloads import Workload


class AsyncParty:
    """An open party and its sessions, which serve every play."""

    def __init__(self, runner: asyncio.Runner, party: Party, sessions: list[Session], work: Workload) -> None:
        self._runner = runner
        self._party = party
        self._sessions = sessions
        self._work = work

    def play(self, units: int) -> list[list[int]]:
        return self._runner.run(self._play(units))

    async def _play(self, units: int) -> list[list[int]]:
        stopwatches = [Stopwatch() if number < SAMPLED_SESSIONS else None for number in range(len(self._sessions))]
        await asyncio.gather(
            *(
                self._work.play(session, session.party_index, number, units, stopwatches[number])
                for number, session in enumerate(self._sessions)
            )
        )
        # The loop stands still between two plays; what was sent last has to be on its way by then.
        await self._party.barrier()
        return [stopwatch.latencies_ns for stopwatch in stopwatches if stopwatch is not None]


async def make_sessions(party: Party, work: Workload) -> list[Session]:
    """In the order of their numbers, some of them of the bulk class."""
    sessions = await party.make_sessions(work.sessions)
    for number in bulk_sessions(work):
        (sessions[number],) = await party.make_sessions(1, bulk=True)
    return sessions


@contextmanager
def open_party(place: Place, work: Workload) -> Iterator[AsyncParty]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        party = Party(party_config(place), listener=place.listener)
        runner.run(party.open())
        try:
            yield AsyncParty(runner, party, runner.run(make_sessions(party, work)), work)
        finally:
            runner.run(party.close())
