"""The operations of the object format, one byte each (docs/objects.md, The format).

An object is a sequence of msgpack values without containers. None, bool, int, float and text stand for themselves; a
binary value is an operation, which says what to make of the values behind it. So nothing that a user sends can be taken
for an operation, and whatever is nested is nested by our own rules and limits.
"""

from __future__ import annotations

from typing import Final

LIST: Final = b"l"
PLAIN_LIST: Final = b"L"
INT_COLUMN: Final = b"I"
LARGE_INT_COLUMN: Final = b"G"
FLOAT_COLUMN: Final = b"F"
COLUMNS: Final = b"z"
RECORDS: Final = b"r"
TUPLE: Final = b"t"
DICT: Final = b"d"
ORDERED_DICT: Final = b"o"
SET: Final = b"s"
FROZENSET: Final = b"f"
DEQUE: Final = b"q"
BYTES: Final = b"b"
BYTEARRAY: Final = b"B"
MEMORYVIEW: Final = b"m"
LARGE_INT: Final = b"i"
TEXT: Final = b"u"
NDARRAY: Final = b"n"
NUMPY_SCALAR: Final = b"N"
WIRE_VALUE: Final = b"w"
ENUM: Final = b"e"
OBJECT: Final = b"c"
KNOWN: Final = b"x"

OPERATIONS: Final[tuple[tuple[bytes, str], ...]] = (
    (LIST, "count n, then n values: a list"),
    (PLAIN_LIST, "count n, then n msgpack values that stand for themselves, binary ones too: a list"),
    (INT_COLUMN, "item size 1, 2, 4 or 8, buffer of signed integers: a list"),
    (LARGE_INT_COLUMN, "list of sizes, buffer of signed integers of these sizes: a list"),
    (FLOAT_COLUMN, "buffer of float64: a list"),
    (COLUMNS, "width w, true for tuples or false for lists, then w lists of one length: a list of such rows"),
    (RECORDS, "list of w texts, then w lists of one length: a list of dictionaries with these keys"),
    (TUPLE, "list: a tuple"),
    (DICT, "list of keys, list of values: a dict"),
    (ORDERED_DICT, "list of keys, list of values: an OrderedDict"),
    (SET, "list: a set"),
    (FROZENSET, "list: a frozenset"),
    (DEQUE, "maxlen or nil, list: a deque"),
    (BYTES, "buffer: bytes"),
    (BYTEARRAY, "buffer: a bytearray"),
    (MEMORYVIEW, "format text, list of extents, true if it is read-only, buffer: a memoryview"),
    (LARGE_INT, "buffer, signed: an integer beyond 64 bits"),
    (TEXT, "buffer of UTF-8 in which surrogates may stand alone: a str"),
    (NDARRAY, "description as in ARRAY, true for Fortran order, buffer: a numpy array"),
    (NUMPY_SCALAR, "description as in ARRAY, buffer: a numpy scalar"),
    (WIRE_VALUE, "descriptor, length field, buffer: a value that has a frame of its own (docs/wire.md)"),
    (ENUM, "name of its class, value: a member of an Enum"),
    (OBJECT, "name of its class, value: an object of a registered class"),
    (KNOWN, "name from the table of kinds, value: an object of a library that we know"),
)
"""For the documentation. A buffer is a binary value, or nil for the next one out of band; numbers are little-endian."""
