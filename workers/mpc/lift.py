"""From a ring to a wider one: shares of x modulo 2^w become shares of the same number modulo 2^k.

The components of a share of x, taken as numbers, add up to x plus a multiple of 2^w, and that multiple is what has to
be found. Party 0 adds its two and knows s = x_0 + x_2 mod 2^w; t = x_1 is known to the parties 1 and 2. Then

    x = s + t - 2^w * v    with one unknown bit v, the carry of the sum,

where s and t are additive parts in any ring, and v is needed modulo 2^(k-w) only.

- `lift` takes any x. carry.py gives v as a shared bit c ^ d of which party 0 knows c and the others d, and as a number
  it is c + d - 2cd.
- `lift_small` takes x of which a *public* bound is known, a quarter of the ring. Shifted into [0, 2^(w-1)), x has a
  highest bit of 0, so that v = s_top OR t_top = s_top + t_top - s_top * t_top: no carry to compute.

What is left of both is one product of a bit of party 0 with a bit of the others (known.py).

Reading a wrap off the highest bits when that of the secret is known is done between two parties in Z. Huang, W. Lu,
C. Hong, J. Ding, "Cheetah: Lean and Fast Secure Two-Party Deep Neural Network Inference", USENIX Security 2022. The
way to a narrower ring is local: drop the upper bits of both components.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .bits import bit_slices, unpacked
from .carry import bit_of_sum
from .errors import NotInRing, ShareMismatch, described
from .known import known_half, known_to_others, product_of_halves, sum_known_to_0, sum_products
from .shares import ArithmeticShare, ring_dtype

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from .protocol import Replicated3

    Words = NDArray[Any]

__all__ = ["lift", "lift_small"]


async def lift(mpc: Replicated3, x: ArithmeticShare, dtype: DTypeLike, *, signed: bool = False) -> ArithmeticShare:
    """Any x of a narrow ring in a wider one, as a number from 0 to 2^w - 1, or from -2^(w-1) if `signed`.

    Shapes: any -> the same. Rounds: 7 for w = 16, 8 for 32. Bytes per element, W being those of an element of the wide
    ring: W + 26/8 for w = 16 and W + 57/8 for 32 by each party; party 0 besides 3 or 6, and the bytes of the narrowest
    word that holds k - w - 1 bits.

    Raises:
        NotInRing: `dtype` is no ring or not wider than that of x.
        ShareMismatch: x is no arithmetic share.
    """
    wide, w = _rings(x, dtype)
    offset = 1 << w - 1 if signed else 0
    x = mpc.add_public(x, offset)
    s, t = sum_known_to_0(mpc, x), known_to_others(mpc, x)
    s_slices, t_slices = (None if words is None else bit_slices(words.reshape(-1), w) for words in (s, t))
    carry = await bit_of_sum(mpc, s_slices, t_slices, bits=w, position=w, count=x.size)
    bit = unpacked(known_half(mpc, carry)[0], x.shape, wide)
    part = np.zeros(x.shape, wide)
    if mpc.party_index != 2:  # t and d are known to two parties, and count once
        part += _first(s, t).astype(wide) - (bit << wide.type(w))
    return mpc.add_public(await sum_products(mpc, part, [product_of_halves(mpc, bit, w + 1)]), -offset)


async def lift_small(mpc: Replicated3, x: ArithmeticShare, dtype: DTypeLike) -> ArithmeticShare:
    """x with -2^(w-2) <= x < 2^(w-2), as a signed number, in a wider ring.

    The caller knows the bound from what is *public* about x; beyond it the answer is wrong, and nothing is revealed.
    Shapes: any -> the same. 2 rounds. Bytes per element: those of one of the wide ring by each party; party 0 besides
    those of the narrowest word that holds k - w bits.

    Raises:
        NotInRing: `dtype` is no ring or not wider than that of x.
        ShareMismatch: x is no arithmetic share.
    """
    wide, w = _rings(x, dtype)
    offset = 1 << w - 2
    x = mpc.add_public(x, offset)
    s, t = sum_known_to_0(mpc, x), known_to_others(mpc, x)
    mine = _first(s, t)
    part = np.zeros(x.shape, wide)
    if mpc.party_index != 2:
        # s - 2^w s_top is s read as a signed number, which keeps its value when it is widened.
        part += mine.view(f"i{w // 8}").astype(wide)
    highest = mine >> mine.dtype.type(w - 1)
    return mpc.add_public(await sum_products(mpc, part, [product_of_halves(mpc, highest, w)]), -offset)


def _rings(x: ArithmeticShare, dtype: DTypeLike) -> tuple[np.dtype[Any], int]:
    """The wide ring, and the bits of the narrow one."""
    if not isinstance(x, ArithmeticShare):
        raise ShareMismatch("a lift", described(x), "an arithmetic share")
    wide = ring_dtype(dtype)
    if wide.itemsize <= x.dtype.itemsize:
        raise NotInRing("a lift", f"{wide} for a share over {x.dtype}", "a wider ring")
    return wide, 8 * x.dtype.itemsize


def _first(s: Words | None, t: Words | None) -> Words:
    """Whichever this party knows: s at party 0, t at the others."""
    known = t if s is None else s
    assert known is not None
    return known
