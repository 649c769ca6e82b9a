"""The yamux header: 12 bytes before everything on the connection, and what its fields may be.

    version u8 = 0 | type u8 | flags u16 | stream u32 | length u32          big-endian

`length` counts the bytes that follow (DATA), is credit in bytes (WINDOW_UPDATE), an opaque value (PING), or a code
(GO_AWAY). PING and GO_AWAY have stream 0. Source: the yamux specification, and its reference implementation in Go.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

HEADER: Final = struct.Struct(">BBHII")
HEADER_SIZE: Final = HEADER.size

VERSION: Final = 0

DATA: Final = 0
WINDOW_UPDATE: Final = 1
PING: Final = 2
GO_AWAY: Final = 3

SYN: Final = 1
ACK: Final = 2
FIN: Final = 4
RST: Final = 8

WINDOW_SIZE: Final = 256 * 1024
"""Bytes that either side may send on a new stream before it has heard anything of it."""

LENGTH_MAX: Final = 2**32 - 1
STREAM_ID_MAX: Final = 2**32 - 1

DATA_SIZE_MAX: Final = 64 * 1024 - HEADER_SIZE
"""Body of a DATA frame that we send: a round 64 KiB with its header. Some peers refuse frames above 1 MiB."""


class GoAwayCode(IntEnum):
    """Why a side ends the session."""

    NORMAL = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


def encode_header(kind: int, flags: int, stream: int, length: int) -> bytes:
    """The 12 bytes."""
    return HEADER.pack(VERSION, kind, flags, stream, length)
