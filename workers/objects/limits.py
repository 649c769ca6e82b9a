"""How large an object may be at either end, beside the size of its message. Each has its reason."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

__all__ = ["DEFAULT_LIMITS", "ObjectLimits"]

DEPTH_BOUND: Final = 200
"""Most that `depth_max` can be: each level is up to four Python calls, of which 1,000 may stand at once."""


@dataclass(frozen=True, slots=True)
class ObjectLimits:
    """What is checked when an object is made, before memory is taken for it, and at the sender as well.

    A part of a message costs more memory as a Python object than on the wire: up to 40 times its bytes for numbers and
    a hundred times for containers with nothing in them, once for bytes. `elements_max` and `containers_max` bound that.
    """

    depth_max: int = 100
    """Containers within containers, 1 to 200."""
    elements_max: int = 1 << 24
    """Values in all lists, tuples, dictionaries and sets together, beside what numpy arrays hold."""
    containers_max: int = 1 << 20
    """Lists, tuples, dictionaries, sets, arrays and objects of classes. Rows of tuples or lists of one width
    count as one for each place in them, unless they stand in other rows."""
    integer_size_max: int = 1 << 20
    """Bytes of one integer."""
    weak_keys_max: int = 1 << 20
    """Keys of one dictionary, or members of one set, that are neither text nor bytes. Their hashes are not secret, so
    who chooses them can make them collide; whether they do is checked, at a cost."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < 1:
                raise ValueError(f"{field.name} must be a positive number")
        if self.depth_max > DEPTH_BOUND:
            raise ValueError(f"depth_max must be at most {DEPTH_BOUND}")


DEFAULT_LIMITS: Final = ObjectLimits()
