"""Checks of the functions that serialize and deserialize, as `tno.mpc.communication` 4.x makes them.

They find mistakes when a class is registered and not when the first object of it arrives.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from .errors import AnnotationError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["check_deserializer", "check_pair", "check_serializer"]


def check_serializer(serializer: Callable[..., Any]) -> None:
    """Raises TypeError unless it takes any keyword argument."""
    _require_keywords(serializer)


def check_deserializer(deserializer: Callable[..., Any], names: Collection[str]) -> None:
    """Check that it takes `obj` and any keyword argument, and returns one of these types.

    Raises:
        TypeError: a parameter is missing.
        AnnotationError: its return annotation is another.
    """
    _require_keywords(deserializer)
    signature = inspect.signature(deserializer)
    returned = signature.return_annotation
    if returned not in names and getattr(returned, "__name__", None) not in names:
        raise AnnotationError(f"deserialize of {', '.join(names)} is annotated to return {returned}")
    if "obj" not in signature.parameters:
        raise TypeError("deserialize has no parameter named obj")


def check_pair(serializer: Callable[..., Any], deserializer: Callable[..., Any]) -> None:
    """Raises AnnotationError unless what one returns is what the other takes."""
    returned = inspect.signature(serializer).return_annotation
    parameter = inspect.signature(deserializer).parameters.get("obj")
    taken = inspect.Parameter.empty if parameter is None else parameter.annotation
    if returned != taken:
        raise AnnotationError(f"serialize is annotated to return {returned}, and deserialize to take {taken}")


def _require_keywords(function: Callable[..., Any]) -> None:
    parameters = inspect.signature(function).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        raise TypeError("serialize and deserialize must take **kwargs, and hand them on to nested calls")
