"""The soak for a moment: it notices a wrong result and cleans up. (make soak disturbs, and takes minutes.)"""

from __future__ import annotations

import pytest

from tests.soak import __main__ as soak_module
from tests.soak.__main__ import Soak
from tests.soak.growth import FIGURES_MIN, GROWTH_DESCRIPTORS_MAX, GROWTH_KIB_MAX, growth
from tests.soak.jobs import Task, expected, tasks_of
from tests.soak.member import SoakFailed
from tests.support.processes import wait_until_gone


def test_tasks_are_equal_at_all_parties_and_results_differ() -> None:
    assert tasks_of(1, 2) == tasks_of(1, 2) != tasks_of(1, 3)
    assert len({expected(Task(5, 3, 1000), party) for party in range(3)}) == 3


def test_what_grows_in_the_second_half_of_its_life_is_not_flat() -> None:
    count = 4 * FIGURES_MIN
    start = [(50_000 - number, 20) for number in range(count // 2)]  # whatever happens in the first half
    assert growth([(1, 1)] * (FIGURES_MIN - 1)) is None
    for kib, descriptors in ((GROWTH_KIB_MAX, 0), (0, GROWTH_DESCRIPTORS_MAX), (-5, -5)):
        level = [(50_000, 20)] * FIGURES_MIN + [(50_000 + kib, 20 + descriptors)] * FIGURES_MIN
        grown = growth(start + level)
        assert grown == (kib, descriptors)
        assert grown.is_flat
    for kib, descriptors in ((GROWTH_KIB_MAX + 1, 0), (0, GROWTH_DESCRIPTORS_MAX + 1)):
        level = [(50_000, 20)] * FIGURES_MIN + [(50_000 + kib, 20 + descriptors)] * FIGURES_MIN
        grown = growth(start + level)
        assert grown is not None
        assert not grown.is_flat
    drifting = [(50_000 + 2 * GROWTH_KIB_MAX * number // FIGURES_MIN, 20) for number in range(count)]
    assert not growth(drifting).is_flat  # type: ignore[union-attr]


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
