"""Bits of many secrets side by side: packed into slices, and the carries of an addition.

An addition of two numbers with bits s_i and t_i has p_i = s_i ^ t_i and g_i = s_i & t_i, and a carry leaves a group of
positions if the group makes one itself (g) or passes one on (p). Neighbouring groups join by

    (g, p) = (g_high ^ p_high & g_low,  p_high & p_low),

and the lowest group never propagates, as no carry enters it. `carry_out` needs only the root of that tree, and
`prefix_carries` every prefix. Where the two numbers come from is told in carry.py and convert.py.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from .shares import BinaryShare, packed_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .protocol import Replicated3

    Words = NDArray[Any]

__all__ = ["bit_slices", "carry_out", "interleaved", "prefix_carries", "unpacked"]


def bit_slices(words: NDArray[Any], bits: int, zeros_below: int = 0) -> NDArray[np.uint8]:
    """The lowest `bits` bits of unsigned words, transposed and packed: (n,) -> (bits, ceil(n / 8)). Local.

    `zeros_below` slices of zeros come first, for trees that take positions in pairs.
    """
    slices = np.zeros((zeros_below + bits, packed_size(words.size)), np.uint8)
    for position in range(bits):
        # 7 us per bit of 24,000 words. Masked swaps on 8x8 blocks would take 4, in thrice the lines: not worth it.
        bit = words & words.dtype.type(1 << position)
        slices[zeros_below + position] = np.packbits(bit != 0, bitorder="little")
    return slices


def unpacked(packed: NDArray[np.uint8], shape: tuple[int, ...], dtype: np.dtype[Any]) -> Words:
    """One slice of packed bits as words 0 and 1. Local."""
    return np.unpackbits(packed, count=prod(shape), bitorder="little").astype(dtype).reshape(shape)


def interleaved(even: BinaryShare, odd: BinaryShare) -> BinaryShare:
    """The slices even[0], odd[0], even[1], ...; `even` has as many as `odd` or one more. Local."""
    size = (even.slices + odd.slices, even.own.shape[1])
    own, prev = np.empty(size, np.uint8), np.empty(size, np.uint8)
    own[0::2], own[1::2], prev[0::2], prev[1::2] = even.own, odd.own, even.prev, odd.prev
    return BinaryShare(own, prev, even.shape)


async def carry_out(mpc: Replicated3, generate: BinaryShare, propagate: BinaryShare) -> BinaryShare:
    """The carry out of m bit positions: `generate` has m slices, lowest first, `propagate` those of positions 1 to m-1.

    Rounds: ceil(log2(m)). ANDs per element: for each joined pair of a level two, less one for the lowest pair.
    """
    while generate.slices > 1:
        pairs = generate.slices // 2
        high_p, low_p = propagate[0 : 2 * pairs : 2], propagate[1 : 2 * pairs - 1 : 2]
        low_g, high_g = generate[0 : 2 * pairs : 2], generate[1 : 2 * pairs : 2]
        joined = await mpc.and_(BinaryShare.concatenate([high_p, high_p[1:]]), BinaryShare.concatenate([low_g, low_p]))
        # An odd highest position has no partner on this level and goes up as it is.
        generate = BinaryShare.concatenate([high_g ^ joined[:pairs], generate[2 * pairs :]])
        propagate = BinaryShare.concatenate([joined[pairs:], propagate[2 * pairs - 1 :]])
    return generate


async def prefix_carries(
    mpc: Replicated3, generate: BinaryShare, propagate: BinaryShare, joined_levels: int = 0
) -> BinaryShare:
    """The carry out of each of m positions, lowest first: Sklansky's tree. Both have m slices.

    Rounds: ceil(log2(m)) - joined_levels, where position i already speaks for the group of the positions
    i - i % 2^joined_levels to i. The propagate bit of a group that starts at 0 is not looked at.
    """
    m, step = generate.slices, 1 << joined_levels
    while step < m:
        high = [position for position in range(m) if position & step]
        inner = [position for position in high if position >= 2 * step]  # their groups do not reach position 0
        low, inner_low = ([position // step * step - 1 for position in some] for some in (high, inner))
        joined = await mpc.and_(
            BinaryShare.concatenate([propagate[high], propagate[inner]]),
            BinaryShare.concatenate([generate[low], propagate[inner_low]]),
        )
        generate = _replaced(generate, high, generate[high] ^ joined[: len(high)])
        propagate = _replaced(propagate, inner, joined[len(high) :])
        step *= 2
    return generate


def _replaced(bits: BinaryShare, positions: list[int], new: BinaryShare) -> BinaryShare:
    own, prev = bits.own.copy(), bits.prev.copy()
    own[positions], prev[positions] = new.own, new.prev
    return BinaryShare(own, prev, bits.shape)
