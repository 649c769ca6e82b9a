"""Bytes of a hostile peer: each is refused by type, quickly, and before memory is taken for what it only announces."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partywire.workers.array_meta import array_meta
from partywire.workers.objects import operations as op
from partywire.workers.objects.errors import ObjectDecodeError, ObjectEncodeError
from partywire.workers.objects.limits import ObjectLimits
from partywire.workers.objects.packing import HEADER, pack_object, unpack_object

META = array_meta(np.zeros(3))


def message(*tokens: Any, buffers: tuple[bytes, ...] = ()) -> bytes:
    """A whole message of these tokens and buffers."""
    packed = b"".join(token if isinstance(token, bytearray) else msgpack.packb(token) for token in tokens)
    data = HEADER.pack(1, 0, len(buffers), len(packed)) + struct.pack(f"<{len(buffers)}Q", *map(len, buffers)) + packed
    for buffer in buffers:
        data += bytes(-len(data) % 16) + buffer
    return data


def meta(text: bytes, *shape: int) -> bytes:
    """The description of an array, unchecked."""
    return struct.pack(f"<BH{len(text)}s{len(shape)}Q", len(shape), len(text), text, *shape)


LIST = (op.PLAIN_LIST, 0)
HOSTILE: dict[str, bytes] = {
    "nothing": b"",
    "half a header": bytes(15),
    "another version": HEADER.pack(2, 0, 0, 1) + b"\xc0",
    "a reserved field": HEADER.pack(1, 7, 0, 1) + b"\xc0",
    "no tokens": message(),
    "two values": message(1, 2),
    "tokens beyond the end": HEADER.pack(1, 0, 0, 5) + b"\xc0",
    "tokens of 16 EiB": HEADER.pack(1, 0, 0, 2**64 - 1) + b"\xc0",
    "four billion buffers": HEADER.pack(1, 0, 2**32 - 1, 1) + b"\xc0",
    "a buffer beyond the end": HEADER.pack(1, 0, 1, 1) + struct.pack("<Q", 100) + b"\xc0",
    "a buffer of 16 EiB": HEADER.pack(1, 0, 1, 1) + struct.pack("<Q", 2**64 - 1) + b"\xc0" + bytes(32),
    "a buffer that nobody uses": message(1, buffers=(b"x",)),
    "bytes behind it": message(1) + b"\0",
    "a cut token": message(bytearray(b"\xcf\x00")),
    "msgpack's list": message([1]),
    "msgpack's empty list": message([]),
    "msgpack's empty map": message({}),
    "msgpack's gigantic list": message(bytearray(b"\xdd\xff\xff\xff\xff")),
    "msgpack's gigantic map": message(bytearray(b"\xdf\xff\xff\xff\xff")),
    "msgpack's gigantic text": message(bytearray(b"\xdb\xff\xff\xff\xff")),
    "msgpack's gigantic bytes": message(bytearray(b"\xc6\xff\xff\xff\xff")),
    "an extension": message(bytearray(b"\xd4\x01\x00")),
    "an extension without data": message(bytearray(b"\xc7\x00\x01")),
    "a timestamp": message(bytearray(b"\xd6\xff\x00\x00\x00\x00")),
    "the byte that msgpack never uses": message(bytearray(b"\xc1")),
    "no UTF-8": message(bytearray(b"\xa1\xff")),
    "an unknown operation": message(b"?"),
    "an operation of no bytes": message(b""),
    "a list without a count": message(op.LIST),
    "a list whose count is text": message(op.LIST, "1"),
    "a list whose count is true": message(op.LIST, True, 1),
    "a list of -1": message(op.LIST, -1),
    "a list of 2**63": message(op.LIST, 2**63),
    "a list that ends early": message(op.LIST, 2, 1),
    "a plain list of 2**31": message(op.PLAIN_LIST, 2**31, 1),
    "columns of width 0": message(op.COLUMNS, 0, True),
    "columns of a gigantic width": message(op.COLUMNS, 2**40, True),
    "columns of two lengths": message(op.COLUMNS, 2, True, *LIST, op.PLAIN_LIST, 1, 1),
    "columns that are no lists": message(op.COLUMNS, 1, True, 5),
    "columns of neither kind": message(op.COLUMNS, 1, 1, *LIST),
    "records without keys": message(op.RECORDS, *LIST),
    "records whose keys are numbers": message(op.RECORDS, op.PLAIN_LIST, 1, 5, *LIST),
    "records with a key twice": message(op.RECORDS, op.PLAIN_LIST, 2, "a", "a", *LIST, *LIST),
    "records of two lengths": message(op.RECORDS, op.PLAIN_LIST, 2, "a", "b", *LIST, op.PLAIN_LIST, 1, 1),
    "a tuple of no list": message(op.TUPLE, 5),
    "a tuple of bytes": message(op.TUPLE, op.BYTES, b"x"),
    "integers of 3 bytes": message(op.INT_COLUMN, 3, b"abc"),
    "integers of 0 bytes": message(op.INT_COLUMN, 0, b""),
    "integers that end early": message(op.INT_COLUMN, 4, b"abc"),
    "integers without a buffer": message(op.INT_COLUMN, 4, None),
    "integers whose buffer is text": message(op.INT_COLUMN, 4, "abcd"),
    "floats that end early": message(op.FLOAT_COLUMN, b"abc"),
    "large integers of no bytes": message(op.LARGE_INT_COLUMN, op.PLAIN_LIST, 1, 0, b""),
    "large integers of negative bytes": message(op.LARGE_INT_COLUMN, op.PLAIN_LIST, 2, -1, 2, b"x"),
    "large integers of text": message(op.LARGE_INT_COLUMN, op.PLAIN_LIST, 1, "x", b"x"),
    "large integers of other sizes": message(op.LARGE_INT_COLUMN, op.PLAIN_LIST, 1, 2, b"x"),
    "large integers without sizes": message(op.LARGE_INT_COLUMN, *LIST, b"x"),
    "an integer of no bytes": message(op.LARGE_INT, b""),
    "an integer of 2 MiB": message(op.LARGE_INT, None, buffers=(bytes(2 << 20),)),
    "a dictionary of other values": message(op.DICT, op.PLAIN_LIST, 1, 1, *LIST),
    "a dictionary with a key twice": message(op.DICT, op.PLAIN_LIST, 2, 1, 1, op.PLAIN_LIST, 2, 1, 2),
    "a dictionary with keys 1 and True": message(op.DICT, op.PLAIN_LIST, 2, 1, True, op.PLAIN_LIST, 2, 1, 2),
    "a dictionary with a list as key": message(op.DICT, op.LIST, 1, *LIST, op.PLAIN_LIST, 1, 1),
    "a dictionary with changing bytes as key": message(
        op.DICT, op.LIST, 1, op.MEMORYVIEW, "B", op.PLAIN_LIST, 1, 1, False, b"x", op.PLAIN_LIST, 1, 1
    ),
    "a set of changing bytes": message(op.SET, op.LIST, 1, op.MEMORYVIEW, "B", op.PLAIN_LIST, 1, 1, False, b"x"),
    "a set with a member twice": message(op.SET, op.PLAIN_LIST, 2, "a", "a"),
    "a set of a list": message(op.SET, op.LIST, 1, *LIST),
    "a deque that is too long": message(op.DEQUE, 1, op.PLAIN_LIST, 2, 1, 2),
    "a deque of negative length": message(op.DEQUE, -1, *LIST),
    "a deque of text length": message(op.DEQUE, "1", *LIST),
    "text that is no UTF-8": message(op.TEXT, b"\xff"),
    "a memoryview of strange items": message(op.MEMORYVIEW, "P", op.PLAIN_LIST, 1, 8, False, bytes(8)),
    "a memoryview of another size": message(op.MEMORYVIEW, "d", op.PLAIN_LIST, 1, 2, False, bytes(8)),
    "a memoryview of no dimension": message(op.MEMORYVIEW, "B", *LIST, False, b""),
    "a memoryview of text dimensions": message(op.MEMORYVIEW, "B", op.PLAIN_LIST, 2, "1", 8, False, bytes(8)),
    "a memoryview of gigantic dimensions": message(op.MEMORYVIEW, "B", op.PLAIN_LIST, 2, 2**62, 4, False, bytes(8)),
    "an array without description": message(op.NDARRAY, None, False, bytes(24)),
    "an array of less data": message(op.NDARRAY, META, False, bytes(23)),
    "an array of more data": message(op.NDARRAY, META, False, bytes(25)),
    "an array of no order": message(op.NDARRAY, META, 0, bytes(24)),
    "an array of a cut description": message(op.NDARRAY, META[:-1], False, bytes(24)),
    "an array of a longer description": message(op.NDARRAY, META + b"\0", False, bytes(24)),
    "an array of an empty description": message(op.NDARRAY, b"", False, b""),
    "an array of objects": message(op.NDARRAY, meta(b"|O8", 1), False, bytes(8)),
    "an array beyond any memory": message(op.NDARRAY, meta(b"<f8", 2**40, 2**40), False, b""),
    "an array of 64 dimensions": message(op.NDARRAY, meta(b"|u1", *[1] * 64), False, b"x"),
    "an array of elements without size": message(op.NDARRAY, meta(b"|V0", 2**40), False, b""),
    "an array of fields of elements without end": message(
        op.NDARRAY, meta(b'[["a","<f8",[' + b"1000000000," * 3 + b"1]]]", 0), False, b""
    ),
    "an array of text that is none": message(op.NDARRAY, meta(b"<U1", 2), False, b"a\0\0\0\0\0\x11\0"),
    "an array of swapped text that is none": message(op.NDARRAY, meta(b">U1", 1), False, b"\0\x11\0\0"),
    "an array of fields of text that is none": message(
        op.NDARRAY, meta(b'[["a","|u1"],["b",[["c","<U1",[2]]]]]', 1), False, b"\0" * 5 + b"\xff" * 4
    ),
    "a scalar of text that is none": message(op.NUMPY_SCALAR, meta(b"<U1"), b"\xff" * 4),
    "a scalar of two": message(op.NUMPY_SCALAR, meta(b"<f8", 2), bytes(16)),
    "a scalar of another size": message(op.NUMPY_SCALAR, meta(b"<f8"), bytes(7)),
    "a scalar of no description": message(op.NUMPY_SCALAR, 5, bytes(8)),
    "a value of the wire that steers": message(op.WIRE_VALUE, 0x84, 1, b"x"),
    "a value of the wire that is an object": message(op.WIRE_VALUE, 0x81, 16, bytes(16)),
    "a value of the wire of another size": message(op.WIRE_VALUE, 3, 2, b"x"),
    "a value of the wire beyond any memory": message(op.WIRE_VALUE, 0x0F, 2**32, b"x"),
    "a broken network vector": message(op.WIRE_VALUE, 0x0A, 1, b"\x0a"),
    "a ring element that is too large": message(op.WIRE_VALUE, 0x0E, 7, bytes(7)),
    "an object of nobody": message(op.OBJECT, "os.system", "true"),
    "an object whose name is a number": message(op.OBJECT, 5, 1),
    "a kind of nobody": message(op.KNOWN, "subprocess.Popen", "true"),
    "a kind without a name": message(op.KNOWN, ".", None),
    "a kind of a module of ours": message(op.KNOWN, "errors", None),
    "a complex of 3 bytes": message(op.KNOWN, "complex", op.BYTES, b"abc"),
    "a fraction over zero": message(op.KNOWN, "fraction", op.TUPLE, op.PLAIN_LIST, 2, 1, 0),
    "a fraction of floats": message(op.KNOWN, "fraction", op.TUPLE, op.PLAIN_LIST, 2, 1.0, 2.0),
    "a fraction that takes minutes": message(
        op.KNOWN, "fraction", op.TUPLE, op.LARGE_INT_COLUMN, op.PLAIN_LIST, 2, 500_000, 500_000, None,
        buffers=(b"\x55" * 1_000_000,),
    ),
    "a decimal of text": message(op.KNOWN, "decimal", "one"),
    "a decimal of a million digits": message(op.KNOWN, "decimal", "1" * 1_000_000),
    "a decimal of an impossible exponent": message(op.KNOWN, "decimal", "1E" + "9" * 30),
    "a date that is none": message(op.KNOWN, "date", op.TUPLE, op.PLAIN_LIST, 3, 2020, 13, 1),
    "a date of huge numbers": message(op.KNOWN, "date", op.TUPLE, op.PLAIN_LIST, 3, 2**63, 1, 1),
    "a time of five parts": message(op.KNOWN, "time", op.TUPLE, op.PLAIN_LIST, 5, 1, 1, 1, 1, 1),
    "a zone outside of its folder": message(op.KNOWN, "timezone", "../../etc/passwd"),
    "a zone of an absolute path": message(op.KNOWN, "timezone", "/etc/passwd"),
    "a zone that is not there": message(op.KNOWN, "timezone", "Europe/Atlantis"),
    "a zone that is a folder": message(op.KNOWN, "timezone", "Europe"),
    "a timedelta beyond all time": message(op.KNOWN, "timedelta", op.TUPLE, op.PLAIN_LIST, 3, 2**62, 0, 0),
    "a uuid of 5 bytes": message(op.KNOWN, "uuid", op.BYTES, b"abcde"),
    "a range of step 0": message(op.KNOWN, "range", op.TUPLE, op.PLAIN_LIST, 3, 0, 9, 0),
    "an array.array of pointers": message(op.KNOWN, "array", op.TUPLE, op.LIST, 2, "P", op.BYTES, bytes(8)),
    "an array.array that ends early": message(op.KNOWN, "array", op.TUPLE, op.LIST, 2, "d", op.BYTES, bytes(7)),
    "numpy text of a number": message(op.KNOWN, "numpy str", 5),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_are_refused_by_type_and_cost_little_memory(name: str) -> None:
    data = HOSTILE[name]
    tracemalloc.start()
    try:
        with pytest.raises(ObjectDecodeError) as caught:
            unpack_object(data)
        assert tracemalloc.get_traced_memory()[1] < 12 * len(data) + 200_000
    finally:
        tracemalloc.stop()
    assert 0 < len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


def test_the_name_of_a_class_in_a_peers_words_is_cut_and_made_printable() -> None:
    with pytest.raises(ObjectDecodeError) as caught:
        unpack_object(message(op.OBJECT, "\x1b[31m\n" + "x" * 500, None))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_nesting_ends_at_the_limit_however_it_is_made() -> None:
    deep = 20_000
    for tokens in (
        [op.LIST, 1] * deep,
        [op.TUPLE, op.LIST, 1] * deep,
        [op.DICT, op.LIST, 1] * deep,
        [op.SET, op.LIST, 1] * deep,
        [op.COLUMNS, 1, True] * deep,
        [op.ENUM, "e"] * deep,
        [op.OBJECT, "o"] * deep,
        [op.KNOWN, "fraction"] * deep,
        [op.LARGE_INT_COLUMN] * deep,
    ):
        with pytest.raises(ObjectDecodeError, match="nested deeper than depth_max = 100"):
            unpack_object(message(*tokens))


def test_tokens_and_containers_are_counted() -> None:
    limits = ObjectLimits(elements_max=100, containers_max=10)
    with pytest.raises(ObjectDecodeError, match="more than 400 tokens"):
        unpack_object(message(*[0] * 401), limits=limits)
    with pytest.raises(ObjectDecodeError, match="containers_max = 10"):
        unpack_object(message(op.LIST, 11, *LIST * 11), limits=limits)


def test_a_list_of_many_numbers_in_few_bytes_counts_as_many() -> None:
    with pytest.raises(ObjectDecodeError, match="elements_max"):
        unpack_object(message(op.INT_COLUMN, 1, None, buffers=(bytes(101),)), limits=ObjectLimits(elements_max=100))
    assert unpack_object(
        message(op.INT_COLUMN, 1, None, buffers=(bytes(100),)), limits=ObjectLimits(elements_max=100)
    ) == [0] * 100  # fmt: skip


def test_rows_within_rows_count_each_so_that_few_bytes_do_not_become_gigabytes() -> None:
    for is_tuple in (True, False):
        data = message(*[op.COLUMNS, 1, is_tuple] * 50, op.INT_COLUMN, 1, None, buffers=(bytes(10_000),))
        tracemalloc.start()
        try:
            with pytest.raises(ObjectDecodeError, match="containers_max"):
                unpack_object(data, limits=ObjectLimits(containers_max=ObjectLimits().containers_max // 10))
            assert tracemalloc.get_traced_memory()[1] < 10_000_000
        finally:
            tracemalloc.stop()


def test_rows_within_rows_are_counted_alike_at_both_ends() -> None:
    value = [((1, 2), [{"a": (3, 4)}], {"b": [5, 6]})] * 20
    counts = range(1, 200)
    taken = [n for n in counts if _fits(value, ObjectLimits(containers_max=n))]
    assert taken[0] > 20  # the rows in rows
    assert taken == list(range(taken[0], 200))
    packed = pack_object(value).join()
    with pytest.raises(ObjectDecodeError, match="containers_max"):
        unpack_object(packed, limits=ObjectLimits(containers_max=taken[0] - 1))
    assert unpack_object(packed, limits=ObjectLimits(containers_max=taken[0])) == value


def _fits(value: object, limits: ObjectLimits) -> bool:
    try:
        pack_object(value, limits=limits)
    except ObjectEncodeError:
        return False
    return True


SEEDS = [
    pack_object(value).join()
    for value in ({"a": [1, (2, "x")]}, [np.arange(3), b"x" * 2000], [(1, "a")] * 20, {1: {2, 3}}, [2**70] * 20, 1j)
]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SEEDS), st.binary(max_size=12), st.integers(0, 200), st.integers(0, 12))
def test_changed_messages_are_objects_or_refused(seed: bytes, part: bytes, start: int, size: int) -> None:
    with contextlib.suppress(ObjectDecodeError):
        unpack_object(seed[:start] + part + seed[start + size :], limits=ObjectLimits(elements_max=10_000))
