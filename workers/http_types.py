"""JSON to the types that a handler declares, and the types to JSON Schema: one table of kinds, read in both directions.

Between clients, whose JSON is checked here field by field, and handlers, which get what their annotations promise.
Known are None, bool, int, float, str, Any, Literal, dataclasses, list[T], tuple[T, ...], dict[str, T] and unions of
these. The one invariant: `convert` returns a value of the annotated type or raises; nothing is coerced but an int to a
float. What is not known is a mistake of the handler's author and raises when the handler is registered.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any, Final, Literal, Union

SIMPLE: Final[dict[object, tuple[str, str]]] = {
    bool: ("boolean", "true or false"),
    int: ("integer", "a whole number"),
    float: ("number", "a number"),
    str: ("string", "a text"),
    type(None): ("null", "null"),
}

INT_MAX: Final = (1 << 63) - 1

NAME_LENGTH_SHOWN: Final = 80
"""Characters of a client's own name for a field that an error quotes."""


class ValueMismatch(ValueError):
    """Raised when a client's value is not what a handler declares; says where and what is expected."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(where, what)
        self.where = where
        self.what = what

    def __str__(self) -> str:
        return f"{self.where} {self.what}"


Seen = dict[tuple[object, int], tuple[Any, ValueMismatch | None]]
"""(dataclass, identity of a value) -> what became of it. The values live as long as this does: they are the parts of
the one that is converted."""


def convert(kind: Any, value: object, where: str = "the body") -> Any:
    """`value`, as orjson made it, as a `kind`.

    Raises:
        ValueMismatch: it is none.
        RecursionError: it is nested too deep.
    """
    try:
        return _convert(kind, value, None)
    except ValueMismatch as error:
        raise ValueMismatch(where + error.where, error.what) from error.__cause__


def _convert(kind: Any, value: object, seen: Seen | None) -> Any:
    """`convert` with places as they are inside `value`: the way there is added once something is wrong, because keys
    are as long as a client likes and would be copied for each item under them."""
    if kind is Any or kind is object:
        return value
    if kind is None:
        kind = type(None)
    if kind in SIMPLE:
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind:
            raise ValueMismatch("", f"must be {SIMPLE[kind][1]}")
        return value
    if dataclasses.is_dataclass(kind):
        return _convert_dataclass(kind, value, seen)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if not any(value == allowed and type(value) is type(allowed) for allowed in arguments):
            raise ValueMismatch("", f"must be one of {', '.join(map(repr, arguments))}")
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value, {} if seen is None else seen)
    if dict in (origin, kind):
        if not isinstance(value, dict):
            raise ValueMismatch("", "must be an object")
        if not arguments:
            return value
        return {key: _convert_part(arguments[1], item, key, seen) for key, item in value.items()}
    if not isinstance(value, list):
        raise ValueMismatch("", "must be a list")
    if not arguments:
        return value
    items = [_convert_part(arguments[0], item, index, seen) for index, item in enumerate(value)]
    return tuple(items) if origin is tuple else items


def _convert_part(kind: Any, value: object, name: str | int, seen: Seen | None) -> Any:
    try:
        return _convert(kind, value, seen)
    except ValueMismatch as error:
        step = f"[{name}]" if isinstance(name, int) else f".{name[:NAME_LENGTH_SHOWN]}"
        raise ValueMismatch(step + error.where, error.what) from error.__cause__


def _convert_dataclass(kind: Any, value: object, seen: Seen | None) -> Any:
    if not isinstance(value, dict):
        raise ValueMismatch("", "must be an object")
    if seen is None:
        return _make_dataclass(kind, value, None)
    # Inside a union each value is looked at once as each class: without this, each of two classes that contain each
    # other would look at all that is below it again, twice as often at each depth.
    known = seen.get((kind, id(value)))
    if known is None:
        try:
            known = _make_dataclass(kind, value, seen), None
        except ValueMismatch as error:
            known = None, ValueMismatch(error.where, error.what)  # without the frames that it holds
        seen[kind, id(value)] = known
    made, mismatch = known
    if mismatch is not None:
        raise ValueMismatch(mismatch.where, mismatch.what)
    return made


def _make_dataclass(kind: Any, value: dict[str, object], seen: Seen | None) -> Any:
    members = _members_of(kind)
    for name in value:
        if name not in members:
            known = ", ".join(members) or "none"
            raise ValueMismatch("", f"has an unknown field {name[:NAME_LENGTH_SHOWN]!r}; known are {known}")
    for name, (_, is_required) in members.items():
        if is_required and name not in value:
            raise ValueMismatch("", f"has no field {name!r}")
    arguments = {name: _convert_part(members[name][0], item, name, seen) for name, item in value.items()}
    try:
        return kind(**arguments)
    except ValueError as error:  # the class's own check, in __post_init__
        raise ValueMismatch("", f"is refused: {error}") from error


@functools.cache
def _members_of(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Name -> type and whether it must be given."""
    hints = typing.get_type_hints(kind)
    return {
        member.name: (hints[member.name], _is_required(member)) for member in dataclasses.fields(kind) if member.init
    }


def _convert_union(kinds: tuple[Any, ...], value: object, seen: Seen) -> Any:
    mismatches = []
    for kind in kinds:
        try:
            return _convert(kind, value, seen)
        except ValueMismatch as error:
            mismatches.append(error)
    # The most telling one: that which got deepest.
    raise max(mismatches, key=lambda error: len(error.where))


def convert_text(kind: Any, text: str, where: str) -> Any:
    """A part of a path or query as a `kind`: one of str, int, float and bool, perhaps `| None`.

    Raises:
        ValueMismatch: it is none.
    """
    kind = without_none(kind)
    if kind is str or kind is Any:
        return text
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise ValueMismatch(where, "must be true or false")
        return text.lower() in ("true", "1")
    try:
        value = kind(text)
    except ValueError:
        raise ValueMismatch(where, f"must be {SIMPLE[kind][1]}") from None
    if kind is int and abs(value) > INT_MAX:
        raise ValueMismatch(where, "must be a whole number of at most 64 bits")
    return value


def without_none(kind: Any) -> Any:
    """`T` of `T | None`."""
    if typing.get_origin(kind) in (Union, types.UnionType):
        rest = [one for one in typing.get_args(kind) if one is not type(None)]
        if len(rest) == 1:
            return rest[0]
    return kind


def is_text_kind(kind: Any) -> bool:
    """Whether `convert_text` knows it."""
    return without_none(kind) in (str, int, float, bool)


def schema(kind: Any, named: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of a kind. Dataclasses go into `named` under their names and are referred to.

    Raises:
        TypeError: no kind that this module knows.
    """
    if kind is Any or kind is object:
        return {}
    if kind is None:
        kind = type(None)
    if kind in SIMPLE:
        return {"type": SIMPLE[kind][0]}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _schema_of_dataclass(kind, named)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema(one, named) for one in arguments]}
    if kind is dict or (origin is dict and arguments[0] is str):
        return {"type": "object", "additionalProperties": schema(arguments[1], named) if arguments else {}}
    if kind is list:
        return {"type": "array"}
    if origin is list or (origin is tuple and len(arguments) == 2 and arguments[1] is ...):
        return {"type": "array", "items": schema(arguments[0], named)}
    raise TypeError(f"{kind!r} is no type that a handler can have; see docs/http.md for those that are")


def _schema_of_dataclass(kind: type[Any], named: dict[str, Any]) -> dict[str, Any]:
    title, key, number = f"{kind.__module__}.{kind.__qualname__}", kind.__name__, 1
    while key in named and named[key].get("title") != title:  # another class of the same name
        number += 1
        key = f"{kind.__name__}{number}"
    reference = {"$ref": f"#/components/schemas/{key}"}
    if key in named:
        return reference
    entry: dict[str, Any] = {"type": "object", "title": title, "additionalProperties": False}
    named[key] = entry  # first, so that it may refer to itself
    hints = typing.get_type_hints(kind)
    members = [member for member in dataclasses.fields(kind) if member.init]
    entry["properties"] = {member.name: schema(hints[member.name], named) for member in members}
    if required := [member.name for member in members if _is_required(member)]:
        entry["required"] = required
    return reference


def _is_required(member: dataclasses.Field[Any]) -> bool:
    return member.default is dataclasses.MISSING and member.default_factory is dataclasses.MISSING
