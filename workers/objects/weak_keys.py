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
    from collections.abc import Collection, Iterator

    from numpy.typing import NDArray

UNCHECKED_MAX: Final = 256
"""So few keys cost at most half a millisecond."""

STEPS_MAX: Final = 128
"""Steps for each key, on average: about what decoding it costs. Random keys take below 3, multiples of a power of two
up to 30."""

_PERTURB_SHIFT: Final = 5
_SET_PROBES: Final = 9
_SET_DOUBLES_FROM: Final = 50_000


def may_collide(keys: Collection[Any], *, is_set: bool) -> bool:
    """Whether a set or a dictionary of these keys would be slow to make, in this order.

    Raises:
        TypeError: a key has no hash.
    """
    if len(keys) <= UNCHECKED_MAX:
        return False
    hashes = np.fromiter(map(hash, keys), np.int64, len(keys))
    return any(
        _is_slow(hashes[:count], size, _SET_PROBES if is_set else 0)
        for size, count in _tables(len(keys), is_set)
        if count > UNCHECKED_MAX
    )


def _tables(count: int, is_set: bool) -> Iterator[tuple[int, int]]:
    """Places in the tables that such an object has one after another, and how many keys each holds in the end."""
    size = 8
    while True:
        full = ((size - 1) * 3 + 4) // 5 if is_set else size * 2 // 3
        yield size, min(count, full)
        if count <= full:
            return
        size = 1 << (full * (2 if full > _SET_DOUBLES_FROM else 4)).bit_length() if is_set else size * 2


def _is_slow(hashes: NDArray[np.int64], size: int, linear: int) -> bool:
    """Put keys into a table, one step of each at a time."""
    mask = size - 1
    taken = np.zeros(size, np.bool_)
    owner = np.empty(size, np.int64)
    perturb = hashes.view(np.uint64)
    place = hashes & mask
    offset: NDArray[np.int64] | None = None
    steps, steps_max = 0, STEPS_MAX * len(hashes)
    while len(place):
        steps += len(place)
        if steps > steps_max:
            return True
        slot = place if offset is None else place + offset
        numbers = np.arange(len(slot))
        owner[slot] = numbers
        left = np.flatnonzero(taken[slot] | (owner[slot] != numbers))
        taken[slot] = True
        place, perturb = place[left], perturb[left]
        if linear:
            offset = np.zeros(len(left), np.int64) if offset is None else offset[left]
            offset += 1
            stays = (offset <= linear) & (place + linear <= mask)
            offset[~stays] = 0
            perturb = np.where(stays, perturb, perturb >> np.uint64(_PERTURB_SHIFT))
            place = np.where(stays, place, (place * 5 + 1 + perturb.view(np.int64)) & mask)
        else:
            perturb = perturb >> np.uint64(_PERTURB_SHIFT)
            place = (place * 5 + 1 + perturb.view(np.int64)) & mask
    return False
