"""A value as tokens and buffers.

Driven by `pack_object`. Tokens are what msgpack writes one after another; buffers are memory of the caller, lent until
the message is written. The one invariant: whatever is made of the tokens equals the value in type and content.

Copies: none of bytes, bytearrays, memoryviews and contiguous arrays above INLINE_SIZE_MAX bytes.
"""

from __future__ import annotations

import dataclasses
from array import array
from collections import OrderedDict, deque
from enum import Enum
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .. import array_meta, value_codec
from . import operations as op
from .errors import ObjectEncodeError, key_step
from .kinds import NUMPY_OBJECTS, encoder_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from partywire.engine.frames import Buffer

    from .errors import Step
    from .limits import ObjectLimits
    from .registry import Entry, ObjectRegistry

INLINE_SIZE_MAX: Final = 1024
"""Smaller buffers stand among the tokens: beside them one costs 24 bytes of table and padding, and a part to write."""

COLUMN_MIN: Final = 16
"""Lists of numbers, or of rows, below this length are written one by one."""

COLUMNS_WIDTH_MAX: Final = 32
"""Wider rows are written one by one: few rows of many places would be many columns of few places."""

INT64_MIN: Final = -(1 << 63)
UINT64_MAX: Final = (1 << 64) - 1

_PLAIN: Final[frozenset[type]] = frozenset({type(None), bool, int, float, str})
_PLAIN_AND_BYTES: Final[frozenset[type]] = _PLAIN | {bytes}
_INTS: Final = frozenset({int})
_FLOATS: Final = frozenset({float})


class Encoder:
    """Collects what one object is; used once."""

    __slots__ = ("buffers", "containers", "context", "depth", "elements", "limits", "registry", "rows_open", "tokens")

    def __init__(self, registry: ObjectRegistry, limits: ObjectLimits, context: dict[str, Any]) -> None:
        self.registry = registry
        self.limits = limits
        # Handed to the `serialize` of registered classes.
        self.context = context
        self.tokens: list[Any] = []
        self.buffers: list[Buffer] = []
        self.depth = 0
        self.elements = 0
        self.containers = 0
        self.rows_open = 0

    def put(self, value: Any) -> None:
        """Append one value.

        Raises:
            ObjectEncodeError: it, or something in it, cannot be sent.
        """
        kind = type(value)
        encode = _ENCODERS.get(kind)
        if encode is not None:
            encode(self, value)
        else:
            self._put_rare(value, kind)

    def put_buffer(self, buffer: Buffer) -> None:
        """Append bytes, lent where they are not small."""
        if len(buffer) <= INLINE_SIZE_MAX:
            self.tokens.append(bytes(buffer))
        else:
            self.tokens.append(None)
            self.buffers.append(buffer)

    # Containers.

    def put_items(self, items: Sequence[Any]) -> None:
        """Append a list of these values; whatever holds others is made of such lists.

        Steps of an error begin with the index.
        """
        count = len(items)
        self.enter(count)
        kinds: set[type] = set(map(type, items))
        if kinds <= _PLAIN or (kinds <= _PLAIN_AND_BYTES and self._are_short(items)):
            self._put_plain(items, kinds, count)
        elif count < COLUMN_MIN or len(kinds) > 1 or not self._put_columns(items, next(iter(kinds))):
            self._put_each(items, count)
        self.depth -= 1

    def enter(self, count: int) -> None:
        """Count one more container, in those that are open, and what it holds.

        Raises:
            ObjectEncodeError: a limit is passed.
        """
        limits = self.limits
        self.depth += 1
        self.elements += count
        self.containers += 1
        if self.depth > limits.depth_max:
            raise ObjectEncodeError(
                f"it is nested deeper than depth_max = {limits.depth_max}, or holds itself; send it in parts"
            )
        if self.elements > limits.elements_max:
            raise ObjectEncodeError(
                f"it has more than elements_max = {limits.elements_max} values; send numpy arrays, or parts, or raise "
                "ObjectLimits at both ends"
            )
        if self.containers > limits.containers_max:
            raise ObjectEncodeError(
                f"it has more than containers_max = {limits.containers_max} containers; send parts, or raise "
                "ObjectLimits at both ends"
            )

    def _put_each(self, items: Sequence[Any], count: int) -> None:
        self.tokens += (op.LIST, count)
        at = -1
        try:
            for at, item in enumerate(items):  # noqa: B007 - the error says where
                self.put(item)
        except ObjectEncodeError as error:
            error.within(at)
            raise

    def _are_short(self, items: Sequence[Any]) -> bool:
        return all(len(item) <= INLINE_SIZE_MAX for item in items if type(item) is bytes)

    def _put_plain(self, items: Sequence[Any], kinds: set[type], count: int) -> None:
        """Values that msgpack writes, if it can: all at once."""
        if count >= COLUMN_MIN:
            if kinds == _INTS:
                self._put_ints(items, count)
                return
            if kinds == _FLOATS:
                self.tokens.append(op.FLOAT_COLUMN)
                self.put_buffer(memoryview(array("d", items)).cast("B"))
                return
        if (int in kinds and not are_small(items)) or (str in kinds and not _is_all_text(items)):
            self._put_each(items, count)
            return
        self.tokens += (op.PLAIN_LIST, count)
        self.tokens += items

    def _put_ints(self, items: Sequence[int], count: int) -> None:
        try:
            wide = np.frombuffer(array("q", items), np.int64)
        except OverflowError:
            self._put_large_ints(items)
            return
        low, high = int(wide.min()), int(wide.max())
        size = next(size for size in (1, 2, 4, 8) if -(1 << 8 * size - 1) <= low and high < 1 << 8 * size - 1)
        self.tokens += (op.INT_COLUMN, size)
        self.put_buffer(array_meta.byte_view(wide.astype(f"<i{size}")))

    def _put_large_ints(self, items: Sequence[int]) -> None:
        sizes = [(item.bit_length() >> 3) + 1 for item in items]
        largest = max(sizes)
        if largest > self.limits.integer_size_max:
            error = self._too_large(largest)
            error.within(sizes.index(largest))
            raise error
        self.tokens.append(op.LARGE_INT_COLUMN)
        self._put_ints(sizes, len(sizes))
        self.put_buffer(
            b"".join([item.to_bytes(size, "little", signed=True) for item, size in zip(items, sizes, strict=True)])
        )

    def _put_columns(self, items: Sequence[Any], kind: type) -> bool:
        """A list of tuples or lists of one width, or of dictionaries of the same keys: by places. False: it is none."""
        if kind is not tuple and kind is not list and kind is not dict:
            return False
        widths = set(map(len, items))
        if len(widths) > 1 or not 0 < (width := widths.pop()) <= COLUMNS_WIDTH_MAX:
            return False
        flat = list(chain.from_iterable(map(dict.values, items) if kind is dict else items))
        steps: Sequence[Step] = range(width)
        if kind is dict:
            keys = list(items[0])
            if set(map(type, chain.from_iterable(items))) != {str} or len(set(map(tuple, items))) > 1:
                return False
            steps = [key_step(key, number) for number, key in enumerate(keys)]
        if kind is dict or self.rows_open:
            self.containers += len(items)
        if kind is dict:
            self.tokens.append(op.RECORDS)
            self.put_items(keys)
        else:
            self.tokens += (op.COLUMNS, width, kind is tuple)
        self.rows_open += 1
        place = 0
        try:
            for place in range(width):
                self.put_items(flat[place::width])
        except ObjectEncodeError as error:
            error.rename(error.index(), steps[place])
            raise
        self.rows_open -= 1
        return True

    def put_mapping(self, value: dict[Any, Any]) -> None:
        """Append keys and values."""
        keys = list(value)
        try:
            self.put_items(keys)
        except ObjectEncodeError as error:
            error.rename(f"<key {error.index()}>")
            raise
        self._check_keys(keys)
        try:
            self.put_items(list(value.values()))
        except ObjectEncodeError as error:
            at = error.index()
            error.rename(key_step(keys[at], at) if keys else 0)
            raise

    def _check_keys(self, keys: Sequence[Any]) -> None:
        if len(keys) > self.limits.weak_keys_max and not {str, bytes}.issuperset(map(type, keys)):
            raise ObjectEncodeError(
                f"more than weak_keys_max = {self.limits.weak_keys_max} keys that are neither text nor bytes; send "
                "lists, or raise ObjectLimits at both ends"
            )

    def put_members(self, members: Iterable[Any]) -> None:
        """Append the members of a set."""
        listed = list(members)
        try:
            self.put_items(listed)
        except ObjectEncodeError as error:
            error.rename(f"<member {error.index()}>")
            raise
        self._check_keys(listed)

    def put_int(self, value: int) -> None:
        """Append an integer of any size."""
        if INT64_MIN <= value <= UINT64_MAX:
            self.tokens.append(value)
            return
        size = (value.bit_length() >> 3) + 1
        if size > self.limits.integer_size_max:
            raise self._too_large(size)
        self.tokens.append(op.LARGE_INT)
        self.put_buffer(value.to_bytes(size, "little", signed=True))

    def _too_large(self, size: int) -> ObjectEncodeError:
        return ObjectEncodeError(
            f"an integer of {size} bytes is above integer_size_max = {self.limits.integer_size_max}; raise "
            "ObjectLimits at both ends"
        )

    # What is no built-in type.

    def _put_rare(self, value: Any, kind: type) -> None:
        entry = self.registry.entry_of(kind)
        if entry is not None:
            self._put_registered(value, entry)
            return
        if isinstance(value, Enum):
            self._put_enum(value, kind.__name__)
            return
        encoder = encoder_of(kind)
        if encoder is not None:
            name, encode = encoder
            self.put_known(name, encode(value))
            return
        if isinstance(value, np.generic):
            _put_numpy_scalar(self, value)
            return
        raise ObjectEncodeError(_refusal(value, kind))

    def put_known(self, name: str, payload: Any) -> None:
        """Append an object of a kind that both ends know by its name."""
        self.tokens += (op.KNOWN, name)
        self._put_payload(payload)

    def _put_registered(self, value: Any, entry: Entry) -> None:
        if entry.serialize is None:
            self._put_enum(value, entry.name)
            return
        payload = entry.serialize(value, **self.context)
        self.tokens += (op.OBJECT, entry.name)
        try:
            self._put_payload(payload)
        except ObjectEncodeError as error:
            if isinstance(error.steps[0] if error.steps else None, str) and dataclasses.is_dataclass(value):
                error.rename("." + str(error.steps[0])[2:-2])
            raise

    def _put_payload(self, payload: Any) -> None:
        self.enter(1)
        self.put(payload)
        self.depth -= 1

    def _put_enum(self, value: Enum, name: str) -> None:
        self.tokens += (op.ENUM, name)
        self._put_payload(value.value)


def are_small(items: Sequence[Any]) -> bool:
    """Whether msgpack can write every integer in it."""
    numbers = [item for item in items if type(item) is int]
    return min(numbers) >= INT64_MIN and max(numbers) <= UINT64_MAX


def _is_all_text(items: Sequence[Any]) -> bool:
    """Whether every str in it is UTF-8, so that msgpack can write it."""
    joined = "".join([item for item in items if type(item) is str])
    if joined.isascii():
        return True
    try:
        joined.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refusal(value: Any, kind: type) -> str:
    name = kind.__qualname__
    if isinstance(value, np.ma.MaskedArray):
        return "the mask of a masked array is not sent; send its data and its mask as two arrays"
    if isinstance(value, np.ndarray):
        return f"a {name} would arrive as a plain array; send np.asarray(...) of it"
    if isinstance(value, type) or callable(value):
        return f"a {name} is code, which is never sent"
    return f"a {name} is of no kind that can be sent; register its class with Serialization.register_class at both ends"


# One function for each built-in type.


def _put_text(encoder: Encoder, value: str) -> None:
    if len(value) <= INLINE_SIZE_MAX:
        if value.isascii():
            encoder.tokens.append(value)
            return
        try:
            value.encode()
        except UnicodeEncodeError:
            pass
        else:
            encoder.tokens.append(value)
            return
    encoder.tokens.append(op.TEXT)
    encoder.put_buffer(value.encode("utf-8", "surrogatepass"))


def _put_itself(encoder: Encoder, value: Any) -> None:
    encoder.tokens.append(value)


def _put_list(encoder: Encoder, value: list[Any]) -> None:
    encoder.put_items(value)


def _put_tuple(encoder: Encoder, value: tuple[Any, ...]) -> None:
    encoder.tokens.append(op.TUPLE)
    encoder.put_items(value)


def _put_dict(encoder: Encoder, value: dict[Any, Any]) -> None:
    encoder.tokens.append(op.DICT)
    encoder.put_mapping(value)


def _put_ordered_dict(encoder: Encoder, value: OrderedDict[Any, Any]) -> None:
    encoder.tokens.append(op.ORDERED_DICT)
    encoder.put_mapping(value)


def _put_set(encoder: Encoder, value: set[Any]) -> None:
    encoder.tokens.append(op.SET)
    encoder.put_members(value)


def _put_frozenset(encoder: Encoder, value: frozenset[Any]) -> None:
    encoder.tokens.append(op.FROZENSET)
    encoder.put_members(value)


def _put_deque(encoder: Encoder, value: deque[Any]) -> None:
    encoder.tokens += (op.DEQUE, value.maxlen)
    encoder.put_items(list(value))


def _put_bytes(encoder: Encoder, value: bytes) -> None:
    encoder.tokens.append(op.BYTES)
    encoder.put_buffer(value)


def _put_bytearray(encoder: Encoder, value: bytearray) -> None:
    encoder.tokens.append(op.BYTEARRAY)
    encoder.put_buffer(value if len(value) <= INLINE_SIZE_MAX else memoryview(value))


def _put_memoryview(encoder: Encoder, value: memoryview) -> None:
    form, shape = value.format, value.shape or ()
    if form not in MEMORY_FORMATS or not shape or (len(shape) > 1 and 0 in shape):
        raise ObjectEncodeError(f"a memoryview of format {form} and {len(shape)} dimensions; send a numpy array")
    plain = value if value.c_contiguous else memoryview(value.tobytes())
    encoder.tokens += (op.MEMORYVIEW, form)
    encoder.put_items(shape)
    encoder.tokens.append(value.readonly)
    encoder.put_buffer(plain.cast("B") if plain.nbytes else b"")


MEMORY_FORMATS: Final = frozenset("bBhHiIlLqQfdc?")
"""What a view of bytes can be cast to, and has the same size on every 64-bit Linux."""


def _put_numpy_array(encoder: Encoder, value: np.ndarray[Any, Any]) -> None:
    if value.dtype.kind == "O":
        encoder.put_known(NUMPY_OBJECTS.name, NUMPY_OBJECTS.encode(value))
        return
    meta = _array_meta(value)
    fortran = value.flags.f_contiguous and not value.flags.c_contiguous
    encoder.enter(0)
    encoder.depth -= 1  # it holds nothing
    encoder.tokens += (op.NDARRAY, meta, fortran)
    encoder.put_buffer(array_meta.byte_view(value.T if fortran else np.ascontiguousarray(value)))


def _put_numpy_scalar(encoder: Encoder, value: np.generic[Any]) -> None:
    scalar = np.asarray(value)
    encoder.tokens += (op.NUMPY_SCALAR, _array_meta(scalar))
    encoder.put_buffer(scalar.tobytes())


def _array_meta(value: np.ndarray[Any, Any]) -> bytes:
    if value.dtype.type is np.record:
        raise ObjectEncodeError("a numpy record would arrive as a plain structure; send .view([...]) with its fields")
    try:
        return array_meta.array_meta(value)
    except TypeError as error:
        raise ObjectEncodeError(str(error)) from None


def _put_wire_value(encoder: Encoder, value: Any) -> None:
    try:
        descriptor, length, head, body = value_codec.encode(value)
    except TypeError as error:
        raise ObjectEncodeError(str(error)) from None
    encoder.tokens += (op.WIRE_VALUE, int(descriptor), length)
    encoder.put_buffer(head + bytes(body) if head else body)


_ENCODERS: Final[dict[type, Callable[[Encoder, Any], None]]] = {
    type(None): _put_itself,
    bool: _put_itself,
    float: _put_itself,
    int: Encoder.put_int,
    str: _put_text,
    list: _put_list,
    tuple: _put_tuple,
    dict: _put_dict,
    OrderedDict: _put_ordered_dict,
    set: _put_set,
    frozenset: _put_frozenset,
    deque: _put_deque,
    bytes: _put_bytes,
    bytearray: _put_bytearray,
    memoryview: _put_memoryview,
    np.ndarray: _put_numpy_array,
    **dict.fromkeys(value_codec.WIRE_KINDS, _put_wire_value),
}

BUILT_IN_NAMES: Final = frozenset(kind.__name__ for kind in _ENCODERS)
"""Names of classes whose way of being sent cannot be replaced."""
