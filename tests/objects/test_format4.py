"""The byte format of tno.mpc.communication 4.x: what it wrote is read, and what we write is what it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import pytest

from partywire.workers.objects.errors import ObjectDecodeError, ObjectEncodeError, PickleRefused
from partywire.workers.objects.format4 import OPT_NON_STR_KEYS, OPT_SORT_KEYS
from partywire.workers.objects.serialization import Serialization
from tests.objects.same import same
from tests.objects.vectors4 import VECTORS

values4 = pytest.importorskip("tests.objects.values4", reason="pandas, gmpy2 and bitarray are not installed")

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    Serialization.register_class(values4.Point, check_annotations=False)
    yield
    Serialization.clear_serialization_logic()


@pytest.mark.parametrize("name", VECTORS)
def test_we_write_the_bytes_that_4_12_writes(name: str) -> None:
    packed = Serialization.pack(values4.VALUES[name], "id")
    if name in values4.UNSTABLE:
        assert len(packed) == len(bytes.fromhex(VECTORS[name]))
    elif name in values4.WIDER:
        assert Serialization.unpack(packed) == Serialization.unpack(bytes.fromhex(VECTORS[name]))
    else:
        assert packed.hex() == VECTORS[name]


@pytest.mark.parametrize("name", sorted(values4.READABLE))
def test_what_4_12_wrote_is_read(name: str) -> None:
    msg_id, value = Serialization.unpack(bytes.fromhex(VECTORS[name]))
    expected = values4.READABLE[name]
    assert msg_id == "id"
    if isinstance(expected, np.ndarray):  # it keeps the values of these, as objects
        assert value.tolist() == expected.tolist()
        assert value.shape == expected.shape
    else:
        assert same(value, expected)


def test_what_msgpack_knows_no_type_of_comes_back_as_another_one_as_in_4_12() -> None:
    plain = {
        "bytearray": b"abc", "enum": 1, "numpy ints": [[0, 1, 2], [3, 4, 5]], "numpy scalar": 2.5,
        "date": "2020-01-02", "datetime": "2020-01-02T03:04:05.000678", "datetime utc": "2020-01-02T03:04:05+00:00",
    }  # fmt: skip
    for name, value in plain.items():
        assert same(Serialization.unpack(bytes.fromhex(VECTORS[name]))[1], value)


def test_context_reaches_the_logic_of_classes() -> None:
    seen: list[dict[str, Any]] = []

    def serialize(obj: Any, **kwargs: Any) -> Any:
        seen.append(kwargs)
        return 1

    def deserialize(obj: Any, **kwargs: Any) -> Any:
        seen.append(kwargs)
        return obj

    Serialization.register(serialize, deserialize, "complex", check_annotations=False)
    packed = Serialization.pack(1j, 7, destination="bob")
    assert Serialization.unpack(packed, origin="alice") == (7, 1)
    assert seen == [{"use_pickle": False, "destination": "bob"}, {"use_pickle": False, "origin": "alice"}]


def test_parts_can_be_serialized_by_hand() -> None:
    for value in (2**70, (1, (2, 3)), values4.Point(1, 2)):
        assert same(Serialization.deserialize(Serialization.serialize(value)), value)
    assert Serialization.serialize((1, 2)) == {"type": "tuple", "data": [1, 2]}
    assert Serialization.deserialize([1, {"type": "tuple", "data": [1]}, {"a": 2}]) == [1, (1,), {"a": 2}]


def test_options() -> None:
    packed = Serialization.pack({1: "a", 2.5: "b"}, "id", option=OPT_NON_STR_KEYS)
    assert Serialization.unpack(packed, option=OPT_NON_STR_KEYS)[1] == {1: "a", 2.5: "b"}
    with pytest.raises(ObjectDecodeError):
        Serialization.unpack(packed)
    assert list(Serialization.unpack(Serialization.pack({"b": 1, "a": 2}, 0, option=OPT_SORT_KEYS))[1]) == ["a", "b"]
    for call in (lambda: Serialization.pack(1, 0, option=1), lambda: Serialization.unpack(b"", option=1)):
        with pytest.raises(ValueError, match="option 1 of ormsgpack"):
            call()


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [1, {2}]}, '["a"][1]'),
        ([1, object()], "[1]"),
        ({"a": {1: 2}}, '["a"]'),
        ("\ud800", ""),
        (1j, ""),
        (values4.pd.DataFrame({"a": [1]}), ""),
    ],
)
def test_what_the_format_has_nothing_for_is_refused(value: Any, path: str) -> None:
    with pytest.raises(ObjectEncodeError) as caught:
        Serialization.pack(value, "id")
    assert caught.value.path.startswith(path)


def test_nesting_is_bounded_at_both_ends() -> None:
    def nested(depth: int) -> list[Any]:
        value: list[Any] = []
        for _ in range(depth - 1):
            value = [value]
        return value

    assert Serialization.unpack(Serialization.pack(nested(200), "id"))[1] == nested(200)
    with pytest.raises(ObjectEncodeError, match="deeper than 200"):
        Serialization.pack(nested(201), "id")
    with pytest.raises(ObjectDecodeError, match="deeper than 200"):
        Serialization.unpack(msgpack.packb({"object": nested(201), "id": 1}))
    with pytest.raises(ObjectDecodeError, match="nested too deep"):
        Serialization.unpack(b"\x82\xa6object" + b"\x91" * 100_000 + b"\x00\xa2id\x00")


def typed(name: Any, data: Any) -> bytes:
    packed: bytes = msgpack.packb({"object": {"type": name, "data": data}, "id": 1})
    return packed


HOSTILE = {
    "nothing": b"",
    "no map": b"\x01",
    "no id": msgpack.packb({"object": 1}),
    "no object": msgpack.packb({"id": 1}),
    "id of another type": msgpack.packb({"object": 1, "id": [1]}),
    "cut": msgpack.packb({"object": [1, 2], "id": 1})[:-1],
    "more behind it": msgpack.packb({"object": 1, "id": 1}) + b"\0",
    "a gigantic list": b"\x82\xa6object\xdd\xff\xff\xff\xff",
    "lists that announce each other": b"\x82\xa6object" + b"\xdd\x00\x00\x40\x00" * 500 + bytes(17_000),
    "a gigantic text": b"\x82\xa6object\xdb\xff\xff\xff\xff",
    "an extension": b"\x82\xa6object\xd4\x01\x00\xa2id\x00",
    "an extension without data": b"\x82\xa6object\xc7\x00\x01\xa2id\x00",
    "no UTF-8": b"\x82\xa6object\xa1\xff\xa2id\x00",
    "an unknown type": typed("os.system", b""),
    "a type that is no text": typed(1, b""),
    "int of text": typed("int", "x"),
    "tuple of a number": typed("tuple", 5),
    "array of a gigantic shape": typed("ndarray", {"values": [], "shape": {"type": "tuple", "data": [1 << 40]}}),
    "array of many dimensions": typed("ndarray", {"values": [], "shape": {"type": "tuple", "data": [0] * 64}}),
    "array of a negative shape": typed("ndarray", {"values": [], "shape": {"type": "tuple", "data": [-1]}}),
    "array of other values": typed("ndarray", {"values": [1], "shape": {"type": "tuple", "data": [1, 1]}}),
    "array without a shape": typed("ndarray", {"values": [1]}),
    "empty mpz": typed("mpz", b""),
    "mpz with a strange sign": typed("mpz", b"\x01\x07\x05"),
    "mpq over zero": typed("mpq", bytes.fromhex("030101000000") + b"\x01\x00"),
    "mpq cut": typed("mpq", bytes.fromhex("0301ffffff7f0102")),
    "mpfr of two billion bits": typed("mpfr", bytes.fromhex("04410000ffffff7f0100000000000000000000c0")),
    "mpfr without digits": typed("mpfr", bytes.fromhex("0441000035000000010000000000000000000000")),
    "mpfr cut": typed("mpfr", bytes.fromhex("0441000035000000")),
    "mpc that is half": typed("mpc", bytes.fromhex("05410000350000000100000000000000000000c0")),
    "bits": typed("bitarray", b"\xff\xff"),
    "a time": typed("Timestamp", "yesterday, perhaps"),
    "a frame": typed("DataFrame", b"PAR1"),
    "a class of other parts": typed("Point", {"x": 1}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_are_refused_by_type(name: str) -> None:
    with pytest.raises(ObjectDecodeError) as caught:
        Serialization.unpack(HOSTILE[name])
    assert len(str(caught.value)) < 300


def test_pickle_is_never_used() -> None:
    for call in (
        lambda: Serialization.pack(1, 0, use_pickle=True),
        lambda: Serialization.unpack(b"", use_pickle=True),
        lambda: Serialization.serialize(1, True),
        lambda: Serialization.deserialize(1, True),
    ):
        with pytest.raises(PickleRefused, match="never pickles"):
            call()
