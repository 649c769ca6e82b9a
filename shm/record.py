"""One record: how its header lies in the ring, and how the consumer sees it.

    length u32 | kind u16 | flags u16 | connection u32 | link epoch u32 | sequence u64 | reserved u64
    then the payload, then padding to ALIGNMENT

The compiled core has the same numbers in shm/core/layout.h.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from .segment import RECORD_HEADER_SIZE

RECORD_HEADER: Final = struct.Struct("<IHHIIQQ")

# Header size = alignment, so the room before the end is always a multiple of 32 and a pad header always fits.
ALIGNMENT: Final = RECORD_HEADER_SIZE
# (size + PADDING) & GRID = the ring bytes of a record with `size` bytes of payload.
PADDING: Final = RECORD_HEADER_SIZE + ALIGNMENT - 1
GRID: Final = ~(ALIGNMENT - 1)

KIND_PAD: Final = 0xFFFF
KIND_MAX: Final = KIND_PAD - 1


class Record(NamedTuple):
    """One record as the consumer sees it. The payload is lent: it is valid until the record is released."""

    kind: int
    connection: int
    link_epoch: int
    sequence: int
    payload: memoryview
