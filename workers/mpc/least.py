"""The least of many secrets, by a tournament: its value, its index, or whatever else travels with it.

Neighbours meet, and the right one goes on only if it is strictly less, so that of equal keys the first wins, as in
numpy's argmin. An odd one at the end of a level goes up without a match. Who meets whom, the sizes and the rounds
follow from the public shapes; each level is one comparison and one selection, both under the argument of protocol.py,
and nothing is opened.

Cost for n keys of `bits` bits: ceil(log2 n) levels of 4 + ceil(log2(bits // 2)) rounds, and n - 1 matches, each of
which costs one `less_than` and one `select` of 1 + v elements, v being what travels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .compare import less_than
from .errors import NotInRing, ShareMismatch, described
from .select import select
from .shares import ArithmeticShare, require_words

if TYPE_CHECKING:
    from .protocol import Replicated3

__all__ = ["argmin", "least", "minimum"]

_OPERATION = "the least of many"


async def least(
    mpc: Replicated3, keys: ArithmeticShare, carried: ArithmeticShare, bits: int | None = None
) -> tuple[ArithmeticShare, ArithmeticShare]:
    """The least key along the first axis, as signed numbers, and what is carried with it.

    Shapes: keys (n, *s), carried (v, n, *s) -> (*s), (v, *s). Right as long as all differences of two keys are at least
    -2^(bits-1) and less than 2^(bits-1), by a public bound; `bits` is the width of the ring if None.

    Raises:
        ShareMismatch: there is no key, or the shapes or rings do not fit.
        NotInRing: `bits` is not between 2 and the width of the ring.
    """
    _require_keys(keys)
    require_words(_OPERATION, carried)
    if (carried.dtype, carried.shape[1:]) != (keys.dtype, keys.shape):
        raise ShareMismatch(_OPERATION, described(keys), described(carried))
    width = 8 * keys.dtype.itemsize
    if bits is not None and not 2 <= bits <= width:  # also where a single key needs no match
        raise NotInRing(_OPERATION, f"{bits} bits", f"2 to {width} bits")
    candidates = ArithmeticShare.concatenate([keys.reshape(1, *keys.shape), carried])
    while (count := candidates.shape[1]) > 1:
        paired = count - count % 2
        left, right = candidates[:, 0:paired:2], candidates[:, 1:paired:2]
        is_right_less = await less_than(mpc, right[0], left[0], bits)
        winners = await select(mpc, is_right_less, right, left)
        candidates = ArithmeticShare.concatenate([winners, candidates[:, paired:]], axis=1) if count % 2 else winners
    return candidates[0, 0], candidates[1:, 0]


async def minimum(mpc: Replicated3, x: ArithmeticShare, bits: int | None = None) -> ArithmeticShare:
    """The least along the first axis, (n, *s) -> (*s); see `least`.

    The greatest is -minimum(-x), if none is -2^(k-1).
    """
    _require_keys(x)
    none = np.zeros((0, *x.shape), x.dtype)
    value, _ = await least(mpc, x, ArithmeticShare(none, none), bits)
    return value


async def argmin(mpc: Replicated3, x: ArithmeticShare, bits: int | None = None) -> ArithmeticShare:
    """The index of the first of the least along the first axis, (n, *s) -> (*s), in the ring of x; see `least`.

    Raises:
        NotInRing: the ring has fewer elements than the axis.
    """
    _require_keys(x)
    if len(x) > 1 << 8 * x.dtype.itemsize:
        raise NotInRing("an index", f"{len(x)} keys over {x.dtype}", "a ring that holds every index")
    column = np.arange(len(x)).reshape(-1, *[1] * (len(x.shape) - 1))
    indices = mpc.public(np.broadcast_to(column, x.shape), x.dtype)
    _, carried = await least(mpc, x, indices.reshape(1, *x.shape), bits)
    return carried[0]


def _require_keys(keys: ArithmeticShare) -> None:
    require_words(_OPERATION, keys)
    if not keys.shape or not len(keys):
        raise ShareMismatch(_OPERATION, described(keys), "at least one key along a first axis")
