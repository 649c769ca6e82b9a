"""What can be sent comes back equal in value and type, however it is nested; nothing large is copied."""

from __future__ import annotations

import datetime
import enum
import math
import sys
import uuid
import zoneinfo
from array import array
from collections import Counter, OrderedDict, deque, namedtuple
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from partywire.workers.objects.encoder import COLUMN_MIN, INLINE_SIZE_MAX
from partywire.workers.objects.errors import ObjectDecodeError, ObjectEncodeError
from partywire.workers.objects.kinds import FRACTION_BITS_MAX
from partywire.workers.objects.limits import ObjectLimits
from partywire.workers.objects.packing import pack_object, unpack_object
from partywire.workers.values import (
    Bit,
    NetworkVec,
    PrfCheck,
    PrfKey,
    Ring16,
    Ring64,
    StateChecksum,
    VecBit,
    VecRing16,
    VecRing48,
)
from tests.objects.same import same


def there_and_back(value: Any, **settings_: Any) -> Any:
    packed = pack_object(value, **settings_)
    joined = packed.join()
    assert len(joined) == packed.nbytes
    return unpack_object(bytearray(joined), **settings_)


# Everything, nested.

HASHABLE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.integers(-(2**200), 2**200) | st.complex_numbers(allow_nan=False) | st.decimals(allow_nan=False)
    | st.fractions() | st.uuids() | st.dates() | st.timedeltas() | st.times() | st.datetimes(),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=4),
    max_leaves=4,
)  # fmt: skip
DTYPES = (
    hnp.integer_dtypes(endianness="?") | hnp.unsigned_integer_dtypes() | hnp.floating_dtypes(endianness="?")
    | hnp.complex_number_dtypes() | hnp.boolean_dtypes() | hnp.datetime64_dtypes() | hnp.timedelta64_dtypes()
    | hnp.unicode_string_dtypes(min_len=1) | hnp.byte_string_dtypes(min_len=1)
)  # fmt: skip
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
LEAVES = (
    HASHABLE
    | st.floats()
    | st.binary(max_size=3000).map(bytearray)
    | st.text(st.characters(exclude_categories=()), max_size=20)
    | ARRAYS
    | ARRAYS.map(np.transpose)
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(st.integers(-(2**70), 2**70), min_size=10, max_size=40)
        | st.lists(st.floats(), min_size=10, max_size=40)
        | st.lists(st.tuples(inner, st.text()), max_size=20)
        | st.tuples(inner, inner)
        | st.dictionaries(HASHABLE, inner, max_size=4)
        | st.sets(HASHABLE, max_size=4)
        | st.dictionaries(st.text(), inner, max_size=3).map(OrderedDict)
        | st.builds(deque, st.lists(inner, max_size=3), st.none() | st.integers(3, 9))
    ),
    max_leaves=12,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(VALUES)
def test_any_nested_value_comes_back_equal_in_value_and_type(value: Any) -> None:
    assert same(there_and_back(value), value)


# One by one.

AMSTERDAM = zoneinfo.ZoneInfo("Europe/Amsterdam")

ONE_BY_ONE: list[Any] = [
    "\ud800 alone, \udc00\ud83d",
    ["a", "\ud800"],
    "\U0001f600" * 3000,
    ["x" * 3000, "ü" * 3000],
    2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64 - 1, 2**64, 2**100_000, -(2**100_000),
    [2**64 - 1] * 20, [2**63] * 20, [-(2**63)] * 20, [0, 2**64] * 10, [2**70] * 20,
    [1, True, None, "a", 2.5] * 10,
    [1, True, 2**64] * 10,
    -0.0, float("inf"), float("nan"), [float("nan"), -0.0] * 20,
    complex("nan-infj"),
    b"", b"x" * INLINE_SIZE_MAX, b"x" * (INLINE_SIZE_MAX + 1),
    [b"x", b"y" * INLINE_SIZE_MAX, "s"], [b"x", b"y" * (INLINE_SIZE_MAX + 1)],
    bytearray(), bytearray(b"x" * 5000),
    memoryview(b"abc"), memoryview(bytearray(6000)), memoryview(array("d", [1, 2])), memoryview(b""),
    memoryview(bytes(range(24))).cast("B", (2, 3, 4)), memoryview(b"abcdef")[::2],
    (), [], {}, set(), frozenset(), deque(), OrderedDict(), [[]], ((),),
    {1: "a", "1": "b", (1,): "c", None: "d", 2.5: "e", b"x": "f", frozenset([1]): "g"},
    OrderedDict([("b", 1), ("a", 2)]),
    {float("nan"), (float("nan"), 1), 2}, {float("nan"): 1, "a": 2}, OrderedDict([(float("nan"), 1), ("a", 2)]),
    deque([1, 2], 5), deque(maxlen=0),
    range(3, 9, 2), range(2**70),
    [(1, "a")] * COLUMN_MIN, [(1, "a")] * (COLUMN_MIN - 1), [(1,), (1, 2)] * 20, [()] * 20,
    [[n, str(n)] for n in range(50)], [(n, (n, [n])) for n in range(50)], [(n,) * 33 for n in range(40)],
    [{"id": n, "of": [n, (n,)]} for n in range(20)], [{1: n} for n in range(20)], [{}] * 20, [{"a": 1}, {"b": 1}] * 20,
    [{"a": 1}, {np.str_("a"): 1}] * 10,
    {"type": "tuple", "data": [1, 2]}, {"object": 1, "id": 2}, [b"l", 3], ["l", 3], [None, b"d"],
    {memoryview(b"key"): 1},
    Decimal("1.10"), Decimal("-0"), Decimal("NaN123"), Decimal("sNaN"), Decimal("-Infinity"), Decimal("1E+999999"),
    Fraction(-3, 7), Fraction(2**FRACTION_BITS_MAX - 1, 3), uuid.UUID(int=7),
    datetime.date.min, datetime.date.max, datetime.time(1, 2, 3, 4, fold=1), datetime.timedelta(-1, 5, 7),
    datetime.datetime(2020, 10, 25, 2, 30, tzinfo=AMSTERDAM, fold=1), datetime.datetime.max,
    datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), AMSTERDAM, datetime.UTC,
    datetime.time(1, tzinfo=datetime.timezone(datetime.timedelta(hours=-3, microseconds=1), "here")),
    array("H", [1, 2]), array("q"),
    np.array(2.5), np.zeros((0, 3), ">i2"), np.arange(6).reshape(2, 3).T, np.arange(10, dtype=">u4")[::2],
    np.asfortranarray(np.ones((3, 4, 5))), np.array(["2020-01-01", "NaT"], "M8[D]"), np.array([b"a\0", b""], "S4"),
    np.zeros(3, [("share", "<u8", (2,)), ("tag", "S4"), ("inner", [("x", "?"), ("y", ">f2")])]),
    np.zeros(2, np.dtype([("a", "u1"), ("b", "f8")], align=True)), np.array([1], np.longdouble),
    np.float16(1.5), np.int64(-1), np.bool_(True), np.str_("a\0"), np.str_(""), np.bytes_(b"a\0"), np.complex64(1j),
    np.datetime64("2020-01-01T00:00"), np.timedelta64(5, "ms"), np.datetime64("NaT", "s"),
    np.array((1, 2.5), [("a", "i4"), ("b", "f8")])[()],
    Bit(1), Ring16(777), Ring64(2**64 - 1), PrfKey(bytes(range(16))), PrfCheck(2**127), StateChecksum(1, 2),
    VecRing16(np.arange(5000)), VecRing48([1, 2**47]), VecBit([True, False, True] * 3),
    NetworkVec([Ring16(1), VecBit([1, 0]), b"x"]),
]  # fmt: skip


@pytest.mark.parametrize("value", ONE_BY_ONE, ids=lambda value: type(value).__name__)
def test_each_kind_of_value_comes_back_equal_in_value_and_type(value: Any) -> None:
    assert same(there_and_back([value, (value,)]), [value, (value,)])


def test_values_of_every_numpy_type_keep_it() -> None:
    for code in np.typecodes["All"]:
        if code in "OV":  # refused: objects, and elements of no size
            continue
        array_ = np.ones(4, "M8[s]" if code == "M" else "m8[s]" if code == "m" else code)
        if not array_.dtype.itemsize:
            continue
        assert same(there_and_back(array_), array_)
        received = there_and_back(array_[0])
        assert received.dtype == array_.dtype
        assert received == array_[0]


def test_arrays_are_lent_when_sent_and_taken_as_views() -> None:
    rows = np.arange(10_000).reshape(100, 100)
    blob, view = bytes(50_000), memoryview(bytearray(20_000))
    packed = pack_object({"rows": rows, "columns": rows.T, "blob": blob, "view": view})
    lent = [np.frombuffer(part, np.uint8) for part in packed.parts if len(part) > INLINE_SIZE_MAX]
    assert [np.shares_memory(part, rows) for part in lent] == [True, True, False, False]
    assert any(part is blob for part in packed.parts)
    assert np.shares_memory(lent[3], np.frombuffer(view, np.uint8))
    data = bytearray(packed.join())
    for source, is_view in ((data, True), (bytes(data), False), (memoryview(data).toreadonly(), False)):
        received = unpack_object(source)
        assert np.shares_memory(received["rows"], np.frombuffer(source, np.uint8)) is is_view
        assert received["rows"].flags.writeable
        assert received["columns"].flags.f_contiguous
        assert not received["view"].readonly


def test_buffers_begin_where_any_dtype_may_lie() -> None:
    value = [np.ones(1001, np.uint8), np.ones(2001, np.float64), np.ones(1003, np.uint8), np.ones(999, np.longdouble)]
    for offset in range(3):
        data = bytearray(offset) + pack_object(value).join()
        received = unpack_object(memoryview(data)[offset:])
        assert same(received, value)
        assert all(part.flags.aligned for part in received)


# What is refused.


class Colour(enum.Enum):
    """Registered nowhere."""

    RED = 1


class Custom:
    """Registered nowhere."""


class Whole(int):
    """Registered nowhere."""


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (Custom(), "Custom is of no kind that can be sent; register its class"),
        (Whole(1), "Whole is of no kind"),
        (Pair(1, 2), "Pair is of no kind"),
        (Counter("a"), "Counter is of no kind"),
        (print, "is code, which is never sent"),
        (int, "is code, which is never sent"),
        (lambda: 1, "is code, which is never sent"),
        (iter([]), "of no kind"),
        (np.array([object()]), "object is of no kind"),
        (np.ma.masked_array([1], [True]), "mask of a masked array"),
        (np.zeros(2).view(np.recarray), "recarray would arrive as a plain array"),
        (np.zeros(2, np.dtype((np.record, "i4,i4"))), "numpy record would arrive as a plain structure"),
        (np.zeros(2, np.dtype((np.record, "i4,i4")))[0], "numpy record would arrive as a plain structure"),
        (np.empty(2, "V0"), "no size"),
        (Fraction(1, 2**FRACTION_BITS_MAX), "Fraction"),
        (Decimal("1" * 70_000), "Decimal"),
        (np.zeros(2, ">i4").data, "memoryview"),
        (array("w" if sys.version_info >= (3, 13) else "u", "x"), "array.array"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_what_would_change_or_cannot_be_sent_is_refused_by_type(value: Any, match: str) -> None:
    with pytest.raises(ObjectEncodeError, match=match):
        pack_object(value)
    with pytest.raises(TypeError):
        pack_object([value])


SECRET = "a secret share"


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([1, {"a": (2, Custom())}], '[1]["a"][1]'),
        ({(1, 2): Custom()}, "[<key 0>]"),
        ({SECRET * 5: Custom()}, "[<key 0>]"),
        ({"a\nb": Custom()}, "[<key 0>]"),
        ({Custom(): 1}, "<key 0>"),
        ({1, Custom()}, "<member "),
        ([(1, 2)] * 20 + [(1, [Custom()])], "[20][1][0]"),
        ([{"a": 1, "b": 2}] * 20 + [{"a": 1, "b": [Custom()]}], '[20]["b"][0]'),
        ([SECRET, Custom()], "[1]"),
        (deque([Custom()]), "[0]"),
    ],
)
def test_an_error_says_where_and_never_what(value: Any, path: str) -> None:
    with pytest.raises(ObjectEncodeError) as caught:
        pack_object(value)
    assert caught.value.path.startswith(path)
    assert SECRET not in str(caught.value)
    again = type(caught.value)(*caught.value.args)
    assert str(again) == str(caught.value)


def test_an_enum_that_nobody_registered_arrives_as_its_value() -> None:
    assert there_and_back([Colour.RED]) == [1]


# Limits, at both ends.


def nested(depth: int, kind: Any = list) -> Any:
    value: Any = kind()
    for _ in range(depth - 1):
        value = kind([value])
    return value


LIMITS: list[tuple[ObjectLimits, Any, Any]] = [
    (ObjectLimits(depth_max=7), nested(7), nested(8)),
    (ObjectLimits(depth_max=7), nested(7, tuple), nested(8, tuple)),
    (ObjectLimits(depth_max=200), nested(200), nested(201)),
    (ObjectLimits(elements_max=40), [0] * 40, [0] * 41),
    (ObjectLimits(elements_max=40), [0.5] * 40, [0.5] * 41),
    (ObjectLimits(elements_max=40), ["a"] * 40, ["a"] * 41),
    (ObjectLimits(elements_max=40), [[None] * 19] * 2, [[None] * 20] * 2),
    (ObjectLimits(containers_max=5), [[], [], [], []], [[], [], [], [], []]),
    (ObjectLimits(containers_max=5), [np.zeros(1)] * 4, [np.zeros(1)] * 5),
    (ObjectLimits(containers_max=22), [{"a": 1}] * 19, [{"a": 1}] * 20),
    (ObjectLimits(elements_max=40), [(1,)] * 20, [(1,)] * 21),
    (ObjectLimits(containers_max=3), [[2**70] * 20] * 2, [[2**70] * 20] * 3),
    (ObjectLimits(integer_size_max=100), 2**799 - 1, 2**799),
    (ObjectLimits(integer_size_max=100), [2**799 - 1] * 20, [2**799] * 20),
    (ObjectLimits(weak_keys_max=9), dict.fromkeys(range(9)), dict.fromkeys(range(10))),
    (ObjectLimits(weak_keys_max=9), set(range(9)), set(range(10))),
    (ObjectLimits(weak_keys_max=9), dict.fromkeys(map(str, range(100))), dict.fromkeys([*map(str, range(100)), 1])),
]


@pytest.mark.parametrize(("limits", "fits", "too_much"), LIMITS)
def test_a_limit_is_kept_by_both_ends_and_reached(limits: ObjectLimits, fits: Any, too_much: Any) -> None:
    assert same(there_and_back(fits, limits=limits), fits)
    with pytest.raises(ObjectEncodeError, match="_max = "):
        pack_object(too_much, limits=limits)
    if limits.depth_max < 200:  # else nobody can write it
        packed = pack_object(too_much, limits=ObjectLimits(depth_max=200)).join()
        with pytest.raises(ObjectDecodeError, match="_max = "):
            unpack_object(packed, limits=limits)


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append({"again": value})
    with pytest.raises(ObjectEncodeError, match="or holds itself"):
        pack_object(value)


def test_limits_are_checked_themselves() -> None:
    for wrong in ({"depth_max": 0}, {"depth_max": 201}, {"elements_max": -1}, {"integer_size_max": 1.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ObjectLimits(**wrong)


def test_keys_that_collide_are_refused_and_honest_ones_are_not() -> None:
    prime = (1 << 61) - 1
    honest: list[Any] = [
        range(100_000), range(0, 1 << 40, 1 << 25), [n * 0.5 for n in range(50_000)], [(n, -n) for n in range(20_000)],
        [int(math.sqrt(n) * 1e15) for n in range(20_000)],
    ]  # fmt: skip
    for keys in honest:
        value = dict.fromkeys(keys, None)
        assert there_and_back(value) == value
        assert there_and_back(set(keys)) == set(keys)
    chosen = [n * prime for n in range(3000)]
    packed = pack_object(dict.fromkeys(chosen, None)).join()
    with pytest.raises(ObjectDecodeError, match="chosen to collide"):
        unpack_object(packed)
