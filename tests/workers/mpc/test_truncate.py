"""Division by powers of two: the exact floor, and rounding by chance that is never wrong by one or more."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from partywire.workers.mpc import NotInRing, Replicated3, ShareMismatch, truncate, truncate_stochastic
from tests.support.local_sessions import LocalSession, local_sessions, run_parties
from tests.workers.mpc.programs import compute
from tests.workers.mpc.test_bits import U16, U32, U64
from tests.workers.mpc.test_protocol import bits_share, one_party, words_share

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXAMPLES = settings(max_examples=30)

# Ring, shift, rounds, bits that a party sends for the carry per element, bits that party 0 deals for it besides.
EXACT = [(U16, 1, 4, 1, 3), (U16, 2, 4, 1, 3), (U16, 8, 6, 11, 12), (U16, 13, 7, 22, 21), (U16, 14, 7, 22, 21)]
EXACT += [(U32, 8, 6, 11, 12), (U32, 16, 7, 26, 24), (U64, 20, 8, 33, 30)]


def at_most(data: st.DataObject, dtype: Any, least: int, greatest: int) -> NDArray[np.int64]:
    """Signed numbers between public bounds, these included."""
    numbers = st.sampled_from([least, least + 1, -1, 0, 1, greatest - 1, greatest]) | st.integers(least, greatest)
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=7))
    return data.draw(hnp.arrays(np.int64, shape, elements=numbers))


@EXAMPLES
@given(st.data(), st.sampled_from([U16, U32, U64]))
def test_truncation_is_the_floor_within_its_bound(data: st.DataObject, dtype: Any) -> None:
    width = 8 * dtype.itemsize
    shift = data.draw(st.sampled_from([1, 2, width - 3, width - 2]) | st.integers(1, width - 2))
    x = at_most(data, dtype, -(1 << width - 2), (1 << width - 2) - 1)

    async def divide(mpc: Replicated3, shares: Any) -> Any:
        return await truncate(mpc, shares[0] + shares[1], shift)

    zero = np.zeros_like(x)  # of another party, so that all components are random
    opened = compute(divide, x.astype(dtype), zero.astype(dtype)).opened
    np.testing.assert_array_equal(opened, np.asarray(x >> shift).astype(dtype))


@EXAMPLES
@given(st.data(), st.sampled_from([U16, U32, U64]))
def test_rounding_by_chance_takes_one_of_the_two_neighbours(data: st.DataObject, dtype: Any) -> None:
    width = 8 * dtype.itemsize
    shift = data.draw(st.sampled_from([1, 2, width - 3, width - 2]) | st.integers(1, width - 2))
    x = at_most(data, dtype, -(1 << width - 2) + 1, 1 << width - 2)

    async def divide(mpc: Replicated3, shares: Any) -> Any:
        return await truncate_stochastic(mpc, shares[0] + shares[1], shift)

    opened = compute(divide, x.astype(dtype), np.zeros_like(x).astype(dtype)).opened
    floor = np.asarray(x >> shift)
    is_up = np.not_equal(opened, floor.astype(dtype))
    is_multiple = np.equal(np.left_shift(floor, shift), x)
    assert not np.any(is_up & is_multiple)
    np.testing.assert_array_equal(opened, np.asarray(floor + is_up).astype(dtype))


def test_rounding_by_chance_is_right_on_average() -> None:
    count = 1 << 14

    async def divide(mpc: Replicated3, shares: Any) -> Any:
        return await truncate_stochastic(mpc, shares[0] + shares[1], 4)

    for fraction in (1, 8, 15):
        x = np.full(count, 1600 + fraction, np.uint32)
        mean = float(compute(divide, x, np.zeros_like(x)).opened.mean()) - 100
        # Eight deviations of the mean of `count` truth values.
        assert abs(mean - fraction / 16) < 8 * 0.5 / count**0.5


def test_what_has_no_random_component_1_is_rounded_up() -> None:
    async def divide(mpc: Replicated3, shares: Any) -> Any:
        return await truncate_stochastic(mpc, mpc.public([31, 32, 33, -31], np.uint16), 5)

    assert list(compute(divide, np.zeros(1, np.uint16)).opened.view(np.int16)) == [1, 1, 2, 0]


def test_rounding_by_chance_shows_each_party_the_interval_that_its_docstring_tells_of() -> None:
    """2^shift numbers with the secret among them, from what the party holds; where it begins depends on the share."""
    count, shift, secret = 500, 8, 1000

    async def program(session: LocalSession) -> tuple[NDArray[Any], NDArray[Any]]:
        mpc = await Replicated3.setup(session)
        mine = np.full(count, secret, np.uint32)
        x = await mpc.input(0, mine if mpc.party_index == 0 else None, (count,))
        x = x + await mpc.input(1, np.zeros_like(mine) if mpc.party_index == 1 else None, (count,))
        known = {0: x.own + x.prev, 1: x.own, 2: x.prev}[mpc.party_index]
        return known, await mpc.open(await truncate_stochastic(mpc, x, shift))

    for party, (known, opened) in enumerate(run_parties(program)[0]):
        # What is opened is (s >> shift) + (t >> shift), but for constants; this party knows one of the two.
        known = known + np.uint32((1 << 30) - 1) if party == 0 else known
        other = opened - np.uint32(1) + np.uint32(1 << 30 - shift) - (known >> np.uint32(shift))
        begin = (known + (other << np.uint32(shift))).astype(np.uint32) - np.uint32((1 << 30) - 1)
        distance = secret - begin.view(np.int32)
        assert ((distance >= 0) & (distance < 1 << shift)).all()
        assert len(set(distance.tolist())) > 100


@pytest.mark.parametrize(("dtype", "shift", "rounds", "each", "first"), EXACT)
def test_exact_truncation_costs_what_is_stated(dtype: Any, shift: int, rounds: int, each: int, first: int) -> None:
    count = 80
    x = np.arange(count).astype(dtype)

    async def divide(mpc: Replicated3, shares: Any) -> Any:
        return await truncate(mpc, shares[0], shift)

    outcome = compute(divide, x)
    np.testing.assert_array_equal(outcome.opened, x >> dtype.type(shift))
    assert outcome.rounds == rounds
    one = count * dtype.itemsize + each * count // 8
    dealt = count * dtype.itemsize + count * (1 if shift <= 8 else 2 if shift <= 16 else 4)
    assert outcome.bytes_sent == [one + dealt + first * count // 8, one, one]


@pytest.mark.parametrize(
    ("dtype", "shift", "dealt"),
    [(U16, 8, 1), (U16, 9, 2), (U32, 8, 1), (U32, 16, 2), (U32, 17, 4), (U64, 32, 4), (U64, 33, 8)],
)
def test_rounding_by_chance_costs_two_rounds_and_one_element(dtype: Any, shift: int, dealt: int) -> None:
    async def divide(mpc: Replicated3, shares: Any) -> Any:
        return await truncate_stochastic(mpc, shares[0], shift)

    outcome = compute(divide, np.zeros(10, dtype))
    one = 10 * dtype.itemsize
    assert (outcome.rounds, outcome.bytes_sent) == (2, [one + 10 * dealt, one, one])


@pytest.mark.parametrize("divide", [truncate, truncate_stochastic])
def test_a_shift_out_of_range_or_no_share_is_refused_before_anything_is_sent(divide: Any) -> None:
    session = local_sessions()[0]
    for shift in (-1, 0, 15, 16):
        with pytest.raises(NotInRing):
            asyncio.run(divide(one_party(session), words_share((4,), np.uint16), shift))
    with pytest.raises(ShareMismatch):
        asyncio.run(divide(one_party(session), bits_share(1, (4,)), 1))
    assert session.sent == []
