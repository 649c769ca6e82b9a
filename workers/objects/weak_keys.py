"""Whether keys were chosen so that a hash table becomes slow.

The hashes of text and bytes have a secret of the process in them; those of numbers, and of tuples of numbers, are known
to everybody. A peer can choose such keys so that all of them want the same places, and inserting n of them then takes
n * n steps. So tables are rehearsed here, in numpy, as CPython's dictionaries and sets would fill them, until it is
clear that they take about one step for each key, or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

UNCHECKED_MAX: Final = 256
"""So few keys cost at most half a millisecond."""

STEPS_MAX: Final = 16
"""Steps for each key, on average. Random keys take below 3 in a table that is as full as it can be."""

_PERTURB_SHIFT: Final = 5
_LINEAR_PROBES: Final = 9


def may_collide(keys: Collection[Any]) -> bool:
    """Whether a dictionary or a set of these keys would be slow to make.

    Raises:
        TypeError: a key has no hash.
    """
    if len(keys) <= UNCHECKED_MAX:
        return False
    hashes = np.fromiter(map(hash, keys), np.int64, len(keys))
    size = 1 << (len(keys) * 3 // 2).bit_length()
    count = len(keys)
    while count > UNCHECKED_MAX:  # the table, and each smaller one that it outgrows
        part = hashes[:count]
        if any(_is_slow(part, table, linear) for table in (size, 2 * size) for linear in (0, _LINEAR_PROBES)):
            return True
        size >>= 1
        count = min(count, size * 2 // 3)
    return False


def _is_slow(hashes: NDArray[np.int64], size: int, linear: int) -> bool:
    mask = size - 1
    taken = np.zeros(size, np.bool_)
    owner = np.empty(size, np.int64)
    perturb = hashes.view(np.uint64).copy()
    place = (perturb & np.uint64(mask)).astype(np.int64)
    offset = np.zeros(len(hashes), np.int64)
    steps, steps_max = 0, STEPS_MAX * len(hashes)
    while len(place):
        steps += len(place)
        if steps > steps_max:
            return True
        slot = place + offset
        numbers = np.arange(len(slot))
        owner[slot] = numbers
        left = taken[slot] | (owner[slot] != numbers)
        taken[slot] = True
        place, offset, perturb = place[left], offset[left] + 1, perturb[left]
        moves = (offset > linear) | (place + linear > mask)
        offset[moves] = 0
        perturb[moves] >>= np.uint64(_PERTURB_SHIFT)
        moved = place.view(np.uint64)[moves] * np.uint64(5) + np.uint64(1) + perturb[moves]
        place[moves] = (moved & np.uint64(mask)).view(np.int64)
    return False
