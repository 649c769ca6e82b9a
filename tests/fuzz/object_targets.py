"""Fuzz targets of Python objects, beside those in targets.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from partywire.workers.objects.errors import ObjectDecodeError
from partywire.workers.objects.limits import ObjectLimits
from partywire.workers.objects.packing import HEADER, pack_object, unpack_object
from partywire.workers.objects.serialization import Serialization
from partywire.workers.values import Ring16, VecBit
from tests.objects.same import same

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMITS: Final = ObjectLimits(elements_max=10_000, containers_max=10_000, integer_size_max=4096)


def fuzz_objects(data: bytes) -> None:
    """A message is an object that is written and read back equal in value and type, or an ObjectDecodeError."""
    try:
        value = unpack_object(data, limits=LIMITS)
    except ObjectDecodeError:
        return
    assert same(unpack_object(pack_object(value).join()), value)


def fuzz_object_tokens(data: bytes) -> None:
    """As `objects`, for tokens whose header is right."""
    fuzz_objects(HEADER.pack(1, 0, 0, len(data)) + data)


def fuzz_format4(data: bytes) -> None:
    """Bytes of the 4.x format are an id and an object, or an ObjectDecodeError."""
    try:
        Serialization.unpack(data)
    except ObjectDecodeError:
        pass


def objects() -> Iterator[bytes]:
    """Honest messages, with buffers out of band and without."""
    for value in (
        {"a": [1, (2, "x"), None], "b": {1.5, True}, 5: frozenset([b"x"])},
        [np.arange(3), np.ones((2, 3), ">f4").T, np.float32(1)],
        [b"x" * 2000, bytearray(1500), memoryview(b"abc")],
        [[(n, str(n)) for n in range(20)], list(range(300)), [0.5] * 20, [2**70] * 20],
        ["\ud800", 2**100, Ring16(5), VecBit([1, 0, 1])],
    ):
        yield pack_object(value).join()


def object_tokens() -> Iterator[bytes]:
    """Honest tokens of objects of known kinds."""
    for data in objects():
        if not int.from_bytes(data[4:8], "little"):
            yield data[HEADER.size :]
    for value in (1j, range(5), b"x", {1: 2}, np.str_("a")):
        yield pack_object(value).join()[HEADER.size :]


def format4() -> Iterator[bytes]:
    """Honest messages of the 4.x format."""
    for value in ({"a": [1, (2, "x")]}, 2**70, np.array(5), [b"x", None, 1.5]):
        yield Serialization.pack(value, "id")
