"""What a person is shown during a run, from events and a clock that the test holds."""

from __future__ import annotations

import dataclasses
import io

import pytest

from partywire.workers import progress
from partywire.workers.errors import ConnectFailed, JobFailed, PeerAborted, PeerLost
from partywire.workers.exit_code import ExitCode, UsageMistake, code_of, failure, sentence_of
from partywire.workers.launcher import primary_failure
from partywire.workers.progress import ProgressDisplay, Rates, RunState, scaled
from partywire.workers.run_event import (
    Connected,
    Failed,
    Finished,
    Progressed,
    RunEvent,
    Waiting,
    decode_event,
    encode_event,
)
from partywire.workers.run_report import report_document, table_rows

PARTIES = ("alice", "bob")


def progressed(party: str, done: int, clock_s: float = 12.0, sessions: int = 8) -> Progressed:
    return Progressed(party, clock_s, done, 10, sessions, rounds=3 * done, bytes_sent=100 * done, bytes_received=90)


def finished(party: str, clock_s: float, value: int = 1, checked: bool | None = True) -> Finished:
    return Finished(party, clock_s, {"value": value}, checked, [["value", str(value)]])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Stands in for time.monotonic."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.mark.parametrize(
    "event",
    [
        Waiting("alice", "bob", "connection refused"),
        Connected("alice", 1.5),
        progressed("alice", 3),
        finished("alice", 2.0),
        Failed("alice", 3, "a sentence", "PeerLost", "bob", "a trace\nof lines"),
    ],
)
def test_an_event_survives_the_pipe(event: RunEvent) -> None:
    line = encode_event(event)
    assert line.count(b"\n") == 1
    assert decode_event(line) == event


def test_the_state_of_a_run_follows_its_events() -> None:
    state = RunState("job", PARTIES, began_s=10.0)
    assert state.activity() == "starting alice, bob"
    state.apply(Waiting("alice", "bob", "refused"))
    assert state.activity() == "connecting: alice waits for bob (refused)"
    for party in PARTIES:
        state.apply(Connected(party, 11.0))
    assert state.activity() == "making sessions"
    assert state.connect_s == 1.0
    state.apply(progressed("alice", 0, 11.5))
    assert [state.connect_s, state.ready_s] == [1.0, None]
    state.apply(progressed("bob", 0, 12.0))
    assert state.ready_s == 2.0
    state.apply(progressed("alice", 7))
    state.apply(progressed("bob", 5))
    assert (state.jobs_done, state.jobs_total, state.rounds, state.bytes_sent) == (5, 10, 21, 1200)
    assert [state.ready_s, state.run_s] == [2.0, None]
    state.apply(finished("alice", 14.0))
    state.apply(finished("bob", 15.0))
    assert state.run_s == 3.0


def test_rates_are_those_of_the_last_seconds() -> None:
    rates = Rates()
    assert rates.update(0.0, 0, 0) == (0, 0)
    rates.update(10.0, 10, 1000)
    assert rates.update(12.0, 30, 5000) == (10, 2000)
    assert rates.update(14.0, 50, 9000) == (10, 2000)


def test_numbers_have_three_digits_and_a_prefix() -> None:
    assert [scaled(value) for value in (0, 5, 1234, 56_789, 1.5e6, 2e9)] == [
        "0 ", "5 ", "1.23 k", "56.8 k", "1.5 M", "2 G",
    ]  # fmt: skip


def test_nothing_is_shown_of_a_short_run(clock: Clock) -> None:
    stream = io.StringIO()
    display = ProgressDisplay(RunState("job", PARTIES, 0), stream)
    clock.now += 1.9
    display.update()
    display.close()
    assert stream.getvalue() == ""


def test_a_log_gets_a_line_every_few_seconds(clock: Clock) -> None:
    stream = io.StringIO()
    state = RunState("job", PARTIES, 0)
    display = ProgressDisplay(state, stream)
    clock.now += 2.5
    display.update()
    state.apply(progressed("alice", 4))
    clock.now += 1
    display.update()
    clock.now += 5
    display.update()
    assert stream.getvalue().splitlines()[0] == "partywire: job: starting alice, bob"
    assert stream.getvalue().splitlines()[1].startswith("partywire: job: 4 of 10 jobs")
    assert len(stream.getvalue().splitlines()) == 2


def test_a_terminal_gets_a_bar_that_is_removed(clock: Clock) -> None:
    stream = Terminal()
    state = RunState("job", PARTIES, 0)
    state.apply(progressed("alice", 4))
    display = ProgressDisplay(state, stream)
    clock.now += 3
    display.update()
    assert "4 of 10 jobs" in stream.getvalue()
    assert "rounds/s" in stream.getvalue()
    display.print("alice | [hello]")
    assert "alice | [hello]" in stream.getvalue()
    display.close()
    display.close()
    shown = len(stream.getvalue())
    display.update()
    assert len(stream.getvalue()) == shown


def test_a_quiet_display_prints_only_what_jobs_say(clock: Clock) -> None:
    stream = Terminal()
    display = ProgressDisplay(RunState("job", PARTIES, 0), stream, quiet=True)
    clock.now += 60
    display.update()
    display.print("alice | hello")
    assert stream.getvalue() == "alice | hello\n"


def test_the_report_says_how_fast_it_went_and_whose_result_differs() -> None:
    state = RunState("job", PARTIES, 10.0)
    for party in PARTIES:
        state.apply(progressed(party, 10, 11.0))
    ends = [finished("alice", 13.0), finished("bob", 13.0, value=2)]
    for end in ends:
        state.apply(end)
    document = report_document(state, ends, True)
    assert document["rounds_per_second"] == 15
    assert document["results"] == {"alice": {"value": 1}, "bob": {"value": 2}}
    rows = dict(table_rows(document, ends))
    assert rows["alice: value"] == "1"
    assert rows["bob: value"] == "2"
    assert rows["result"] == "equal to the plaintext answer"
    assert document["retries"] == 0
    assert "retries" not in rows


def test_the_report_says_how_often_jobs_ran_again() -> None:
    state = RunState("job", PARTIES, 10.0)
    state.apply(dataclasses.replace(progressed("alice", 4), retries=2))
    document = report_document(state, [finished("alice", 13.0)], None)
    assert document["retries"] == 2
    assert dict(table_rows(document, [finished("alice", 13.0)]))["retries"] == "what had failed ran again, 2 times"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (UsageMistake("no"), ExitCode.USAGE),
        (ConnectFailed("alice", (("bob", "refused"),), 3.0), ExitCode.PEERS),
        (PeerLost("bob", 1, 1, "reset"), ExitCode.PEERS),
        (JobFailed(1, "bob", "ValueError: no"), ExitCode.JOB),
        (ValueError("no"), ExitCode.JOB),
    ],
)
def test_every_error_has_a_code_and_a_sentence(error: BaseException, code: ExitCode) -> None:
    assert code_of(error) == code
    assert "\n" not in sentence_of(error)
    assert failure("alice", error).exit_code == code


def test_a_job_that_failed_because_a_peer_is_gone_is_the_peers_fault() -> None:
    error = JobFailed(1, "alice", "lost", is_loss=True)
    error.__cause__ = PeerLost("bob", 1, 1, "reset")
    assert code_of(error) == ExitCode.PEERS
    assert failure("alice", error).peer == "bob"


def test_the_failure_shown_is_the_one_that_is_its_own_cause() -> None:
    told = JobFailed(2, "bob", "ValueError: no")
    told.__cause__ = PeerAborted("bob", 5, "ValueError: no")
    consequence = failure("alice", told)
    origin = failure("bob", JobFailed(2, "bob", "ValueError: no"))
    interrupted = failure("charlie", KeyboardInterrupt())
    lost = failure("dave", PeerLost("bob", 1, 1, "reset"))
    assert primary_failure([interrupted, lost, consequence, origin]) is origin
    assert primary_failure([interrupted, lost]) is lost
    assert primary_failure([finished("alice", 1.0)]) is None
