"""Tokens and buffers of a peer as a value.

Driven by `unpack_object`, and by the peer's bytes. The one invariant: whatever the tokens are, a value comes out or an
ObjectDecodeError, no code is called but that of classes registered here, and memory is taken only for what has arrived:
a count is compared with the tokens that are left, a size with the buffer.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from partywire.engine.errors import LinkProtocolError
from partywire.engine.frames import body_size, printable_untrusted

from .. import array_meta, value_codec
from . import operations as op
from .encoder import MEMORY_FORMATS
from .errors import ObjectDecodeError, key_step
from .kinds import check_numpy_text_untrusted, decoder_of
from .weak_keys import may_collide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .errors import Step
    from .limits import ObjectLimits
    from .registry import ObjectRegistry

S = TypeVar("S", set[Any], frozenset[Any])

NAME_SHOWN_MAX: Final = 64
_MESSAGE_SIZE_MAX: Final = 1 << 32
_PROTECTED: Final = frozenset({str, bytes})


class Decoder:
    """Makes one object; used once."""

    __slots__ = (
        "_containers", "_context", "_depth", "_elements", "_end", "_limits", "_next", "_registry", "_rows_open",
        "_tokens", "buffers",
    )  # fmt: skip

    def __init__(
        self,
        tokens: list[Any],
        buffers: Iterator[memoryview],
        registry: ObjectRegistry,
        limits: ObjectLimits,
        context: dict[str, Any],
    ) -> None:
        self._tokens = tokens
        self._end = len(tokens)
        self._next = 0
        # What is left of the buffers out of band, each of which is used once.
        self.buffers = buffers
        self._registry = registry
        self._limits = limits
        # Handed to the `deserialize` of registered classes.
        self._context = context
        self._depth = 0
        self._elements = 0
        self._containers = 0
        self._rows_open = 0

    def take_all_untrusted(self) -> Any:
        """The one value that the tokens are.

        Raises:
            ObjectDecodeError: they are none.
        """
        value = self._take()
        if self._next != self._end or next(self.buffers, None) is not None:
            raise ObjectDecodeError("more follows behind its end")
        return value

    # Tokens.

    def _token(self) -> Any:
        at = self._next
        if at >= self._end:
            raise ObjectDecodeError("it ends too early")
        self._next = at + 1
        return self._tokens[at]

    def _take(self) -> Any:
        token = self._token()
        if type(token) is not bytes:
            return token
        decode = _DECODERS.get(token)
        if decode is None:
            raise ObjectDecodeError("an operation that this version does not know")
        return decode(self)

    def _number(self, most: int) -> int:
        number = self._token()
        if type(number) is not int or not 0 <= number <= most:
            raise ObjectDecodeError(f"a number that is none of 0 to {most}")
        return number

    def _flag(self) -> bool:
        flag = self._token()
        if type(flag) is not bool:
            raise ObjectDecodeError("a truth value that is none")
        return flag

    def _name(self) -> str:
        name = self._token()
        if type(name) is not str:
            raise ObjectDecodeError("a name that is no text")
        return name

    def _buffer(self) -> bytes | memoryview:
        token = self._token()
        if type(token) is bytes:
            return token
        found = next(self.buffers, None) if token is None else None
        if found is None:
            raise ObjectDecodeError("a buffer that is not there")
        return found

    # Containers.

    def _enter(self, count: int) -> None:
        limits = self._limits
        self._depth += 1
        self._elements += count
        self._containers += 1
        if self._depth > limits.depth_max:
            raise ObjectDecodeError(f"it is nested deeper than depth_max = {limits.depth_max}")
        if self._elements > limits.elements_max:
            raise ObjectDecodeError(f"it has more than elements_max = {limits.elements_max} values")
        if self._containers > limits.containers_max:
            raise ObjectDecodeError(f"it has more than containers_max = {limits.containers_max} containers")

    def _items(self) -> list[Any]:
        """A list that belongs to something else, or stands for itself."""
        decode = _LISTS.get(self._token())
        if decode is None:
            raise ObjectDecodeError("not the list that should stand here")
        return decode(self)

    def _list(self) -> list[Any]:
        count = self._number(self._end - self._next - 1)
        self._enter(count)
        items: list[Any] = []
        append, take = items.append, self._take
        try:
            for _ in range(count):
                append(take())
        except ObjectDecodeError as error:
            error.within(len(items))
            raise
        self._depth -= 1
        return items

    def _plain_list(self) -> list[Any]:
        count = self._number(self._end - self._next - 1)
        self._enter(count)
        self._depth -= 1
        start = self._next
        self._next = start + count
        return self._tokens[start : start + count]

    def _int_column(self) -> list[Any]:
        size = self._number(8)
        if size not in (1, 2, 4, 8):
            raise ObjectDecodeError("integers of no size that there is")
        return self._column(f"<i{size}", size)

    def _float_column(self) -> list[Any]:
        return self._column("<f8", 8)

    def _column(self, kind: str, size: int) -> list[Any]:
        buffer = self._buffer()
        count, rest = divmod(len(buffer), size)
        if rest:
            raise ObjectDecodeError("a column that ends within a number")
        self._enter(count)
        self._depth -= 1
        listed: list[Any] = np.ndarray((count,), kind, buffer).tolist()
        return listed

    def _large_int_column(self) -> list[Any]:
        self._enter(0)
        self._containers -= 1  # the list of sizes is counted
        sizes = self._items()
        buffer = self._buffer()
        size_max = self._limits.integer_size_max
        if sizes and (
            set(map(type, sizes)) != {int} or min(sizes) < 1 or max(sizes) > size_max or sum(sizes) != len(buffer)
        ):
            raise ObjectDecodeError(
                f"integers that have not 1 to integer_size_max = {size_max} bytes each, or do not fill their buffer"
            )
        self._depth -= 1
        items: list[Any] = []
        start = 0
        for size in sizes:
            items.append(int.from_bytes(buffer[start : start + size], "little", signed=True))
            start += size
        if start != len(buffer):
            raise ObjectDecodeError("integers that do not fill their buffer")
        return items

    def _columns(self) -> list[Any]:
        width = self._number(self._end - self._next - 1)
        is_tuple = self._flag()
        rows = self._rows(range(width))
        return list(rows) if is_tuple else list(map(list, rows))

    def _records(self) -> list[Any]:
        keys = self._items()
        if set(map(type, keys)) != {str} or len(set(keys)) != len(keys):
            raise ObjectDecodeError("records whose keys are no texts, or twice the same")
        rows = self._rows([key_step(key, number) for number, key in enumerate(keys)], are_containers=True)
        return [dict(zip(keys, row, strict=True)) for row in rows]

    def _rows(self, steps: Sequence[Step], *, are_containers: bool = False) -> Iterator[tuple[Any, ...]]:
        """The rows of as many columns as there are steps to places in a row."""
        self._enter(0)
        self._rows_open += 1
        columns: list[list[Any]] = []
        try:
            for _ in steps:
                columns.append(self._items())  # noqa: PERF401 - the error says which
        except ObjectDecodeError as error:
            error.rename(error.index(), steps[len(columns)])
            raise
        if not columns or len(set(map(len, columns))) != 1:
            raise ObjectDecodeError("columns of different lengths")
        count = len(columns[0])
        self._rows_open -= 1
        # Rows of rows of rows take memory again for each value, in few bytes.
        self._containers += (count if are_containers or self._rows_open else 0) - 1  # it has been counted above
        self._enter(count)
        self._depth -= 2
        return zip(*columns, strict=True)

    def _tuple(self) -> tuple[Any, ...]:
        return tuple(self._items())

    def _dict(self) -> dict[Any, Any]:
        try:
            keys = self._items()
        except ObjectDecodeError as error:
            error.rename(f"<key {error.index()}>")
            raise
        try:
            items = self._items()
        except ObjectDecodeError as error:
            at = error.index()
            error.rename(key_step(keys[at], at) if at < len(keys) else at)
            raise
        self._check_keys(keys, is_set=False)
        if len(keys) != len(items):
            raise ObjectDecodeError("a dictionary with another number of keys than of values")
        try:
            made = dict(zip(keys, items, strict=True))
        except Exception as error:  # of a registered class, too, whose objects are compared
            raise ObjectDecodeError("a key that cannot be one") from error
        if len(made) != len(keys):
            raise ObjectDecodeError("a dictionary with a key twice")
        return made

    def _ordered_dict(self) -> OrderedDict[Any, Any]:
        return OrderedDict(self._dict())

    def _members(self) -> list[Any]:
        try:
            listed = self._items()
        except ObjectDecodeError as error:
            error.rename(f"<member {error.index()}>")
            raise
        self._check_keys(listed, is_set=True)
        return listed

    def _check_keys(self, keys: list[Any], *, is_set: bool) -> None:
        """Refuse keys that would make a dictionary slow."""
        if _PROTECTED.issuperset(map(type, keys)):
            return
        if len(keys) > self._limits.weak_keys_max:
            raise ObjectDecodeError(
                f"more than weak_keys_max = {self._limits.weak_keys_max} keys that are neither text nor bytes"
            )
        try:
            collide = may_collide(keys, is_set=is_set)
        except Exception as error:
            raise ObjectDecodeError("a key that cannot be one") from error
        if collide:
            raise ObjectDecodeError("keys that were chosen to collide")

    def _set(self) -> set[Any]:
        return self._distinct(set)

    def _frozenset(self) -> frozenset[Any]:
        return self._distinct(frozenset)

    def _distinct(self, kind: Callable[[list[Any]], S]) -> S:
        listed = self._members()
        try:
            made = kind(listed)
        except Exception as error:
            raise ObjectDecodeError("a member that cannot be one") from error
        if len(made) != len(listed):
            raise ObjectDecodeError("a set with a member twice")
        return made

    def _deque(self) -> deque[Any]:
        longest = self._token()
        if longest is not None and (type(longest) is not int or not 0 <= longest < 1 << 63):
            raise ObjectDecodeError("a deque whose greatest length is none")
        items = self._items()
        if longest is not None and len(items) > longest:
            raise ObjectDecodeError("a deque that is longer than it can be")
        return deque(items, longest)

    # Bytes, text, large integers.

    def _bytes(self) -> bytes:
        buffer = self._buffer()
        return buffer if type(buffer) is bytes else bytes(buffer)

    def _bytearray(self) -> bytearray:
        return bytearray(self._buffer())

    def _memoryview(self) -> memoryview:
        form = self._name()
        extents = self._items()
        is_read_only = self._flag()
        buffer = self._buffer()
        if form not in MEMORY_FORMATS or not 1 <= len(extents) <= array_meta.NDIM_MAX:
            raise ObjectDecodeError("a memoryview of no form that there is")
        view = memoryview(buffer)
        if is_read_only:
            view = memoryview(bytes(buffer))  # of bytes, so that it can be a key again
        elif view.readonly:
            view = memoryview(bytearray(view))
        shape: Any = tuple(extents)
        kind: Any = form
        try:
            shaped: memoryview = view.cast(kind) if len(shape) == 1 else view.cast(kind, shape)
        except (TypeError, ValueError, OverflowError):
            raise ObjectDecodeError("a memoryview of another size than its bytes") from None
        if shaped.shape != shape:
            raise ObjectDecodeError("a memoryview of another size than its bytes")
        return shaped

    def _text(self) -> str:
        try:
            return str(self._buffer(), "utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise ObjectDecodeError("a text that is no UTF-8") from None

    def _large_int(self) -> int:
        buffer = self._buffer()
        if not 1 <= len(buffer) <= self._limits.integer_size_max:
            raise ObjectDecodeError(
                f"an integer of {len(buffer)} bytes, not 1 to integer_size_max = {self._limits.integer_size_max}"
            )
        return int.from_bytes(buffer, "little", signed=True)

    # numpy, and values of our own.

    def _array_kind(self) -> tuple[np.dtype[Any], tuple[int, ...], int]:
        meta = self._token()
        if type(meta) is not bytes:
            raise ObjectDecodeError("an array or a number without a description")
        try:
            return array_meta.parse_array_meta_untrusted(meta)
        except LinkProtocolError as error:
            raise ObjectDecodeError(error.what) from None

    def _ndarray(self) -> np.ndarray[Any, Any]:
        self._enter(0)
        self._depth -= 1  # it holds nothing
        dtype, shape, size = self._array_kind()
        fortran = self._flag()
        buffer = self._buffer()
        if len(buffer) != size:
            raise ObjectDecodeError(f"{len(buffer)} bytes for an array of {size}")
        made: np.ndarray[Any, Any] = np.ndarray(shape, dtype, buffer, order="F" if fortran else "C")
        check_numpy_text_untrusted(made)
        return made if made.flags.writeable and made.flags.aligned else made.copy("K")

    def _numpy_scalar(self) -> Any:
        dtype, shape, size = self._array_kind()
        buffer = self._buffer()
        if shape or len(buffer) != size:
            raise ObjectDecodeError(f"{len(buffer)} bytes for a number of {size}")
        made: np.ndarray[Any, Any] = np.ndarray((), dtype, buffer)
        check_numpy_text_untrusted(made)
        return made.copy()[()]

    def _wire_value(self) -> Any:
        descriptor = self._number(255)
        length = self._number(_MESSAGE_SIZE_MAX)
        buffer = self._buffer()
        body = bytearray(buffer)
        try:
            if not value_codec.is_wire_kind(descriptor) or body_size(descriptor, length) != len(body):
                raise ObjectDecodeError("a value of the wire that is none, or of another size")
            return value_codec.decode(descriptor, length, body)
        except LinkProtocolError as error:
            raise ObjectDecodeError(error.what) from None
        except ValueError:
            raise ObjectDecodeError("a value of the wire that is none, or of another size") from None

    # Objects of classes.

    def _payload(self) -> Any:
        self._enter(1)
        value = self._take()
        self._depth -= 1
        return value

    def _enum(self) -> Any:
        name = self._name()
        value = self._payload()
        entry = self._registry.named(name)
        if entry is None:
            return value
        if entry.kind is None or not issubclass(entry.kind, Enum):
            raise ObjectDecodeError(f"{_shown(name)} is no Enum here")
        try:
            return entry.kind(value)
        except Exception as error:
            raise ObjectDecodeError(f"no member of {_shown(name)} has this value") from error

    def _object(self) -> Any:
        name = self._name()
        payload = self._payload()
        entry = self._registry.named(name)
        if entry is None or entry.deserialize is None:
            raise ObjectDecodeError(
                f"the class {_shown(name)} is not registered here; call Serialization.register_class for it"
            )
        try:
            return entry.deserialize(payload, **self._context)
        except ObjectDecodeError:
            raise
        except Exception as error:
            raise ObjectDecodeError(f"the deserialize of {_shown(name)} raised {type(error).__name__}") from error

    def _known(self) -> Any:
        name = self._name()
        decode = decoder_of(name)
        if decode is None:
            raise ObjectDecodeError(f"a kind of object that this version does not know: {_shown(name)}")
        return decode(self._payload())


def _shown(name: str) -> str:
    """The name of a class in a peer's words, made safe to show."""
    text = printable_untrusted(name.encode("utf-8", "replace"))
    return text if len(text) <= NAME_SHOWN_MAX else text[:NAME_SHOWN_MAX] + "..."


_LISTS: Final[dict[Any, Callable[[Decoder], list[Any]]]] = {
    op.LIST: Decoder._list,
    op.PLAIN_LIST: Decoder._plain_list,
    op.INT_COLUMN: Decoder._int_column,
    op.LARGE_INT_COLUMN: Decoder._large_int_column,
    op.FLOAT_COLUMN: Decoder._float_column,
    op.COLUMNS: Decoder._columns,
    op.RECORDS: Decoder._records,
}

_DECODERS: Final[dict[bytes, Callable[[Decoder], Any]]] = {
    **_LISTS,
    op.TUPLE: Decoder._tuple,
    op.DICT: Decoder._dict,
    op.ORDERED_DICT: Decoder._ordered_dict,
    op.SET: Decoder._set,
    op.FROZENSET: Decoder._frozenset,
    op.DEQUE: Decoder._deque,
    op.BYTES: Decoder._bytes,
    op.BYTEARRAY: Decoder._bytearray,
    op.MEMORYVIEW: Decoder._memoryview,
    op.LARGE_INT: Decoder._large_int,
    op.TEXT: Decoder._text,
    op.NDARRAY: Decoder._ndarray,
    op.NUMPY_SCALAR: Decoder._numpy_scalar,
    op.WIRE_VALUE: Decoder._wire_value,
    op.ENUM: Decoder._enum,
    op.OBJECT: Decoder._object,
    op.KNOWN: Decoder._known,
}
