"""The data of the job `digits`: scikit-learn's handwritten digits, or a party's own .npy files, checked.

scikit-learn's data file is read without importing scikit-learn, which would cost a second and 100 MiB in each party.
An error names the file and what is wrong with its shape or range; it never shows a value.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import JobInputError
from .npy_file import read_npy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = [
    "BUILT_IN_VALUE_MAX",
    "GALLERY_SIZE",
    "OWN_VALUE_MAX",
    "Gallery",
    "Probes",
    "built_in_probe_labels",
    "load_gallery",
    "load_probes",
    "nearest_labels",
]

# The first 1,500 of the 1,797 digits are the gallery, the last 297 the probes.
GALLERY_SIZE = 1500
DIGITS_COUNT = 1797
PIXELS = 64
BUILT_IN_VALUE_MAX = 16
OWN_VALUE_MAX = 255  # what an image of bytes holds
LABEL_MAX = (1 << 32) - 1


@dataclass(frozen=True, repr=False)
class Gallery:
    """Labelled images: (n, features) and (n,), both of unsigned words. `value_max` is public, the arrays are secret."""

    images: NDArray[np.uint32]
    labels: NDArray[np.uint32]
    value_max: int
    is_built_in: bool


@dataclass(frozen=True, repr=False)
class Probes:
    """Images whose labels are sought: (n, features). `value_max` is public, the images are secret."""

    images: NDArray[np.uint32]
    value_max: int
    is_built_in: bool


def load_gallery(values: Mapping[str, Any]) -> Gallery:
    """What the options say: the built-in gallery, or the files of `gallery` and `labels`. Raises JobInputError."""
    if values["gallery"] is None:
        images, labels = _built_in_digits()
        return Gallery(images[:GALLERY_SIZE], labels[:GALLERY_SIZE], BUILT_IN_VALUE_MAX, is_built_in=True)
    value_max = values["value-max"] or OWN_VALUE_MAX
    images = _own_images(values["gallery"], value_max)
    labels = _own_integers(values["labels"], 1, LABEL_MAX, "labels")
    if len(labels) != len(images):
        raise JobInputError(
            values["labels"], f"has {len(labels)} labels, but {values['gallery']} has {len(images)} images"
        )
    return Gallery(images, labels, value_max, is_built_in=False)


def load_probes(values: Mapping[str, Any]) -> Probes:
    """What the options say: built-in probes or a file, all or the first of them. Raises JobInputError."""
    path = values["probe-images"]
    if path is None:
        images, value_max = _built_in_digits()[0][GALLERY_SIZE:], BUILT_IN_VALUE_MAX
    else:
        value_max = values["value-max"] or OWN_VALUE_MAX
        images = _own_images(path, value_max)
    count = values["probes"]
    if count is not None and count > len(images):
        raise JobInputError(path or "the built-in digits", f"has {len(images)} probes, not the {count} of --probes")
    return Probes(images[:count], value_max, is_built_in=path is None)


def built_in_probe_labels(count: int) -> NDArray[np.uint32]:
    """The digits that the writers of the first `count` built-in probes meant."""
    return _built_in_digits()[1][GALLERY_SIZE : GALLERY_SIZE + count]


def nearest_labels(gallery: Gallery, probes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The plaintext answer: the label of the gallery image at the least squared distance, the first among equals."""
    images = gallery.images.astype(np.int64)
    norms = (images * images).sum(axis=1)
    nearest = [int(np.argmin(norms - 2 * (images @ probe))) for probe in probes.astype(np.int64)]
    return gallery.labels[np.array(nearest, np.intp)]


@lru_cache(maxsize=1)
def _built_in_digits() -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    source = "the built-in digits"
    found = find_spec("sklearn")  # looks for the package and does not import it
    if found is None or not found.submodule_search_locations:
        raise JobInputError(source, "come with scikit-learn, which is not installed; pip install 'partywire[digits]'")
    path = Path(found.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    try:
        with gzip.open(path, "rt", encoding="ascii") as lines:
            table = np.loadtxt(lines, delimiter=",", dtype=np.uint32, ndmin=2)
    except (OSError, EOFError, ValueError) as exc:
        raise JobInputError(str(path), "cannot be read as the digits of scikit-learn; reinstall scikit-learn") from exc
    if table.shape != (DIGITS_COUNT, PIXELS + 1) or table[:, :-1].max() > BUILT_IN_VALUE_MAX:
        raise JobInputError(str(path), "does not hold 1,797 images of 64 values up to 16; reinstall scikit-learn")
    table.setflags(write=False)  # cached, so nobody may change it
    return table[:, :-1], table[:, -1]


def _own_images(path: str, value_max: int) -> NDArray[np.uint32]:
    return _own_integers(path, 2, value_max, "images", advice="; --value-max sets another bound")


def _own_integers(path: str, dimensions: int, value_max: int, what: str, advice: str = "") -> NDArray[np.uint32]:
    array = read_npy(path)
    if array.dtype.kind not in "iu":
        raise JobInputError(path, f"must hold integers, not {array.dtype}")
    if array.ndim != dimensions or array.size == 0:
        shape = "one row per image" if dimensions == 2 else "one label per image"
        raise JobInputError(
            path, f"must have {dimensions} dimension(s), {shape}, and some data; its shape is {array.shape}"
        )
    if array.min() < 0 or array.max() > value_max:
        raise JobInputError(path, f"has {what} outside 0 to {value_max}{advice}")
    return array.astype(np.uint32)
