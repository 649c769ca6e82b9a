"""A party that is started again in the middle of a batch: the others run it again with it, from its beginning."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from partywire import BatchRunner, Party
from partywire.engine.errors import SetupMismatch
from partywire.workers.errors import JobFailed, PeerLost
from tests.workers.test_recovery import run

if TYPE_CHECKING:
    from partywire import Session
    from tests.workers.test_recovery import Table

pytestmark = pytest.mark.timeout(60)
COUNT = 3
JOBS = 12
SESSIONS = 3


@dataclass
class Stage:
    """A job of all parties, which live in this process, that stops at one input until it is let go."""

    stops_at: int = 6
    is_open: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: set[int] = field(default_factory=set)
    runs: list[tuple[int, int]] = field(default_factory=list)

    async def job(self, session: Session, number: int) -> list[int]:
        """What every other party says for this input."""
        me = session.party_index
        self.runs.append((me, number))
        if number == self.stops_at and not self.is_open.is_set():
            self.waiting.add(me)
            await self.is_open.wait()
        await session.broadcast(bytes([me, number]))
        said = [await session.recv(other, timeout=20) for other in range(COUNT) if other != me]
        assert [list(words) for words in said] == [[other, number] for other in range(COUNT) if other != me]
        return [number * words[0] for words in said]

    @staticmethod
    def results(me: int) -> list[list[int]]:
        return [[number * other for other in range(COUNT) if other != me] for number in range(JOBS)]


def runner_of(party: Party, **options: Any) -> BatchRunner:
    return BatchRunner(party, SESSIONS, **{"retries": 2, "retry_timeout_s": 20, **options})


async def end_bob(table: Table, stage: Stage, batches: list[asyncio.Task[Any]]) -> None:
    """Bob dies when every party is in the middle of the batch."""
    await table.until(lambda: len(stage.waiting) == COUNT)
    batches[1].cancel()
    table.parties[1]._end()
    stage.is_open.set()
    await asyncio.wait([batches[1]])


def test_a_party_that_is_started_again_in_the_middle_of_a_batch_gets_all_results_and_so_do_the_others() -> None:
    """One batch had ended before, and the program of the party knows that."""

    async def scenario(table: Table) -> None:
        stage = Stage()
        runners = [runner_of(party) for party in table.parties]
        await asyncio.gather(*(runner.amap(Stage(stops_at=-1).job, range(JOBS)) for runner in runners))
        batches = [asyncio.ensure_future(runner.amap(stage.job, range(JOBS))) for runner in runners]
        await end_bob(table, stage, batches)
        await table.restart(1)
        again = runner_of(table.parties[1], first_batch=1).amap(stage.job, range(JOBS))
        results = await asyncio.gather(batches[0], again, batches[2])
        assert list(results) == [Stage.results(me) for me in range(COUNT)]
        # And the next batch is the next one for all of them.
        runners[1] = runner_of(table.parties[1], first_batch=2)
        further = await asyncio.gather(*(runner.amap(stage.job, range(JOBS)) for runner in runners))
        assert list(further) == list(results)

    run(COUNT, scenario)


def test_what_is_no_batch_that_the_others_are_in_is_refused_at_every_party() -> None:
    async def scenario(table: Table) -> None:
        stage = Stage()
        batches = [asyncio.ensure_future(runner_of(party).amap(stage.job, range(JOBS))) for party in table.parties]
        await end_bob(table, stage, batches)
        await table.restart(1)
        again = runner_of(table.parties[1], first_batch=1).amap(stage.job, range(JOBS))
        outcomes = await asyncio.gather(batches[0], again, batches[2], return_exceptions=True)
        for outcome in outcomes:
            assert isinstance(outcome, SetupMismatch), outcome
            assert outcome.field == "batch of the runner"
        sessions = [session for [session] in await table.sessions()]  # all parties are in step
        assert len({session.id for session in sessions}) == 1

    run(COUNT, scenario)


@pytest.mark.parametrize("retries", [2, 1])
def test_a_party_that_dies_between_two_attempts_begins_the_next_one_with_the_others(retries: int) -> None:
    """They are not at the end of an attempt then, but about to begin one, and hold results of the first. With one retry
    it was the last."""

    async def scenario(table: Table) -> None:
        stage = Stage(stops_at=-1)
        has_failed = asyncio.Event()

        async def job(session: Session, number: int) -> list[int]:
            if number == JOBS - 1 and session.party_index == 1 and not has_failed.is_set():
                has_failed.set()
                raise RuntimeError from PeerLost("nobody", None, 1, "the first attempt is spent")
            return await stage.job(session, number)

        runners = [runner_of(party, retries=retries) for party in table.parties]
        begin = table.parties[1]._rounds.say
        said: list[int] = []

        def say(round_: int, body: bytes) -> None:
            if b'"batch"' in body and has_failed.is_set():
                said.append(round_)  # the others never hear it
            else:
                begin(round_, body)

        table.parties[1]._rounds.say = say  # type: ignore[method-assign]
        batches = [asyncio.ensure_future(runner.amap(job, range(JOBS))) for runner in runners]
        await table.until(lambda: said)

        def held() -> list[int]:
            return [runner._batch.ledger.kept for runner in (runners[0], runners[2]) if runner._batch is not None]

        await table.until(lambda: len(held()) == 2 and all(held()))  # each hears of the end of the attempt by itself
        assert held() == [held()[0]] * 2
        assert held()[0] < JOBS
        batches[1].cancel()
        table.parties[1]._end()
        await asyncio.wait([batches[1]])
        await table.restart(1)
        again = runner_of(table.parties[1], retries=retries).amap(job, range(JOBS))
        outcomes = await asyncio.gather(batches[0], again, batches[2], return_exceptions=True)
        if retries == 2:
            assert list(outcomes) == [Stage.results(me) for me in range(COUNT)]
        else:
            for outcome in outcomes:
                assert isinstance(outcome, JobFailed), outcome
                assert "bob begins the batch anew" in str(outcome)
        await table.all(Party.barrier)  # all are in step

    run(COUNT, scenario)
