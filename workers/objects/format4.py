"""The byte format of tno.mpc.communication 4.x: read and written for what is stored in it, never sent by us.

A message is a msgpack map `{"object": ..., "id": ...}`. What msgpack does not know is a map `{"type": name of the
class, "data": ...}` in it, which a dictionary of the user with these two keys is mistaken for; that is why objects are
sent in a format of our own (`packing`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack

from .errors import ObjectDecodeError, ObjectEncodeError

if TYPE_CHECKING:
    from .registry import ObjectRegistry


def serialize(value: Any, registry: ObjectRegistry, context: dict[str, Any]) -> Any:
    """`{"type", "data"}` of a value that msgpack does not know.

    Raises:
        ObjectEncodeError: its class is not registered.
    """
    kind = type(value)
    entry = registry.entry_of(kind)
    if entry is None or entry.serialize is None:
        raise ObjectEncodeError(f"a {kind.__qualname__} is not registered")
    return {"type": kind.__name__, "data": entry.serialize(value, **context)}


def deserialize(value: Any, registry: ObjectRegistry, context: dict[str, Any]) -> Any:
    """What a value of the format stands for.

    Raises:
        ObjectDecodeError: a class is not registered.
    """
    if type(value) is list:
        return [deserialize(item, registry, context) for item in value]
    if type(value) is not dict:
        return value
    if "type" not in value or "data" not in value:
        return {key: deserialize(item, registry, context) for key, item in value.items()}
    entry = registry.named(value["type"])
    if entry is None or entry.deserialize is None:
        raise ObjectDecodeError("a class that is not registered here")
    return entry.deserialize(deserialize(value["data"], registry, context), **context)


def pack(value: Any, msg_id: str | int, option: int | None, registry: ObjectRegistry, context: dict[str, Any]) -> bytes:
    """A whole message."""
    packed: bytes = msgpack.packb(
        {"object": value, "id": msg_id},
        default=lambda other: serialize(other, registry, context),
        strict_types=True,
    )
    return packed


def unpack(data: bytes, option: int | None, registry: ObjectRegistry, context: dict[str, Any]) -> tuple[Any, Any]:
    """Id and value of a whole message."""
    try:
        message = msgpack.unpackb(data)
        return message["id"], deserialize(message["object"], registry, context)
    except (ValueError, KeyError, TypeError) as error:
        raise ObjectDecodeError("no message of the 4.x format") from error
