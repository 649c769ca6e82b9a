"""Shares of secrets among three parties, replicated: each party holds two of three components.

A secret is the sum (mod 2^16, 2^32 or 2^64) or the XOR of three components x_0, x_1, x_2. Party i holds x_i, here
`own`, and x_(i-1), here `prev`; so each component is known to exactly two parties, and no party knows the third. Linear
operations are local and are methods here; whatever needs another party is in protocol.py.

Source: T. Araki, J. Furukawa, Y. Lindell, A. Nof, K. Ohara, "High-Throughput Semi-Honest Secure Three-Party Computation
with an Honest Majority", ACM CCS 2016; the layout (x_i, x_(i-1)) gives the same protocol with one message to the next
party. A share never shows its words: `repr` has shape and ring only.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import NotInRing, ShareMismatch, described

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    Words = NDArray[Any]

__all__ = [
    "ArithmeticShare",
    "BinaryShare",
    "packed_size",
    "plain_array",
    "require_bits",
    "require_words",
    "ring_dtype",
    "to_ring",
]

_RINGS = (np.dtype(np.uint16), np.dtype(np.uint32), np.dtype(np.uint64))


def ring_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """`dtype` if it stands for Z_2^16, Z_2^32 or Z_2^64. Raises NotInRing otherwise."""
    found = np.dtype(dtype)
    if found not in _RINGS:
        raise NotInRing("arithmetic sharing", str(found), "uint16, uint32 or uint64")
    return found


def plain_array(values: ArrayLike) -> Words:
    """`values` as numpy sees them, but lists of integers that share no fixed width stay integers."""
    array = np.asarray(values)
    if array.dtype.kind == "f" and not isinstance(values, np.ndarray | np.generic):
        # What numpy makes of [-1, 2**63], and of [].
        objects = np.asarray(values, dtype=object)
        if all(type(item) is int for item in objects.flat):
            return objects
    return array


def to_ring(values: ArrayLike, dtype: np.dtype[Any]) -> Words:
    """Integers of any sign and size, modulo 2^bits. Raises NotInRing for anything but integers and truth values."""
    array = plain_array(values)
    if array.dtype == object and all(type(item) is int for item in array.flat):
        array = np.asarray(array % (1 << 8 * dtype.itemsize))  # Python's own integers above 64 bits
    elif array.dtype.kind not in "biu":
        raise NotInRing("a ring", f"values of dtype {array.dtype}", "integers")
    # Unsigned conversion in numpy is reduction modulo 2^bits, also of negative numbers.
    return array.astype(dtype)


def packed_size(count: int) -> int:
    """Bytes of `count` bits."""
    return -(-count // 8)


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class ArithmeticShare:
    """One party's part of an array over Z_2^16, Z_2^32 or Z_2^64 (uint16, uint32, uint64), any shape.

    `+`, `-`, unary `-`, `*` with public integers, indexing and reshaping are local: no round, no byte. They take views
    where numpy does and never change their operands.
    """

    own: Words
    prev: Words

    # Keeps numpy from spreading `array * share` over the elements of the array.
    __array_ufunc__ = None

    def __post_init__(self) -> None:
        ring_dtype(self.own.dtype)
        if self.own.dtype != self.prev.dtype or self.own.shape != self.prev.shape:
            raise ShareMismatch("a share", f"{self.own.dtype}{self.own.shape}", f"{self.prev.dtype}{self.prev.shape}")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.own.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.own.dtype

    @property
    def size(self) -> int:
        return self.own.size

    def __len__(self) -> int:
        return len(self.own)

    def __repr__(self) -> str:
        return f"ArithmeticShare(<hidden>, shape={self.shape}, dtype={self.dtype})"

    def __add__(self, other: ArithmeticShare) -> ArithmeticShare:
        return self._joined("addition", np.add, other)

    def __sub__(self, other: ArithmeticShare) -> ArithmeticShare:
        return self._joined("subtraction", np.subtract, other)

    def __neg__(self) -> ArithmeticShare:
        return _share(np.negative(self.own), np.negative(self.prev))

    def __mul__(self, public: ArrayLike) -> ArithmeticShare:
        if isinstance(public, ArithmeticShare):
            raise ShareMismatch("multiplication by a public value", described(self), described(public))
        factor = to_ring(public, self.dtype)
        try:
            return _share(np.multiply(self.own, factor), np.multiply(self.prev, factor))
        except ValueError as exc:
            raise ShareMismatch("multiplication by a public value", described(self), f"shape {factor.shape}") from exc

    __rmul__ = __mul__

    def __getitem__(self, index: Any) -> ArithmeticShare:
        return _share(self.own[index], self.prev[index])

    def reshape(self, *shape: int) -> ArithmeticShare:
        return ArithmeticShare(self.own.reshape(*shape), self.prev.reshape(*shape))

    def sum(self, axis: int | None = None) -> ArithmeticShare:
        """The sum along an axis, in the ring (numpy would widen small words by itself)."""
        return _share(self.own.sum(axis=axis, dtype=self.dtype), self.prev.sum(axis=axis, dtype=self.dtype))

    @staticmethod
    def concatenate(shares: Sequence[ArithmeticShare], axis: int = 0) -> ArithmeticShare:
        """One after the other along an axis, as in numpy. Raises ShareMismatch for other shapes or several rings."""
        return _from_many("concatenation", np.concatenate, shares, axis)

    @staticmethod
    def stack(shares: Sequence[ArithmeticShare], axis: int = 0) -> ArithmeticShare:
        """Side by side along a new axis, as in numpy. Raises ShareMismatch for other shapes or several rings."""
        return _from_many("a stack", np.stack, shares, axis)

    def _joined(self, operation: str, op: Callable[[Words, Words], Words], other: object) -> ArithmeticShare:
        if not isinstance(other, ArithmeticShare) or other.dtype != self.dtype:
            raise ShareMismatch(operation, described(self), described(other))
        try:
            return _share(op(self.own, other.own), op(self.prev, other.prev))
        except ValueError as exc:
            raise ShareMismatch(operation, described(self), described(other)) from exc


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class BinaryShare:
    """One party's part of bits, packed: `own` and `prev` are uint8 arrays of shape (slices, ceil(prod(shape) / 8)).

    `shape` is the shape of the secrets; slice j holds bit j of all of them, element e at bit e % 8 of byte e // 8. XOR
    and taking slices are local. The bits that fill up the last byte belong to nobody: they stand for constants.
    """

    own: NDArray[np.uint8]
    prev: NDArray[np.uint8]
    shape: tuple[int, ...]

    __array_ufunc__ = None

    def __post_init__(self) -> None:
        for part in (self.own, self.prev):
            if part.dtype != np.uint8:
                raise NotInRing("binary sharing", str(part.dtype), "packed uint8")
            if part.ndim != 2 or part.shape != (len(self.own), packed_size(prod(self.shape))):
                raise ShareMismatch("a binary share", f"words of shape {part.shape}", f"secrets of shape {self.shape}")

    @property
    def slices(self) -> int:
        return len(self.own)

    def __repr__(self) -> str:
        return f"BinaryShare(<hidden>, slices={self.slices}, shape={self.shape})"

    def __xor__(self, other: BinaryShare) -> BinaryShare:
        self.require_same("XOR", other)
        return BinaryShare(self.own ^ other.own, self.prev ^ other.prev, self.shape)

    def __getitem__(self, index: slice | list[int]) -> BinaryShare:
        """Some of the slices."""
        return BinaryShare(self.own[index], self.prev[index], self.shape)

    @staticmethod
    def concatenate(shares: Sequence[BinaryShare]) -> BinaryShare:
        """The slices of all, in order. Raises ShareMismatch if the shapes of the secrets are not equal."""
        require_bits("concatenation of slices", *shares)
        first = shares[0]
        for share in shares:
            if share.shape != first.shape:
                raise ShareMismatch("concatenation of slices", described(first), described(share))
        return BinaryShare(
            np.concatenate([share.own for share in shares]),
            np.concatenate([share.prev for share in shares]),
            first.shape,
        )

    def require_same(self, operation: str, other: object) -> None:
        if not isinstance(other, BinaryShare) or (other.slices, other.shape) != (self.slices, self.shape):
            # The representation of a share is hidden, and tells the number of slices.
            seen = repr(other) if isinstance(other, BinaryShare) else described(other)
            raise ShareMismatch(operation, repr(self), seen)


def require_words(operation: str, *operands: object) -> None:
    """Raises ShareMismatch unless every operand is an ArithmeticShare."""
    for operand in operands:
        if not isinstance(operand, ArithmeticShare):
            raise ShareMismatch(operation, described(operand), "an arithmetic share")


def require_bits(operation: str, *operands: object) -> None:
    """Raises ShareMismatch unless every operand is a BinaryShare."""
    for operand in operands:
        if not isinstance(operand, BinaryShare):
            raise ShareMismatch(operation, described(operand), "a binary share")


def _from_many(
    operation: str, join: Callable[..., Words], shares: Sequence[ArithmeticShare], axis: int
) -> ArithmeticShare:
    require_words(operation, *shares)
    for share in shares:
        # numpy would widen the narrow words, and their sum would wrap no more where the secret relies on it.
        if share.dtype != shares[0].dtype:
            raise ShareMismatch(operation, described(shares[0]), described(share))
    try:
        return ArithmeticShare(
            join([share.own for share in shares], axis), join([share.prev for share in shares], axis)
        )
    except ValueError as exc:
        raise ShareMismatch(operation, " and ".join(map(described, shares)) or "no share", f"axis {axis}") from exc


def _share(own: Any, prev: Any) -> ArithmeticShare:
    """A share from the results of numpy operations, which are scalars and no arrays where a secret has no axis."""
    return ArithmeticShare(np.asarray(own), np.asarray(prev))
