"""A lift against plaintext: every word of Z_2^16, every wrap of the components, the exact cost, what a party sees."""

from __future__ import annotations

import asyncio
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from partywire.workers.mpc import ArithmeticShare, NotInRing, Replicated3, ShareMismatch
from partywire.workers.mpc.lift import lift, lift_small
from tests.support.local_sessions import LocalSession, join_parties, local_sessions, run_parties
from tests.workers.mpc.programs import compute
from tests.workers.mpc.test_protocol import assert_looks_uniform, bits_share, one_party, words_share
from tests.workers.mpc.test_secrecy import SAMPLES, SHIFT_MAX, DealtInTheOpen, Recorder, Unmasked, parity_means

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from numpy.typing import NDArray

    Lift = Callable[[Replicated3, ArithmeticShare], Awaitable[ArithmeticShare]]

U16: np.dtype[Any] = np.dtype(np.uint16)
U32: np.dtype[Any] = np.dtype(np.uint32)
U64: np.dtype[Any] = np.dtype(np.uint64)
WIDER = [(U16, U32), (U16, U64), (U32, U64)]
EXAMPLES = settings(max_examples=30)


def lifted(words: NDArray[Any], kind: str, wide: np.dtype[Any]) -> Any:
    async def operation(mpc: Replicated3, shares: Any) -> ArithmeticShare:
        match kind:
            case "unsigned":
                return await lift(mpc, shares[0], wide)
            case "signed":
                return await lift(mpc, shares[0], wide, signed=True)
        return await lift_small(mpc, shares[0], wide)

    return compute(operation, words)


def as_signed(words: NDArray[Any], wide: np.dtype[Any]) -> NDArray[Any]:
    return words.view(f"i{words.dtype.itemsize}").astype(wide)


def edges_of(narrow: np.dtype[Any]) -> list[int]:
    top = 1 << 8 * narrow.itemsize
    return [0, 1, 2, top // 4 - 1, top // 4, top // 2 - 1, top // 2, 3 * top // 4 - 1, 3 * top // 4, top - 2, top - 1]


@pytest.mark.parametrize("wide", [U32, U64])
def test_every_word_of_16_bits_keeps_its_value(wide: np.dtype[Any]) -> None:
    words = np.arange(1 << 16).astype(np.uint16)
    np.testing.assert_array_equal(lifted(words, "unsigned", wide).opened, words)
    np.testing.assert_array_equal(lifted(words, "signed", wide).opened, as_signed(words, wide))
    small = np.arange(-(1 << 14), 1 << 14).astype(np.uint16)
    np.testing.assert_array_equal(lifted(small, "small", wide).opened, as_signed(small, wide))


@pytest.mark.parametrize(("narrow", "wide"), WIDER)
def test_every_wrap_of_the_components_is_taken_off(narrow: np.dtype[Any], wide: np.dtype[Any]) -> None:
    """Not only every secret: every sum of edges, so that each of the components wraps and does not."""
    components = np.array(list(product(edges_of(narrow), repeat=3)), narrow).T
    secrets = components.sum(axis=0, dtype=narrow)
    small = np.isin(secrets + narrow.type(1 << 8 * narrow.itemsize - 2) >> narrow.type(8 * narrow.itemsize - 1), 0)

    async def program(session: LocalSession) -> list[NDArray[Any]]:
        mpc = await Replicated3.setup(session)
        x = ArithmeticShare(components[mpc.party_index], components[mpc.party_index - 1])
        results = [await lift(mpc, x, wide), await lift(mpc, x, wide, signed=True), await lift_small(mpc, x, wide)]
        return [await mpc.open(result) for result in results]

    for unsigned, signed, of_small in run_parties(program)[0]:
        np.testing.assert_array_equal(unsigned, secrets)
        np.testing.assert_array_equal(signed, as_signed(secrets, wide))
        np.testing.assert_array_equal(of_small[small], as_signed(secrets, wide)[small])
    assert small.sum() > len(secrets) // 4


@EXAMPLES
@given(st.data(), st.sampled_from(WIDER))
def test_any_words_of_any_shape_keep_their_values(data: st.DataObject, rings: Any) -> None:
    narrow, wide = rings
    words = st.sampled_from(edges_of(narrow)) | st.integers(0, int(np.iinfo(narrow).max))
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=9))
    values = data.draw(hnp.arrays(narrow, shape, elements=words))
    for kind, expected in (("unsigned", values.astype(wide)), ("signed", as_signed(values, wide))):
        opened = lifted(values, kind, wide).opened
        assert opened.dtype == wide
        assert opened.shape == shape
        np.testing.assert_array_equal(opened, expected)
    small = (values.view(f"i{narrow.itemsize}") >> 1).view(narrow)
    np.testing.assert_array_equal(lifted(small, "small", wide).opened, as_signed(small, wide))


@pytest.mark.parametrize(
    ("narrow", "wide", "kind", "rounds", "bits"),
    [
        (U16, U32, "unsigned", 7, (98, 58)),
        (U16, U64, "unsigned", 7, (178, 90)),
        (U32, U64, "unsigned", 8, (201, 121)),
        (U16, U32, "signed", 7, (98, 58)),
        (U16, U32, "small", 2, (48, 32)),
        (U16, U64, "small", 2, (128, 64)),
        (U32, U64, "small", 2, (96, 64)),
    ],
)
def test_a_lift_costs_what_the_docstring_says(
    narrow: np.dtype[Any], wide: np.dtype[Any], kind: str, rounds: int, bits: tuple[int, int]
) -> None:
    outcome = lifted(np.arange(80).astype(narrow), kind, wide)
    assert outcome.rounds == rounds
    assert outcome.bytes_sent == [10 * bits[0], 10 * bits[1], 10 * bits[1]]


@pytest.mark.parametrize("call", [lift, lift_small])
@pytest.mark.parametrize(
    ("share", "dtype", "error"),
    [
        (words_share((3,), np.uint32), np.uint32, NotInRing),
        (words_share((3,), np.uint32), np.uint16, NotInRing),
        (words_share((3,), np.uint64), np.uint64, NotInRing),
        (words_share((3,), np.uint16), np.int32, NotInRing),
        (bits_share(1, (3,)), np.uint32, ShareMismatch),
    ],
)
def test_what_cannot_be_lifted_is_refused_before_anything_is_sent(
    call: Any, share: Any, dtype: Any, error: Any
) -> None:
    session = local_sessions()[0]
    with pytest.raises(error):
        asyncio.run(call(one_party(session), share, dtype))
    assert session.sent == []


# What one party sees.


def test_every_message_of_a_lift_of_constants_looks_uniform_and_its_size_is_public() -> None:
    def messages(words: NDArray[Any]) -> list[list[NDArray[Any]]]:
        async def program(session: LocalSession) -> None:
            mpc = await Replicated3.setup(session)
            x = mpc.public(words, np.uint16)
            await lift(mpc, x, np.uint32)
            await lift_small(mpc, x, np.uint64)

        _, sessions = run_parties(program)
        return [[sent for sent in session.sent if isinstance(sent, np.ndarray)] for session in sessions]

    of_zeros = messages(np.zeros(1 << 14, np.uint16))
    for sent in of_zeros:
        for message in sent:
            assert_looks_uniform(message.view(np.uint8))
    of_others = messages(np.arange(1 << 14).astype(np.uint16))
    assert [[m.nbytes for m in sent] for sent in of_zeros] == [[m.nbytes for m in sent] for sent in of_others]


def view_bits(secret: int, operation: Lift, positions: tuple[int, ...], kind: Any) -> list[NDArray[np.uint8]]:
    """For each party the bits that it sees while SAMPLES copies of a word of 16 bits are lifted, one row per bit.

    Shares, draws and messages, as in test_secrecy.py; of packed bits all, of each word those at `positions`.
    """
    rng = np.random.default_rng()
    first, second = (rng.integers(0, 1 << 16, SAMPLES, np.uint16) for _ in range(2))
    components = (first, second, np.uint16(secret % (1 << 16)) - first - second)
    recorders: dict[int, list[Recorder]] = {}

    async def party(session: LocalSession) -> None:
        plain = await Replicated3.setup(session)
        recorders[session.party_index] = streams = [Recorder(plain._own), Recorder(plain._prev)]
        index = session.party_index
        share = ArithmeticShare(components[index].copy(), components[index - 1].copy())
        await operation(kind(session, *streams), share)

    sessions = local_sessions()
    asyncio.run(join_parties(party, sessions))
    seen = []
    for index in range(3):
        parts = [components[index], components[index - 1]]
        parts += [words for recorder in recorders[index] for words in recorder.drawn]
        parts += [message for message in sessions[index - 1].sent if isinstance(message, np.ndarray)]
        seen.append(np.concatenate([rows_of(part, positions) for part in parts]))
    return seen


def rows_of(part: NDArray[Any], positions: tuple[int, ...]) -> NDArray[np.uint8]:
    if part.dtype == np.uint8 and part.size == 2 * SAMPLES and part.ndim == 1:
        part = part.view("<u2")  # dealt words of 16 bits travel as bytes
    if part.dtype == np.uint8:
        return np.unpackbits(part.reshape(-1, SAMPLES // 8), axis=1, bitorder="little")
    bits = np.unpackbits(np.ascontiguousarray(part).view(np.uint8).reshape(SAMPLES, -1), axis=1, bitorder="little").T
    return bits[[at for at in positions if at < len(bits)]]


async def small_to_32(mpc: Replicated3, x: ArithmeticShare) -> ArithmeticShare:
    return await lift_small(mpc, x, np.uint32)


async def any_to_32(mpc: Replicated3, x: ArithmeticShare) -> ArithmeticShare:
    return await lift(mpc, x, np.uint32)


def joint_shifts(positions: tuple[int, ...], kind: Any = Replicated3) -> list[float]:
    """Over all subsets of the bits seen in a small lift, the greatest difference between two secrets, per party."""
    spectra = [
        [parity_means(bits) for bits in view_bits(secret, small_to_32, positions, kind)]
        for secret in (0, 1, -1, (1 << 14) - 1, -(1 << 14))
    ]
    return [max(float(np.abs(one[party] - spectra[0][party]).max()) for one in spectra[1:]) for party in range(3)]


def pair_shifts(kind: Any = Replicated3) -> list[float]:
    """Over all bits and pairs of bits seen in a lift, the greatest difference between two secrets, per party.

    A lift shows a party some hundred bits for each secret, too many for all subsets of them.
    """
    means = [pair_means(view_bits(secret, any_to_32, (0, 15), kind)) for secret in (0, 1, (1 << 16) - 1)]
    return [max(float(np.abs(one[party] - means[0][party]).max()) for one in means[1:]) for party in range(3)]


def pair_means(seen: list[NDArray[np.uint8]]) -> list[NDArray[np.float64]]:
    """For each party the mean of (-1)^parity of every row and pair of rows.

    By Python's integers, as BLAS would bring its threads, and is slower for it on a busy host.
    """
    means = []
    for bits in seen:
        rows = [0, *(int.from_bytes(row.tobytes(), "big") for row in np.packbits(bits, axis=1))]
        ones = np.array([(a ^ b).bit_count() for a, b in combinations(rows, 2)])
        means.append(1 - 2 * ones / SAMPLES)
    return means


@pytest.mark.parametrize("positions", [(0,), (15,), (0, 15), (14, 15)])
def test_a_small_lift_shows_no_party_anything(positions: tuple[int, ...]) -> None:
    assert max(joint_shifts(positions)) < SHIFT_MAX


def test_a_lift_shows_no_party_anything_in_pairs_of_bits() -> None:
    assert max(pair_shifts()) < SHIFT_MAX


def test_a_lift_that_deals_in_the_open_is_found() -> None:
    for shifts in (joint_shifts((0, 15), DealtInTheOpen), pair_shifts(DealtInTheOpen)):
        assert shifts[1] > 5 * SHIFT_MAX  # the party after the dealer
        assert max(shifts[0], shifts[2]) < SHIFT_MAX


def test_a_lift_without_zero_shares_is_found() -> None:
    assert max(joint_shifts((0, 15), Unmasked)) > 5 * SHIFT_MAX
