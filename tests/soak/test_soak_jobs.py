"""The soak itself for a moment, undisturbed and disturbed: it passes, and it notices a wrong result."""

from __future__ import annotations

import pytest

from tests.faults.figures import wait_until_gone
from tests.soak import __main__ as soak_module
from tests.soak.__main__ import Soak, SoakFailed
from tests.soak.jobs import Task, expected, tasks_of


def test_tasks_are_equal_at_all_parties_and_results_differ() -> None:
    assert tasks_of(1, 2) == tasks_of(1, 2) != tasks_of(1, 3)
    assert len({expected(Task(5, 3, 1000), party) for party in range(3)}) == 3


def test_a_soak_checks_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak_module, "CALM_S", (0.3, 0.5))
    soak = Soak(seed=4, workers=1, calm=False)
    try:
        soak.begin()
        while sum(soak.disturbances.values()) < 2:
            soak.batch()
        monkeypatch.setattr(soak_module, "expected", lambda task, party: -1)
        with pytest.raises(SoakFailed, match="wrong results at alice"):
            soak.batch()
    finally:
        family = soak.end()
    wait_until_gone(family)
    assert len(soak.growth()) == 6
