"""`Serialization`, the names that programs for `tno.mpc.communication` know, for classes of one's own.

Between a user's program and the registry of this process. Objects that are sent are packed by `pack_object`; `pack` and
`unpack` here are the byte format of tno.mpc.communication 4.x, for what is stored in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from . import format4
from .encoder import BUILT_IN_NAMES
from .errors import PickleRefused, RepetitionError
from .registry import DEFAULT
from .signatures import check_deserializer, check_pair, check_serializer

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Serialization", "SupportsSerialization"]


class SupportsSerialization(Protocol):
    """What a class needs to be sent by its own logic.

    `serialize` returns anything that can be sent, `deserialize` makes an object of it again. Both get keyword
    arguments: `destination` or `origin`, the peer, where a `Pool` sends or receives.
    """

    def serialize(self, **kwargs: Any) -> Any:
        """What is sent instead of the object."""

    @staticmethod
    def deserialize(obj: Any, **kwargs: Any) -> Any:
        """The object that was sent."""


class Serialization:
    """Registers classes to be sent and received, in the registry of this process.

    A class is known to both ends by its name. Bytes that were received never choose what is imported: a class that is
    not registered where it arrives is an ObjectDecodeError there.
    """

    @staticmethod
    def register_class(cls: type, check_annotations: bool = True, overwrite: bool = False, *, name: str = "") -> None:
        """Let objects of exactly this class be sent and received, under `name` or the class's own.

        The class has `serialize` and `deserialize` (see SupportsSerialization), or is an Enum, a dataclass or a
        namedtuple, of which only the fields are sent.

        Raises:
            RepetitionError: the name is taken, and `overwrite` is not given.
            AnnotationError: return and parameter annotations of the two methods do not fit, and `check_annotations`.
            TypeError: there is no way to send such a class, or its methods do not take `**kwargs` and `obj`.
        """
        serializer, deserializer = getattr(cls, "serialize", None), getattr(cls, "deserialize", None)
        called = name or cls.__name__
        if check_annotations and callable(serializer) and callable(deserializer):
            check_serializer(serializer)
            check_deserializer(deserializer, (called, cls.__name__))
            check_pair(serializer, deserializer)
        _refuse_built_in(called)
        DEFAULT.add_class(cls, called, overwrite=overwrite)

    @staticmethod
    def set_serialization_logic(cls: type, check_annotations: bool = True) -> None:
        """The older name of `register_class`."""
        Serialization.register_class(cls, check_annotations)

    @staticmethod
    def register(
        serializer: Callable[..., Any],
        deserializer: Callable[..., Any],
        *types: str,
        check_annotations: bool = True,
        overwrite: bool = False,
    ) -> None:
        """Let objects of all classes of these names be sent by `serializer(object, **kwargs)` and received by
        `deserializer(that, **kwargs)`.

        Raises:
            RepetitionError, AnnotationError, TypeError: as `register_class`.
        """
        if not callable(serializer) or not callable(deserializer):
            raise TypeError("a serializer and a deserializer are functions")
        if check_annotations:
            check_serializer(serializer)
            check_deserializer(deserializer, types)
            check_pair(serializer, deserializer)
        for name in types:
            _refuse_built_in(name)
            if DEFAULT.named(name) is not None and not overwrite:
                raise RepetitionError(name)
        for name in types:
            DEFAULT.add_functions(name, serializer, deserializer, overwrite=overwrite)

    @staticmethod
    def clear_serialization_logic(reload_defaults: bool = True) -> None:
        """Forget every class that was registered. What PartyWire knows by itself always stays."""
        DEFAULT.clear()

    @staticmethod
    def serialize(obj: Any, use_pickle: bool = False, **kwargs: Any) -> Any:
        """What the 4.x format has in place of an object that msgpack does not know: `{"type": ..., "data": ...}`.

        For `serialize` methods that call it for parts of their object; PartyWire itself needs no such call.
        """
        _refuse_pickle(use_pickle)
        return format4.serialize(obj, DEFAULT, kwargs)

    @staticmethod
    def deserialize(obj: Any, use_pickle: bool = False, **kwargs: Any) -> Any:
        """The object that `serialize` was given; whatever is none of its results is returned as it is."""
        _refuse_pickle(use_pickle)
        return format4.deserialize(obj, DEFAULT, kwargs)

    @staticmethod
    def pack(obj: Any, msg_id: str | int, use_pickle: bool = False, option: int | None = None, **kwargs: Any) -> bytes:
        """An object and a message id as bytes of the 4.x format, which keeps less than `send` does (docs/objects.md).

        Raises:
            ObjectEncodeError: the format has nothing for it.
            PickleRefused: `use_pickle` is true.
        """
        _refuse_pickle(use_pickle)
        return format4.pack(obj, msg_id, option, DEFAULT, kwargs)

    @staticmethod
    def unpack(obj: bytes, use_pickle: bool = False, option: int | None = None, **kwargs: Any) -> tuple[Any, Any]:
        """Message id and object of bytes of the 4.x format.

        Raises:
            ObjectDecodeError: they are none, or need a class that is not registered here.
            PickleRefused: `use_pickle` is true.
        """
        _refuse_pickle(use_pickle)
        return format4.unpack(obj, option, DEFAULT, kwargs)


def _refuse_pickle(use_pickle: bool) -> None:
    if use_pickle:
        raise PickleRefused


def _refuse_built_in(name: str) -> None:
    if name in BUILT_IN_NAMES:
        raise RepetitionError(name)
