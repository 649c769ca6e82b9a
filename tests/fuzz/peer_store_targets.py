"""Fuzz targets of what a peer store reads from its disk, beside those in targets.py."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from partywire.engine.peer_store.codec import (
    decode_ban_untrusted,
    decode_head_untrusted,
    decode_record_untrusted,
    encode_ban,
    encode_record,
)
from partywire.engine.peer_store.errors import PeerRecordInvalid
from partywire.engine.peers.contract import Ban
from partywire.engine.peers.peer_id import PeerId
from tests.peer_store.peers import NOW, key, known, peer_id, record

if TYPE_CHECKING:
    from collections.abc import Iterator

_CRC_SIZE = 4
_ID = slice(2, 15)


def fuzz_peer_record(data: bytes) -> None:
    """Bytes behind a right checksum are a record that encodes to the same bytes and whose head says the same, or a
    PeerRecordInvalid."""
    raw = data[_ID]
    sealed = zlib.crc32(data).to_bytes(_CRC_SIZE, "little") + data
    try:
        read = decode_record_untrusted(raw, sealed)
    except PeerRecordInvalid:
        return
    assert encode_record(read) == sealed
    head = decode_head_untrusted(raw, sealed)
    assert (head.raw, head.features, head.is_kept) == (raw, read.features, read.is_kept)


def fuzz_peer_ban(data: bytes) -> None:
    """As `peer_record`, for bans."""
    raw = data[1:14]
    sealed = zlib.crc32(data).to_bytes(_CRC_SIZE, "little") + data
    try:
        read = decode_ban_untrusted(raw, sealed)
    except PeerRecordInvalid:
        return
    assert encode_ban(PeerId(raw), read) == sealed


def records() -> Iterator[bytes]:
    """Records with much and with little in them."""
    addresses = (known(1).succeeded(NOW, 0.2), known(2).failed(NOW, "refused"))
    yield encode_record(record(1))[_CRC_SIZE:]
    full = record(
        2, addresses=addresses, seen_at=NOW, claim=b"claim", protocols=("/a/1",), user_agent="x", noise_key=key(3)
    )
    yield encode_record(full.with_metadata(1, b"bob").with_metadata(200, b"x"))[_CRC_SIZE:]


def bans() -> Iterator[bytes]:
    """Bans for a while and for good."""
    yield encode_ban(peer_id(1), Ban("sends rubbish", NOW))[_CRC_SIZE:]
    yield encode_ban(peer_id(2), Ban("", float("inf")))[_CRC_SIZE:]
