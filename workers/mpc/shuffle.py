"""Secret shuffling: the rows of an array in an order that no party knows.

Source: T. Araki, J. Furukawa, K. Ohara, B. Pinkas, H. Rosemarin, H. Tsuchida, "Secure Graph Analysis at Scale", ACM CCS
2021, section 5.2, with the last messages arranged so that all of them go to the next party.

Of three permutations, pi_j is drawn from the seed k_j and so is known to the parties j and j + 1 alone; the rows go
through pi_0, pi_2 and pi_1. Two halves of the secret go that way, each masked before each permutation by Z_j, drawn
from the same seed, with opposite signs:

    X = x_0 + x_2:  party 0 adds Z_0, permutes by pi_0, adds Z_2, permutes by pi_2 -> party 1 adds Z_1, permutes by pi_1
    Y = x_1:        party 1 subtracts Z_0, permutes by pi_0 -> party 2 subtracts Z_2, permutes by pi_2, likewise by pi_1

Then y_0 = F(k_0), y_1 = X - y_0, which party 1 sends to party 2, and y_2 = Y, which party 2 sends to party 0.

Why nobody learns the order or a row: party 0 receives only Y, under Z_1, which it cannot draw, and does not know pi_1;
party 1 receives only X, under Z_2, and does not know pi_2; party 2 receives Y under Z_0 and X under y_0, and does not
know pi_0. So each message is uniform to its receiver, independent of the secrets, of the permutation that it does not
know and of all it saw before, and the result is a fresh share. A permutation is the order of distinct random 64-bit
numbers, which are drawn anew if two are equal: exactly uniform, as far as F is random.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ShareMismatch, described
from .shares import ArithmeticShare, require_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .protocol import Replicated3

    Words = NDArray[Any]

__all__ = ["shuffle"]

_SORT_KEY = np.dtype(np.uint64)


async def shuffle(mpc: Replicated3, x: ArithmeticShare) -> ArithmeticShare:
    """The elements along the first axis in a fresh, uniformly random order; each stays whole: (n, *s) -> (n, *s).

    To shuffle several arrays alike, stack them along another axis. 2 rounds. Party 1 sends 2 w bytes per element, the
    others w.

    Raises:
        ShareMismatch: x has no axis.
    """
    require_words("shuffling", x)
    if not x.shape:
        raise ShareMismatch("shuffling", described(x), "a first axis")
    step_of = {seed: step for seed in range(3) if (step := _step(mpc, seed, x.shape, x.dtype)) is not None}
    fresh = _drawn(mpc, 0, x.shape, x.dtype)
    if mpc.party_index == 0:
        half = np.asarray(x.own + x.prev)
        for seed in (0, 2):
            half = step_of[seed].moved(np.add, half)
        await mpc.exchange(half, 0, x.dtype)
        received = await mpc.exchange(None, x.size, x.dtype)
        assert fresh is not None  # the parties 0 and 1 know seed 0
        return ArithmeticShare(fresh, received.reshape(x.shape))
    if mpc.party_index == 1:
        received = await mpc.exchange(step_of[0].moved(np.subtract, x.own), x.size, x.dtype)
        half = step_of[1].moved(np.add, received.reshape(x.shape))
        assert fresh is not None
        np.subtract(half, fresh, out=half)
        await mpc.exchange(half, 0, x.dtype)
        return ArithmeticShare(half, fresh)
    half = (await mpc.exchange(None, x.size, x.dtype)).reshape(x.shape)
    for seed in (2, 1):
        half = step_of[seed].moved(np.subtract, half)
    received = await mpc.exchange(half, x.size, x.dtype)
    return ArithmeticShare(half, received.reshape(x.shape))


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class _Step:
    """What two parties do to the rows: the mask and the order that they draw from the seed that they share."""

    mask: Words
    order: NDArray[np.intp]

    def moved(self, masked_by: Callable[[Words, Words], Words], half: Words) -> Words:
        return np.asarray(masked_by(half, self.mask)[self.order])


def _step(mpc: Replicated3, seed: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> _Step | None:
    order, mask = _order(mpc, seed, shape[0]), _drawn(mpc, seed, shape, dtype)
    return None if order is None or mask is None else _Step(mask, order)


def _drawn(mpc: Replicated3, seed: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Words | None:
    """Fresh words of F(k_seed), which the parties `seed` and `seed` + 1 know; None at the third."""
    return mpc.mask_of((seed + 1) % 3, shape, dtype)


def _order(mpc: Replicated3, seed: int, count: int) -> NDArray[np.intp] | None:
    """A uniform permutation from F(k_seed). Both of its holders draw anew in the same cases."""
    while True:
        keys = _drawn(mpc, seed, (count,), _SORT_KEY)
        if keys is None:
            return None
        order = np.argsort(keys)
        ranked = keys[order]
        if not (ranked[1:] == ranked[:-1]).any():
            return order
