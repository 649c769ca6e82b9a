"""So many a second and no more, however the questions are spread."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from partywire.engine.allowance import Allowance


def test_all_of_a_second_may_be_used_at_once_and_comes_back_evenly() -> None:
    allowance = Allowance(10)
    assert [allowance.take(5.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert not allowance.take(5.09)
    assert allowance.take(5.11)
    assert [allowance.take(1000.0) for _ in range(11)] == [True] * 10 + [False]  # what was not used is lost


@given(st.lists(st.floats(0, 0.2), max_size=300), st.integers(1, 20))
def test_no_span_of_time_has_more_than_its_part(pauses: list[float], per_s: int) -> None:
    allowance = Allowance(per_s)
    now, taken = 0.0, []
    for pause in pauses:
        now += pause
        if allowance.take(now):
            taken.append(now)
    for index, first in enumerate(taken):
        for count, last in enumerate(taken[index:], 1):
            assert count <= (last - first + 1) * per_s + 1e-6
