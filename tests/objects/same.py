"""Whether two values are the same in type and content, however they are nested."""

from __future__ import annotations

import dataclasses
import math
import struct
from collections import OrderedDict, deque
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

_NOTHING: Final = object()


def same(one: Any, other: Any) -> bool:
    """Equal in type and value; NaNs with the same bits are equal, and so are arrays with the same layout."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float) and not isinstance(one, np.generic):
        return struct.pack("<d", one) == struct.pack("<d", other) or (math.isnan(one) and math.isnan(other))
    if isinstance(one, complex) and not isinstance(one, np.generic):
        return same(one.real, other.real) and same(one.imag, other.imag)
    if isinstance(one, np.ndarray):
        if (one.dtype, one.shape, _is_fortran(one)) != (other.dtype, other.shape, _is_fortran(other)):
            return False
        return bool((one == other).all() if one.dtype.fields else one.tobytes() == other.tobytes())
    if isinstance(one, (str, bytes)):
        return bool(one == other)
    if isinstance(one, np.generic):
        return bool(one.dtype == other.dtype and one.tobytes() == other.tobytes())
    if isinstance(one, Decimal):
        return bool(one.as_tuple() == other.as_tuple())
    if isinstance(one, (list, tuple, deque)):
        return len(one) == len(other) and all(map(same, one, other)) and _maxlen(one) == _maxlen(other)
    if isinstance(one, dict):
        ordered = not isinstance(one, OrderedDict) or all(map(same, one, other))
        pairs = _pairs(one, other)
        return ordered and pairs is not None and all(same(one[mine], other[yours]) for mine, yours in pairs)
    if isinstance(one, (set, frozenset)):
        return _pairs(one, other) is not None
    if isinstance(one, memoryview):
        seen = [(view.format, view.shape, view.readonly, view.tobytes()) for view in (one, other)]
        return bool(seen[0] == seen[1])
    if dataclasses.is_dataclass(one):
        fields = [field.name for field in dataclasses.fields(one)]
        return all(same(getattr(one, name, None), getattr(other, name, None)) for name in fields)
    return bool(one == other)


def _is_fortran(value: np.ndarray[Any, Any]) -> bool:
    return value.flags.f_contiguous and not value.flags.c_contiguous


def _maxlen(value: Any) -> int | None:
    return value.maxlen if isinstance(value, deque) else None


def _pairs(one: Iterable[Any], other: Iterable[Any]) -> list[tuple[Any, Any]] | None:
    """Of sets, or the keys of dictionaries: each member with the one that is the same. None: they differ."""
    left = {member: member for member in other}
    pairs = []
    for member in one:
        likely = [left[member]] if member in left else list(left)  # what has a NaN in it is equal to nothing
        if (twin := next((candidate for candidate in likely if same(member, candidate)), _NOTHING)) is _NOTHING:
            return None
        del left[twin]
        pairs.append((member, twin))
    return None if left else pairs
