"""The data of the job `iris`: synthetic codes, or a party's own .npy files, checked.

An error names the file and what is wrong with its shape or range; it never shows a value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import JobInputError
from .iris import CODES_MAX, GALLERY_DEFAULT, PROBES_DEFAULT
from .iris_codes import BITS, SHAPE, IrisCodes, matches, synthetic_gallery, synthetic_probes
from .npy_file import read_npy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["load_gallery", "load_probes", "plain_matches"]


def load_gallery(values: Mapping[str, Any]) -> IrisCodes:
    """What the options say: synthetic codes, or the files of `gallery-codes` and `gallery-masks`.

    Raises:
        JobInputError: the files cannot be used.
    """
    if values["gallery-codes"] is None:
        return synthetic_gallery(values["seed"], _gallery_count(values))
    return _own_codes(values["gallery-codes"], values["gallery-masks"], values["gallery"], "gallery")


def load_probes(values: Mapping[str, Any]) -> IrisCodes:
    """What the options say: synthetic codes, or the files of `probe-codes` and `probe-masks`. Raises JobInputError."""
    if values["probe-codes"] is None:
        return synthetic_probes(values["seed"], values["probes"] or PROBES_DEFAULT, _gallery_count(values))
    return _own_codes(values["probe-codes"], values["probe-masks"], values["probes"], "probes")


def plain_matches(values: Mapping[str, Any]) -> list[list[int]]:
    """The plaintext answer from the data of both owners: for each probe the indices of the matching gallery codes."""
    answer = matches(load_gallery(values), load_probes(values))
    return [row.nonzero()[0].tolist() for row in answer]


def _gallery_count(values: Mapping[str, Any]) -> int:
    return int(values["gallery"] or GALLERY_DEFAULT)


def _own_codes(codes_path: str, masks_path: str, count: int | None, option: str) -> IrisCodes:
    codes, masks = _own_bits(codes_path), _own_bits(masks_path)
    if len(codes) != len(masks):
        raise JobInputError(masks_path, f"has {len(masks)} masks, but {codes_path} has {len(codes)} codes")
    if count is not None and count > len(codes):
        raise JobInputError(codes_path, f"has {len(codes)} codes, not the {count} of --{option}")
    if (count or len(codes)) > CODES_MAX:
        raise JobInputError(codes_path, f"has {len(codes)} codes; at most {CODES_MAX} can be matched, see --{option}")
    return IrisCodes(codes[:count], masks[:count], is_synthetic=False)


def _own_bits(path: str) -> NDArray[np.bool_]:
    array = read_npy(path)
    if array.dtype.kind not in "biu":
        raise JobInputError(path, f"must hold bits, as truth values or integers 0 and 1, not {array.dtype}")
    if array.ndim != 2 or array.shape[1] != BITS or not len(array):
        raise JobInputError(path, f"must have a row of {BITS} bits for each code; its shape is {array.shape}")
    if array.dtype.kind != "b" and (array.min() < 0 or array.max() > 1):
        raise JobInputError(path, "has numbers other than 0 and 1")
    return array.astype(np.bool_).reshape(-1, *SHAPE)
