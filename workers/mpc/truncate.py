"""Division of secrets by a power of two: what fixed-point numbers need after each product.

With y = x + 2^(k-2), s = y_0 + y_2 known to party 0 and t = y_1 known to the two others, y = s + t - 2^k v, and

    floor(y / 2^f) = (s >> f) + (t >> f) + u - 2^(k-f) v,

where u is the carry out of the lowest f bits of s + t, and v the wrap of the whole sum. A public bound |x| < 2^(k-2)
makes the highest bit of y 0, so that v = s_top OR t_top = s_top + t_top - s_top t_top: one product of a bit of party 0
with a bit of the others (known.py), and never a wrong answer, where local truncation of shares, as in "SecureML" and in
the first protocol of ABY3, is wrong by 2^(k-f) with probability |x| / 2^k.

- `truncate` computes u too, by carry.py: the exact floor.
- `truncate_stochastic` leaves u out, which rounds up or down by the accident of x_1. Where that is uniform, computing
  from x - 1 and adding 1 makes the expected result x / 2^f exactly. 2 rounds.

Sources. Leaving out the carry: P. Mohassel, Y. Zhang, "SecureML", IEEE S&P 2017. The wrap from highest bits, when that
of the secret is known: Z. Huang, W. Lu, C. Hong, J. Ding, "Cheetah", USENIX Security 2022.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .bits import bit_slices, unpacked
from .carry import bit_of_sum
from .errors import NotInRing
from .known import known_half, known_to_others, product_of_halves, sum_known_to_0, sum_products
from .shares import require_words

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .known import Product
    from .protocol import Replicated3
    from .shares import ArithmeticShare

    Words = NDArray[Any]

__all__ = ["truncate", "truncate_stochastic"]


async def truncate(mpc: Replicated3, x: ArithmeticShare, shift: int) -> ArithmeticShare:
    """floor(x / 2^shift) of signed numbers, exact. Needs -2^(k-2) <= x < 2^(k-2) in a ring of k bits.

    The caller knows the bound from what is *public* about x; beyond it the answer is wrong, and nothing is revealed.
    Shapes: any -> the same. Rounds: 4 + ceil(log2(ceil(shift / 2))). Bytes per element: those of `truncate_stochastic`,
    w more by party 0, and the carry, for a shift by 8 bits 11/8 by each party and 12/8 more by party 0.

    Raises:
        NotInRing: `shift` is not between 1 and k - 2.
    """
    width = _width(x, shift)
    y = mpc.add_public(x, 1 << width - 2)
    s, t = sum_known_to_0(mpc, y), known_to_others(mpc, y)
    # The tree of carry.py takes positions in pairs; below an odd number of them goes one that is zero on both sides.
    zeros = shift % 2
    s_low, t_low = (None if words is None else bit_slices(words.reshape(-1), shift, zeros) for words in (s, t))
    low = shift + zeros
    carry = await bit_of_sum(mpc, s_low, t_low, bits=low, position=low, count=x.size)
    mine = unpacked(known_half(mpc, carry)[0], x.shape, x.dtype)
    part, wrap = _parts(mpc, s, t, x, shift)
    if mpc.party_index != 2:  # the carry is c + d - 2cd, and d is known to two parties
        np.add(part, mine, out=part)
    product = product_of_halves(mpc, mine, 1, is_negative=True)
    return mpc.add_public(await sum_products(mpc, part, [wrap, product]), -(1 << width - 2 - shift))


async def truncate_stochastic(mpc: Replicated3, x: ArithmeticShare, shift: int) -> ArithmeticShare:
    """x / 2^shift, rounded up with the probability of the fraction, else down: the error is below 1, and 0 on average.

    Multiples of 2^shift are exact. Needs -2^(k-2) < x <= 2^(k-2) in a ring of k bits, by a public bound as for
    `truncate`. The chance is that of the share: two calls on one share round alike, and an input of party 0 or a public
    value, whose component x_1 is 0, is always rounded up. Products and inputs of the others have a uniform x_1.

    The result depends on the share, so that opening it tells more than its distribution does: every party, party 0
    knowing x_0 + x_2 and the others x_1, sees an interval of 2^shift numbers with x in it that begins anywhere, not at
    a multiple of 2^shift. The same secret opened from several shares narrows it. Where that matters, use `truncate`.

    Shapes: any -> the same. 2 rounds. Each party sends w bytes per element, party 0 besides the 1, 2, 4 or 8 bytes
    that hold `shift` bits.

    Raises:
        NotInRing: `shift` is not between 1 and k - 2.
    """
    width = _width(x, shift)
    y = mpc.add_public(x, (1 << width - 2) - 1)
    part, wrap = _parts(mpc, sum_known_to_0(mpc, y), known_to_others(mpc, y), x, shift)
    return mpc.add_public(await sum_products(mpc, part, [wrap]), 1 - (1 << width - 2 - shift))


def _width(x: ArithmeticShare, shift: int) -> int:
    require_words("truncation", x)
    width = 8 * x.dtype.itemsize
    if not 1 <= shift <= width - 2:
        raise NotInRing("truncation", f"a shift by {shift} bits", f"1 to {width - 2} bits")
    return width


def _parts(mpc: Replicated3, s: Words | None, t: Words | None, x: ArithmeticShare, shift: int) -> tuple[Words, Product]:
    """What each party adds of its own to (s >> shift) + (t >> shift) - 2^(k-shift) v, and the product in v."""
    width = 8 * x.dtype.itemsize
    down, top, up = (x.dtype.type(count) for count in (shift, width - 1, width - shift))
    mine = t if s is None else s
    assert mine is not None  # party 0 knows s, the others t
    highest = np.asarray(mine >> top)
    part = np.zeros(x.shape, x.dtype)
    if mpc.party_index != 2:  # t is known to two parties, and counts once
        np.subtract(mine >> down, highest << up, out=part)
    return part, product_of_halves(mpc, highest, width - shift)
