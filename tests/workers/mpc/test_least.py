"""Minimum, argmin and the tournament with passengers, against numpy; costs; wrong shapes."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from partywire.workers.mpc import NotInRing, Replicated3, ShareMismatch, argmin, least, minimum
from tests.support.local_sessions import local_sessions
from tests.workers.mpc.programs import compute
from tests.workers.mpc.test_bits import U16, U32, U64
from tests.workers.mpc.test_protocol import bits_share, one_party, words_share

EXAMPLES = settings(max_examples=30)


@EXAMPLES
@given(st.data(), st.sampled_from([U16, U32, U64]))
def test_the_least_and_the_first_of_its_places_are_found(data: st.DataObject, dtype: Any) -> None:
    bits = data.draw(st.sampled_from([None, 2, 3, 8 * dtype.itemsize]) | st.integers(2, 8 * dtype.itemsize))
    bound = (1 << (bits or 8 * dtype.itemsize) - 2) - 1  # differences of two such numbers fit
    shape = (data.draw(st.integers(1, 9)), *data.draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4)))
    # Few different numbers, so that there are ties, and both ends.
    numbers = st.sampled_from(sorted({-bound, 0, min(1, bound), bound}))
    x = data.draw(hnp.arrays(np.int64, shape, elements=numbers))

    async def both(mpc: Replicated3, shares: Any) -> Any:
        value = await minimum(mpc, shares[0], bits)
        index = await argmin(mpc, shares[0], bits)
        return type(value).stack([value, index])

    opened = compute(both, x.astype(dtype)).opened
    expected = [x.min(axis=0), x.argmin(axis=0)] if x.size else np.zeros((2, *shape[1:]))
    np.testing.assert_array_equal(opened, np.asarray(expected).astype(dtype))


@EXAMPLES
@given(st.integers(1, 12), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_whatever_is_carried_arrives_with_its_key(n: int, v: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    keys = rng.integers(0, 50, (n, 3)).astype(np.uint32)
    carried = rng.integers(0, 1 << 32, (v, n, 3), np.uint32)

    async def first(mpc: Replicated3, shares: Any) -> Any:
        key, passengers = await least(mpc, *shares)
        return type(key).concatenate([key.reshape(1, 3), passengers])

    opened = compute(first, keys, carried).opened
    winner = keys.argmin(axis=0)
    np.testing.assert_array_equal(opened[0], keys.min(axis=0))
    np.testing.assert_array_equal(opened[1:], carried[:, winner, np.arange(3)])


@pytest.mark.parametrize(("dtype", "bits", "rounds", "each", "first"), [(U32, 16, 5, 26, 25), (U16, 16, 5, 26, 25)])
@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_a_tournament_costs_a_comparison_and_a_selection_for_each_match(
    dtype: Any, bits: int, rounds: int, each: int, first: int, n: int
) -> None:
    count = 80

    async def least_of_all(mpc: Replicated3, shares: Any) -> Any:
        return (await least(mpc, shares[0], shares[1], bits))[0]

    keys = np.arange(n * count).reshape(n, count).astype(dtype)
    outcome = compute(least_of_all, keys, np.zeros((1, n, count), dtype))
    matches = (n - 1) * count
    one = matches * each // 8 + 2 * 2 * matches * dtype.itemsize
    assert outcome.rounds == (n - 1).bit_length() * (rounds + 2)
    assert outcome.bytes_sent == [one + matches * first // 8 + matches * dtype.itemsize, one, one]


@pytest.mark.parametrize(
    "call",
    [
        lambda mpc: minimum(mpc, words_share((0,))),
        lambda mpc: minimum(mpc, words_share((0, 3))),
        lambda mpc: minimum(mpc, words_share(())),
        lambda mpc: minimum(mpc, bits_share(1, (4,))),  # type: ignore[arg-type]
        lambda mpc: argmin(mpc, words_share(())),
        lambda mpc: argmin(mpc, words_share((0,))),
        lambda mpc: argmin(mpc, np.zeros(4, np.uint32)),  # type: ignore[arg-type]
        lambda mpc: least(mpc, words_share((4,)), words_share((4,))),
        lambda mpc: least(mpc, words_share((4,)), words_share((1, 5))),
        lambda mpc: least(mpc, words_share((4,)), words_share((1, 4), np.uint64)),
    ],
)
def test_keys_that_do_not_fit_are_refused_before_anything_is_sent(call: Any) -> None:
    session = local_sessions()[0]
    with pytest.raises(ShareMismatch):
        asyncio.run(call(one_party(session)))
    assert session.sent == []


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("bits", [1, 33])
def test_a_width_outside_the_ring_is_refused_for_any_number_of_keys(n: int, bits: int) -> None:
    session = local_sessions()[0]
    with pytest.raises(NotInRing):
        asyncio.run(minimum(one_party(session), words_share((n,)), bits))
    assert session.sent == []


def test_more_keys_than_indices_in_the_ring_are_refused() -> None:
    session = local_sessions()[0]
    with pytest.raises(NotInRing, match="index"):
        asyncio.run(argmin(one_party(session), words_share(((1 << 16) + 1,), np.uint16)))
    assert session.sent == []


def test_the_last_index_of_a_ring_is_found() -> None:
    keys = np.ones(1 << 16, np.uint16)
    keys[-1] = 0

    async def where(mpc: Replicated3, shares: Any) -> Any:
        return await argmin(mpc, shares[0], 2)

    assert compute(where, keys).opened == (1 << 16) - 1
