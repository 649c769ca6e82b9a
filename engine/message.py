"""What every control message is made of: named fields, set once, compared and shown as values.

Beneath `commands`, which says what messages there are. The one invariant: two messages are equal exactly if they are of
one type and all their fields are, and none changes once it is made.

A frozen dataclass promises the same, but each one compiles half a dozen methods of its own, and every process of a
party would pay for all of them at its start.
"""

from __future__ import annotations

from typing import TypeVar, dataclass_transform

_Message = TypeVar("_Message", bound="ControlMessage")


@dataclass_transform(frozen_default=True)
class ControlMessage:
    """Base of all types of messages. A subclass lists its fields as annotations, as a dataclass does, with a constant
    behind those that may be left out. Bytes do not show in its repr."""

    __match_args__ = ()

    def __init_subclass__(cls) -> None:
        cls.__match_args__ = tuple(cls.__annotations__)  # type: ignore[assignment, misc]

    def __init__(self, *values: object, **named: object) -> None:
        names: tuple[str, ...] = self.__match_args__
        if len(values) > len(names):
            raise TypeError(f"{type(self).__name__} has {len(names)} fields, {len(values)} are given")
        given = dict(zip(names, values, strict=False))
        if twice := given.keys() & named.keys():
            raise TypeError(f"{type(self).__name__} is given {', '.join(sorted(twice))} twice")
        given |= named
        if unknown := given.keys() - set(names):
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
        missing = [name for name in names if name not in given and not hasattr(type(self), name)]
        if missing:
            raise TypeError(f"{type(self).__name__} lacks {', '.join(missing)}")
        self.__dict__.update((name, given[name] if name in given else getattr(type(self), name)) for name in names)

    def __setattr__(self, name: str, _value: object) -> None:
        raise AttributeError(f"{name} of a {type(self).__name__} cannot be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name} of a {type(self).__name__} cannot be taken away")

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if type(self) is type(other) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    def __repr__(self) -> str:
        fields = (f"{name}={value!r}" for name, value in vars(self).items() if not isinstance(value, bytes))
        return f"{type(self).__name__}({', '.join(fields)})"


def replaced(message: _Message, **fields: object) -> _Message:
    """The same message with other values in some fields."""
    return type(message)(**{**vars(message), **fields})
