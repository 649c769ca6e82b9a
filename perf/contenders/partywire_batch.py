"""Ours, the way to run many jobs: `BatchRunner.map` with one job for each session, resumed by our own scheduler."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from partywire import BatchRunner, BlockingParty
from partywire.perf.contender import SAMPLED_SESSIONS
from partywire.perf.workloads import Stopwatch

from .partywire_config import party_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire import Session
    from partywire.perf.contender import Place
    from partywire.perf.workloads import Workload


async def play_session(session: Session, task: tuple[Workload, int, int]) -> list[int]:
    """The job: one session's share of a play."""
    work, number, units = task
    stopwatch = Stopwatch() if number < SAMPLED_SESSIONS else None
    await work.play(session, session.party_index, number, units, stopwatch)
    return [] if stopwatch is None else stopwatch.latencies_ns


class BatchParty:
    """An open party. A batch makes its own sessions, so each play has new ones."""

    def __init__(self, party: BlockingParty, work: Workload) -> None:
        self._work = work
        self._runner = BatchRunner(party, sessions=work.sessions)

    def play(self, units: int) -> list[list[int]]:
        tasks = [(self._work, number, units) for number in range(self._work.sessions)]
        return self._runner.map(play_session, tasks)[:SAMPLED_SESSIONS]


@contextmanager
def open_party(place: Place, work: Workload) -> Iterator[BatchParty]:
    with BlockingParty(party_config(place), listener=place.listener) as party:
        yield BatchParty(party, work)
