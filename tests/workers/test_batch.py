"""Batches over three real parties, each a process family of its own: results, failures, and deaths."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from partywire.workers.batch import BatchRunner
from partywire.workers.job_function import job_name
from partywire.workers.local import make_local_parties

PROGRAM = Path(__file__).with_name("batch_program.py")
DEADLINE_S = 90.0

BOBS_WORDS = "job 3 failed at bob: ValueError: bob cannot do three"
WHAT_PEERS_HEAR = "job 3 failed at bob: ValueError (its message stays at that party)"


UNGUARDED = """
import pickle, socket, sys
from partywire import BatchRunner, BlockingParty

def job(session, x):
    return x

config, listener_fd = pickle.load(open(sys.argv[1], "rb"))
with socket.socket(fileno=listener_fd) as listener, BlockingParty(config, listener) as party:
    BatchRunner(party).map(job, range(20))
"""


PLAYED_TOGETHER = {
    (1, 1, 1): ("rotate", "asyncio", "fail", "jobs_differ"),
    (2, 1, 1): (
        "progress", "asyncio", "partial", "nothing", "points", "big", "fail", "jobs_differ", "counts_differ",
        "bad_result",
    ),
}  # fmt: skip
"""By the numbers of workers: scenarios after which the next batch works, so that one set of parties plays them all."""


@cache
def played_together(workers: tuple[int, int, int]) -> dict[str, list[Any]]:
    """Scenario -> the outcome of each party."""
    names = PLAYED_TOGETHER[workers]
    outcomes = run_parties(" ".join(names), workers)
    assert all(isinstance(outcome, list) for outcome in outcomes), outcomes
    return {name: [outcome[k] for outcome in outcomes] for k, name in enumerate(names)}


def outcomes_of(scenario: str, workers: tuple[int, int, int] = (2, 1, 1)) -> list[Any]:
    """Like `run_parties`, for one of those that are played together."""
    return played_together(workers)[scenario]


def run_parties(
    scenario: str, workers: tuple[int, int, int] = (1, 1, 1), sessions: tuple[int, ...] = (4,)
) -> list[Any]:
    """The outcome of each party, in index order; of several scenarios with spaces in between, a list of outcomes."""
    processes = []
    with make_local_parties(3) as parties:
        for index, (config, listener) in enumerate(zip(parties.configs, parties.listeners, strict=True)):
            config = dataclasses.replace(config, workers=workers[index], connect_s=60)
            order_read, order_write = os.pipe()
            process = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(order_read)],
                pass_fds=[order_read, listener.fileno()],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            os.close(order_read)
            with os.fdopen(order_write, "wb") as pipe:
                order = (scenario, config, listener.fileno(), sessions[index % len(sessions)])
                pickle.dump(order, pipe)
            processes.append(process)
    outcomes = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=DEADLINE_S)
            assert out, err
            outcomes.append(json.loads(out.splitlines()[-1]))
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return [outcome.get("value", outcome) for outcome in outcomes]


def rotated(count: int) -> list[list[int]]:
    """What each party gets when all have sent 1000 * index + k to the next."""
    return [[1000 * ((index - 1) % 3) + k for k in range(count)] for index in range(3)]


@pytest.mark.parametrize("workers", [(1, 1, 1), (2, 2, 2), (1, 2, 4)])
def test_results_are_in_the_order_of_the_inputs_for_coroutines_and_plain_functions(
    workers: tuple[int, int, int],
) -> None:
    play = outcomes_of if workers in PLAYED_TOGETHER else run_parties
    assert play("rotate", workers) == [[expected, expected] for expected in rotated(30)]


@pytest.mark.parametrize("workers", PLAYED_TOGETHER)
def test_a_job_may_await_asyncio(workers: tuple[int, int, int]) -> None:
    assert outcomes_of("asyncio", workers) == rotated(30)


def test_a_job_may_have_bound_arguments() -> None:
    assert outcomes_of("partial") == [[7 + value for value in expected] for expected in rotated(5)]


def test_a_batch_of_nothing_is_empty_everywhere() -> None:
    assert outcomes_of("nothing") == [[[], expected] for expected in rotated(1)]


def test_classes_of_the_script_travel_to_child_workers_and_back() -> None:
    assert outcomes_of("points") == rotated(6)


def test_inputs_and_results_larger_than_a_socket_buffer_travel_to_child_workers_and_back() -> None:
    assert outcomes_of("big") == [[3_000_001] * 4] * 3


def test_an_asynchronous_party_runs_batches_beside_other_tasks() -> None:
    plain = rotated(10)
    assert run_parties("async", (1, 2, 1)) == [
        [expected, plain[index], BOBS_WORDS if index == 1 else WHAT_PEERS_HEAR, "ran beside"]
        for index, expected in enumerate(rotated(30))
    ]


@pytest.mark.parametrize("workers", PLAYED_TOGETHER)
def test_the_first_failure_is_raised_at_every_party_and_the_next_batch_works(workers: tuple[int, int, int]) -> None:
    for index, (awaited, plain, common, values) in enumerate(outcomes_of("fail", workers)):
        for said in (awaited, plain):
            assert said["error"] == "JobFailed"
            assert said["says"] == (BOBS_WORDS if index == 1 else WHAT_PEERS_HEAR)
            assert said["cause"] == ("ValueError" if index == 1 else "PeerAborted")
        assert common["error"] == "JobFailed"
        assert "ValueError" in common["says"]
        assert values == rotated(30)[index]


def test_all_parties_name_the_same_failure_when_several_fail_at_once() -> None:
    said = [common["says"] for _, _, common, _ in outcomes_of("fail", (1, 1, 1))]
    assert len({sentence.split(": ")[0] for sentence in said}) == 1
    # Whoever begins only tells the type: a message may quote the data that the job computes on.
    assert sum("nobody can do" in sentence for sentence in said) == 1


@pytest.mark.parametrize("workers", PLAYED_TOGETHER)
def test_another_job_at_another_party_is_an_error_at_every_party(workers: tuple[int, int, int]) -> None:
    for index, (said, values) in enumerate(outcomes_of("jobs_differ", workers)):
        assert said["error"] == "SetupMismatch"
        assert "'rotate'" in said["says"]
        assert "'rotate_plainly'" in said["says"]
        assert values == rotated(5)[index]


def test_another_number_of_inputs_at_another_party_is_an_error_at_every_party() -> None:
    for index, (said, values) in enumerate(outcomes_of("counts_differ")):
        assert said["error"] == "SetupMismatch"
        assert "number of inputs" in said["says"]
        assert values == rotated(5)[index]


def test_another_number_of_sessions_at_another_party_is_an_error_at_every_party() -> None:
    for said in run_parties("rotate", sessions=(4, 8, 4)):
        assert said["raised"] == "SetupMismatch"
        assert "number of sessions" in said["says"]


def test_a_message_too_many_is_an_error_at_every_party() -> None:
    for said in run_parties("desync"):
        assert said["error"] == "JobFailed"


def test_the_death_of_a_child_worker_is_an_error_at_every_party() -> None:
    alice, *others = run_parties("die", (2, 1, 1))
    assert alice["error"] == "WorkerDied"
    assert "SIGKILL" in alice["says"]
    for said in others:
        assert said["error"] == "JobFailed"
        assert "alice" in said["says"]


def test_a_result_that_cannot_leave_a_child_worker_is_an_error_at_every_party() -> None:
    said = outcomes_of("bad_result")
    assert [one["error"] for one in said] == ["JobFailed"] * 3
    assert "cannot be sent to the opener" in said[0]["says"]


def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    with make_local_parties(2) as parties:
        orders = [(dataclasses.replace(config, workers=2), listener.fileno()) for config, listener in
                  zip(parties.configs, parties.listeners, strict=True)]  # fmt: skip
        processes = []
        for index, (config, listener_fd) in enumerate(orders):
            order = tmp_path / f"order{index}"
            order.write_bytes(pickle.dumps((config, listener_fd)))
            command = [sys.executable, str(script), str(order)]
            processes.append(
                subprocess.Popen(command, pass_fds=[listener_fd], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            )
        outputs = [process.communicate(timeout=DEADLINE_S)[0] for process in processes]
    assert [process.returncode for process in processes] == [1, 1]
    assert any(b"__name__ == '__main__'" in output for output in outputs)


def test_a_job_that_child_workers_cannot_import_is_refused_before_the_peers_are_asked() -> None:
    alice, *others = run_parties("lambda", (2, 1, 1))
    assert alice["error"] == "TypeError"
    assert "top level" in alice["says"]
    gone = ("PeerClosed", "SetupAborted", "PeerLost", "ConnectFailed")  # the last if they still waited for each other
    assert all(said.get("error", said.get("raised")) in gone for said in others)


def test_an_interrupted_party_tells_the_others() -> None:
    alice, *others = run_parties("interrupt")
    assert alice["error"] == "KeyboardInterrupt"
    for said in others:
        assert said["error"] == "JobFailed"
        assert "alice" in said["says"]


def test_progress_begins_with_ready_sessions_and_ends_with_every_job() -> None:
    for said in outcomes_of("progress"):
        assert said[0][:2] == [0, 30]
        assert said[-1][:2] == [30, 30]
        assert all(sessions == 8 for _, _, sessions, _ in said)
        done = [row[0] for row in said]
        assert done == sorted(done)
        assert said[-1][3] >= 30 * 8


def test_the_name_of_a_job_is_that_of_its_function_whatever_is_bound_to_it() -> None:

    class Callable:
        def __call__(self, session: object, x: object) -> None: ...

    assert job_name(partial(partial(rotated, 1), 2)) == "rotated"
    assert job_name(Callable()).endswith("Callable")


@pytest.mark.parametrize("sessions", [0, -1, True, "8"])
def test_a_number_of_sessions_that_makes_no_sense_is_refused(sessions: Any) -> None:
    with pytest.raises(ValueError, match="sessions"):
        BatchRunner(None, sessions)  # type: ignore[arg-type]
