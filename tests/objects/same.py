"""Whether two values are the same in type and content, however they are nested."""

from __future__ import annotations

import dataclasses
import math
import struct
from collections import OrderedDict, deque
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable


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
        ordered = list(one) == list(other) or not isinstance(one, OrderedDict)
        return ordered and _same_members(one, other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (set, frozenset)):
        return _same_members(one, other)
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


def _same_members(one: Iterable[Any], other: Iterable[Any]) -> bool:
    """Of sets, or the keys of dictionaries."""
    twins = {member: member for member in other}
    found = [same(member, twins.get(member)) for member in one]
    return len(found) == len(twins) and all(found)
