"""What goes wrong with objects; `__str__` makes the sentence.

    PartyWireError
    ├── ObjectEncodeError   (a TypeError too) a value cannot be sent
    ├── ObjectDecodeError   received bytes are no object, or one that cannot be made here
    ├── PickleRefused       (a ValueError too) pickle was asked for
    ├── AnnotationError     the annotations of serialization logic do not fit together
    └── RepetitionError     the logic of a type has been set already

Fields hold types, places, sizes and names, never what a value holds. A place is told as in Python, `["a"][3].x`: keys
of dictionaries that are short text are part of it, others are counted.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from partywire.engine.errors import PartyWireError

__all__ = [
    "AnnotationError",
    "ObjectDecodeError",
    "ObjectEncodeError",
    "PickleRefused",
    "RepetitionError",
    "Step",
    "key_step",
]

Step: TypeAlias = "int | str"
"""One step into a value: an index, or text as it is to be shown (`["a"]`, `.x`)."""

KEY_SHOWN_MAX: Final = 40
STEPS_SHOWN_MAX: Final = 12


def key_step(key: object, number: int) -> str:
    """The step to what stands under a key. Only short printable text is shown."""
    if type(key) is str and len(key) <= KEY_SHOWN_MAX and key.isprintable():
        return f'["{key}"]'
    return f"[<key {number}>]"


class _Located(PartyWireError):
    """An error at a place inside a value. `steps` lead there; each container that it passes on its way out adds one."""

    def __init__(self, what: str, steps: tuple[Step, ...] = ()) -> None:
        super().__init__(what, steps)
        self.what = what
        self.steps = steps

    @property
    def path(self) -> str:
        """The place, as in Python; empty for the value as a whole."""
        shown = [f"[{step}]" if type(step) is int else str(step) for step in self.steps]
        if len(shown) > STEPS_SHOWN_MAX:
            shown[STEPS_SHOWN_MAX // 2 : -STEPS_SHOWN_MAX // 2] = ["..."]
        return "".join(shown)

    def within(self, *steps: Step) -> None:
        """The value at fault stands at these steps of another one."""
        self.steps = (*steps, *self.steps)
        self.args = (self.what, self.steps)

    def rename(self, *steps: Step) -> None:
        """The first step is better told by these."""
        self.steps = (*steps, *self.steps[1:])
        self.args = (self.what, self.steps)

    def index(self, default: int = 0) -> int:
        """The first step, if it is an index."""
        return self.steps[0] if self.steps and type(self.steps[0]) is int else default


class ObjectEncodeError(_Located, TypeError):
    """Raised when a value, or something in it, cannot be sent. Nothing was sent."""

    def __str__(self) -> str:
        return f"cannot send {'the object: ' if not self.steps else f'the part {self.path} of the object: '}{self.what}"


class ObjectDecodeError(_Located):
    """Raised when received bytes are no object, pass a limit, or need a class that is not registered here.

    `peer` is who sent them, as far as that is known.
    """

    peer = ""

    def __str__(self) -> str:
        place = f" at {self.path}" if self.steps else ""
        sender = f" of {self.peer}" if self.peer else ""
        return f"cannot make an object of the message{sender}: {self.what}{place}"


class PickleRefused(PartyWireError, ValueError):
    """Raised when `use_pickle=True` is asked for: unpickling lets the sender run code here."""

    def __init__(self) -> None:
        super().__init__()

    def __str__(self) -> str:
        return "PartyWire never pickles; register the class with Serialization.register_class instead"


class AnnotationError(PartyWireError):
    """Raised when the annotations of a `serialize` and a `deserialize` do not fit together."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what}. Correct the annotation, or pass check_annotations=False"


class RepetitionError(PartyWireError):
    """Raised when serialization logic of a name is set a second time."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"the serialization logic of {self.name} has already been set; pass overwrite=True to replace it"
