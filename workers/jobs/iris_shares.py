"""Shamir shares of iris codes over a Galois ring, and the product of two of them that needs no message.

The ring is R = Z_2^17[X] / (X^2 + X + 1), in which X is a third root of unity. A vector over Z_2^17 is cut into pairs
(a_0, a_1), each standing for a_0 + a_1 X. To share a, its owner draws a random element c; party i gets the value of
a + c Y at Y = X^i. One party's value says nothing about a: c X^i is uniform, as X is a unit.

The three products of two parties' values are values of a polynomial of degree 2, and as 1 + X + X^2 = 0,

    f(0) = (f(1) + f(X) + f(X^2)) / 3,

so that a third of its own product is each party's additive part of the product of the secrets. If one side's pairs are
stored as (b_0, -b_1), the coefficient of 1 of that product is a_0 b_0 + a_1 b_1. Hence an inner product of vectors over
Z_2^17 costs each party one inner product of words of 17 bits, and a share is as long as the vector. Replicated shares
would take twice the memory and twice the multiplications.

17 bits suffice: what is computed is d = m - 4 (m - 2 h) = 8 h - 3 m, between -38,400 and 64,000, and negative if and
only if the codes match (iris_codes.py). As d lies within 17 bits already, nothing has to be lifted to a wider ring.

The words are multiplied as float64 by BLAS, exactly: a sum of 25,600 products of two 17-bit words is below 2^49, and
float64 holds all integers up to 2^53. Rotating moves whole pairs, so a share of a code is rotated by its holder. Where
on both sides the mask is the same for the two bits of a pair, one word stands for both, and 19,200 words will do.

Sources: M. Abspoel, R. Cramer, I. Damgard, D. Escudero, C. Yuan, "Efficient Information-Theoretic Secure Multiparty
Computation over Z/p^k Z via Galois Rings", TCC 2019; iris-mpc shares its codes so, over a ring of degree 4 modulo 2^16.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from .iris_codes import PLACES, RINGS, ROTATIONS, IrisCodes, signed_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..mpc import Replicated3

    Words = NDArray[np.uint32]

__all__ = ["PAIRED_WORDS", "PLAIN_WORDS", "RING_BITS", "product", "share_codes"]

RING_BITS = 17
_WORD: np.dtype[Any] = np.dtype(np.uint32)
_WORD_MASK = np.uint32((1 << RING_BITS) - 1)
_THIRD = pow(3, -1, 1 << RING_BITS)

PLAIN_WORDS, PAIRED_WORDS = 8, 6
"""Words of a share for each place: 4 of the code, then 4 of the mask, or 2 if each stands for two bits of the mask."""

# What the words of a probe are multiplied by: -4 on the code, and on the mask 1, or 2 if paired. The second of a pair
# has the other sign, as X^2 = -1 - X has -1 at 1.
_FACTORS = {
    width: np.array([-4, 4, -4, 4, *[mask, -mask] * (width // 2 - 2)], np.int64) * _THIRD & int(_WORD_MASK)
    for width, mask in ((PLAIN_WORDS, 1), (PAIRED_WORDS, 2))
}

# One message while codes are shared: 26 MB.
_CODES_PER_MESSAGE = 256


async def share_codes(
    mpc: Replicated3, owner: int, codes: IrisCodes | None, count: int, width: int, *, conjugate: bool = False
) -> Words:
    """This party's share of `count` codes of `owner`, (count, 16, 200, width). The others give None.

    `width` is PLAIN_WORDS, or PAIRED_WORDS where the masks of both factors are paired. `conjugate` shares (b_0, -b_1)
    for each pair; of two factors one is shared so. Rounds: one for every 256 codes. The owner sends 12,800 * width
    bytes per code, the others nothing.
    """
    shares = np.empty((count, RINGS, PLACES, width), np.uint32)
    for first in range(0, count, _CODES_PER_MESSAGE):
        part = shares[first : first + _CODES_PER_MESSAGE]
        words = None if codes is None else _secret_words(codes[first : first + len(part)], width, conjugate=conjugate)
        part[...] = await _share_words(mpc, owner, words, part.shape)
    return shares


def product(gallery: Words, probes: Words) -> Words:
    """This party's additive parts of d modulo 2^17, (31 rotations, probes, gallery codes). Local.

    `gallery` is a conjugate share. Memory for a moment: 13 KB for each gallery code, 1 MB for each probe, and 16 bytes
    for each comparison.
    """
    shape = (len(ROTATIONS), len(probes), len(gallery))
    factors = _FACTORS[probes.shape[-1]]
    sums = np.zeros((shape[0] * shape[1], shape[2]), np.float64)
    places = (np.arange(PLACES) - np.array(ROTATIONS).reshape(-1, 1)) % PLACES
    for ring in range(RINGS):
        weighted = (probes[:, ring] * factors & int(_WORD_MASK)).astype(np.float64)
        rows = weighted[:, places].swapaxes(0, 1).reshape(shape[0] * shape[1], -1)
        sums += rows @ gallery[:, ring].reshape(len(gallery), -1).astype(np.float64).T
    return (sums.astype(np.int64) & int(_WORD_MASK)).astype(np.uint32).reshape(shape)


def _secret_words(codes: IrisCodes, width: int, *, conjugate: bool) -> Words:
    masks = codes.masks if width == PLAIN_WORDS else codes.masks[..., 0::2]
    words = np.concatenate([signed_bits(codes), masks.astype(np.int8)], axis=-1)
    if conjugate:
        words[..., 1::2] *= -1
    return _reduced(words.astype(np.uint32))


async def _share_words(mpc: Replicated3, owner: int, words: Words | None, shape: tuple[int, ...]) -> Words:
    """One value per party of a + c Y, where c is such that the party before the owner has words of its own stream."""
    drawn = mpc.mask_of(owner, shape, _WORD)
    if drawn is None:  # the party after the owner
        received = await mpc.exchange(None, prod(shape), _WORD)
        return _reduced(received).reshape(shape)
    before = _reduced(drawn)
    if words is None:  # the party before the owner
        await mpc.exchange(None, 0, _WORD)
        return before
    # c X^(i-1) is what the value of party i-1 differs by from the secret; those of i and i+1 differ by X and X^2 times.
    once = _times_root(before - words)
    await mpc.exchange(_reduced(words + _times_root(once)), 0, _WORD)
    return _reduced(words + once)


def _reduced(words: Words) -> Words:
    """Modulo 2^17; in uint32, whose own wrap keeps that."""
    reduced: Words = np.bitwise_and(words, _WORD_MASK)
    return reduced


def _times_root(words: Words) -> Words:
    """Pairs (a, b) times X: a X + b X^2 = -b + (a - b) X."""
    turned = np.empty_like(words)
    np.negative(words[..., 1::2], out=turned[..., 0::2])
    np.subtract(words[..., 0::2], words[..., 1::2], out=turned[..., 1::2])
    return turned
