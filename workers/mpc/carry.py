"""One bit of a sum of two numbers, of which party 0 knows one and the parties 1 and 2 know the other.

This is what a comparison or a change of rings comes down to once x_0 + x_2 is added up by party 0: s is known to it,
t = x_1 to the others. A product of something that only party 0 knows with something that only the others know costs
one bit to re-share, and so does a *sum* of such products. Hence two neighbouring positions are joined at once: with
p = s ^ t and g = s & t,

    G = g_1 ^ p_1 g_0 = s_1 t_1 ^ (s_1 s_0) t_0 ^ s_0 (t_1 t_0),
    P = p_1 p_0       = s_1 s_0 ^ s_1 t_0 ^ s_0 t_1 ^ t_1 t_0,

where party 0 deals s_1 s_0 beside s_1 and s_0, and t_1 t_0 is free. One round and two bits do what takes the tree of
bits.py two rounds and four bits; the rest is that tree. Every message is a deal or a re-share of protocol.py, so its
argument covers this protocol too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .bits import carry_out
from .errors import NotInRing
from .known import share_of_others
from .shares import BinaryShare, packed_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .protocol import Replicated3

    Slices = NDArray[np.uint8]

__all__ = ["bit_of_sum"]


async def bit_of_sum(
    mpc: Replicated3, s: Slices | None, t: Slices | None, bits: int, position: int, count: int
) -> BinaryShare:
    """One bit of s + t for `count` pairs of numbers of `bits` bits: the highest (`position` = `bits` - 1) or the carry
    (`position` = `bits`).

    `s` is given by party 0 alone and `t` by the parties 1 and 2 alone, as slices (see bits.bit_slices). `position` is
    even, at least 2. Rounds: 2 + ceil(log2(position / 2)). Bytes per pair and party: one bit for each of the
    `position` - 1 products of the first level and the ANDs of carry_out; party 0 deals `bits` + `position` / 2 bits.

    Raises:
        NotInRing: `position` is not one of these, or a party gives what it should not know or in another size.
    """
    if position not in (bits - 1, bits) or position % 2 or position < 2:
        raise NotInRing("a bit of a sum", f"position {position} of {bits} bits", "the highest or the carry, if even")
    size = (bits, packed_size(count))
    given = [None if part is None else part.shape for part in (s, t)]
    if given != ([size, None] if mpc.party_index == 0 else [None, size]):
        raise NotInRing("a bit of a sum", f"slices of {given}", f"{size}, s at party 0 and t at the others")
    products = None if s is None else np.concatenate([s, s[1:position:2] & s[0:position:2]])
    dealt_size = (bits + position // 2, size[1])
    dealt = BinaryShare(*await mpc.deal_bits(0, products, dealt_size), (count,))
    known = None if t is None else np.concatenate([t, t[1:position:2] & t[0:position:2]])
    free = share_of_others(mpc, known, dealt_size, (count,))

    low, high = slice(0, position, 2), slice(1, position, 2)
    s_low, s_high, s_both = dealt[low], dealt[high], dealt[bits:]
    t_low, t_high, t_both = free[low], free[high], free[bits:]
    joined = await mpc.reshare_bits(
        np.concatenate(
            [
                mpc.and_part(s_high, t_high) ^ mpc.and_part(s_both, t_low) ^ mpc.and_part(s_low, t_both),
                # The lowest pair needs no P, as no carry enters it.
                mpc.and_part(s_high[1:], t_low[1:]) ^ mpc.and_part(s_low[1:], t_high[1:]),
            ]
        ),
        (count,),
    )
    pairs = position // 2
    carry = await carry_out(mpc, joined[:pairs], joined[pairs:] ^ s_both[1:] ^ t_both[1:])
    return carry if position == bits else carry ^ dealt[position : position + 1] ^ free[position : position + 1]
