"""Batches over three real parties that run again what did not become final: time-outs, killed processes, mistakes."""

from __future__ import annotations

import pytest

from tests.workers.test_batch import rotated, run_parties


@pytest.mark.parametrize("workers", [(1, 1, 1), (2, 1, 2)])
def test_what_came_too_late_runs_again_and_results_stay_in_order(workers: tuple[int, int, int]) -> None:
    for index, (said, next_batch) in enumerate(run_parties("retry", workers)):
        assert said["values"] == rotated(30)[index]
        assert 1 <= said["retries"] <= 2
        assert said["done"] == 30
        assert next_batch == rotated(5)[index]


def test_after_the_last_attempt_all_raise_the_failure_with_what_failed_before() -> None:
    for index, (said, next_batch) in enumerate(run_parties("retry_in_vain", (1, 2, 1))):
        assert "gave up after 0.05 s" in said["error"]
        assert "attempt 3" in said["error"]
        assert len(said["history"]) == 2
        assert next_batch == rotated(5)[index], "the next batch begins in step"


def test_a_mistake_of_a_job_is_not_run_again() -> None:
    for said in run_parties("retry_own_mistake"):
        assert said["history"] == []
        assert "job 3 failed at bob" in said["error"]


def test_another_number_of_retries_at_another_party_is_an_error_at_every_party() -> None:
    assert all("retries" in said for said in run_parties("retries_differ"))
