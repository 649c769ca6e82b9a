"""Three sessions in one process, joined by queues: fakes of Session and BatchRunner for tests of protocols and jobs.

It keeps the promises that protocols rest on: what is sent is a snapshot, messages of a direction arrive in order, a
message that does not fit `recv_prev(out=...)` raises and stays. Every payload is recorded, so that tests can count
bytes and look at what a curious party saw.
"""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from partywire.workers.errors import UnexpectedMessage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from partywire.workers.jobs import Job, JobReport

T = TypeVar("T")

DEADLINE_S = 60.0


class LocalSession:
    """One party's end. `sent` has a copy of each message to the next party, in order."""

    def __init__(self, party_index: int, parties: int = 3) -> None:
        self.party_index = party_index
        self.parties = parties
        self.sent: list[Any] = []
        self.next: LocalSession = self
        self._inbox: deque[Any] = deque()
        self._arrived = asyncio.Event()

    async def send_next(self, value: Any, /) -> None:
        snapshot = copy.deepcopy(value)
        self.sent.append(snapshot)
        self.next.deliver(snapshot)

    def deliver(self, value: Any) -> None:
        self._inbox.append(value)
        self._arrived.set()

    async def recv_prev(self, *, out: np.ndarray[Any, Any] | None = None) -> Any:
        while not self._inbox:
            self._arrived.clear()
            await self._arrived.wait()
        first = self._inbox[0]
        if out is None:
            return self._inbox.popleft()
        if not isinstance(first, np.ndarray) or first.dtype != out.dtype or first.shape != out.shape:
            raise UnexpectedMessage(0, str((self.party_index - 1) % 3), "is not of the shape and dtype of out")
        out[...] = self._inbox.popleft()
        return out

    @property
    def array_bytes_sent(self) -> int:
        return sum(message.nbytes for message in self.sent if isinstance(message, np.ndarray))

    @property
    def has_unread(self) -> bool:
        return bool(self._inbox)


def local_sessions(parties: int = 3) -> list[LocalSession]:
    """Sessions of parties 0, 1, ..., joined in a ring."""
    sessions = [LocalSession(index, parties) for index in range(parties)]
    for session in sessions:
        session.next = sessions[(session.party_index + 1) % parties]
    return sessions


async def join_parties(program: Callable[[LocalSession], Awaitable[T]], sessions: list[LocalSession]) -> list[T]:
    """Run the program at all parties at once; every message must have been received when it ends."""
    async with asyncio.timeout(DEADLINE_S):
        results = await asyncio.gather(*(program(session) for session in sessions))
    assert not [session.party_index for session in sessions if session.has_unread]
    return results


def run_parties(program: Callable[[LocalSession], Awaitable[T]]) -> tuple[list[T], list[LocalSession]]:
    """What the program returned at parties 0, 1 and 2, and their sessions with what they sent."""
    sessions = local_sessions()
    return asyncio.run(join_parties(program, sessions)), sessions


class LocalRunner:
    """One party's BatchRunner: the last party to call `map` runs the batch of all three.

    Functions, inputs and results are pickled on the way, as they are between the processes of a party.
    """

    def __init__(self, party_index: int, table: _Table) -> None:
        self._party_index = party_index
        self._table = table

    def map(self, job: Callable[[Any, Any], Any], inputs: Iterable[Any], /) -> list[Any]:
        """Results in the order of inputs, or the first failure of this party."""
        return self._table.join(self._party_index, job, list(inputs))


class _Table:
    """Where the calls of the three parties meet."""

    def __init__(self) -> None:
        self._meeting = threading.Barrier(3, timeout=DEADLINE_S)
        self._calls: dict[int, bytes] = {}
        self._results: dict[int, bytes | BaseException] = {}

    def join(self, party_index: int, job: Callable[[Any, Any], Any], inputs: list[Any]) -> list[Any]:
        self._calls[party_index] = pickle.dumps((job, inputs))
        if self._meeting.wait() == 0:
            self._results = asyncio.run(self._run_batch())
        self._meeting.wait()
        outcome = self._results[party_index]
        self._meeting.wait()  # all have read before a next call overwrites
        if isinstance(outcome, BaseException):
            raise outcome
        return list(pickle.loads(outcome))

    async def _run_batch(self) -> dict[int, bytes | BaseException]:
        calls = [pickle.loads(self._calls[index]) for index in range(3)]
        assert len({len(inputs) for _, inputs in calls}) == 1
        results: list[list[Any]] = [[], [], []]
        for position in range(len(calls[0][1])):
            programs = [
                job(session, inputs[position]) for (job, inputs), session in zip(calls, local_sessions(), strict=True)
            ]
            async with asyncio.timeout(DEADLINE_S):
                outcomes = await asyncio.gather(*programs, return_exceptions=True)
            failures = {index: outcome for index, outcome in enumerate(outcomes) if isinstance(outcome, BaseException)}
            if failures:
                assert len(failures) == 3, f"only some parties failed: {failures}"
                return dict(failures)
            for party_results, outcome in zip(results, outcomes, strict=True):
                party_results.append(outcome)
        return {index: pickle.dumps(party_results) for index, party_results in enumerate(results)}


def run_job(jobs: Sequence[Job]) -> list[JobReport]:
    """The reports of three parties that run a job together."""
    table = _Table()
    with ThreadPoolExecutor(max_workers=3) as threads:
        reports = [threads.submit(job.run, LocalRunner(job.party_index, table)) for job in jobs]
    return [report.result() for report in reports]
