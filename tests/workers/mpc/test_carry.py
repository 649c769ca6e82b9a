"""A bit of a sum against integer addition: every pair of small numbers, every position, the exact cost, misuse."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from partywire.workers.mpc import NotInRing, Replicated3
from partywire.workers.mpc.bits import bit_slices
from partywire.workers.mpc.carry import bit_of_sum
from tests.support.local_sessions import LocalSession, local_sessions, run_parties
from tests.workers.mpc.test_protocol import one_party

if TYPE_CHECKING:
    from numpy.typing import NDArray


def opened_bit(
    s: NDArray[Any], t: NDArray[Any], bits: int, position: int
) -> tuple[NDArray[np.bool_], int, list[int], list[list[int]]]:
    """The opened bit, rounds and bytes of it alone, and the sizes of all messages."""

    async def program(session: LocalSession) -> tuple[NDArray[np.bool_], int, int]:
        mpc = await Replicated3.setup(session)
        slices = bit_slices(s if mpc.party_index == 0 else t, bits)
        of_s, of_t = (slices, None) if mpc.party_index == 0 else (None, slices)
        rounds, size = mpc.rounds, mpc.bytes_sent
        bit = await bit_of_sum(mpc, of_s, of_t, bits=bits, position=position, count=s.size)
        rounds, size = mpc.rounds - rounds, mpc.bytes_sent - size
        return await mpc.open_bits(bit), rounds, size

    outcomes, sessions = run_parties(program)
    sizes = [[message.nbytes for message in session.sent if isinstance(message, np.ndarray)] for session in sessions]
    for opened, rounds, _ in outcomes:
        np.testing.assert_array_equal(opened, outcomes[0][0])
        assert rounds == outcomes[0][1]
    return outcomes[0][0], outcomes[0][1], [size for _, _, size in outcomes], sizes


@pytest.mark.parametrize(("bits", "position"), [(2, 2), (3, 2), (4, 4), (5, 4), (6, 6), (7, 6)])
def test_every_sum_of_two_small_numbers_has_the_right_bit(bits: int, position: int) -> None:
    s, t = (part.reshape(-1).astype(np.uint32) for part in np.mgrid[: 1 << bits, : 1 << bits])
    opened = opened_bit(s, t, bits, position)[0]
    np.testing.assert_array_equal(opened, (s + t) >> position & 1)


@pytest.mark.parametrize(
    ("bits", "position", "rounds", "dealt", "products"),
    [(2, 2, 2, 3, 1), (16, 16, 5, 24, 26), (17, 16, 5, 25, 26), (32, 32, 6, 48, 57), (63, 62, 7, 94, 116)],
)
def test_a_bit_of_a_sum_costs_what_the_docstring_says(
    bits: int, position: int, rounds: int, dealt: int, products: int
) -> None:
    rng = np.random.default_rng(bits)
    s, t = (rng.integers(0, 1 << bits, 80, np.uint64) for _ in range(2))
    s[:3], t[:3] = (1 << bits) - 1, [0, 1, (1 << bits) - 1]  # a carry through all positions
    opened, seen_rounds, bytes_sent, sizes = opened_bit(s, t, bits, position)
    expected = [(int(a) + int(b)) >> position & 1 for a, b in zip(s, t, strict=True)]
    np.testing.assert_array_equal(opened, expected)
    assert seen_rounds == rounds
    assert bytes_sent == [10 * (dealt + products), 10 * products, 10 * products]
    zeros = np.zeros_like(s)
    assert opened_bit(zeros, zeros, bits, position)[3] == sizes  # what is sent depends on no secret


@pytest.mark.parametrize(
    ("given", "bits", "position"),
    [
        ("s", 3, 3),  # odd
        ("s", 4, 2),  # neither the highest nor the carry
        ("s", 1, 0),
        ("t", 4, 4),  # not what party 0 knows
        ("both", 4, 4),
        ("none", 4, 4),
        ("short", 4, 4),
    ],
)
def test_misuse_is_refused_before_anything_is_sent(given: str, bits: int, position: int) -> None:
    session = local_sessions()[0]
    slices = np.zeros((3 if given == "short" else bits, 1), np.uint8)
    s = slices if given in ("s", "both", "short") else None
    t = slices if given in ("t", "both") else None
    with pytest.raises(NotInRing):
        asyncio.run(bit_of_sum(one_party(session), s, t, bits, position, 8))
    assert session.sent == []
