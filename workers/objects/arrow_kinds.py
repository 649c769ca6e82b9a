"""Tables of pyarrow. Imported when one is sent or received."""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa

from .arrow_stream import stream_of, table_untrusted
from .errors import ObjectDecodeError
from .kinds import Kind


def _decode_table(payload: Any) -> Any:
    if type(payload) not in (bytes, memoryview):
        raise ObjectDecodeError("a table that is none")
    return table_untrusted(payload)


def _decode_batch(payload: Any) -> Any:
    table = _decode_table(payload)
    batches = table.to_batches()
    if len(batches) > 1:
        raise ObjectDecodeError("a record batch that is several")
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


KINDS: Final[dict[type, Kind]] = {
    pa.Table: Kind("pyarrow.Table", stream_of, _decode_table),
    pa.RecordBatch: Kind("pyarrow.RecordBatch", stream_of, _decode_batch),
}
