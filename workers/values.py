"""Values that are neither bytes nor numpy arrays: elements, vectors and keys of the iris protocol.

Between whoever computes on shares and `value_codec`, which says how each travels. The one invariant: no repr shows what
may be a share or a key.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from partywire.engine.frames import Descriptor

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Bit",
    "NetworkVec",
    "PrfCheck",
    "PrfKey",
    "Ring16",
    "Ring32",
    "Ring48",
    "Ring64",
    "RingElement",
    "RingVector",
    "StateChecksum",
    "Value",
    "VecBit",
    "VecRing16",
    "VecRing32",
    "VecRing48",
    "VecRing64",
]

# Ring elements and keys.


class RingElement(int):
    """An unsigned number of fixed width; arithmetic gives plain ints."""

    bits: ClassVar[int]
    descriptor: ClassVar[int]

    def __new__(cls, value: int) -> RingElement:
        if not 0 <= value < 1 << cls.bits:
            raise ValueError(f"{cls.__name__} holds 0 to 2**{cls.bits} - 1")
        return super().__new__(cls, value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<hidden>)"  # it may be a share; int() shows it


class Bit(RingElement):
    """One bit."""

    bits = 1
    descriptor = Descriptor.BIT_0


class Ring16(RingElement):
    """An element of Z_2^16."""

    bits = 16
    descriptor = Descriptor.RING_16


class Ring32(RingElement):
    """An element of Z_2^32."""

    bits = 32
    descriptor = Descriptor.RING_32


class Ring48(RingElement):
    """An element of Z_2^48; 6 bytes on the wire."""

    bits = 48
    descriptor = Descriptor.RING_48


class Ring64(RingElement):
    """An element of Z_2^64."""

    bits = 64
    descriptor = Descriptor.RING_64


class PrfCheck(RingElement):
    """A 128-bit number with which parties check that they use the same keys."""

    bits = 128
    descriptor = Descriptor.PRF_CHECK


class PrfKey:
    """A 16-byte seed of a pseudo-random function. Its repr hides it; comparing takes the same time for every key."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != 16:
            raise ValueError(f"a PrfKey has 16 bytes, not {len(key)}")
        self._key = bytes(key)

    def __bytes__(self) -> bytes:
        return self._key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PrfKey) and hmac.compare_digest(self._key, other._key)

    def __hash__(self) -> int:
        return hash((PrfKey, self._key))

    def __repr__(self) -> str:
        return "PrfKey(<hidden>)"


@dataclass(frozen=True, slots=True)
class StateChecksum:
    """Two 64-bit checksums, as the iris protocol compares them."""

    irises: int
    graph: int

    def __post_init__(self) -> None:
        if not (0 <= self.irises < 1 << 64 and 0 <= self.graph < 1 << 64):
            raise ValueError("both checksums are numbers of 64 bits")


# Ring vectors.


class RingVector:
    """A one-dimensional array of ring elements, in `values`."""

    __slots__ = ("values",)
    __hash__ = None  # type: ignore[assignment]
    dtype: ClassVar[np.dtype[Any]]
    descriptor: ClassVar[int]

    def __init__(self, values: ArrayLike) -> None:
        """Keeps an array of the right dtype as it is; anything else is converted if no value changes.

        Raises:
            ValueError: not one-dimensional, or a value does not fit.
        """
        array = np.asarray(values)
        if array.ndim != 1:
            raise ValueError(f"{type(self).__name__} is one-dimensional, not of shape {array.shape}")
        if array.dtype != self.dtype:
            converted = array.astype(self.dtype)
            if (array.dtype.kind not in "iub" and array.size) or not np.array_equal(converted, array):
                raise ValueError(f"{type(self).__name__} cannot hold these values of dtype {array.dtype}")
            array = converted
        self.values: NDArray[Any] = array

    def __len__(self) -> int:
        return len(self.values)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and np.array_equal(self.values, other.values)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<{len(self.values)} elements>)"


class VecRing16(RingVector):
    """Elements of Z_2^16 as a numpy array of uint16."""

    __slots__ = ()
    dtype = np.dtype("<u2")
    descriptor = Descriptor.VEC_RING_16


class VecRing32(RingVector):
    """Elements of Z_2^32 as a numpy array of uint32."""

    __slots__ = ()
    dtype = np.dtype("<u4")
    descriptor = Descriptor.VEC_RING_32


class VecRing64(RingVector):
    """Elements of Z_2^64 as a numpy array of uint64."""

    __slots__ = ()
    dtype = np.dtype("<u8")
    descriptor = Descriptor.VEC_RING_64


class VecRing48(RingVector):
    """Elements of Z_2^48 as a numpy array of uint64; 6 bytes each on the wire, so encoding and decoding copy."""

    __slots__ = ()
    dtype = np.dtype("<u8")
    descriptor = Descriptor.VEC_RING_48

    def __init__(self, values: ArrayLike) -> None:
        super().__init__(values)
        if self.values.size and int(self.values.max()) >> 48:
            raise ValueError("VecRing48 holds values below 2**48")


class VecBit(RingVector):
    """Bits as a numpy array of bool; eight per byte on the wire, so encoding and decoding copy."""

    __slots__ = ()
    dtype = np.dtype("?")
    descriptor = Descriptor.VEC_RING_BIT


class NetworkVec(list[Any]):
    """A list of ring elements, ring vectors and bytes, sent as one message. It cannot hold another NetworkVec."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"NetworkVec(<{len(self)} values>)"


Value: TypeAlias = (
    "bytes | bytearray | memoryview | RingElement | PrfKey | StateChecksum | RingVector | NetworkVec"
    " | NDArray[Any] | np.generic[Any]"
)
