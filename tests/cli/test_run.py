"""`partywire run`: what it computes, what it prints, and how it ends when all is well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .command import NAMES, command, commands, write_configs

if TYPE_CHECKING:
    from pathlib import Path


def test_digits_among_three_local_parties_equal_the_plaintext_answer() -> None:
    outcome = command("run", "digits", "--local", "3", "--probes", "6", "--json")
    assert outcome.code == 0, outcome.err
    document = outcome.document
    assert document["checked"] is True
    assert document["parties"] == list(NAMES)
    assert document["result"]["labels"] == [1, 7, 4, 6, 3, 1]
    assert document["seconds"]["ready"] > document["seconds"]["connected"] > 0
    assert document["rounds"] > 0
    assert document["bytes_sent"] > 100_000


def test_a_local_run_is_the_default_and_prints_a_table() -> None:
    outcome = command("run", "digits", "--probes", "3", "--workers", "2")
    assert outcome.code == 0, outcome.err
    assert "equal to the plaintext answer" in outcome.out
    assert "rounds/s" in outcome.out
    assert "plaintext links" in outcome.out


def test_own_images_are_matched_and_checked_by_the_launcher(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    gallery = random.integers(0, 200, (20, 9), dtype=np.int64)
    np.save(tmp_path / "gallery.npy", gallery)
    np.save(tmp_path / "labels.npy", np.arange(20) % 10)
    np.save(tmp_path / "probes.npy", gallery[[3, 12]] + 1)
    files = ["--gallery", "gallery.npy", "--labels", "labels.npy", "--probe-images", "probes.npy"]
    outcome = command("run", "digits", *files, "--json", cwd=tmp_path)
    assert outcome.code == 0, outcome.err
    assert outcome.document["result"]["labels"] == [3, 2]
    assert outcome.document["checked"] is True


def test_three_commands_with_their_own_configurations_compute_together(tmp_path: Path) -> None:
    paths = write_configs(tmp_path)
    outcomes = commands([["run", "digits", "--config", path, "--probes", "3", "--json"] for path in paths])
    for name, outcome in zip(NAMES, outcomes, strict=True):
        assert outcome.code == 0, outcome.err
        assert outcome.document["parties"] == [name]
        assert outcome.document["result"]["labels"] == [1, 7, 4]


def test_parties_may_have_different_numbers_of_workers(tmp_path: Path) -> None:
    paths = write_configs(tmp_path)
    workers = [[], ["--workers", "2"], ["--workers", "1"]]
    outcomes = commands(
        [["run", "sample_jobs:GoodJob", "--config", path, *more] for path, more in zip(paths, workers, strict=True)]
    )
    assert [outcome.code for outcome in outcomes] == [0, 0, 0], [outcome.err for outcome in outcomes]


def test_a_job_of_ones_own_runs_from_the_current_folder_with_its_own_number_of_parties() -> None:
    outcome = command("run", "sample_jobs:PairJob", "--offset", "7", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.document["parties"] == ["alice", "bob"]
    assert outcome.document["result"] == {"values": [0, 1, 2, 3, 4, 5]}
    assert outcome.document["checked"] is True
    assert outcome.document["jobs"] == 6


def test_what_a_job_prints_goes_to_stderr_with_the_name_of_its_party() -> None:
    outcome = command("run", "sample_jobs:TalkingJob", "--json")
    assert outcome.code == 0
    assert outcome.document["checked"] is None
    for index, name in enumerate(NAMES):
        assert f"{name} | party {index} says hello" in outcome.err
        assert f"{name} | and complains" in outcome.err
