"""Which classes of a user can be sent, and under which names.

Between `Serialization`, which fills it, and the encoder and decoder, which ask it. The one invariant: bytes of a peer
never choose what is imported or called beyond the names that this process has registered itself.
"""

from __future__ import annotations

import dataclasses
import inspect
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from .errors import ObjectDecodeError, RepetitionError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DEFAULT", "NAME_SIZE_MAX", "Entry", "ObjectRegistry"]

NAME_SIZE_MAX: Final = 256
"""UTF-8 bytes of the name that a class travels under."""


class Entry:
    """How objects of one name become values that can be sent, and come back. `kind` is None for functions that were
    registered for a name."""

    __slots__ = ("deserialize", "kind", "name", "serialize")

    def __init__(
        self, name: str, kind: type | None, serialize: Callable[..., Any] | None, deserialize: Callable[..., Any] | None
    ) -> None:
        self.name = name
        self.kind = kind
        # Called with the object and the context as keyword arguments; None for an Enum.
        self.serialize = _without_pickle(serialize)
        self.deserialize = _without_pickle(deserialize)


def _without_pickle(function: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """Logic written for tno.mpc.communication may want to be told that there is no pickle."""
    if function is None:
        return None
    try:
        wants = "use_pickle" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # of a function in C
        wants = False
    return partial(function, use_pickle=False) if wants else function


class ObjectRegistry:
    """The classes that one program, or one part of it, sends and receives. `DEFAULT` is used unless another is named.

    Registering is not meant to happen while another thread encodes or decodes.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, Entry] = {}
        self._by_kind: dict[type, Entry] = {}

    def add_class(self, kind: type, name: str = "", *, overwrite: bool = False) -> None:
        """Let objects of exactly this class be sent, and be made of what is received under its name.

        A class with `serialize` and `deserialize` is sent by them. An Enum is sent by value, a dataclass and a
        namedtuple by fields: when one is received, a dataclass is made by its `__init__`, so its checks run.

        Raises:
            RepetitionError: the name, by default that of the class, is taken.
            TypeError: there is no way to send such a class.
        """
        name = name or kind.__name__
        self._add(_entry_of(kind, name), overwrite)

    def add_functions(
        self, name: str, serialize: Callable[..., Any], deserialize: Callable[..., Any], *, overwrite: bool = False
    ) -> None:
        """Let objects of every class of this name be sent: `serialize(object, **context)` gives what travels, and
        `deserialize(that, **context)` the object.

        Raises:
            RepetitionError: the name is taken.
        """
        self._add(Entry(name, None, serialize, deserialize), overwrite)

    def _add(self, entry: Entry, overwrite: bool) -> None:
        if not entry.name or len(entry.name.encode("utf-8", "replace")) > NAME_SIZE_MAX:
            raise ValueError(f"the name of a class has 1 to {NAME_SIZE_MAX} bytes")
        known = self._by_name.get(entry.name)
        if known is not None:
            if not overwrite:
                raise RepetitionError(entry.name)
            if known.kind is not None:
                self._by_kind.pop(known.kind, None)
        self._by_name[entry.name] = entry
        if entry.kind is not None:
            self._by_kind[entry.kind] = entry

    def clear(self) -> None:
        """Forget every class."""
        self._by_name.clear()
        self._by_kind.clear()

    def entry_of(self, kind: type) -> Entry | None:
        """How objects of a class are sent; None: not by this registry."""
        entry = self._by_kind.get(kind)
        if entry is None:
            entry = self._by_name.get(kind.__name__)
            if entry is not None and entry.kind is not None:
                return None  # another class of that name
        return entry

    def named(self, name: str) -> Entry | None:
        """What was registered under a name."""
        return self._by_name.get(name)


def _entry_of(kind: type, name: str) -> Entry:
    serialize, deserialize = getattr(kind, "serialize", None), getattr(kind, "deserialize", None)
    if callable(serialize) and callable(deserialize):
        return Entry(name, kind, serialize, deserialize)
    if issubclass(kind, Enum):
        return Entry(name, kind, None, None)
    if dataclasses.is_dataclass(kind):
        return _dataclass_entry(kind, name)
    fields = getattr(kind, "_fields", None)
    if issubclass(kind, tuple) and isinstance(fields, tuple):
        return _namedtuple_entry(kind, name, len(fields))
    raise TypeError(
        f"{kind.__name__} has neither serialize and deserialize, nor is it an Enum, a dataclass or a namedtuple"
    )


def _dataclass_entry(kind: Any, name: str) -> Entry:
    if any(str(field._field_type) == "_FIELD_INITVAR" for field in kind.__dataclass_fields__.values()):
        raise TypeError(f"objects of {kind.__name__} do not keep its InitVar; give it serialize and deserialize")
    given = tuple(field.name for field in dataclasses.fields(kind) if field.init)
    made = tuple(field.name for field in dataclasses.fields(kind) if not field.init)
    names = (*given, *made)

    def serialize(value: Any, **_context: Any) -> dict[str, Any]:
        return {field: getattr(value, field) for field in names if hasattr(value, field)}

    def deserialize(payload: Any, **_context: Any) -> Any:
        if type(payload) is not dict or not payload.keys() <= set(names) or not payload.keys() >= set(given):
            raise ObjectDecodeError(f"the fields of a {name} are others here")
        value = kind(**{field: payload[field] for field in given})
        for field in made:
            if field in payload:
                object.__setattr__(value, field, payload[field])
        return value

    return Entry(name, kind, serialize, deserialize)


def _namedtuple_entry(kind: Any, name: str, width: int) -> Entry:
    def serialize(value: Any, **_context: Any) -> tuple[Any, ...]:
        return tuple(value)

    def deserialize(payload: Any, **_context: Any) -> Any:
        if type(payload) is not tuple or len(payload) != width:
            raise ObjectDecodeError(f"the fields of a {name} are others here")
        return kind._make(payload)

    return Entry(name, kind, serialize, deserialize)


DEFAULT: Final = ObjectRegistry()
"""The registry of this process, which `Serialization` fills."""
