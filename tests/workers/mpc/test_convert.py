"""From words to bits and back, for all rings and widths, with the exact rounds and bytes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from partywire.workers.mpc import (
    BinaryShare,
    NotInRing,
    Replicated3,
    ShareMismatch,
    inject,
    to_arithmetic,
    to_binary,
)
from partywire.workers.mpc.bits import bit_slices, prefix_carries
from tests.support.local_sessions import LocalSession, local_sessions, run_parties
from tests.workers.mpc.programs import compute, share
from tests.workers.mpc.test_bits import U16, U32, U64, edges_of
from tests.workers.mpc.test_protocol import bits_share, one_party, words_share

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXAMPLES = settings(max_examples=30)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=9)

# Ring, bits, rounds, bits that a party sends per element, bits that party 0 sends besides.
TO_BINARY = [(U16, 1, 0, 0, 0), (U16, 2, 2, 1, 2), (U16, 3, 2, 2, 4), (U32, 4, 3, 4, 5), (U16, 16, 5, 50, 23)]
TO_BINARY += [(U64, 16, 5, 50, 23), (U32, 32, 6, 136, 47), (U64, 64, 7, 342, 95)]


async def open_words(mpc: Replicated3, bits: BinaryShare, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The number whose bits are the slices."""
    opened = np.zeros(bits.shape, dtype)
    for position in range(bits.slices):
        bit = (await mpc.open_bits(bits[position : position + 1])).astype(dtype)
        np.bitwise_or(opened, np.left_shift(bit, dtype.type(position)), out=opened)
    return opened


def slices_of(plain: NDArray[Any], bits: int | None) -> tuple[NDArray[Any], int, list[int]]:
    """Words through `to_binary`: what its slices say, rounds, and bytes at each party."""

    async def program(session: LocalSession) -> tuple[NDArray[Any], int, int]:
        mpc = await Replicated3.setup(session)
        x = await share(mpc, 2, plain)
        rounds, size = mpc.rounds, mpc.bytes_sent
        split = await to_binary(mpc, x, bits)
        rounds, size = mpc.rounds - rounds, mpc.bytes_sent - size
        assert split.shape == plain.shape
        assert split.slices == (8 * plain.dtype.itemsize if bits is None else bits)
        return await open_words(mpc, split, plain.dtype), rounds, size

    outcomes, _ = run_parties(program)
    for opened, rounds, _ in outcomes:
        np.testing.assert_array_equal(opened, outcomes[0][0])
        assert rounds == outcomes[0][1]
    return outcomes[0][0], outcomes[0][1], [size for _, _, size in outcomes]


@EXAMPLES
@given(st.data(), st.sampled_from([U16, U32, U64]))
def test_the_slices_are_the_bits_of_the_words(data: st.DataObject, dtype: Any) -> None:
    bits = data.draw(st.none() | st.integers(1, 8 * dtype.itemsize))
    width = 8 * dtype.itemsize if bits is None else bits
    words = st.sampled_from(edges_of(dtype, width)) | st.integers(0, int(np.iinfo(dtype).max))
    plain = data.draw(hnp.arrays(dtype, SHAPES, elements=words))
    opened, _, _ = slices_of(plain, bits)
    np.testing.assert_array_equal(opened, np.bitwise_and(plain, dtype.type((1 << width) - 1)))


@pytest.mark.parametrize(("dtype", "bits", "rounds", "each", "first"), TO_BINARY)
def test_splitting_into_bits_costs_what_is_stated(dtype: Any, bits: int, rounds: int, each: int, first: int) -> None:
    count = 80
    plain = np.random.default_rng(bits).integers(0, np.iinfo(dtype).max, count, dtype, endpoint=True)
    opened, seen_rounds, sizes = slices_of(plain, bits)
    np.testing.assert_array_equal(opened, plain & dtype.type((1 << bits) - 1))
    assert seen_rounds == rounds
    assert sizes == [(each + first) * count // 8, each * count // 8, each * count // 8]


def deal_bytes(width: int, slices: int) -> int:
    """Bytes in which the bits are dealt: each in the narrowest of 1, 2, 4 and 8 that holds the bits above it."""
    return sum(
        min(size for size in (1, 2, 4, 8) if 8 * size >= width - 1 - position)
        for position in range(min(slices, width - 1))
    )


def test_a_whole_word_is_dealt_in_the_bytes_that_the_docstring_says() -> None:
    assert [deal_bytes(width, width) for width in (16, 32, 64)] == [22, 84, 336]


@EXAMPLES
@given(st.data(), st.sampled_from([U16, U32, U64]))
def test_slices_of_any_number_make_a_word_in_two_rounds(data: st.DataObject, dtype: Any) -> None:
    width = 8 * dtype.itemsize
    slices = data.draw(st.sampled_from([1, 2, width - 1, width]) | st.integers(1, width))
    words = st.sampled_from([0, 1, (1 << slices) - 1, 1 << slices - 1]) | st.integers(0, (1 << slices) - 1)
    plain = data.draw(hnp.arrays(dtype, SHAPES, elements=words))
    packed = bit_slices(plain.reshape(-1), slices)

    async def program(session: LocalSession) -> tuple[NDArray[Any], int, int]:
        mpc = await Replicated3.setup(session)
        # Dealt by party 1, and moved on by an AND with ones, so that no component is 0.
        dealt = await mpc.deal_bits(1, packed if mpc.party_index == 1 else None, packed.shape)
        bits = BinaryShare(*dealt, plain.shape)
        bits = await mpc.and_(bits, mpc.invert(bits ^ bits))
        rounds, size = mpc.rounds, mpc.bytes_sent
        x = await to_arithmetic(mpc, bits, dtype)
        rounds, size = mpc.rounds - rounds, mpc.bytes_sent - size
        return await mpc.open(x), rounds, size

    outcomes, _ = run_parties(program)
    for index, (opened, rounds, size) in enumerate(outcomes):
        np.testing.assert_array_equal(opened, plain)
        assert opened.dtype == dtype
        assert rounds == 2
        assert size == plain.nbytes + (deal_bytes(width, slices) * plain.size if index == 0 else 0)


@EXAMPLES
@given(hnp.arrays(np.bool_, SHAPES), st.sampled_from([U16, U32, U64]))
def test_an_injected_bit_is_zero_or_one_in_the_ring(bit: NDArray[np.bool_], dtype: Any) -> None:
    async def convert(mpc: Replicated3, shares: Any) -> Any:
        return await inject(mpc, shares[0], dtype)

    outcome = compute(convert, bit)
    np.testing.assert_array_equal(outcome.opened, bit.astype(dtype))
    assert outcome.rounds == 2
    size = bit.size * dtype.itemsize
    assert outcome.bytes_sent == [2 * size, size, size]


def test_there_and_back_is_the_same_word() -> None:
    plain = np.array([[0, 1, 1 << 31], [(1 << 31) - 1, (1 << 32) - 1, 12345]], np.uint32)

    async def both(mpc: Replicated3, shares: Any) -> Any:
        return await to_arithmetic(mpc, await to_binary(mpc, shares[0]))

    np.testing.assert_array_equal(compute(both, plain).opened, plain)


@pytest.mark.parametrize("m", [1, 2, 3, 4, 7, 8, 13])
def test_a_prefix_tree_finds_the_carry_out_of_every_position(m: int) -> None:
    rng = np.random.default_rng(m)
    generate, propagate = (rng.integers(0, 2, (m, 40)).astype(np.bool_) for _ in range(2))
    expected, carry = [], np.zeros(40, np.bool_)
    for g, p in zip(generate, propagate, strict=True):
        carry = g | p & carry
        expected.append(carry)

    async def program(session: LocalSession) -> tuple[list[Any], int]:
        mpc = await Replicated3.setup(session)
        g, p = [BinaryShare.concatenate([await share(mpc, 1, row) for row in rows]) for rows in (generate, propagate)]
        # Where both are set, the sum of g and p & carry is an OR no more: as in an adder, p = s ^ t excludes g.
        p = p ^ await mpc.and_(g, p)
        rounds = mpc.rounds
        carries = await prefix_carries(mpc, g, p)
        rounds = mpc.rounds - rounds
        return [await mpc.open_bits(carries[at : at + 1]) for at in range(m)], rounds

    outcomes, _ = run_parties(program)
    np.testing.assert_array_equal(outcomes[2][0], expected)
    assert outcomes[2][1] == (m - 1).bit_length()


@pytest.mark.parametrize(
    "call",
    [
        lambda mpc: to_binary(mpc, words_share((4,)), 0),
        lambda mpc: to_binary(mpc, words_share((4,)), 33),
        lambda mpc: to_arithmetic(mpc, bits_share(17, (4,)), np.uint16),
        lambda mpc: to_arithmetic(mpc, bits_share(1, (4,)), np.int32),
        lambda mpc: inject(mpc, bits_share(1, (4,)), np.uint8),
    ],
)
def test_a_width_or_ring_that_does_not_hold_the_bits_is_refused(call: Any) -> None:
    session = local_sessions()[0]
    with pytest.raises(NotInRing):
        asyncio.run(call(one_party(session)))
    assert session.sent == []


@pytest.mark.parametrize(
    "call",
    [
        lambda mpc: to_binary(mpc, bits_share(4, (4,))),  # type: ignore[arg-type]
        lambda mpc: to_binary(mpc, np.zeros(4, np.uint32)),  # type: ignore[arg-type]
        lambda mpc: to_arithmetic(mpc, bits_share(0, (4,))),
        lambda mpc: to_arithmetic(mpc, words_share((4,))),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_share_of_the_right_kind_is_refused(call: Any) -> None:
    session = local_sessions()[0]
    with pytest.raises(ShareMismatch):
        asyncio.run(call(one_party(session)))
    assert session.sent == []
