"""Nearest match under MPC: the gallery of party 0 and the probes of party 1 meet in shares; party 2 helps.

For a probe p the parties find the gallery image g with the least |g|^2 - 2 g.p, which is the squared distance less a
constant of the probe, by a tournament in which the label travels with the distance (mpc/least.py). Of equal distances
the lowest index wins, as in argmin.

What becomes known: to all, the labels that are opened at the end, and the public numbers of MatchPlan. Nothing else
is opened; the pairs that meet, the message sizes and the rounds follow from the plan alone.

Cost for n gallery images and b probes, with k bits to compare: 4 + ceil(log2 n) * (4 + ceil(log2(k // 2))) rounds; for
each of the b * n pairs a party sends 20 bytes and a comparison (mpc/compare.py), and party 0 besides 4. The built-in
digits have k = 16: 81 rounds in a chunk, and 10 MB by each party, 14 by party 0, for 297 probes against 1,500 images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..mpc import ArithmeticShare, Replicated3, least
from .digits import CHUNK_SIZE_MAX
from .digits_data import Gallery, Probes
from .errors import JobInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ..mpc import RingSession

__all__ = [
    "GALLERY_OWNER",
    "PROBE_OWNER",
    "GalleryShare",
    "MatchPlan",
    "agree",
    "match_chunk",
    "share_gallery",
    "try_share_gallery",
]

GALLERY_OWNER = 0
PROBE_OWNER = 1
RING = np.dtype(np.uint32)
# What one message of 1 GiB holds. Arbitrary; a gallery of this size takes each party 2 GiB of shares.
VALUES_MAX = 1 << 28


@dataclass(frozen=True)
class MatchPlan:
    """The public numbers of a run, equal at all parties: who has how much, and the widths that follow."""

    gallery_count: int
    probe_count: int
    features: int
    value_max: int
    chunk_size: int
    is_built_in: bool  # both sides use the built-in data, so that every party may check the result

    @property
    def compare_bits(self) -> int:
        """Enough for the difference of two squared distances, each between 0 and features * value_max^2."""
        return max(2, (self.features * self.value_max**2).bit_length() + 1)

    def chunks(self) -> Iterator[slice]:
        """The probes of one input after the other."""
        for first in range(0, self.probe_count, self.chunk_size):
            yield slice(first, min(first + self.chunk_size, self.probe_count))


@dataclass(frozen=True)
class GalleryShare:
    """One party's part of the gallery: -2 g (n, features), |g|^2 (n,) and the labels (n,), and the plan."""

    plan: MatchPlan
    scaled_images: ArithmeticShare
    norms: ArithmeticShare
    labels: ArithmeticShare


async def share_gallery(session: RingSession, mine: tuple[Gallery | Probes | None, int]) -> GalleryShare:
    """Make the plan from what the owners announce, then share the gallery once for all chunks. 8 rounds.

    `mine` is this party's data and its --chunk; the probe owner's chunk size holds.

    Raises:
        JobInputError: at all parties, if the owners' data do not fit each other or the ring.
    """
    data, chunk_size = mine
    mpc = await Replicated3.setup(session)
    gallery = data if isinstance(data, Gallery) else None
    probes = data if isinstance(data, Probes) else None
    plan = await agree(
        mpc,
        None if gallery is None else [*gallery.images.shape, gallery.value_max, gallery.is_built_in],
        None if probes is None else [*probes.images.shape, probes.value_max, probes.is_built_in, chunk_size],
    )
    shape = (plan.gallery_count, plan.features)
    scaled = norms = labels = None
    if gallery is not None:
        # Modulo 2^32 on purpose: unsigned words wrap, and the sums that matter are small again.
        scaled = np.negative(gallery.images) * RING.type(2)
        norms = (gallery.images * gallery.images).sum(axis=1, dtype=RING)
        labels = gallery.labels
    return GalleryShare(
        plan,
        await mpc.input(GALLERY_OWNER, scaled, shape),
        await mpc.input(GALLERY_OWNER, norms, shape[:1]),
        await mpc.input(GALLERY_OWNER, labels, shape[:1]),
    )


async def try_share_gallery(
    session: RingSession, mine: tuple[Gallery | Probes | None, int]
) -> GalleryShare | JobInputError:
    """`share_gallery`, with the refusal as a result: all parties draw it, so it is no failure of one of them."""
    try:
        return await share_gallery(session, mine)
    except JobInputError as refusal:
        return refusal


async def match_chunk(gallery: GalleryShare, session: RingSession, mine: Any) -> NDArray[np.uint32]:
    """The labels of the nearest gallery images for some probes, opened to all parties: (b,).

    `mine` is the (b, features) probe images at their owner, and their number b at the others.
    """
    mpc = await Replicated3.setup(session)
    is_owner = mpc.party_index == PROBE_OWNER
    count = len(mine) if is_owner else int(mine)
    probes = await mpc.input(PROBE_OWNER, mine.T if is_owner else None, (gallery.plan.features, count))
    distances = await mpc.matmul(gallery.scaled_images, probes) + gallery.norms.reshape(-1, 1)
    _, labels = await least(mpc, distances, _spread(gallery.labels, count), gallery.plan.compare_bits)
    return await mpc.open(labels[0])


def _spread(labels: ArithmeticShare, count: int) -> ArithmeticShare:
    """The labels (n,) beside the distances to each of `count` probes: (1, n, count), a view."""
    shape = (1, len(labels), count)
    own, prev = (np.broadcast_to(words[:, None], shape) for words in (labels.own, labels.prev))
    return ArithmeticShare(own, prev)


async def agree(mpc: Replicated3, gallery: list[int] | None, probes: list[int] | None) -> MatchPlan:
    """Both owners announce their public numbers; every party draws the same conclusions.

    Raises:
        JobInputError: at all parties, if the numbers do not fit each other, the ring or memory.
    """
    gallery_says = [int(number) for number in await mpc.announce(GALLERY_OWNER, gallery, 4)]
    probes_say = [int(number) for number in await mpc.announce(PROBE_OWNER, probes, 5)]
    plan = MatchPlan(
        gallery_count=gallery_says[0],
        probe_count=probes_say[0],
        features=gallery_says[1],
        value_max=max(gallery_says[2], probes_say[2]),
        chunk_size=probes_say[4],
        is_built_in=bool(gallery_says[3] and probes_say[3]),
    )
    if min(*gallery_says[:3], *probes_say[:3], plan.chunk_size) < 1 or plan.chunk_size > CHUNK_SIZE_MAX:
        raise JobInputError("the images", "are announced with sizes that no images have")
    if probes_say[1] != plan.features:
        raise JobInputError(
            f"the probes of {_name(mpc, PROBE_OWNER)}",
            f"have {probes_say[1]} values per image, the gallery of {_name(mpc, GALLERY_OWNER)} has {plan.features}",
        )
    if plan.compare_bits > 8 * RING.itemsize:
        what = f"{plan.features} values up to {plan.value_max} per image give distances above 31 bits"
        raise JobInputError("the images", f"{what}; scale them down and lower --value-max")
    for count, what, owner in (
        (plan.gallery_count, "gallery", GALLERY_OWNER),
        (plan.probe_count, "probes", PROBE_OWNER),
    ):
        if count * plan.features > VALUES_MAX:
            raise JobInputError(
                f"the {what} of {_name(mpc, owner)}",
                f"{count} images of {plan.features} values are more than {VALUES_MAX} values",
            )
    if plan.gallery_count * min(plan.chunk_size, plan.probe_count) > VALUES_MAX:
        pairs = f"makes more than {VALUES_MAX} pairs with {plan.gallery_count} gallery images; lower --chunk"
        raise JobInputError(f"a chunk of {plan.chunk_size} probes", pairs)
    return plan


def _name(mpc: Replicated3, index: int) -> str:
    """A party's name if the session knows names, else its index."""
    parties = getattr(mpc.session, "parties", None)
    return str(parties[index]) if isinstance(parties, tuple) else f"party {index}"
