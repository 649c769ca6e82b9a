"""The soak for a moment: it notices a wrong result and cleans up. (make soak disturbs, and takes minutes.)"""

from __future__ import annotations

import pytest

from tests.soak import __main__ as soak_module
from tests.soak.__main__ import Soak, SoakFailed
from tests.soak.jobs import Task, expected, tasks_of
from tests.support.processes import wait_until_gone


def test_tasks_are_equal_at_all_parties_and_results_differ() -> None:
    assert tasks_of(1, 2) == tasks_of(1, 2) != tasks_of(1, 3)
    assert len({expected(Task(5, 3, 1000), party) for party in range(3)}) == 3


def test_a_soak_ends_with_a_wrong_result_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    soak = Soak(seed=1, workers=1, calm=True)
    try:
        soak.begin()
        monkeypatch.setattr(soak_module, "tasks_of", lambda seed, batch: tasks_of(seed, batch)[:-1])
        with pytest.raises(SoakFailed, match="wrong results at alice"):
            soak.batch()
        assert [what for member in soak.members for what in member.victims().values()].count("I/O process") == 6
    finally:
        family = soak.end()
    wait_until_gone(family)
