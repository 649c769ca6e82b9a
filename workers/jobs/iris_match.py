"""Iris matching under MPC: the gallery of party 0 and the probes of party 1 meet in shares; party 2 helps.

For each probe, gallery code and rotation the parties have additive parts of d = 8 h - 3 m, computed without a message
(iris_shares.py); d is negative if and only if the two match. Its sign is taken in shares, the signs of the 31 rotations
are joined by OR, and that one bit per probe and gallery code is opened.

What becomes known: to all, the opened bits, the public numbers of MatchPlan, and of each side whether its masks are
paired. No distance, no rotation and no bit of a code or mask is opened; sizes and rounds of messages follow from the
plan alone.

Why the parts may travel as they do: masked by a zero share, party 1's go to party 2 and party 2's to party 0, which are
two of the three messages of a re-share (mpc/protocol.py). Party 0 then knows s = the sum of its own and party 2's, the
others know t = party 1's, and the sign of s + t is a bit of a sum (mpc/carry.py).

A *comparison* is one probe at one rotation against one gallery code, so that a pair of codes takes 31, as iris-mpc
counts them. Bits sent for one: by the parties 1 and 2, 17 for their part; by party 0, 25 for its deal; by all, 26
products for the sign, and one for the ORs and the opening together (30 and 1 bits for 31). That is 5.5 bytes by
the parties 1 and 2 and 6.5 by party 0, if the pairs of a step are a multiple of 8; to be shared before, a code takes
its owner 76,800 bytes, or 102,400 if masks are not paired. 12 rounds for each step of --block gallery codes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..mpc import BinaryShare, Replicated3
from ..mpc.bits import bit_slices
from ..mpc.carry import bit_of_sum
from ..mpc.shares import packed_size
from .errors import JobInputError
from .iris import BLOCK_SIZE_MAX, CHUNK_SIZE_MAX, CODES_MAX
from .iris_codes import ROTATIONS, IrisCodes
from .iris_shares import PAIRED_WORDS, PLAIN_WORDS, RING_BITS, product, share_codes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ..mpc import RingSession
    from .iris_shares import Words

__all__ = [
    "GALLERY_OWNER",
    "PROBE_OWNER",
    "ChunkMatch",
    "GalleryShare",
    "MatchPlan",
    "agree",
    "any_of",
    "is_negative",
    "match_chunk",
    "share_gallery",
    "tell_costs",
    "try_share_gallery",
]

GALLERY_OWNER = 0
PROBE_OWNER = 1


@dataclass(frozen=True)
class MatchPlan:
    """The public numbers of a run, equal at all parties."""

    gallery_count: int
    probe_count: int
    chunk_size: int  # probes of one input
    block_size: int  # gallery codes of one step
    has_synthetic_gallery: bool
    has_synthetic_probes: bool
    has_paired_masks: bool  # on both sides, so that shares are shorter

    @property
    def is_synthetic(self) -> bool:
        """Both sides are, so that every party may check the result."""
        return self.has_synthetic_gallery and self.has_synthetic_probes

    @property
    def width(self) -> int:
        """Words of a share for each place."""
        return PAIRED_WORDS if self.has_paired_masks else PLAIN_WORDS

    @property
    def comparisons(self) -> int:
        return self.gallery_count * self.probe_count * len(ROTATIONS)

    def chunks(self) -> Iterator[slice]:
        """The probes of one input after the other."""
        for first in range(0, self.probe_count, self.chunk_size):
            yield slice(first, min(first + self.chunk_size, self.probe_count))


@dataclass(frozen=True)
class GalleryShare:
    """One party's part of the gallery, and the plan."""

    plan: MatchPlan
    words: Words = field(repr=False)


@dataclass(frozen=True)
class ChunkMatch:
    """What was opened for some probes, (b, gallery), and what it took this party.

    The bytes are those of the comparisons alone, without the probes' shares; the times, on CLOCK_MONOTONIC, are from
    before the probes were shared until the last bit was open.
    """

    is_match: NDArray[np.bool_]
    bytes_compared: int
    began_s: float
    ended_s: float


async def share_gallery(session: RingSession, mine: tuple[IrisCodes | None, int, int]) -> GalleryShare:
    """Make the plan from what the owners announce, then share the gallery once for all chunks.

    `mine` is this party's codes, its --chunk and its --block; those of the probe owner hold. 5 rounds, and one for
    every 256 gallery codes.

    Raises:
        JobInputError: at all parties, if there are more codes than a party can hold.
    """
    codes, chunk_size, block_size = mine
    mpc = await Replicated3.setup(session)
    numbers = None if codes is None else [len(codes), int(codes.is_synthetic), int(codes.has_paired_masks)]
    is_probe_owner = mpc.party_index == PROBE_OWNER
    plan = await agree(
        mpc,
        numbers if mpc.party_index == GALLERY_OWNER else None,
        [*numbers, chunk_size, block_size] if is_probe_owner and numbers is not None else None,
    )
    gallery = codes if mpc.party_index == GALLERY_OWNER else None
    words = await share_codes(mpc, GALLERY_OWNER, gallery, plan.gallery_count, plan.width, conjugate=True)
    return GalleryShare(plan, words)


async def try_share_gallery(
    session: RingSession, mine: tuple[IrisCodes | None, int, int]
) -> GalleryShare | JobInputError:
    """`share_gallery`, with the refusal as a result: all parties draw it, so it is no failure of one of them."""
    try:
        return await share_gallery(session, mine)
    except JobInputError as refusal:
        return refusal


async def agree(mpc: Replicated3, gallery: list[int] | None, probes: list[int] | None) -> MatchPlan:
    """Both owners announce their public numbers; every party draws the same conclusions.

    Raises:
        JobInputError: at all parties, if the numbers are none that an owner can have.
    """
    gallery_says = [int(number) for number in await mpc.announce(GALLERY_OWNER, gallery, 3)]
    probes_say = [int(number) for number in await mpc.announce(PROBE_OWNER, probes, 5)]
    plan = MatchPlan(
        gallery_count=gallery_says[0],
        probe_count=probes_say[0],
        chunk_size=probes_say[3],
        block_size=probes_say[4],
        has_synthetic_gallery=bool(gallery_says[1]),
        has_synthetic_probes=bool(probes_say[1]),
        has_paired_masks=bool(gallery_says[2] and probes_say[2]),
    )
    for what, number, greatest in (
        ("gallery codes", plan.gallery_count, CODES_MAX),
        ("probes", plan.probe_count, CODES_MAX),
        ("probes per chunk", plan.chunk_size, CHUNK_SIZE_MAX),
        ("gallery codes per block", plan.block_size, BLOCK_SIZE_MAX),
    ):
        if not 1 <= number <= greatest:
            raise JobInputError("the codes", f"are announced with {number} {what}; 1 to {greatest:,} can be matched")
    return plan


async def match_chunk(gallery: GalleryShare, session: RingSession, mine: Any) -> ChunkMatch:
    """Which gallery codes each of some probes matches, opened to all parties.

    `mine` is the probes at their owner, and their number at the others. Memory beside the shares: about 40 bytes for
    each comparison of a step (probes of the chunk x 31 x codes of the block), and what `product` takes for a moment.
    """
    began_s = time.monotonic()
    mpc = await Replicated3.setup(session)
    is_owner = mpc.party_index == PROBE_OWNER
    count = len(mine) if is_owner else int(mine)
    probes = await share_codes(mpc, PROBE_OWNER, mine if is_owner else None, count, gallery.plan.width)
    bytes_before = mpc.bytes_sent
    opened = []
    for first in range(0, len(gallery.words), gallery.plan.block_size):
        parts = product(gallery.words[first : first + gallery.plan.block_size], probes)
        pairs = (count, parts.shape[2])
        signs = await is_negative(mpc, parts.reshape(len(ROTATIONS), -1))
        found = await mpc.open_bits(await any_of(mpc, signs))
        opened.append(found.reshape(pairs))
    compared = mpc.bytes_sent - bytes_before
    return ChunkMatch(np.concatenate(opened, axis=1), compared, began_s, time.monotonic())


async def is_negative(mpc: Replicated3, parts: Words) -> BinaryShare:
    """The signs of numbers of 17 bits of which the parties hold additive parts, (k, n): k slices of shape (n,).

    `parts` is taken over. 6 rounds. Bits per number: 43 by the parties 1 and 2, 51 by party 0.
    """
    rows, count = parts.shape
    # Each row begins a byte, so that rows are slices afterwards.
    padded = np.zeros((rows, 8 * packed_size(count)), np.uint32)
    padded[:, :count] = parts
    mpc.add_zero_share(padded)
    size = (RING_BITS, packed_size(padded.size))
    own = bit_slices(padded.reshape(-1), RING_BITS)
    is_0, is_1 = mpc.party_index == 0, mpc.party_index == 1
    received = await mpc.exchange(None if is_0 else own, 0 if is_1 else size[0] * size[1], np.dtype(np.uint8))
    # Party 0 now has party 2's part, party 2 that of party 1.
    s = bit_slices(padded.reshape(-1) + _words(received.reshape(size)), RING_BITS) if is_0 else None
    t = None if is_0 else own if is_1 else received.reshape(size)
    top = await bit_of_sum(mpc, s, t, bits=RING_BITS, position=RING_BITS - 1, count=padded.size)
    return BinaryShare(top.own.reshape(rows, -1), top.prev.reshape(rows, -1), (count,))


async def any_of(mpc: Replicated3, bits: BinaryShare) -> BinaryShare:
    """OR of all slices, as one slice. ceil(log2(slices)) rounds; one bit per element for each slice but one."""
    while bits.slices > 1:
        pairs = bits.slices // 2
        left, right = bits[:pairs], bits[pairs : 2 * pairs]
        both = await mpc.and_(left, right)
        bits = BinaryShare.concatenate([left ^ right ^ both, bits[2 * pairs :]])
    return bits


async def tell_costs(session: RingSession, mine: tuple[int, float]) -> list[tuple[int, float]]:
    """Every party's bytes and seconds, told to all. Public; in microseconds on the way."""
    mpc = await Replicated3.setup(session)
    said = [int(mine[0]), round(mine[1] * 1e6)]
    told = [await mpc.announce(party, said if mpc.party_index == party else None, 2) for party in range(3)]
    return [(int(size), int(micros) / 1e6) for size, micros in told]


def _words(slices: NDArray[np.uint8]) -> Words:
    """The numbers whose bits the slices are: the inverse of bit_slices."""
    words = np.zeros(8 * slices.shape[1], np.uint32)
    for position, packed in enumerate(slices):
        words |= np.unpackbits(packed, bitorder="little").astype(np.uint32) << np.uint32(position)
    return words
