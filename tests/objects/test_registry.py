"""Classes of a user: which can be registered, what is checked, and that a peer's bytes never choose what is made."""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from partywire.workers.objects.errors import AnnotationError, ObjectDecodeError, ObjectEncodeError, RepetitionError
from partywire.workers.objects.packing import pack_object, unpack_object
from partywire.workers.objects.registry import NAME_SIZE_MAX, ObjectRegistry
from partywire.workers.objects.serialization import Serialization
from tests.objects.same import same

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    Serialization.clear_serialization_logic()


def there_and_back(value: Any) -> Any:
    return unpack_object(bytearray(pack_object(value).join()))


class SomeClass:
    """The class of the README of tno.mpc.communication."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def serialize(self, **_kwargs: Any) -> dict[str, Any]:
        return {"value": self.value}

    @staticmethod
    def deserialize(obj: dict[str, Any], **_kwargs: Any) -> SomeClass:
        return SomeClass(obj["value"])


class Colour(enum.Enum):
    RED = 1
    GREEN = ("a", 2)


class Mode(enum.IntFlag):
    READ = 1
    WRITE = 2


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: Any = 0
    tags: list[str] = dataclasses.field(default_factory=list, hash=False)
    norm: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x is negative")
        object.__setattr__(self, "norm", abs(self.x))


@dataclasses.dataclass
class WithInitVar:
    x: dataclasses.InitVar[int]


class Pair(NamedTuple):
    left: Any
    right: Any


def test_the_older_and_the_newer_name_register_a_class() -> None:
    Serialization.set_serialization_logic(SomeClass, check_annotations=True)
    received = there_and_back([SomeClass((1, SomeClass({2})))])
    assert type(received[0]) is SomeClass
    assert same(received[0].value[1].value, {2})
    Serialization.clear_serialization_logic()
    Serialization.register_class(SomeClass)
    assert there_and_back(SomeClass(1)).value == 1


@pytest.mark.parametrize(
    "value",
    [
        Colour.RED, Colour.GREEN, Mode.READ | Mode.WRITE, Level.LOW, Point(1, (2, 3), ["a"]), Pair(1, Pair([2], None)),
        [Point(n) for n in range(20)], {Colour.RED: 1}, {Pair(1, 2)},
    ],
    ids=repr,
)  # fmt: skip
def test_enums_dataclasses_and_namedtuples_come_back(value: Any) -> None:
    for kind in (Colour, Mode, Level, Point, Pair):
        Serialization.register_class(kind)
    assert same(there_and_back(value), value)


def test_an_enum_is_its_value_where_it_is_not_registered() -> None:
    packed = pack_object([Colour.GREEN, Level.LOW]).join()
    assert same(unpack_object(packed), [("a", 2), 1])
    Serialization.register_class(Colour)
    assert same(unpack_object(packed), [Colour.GREEN, 1])


def test_functions_are_registered_for_names_of_classes() -> None:
    def serialize(obj: Any, **_kwargs: Any) -> Any:
        return obj.value

    def deserialize(obj: Any, **_kwargs: Any) -> Any:
        return SomeClass(obj)

    Serialization.register(serialize, deserialize, "SomeClass", "Other", check_annotations=False)
    assert there_and_back(SomeClass(5)).value == 5
    with pytest.raises(RepetitionError, match="Other"):
        Serialization.register(serialize, deserialize, "New", "Other", check_annotations=False)
    registry = ObjectRegistry()
    with pytest.raises(ObjectDecodeError, match="SomeClass is not registered"):
        unpack_object(pack_object(SomeClass(5)).join(), registry)


def test_logic_that_wants_to_know_of_pickle_is_told_that_there_is_none() -> None:
    def serialize(obj: Any, use_pickle: bool, **_kwargs: Any) -> Any:
        return [obj.value, use_pickle]

    def deserialize(obj: Any, use_pickle: bool, **_kwargs: Any) -> Any:
        return (*obj, use_pickle)

    Serialization.register(serialize, deserialize, "SomeClass", check_annotations=False)
    assert there_and_back(SomeClass(5)) == (5, False, False)
    assert Serialization.unpack(Serialization.pack(SomeClass(5), 1))[1] == (5, False, False)


def test_keys_whose_comparison_fails_are_refused() -> None:
    class Key:
        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            raise RuntimeError("a bug")

    registry = ObjectRegistry()
    registry.add_functions("Point", lambda value, **_: None, lambda obj, **_: Key())
    for value in ({Point(1): 1, Point(2): 2}, [{Point(1), Point(2)}]):
        with pytest.raises(ObjectDecodeError, match="cannot be one"):
            unpack_object(pack_object(value, registry).join(), registry)


def test_a_name_is_registered_once_unless_overwritten() -> None:
    Serialization.register_class(Point)
    with pytest.raises(RepetitionError, match="Point has already been set"):
        Serialization.register_class(Point)
    Serialization.register_class(Point, overwrite=True)
    other = dataclasses.make_dataclass("Point", ["z"])
    with pytest.raises(RepetitionError):
        Serialization.register_class(other)
    Serialization.register_class(other, name="other.Point")
    assert same(there_and_back([Point(1), other(2)]), [Point(1), other(2)])
    Serialization.register_class(other, overwrite=True)
    with pytest.raises(ObjectEncodeError, match="Point is of no kind"):
        pack_object(Point(1))
    for name in ("int", "ndarray", "dict", "Ring16"):
        with pytest.raises(RepetitionError, match=name):
            Serialization.register_class(Point, name=name, overwrite=True)


def test_another_class_of_a_registered_name_is_not_taken_for_it() -> None:
    Serialization.register_class(Point)
    other = dataclasses.make_dataclass("Point", ["x"])
    with pytest.raises(ObjectEncodeError, match="Point is of no kind"):
        pack_object(other(1))


def test_names_have_a_length() -> None:
    registry = ObjectRegistry()
    registry.add_class(Point, "n" * NAME_SIZE_MAX)
    with pytest.raises(ValueError, match="1 to 256 bytes"):
        registry.add_class(Point, "n" * (NAME_SIZE_MAX + 1))
    with pytest.raises(ValueError, match="1 to 256 bytes"):
        registry.add_functions("", print, print)


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        ({"x": 1}, "fields of a Point are others"),
        ({"x": 1, "y": 1, "tags": [], "norm": 1, "z": 2}, "fields of a Point are others"),
        ([1, 2, 3], "fields of a Point are others"),
        ({"x": -1, "y": 1, "tags": []}, "the deserialize of Point raised ValueError"),
    ],
)
def test_a_dataclass_checks_what_a_peer_makes_of_it(payload: Any, what: str) -> None:
    sender, receiver = ObjectRegistry(), ObjectRegistry()
    sender.add_functions("Point", lambda value, **_: payload, lambda obj, **_: obj)
    receiver.add_class(Point)
    with pytest.raises(ObjectDecodeError, match=what) as caught:
        unpack_object(pack_object([Point(1)], sender).join(), receiver)
    assert caught.value.path == "[0]"
    assert "negative" not in str(caught.value)


def test_what_a_peer_says_of_enums_and_namedtuples_is_checked() -> None:
    sender, receiver = ObjectRegistry(), ObjectRegistry()
    receiver.add_class(Colour)
    receiver.add_class(Pair)
    receiver.add_class(Point)
    other_colour: Any = enum.Enum("Colour", {"RED": 99})  # type: ignore[misc]
    no_point: Any = enum.Enum("Point", {"RED": 1})  # type: ignore[misc]
    sender.add_class(other_colour)
    sender.add_class(no_point)
    sender.add_functions("Pair", lambda value, **_: (1, 2, 3), lambda obj, **_: obj)
    for value, what in (
        (other_colour.RED, "no member of Colour"),
        (no_point.RED, "Point is no Enum here"),
        (Pair(1, 2), "fields of a Pair are others"),
    ):
        with pytest.raises(ObjectDecodeError, match=what):
            unpack_object(pack_object(value, sender).join(), receiver)


def test_a_path_leads_through_the_fields_of_a_dataclass() -> None:
    Serialization.register_class(Point)
    with pytest.raises(ObjectEncodeError) as caught:
        pack_object({"a": [0, Point(1, {2: object()})]})
    assert caught.value.path == '["a"][1].y[<key 0>]'


def test_an_object_that_serializes_to_itself_is_refused() -> None:
    registry = ObjectRegistry()
    registry.add_functions("SomeClass", lambda value, **_: value, lambda obj, **_: obj)
    with pytest.raises(ObjectEncodeError, match="depth_max"):
        pack_object(SomeClass(1), registry)


# What is checked when a class is registered.


class NoKeywords:
    def serialize(self) -> int:
        return 1

    @staticmethod
    def deserialize(obj: int) -> NoKeywords:
        return NoKeywords()


class NoObj:
    def serialize(self, **_kwargs: Any) -> int:
        return 1

    @staticmethod
    def deserialize(what: int, **_kwargs: Any) -> NoObj:
        return NoObj()


class ReturnsOther:
    def serialize(self, **_kwargs: Any) -> int:
        return 1

    @staticmethod
    def deserialize(obj: int, **_kwargs: Any) -> int:
        return obj


class TakesOther:
    def serialize(self, **_kwargs: Any) -> int:
        return 1

    @staticmethod
    def deserialize(obj: str, **_kwargs: Any) -> TakesOther:
        return TakesOther()


@pytest.mark.parametrize(
    ("kind", "error", "match"),
    [
        (NoKeywords, TypeError, r"\*\*kwargs"),
        (NoObj, TypeError, "named obj"),
        (ReturnsOther, AnnotationError, "annotated to return int"),
        (TakesOther, AnnotationError, "return int, and deserialize to take str"),
    ],
)
def test_logic_that_does_not_fit_is_refused_when_it_is_registered(
    kind: type, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        Serialization.register_class(kind)
    Serialization.register_class(kind, check_annotations=False)


@pytest.mark.parametrize("kind", [WithInitVar, object, int, type("Bare", (), {})])
def test_a_class_that_there_is_no_way_to_send_is_refused(kind: type) -> None:
    with pytest.raises((TypeError, RepetitionError)):
        Serialization.register_class(kind)


def test_functions_must_be_functions() -> None:
    with pytest.raises(TypeError, match="are functions"):
        Serialization.register("no", print, "x", check_annotations=False)  # type: ignore[arg-type]
