"""Executors of three real parties, each a process family of its own, and the agreement on what they run."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from partywire.engine.errors import LinkProtocolError
from partywire.workers.adapters.executor_offer import NAME_LENGTH_MAX, OFFER_MAX, JobMismatch, Offer, agree
from partywire.workers.local import make_local_parties

PROGRAM = Path(__file__).with_name("executor_program.py")
DEADLINE_S = 100.0
NAMES = ("alice", "bob", "charlie")


@pytest.fixture(scope="module")
def seen() -> dict[str, dict[str, Any]]:
    """Party -> scenario -> what it saw."""
    processes = []
    with make_local_parties(3) as parties:
        for config, listener in zip(parties.configs, parties.listeners, strict=True):
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
                pickle.dump((dataclasses.replace(config, connect_s=60), listener.fileno()), pipe)
            processes.append(process)
    try:
        said = [process.communicate(timeout=DEADLINE_S) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    for out, err in said:
        assert out, err
    return dict(zip(NAMES, (json.loads(out) for out, _ in said), strict=True))


def test_results_are_in_order_whatever_kind_of_function_they_are_of(seen: dict[str, dict[str, Any]]) -> None:
    for party in NAMES:
        mapped, mixed, named = seen[party]["results"]
        assert mapped == [3 * k for k in range(200)]
        assert mixed == [["value", 3 * k] for k in range(6) for _ in range(2)]
        assert named == ["value", 0 + 1 + 2 + 100]


def test_a_job_that_fails_fails_alone_and_at_every_party(seen: dict[str, dict[str, Any]]) -> None:
    for party in NAMES:
        outcomes = seen[party]["failures"]
        values = [outcome[1] for outcome in outcomes if outcome[0] == "value"]
        assert values == [3 * k for k in range(10) if k not in (3, 7)]
        for number, where in ((3, "bob"), (7, "charlie")):
            kind, sentence, cause = outcomes[number]
            assert kind == "JobFailed"
            assert sentence.startswith(f"job {number} failed at {where}: ValueError")
            assert ("the input was 13" in sentence) == (party == where)
            assert cause == ("ValueError" if party == where else cause)


def test_a_job_can_be_cancelled_until_the_parties_agree_on_it(seen: dict[str, dict[str, Any]]) -> None:
    for party in NAMES:
        (of_first, of_second), first, second, third = seen[party]["cancellation"]
        assert of_first is False
        assert of_second is (True if party == "alice" else None)
        assert first == ["value", 3]
        assert second[0] == "CancelledError"
        assert party == "alice" or second[1] == "alice has cancelled the job"
        assert third == ["value", 9]


def test_submit_waits_for_room_and_a_callback_is_refused(seen: dict[str, dict[str, Any]]) -> None:
    for party in NAMES:
        was_done, second, refused = seen[party]["room"]
        assert was_done
        assert len(refused) == 1
        assert refused[0].startswith("1 jobs are pending, and a callback of a future cannot wait")
        assert second == ["value", 6]


def test_an_exception_in_the_block_cancels_what_has_not_begun(seen: dict[str, dict[str, Any]]) -> None:
    for party in NAMES:
        assert seen[party]["abandoned"] == [["value", 3], True]


def test_different_jobs_are_refused_everywhere_and_the_party_goes_on(seen: dict[str, dict[str, Any]]) -> None:
    for party in NAMES:
        first, second, after = seen[party]["mismatch"]
        ours, theirs, peer = ("other", "gated", "alice") if party == "bob" else ("gated", "other", "bob")
        assert second[:2] == [
            "JobMismatch",
            f"job 1 of the executor is {theirs} at {peer} but {ours} here. All parties must submit the same jobs in "
            "the same order",
        ]
        assert first in (["value", 3], second)  # it may have been offered alone
        assert after == ["BrokenExecutor", f"no further job can run: {second[1]}"]


def test_a_party_that_ends_earlier_is_named(seen: dict[str, dict[str, Any]]) -> None:
    refused = ["RuntimeError", "cannot schedule new futures after shutdown"]
    assert seen["bob"]["early_end"] == [["value", 0], refused]
    for party in ("alice", "charlie"):
        first, second, after = seen[party]["early_end"]
        assert first == ["value", 0]
        assert second[0] == "SetupAborted"
        assert "bob has shut its executor down after 1 jobs" in second[1]
        assert after[0] == "BrokenExecutor"


# The agreement, without processes.


def offers(alice: Offer, bob: Offer) -> dict[str, Offer]:
    return {"alice": alice, "bob": bob}


def test_what_all_have_at_hand_runs_without_what_somebody_cancelled() -> None:
    said = offers(Offer(5, ("f", "g", "f"), frozenset({1, 2})), Offer(5, ("f", "g"), frozenset({0})))
    for us in said:
        agreement = agree(us, said)
        assert agreement.count == 2
        assert agreement.cancelled == {0: "bob", 1: "alice"}


def test_a_job_that_only_one_party_has_is_not_compared() -> None:
    assert agree("alice", offers(Offer(0, ("f", "g")), Offer(0, ("f",)))).count == 1


@pytest.mark.parametrize("us", ["alice", "bob"])
def test_another_job_or_another_number_is_a_mismatch(us: str) -> None:
    with pytest.raises(JobMismatch, match="job 8 of the executor is"):
        agree(us, offers(Offer(7, ("f", "g")), Offer(7, ("f", "h"))))
    with pytest.raises(JobMismatch, match="not next"):
        agree(us, offers(Offer(7, ("f",)), Offer(8, ("f",))))


def test_an_offer_survives_its_fields() -> None:
    offer = Offer(3, ("f", "g" * NAME_LENGTH_MAX), frozenset({1}))
    assert Offer.from_fields_untrusted(offer.fields(), "bob") == offer


@pytest.mark.parametrize(
    "change",
    [
        {"first": "3"},
        {"names": []},
        {"names": ["f"] * (OFFER_MAX + 1)},
        {"names": ["f" * (NAME_LENGTH_MAX + 1)]},
        {"names": [None]},
        {"cancelled": [1]},
        {"cancelled": [-1]},
        {"cancelled": [True]},
        {"cancelled": None},
    ],
)
def test_an_offer_out_of_its_bounds_is_the_peers_fault(change: dict[str, object]) -> None:
    with pytest.raises(LinkProtocolError, match="bob"):
        Offer.from_fields_untrusted({"first": 3, "names": ["f"], "cancelled": [], **change}, "bob")
