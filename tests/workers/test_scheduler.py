"""The scheduler: direct resumption, promotion to tasks, jobs in lockstep, and what happens when parties disagree."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import pytest

from partywire.workers.errors import PartyFailed, PeerAborted, PeerLost, SessionDesync, WorkerDied
from partywire.workers.hot import IS_COMPILED
from partywire.workers.scheduler import (
    PASS_RESUMPTIONS_MAX,
    Scheduler,
    new_loop,
)
from partywire.workers.values import Ring32
from tests.workers.harness import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from partywire.workers.blocking_session import BlockingSession
    from partywire.workers.session import Session


@pytest.fixture
def two() -> Iterator[Table]:
    with Table(2) as table:
        yield table


@pytest.fixture
def three() -> Iterator[Table]:
    with Table(3) as table:
        yield table


class Report:
    """What a batch tells about its jobs."""

    def __init__(self) -> None:
        self.results: dict[int, Any] = {}
        self.final: list[int] = []
        self.failures: list[tuple[int, BaseException]] = []

    def on_failure(self, index: int, error: BaseException) -> None:
        self.failures.append((index, error))


def add(table: Table, party: int, session: Session, jobs: list[tuple[int, Callable[..., Any], Any]]) -> Report:
    report = Report()
    table.schedulers[party].add(session, jobs, report.results.__setitem__, report.on_failure, report.final.append)
    return report


async def double_next(session: Session, value: int) -> int:
    """Three parties, one round: everyone sends to the next and receives from the previous."""
    await session.send_next(Ring32(value))
    return 2 * int(await session.recv_prev())


# Coroutines.


def test_ends_are_told_with_result_or_error(two: Table) -> None:
    async def good() -> int:
        return 5

    async def bad() -> None:
        raise KeyError("x")

    told: list[Any] = []
    slots = [two.schedulers[0].spawn(job, on_done=told.append) for job in (good(), bad())]
    two.settle()
    assert told == slots
    assert slots[0].result == 5
    assert isinstance(slots[1].error, KeyError)
    assert two.schedulers[0].is_idle


def test_a_pass_is_bounded(two: Table) -> None:
    async def job() -> None:
        pass

    scheduler = two.schedulers[0]
    for _ in range(PASS_RESUMPTIONS_MAX + 5):
        scheduler.spawn(job())
    assert 0 < scheduler.do_work() <= PASS_RESUMPTIONS_MAX
    two.settle()
    assert scheduler.is_idle


def test_a_pass_ends_when_its_time_is_over(two: Table) -> None:
    async def job() -> None:
        pass

    scheduler = Scheduler(two.workers[0], pass_time_ns=0)
    for _ in range(100):
        scheduler.spawn(job())
    assert scheduler.do_work() == (8 if IS_COMPILED else 1)  # resumptions between two looks at the clock
    while not scheduler.is_idle:
        scheduler.do_work()
    scheduler.close()


def test_a_pass_lets_half_of_the_coroutines_have_a_turn(two: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partywire.workers.scheduler.PASS_TIME_NS", 0)
    monkeypatch.setattr("partywire.workers.scheduler.PASS_TIME_MAX_NS", 60 * 10**9)

    async def job() -> None:
        pass

    scheduler = Scheduler(two.workers[0])
    for _ in range(160):
        scheduler.spawn(job())
    assert scheduler.do_work() == 80
    assert scheduler.do_work() == 40  # half of those that are left
    while not scheduler.is_idle:
        scheduler.do_work()
    scheduler.close()


def test_hundreds_of_sessions_take_turns(three: Table) -> None:
    made = three.sessions(*range(200))

    async def rounds(session: Session) -> int:
        total = 0
        for value in range(20):
            await session.send_next(Ring32(value))
            total += await session.recv_prev()
        return total

    slots = [three.schedulers[party].spawn(rounds(sessions[party])) for sessions in made for party in range(3)]
    three.settle()
    assert [slot.result for slot in slots] == [190] * 600


# asyncio inside jobs.


async def uses_asyncio(session: Session, value: int) -> int:
    await asyncio.sleep(0.001)
    doubled = await double_next(session, value)
    async with asyncio.timeout(30):
        await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0.001))
    return doubled


def pump(table: Table) -> None:
    """Run every scheduler natively for one turn at a time until all are idle."""
    while not all(scheduler.is_idle for scheduler in table.schedulers):
        for scheduler in table.schedulers:
            turns = iter((False, True))
            scheduler.run(until=lambda turns=turns: next(turns, True))  # type: ignore[misc]
        table.move()


def no_sleep(table: Table) -> None:
    for worker in table.workers:
        worker.sleep = lambda deadline=0.0, worker=worker: worker.flush() and None  # type: ignore[method-assign,misc]


def test_jobs_that_await_asyncio_become_tasks_and_others_stay_native(three: Table) -> None:
    no_sleep(three)
    mixed = three.sessions(0, 1)
    reports = [
        [add(three, party, sessions[party], [(k, function, k + 1)]) for party in range(3)]
        for k, (sessions, function) in enumerate(zip(mixed, (uses_asyncio, double_next), strict=True))
    ]
    pump(three)
    assert not [report.failures for report in reports[0] if report.failures]
    assert [report.results for report in reports[0]] == [{0: 2}] * 3
    assert [report.results for report in reports[1]] == [{1: 4}] * 3


def test_a_promoted_job_that_fails_is_told(two: Table) -> None:
    no_sleep(two)

    async def fails() -> None:
        await asyncio.sleep(0.001)
        raise ValueError("late")

    slot = two.schedulers[0].spawn(fails())
    pump(two)
    assert isinstance(slot.error, ValueError)


def test_a_promoted_job_can_be_cancelled(two: Table) -> None:
    async def hangs() -> None:
        await asyncio.sleep(0)
        await asyncio.Event().wait()

    no_sleep(two)
    scheduler = two.schedulers[0]
    slot = scheduler.spawn(hangs())
    turns = iter((False, False, True))
    scheduler.run(until=lambda: next(turns, True))
    scheduler.cancel("enough")
    pump(two)
    assert isinstance(slot.error, asyncio.CancelledError)


def test_a_scheduler_runs_inside_somebodys_loop(three: Table) -> None:
    made = three.sessions(*range(5))

    async def main() -> list[list[Report]]:
        reports = [
            [add(three, party, sessions[party], [(k, uses_asyncio if k % 2 else double_next, k)]) for party in range(3)]
            for k, sessions in enumerate(made)
        ]
        running = asyncio.gather(*(scheduler.run_async() for scheduler in three.schedulers))
        while not running.done():
            three.move()
            await asyncio.sleep(0)
        await running
        return reports

    for k, reports in enumerate(asyncio.run(main())):
        assert [report.results for report in reports] == [{k: 2 * k}] * 3


# Jobs in lockstep.


def test_jobs_run_in_order_and_become_final_when_all_have_reported(three: Table) -> None:
    [sessions] = three.sessions(0)
    jobs: list[tuple[int, Callable[..., Any], Any]] = [(k, double_next, k) for k in range(10)]
    reports = [add(three, party, sessions[party], jobs) for party in range(3)]
    three.settle()
    for report in reports:
        assert report.results == {k: 2 * k for k in range(10)}
        assert report.final == list(range(10))
        assert not report.failures


def test_a_job_is_not_final_before_every_peer_has_reported(three: Table) -> None:
    async def alone(session: Session, value: int) -> int:
        return value

    [sessions] = three.sessions(0)
    reports = [add(three, party, sessions[party], [(0, alone, 1)]) for party in range(2)]
    three.settle()
    assert [report.results for report in reports] == [{0: 1}] * 2
    assert [report.final for report in reports] == [[], []]
    reports.append(add(three, 2, sessions[2], [(0, alone, 1)]))
    three.settle()
    assert [report.final for report in reports] == [[0]] * 3


def test_synchronous_jobs_use_the_blocking_session(two: Table) -> None:
    def plain(session: BlockingSession, value: int) -> int:
        session.send_next(Ring32(value))
        return int(session.recv_prev()) + 1

    async def partner(session: Session, value: int) -> int:
        return int(await session.exchange(0, Ring32(value)))

    [(ours, theirs)] = two.sessions(0)
    two.serve_blocking(0)
    reports = [
        add(two, 0, ours, [(0, plain, 10), (1, plain, 11)]),
        add(two, 1, theirs, [(0, partner, 20), (1, partner, 21)]),
    ]
    two.settle()
    assert reports[0].results == {0: 21, 1: 22}
    assert reports[1].results == {0: 10, 1: 11}
    assert reports[0].final == [0, 1]


def test_a_failing_job_fails_at_every_party_with_its_cause(three: Table) -> None:
    async def fails(session: Session, value: int) -> int:
        if session.party_index == 1:
            raise ZeroDivisionError("no shares left")
        return await double_next(session, value)

    [sessions] = three.sessions(0)
    reports = [add(three, party, sessions[party], [(4, fails, 1), (5, fails, 2)]) for party in range(3)]
    three.settle()
    assert [(index, type(error)) for index, error in reports[1].failures] == [(4, ZeroDivisionError)]
    for party in (0, 2):
        [(index, error)] = reports[party].failures
        assert index == 4
        assert isinstance(error, PeerAborted)
        assert error.peer == "bob"
        assert "ZeroDivisionError" in error.reason
        assert "no shares left" not in error.reason  # the message of a job's exception may hold its data
        assert not reports[party].final


def test_a_peer_that_fails_after_we_ended_the_job_is_still_told(two: Table) -> None:
    async def ours_ends(session: Session, value: int) -> int:
        return value

    async def theirs_fails(session: Session, value: int) -> int:
        raise RuntimeError("late")

    [(ours, theirs)] = two.sessions(0)
    report = add(two, 0, ours, [(0, ours_ends, 1)])
    two.settle()
    add(two, 1, theirs, [(0, theirs_fails, 1)])
    two.settle()
    [(index, error)] = report.failures
    assert index == 0
    assert isinstance(error, PeerAborted)
    assert not report.final


async def receives_one_more(session: Session, value: int) -> Any:
    return await session.recv(1 - session.party_index)


async def sends_one_more(session: Session, value: int) -> None:
    await session.send(1 - session.party_index, b"surplus")


async def silent(session: Session, value: int) -> None:
    pass


def test_waiting_for_a_message_of_a_job_that_the_peer_has_ended_is_a_desync(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    reports = [add(two, 0, ours, [(0, receives_one_more, 0)]), add(two, 1, theirs, [(0, silent, 0)])]
    two.settle()
    [(index, error)] = reports[0].failures
    assert index == 0
    assert isinstance(error, SessionDesync)
    assert (error.peer, error.job) == ("bob", 0)
    [(_, told)] = reports[1].failures
    assert isinstance(told, PeerAborted)


@pytest.mark.parametrize("receiver_first", [True, False])
def test_a_message_that_the_job_did_not_receive_is_a_desync(two: Table, receiver_first: bool) -> None:
    [(ours, theirs)] = two.sessions(0)
    parties: list[tuple[int, Session, Callable[..., Any]]] = [(0, ours, silent), (1, theirs, sends_one_more)]
    reports: dict[int, Report] = {}
    for party, session, function in parties if receiver_first else reversed(parties):
        reports[party] = add(two, party, session, [(0, function, 0)])
        two.settle()
    [(_, error)] = reports[0].failures
    assert isinstance(error, SessionDesync)
    assert "did not receive" in error.what
    if not receiver_first:  # otherwise both have said that they are done before anybody can know better
        [(_, told)] = reports[1].failures
        assert isinstance(told, PeerAborted)
        assert not reports[1].final


def test_a_surplus_message_is_never_received_by_the_next_job(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    report = add(two, 0, ours, [(0, silent, 0), (1, receives_one_more, 0)])
    two.settle()
    add(two, 1, theirs, [(0, sends_one_more, 0), (1, sends_one_more, 0)])
    two.settle()
    assert 1 not in report.results
    [(_, error)] = report.failures
    assert isinstance(error, SessionDesync)


def test_a_job_may_end_while_the_peer_is_still_in_it(two: Table) -> None:
    """Sending last and ending early is no desync: the peer receives what stands before the marker."""

    async def sender(session: Session, value: int) -> None:
        await session.send(1, b"%d" % value)

    async def receiver(session: Session, value: int) -> Any:
        return await session.recv(0)

    [(ours, theirs)] = two.sessions(0)
    sent = add(two, 0, ours, [(k, sender, k) for k in range(5)])
    two.settle()
    received = add(two, 1, theirs, [(k, receiver, k) for k in range(5)])
    two.settle()
    assert received.results == {k: b"%d" % k for k in range(5)}
    assert sent.final == received.final == list(range(5))


def test_losing_a_peer_fails_the_running_job(three: Table) -> None:
    [sessions] = three.sessions(0)
    reports = [add(three, party, sessions[party], [(0, receives_one_more, 0)]) for party in range(2)]
    three.settle()
    three.cut(0, 1)
    three.settle()
    for report in reports:
        [(_, error)] = report.failures
        assert isinstance(error, PeerLost)


def test_cancel_tells_the_peers_and_closes_the_coroutines(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    reports = [add(two, 0, ours, [(0, receives_one_more, 0)]), add(two, 1, theirs, [(0, receives_one_more, 0)])]
    two.settle()
    two.schedulers[0].cancel("another job failed")
    assert two.schedulers[0].is_idle
    two.settle()
    assert not reports[0].failures
    [(_, error)] = reports[1].failures
    assert isinstance(error, PeerAborted)
    assert error.reason == "another job failed"


# The party around it.


def test_a_dead_worker_of_our_own_ends_the_run(two: Table) -> None:
    no_sleep(two)
    two.workers[0].lost_workers[1] = WorkerDied("alice", 1, "killed by signal 9")
    scheduler = two.schedulers[0]
    [(ours, _)] = two.sessions(0)
    add(two, 0, ours, [(0, receives_one_more, 0)])
    with pytest.raises(WorkerDied, match="worker 1 of party alice died: killed by signal 9"):
        scheduler.run()


def test_a_failed_party_ends_the_run(two: Table) -> None:
    no_sleep(two)
    two.workers[0].fail("its supervisor is gone")
    [scheduler] = two.schedulers[:1]

    async def forever() -> None:
        await asyncio.Event().wait()

    scheduler.spawn(forever())
    with pytest.raises(PartyFailed):
        scheduler.run()


def test_closing_a_scheduler_twice_is_harmless(two: Table) -> None:
    scheduler = Scheduler(two.workers[0])
    scheduler.run()
    scheduler.close()
    scheduler.close()


def test_an_interrupt_waits_until_the_loop_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[asyncio.AbstractEventLoop] = []
    really_new_loop = asyncio.new_event_loop

    def interrupted() -> asyncio.AbstractEventLoop:
        signal.raise_signal(signal.SIGINT)
        made.append(really_new_loop())
        return made[-1]

    monkeypatch.setattr(asyncio, "new_event_loop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        new_loop()
    made[0].close()


def test_an_interrupt_waits_until_the_loop_is_closed(two: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = Scheduler(two.workers[0])
    scheduler.run()
    loop = scheduler._own_loop
    assert loop is not None
    really_close = loop.close

    def interrupted() -> None:
        signal.raise_signal(signal.SIGINT)
        really_close()

    monkeypatch.setattr(loop, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        scheduler.close()
    assert loop.is_closed()
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    scheduler.close()
