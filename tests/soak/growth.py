"""Whether memory and descriptors of what lives through a soak stay flat.

Judged is the second half of a life, when everything that is made once has been made: its last quarter is compared with
the one before, by their medians, so that neither one large batch nor one bad moment decides.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .member import Figure

FIGURES_MIN: Final = 40
"""A life with fewer batches is not judged: ten to a quarter."""

GROWTH_KIB_MAX: Final = 2048
"""Growth from the third quarter of a life to the last one, of what is in use. Arbitrary; pages that are kept for a few
objects on them make several hundred KiB."""

GROWTH_DESCRIPTORS_MAX: Final = 4
"""The same for descriptors: links that are being made anew at one of the two moments."""


class Growth(NamedTuple):
    """What a life has grown by in its second half."""

    kib: int
    descriptors: int

    @property
    def is_flat(self) -> bool:
        return self.kib <= GROWTH_KIB_MAX and self.descriptors <= GROWTH_DESCRIPTORS_MAX


def growth(figures: Sequence[Figure]) -> Growth | None:
    """None: too short a life to tell."""
    if len(figures) < FIGURES_MIN:
        return None
    quarter = len(figures) // 4
    third, last = figures[-2 * quarter : -quarter], figures[-quarter:]
    return Growth(
        *(int(statistics.median(f[k] for f in last) - statistics.median(f[k] for f in third)) for k in (0, 1))
    )
