"""Batches over three real parties that run again what did not become final: time-outs, killed processes, mistakes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.workers.test_batch import rotated, run_parties

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_time_outs_run_again_in_order_up_to_the_limit_and_mistakes_do_not() -> None:
    for index, (late, in_vain, mistaken, differ, next_batch) in enumerate(run_parties("retry", (2, 1, 2))):
        assert late["values"] == rotated(30)[index]
        assert 1 <= late["retries"] <= 2
        assert late["done"] == 30
        assert "gave up after 0.05 s" in in_vain["error"]
        assert "attempt 3" in in_vain["error"]
        assert len(in_vain["history"]) == 2
        assert "job 3 failed at bob" in mistaken["error"]
        assert mistaken["history"] == []
        assert "retries" in differ
        assert next_batch == rotated(5)[index], "the next batch begins in step"


def test_what_is_killed_is_replaced_and_the_batch_ends_with_all_results_unless_it_is_a_whole_party(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PARTYWIRE_TEST_DIR", str(tmp_path))
    answers = run_parties("kill", (2, 1, 1))
    assert all(isinstance(answer, list) for answer in answers), answers
    for index, (names, worker_killed, io_process_killed, party_killed) in enumerate(answers):
        assert names == ["alice", "bob", "charlie"], "a session that was lost with a link was reset"
        for said in (worker_killed, io_process_killed):
            assert said["values"] == rotated(30)[index]
            assert 1 <= said["retries"] <= 2
        if index == 1:
            assert worker_killed["epochs"]["charlie"] == io_process_killed["epochs"]["charlie"] == 1, "not involved"
        if index == 2:
            assert worker_killed["epochs"]["alice"] == io_process_killed["epochs"]["alice"], "bob's broke"
        assert "alice" in party_killed["error"]
        assert re.search("party alice failed" if index == 0 else "lost alice|alice was lost", party_killed["error"])
