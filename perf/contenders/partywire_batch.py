"""Ours, the way to run many jobs: `BatchRunner.map` with one job for each session, resumed by our own scheduler.

A session of a workload that streams beside others (`bulk_sessions`) plays in its job over a bulk session of the party,
as in a program that sends arrays beside its rounds.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from partywire import BatchRunner, BlockingParty
from partywire.perf.contender import SAMPLED_SESSIONS
from partywire.perf.workloads import Stopwatch, bulk_sessions

from .partywire_config import party_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire import Session
    from partywire.perf.contender import Place
    from partywire.perf.workloads import Workload


async def play_session(session: Session, task: tuple[Workload, int, int, Session | None]) -> list[int]:
    """The job: one session's share of a play, over another session if one is given."""
    work, number, units, bulk = task
    stopwatch = Stopwatch() if number < SAMPLED_SESSIONS else None
    await work.play(bulk or session, session.party_index, number, units, stopwatch)
    return [] if stopwatch is None else stopwatch.latencies_ns


class BatchParty:
    """An open party. A batch makes its own sessions, so each play has new ones; bulk ones serve every play."""

    def __init__(self, party: BlockingParty, work: Workload, *, is_sharing: bool = False) -> None:
        """`is_sharing`: bulk sessions are normal ones."""
        self._work = work
        self._runner = BatchRunner(party, sessions=work.sessions)
        numbers = () if is_sharing else bulk_sessions(work)
        made = party.make_sessions(len(numbers), bulk=True) if numbers else []
        self._bulk = dict(zip(numbers, (session.asynchronous for session in made), strict=True))

    def play(self, units: int) -> list[list[int]]:
        tasks = [(self._work, number, units, self._bulk.get(number)) for number in range(self._work.sessions)]
        return self._runner.map(play_session, tasks)[:SAMPLED_SESSIONS]


@contextmanager
def open_party(place: Place, work: Workload) -> Iterator[BatchParty]:
    with BlockingParty(party_config(place), listener=place.listener) as party:
        yield BatchParty(party, work)
