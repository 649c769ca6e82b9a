"""Sharing, linear operations, products and opening against the same on plaintext; costs; what a party sees."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from partywire.workers.errors import UnexpectedMessage
from partywire.workers.mpc import (
    ArithmeticShare,
    BinaryShare,
    MpcError,
    NotInRing,
    NotThreeParties,
    Replicated3,
    ShareMismatch,
    equal,
    inject,
    least,
    less_than,
    minimum,
    multiply_by_bit,
    select,
)
from partywire.workers.values import PrfKey
from tests.support.local_sessions import LocalSession, join_parties, local_sessions, run_parties
from tests.workers.mpc.programs import compute

if TYPE_CHECKING:
    from numpy.typing import NDArray

RINGS = st.sampled_from([np.dtype(np.uint16), np.dtype(np.uint32), np.dtype(np.uint64)])
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
EXAMPLES = settings(max_examples=40)


@st.composite
def ring_arrays(draw: Any, count: int) -> list[NDArray[Any]]:
    """Arrays of one ring and one shape, scalars and empty ones included."""
    dtype, shape = draw(RINGS), draw(SHAPES)
    return [draw(hnp.arrays(dtype, shape)) for _ in range(count)]


@EXAMPLES
@given(ring_arrays(1))
def test_what_is_shared_is_what_is_opened(plain: list[NDArray[Any]]) -> None:
    async def nothing(mpc: Replicated3, shares: Any) -> Any:
        return shares[0]

    outcome = compute(nothing, *plain)
    np.testing.assert_array_equal(outcome.opened, plain[0])
    assert outcome.opened.dtype == plain[0].dtype
    assert outcome.rounds == 0


@EXAMPLES
@given(ring_arrays(3), st.integers(-(1 << 70), 1 << 70), st.integers(-5, 5))
def test_linear_operations_are_those_of_the_ring_and_cost_nothing(
    plain: list[NDArray[Any]], factor: int, constant: int
) -> None:
    x, y, z = plain

    async def linear(mpc: Replicated3, shares: Any) -> Any:
        a, b, c = shares
        return mpc.add_public(-(a + b - c * factor), constant)

    outcome = compute(linear, x, y, z)
    ring_factor = np.asarray(factor % (1 << 8 * x.itemsize), x.dtype)
    ring_constant = np.asarray(constant % (1 << 8 * x.itemsize), x.dtype)
    expected = np.add(np.negative(np.subtract(np.add(x, y), np.multiply(z, ring_factor))), ring_constant)
    np.testing.assert_array_equal(outcome.opened, expected)
    assert (outcome.rounds, outcome.bytes_sent) == (0, [0, 0, 0])


@EXAMPLES
@given(ring_arrays(2))
def test_a_product_takes_one_round_and_one_element_from_each_party(plain: list[NDArray[Any]]) -> None:
    async def product(mpc: Replicated3, shares: Any) -> Any:
        return await mpc.multiply(*shares)

    outcome = compute(product, *plain)
    np.testing.assert_array_equal(outcome.opened, np.multiply(*plain))
    assert (outcome.rounds, outcome.bytes_sent) == (1, [plain[0].nbytes] * 3)


@EXAMPLES
@given(RINGS, st.integers(0, 4), st.integers(0, 9), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_a_matrix_product_sends_only_its_result(dtype: Any, n: int, k: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, np.iinfo(dtype).max, (n, k), dtype, endpoint=True)
    y = rng.integers(0, np.iinfo(dtype).max, (k, m), dtype, endpoint=True)

    async def product(mpc: Replicated3, shares: Any) -> Any:
        return await mpc.matmul(*shares)

    outcome = compute(product, x, y)
    np.testing.assert_array_equal(outcome.opened, x @ y)
    assert (outcome.rounds, outcome.bytes_sent) == (1, [n * m * dtype.itemsize] * 3)


@EXAMPLES
@given(RINGS, hnp.array_shapes(min_dims=1, max_dims=3, max_side=5), st.integers(0, 2**32 - 1))
def test_an_inner_product_sends_only_its_result(dtype: Any, shape: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = (rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True) for _ in range(2))

    async def product(mpc: Replicated3, shares: Any) -> Any:
        return await mpc.dot(*shares)

    outcome = compute(product, x, y)
    np.testing.assert_array_equal(outcome.opened, (x * y).sum(axis=-1, dtype=dtype))
    assert (outcome.rounds, outcome.bytes_sent) == (1, [outcome.opened.nbytes] * 3)


@EXAMPLES
@given(SHAPES.flatmap(lambda shape: st.tuples(*[hnp.arrays(np.bool_, shape)] * 2)))
def test_and_xor_and_not_are_those_of_truth_values(plain: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> None:
    x, y = plain

    async def gates(mpc: Replicated3, shares: Any) -> Any:
        return mpc.invert(await mpc.and_(*shares)) ^ shares[0]

    outcome = compute(gates, x, y)
    np.testing.assert_array_equal(outcome.opened, np.asarray(~(x & y) ^ x))
    assert (outcome.rounds, outcome.bytes_sent) == (1, [-(-x.size // 8)] * 3)


def test_broadcasting_follows_numpy() -> None:
    x, y = np.arange(6, dtype=np.uint32).reshape(2, 3), np.arange(3, dtype=np.uint32)

    async def product(mpc: Replicated3, shares: Any) -> Any:
        return await mpc.multiply(*shares)

    np.testing.assert_array_equal(compute(product, x, y).opened, x * y)


def test_shares_are_cut_joined_and_summed_as_arrays_are() -> None:
    x, y = np.arange(6, dtype=np.uint64).reshape(2, 3), np.arange(6, 12, dtype=np.uint64).reshape(2, 3)

    async def shape(mpc: Replicated3, shares: Any) -> Any:
        stacked = ArithmeticShare.stack(shares)
        assert len(stacked) == 2
        assert stacked.shape == (2, 2, 3)
        return ArithmeticShare.concatenate([stacked[0], stacked[1][::-1]]).reshape(2, 6).sum(axis=0)

    expected = np.concatenate([x, y[::-1]]).reshape(2, 6).sum(axis=0)
    np.testing.assert_array_equal(compute(shape, x, y).opened, expected)


@pytest.mark.parametrize("receiver", [0, 1, 2])
def test_a_secret_may_be_opened_to_one_party_alone(receiver: int) -> None:
    secret = np.arange(5, dtype=np.uint32)

    async def program(session: LocalSession) -> tuple[Any, int]:
        mpc = await Replicated3.setup(session)
        share = await mpc.input(0, secret if mpc.party_index == 0 else None, (5,))
        before = mpc.bytes_sent
        return await mpc.open_to(receiver, share), mpc.bytes_sent - before

    outcomes, _ = run_parties(program)
    for index, (opened, size) in enumerate(outcomes):
        assert size == (secret.nbytes if index == (receiver - 1) % 3 else 0)
        if index == receiver:
            np.testing.assert_array_equal(opened, secret)
        else:
            assert opened is None


def test_integers_of_any_sign_and_size_may_be_mixed() -> None:
    values = [-1, 1 << 63, (1 << 64) + 5]

    async def program(session: LocalSession) -> Any:
        mpc = await Replicated3.setup(session)
        mixed = await mpc.input(0, values if mpc.party_index == 0 else None, (3,), np.uint64)
        words = await mpc.input(1, values[:2] if mpc.party_index == 1 else None, (2,), np.uint64)
        return list(await mpc.open(mixed)), list(await mpc.open(words))

    outcomes, _ = run_parties(program)
    ring = [value % (1 << 64) for value in values]
    assert outcomes == [(ring, ring[:2])] * 3


@pytest.mark.parametrize("owner", [0, 1, 2])
def test_an_announcement_reaches_all_parties(owner: int) -> None:
    async def program(session: LocalSession) -> Any:
        mpc = await Replicated3.setup(session)
        return await mpc.announce(owner, [7, -1] if mpc.party_index == owner else None, 2)

    outcomes, _ = run_parties(program)
    assert [list(known) for known in outcomes] == [[7, -1]] * 3


# Masks.


def test_zero_shares_sum_to_zero_and_each_looks_uniform() -> None:
    count = 1 << 16

    async def program(session: LocalSession) -> tuple[Any, Any]:
        mpc = await Replicated3.setup(session)
        words, bits = np.zeros(count, np.uint32), np.zeros(count, np.uint8)
        mpc.add_zero_share(words)
        mpc.xor_zero_share(bits)
        return words, bits

    outcomes, _ = run_parties(program)
    assert not sum(words for words, _ in outcomes).any()
    assert not np.bitwise_xor.reduce([bits for _, bits in outcomes]).any()
    for words, bits in outcomes:
        assert_looks_uniform(words.view(np.uint8))
        assert_looks_uniform(bits)
    words = [words for words, _ in outcomes]
    for one, other in ((words[0], words[1]), (words[1], words[2]), (words[2], words[0])):
        assert abs(np.corrcoef(one.astype(np.float64), other.astype(np.float64))[0, 1]) < 0.02


def assert_looks_uniform(seen: NDArray[np.uint8]) -> None:
    """Pearson's chi-square over byte values: 255 degrees of freedom, eight standard deviations allowed."""
    counts = np.bincount(seen, minlength=256)
    statistic = float(((counts - seen.size / 256) ** 2).sum() / (seen.size / 256))
    assert abs(statistic - 255) < 8 * np.sqrt(2 * 255)


def test_every_message_of_a_product_of_constants_looks_uniform() -> None:
    """Inputs and products of zeros: whatever is not masked would show as a peak."""

    async def program(session: LocalSession) -> None:
        mpc = await Replicated3.setup(session)
        shape = (1 << 14,)
        x = await mpc.input(0, np.zeros(shape, np.uint32) if mpc.party_index == 0 else None, shape)
        await mpc.multiply(x, x)
        y = await mpc.input_bits(1, np.zeros((1 << 17,), np.bool_) if mpc.party_index == 1 else None, (1 << 17,))
        await mpc.and_(y, y)

    _, sessions = run_parties(program)
    for session in sessions:
        messages = [message for message in session.sent if isinstance(message, np.ndarray)]
        assert len(messages) == (2 if session.party_index == 2 else 3)
        for message in messages:
            assert_looks_uniform(message.view(np.uint8))


def test_no_mask_is_used_twice() -> None:
    """The same call twice sends different words, and both holders of a seed are at the same place afterwards."""

    async def program(session: LocalSession) -> tuple[int, int]:
        mpc = await Replicated3.setup(session)
        mine = np.arange(100, dtype=np.uint32) if mpc.party_index == 1 else None
        for _ in range(2):
            x = await mpc.input(1, mine, (100,))
            await mpc.multiply(x, x)
        return mpc._own.bytes_drawn, mpc._prev.bytes_drawn

    positions, sessions = run_parties(program)
    for party in range(3):
        assert positions[party][0] == positions[(party + 1) % 3][1]
    for session in sessions:
        messages = [message.tobytes() for message in session.sent if isinstance(message, np.ndarray)]
        assert len(set(messages)) == len(messages)


def test_each_setup_draws_fresh_seeds() -> None:
    async def program(session: LocalSession) -> None:
        for _ in range(2):
            await Replicated3.setup(session)

    _, sessions = run_parties(program)
    seeds = [bytes(message) for session in sessions for message in session.sent]
    assert len(set(seeds)) == 6
    assert all(isinstance(message, PrfKey) for session in sessions for message in session.sent)


def test_nothing_secret_is_in_a_repr() -> None:
    async def program(session: LocalSession) -> str:
        mpc = await Replicated3.setup(session)
        x = await mpc.input(0, np.full(3, 0x5EC4E7, np.uint32) if mpc.party_index == 0 else None, (3,))
        bit = await mpc.input_bits(0, np.ones(3, np.bool_) if mpc.party_index == 0 else None, (3,))
        words = [*x.own, *x.prev, *bit.own.flat, *bit.prev.flat]
        text = repr(mpc) + repr(x) + repr(bit)
        assert not [word for word in words if word > 99 and str(word) in text]
        return text

    texts, _ = run_parties(program)
    for text in texts:
        assert "KeyStream" not in text
        assert text.count("<hidden>") == 2


# Wrong use.


def one_party(session: LocalSession) -> Replicated3:
    from partywire.workers.mpc.prf import KeyStream, fresh_key

    return Replicated3(session, KeyStream(fresh_key()), KeyStream(fresh_key()))


def words_share(shape: tuple[int, ...], dtype: Any = np.uint32) -> ArithmeticShare:
    return ArithmeticShare(np.zeros(shape, dtype), np.zeros(shape, dtype))


def bits_share(slices: int, shape: tuple[int, ...]) -> BinaryShare:
    size = (slices, -(-int(np.prod(shape)) // 8))
    return BinaryShare(np.zeros(size, np.uint8), np.zeros(size, np.uint8), shape)


@pytest.mark.parametrize(
    "call",
    [
        lambda mpc: mpc.multiply(words_share((2,)), words_share((3,))),
        lambda mpc: mpc.multiply(words_share((2,)), words_share((2,), np.uint64)),
        lambda mpc: mpc.matmul(words_share((2, 3)), words_share((2, 3))),
        lambda mpc: mpc.matmul(words_share(()), words_share(())),
        lambda mpc: mpc.dot(words_share((2,)), words_share((3,))),
        lambda mpc: mpc.dot(words_share(()), words_share(())),
        lambda mpc: mpc.and_(bits_share(1, (8,)), bits_share(2, (8,))),
        lambda mpc: mpc.and_(bits_share(1, (8,)), bits_share(1, (7,))),
        lambda mpc: mpc.and_(bits_share(1, (8,)), words_share((8,))),
        lambda mpc: mpc.open_bits(bits_share(2, (8,))),
        lambda mpc: mpc.input(0, np.zeros(3, np.uint32), (4,)),
        lambda mpc: mpc.input(0, None, (4,)),
        lambda mpc: mpc.input(1, np.zeros(4, np.uint32), (4,)),
        lambda mpc: mpc.deal_bits(0, None, (1, 1)),
        lambda mpc: mpc.deal_bits(0, np.zeros((1, 1), np.uint8), (1, 2)),
    ],
)
def test_operands_that_do_not_fit_are_refused_before_anything_is_sent(call: Any) -> None:
    session = local_sessions()[0]
    with pytest.raises(ShareMismatch):
        asyncio.run(call(one_party(session)))
    assert session.sent == []


@pytest.mark.parametrize(
    "call",
    [
        lambda mpc: mpc.input(0, np.zeros(4), (4,)),
        lambda mpc: mpc.input(0, ["a"] * 4, (4,)),
        lambda mpc: mpc.input(0, np.zeros(4, np.uint8), (4,), np.uint8),
        lambda mpc: mpc.input(0, np.zeros(4, np.int32), (4,), np.int32),
        lambda mpc: mpc.input_bits(0, np.zeros(4, np.uint8), (4,)),
        lambda mpc: mpc.announce(0, [0.5], 1),
        lambda mpc: mpc.announce(0, [1 << 63], 1),
    ],
)
def test_values_outside_the_rings_are_refused_before_anything_is_sent(call: Any) -> None:
    session = local_sessions()[0]
    with pytest.raises(NotInRing):
        asyncio.run(call(one_party(session)))
    assert session.sent == []


@pytest.mark.parametrize(
    "build",
    [
        lambda: words_share((2,)) + words_share((3,)),
        lambda: words_share((2,)) - words_share((2,), np.uint64),
        lambda: words_share((2,)) * words_share((2,)),  # type: ignore[operator]
        lambda: words_share((2,)) * np.zeros(3, np.int64),
        lambda: words_share((2,)) + 1,  # type: ignore[operator]
        lambda: ArithmeticShare(np.zeros(2, np.uint32), np.zeros(3, np.uint32)),
        lambda: BinaryShare(np.zeros((1, 2), np.uint8), np.zeros((1, 2), np.uint8), (8,)),
        lambda: bits_share(1, (8,)) ^ bits_share(1, (7,)),
        lambda: BinaryShare.concatenate([bits_share(1, (8,)), bits_share(1, (7,))]),
        lambda: BinaryShare.concatenate([bits_share(1, (8,)), words_share((8,))]),  # type: ignore[list-item]
        # numpy would widen the narrow words, and the shares would stand for other secrets.
        lambda: ArithmeticShare.concatenate([words_share((2,)), words_share((2,), np.uint64)]),
        lambda: ArithmeticShare.stack([words_share((2,), np.uint64), words_share((2,), np.uint16)]),
        lambda: ArithmeticShare.concatenate([words_share((2, 3)), words_share((2, 4))]),
        lambda: ArithmeticShare.stack([words_share((2,)), words_share((3,))]),
        lambda: ArithmeticShare.stack([words_share((8,)), bits_share(1, (8,))]),  # type: ignore[list-item]
        lambda: ArithmeticShare.concatenate([]),
    ],
)
def test_shares_that_do_not_fit_are_refused(build: Any) -> None:
    with pytest.raises(ShareMismatch):
        build()


SECRET = 1234567891


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: words_share((2,)) + SECRET,  # type: ignore[operator]
        lambda: words_share((2,)) - np.array([SECRET, SECRET]),
        lambda: bits_share(1, (8,)) ^ np.array([SECRET]),
        lambda: words_share((2,)) * "1234567891",
        lambda: ArithmeticShare.stack([words_share((1,)), np.array([SECRET])]),  # type: ignore[list-item]
        lambda: ArithmeticShare(np.full(2, SECRET, np.uint32), np.full(3, SECRET, np.uint32)),
        lambda: words_share((2,)) * words_share((2,)),  # type: ignore[operator]
        lambda: asyncio.run(one_party(local_sessions()[0]).multiply(words_share((2,)), np.array([SECRET]))),  # type: ignore[arg-type]
        lambda: asyncio.run(one_party(local_sessions()[0]).and_(bits_share(1, (8,)), SECRET)),  # type: ignore[arg-type]
    ],
)
def test_a_mistake_with_a_plaintext_does_not_carry_it_into_the_error(mistake: Any) -> None:
    """The sentence of an error goes to the log and to the other parties, its fields to other processes."""
    with pytest.raises(MpcError) as caught:
        mistake()
    assert str(SECRET) not in str(caught.value) + repr(caught.value)
    assert all(isinstance(field, str) for field in vars(caught.value).values())


WORDS, BITS, PLAIN = words_share((8,)), bits_share(1, (8,)), np.full(8, SECRET)


@pytest.mark.parametrize(
    "call",
    [
        *[lambda run, wrong=wrong: run.open(wrong) for wrong in (BITS, PLAIN)],
        *[lambda run, wrong=wrong: run.open_to(1, wrong) for wrong in (BITS, PLAIN)],
        *[lambda run, wrong=wrong: run.multiply(wrong, WORDS) for wrong in (BITS, PLAIN)],
        *[lambda run, wrong=wrong: run.dot(wrong, WORDS) for wrong in (BITS, PLAIN)],
        *[lambda run, wrong=wrong: run.matmul(WORDS, wrong) for wrong in (BITS, PLAIN)],
        *[lambda run, wrong=wrong: run.open_bits(wrong) for wrong in (WORDS, PLAIN)],
        *[lambda run, wrong=wrong: run.and_(wrong, BITS) for wrong in (WORDS, PLAIN)],
        *[lambda run, wrong=wrong: less_than(run, wrong, WORDS) for wrong in (BITS, PLAIN)],
        *[lambda run, wrong=wrong: equal(run, wrong, WORDS) for wrong in (BITS, PLAIN)],
        *[lambda run, wrong=wrong: select(run, wrong, WORDS, WORDS) for wrong in (WORDS, PLAIN)],
        *[lambda run, wrong=wrong: select(run, BITS, wrong, WORDS) for wrong in (BITS, PLAIN)],
        *[lambda run, wrong=wrong: multiply_by_bit(run, BITS, wrong) for wrong in (BITS, PLAIN)],
        *[lambda run, wrong=wrong: inject(run, wrong) for wrong in (WORDS, PLAIN)],
        *[lambda run, wrong=wrong: minimum(run, wrong) for wrong in (BITS, PLAIN)],
        *[lambda run, wrong=wrong: least(run, WORDS, wrong) for wrong in (BITS, PLAIN)],
    ],
)
def test_an_operand_of_another_kind_is_refused_before_anything_is_sent_or_told(call: Any) -> None:
    session = local_sessions()[0]
    with pytest.raises(ShareMismatch) as caught:
        asyncio.run(call(one_party(session)))
    assert session.sent == []
    assert str(SECRET) not in str(caught.value)


@pytest.mark.parametrize("wrong", [BITS, PLAIN])
def test_a_local_operation_refuses_what_is_no_share_of_its_kind(wrong: Any) -> None:
    with pytest.raises(ShareMismatch):
        one_party(local_sessions()[0]).add_public(wrong, 1)
    with pytest.raises(ShareMismatch):
        one_party(local_sessions()[0]).invert(WORDS if wrong is BITS else wrong)  # type: ignore[arg-type]


def test_shares_hold_ring_elements_only() -> None:
    with pytest.raises(NotInRing):
        ArithmeticShare(np.zeros(2), np.zeros(2))
    with pytest.raises(NotInRing):
        BinaryShare(np.zeros((1, 1), np.uint16), np.zeros((1, 1), np.uint16), (8,))
    with pytest.raises(NotInRing, match="integers, not values of dtype float64"):
        words_share((2,)) * 0.5


def test_an_array_times_a_share_is_one_share() -> None:
    product = np.arange(3) * words_share((3,))
    assert isinstance(product, ArithmeticShare)


@pytest.mark.parametrize("parties", [2, 4])
def test_another_number_of_parties_is_refused(parties: int) -> None:
    with pytest.raises(NotThreeParties, match=f"of {parties}"):
        asyncio.run(Replicated3.setup(local_sessions(parties)[0]))


def test_a_party_index_beyond_two_is_refused() -> None:
    session = local_sessions()[0]
    with pytest.raises(NotThreeParties, match="party 3"):
        asyncio.run(one_party(session).open_to(3, words_share((1,))))


def test_a_seed_of_another_type_is_refused() -> None:
    async def program() -> None:
        sessions = local_sessions()
        sessions[0].deliver(b"sixteen bytes...")
        await Replicated3.setup(sessions[0])

    with pytest.raises(ShareMismatch, match="PrfKey"):
        asyncio.run(program())


@pytest.mark.parametrize(
    "hostile", [np.zeros(3, np.uint32), np.zeros(4, np.uint64), np.zeros((2, 2), np.uint32), b"no"]
)
def test_a_message_of_another_shape_or_dtype_gives_the_typed_error_of_the_session(hostile: Any) -> None:
    async def program(session: LocalSession) -> None:
        mpc = one_party(session)
        if session.party_index == 0:
            session.deliver(hostile)
            await mpc.open(words_share((4,)))

    with pytest.raises(UnexpectedMessage):
        asyncio.run(join_parties(program, local_sessions()))
