"""The byte format of tno.mpc.communication 4.x: read and written for what is stored in it, never sent by us.

A message is a msgpack map `{"object": ..., "id": ...}`. What msgpack does not know is a map `{"type": name of the
class, "data": ...}` in it, which a dictionary of the user with these two keys is mistaken for, and much arrives as
another type; that is why objects are sent in a format of our own (`packing`). docs/objects.md says what is kept.
"""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import msgpack
import numpy as np

from .encoder import INT64_MIN, UINT64_MAX, are_small
from .errors import ObjectDecodeError, ObjectEncodeError, key_step
from .format4_kinds import DECODERS, ENCODERS
from .weak_keys import may_collide

if TYPE_CHECKING:
    from .registry import ObjectRegistry

DEPTH_MAX: Final = 200
"""Of containers; that library itself stops at 254."""

OPT_NON_STR_KEYS: Final = 2
OPT_SORT_KEYS: Final = 1024
_OPTIONS_KNOWN: Final = OPT_NON_STR_KEYS | OPT_SORT_KEYS | 8 | 16 | 128 | 256
"""Beside the two, the four that library packs with unless told otherwise (big integers, dataclasses, tuples, numpy);
they are always on here."""

_FAST_KINDS: Final = frozenset({int, float, str, bytes, bool, type(None)})
_NUMPY_KINDS: Final = frozenset("?bhilqBHILQefd")


def serialize(value: Any, registry: ObjectRegistry, context: dict[str, Any]) -> Any:
    """`{"type", "data"}` of a value that msgpack does not know.

    Raises:
        ObjectEncodeError: the format has nothing for its class.
    """
    kind = type(value)
    entry = registry.entry_of(kind)
    if entry is not None and entry.serialize is not None:
        return {"type": entry.name, "data": entry.serialize(value, use_pickle=False, **context)}
    encode = ENCODERS.get(kind.__name__)
    if encode is None:
        raise ObjectEncodeError(
            f"the 4.x format has nothing for a {kind.__qualname__}; register it with Serialization.register_class"
        )
    return {"type": kind.__name__, "data": encode(value)}


def deserialize(value: Any, registry: ObjectRegistry, context: dict[str, Any]) -> Any:
    """What a value of the format stands for.

    Raises:
        ObjectDecodeError: its type is not registered here, or it is none.
    """
    return _Reader(registry, context).read(value)


class _Reader:
    def __init__(self, registry: ObjectRegistry, context: dict[str, Any]) -> None:
        self._registry = registry
        self._context = context
        self._depth = 0

    def read(self, value: Any) -> Any:
        kind = type(value)
        if kind is not list and kind is not dict:
            return value
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise ObjectDecodeError(f"it is nested deeper than {DEPTH_MAX}")
        made = self._read_list(value) if kind is list else self._read_map(value)
        self._depth -= 1
        return made

    def _read_list(self, value: list[Any]) -> list[Any]:
        if _FAST_KINDS.issuperset(map(type, value)):
            return value
        made: list[Any] = []
        try:
            for item in value:
                made.append(self.read(item))  # noqa: PERF401 - the error says which
        except ObjectDecodeError as error:
            error.within(len(made))
            raise
        return made

    def _read_map(self, value: dict[Any, Any]) -> Any:
        if "type" in value and "data" in value:
            return self._read_typed(value["type"], value["data"])
        return self._read_values(value)

    def _read_values(self, value: dict[Any, Any]) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        try:
            for key, item in value.items():
                made[key] = self.read(item)
        except ObjectDecodeError as error:
            error.within(key_step(key, len(made)))
            raise
        return made

    def _read_typed(self, name: Any, data: Any) -> Any:
        if type(name) is not str:
            raise ObjectDecodeError("a type whose name is no text")
        entry = self._registry.named(name)
        if type(data) is dict:
            data = self._read_values(data)
        try:
            if entry is not None and entry.deserialize is not None:
                return entry.deserialize(data, use_pickle=False, **self._context)
            decode = DECODERS.get(name)
            if decode is not None:
                return decode(self.read(data) if type(data) is list else data)
        except ObjectDecodeError:
            raise
        except Exception as error:
            raise ObjectDecodeError(f"the deserialize of a class raised {type(error).__name__}") from error
        raise ObjectDecodeError(
            "a type that is not registered here; call Serialization.register_class for each class that is stored"
        )


class _Writer:
    """Turns a value into what msgpack knows, as that library's packer does."""

    def __init__(self, option: int, registry: ObjectRegistry, context: dict[str, Any]) -> None:
        self._any_keys = bool(option & OPT_NON_STR_KEYS)
        self._sorts = bool(option & OPT_SORT_KEYS)
        self._registry = registry
        self._context = context
        self._depth = 0

    def write(self, value: Any) -> Any:
        kind = type(value)
        if kind is int:
            return value if INT64_MIN <= value <= UINT64_MAX else serialize(value, self._registry, self._context)
        if kind in _FAST_KINDS:
            return value
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise ObjectEncodeError(f"it is nested deeper than {DEPTH_MAX}, or holds itself")
        made = self._write_other(value, kind)
        self._depth -= 1
        return made

    def _write_other(self, value: Any, kind: type) -> Any:
        if kind is list or (isinstance(value, list) and self._registry.entry_of(kind) is None):
            return self._write_list(value)
        if kind is dict or (isinstance(value, dict) and self._registry.entry_of(kind) is None):
            return self._write_dict(value)
        known, plain = _as_plain(value)
        if known:
            return self.write(plain)
        return self._write_dict(serialize(value, self._registry, self._context), is_ours=True)

    def _write_list(self, value: list[Any]) -> list[Any]:
        kinds = set(map(type, value))
        if kinds <= _FAST_KINDS and (int not in kinds or are_small(value)):
            return value
        made: list[Any] = []
        try:
            for item in value:
                made.append(self.write(item))  # noqa: PERF401 - the error says which
        except ObjectEncodeError as error:
            error.within(len(made))
            raise
        return made

    def _write_dict(self, value: dict[Any, Any], *, is_ours: bool = False) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        try:
            for key, item in value.items():
                made[self._write_key(key)] = self.write(item)
        except ObjectEncodeError as error:
            if not is_ours:
                error.within(key_step(key, len(made)))
            raise
        return dict(sorted(made.items())) if self._sorts and not is_ours else made

    def _write_key(self, key: Any) -> Any:
        if isinstance(key, str) and not isinstance(key, Enum):
            return str(key)
        if not self._any_keys:
            raise ObjectEncodeError("a key that is no text; pass option=OPT_NON_STR_KEYS at both ends")
        known, plain = _as_plain(key)
        plain = plain if known else key
        if type(plain) not in _FAST_KINDS:
            raise ObjectEncodeError("a key that is no plain value")
        return plain


def _as_plain(value: Any) -> tuple[bool, Any]:
    """Whether something stands for a value that msgpack does not know without `{"type", "data"}`, and what."""
    if isinstance(value, Enum):
        return True, value.value
    if isinstance(value, (bytearray, memoryview)):
        return True, bytes(value)
    if isinstance(value, np.ndarray):
        is_native = value.ndim > 0 and value.dtype.char in _NUMPY_KINDS and value.flags.c_contiguous
        return is_native, value.tolist() if is_native else None
    if isinstance(value, np.datetime64):
        return True, _numpy_time(value)
    if isinstance(value, np.generic):
        return value.dtype.char in _NUMPY_KINDS, value.item()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return False, None
    kind = type(value)
    if kind is datetime.datetime or kind is datetime.date or kind is datetime.time:
        return True, value.isoformat()
    if isinstance(value, uuid.UUID):
        return True, str(value)
    if isinstance(value, str):
        return True, str(value)
    if isinstance(value, int):
        return True, int(value)
    return False, None


def _numpy_time(value: np.datetime64) -> str:
    text = str(value.astype("M8[us]"))
    return text.removesuffix(".000000") + "+00:00"


def pack(value: Any, msg_id: str | int, option: int | None, registry: ObjectRegistry, context: dict[str, Any]) -> bytes:
    """A whole message.

    Raises:
        ObjectEncodeError: the format has nothing for something in it.
        ValueError: an option that is not known here.
    """
    writer = _Writer(_checked(option), registry, context)
    try:
        plain = writer.write(value)
        packed: bytes = msgpack.packb({"object": plain, "id": writer.write(msg_id)})
    except RecursionError:
        raise ObjectEncodeError("it is nested too deep for the calls that stand here already") from None
    except UnicodeEncodeError:
        raise ObjectEncodeError("text with a surrogate that stands alone, which the 4.x format cannot hold") from None
    return packed


def unpack(
    data: bytes | bytearray | memoryview, option: int | None, registry: ObjectRegistry, context: dict[str, Any]
) -> tuple[Any, Any]:
    """Id and value of a whole message.

    Raises:
        ObjectDecodeError: it is none.
        ValueError: an option that is not known here.
    """
    any_keys = bool(_checked(option) & OPT_NON_STR_KEYS)
    message = _plain_untrusted(data, any_keys)
    if type(message) is not dict or not {"object", "id"} <= message.keys() or type(message["id"]) not in (str, int):
        raise ObjectDecodeError("no message of the 4.x format: it has no object, or no id")
    try:
        return message["id"], _Reader(registry, context).read(message["object"])
    except RecursionError:
        raise ObjectDecodeError("it is nested too deep for the calls that stand here already") from None
    except MemoryError:
        raise ObjectDecodeError("there is no memory for it") from None


def _plain_untrusted(data: bytes | bytearray | memoryview, any_keys: bool) -> Any:
    """What msgpack makes of it; containers are made only when all that they announce is there."""
    size = max(len(data), 1)
    bounds: dict[str, Any] = {"max_buffer_size": size, "max_str_len": size, "max_bin_len": size, "max_array_len": size}
    bounds |= {"max_map_len": size, "max_ext_len": 0, "ext_hook": _no_extension, "strict_map_key": not any_keys}
    if any_keys:
        bounds["object_pairs_hook"] = _checked_pairs
    try:
        walker = msgpack.Unpacker(**bounds)
        walker.feed(data)
        walker.skip()
        if walker.tell() != len(data):
            raise ObjectDecodeError("more follows behind its end")
        maker = msgpack.Unpacker(**bounds)
        maker.feed(data)
        return maker.unpack()
    except ObjectDecodeError:
        raise
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        raise ObjectDecodeError("no message of the 4.x format: it is no msgpack, or is nested too deep") from None
    except MemoryError:
        raise ObjectDecodeError("there is no memory for it") from None


def _no_extension(_code: int, _data: bytes) -> Any:
    """One without data passes the bound."""
    raise ObjectDecodeError("no message of the 4.x format: it has an extension of msgpack")


def _checked_pairs(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    if may_collide([key for key, _ in pairs], is_set=False):
        raise ObjectDecodeError("keys that were chosen to collide")
    return dict(pairs)


def _checked(option: int | None) -> int:
    option = option or 0
    if option & ~_OPTIONS_KNOWN:
        raise ValueError(f"option {option & ~_OPTIONS_KNOWN} of ormsgpack is not supported")
    return option
