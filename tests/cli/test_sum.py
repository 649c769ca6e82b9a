"""`partywire run sum` as a user runs it: other numbers of parties than three."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from partywire.workers.cli import run
from partywire.workers.config import PartyConfig, write_config
from partywire.workers.local import NAMES

from .command import command, commands, free_addresses

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_five_local_parties_add_their_vectors() -> None:
    outcome = command("run", "sum", "--local", "5", "--length", "10", "--json")
    assert outcome.code == 0, outcome.err
    document = outcome.document
    assert document["parties"] == list(NAMES[:5])
    assert document["checked"] is True
    assert document["result"]["parties"] == 5
    assert len(document["result"]["sum"]) == 10


def test_two_commands_with_files_of_their_own_learn_the_sum(tmp_path: Path) -> None:
    addresses = dict(zip(NAMES[:2], free_addresses(2), strict=True))
    arguments = []
    for index, name in enumerate(addresses):
        config, values = tmp_path / f"{name}.toml", tmp_path / f"{name}.npy"
        config.write_text(write_config(PartyConfig(name=name, parties=addresses)))
        np.save(values, np.array([index + 1, -10 * index, 10**18]))
        arguments.append(["run", "sum", "--config", str(config), "--values", str(values), "--json"])
    for outcome in commands(arguments):
        assert outcome.code == 0, outcome.err
        assert outcome.document["result"] == {"sum": [3, -10, 2 * 10**18], "length": 3, "parties": 2}
        assert outcome.document["checked"] is None


def test_a_job_for_three_says_so_and_sum_says_its_range(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "digits", "--local", "2"]) == 2
    assert "digits is a job for 3 parties, not 2" in capsys.readouterr().err
    assert run(["run", "sum", "--help"]) == 0
    assert "For 2 to 9 parties." in capsys.readouterr().out
