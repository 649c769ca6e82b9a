"""From ring elements to their bits and back.

To bits: party 0 deals the bits of s = x_0 + x_2, and those of t = x_1 are a share for nothing, as in carry.py, which
also tells how one round joins neighbouring positions. All carries of s + t come from a prefix tree of the least depth
(J. Sklansky, "Conditional-Sum Addition Logic", IRE Transactions on Electronic Computers, 1960).

From bits: a number b whose bits are shared is c + d - 2 * sum of 2^i c_i d_i, where party 0 knows c = b_2 ^ b_0 and
the two others d = b_1. The products cost one re-share (known.py), so that a conversion takes two rounds, not the depth
of an adder. It is bit injection (select.py) of all bits under one re-share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .bits import bit_slices, interleaved, prefix_carries, unpacked
from .errors import NotInRing, ShareMismatch
from .known import known_half, known_to_others, product_of_halves, share_of_others, sum_known_to_0, sum_products
from .shares import BinaryShare, packed_size, require_bits, require_words, ring_dtype

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from .protocol import Replicated3
    from .shares import ArithmeticShare

__all__ = ["to_arithmetic", "to_binary"]


async def to_binary(mpc: Replicated3, x: ArithmeticShare, bits: int | None = None) -> BinaryShare:
    """The lowest `bits` bits of each secret (all of them if None), one slice for each, lowest first.

    Shapes: any -> the same. Rounds: 1 + ceil(log2(bits - 1)), but 2 for two bits and none for one. Bytes per element
    and party: 50/8 for 16 bits, 136/8 for 32, 342/8 for 64; party 0 sends 23/8, 47/8 or 95/8 more.

    Raises:
        NotInRing: `bits` is not between 1 and the width of the ring.
    """
    require_words("conversion to bits", x)
    width = 8 * x.dtype.itemsize
    bits = width if bits is None else bits
    if not 1 <= bits <= width:
        raise NotInRing("conversion to bits", f"{bits} bits", f"1 to {width} bits")
    if bits == 1:  # no carry enters the lowest bit of a sum
        return BinaryShare(bit_slices(x.own.reshape(-1), 1), bit_slices(x.prev.reshape(-1), 1), x.shape)
    m = bits - 1  # positions that a carry can leave
    s_words, t_words = sum_known_to_0(mpc, x), known_to_others(mpc, x)
    dealt, known = (
        None if slices is None else np.concatenate([slices, slices[1:m:2] & slices[0 : m - 1 : 2]])
        for slices in (None if words is None else bit_slices(words.reshape(-1), bits) for words in (s_words, t_words))
    )
    size = (bits + m // 2, packed_size(x.size))
    s = BinaryShare(*await mpc.deal_bits(0, dealt, size), x.shape)
    t = share_of_others(mpc, known, size, x.shape)

    # Round 2: g at the even positions, (g, p) of two positions at the odd ones, except that no p is needed at 1.
    even, odd, below, both = slice(0, m, 2), slice(1, m, 2), slice(0, m - 1, 2), slice(bits, None)
    part = np.concatenate(
        [
            mpc.and_part(s[even], t[even]),
            mpc.and_part(s[odd], t[odd]) ^ mpc.and_part(s[both], t[below]) ^ mpc.and_part(s[below], t[both]),
            (mpc.and_part(s[odd], t[below]) ^ mpc.and_part(s[below], t[odd]))[1:],
        ]
    )
    joined = await mpc.reshare_bits(part, x.shape)
    ones, pairs = (m + 1) // 2, m // 2
    sums = (s ^ t)[:bits]
    propagate_pairs = joined[ones + pairs :] ^ s[bits + 1 :] ^ t[bits + 1 :]
    generate = interleaved(joined[:ones], joined[ones : ones + pairs])
    propagate = interleaved(sums[even], BinaryShare.concatenate([sums[odd][:1], propagate_pairs]))
    carries = await prefix_carries(mpc, generate, propagate, joined_levels=1)
    return BinaryShare.concatenate([sums[:1], sums[1:] ^ carries])


async def to_arithmetic(mpc: Replicated3, bits: BinaryShare, dtype: DTypeLike = np.uint32) -> ArithmeticShare:
    """The numbers whose bits are the slices, lowest first, as ring elements from 0 to 2^slices - 1.

    Shapes: any -> the same. 2 rounds. Each party sends w bytes per element, party 0 besides those in which it deals
    the bits: for a whole word 22 for w = 2, 84 for 4, 336 for 8; for one bit w.

    Raises:
        NotInRing: `dtype` is no ring, or has fewer bits than there are slices.
        ShareMismatch: the share has no slice.
    """
    ring = ring_dtype(dtype)
    require_bits("conversion from bits", bits)
    if not bits.slices:
        raise ShareMismatch("conversion from bits", repr(bits), "at least one slice")
    width = 8 * ring.itemsize
    if bits.slices > width:
        raise NotInRing("conversion from bits", f"{bits.slices} slices for {ring}", f"at most {width} slices")
    mine = [unpacked(row, bits.shape, ring) for row in known_half(mpc, bits)]
    part = np.zeros(bits.shape, ring)
    if mpc.party_index != 2:  # d is known to two parties, and counts once
        for position, bit in enumerate(mine):
            np.add(part, np.left_shift(bit, ring.type(position)), out=part)
    products = [
        product_of_halves(mpc, bit, position + 1, is_negative=True)
        for position, bit in enumerate(mine[: width - 1])  # what counts 2^width times does not count
    ]
    return await sum_products(mpc, part, products)
