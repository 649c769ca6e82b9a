"""Comparison of secrets: the sign of a difference, and equality.

Party 0, who knows x_0 and x_2, adds them and deals the bits of s = x_0 + x_2; t = x_1 is known to the parties 1 and 2,
so its binary share costs nothing. That leaves two numbers instead of three, and no carry-save step. The highest bit of
their sum comes from the tree of carry.py; x is zero if and only if the bits of s are those of -t, which takes no carry.

Cost of a comparison of k bits: 2 + ceil(log2(k // 2)) rounds; in bytes sent by each party 3.3 for k = 16, 7.1 for 32,
15 for 64, and by party 0, which deals s, 3.1, 6.1 and 12.1 more. A Kogge-Stone adder on whole words would take one
round more and, for k = 32, 44 bytes. Equality takes 1 + ceil(log2 k) rounds and (k - 1) / 8 bytes, and k / 8 more
by party 0.

`bits` may be less than the ring: shares modulo 2^32 are shares modulo 2^k when their upper bits are dropped, so that a
public bound on the secrets makes a comparison cheaper. Dealing a sum that one party knows is due to P. Mohassel and
P. Rindal, "ABY3: A Mixed Protocol Framework for Machine Learning", ACM CCS 2018, where parties hold x_i, x_(i+1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .bits import bit_slices
from .carry import bit_of_sum
from .errors import NotInRing
from .known import known_to_others, share_of_others, sum_known_to_0
from .shares import BinaryShare, packed_size, require_words

if TYPE_CHECKING:
    from .protocol import Replicated3
    from .shares import ArithmeticShare

__all__ = ["equal", "is_zero", "less_than", "most_significant_bit"]


async def less_than(mpc: Replicated3, x: ArithmeticShare, y: ArithmeticShare, bits: int | None = None) -> BinaryShare:
    """Whether x < y as signed numbers, elementwise: shares of one slice of bits.

    Right as long as -2^(bits-1) <= x - y < 2^(bits-1), which the caller knows from a *public* bound on both; beyond it
    the answer is wrong, and nothing is revealed. `bits` is the width of the ring if None. Cost: most_significant_bit.
    """
    require_words("a comparison", x, y)
    return await most_significant_bit(mpc, x - y, bits)


async def most_significant_bit(mpc: Replicated3, x: ArithmeticShare, bits: int | None = None) -> BinaryShare:
    """Bit `bits` - 1 of each secret (the highest of the ring if None): the sign of a number of that width.

    Shapes: any -> the same, one slice. Rounds: 2 + ceil(log2(bits // 2)); 5 for 16, 6 for 32, 7 for 64. Bytes per
    element and party: 26/8 for 16 bits, 57/8 for 32, 120/8 for 64, one bit for each re-shared product; party 0 sends
    25/8, 49/8 or 97/8 more.

    Raises:
        NotInRing: `bits` is not between 2 and the width of the ring.
    """
    bits = _width(x, bits, "the most significant bit", 2)
    # The tree takes positions in pairs. Below an odd number of them goes one that is zero on both sides.
    zeros = (bits - 1) % 2
    s, t = (
        None if words is None else bit_slices(words.reshape(-1), bits, zeros)
        for words in (sum_known_to_0(mpc, x), known_to_others(mpc, x))
    )
    top = await bit_of_sum(mpc, s, t, bits=bits + zeros, position=bits + zeros - 1, count=x.size)
    return BinaryShare(top.own, top.prev, x.shape)


async def equal(mpc: Replicated3, x: ArithmeticShare, y: ArithmeticShare, bits: int | None = None) -> BinaryShare:
    """Whether x = y, elementwise. Right as long as |x - y| < 2^bits by a public bound; else `is_zero` of x - y."""
    require_words("a comparison", x, y)
    return await is_zero(mpc, x - y, bits)


async def is_zero(mpc: Replicated3, x: ArithmeticShare, bits: int | None = None) -> BinaryShare:
    """Whether the lowest `bits` bits of each secret are all 0 (those of the ring if None): x = 0 modulo 2^bits.

    Shapes: any -> the same, one slice. Rounds: 1 + ceil(log2(bits)); 5 for 16, 6 for 32, 7 for 64. Bytes per element
    and party: (bits - 1) / 8; party 0 sends bits / 8 more.

    Raises:
        NotInRing: `bits` is not between 1 and the width of the ring.
    """
    bits = _width(x, bits, "a comparison with zero", 1)
    s_words, t_words = sum_known_to_0(mpc, x), known_to_others(mpc, x)
    size = (bits, packed_size(x.size))
    dealt = None if s_words is None else bit_slices(s_words.reshape(-1), bits)
    s = BinaryShare(*await mpc.deal_bits(0, dealt, size), x.shape)
    known = None if t_words is None else bit_slices(np.negative(t_words).reshape(-1), bits)
    t = share_of_others(mpc, known, size, x.shape)
    same = mpc.invert(s ^ t)
    while same.slices > 1:
        pairs = same.slices // 2
        joined = await mpc.and_(same[0 : 2 * pairs : 2], same[1 : 2 * pairs : 2])
        same = BinaryShare.concatenate([joined, same[2 * pairs :]])
    return same


def _width(x: ArithmeticShare, bits: int | None, operation: str, least: int) -> int:
    require_words(operation, x)
    width = 8 * x.dtype.itemsize
    bits = width if bits is None else bits
    if not least <= bits <= width:
        raise NotInRing(operation, f"{bits} bits", f"{least} to {width} bits")
    return bits
