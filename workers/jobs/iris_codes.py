"""Iris codes: their shape, the decision that two of them match, and a seeded generator with a model of real eyes.

A code has 12,800 bits, 16 rings of 200 places with 4 bits each, and a mask of as many bits, where 1 says that the bit
of the code counts. With m the number of bits that count in both and h how many of these differ, the fractional Hamming
distance is h / m, and two codes match at a rotation if it is below 0.375: 8 h < 3 m. No division, no rounding, and
codes that have no bit in common (m = 0) do not match. Rotations move one code by -15 to 15 places.

The model of the generator, integer arithmetic on the output of SHAKE-128 but for the logarithm in an error rate, so
that a seed gives the same codes on every host and with every version of numpy:

- *Eyes.* Each bit is the majority of a window of 15 x 15 fair random bits around it, over rings and places (the latter
  closed to a circle). So bits are fair, and neighbours depend on each other as in real codes: distances of different
  eyes have mean 0.5 and the deviation of about 249 independent bits.
- *Masks.* Two eyelids cover arcs that grow towards the outer rings, of a random width for each picture.
- *A second picture of an eye* differs in each bit with a probability that is drawn for the picture, Erlang distributed
  with shape 3 and mean 0.11; it has a mask of its own and is turned by -15 to 15 places.

Sources of the figures: J. Daugman, "The importance of being random: statistical principles of iris recognition",
Pattern Recognition 36, 2003 (different eyes: mean 0.499, deviation 0.0317, 249 degrees of freedom; same eye: mean
0.110, deviation 0.065). What it leaves out is said in docs/iris.md.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)

__all__ = [
    "BITS",
    "PLACES",
    "RINGS",
    "ROTATIONS",
    "SHAPE",
    "IrisCodes",
    "enrolled_eye",
    "matches",
    "rotated",
    "signed_bits",
    "synthetic_gallery",
    "synthetic_probes",
]

RINGS, PLACES, BITS_PER_PLACE = 16, 200, 4
SHAPE = (RINGS, PLACES, BITS_PER_PLACE)
BITS = RINGS * PLACES * BITS_PER_PLACE
ROTATIONS = tuple(range(-15, 16))

# 8 h < 3 m is h / m < 0.375.
THRESHOLD_NUMERATOR, THRESHOLD_DENOMINATOR = 3, 8

_WINDOW_RINGS, _WINDOW_PLACES = 15, 15  # odd, so that there is always a majority
_ERROR_MEAN, _ERROR_SHAPE, _ERROR_MAX = 0.11, 3, 0.5

# (number of the middle place, least and greatest half width of the arc in the outermost ring)
_EYELIDS = ((50, 20, 52), (150, 0, 34))


@dataclass(frozen=True, repr=False)
class IrisCodes:
    """Codes and masks, bool of shape (n, 16, 200, 4) both. `is_synthetic`: from the generator, so not secret."""

    codes: NDArray[np.bool_]
    masks: NDArray[np.bool_]
    is_synthetic: bool

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def has_paired_masks(self) -> bool:
        """Whether the masks of the bits 2j and 2j + 1 are equal, as they are where both come from one wavelet."""
        return bool((self.masks[..., 0::2] == self.masks[..., 1::2]).all())

    def __getitem__(self, some: slice) -> IrisCodes:
        return IrisCodes(self.codes[some], self.masks[some], self.is_synthetic)


def signed_bits(codes: IrisCodes) -> NDArray[np.int8]:
    """+1 for a bit 0, -1 for a bit 1, 0 for one that does not count.

    The inner product of two of these is m - 2 h, that of the masks m.
    """
    return np.where(codes.codes, np.int8(-1), np.int8(1)) * codes.masks


def rotated(codes: NDArray[Scalar], places: int) -> NDArray[Scalar]:
    """Codes or masks (..., 16, 200, 4), turned so that place 0 comes to `places`."""
    return np.roll(codes, places, axis=-2)


def matches(gallery: IrisCodes, probes: IrisCodes) -> NDArray[np.bool_]:
    """The plaintext answer, (probes, gallery): whether they match at any of the 31 rotations.

    Products in float32 are exact, as all sums are integers below 2^24. In blocks: 60 MB at most beside the answer.
    """
    answer = np.zeros((len(probes), len(gallery)), np.bool_)
    for first in range(0, len(gallery), 256):
        part = gallery[first : first + 256]
        g_bits, g_masks = (_as_floats(array) for array in (signed_bits(part), part.masks))
        for index in range(len(probes)):
            one = probes[index : index + 1]
            bits, masks = (
                _as_floats(np.concatenate([rotated(array, places) for places in ROTATIONS]))
                for array in (signed_bits(one), one.masks)
            )
            counting = masks @ g_masks.T
            differing = (counting - bits @ g_bits.T) / 2
            is_match = THRESHOLD_DENOMINATOR * differing < THRESHOLD_NUMERATOR * counting
            answer[index, first : first + 256] = is_match.any(axis=0)
    return answer


def _as_floats(array: NDArray[Scalar]) -> NDArray[np.float32]:
    return array.reshape(-1, BITS).astype(np.float32)


# The generator.


def synthetic_gallery(seed: int, count: int) -> IrisCodes:
    """The first pictures of eyes 0 to count - 1."""
    return _collected(_Picture(_eye(seed, index), _mask(seed, "first mask", index)) for index in range(count))


def synthetic_probes(seed: int, count: int, gallery_count: int) -> IrisCodes:
    """Probes 0, 2, 4, ... are second pictures of eyes of a gallery of that seed and count, the others of strangers."""
    return _collected(_probe(seed, index, gallery_count) for index in range(count))


def enrolled_eye(seed: int, index: int, gallery_count: int) -> tuple[int, int]:
    """Of which gallery eye the even probe `index` is a picture, and by how many places that is turned."""
    draws = np.frombuffer(_random_bytes(seed, "probe", index, 16), "<u8")
    return int(draws[0]) % gallery_count, ROTATIONS[int(draws[1]) % len(ROTATIONS)]


@dataclass(frozen=True, repr=False)
class _Picture:
    code: NDArray[np.bool_]
    mask: NDArray[np.bool_]


def _collected(pictures: Iterator[_Picture]) -> IrisCodes:
    found = list(pictures)
    codes = np.array([picture.code for picture in found], np.bool_).reshape(-1, *SHAPE)
    masks = np.array([picture.mask for picture in found], np.bool_).reshape(-1, *SHAPE)
    return IrisCodes(codes, masks, is_synthetic=True)


def _probe(seed: int, index: int, gallery_count: int) -> _Picture:
    if index % 2:
        return _Picture(_eye(seed, index, "stranger"), _mask(seed, "stranger mask", index))
    eye, turn = enrolled_eye(seed, index, gallery_count)
    draws = np.frombuffer(_random_bytes(seed, "error", index, 8 * _ERROR_SHAPE), "<u8")
    uniform = [(int(draw) + 1) / (1 << 64) for draw in draws]
    error = min(-math.log(math.prod(uniform)) * _ERROR_MEAN / _ERROR_SHAPE, _ERROR_MAX)
    noise = np.frombuffer(_random_bytes(seed, "errors", index, 2 * BITS), "<u2").reshape(SHAPE)
    code = _eye(seed, eye) ^ (noise < int(error * (1 << 16)))
    return _Picture(np.roll(code, turn, axis=1), np.roll(_mask(seed, "second mask", index), turn, axis=1))


def _eye(seed: int, index: int, kind: str = "eye") -> NDArray[np.bool_]:
    shape = (RINGS + _WINDOW_RINGS - 1, PLACES, BITS_PER_PLACE)
    bits = np.unpackbits(np.frombuffer(_random_bytes(seed, kind, index, math.prod(shape) // 8), np.uint8))
    ones = np.cumsum(bits.reshape(shape), axis=0, dtype=np.int16)
    ones[_WINDOW_RINGS:] -= ones[:-_WINDOW_RINGS].copy()
    ones = ones[_WINDOW_RINGS - 1 :]
    around = np.concatenate([ones, ones[:, : _WINDOW_PLACES - 1]], axis=1).cumsum(axis=1, dtype=np.int16)
    around[:, _WINDOW_PLACES:] -= around[:, :-_WINDOW_PLACES].copy()
    return around[:, _WINDOW_PLACES - 1 :] > _WINDOW_RINGS * _WINDOW_PLACES // 2


def _mask(seed: int, kind: str, index: int) -> NDArray[np.bool_]:
    draws = np.frombuffer(_random_bytes(seed, kind, index, 4 * len(_EYELIDS)), "<u4")
    mask = np.ones(SHAPE, np.bool_)
    ring = np.arange(RINGS).reshape(-1, 1)
    for (middle, least, most), draw in zip(_EYELIDS, draws, strict=True):
        half_width = least + int(draw) % (most - least + 1)
        distance = np.abs(np.arange(PLACES) - middle)
        mask[distance * RINGS < half_width * (ring + 1)] = False
    return mask


def _random_bytes(seed: int, kind: str, index: int, size: int) -> bytes:
    return hashlib.shake_128(f"partywire iris {seed} {kind} {index}".encode()).digest(size)
