"""Sums of products of a bit that party 0 knows with a bit that the parties 1 and 2 know, at the price of one re-share.

x_0 + x_2 is known to party 0 and x_1 to the two others, of bits as of ring elements; so every non-linear step that is
left after splitting a share in that way is such a product, c * d. Party 0 deals c. The component that it keeps with
party 2 is multiplied by d there, the other by party 1, which gives additive parts of c * d; any number of products, and
whatever a party can add of its own, is added up locally and re-shared at once.

A product that counts 2^j times is needed modulo 2^(k-j) only, so that c may be dealt in a narrower ring. Round 1 is a
deal and round 2 a re-share, as in protocol.py, and its argument covers this protocol: party 1 receives c - F(k_2), of
which it does not hold the seed, and every part is re-shared under a fresh zero share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .shares import BinaryShare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .protocol import Replicated3
    from .shares import ArithmeticShare

    Words = NDArray[Any]

__all__ = [
    "Product",
    "known_half",
    "known_to_others",
    "product_of_halves",
    "share_of_others",
    "sum_known_to_0",
    "sum_products",
]

_BYTE = np.dtype(np.uint8)
_DEALT_IN = (_BYTE, np.dtype(np.uint16), np.dtype(np.uint32), np.dtype(np.uint64))


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Product:
    """+-2^shift * c * d: `first` is c at party 0, `second` is d at the others, words 0 and 1 of any unsigned dtype."""

    first: Words | None
    second: Words | None
    shift: int
    is_negative: bool = False


def sum_known_to_0(mpc: Replicated3, x: ArithmeticShare) -> Words | None:
    """x_0 + x_2 at party 0. Local."""
    return np.asarray(x.own + x.prev) if mpc.party_index == 0 else None


def known_to_others(mpc: Replicated3, x: ArithmeticShare) -> Words | None:
    """x_1 at the parties 1 and 2. Local."""
    return {0: None, 1: x.own, 2: x.prev}[mpc.party_index]


def known_half(mpc: Replicated3, bits: BinaryShare) -> NDArray[np.uint8]:
    """Of bits c ^ d what this party knows, packed: c = b_2 ^ b_0 at party 0, d = b_1 at the parties 1 and 2. Local."""
    return {0: bits.own ^ bits.prev, 1: bits.own, 2: bits.prev}[mpc.party_index]


def product_of_halves(mpc: Replicated3, mine: Words, shift: int, *, is_negative: bool = False) -> Product:
    """The product of c and d, of which `mine` is the one that this party knows, as words 0 and 1. Local."""
    is_first = mpc.party_index == 0
    return Product(mine if is_first else None, None if is_first else mine, shift, is_negative)


def share_of_others(
    mpc: Replicated3, packed: NDArray[np.uint8] | None, size: tuple[int, int], shape: tuple[int, ...]
) -> BinaryShare:
    """A share of bits that the parties 1 and 2 know, all in component 1; party 0 gives None. Local."""
    zero = np.zeros(size, np.uint8)
    known = zero if packed is None else packed
    return BinaryShare(known if mpc.party_index == 1 else zero, known if mpc.party_index == 2 else zero, shape)


async def sum_products(mpc: Replicated3, part: Words, products: Sequence[Product]) -> ArithmeticShare:
    """The parts of all parties and the products, added up. `part` is taken over; shifts are the same everywhere.

    At least one product. 2 rounds. Each party sends w bytes per element, party 0 besides for each product the 1, 2, 4
    or 8 bytes that hold k - shift bits.
    """
    ring, shape = part.dtype, part.shape
    rings = [_narrowest(8 * ring.itemsize, product.shift) for product in products]
    masks = [mpc.mask_of(0, shape, narrow) for narrow in rings]
    outgoing = None
    if mpc.party_index == 0:
        hidden = [
            _as_bytes(np.subtract(np.asarray(product.first, narrow), mask))
            for product, narrow, mask in zip(products, rings, masks, strict=True)
            if mask is not None  # party 0 holds the seed of every mask
        ]
        outgoing = np.concatenate(hidden)
    sizes = [part.size * narrow.itemsize for narrow in rings]
    received = await mpc.exchange(outgoing, sum(sizes) if mpc.party_index == 1 else 0, _BYTE)
    if mpc.party_index == 1:
        pieces = np.split(received, np.cumsum(sizes)[:-1])
        components = [_of_bytes(piece, narrow, shape) for piece, narrow in zip(pieces, rings, strict=True)]
    else:
        components = [mask for mask in masks if mask is not None]
    if mpc.party_index != 0:
        for product, component in zip(products, components, strict=True):
            term = np.multiply(component.astype(ring), np.asarray(product.second, ring))
            term = np.left_shift(term, ring.type(product.shift))
            (np.subtract if product.is_negative else np.add)(part, term, out=part)
    return await mpc.reshare(part)


def _narrowest(width: int, shift: int) -> np.dtype[Any]:
    return next(narrow for narrow in _DEALT_IN if 8 * narrow.itemsize >= width - shift)


def _as_bytes(words: Words) -> NDArray[np.uint8]:
    """Little-endian, whatever the machine."""
    return np.ascontiguousarray(words, words.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)


def _of_bytes(received: NDArray[np.uint8], dtype: np.dtype[Any], shape: tuple[int, ...]) -> Words:
    return received.view(dtype.newbyteorder("<")).reshape(shape)
