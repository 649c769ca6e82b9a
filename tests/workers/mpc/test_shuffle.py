"""Secret shuffling: rows stay whole, every order is equally likely, and no party can draw what makes the order."""

from __future__ import annotations

import asyncio
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partywire.workers.mpc import Replicated3, ShareMismatch, shuffle
from partywire.workers.mpc.prf import KeyStream
from partywire.workers.mpc.shuffle import _order
from partywire.workers.values import PrfKey
from tests.support.local_sessions import LocalSession, local_sessions, run_parties
from tests.workers.mpc.programs import compute
from tests.workers.mpc.test_bits import U16, U32, U64
from tests.workers.mpc.test_protocol import assert_looks_uniform, bits_share, one_party, words_share

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXAMPLES = settings(max_examples=30)


@EXAMPLES
@given(st.sampled_from([U16, U32, U64]), st.integers(0, 12), st.sampled_from([(), (1,), (3,), (2, 0), (2, 2)]))
def test_the_same_rows_come_out_in_two_rounds(dtype: Any, n: int, row: tuple[int, ...]) -> None:
    plain = np.random.default_rng(n).integers(0, np.iinfo(dtype).max, (n, *row), dtype, endpoint=True)

    async def mix(mpc: Replicated3, shares: Any) -> Any:
        return await shuffle(mpc, shares[0])

    outcome = compute(mix, plain)
    assert outcome.opened.shape == plain.shape
    assert sorted(part.tobytes() for part in outcome.opened) == sorted(part.tobytes() for part in plain)
    assert (outcome.rounds, outcome.bytes_sent) == (2, [plain.nbytes, 2 * plain.nbytes, plain.nbytes])


def test_every_order_is_equally_likely() -> None:
    times, n = 1200, 3

    async def program(session: LocalSession) -> list[tuple[int, ...]]:
        # Fixed seeds make the counts the same in every run.
        seeds = [PrfKey(bytes([seed] * 16)) for seed in range(3)]
        mpc = Replicated3(session, KeyStream(seeds[session.party_index]), KeyStream(seeds[session.party_index - 1]))
        x = mpc.public(np.arange(n))
        return [tuple((await mpc.open(await shuffle(mpc, x))).tolist()) for _ in range(times)]

    seen, _ = run_parties(program)
    assert seen[0] == seen[1] == seen[2]
    expected = times / 6
    counts = [seen[0].count(order) for order in permutations(range(n))]
    assert sum((count - expected) ** 2 / expected for count in counts) < 20.5  # chi-square of 5 degrees, 1 in 1000


def test_a_share_after_a_shuffle_is_fresh_and_the_messages_look_uniform() -> None:
    count = 1 << 14

    async def program(session: LocalSession) -> tuple[Any, Any]:
        mpc = await Replicated3.setup(session)
        mixed = await shuffle(mpc, mpc.public(np.zeros(count, np.uint32)))
        return mixed.own, mixed.prev

    shares, sessions = run_parties(program)
    assert not sum(own for own, _ in shares).any()
    for index, (own, prev) in enumerate(shares):
        np.testing.assert_array_equal(prev, shares[index - 1][0])
        assert_looks_uniform(own.view(np.uint8))
        messages = [message for message in sessions[index].sent if isinstance(message, np.ndarray)]
        assert len(messages) == (2 if index == 1 else 1)
        for message in messages:
            assert_looks_uniform(message.view(np.uint8))


def test_no_party_can_draw_all_three_orders() -> None:
    async def program(session: LocalSession) -> list[NDArray[Any] | None]:
        mpc = await Replicated3.setup(session)
        return [_order(mpc, seed, 50) for seed in range(3)]

    known, _ = run_parties(program)
    for party, orders in enumerate(known):
        assert [order is None for order in orders] == [seed == (party + 1) % 3 for seed in range(3)]
    for seed in range(3):
        first, second = (orders[seed] for orders in known if orders[seed] is not None)
        np.testing.assert_array_equal(first, second)


def test_equal_sort_keys_are_drawn_anew_by_both_holders() -> None:
    """Ties would prefer some orders. No stream makes them in 64 bits, so that a small stand-in does."""

    class Stream:
        def __init__(self) -> None:
            self.draws = [np.array([7, 3, 7], np.uint64), np.array([2, 1, 0], np.uint64)]

        def draw(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
            assert shape == (3,)
            return self.draws.pop(0)

    session = local_sessions()[0]
    mpc = Replicated3(session, Stream(), Stream())  # type: ignore[arg-type]
    assert list(_order(mpc, 0, 3)) == [2, 1, 0]  # type: ignore[arg-type]
    assert list(_order(mpc, 2, 3)) == [2, 1, 0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [lambda: words_share(()), lambda: bits_share(1, (4,)), lambda: np.zeros(4, np.uint32)]
)
def test_what_has_no_rows_is_refused_before_anything_is_sent(wrong: Any) -> None:
    session = local_sessions()[0]
    with pytest.raises(ShareMismatch):
        asyncio.run(shuffle(one_party(session), wrong()))
    assert session.sent == []
