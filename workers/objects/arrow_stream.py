"""Arrow tables as streams of Arrow IPC, and back from bytes of a peer.

Imported when a table, or a column of pandas that needs Arrow, is sent or received. The one invariant: what comes out of
`table_untrusted` has been validated in full, is of types that are listed here, and took no more memory than its bytes,
nor will when it is copied: compressed buffers, buffers that overlap, and types whose values need no bytes of their own,
are refused.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import pyarrow as pa
import pyarrow.ipc

from .errors import ObjectDecodeError, ObjectEncodeError

VERSION_MIN: Final = (14, 0, 1)
"""Earlier ones run code that a stream brings along (CVE-2023-47248)."""

DEPTH_MAX: Final = 16

_types = pa.types
_LEAVES: Final = (
    _types.is_boolean, _types.is_integer, _types.is_floating, _types.is_decimal, _types.is_temporal, _types.is_string,
    _types.is_large_string, _types.is_binary, _types.is_large_binary, _types.is_fixed_size_binary,
)  # fmt: skip

_EXTENSIONS: Final = {"pandas.period", "pandas.interval"}
"""Made by pandas, of text that says no more than a frequency or a side."""

_HEADER_IS_BATCH: Final = {2, 3}
_DICTIONARY_BATCH: Final = 2
_U16, _I32, _BUFFER = struct.Struct("<H"), struct.Struct("<i"), struct.Struct("<qq")


def _is_allowed(kind: Any, depth: int = 0) -> bool:
    """Whether each value of the type has bytes of its own."""
    if depth > DEPTH_MAX:
        return False
    if isinstance(kind, pa.BaseExtensionType):
        return kind.extension_name in _EXTENSIONS and _is_allowed(kind.storage_type, depth + 1)
    if _types.is_dictionary(kind):
        return _is_allowed(kind.value_type, depth + 1)
    if _types.is_list(kind) or _types.is_large_list(kind):
        return _is_allowed(kind.value_type, depth + 1)
    if _types.is_struct(kind):
        return kind.num_fields > 0 and all(_is_allowed(kind.field(at).type, depth + 1) for at in range(kind.num_fields))
    if _types.is_fixed_size_binary(kind) and not kind.byte_width:
        return False
    return any(is_leaf(kind) for is_leaf in _LEAVES)


def stream_of(table: Any) -> memoryview:
    """A table or record batch as one stream; one copy.

    Raises:
        ObjectEncodeError: a column is of a type that is not sent.
    """
    for field in table.schema:
        if not _is_allowed(field.type):
            raise ObjectEncodeError(f"Arrow's type {field.type} is not sent; cast the column to a plain one")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write(table)
    return memoryview(sink.getvalue()).cast("B")


def table_untrusted(data: bytes | memoryview) -> Any:
    """The table of a stream, over its memory.

    Raises:
        ObjectDecodeError: it is none, or of a kind that is not received.
        Exception: pyarrow says so in its own ways.
    """
    version = tuple(int(part) for part in pa.__version__.split(".")[:3] if part.isdigit())
    if version < VERSION_MIN:
        raise ObjectDecodeError(f"an Arrow stream, for which pyarrow {'.'.join(map(str, VERSION_MIN))} is needed here")
    buffer = pa.py_buffer(data)
    for message in pa.ipc.MessageReader.open_stream(buffer):
        _check_batch_untrusted(memoryview(message.metadata))
    reader = pa.ipc.open_stream(buffer)
    if not all(_is_allowed(field.type) for field in reader.schema):
        raise ObjectDecodeError("an Arrow stream with a type that is not received")
    table = reader.read_all()
    table.validate(full=True)
    return table


def _check_batch_untrusted(metadata: memoryview) -> None:
    """Refuse a message, which pyarrow has verified, whose batch has compressed buffers, or the same bytes in several.

    Message: version, header type, header ...; DictionaryBatch: id, data ...; RecordBatch: length, nodes, buffers,
    compression.
    """
    message = _I32.unpack_from(metadata)[0]
    kind_at = _field(metadata, message, 1)
    kind = metadata[kind_at] if kind_at else 0
    if kind not in _HEADER_IS_BATCH:
        return
    batch = _table_at(metadata, _field(metadata, message, 2))
    if kind == _DICTIONARY_BATCH:
        batch = _table_at(metadata, _field(metadata, batch, 1))
    if _field(metadata, batch, 3):
        raise ObjectDecodeError("an Arrow stream that is compressed")
    if buffers := _field(metadata, batch, 2):
        start = _table_at(metadata, buffers) + _I32.size
        count = _I32.unpack_from(metadata, start - _I32.size)[0]
        end = 0
        for offset, size in _BUFFER.iter_unpack(metadata[start : start + count * _BUFFER.size]):
            if size and offset < end:
                raise ObjectDecodeError("an Arrow stream whose buffers overlap")
            end = max(end, offset + size)


def _field(data: memoryview, table: int, number: int) -> int:
    """Where a field of a flatbuffers table is; 0: it is not there."""
    names = table - _I32.unpack_from(data, table)[0]
    place = 4 + 2 * number
    if place >= _U16.unpack_from(data, names)[0]:
        return 0
    offset: int = _U16.unpack_from(data, names + place)[0]
    return table + offset if offset else 0


def _table_at(data: memoryview, field: int) -> int:
    if not field:
        raise ObjectDecodeError("an Arrow stream without a header")
    return field + int(_I32.unpack_from(data, field)[0])
