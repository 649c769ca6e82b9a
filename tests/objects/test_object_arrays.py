"""Arrays of Python objects, whose items travel one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from partywire.workers.objects import operations as op
from partywire.workers.objects.errors import ObjectDecodeError
from partywire.workers.objects.packing import HEADER, pack_object, unpack_object
from tests.objects.test_hostile import message


def array_of(shape: tuple[int, ...], *items: Any) -> np.ndarray[Any, Any]:
    made: np.ndarray[Any, Any] = np.empty(len(items), object)
    for index, item in enumerate(items):
        made[index] = item
    return made.reshape(shape)


@pytest.mark.parametrize(
    "value",
    [
        array_of((2, 2), [1, 2], 2**100, None, "text"),
        array_of((), (1, 2)),
        array_of((0, 3)),
        array_of((1, 1), [[1], [2, 3]]),
        array_of((2, 3), *range(6)).T,
    ],
    ids=lambda value: str(value.shape),
)
def test_an_array_of_objects_comes_back(value: np.ndarray[Any, Any]) -> None:
    received = unpack_object(bytearray(pack_object(value).join()))
    assert received.dtype == object
    assert received.shape == value.shape
    assert received.flags.f_contiguous == value.flags.f_contiguous
    assert received.tolist() == value.tolist()
    assert [type(item) for item in received.flat] == [type(item) for item in value.flat]


@pytest.mark.parametrize(
    "payload",
    [
        ((2,), False, [1]), ((-1, -1), False, [1]), ((1,), False, (1,)), ([1], False, [1]), ((1.0,), False, [1]),
        ((1 << 62, 4), False, []), ((1,), 0, [1]), ((0, 1 << 62, 1 << 62), True, []), 5,
    ],
)  # fmt: skip
def test_an_array_of_objects_whose_shape_is_none_is_refused(payload: Any) -> None:
    packed = bytearray(pack_object(payload).join()[HEADER.size :])
    with pytest.raises(ObjectDecodeError):
        unpack_object(message(op.KNOWN, "numpy objects", packed))
