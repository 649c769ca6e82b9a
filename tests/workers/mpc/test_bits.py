"""Comparison, equality and selection against plaintext, for all widths, with the exact costs of the docstrings."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from partywire.workers.mpc import (
    NotInRing,
    Replicated3,
    ShareMismatch,
    equal,
    inject,
    is_zero,
    less_than,
    most_significant_bit,
    multiply_by_bit,
    select,
)
from partywire.workers.mpc.bits import bit_slices
from tests.support.local_sessions import LocalSession, local_sessions, run_parties
from tests.workers.mpc.programs import compute
from tests.workers.mpc.test_protocol import assert_looks_uniform, bits_share, one_party, words_share

if TYPE_CHECKING:
    from numpy.typing import NDArray

U16: np.dtype[Any] = np.dtype(np.uint16)
U32: np.dtype[Any] = np.dtype(np.uint32)
U64: np.dtype[Any] = np.dtype(np.uint64)
EXAMPLES = settings(max_examples=40)

# Ring, bits compared, rounds, bits that a party sends per element, bits that party 0 sends besides.
COSTS = [(U32, 2, 2, 1, 4), (U32, 3, 2, 1, 4), (U32, 4, 3, 4, 7), (U32, 8, 4, 11, 13), (U32, 16, 5, 26, 25)]
COSTS += [(U32, 17, 5, 26, 25), (U32, 27, 6, 45, 40), (U32, 32, 6, 57, 49)]
COSTS += [(U16, 2, 2, 1, 4), (U16, 16, 5, 26, 25), (U64, 16, 5, 26, 25), (U64, 64, 7, 120, 97)]
ZERO_COSTS = [(U16, 16, 5, 15, 16), (U32, 1, 1, 0, 1), (U32, 3, 3, 2, 3), (U32, 32, 6, 31, 32), (U64, 64, 7, 63, 64)]


@EXAMPLES
@given(st.sampled_from([U16, U32, U64]).flatmap(lambda d: hnp.arrays(d, st.integers(0, 40))), st.integers(1, 64))
def test_slices_hold_one_bit_of_all_words(words: NDArray[Any], bits: int) -> None:
    bits = min(bits, 8 * words.itemsize)
    slices = bit_slices(words, bits)
    for position in range(bits):
        bit = np.unpackbits(slices[position], count=words.size, bitorder="little")
        np.testing.assert_array_equal(bit, (words >> words.dtype.type(position)) & words.dtype.type(1))


@pytest.mark.parametrize(("dtype", "bits", "rounds", "each", "first"), COSTS)
def test_the_highest_bit_costs_what_the_docstring_says(
    dtype: Any, bits: int, rounds: int, each: int, first: int
) -> None:
    count = 80  # whole bytes of packed bits, so that the count is exact
    values = np.random.default_rng(bits).integers(0, np.iinfo(dtype).max, count, dtype, endpoint=True)

    async def sign(mpc: Replicated3, shares: Any) -> Any:
        return await most_significant_bit(mpc, shares[0], bits)

    outcome = compute(sign, values)
    np.testing.assert_array_equal(outcome.opened, (values >> dtype.type(bits - 1)) & dtype.type(1))
    assert outcome.rounds == rounds
    assert outcome.bytes_sent == [(each + first) * count // 8, each * count // 8, each * count // 8]


@pytest.mark.parametrize(("dtype", "bits", "rounds", "each", "first"), ZERO_COSTS)
def test_equality_costs_what_the_docstring_says(dtype: Any, bits: int, rounds: int, each: int, first: int) -> None:
    count = 80
    x = np.random.default_rng(bits).integers(0, 4, count).astype(dtype)

    async def compare(mpc: Replicated3, shares: Any) -> Any:
        return await is_zero(mpc, shares[0], bits)

    outcome = compute(compare, x)
    np.testing.assert_array_equal(outcome.opened, x & dtype.type((1 << bits) - 1) == 0)
    assert outcome.rounds == rounds
    assert outcome.bytes_sent == [(each + first) * count // 8, each * count // 8, each * count // 8]


@EXAMPLES
@given(st.data(), st.sampled_from([U16, U32, U64]))
def test_equality_is_right_for_any_words(data: st.DataObject, dtype: Any) -> None:
    bits = data.draw(st.none() | st.integers(1, 8 * dtype.itemsize))
    words = st.sampled_from(edges_of(dtype, bits or 8 * dtype.itemsize)) | st.integers(0, int(np.iinfo(dtype).max))
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=9))
    x = data.draw(hnp.arrays(dtype, shape, elements=words))
    difference = data.draw(hnp.arrays(dtype, shape, elements=words))

    async def compare(mpc: Replicated3, shares: Any) -> Any:
        return await equal(mpc, shares[0], shares[1], bits)

    mask = dtype.type((1 << (bits or 8 * dtype.itemsize)) - 1)
    opened = compute(compare, np.add(x, difference), x).opened
    assert opened.shape == shape
    np.testing.assert_array_equal(opened, np.bitwise_and(difference, mask) == 0)


def edges_of(dtype: Any, bits: int) -> list[int]:
    return sorted({0, 1, (1 << bits - 1) - 1, 1 << bits - 1, (1 << bits) - 1, int(np.iinfo(dtype).max)})


@EXAMPLES
@given(st.data(), st.sampled_from([U16, U32, U64]))
def test_the_highest_bit_of_any_width_is_right_for_any_words(data: st.DataObject, dtype: Any) -> None:
    bits = data.draw(st.integers(2, 8 * dtype.itemsize))
    edges = st.sampled_from(edges_of(dtype, bits))
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=9))
    values = data.draw(hnp.arrays(dtype, shape, elements=edges | st.integers(0, int(np.iinfo(dtype).max))))

    async def sign(mpc: Replicated3, shares: Any) -> Any:
        return await most_significant_bit(mpc, shares[0], bits)

    opened = compute(sign, values).opened
    assert opened.shape == shape
    np.testing.assert_array_equal(opened, np.bitwise_and(np.right_shift(values, dtype.type(bits - 1)), dtype.type(1)))


@EXAMPLES
@given(st.data(), st.sampled_from([U16, U32, U64]))
def test_less_than_is_right_within_the_bound_that_the_width_gives(data: st.DataObject, dtype: Any) -> None:
    bits = data.draw(st.sampled_from([2, 8 * dtype.itemsize]) | st.integers(2, 8 * dtype.itemsize))
    bound = (1 << bits - 2) - 1  # differences of two such numbers fit
    numbers = hnp.arrays(np.int64, 11, elements=st.sampled_from([-bound, bound]) | st.integers(-bound, bound))
    x, y = data.draw(numbers), data.draw(numbers)
    y[0] = x[0]  # equal at least once

    async def compare(mpc: Replicated3, shares: Any) -> Any:
        x_share, y_share = shares
        return await less_than(mpc, x_share, y_share, bits)

    opened = compute(compare, x.astype(dtype), y.astype(dtype)).opened
    np.testing.assert_array_equal(opened, x < y)


@EXAMPLES
@given(st.data(), st.sampled_from([U16, U32, U64]))
def test_select_takes_one_of_two_values_for_a_whole_stack(data: st.DataObject, dtype: Any) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=6))
    stack = data.draw(st.sampled_from([(), (1,), (2,), (2, 3)]))
    bit = data.draw(hnp.arrays(np.bool_, shape))
    x, y = (data.draw(hnp.arrays(dtype, stack + shape)) for _ in range(2))

    async def choose(mpc: Replicated3, shares: Any) -> Any:
        return await select(mpc, *shares)

    outcome = compute(choose, bit, x, y)
    np.testing.assert_array_equal(outcome.opened, np.where(bit, x, y))
    assert outcome.rounds == 2
    assert outcome.bytes_sent == [2 * x.nbytes + bit.size * dtype.itemsize, 2 * x.nbytes, 2 * x.nbytes]


def test_a_compared_bit_selects() -> None:
    x = np.array([5, 2**32 - 3, 7, 0], np.uint32)
    y = np.array([3, 1, 7, 2], np.uint32)

    async def smaller(mpc: Replicated3, shares: Any) -> Any:
        return await select(mpc, await less_than(mpc, *shares), *shares)

    assert list(compute(smaller, x, y).opened.view(np.int32)) == [3, -3, 7, 0]


def test_every_message_of_a_comparison_and_a_selection_of_constants_looks_uniform() -> None:
    count = 1 << 14

    async def program(session: LocalSession) -> None:
        mpc = await Replicated3.setup(session)
        x = mpc.public(np.zeros(count, np.uint32))
        bit = await less_than(mpc, x, x)
        await select(mpc, bit, x, x)
        await inject(mpc, bit)

    _, sessions = run_parties(program)
    for session in sessions:
        messages = [message for message in session.sent if isinstance(message, np.ndarray)]
        assert len(messages) == (10 if session.party_index == 0 else 8)
        for message in messages:
            assert_looks_uniform(message.view(np.uint8))


def test_what_is_sent_does_not_depend_on_the_secrets_in_number_order_or_size() -> None:
    def sizes(x: NDArray[np.uint32], y: NDArray[np.uint32]) -> list[list[int]]:
        async def program(session: LocalSession) -> None:
            mpc = await Replicated3.setup(session)
            a = await mpc.input(0, x if mpc.party_index == 0 else None, x.shape)
            b = await mpc.input(1, y if mpc.party_index == 1 else None, y.shape)
            await select(mpc, await less_than(mpc, a, b), a, b)

        _, sessions = run_parties(program)
        return [[message.size for message in session.sent[1:]] for session in sessions]

    rng = np.random.default_rng(1)
    zeros = np.zeros(33, np.uint32)
    others = rng.integers(0, 1 << 30, 33).astype(np.uint32)
    assert sizes(zeros, zeros) == sizes(others, others[::-1].copy())


@pytest.mark.parametrize("bits", [0, 1, 33])
def test_a_width_outside_the_ring_is_refused(bits: int) -> None:
    session = local_sessions()[0]
    with pytest.raises(NotInRing):
        asyncio.run(most_significant_bit(one_party(session), words_share((4,)), bits))
    with pytest.raises(NotInRing):
        asyncio.run(is_zero(one_party(session), words_share((4,)), bits if bits != 1 else -1))
    assert session.sent == []


@pytest.mark.parametrize(
    "call",
    [
        lambda mpc: multiply_by_bit(mpc, bits_share(1, (4,)), words_share((3,))),
        lambda mpc: multiply_by_bit(mpc, bits_share(1, (2, 3)), words_share((3,))),
        lambda mpc: multiply_by_bit(mpc, bits_share(2, (4,)), words_share((4,))),
        lambda mpc: select(mpc, bits_share(1, (4,)), words_share((4,)), words_share((5,))),
        lambda mpc: inject(mpc, bits_share(2, (4,))),
        lambda mpc: inject(mpc, words_share((4,))),  # type: ignore[arg-type]
        lambda mpc: most_significant_bit(mpc, bits_share(1, (4,))),  # type: ignore[arg-type]
        lambda mpc: is_zero(mpc, np.zeros(4, np.uint32)),  # type: ignore[arg-type]
        lambda mpc: equal(mpc, words_share((4,)), words_share((5,))),
        lambda mpc: less_than(mpc, words_share((4,)), words_share((4,), np.uint16)),
    ],
)
def test_a_bit_of_another_shape_is_refused_before_anything_is_sent(call: Any) -> None:
    session = local_sessions()[0]
    with pytest.raises(ShareMismatch):
        asyncio.run(call(one_party(session)))
    assert session.sent == []
