"""Using a secret bit on ring elements: conversion of the bit, and choosing between two values without revealing which.

A bit b = b_0 ^ b_1 ^ b_2 splits into c = b_2 ^ b_0, which party 0 knows, and d = b_1, which parties 1 and 2 know. As
integers b = c + d - 2cd, so for a secret x

    b * x = d*x + c * (x - 2*d*x).

Round 1: party 0 deals c as in `input`, and at the same time d * x is computed: party 1 knows d, x_0 and x_1, party 2
knows d and x_2, so each has its additive part, re-shared under fresh zero shares. Round 2: one multiplication by c.
No oblivious transfer, nothing prepared in advance, and a whole stack of values shares one bit. Every message is a
deal or a re-share of protocol.py, so its argument covers these protocols too.

The aim is that of bit injection in ABY3 (P. Mohassel and P. Rindal, ACM CCS 2018), which uses three-party oblivious
transfer. Turning the bit into a ring element first (`inject`, see known.py) and multiplying then takes three rounds.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from .bits import unpacked
from .convert import to_arithmetic
from .errors import ShareMismatch, described
from .shares import ArithmeticShare, require_bits, require_words, ring_dtype

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from .protocol import Replicated3
    from .shares import BinaryShare

__all__ = ["inject", "multiply_by_bit", "select"]


async def select(
    mpc: Replicated3, bit: BinaryShare, when_one: ArithmeticShare, when_zero: ArithmeticShare
) -> ArithmeticShare:
    """`when_one` where the bit is 1, else `when_zero`.

    Shapes: bit (one slice) of shape s; both values of shape (..., *s), so that several arrays are chosen by one bit;
    V such arrays stacked count V elements per bit. 2 rounds. Bytes per bit: 2 V w, and w more by party 0.
    """
    require_words("a selection", when_one, when_zero)
    return when_zero + await multiply_by_bit(mpc, bit, when_one - when_zero)


async def multiply_by_bit(mpc: Replicated3, bit: BinaryShare, x: ArithmeticShare) -> ArithmeticShare:
    """x where the bit is 1, else 0. Shapes and costs as for `select`.

    Raises:
        ShareMismatch: the bit has more than one slice, or its shape is not that of the last axes of x.
    """
    require_bits("multiplication by a bit", bit)
    require_words("multiplication by a bit", x)
    if bit.slices != 1 or x.shape[x.own.ndim - len(bit.shape) :] != bit.shape or x.own.ndim < len(bit.shape):
        raise ShareMismatch("multiplication by a bit", repr(bit), described(x))
    dtype = x.dtype
    count = prod(bit.shape)
    party = mpc.party_index
    c_mask = mpc.mask_of(0, bit.shape, dtype)

    # Round 1: party 0's message is its share of c, followed by its part of d*x.
    dx_part = np.zeros(x.shape, dtype)
    if party == 1:
        np.multiply(unpacked(bit.own[0], bit.shape, dtype), x.own + x.prev, out=dx_part)
    elif party == 2:
        np.multiply(unpacked(bit.prev[0], bit.shape, dtype), x.own, out=dx_part)
    mpc.add_zero_share(dx_part)
    c_own = c_prev = np.zeros(bit.shape, dtype)
    outgoing = dx_part
    if party == 0:
        assert c_mask is not None  # party 0 owns c
        c_own, c_prev = unpacked(bit.own[0] ^ bit.prev[0], bit.shape, dtype) - c_mask, c_mask
        outgoing = np.concatenate([c_own.reshape(-1), dx_part.reshape(-1)])
    received = await mpc.exchange(outgoing, x.size + (count if party == 1 else 0), dtype)
    if party == 1:
        c_prev, received = received[:count].reshape(bit.shape), received[count:]
    elif party == 2:
        assert c_mask is not None  # party 2 is the one before party 0
        c_own = c_mask

    # Round 2.
    dx = ArithmeticShare(dx_part, received.reshape(x.shape))
    return dx + await mpc.multiply(ArithmeticShare(c_own, c_prev), x - dx - dx)


async def inject(mpc: Replicated3, bit: BinaryShare, dtype: DTypeLike = np.uint32) -> ArithmeticShare:
    """The bit as a ring element 0 or 1: b = c + d - 2cd. 2 rounds; w bytes per element, and w more by party 0.

    Raises:
        ShareMismatch: the bit has not one slice; for several see convert.to_arithmetic.
    """
    ring = ring_dtype(dtype)
    require_bits("injection", bit)
    if bit.slices != 1:
        raise ShareMismatch("injection", repr(bit), "one slice")
    return await to_arithmetic(mpc, bit, ring)
