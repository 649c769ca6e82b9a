"""Records and bans as bytes on disk. Without I/O.

    crc32 u32 | format u8 = 1 | flags u8 | peer id (13) | features u32 | added f64 | seen f64 | removed f64
    | public key (32) | Noise key (32) | claimed u64 | u8 size, user agent | u16 size, claim
    | u8 count, protocols: u8 size, id | u8 count, metadata: u8 key, u16 size, value
    | u8 count, addresses: u16 size, multiaddr | u8 source | last seen f64 | last attempt f64 | attempts u32
        | failures u32 | latency f64 | u8 samples | u8 size, last failure

Little-endian; a time that never was is -1.0; flags: 1 public key, 2 Noise key (else 32 zeros), 4 kept (record.is_kept).
The CRC is over everything behind it. It finds accidents; who may write the file may write what he likes.

The one invariant: what decodes is a record within every limit, and encodes to the same bytes; anything else is a
PeerRecordInvalid, before memory is taken for what it announces. A head can be looked at without the rest.
"""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from typing import Final, NamedTuple

from ..errors import LinkProtocolError
from ..multiaddr import Multiaddr
from ..peers.contract import Ban
from ..peers.peer_id import PUBLIC_KEY_SIZE, PeerId
from .errors import PeerRecordInvalid
from .known_address import (
    ADDRESS_SIZE_MAX,
    ADDRESSES_CACHED,
    ADDRESSES_MAX,
    FAILURE_SIZE_MAX,
    KnownAddress,
    Source,
    bounded_text,
    check_time,
)
from .record import (
    CLAIM_SIZE_MAX,
    METADATA_KEY_MAX,
    METADATA_MAX,
    METADATA_SIZE_MAX,
    PROTOCOL_SIZE_MAX,
    PROTOCOLS_MAX,
    USER_AGENT_SIZE_MAX,
    PeerRecord,
)

FORMAT: Final = 1

RECORD_SIZE_MAX: Final = 48 * 1024
"""Above what the limits of a record add up to: 38 KiB."""

REASON_SIZE_MAX: Final = 512
"""Bytes of the reason of a ban: a sentence or two."""

NEVER: Final = -1.0
"""How a time is stored that never was."""

_HAS_KEY: Final = 1
_HAS_NOISE_KEY: Final = 2
_IS_KEPT: Final = 4

_CRC: Final = struct.Struct("<I")
_HEAD: Final = struct.Struct("<BB13sIddd")
_KEYS: Final = struct.Struct("<32s32sQ")
_PAST: Final = struct.Struct("<BddIIdB")
_BAN: Final = struct.Struct("<B13sdH")
_U16: Final = struct.Struct("<H")


class RecordHead(NamedTuple):
    """What most queries ask of a record, without the cost of reading it all. A time that never was is NEVER."""

    raw: bytes
    """The id."""
    features: int
    added_at: float
    seen_at: float
    deleted_at: float
    is_kept: bool


def encode_record(record: PeerRecord) -> bytes:
    """The bytes."""
    flags = (_HAS_KEY if record.public_key else 0) | (_HAS_NOISE_KEY if record.noise_key else 0)
    flags |= _IS_KEPT if record.is_kept else 0
    parts = [
        _HEAD.pack(
            FORMAT,
            flags,
            record.peer_id.raw,
            record.features,
            record.added_at,
            _stored(record.seen_at),
            _stored(record.deleted_at),
        ),
        _KEYS.pack(record.public_key, record.noise_key, record.claimed_at),
        _sized8(record.user_agent.encode()),
        _sized16(record.claim),
        bytes((len(record.protocols),)),
        *(_sized8(protocol.encode()) for protocol in record.protocols),
        bytes((len(record.metadata),)),
        *(bytes((key,)) + _sized16(value) for key, value in record.metadata),
        bytes((len(record.addresses),)),
        *(_encode_address(one) for one in record.addresses),
    ]
    return _sealed(b"".join(parts))


def decode_record_untrusted(key: bytes, data: bytes) -> PeerRecord:
    """The record that is stored under `key`.

    Raises:
        PeerRecordInvalid: it is none, or that of another peer.
    """
    try:
        return _decode_record(key, data)
    except (ValueError, LinkProtocolError) as error:
        raise PeerRecordInvalid("a record", str(error)) from None


def decode_head_untrusted(key: bytes, data: bytes) -> RecordHead:
    """The head of the record that is stored under `key`. Of the rest only the CRC is looked at.

    Raises:
        PeerRecordInvalid: it has none.
    """
    flags, features, added_at, seen_at, deleted_at = _unpack_head(key, data)
    return RecordHead(key, features, added_at, seen_at, deleted_at, bool(flags & _IS_KEPT))


def encode_ban(peer_id: PeerId, ban: Ban) -> bytes:
    """The bytes; a long reason is cut."""
    reason = bounded_text(ban.reason, REASON_SIZE_MAX).encode()
    return _sealed(_BAN.pack(FORMAT, peer_id.raw, ban.until, len(reason)) + reason)


def decode_ban_untrusted(key: bytes, data: bytes) -> Ban:
    """The ban that is stored under `key`.

    Raises:
        PeerRecordInvalid: it is none, or that of another peer.
    """
    _check_seal(data)
    if len(data) < _CRC.size + _BAN.size:
        raise PeerRecordInvalid("bytes of a ban", len(data))
    format_, raw, until, size = _BAN.unpack_from(data, _CRC.size)
    if format_ != FORMAT or raw != key:
        raise PeerRecordInvalid("a ban", "of another format, or of another peer")
    reason = data[_CRC.size + _BAN.size :]
    if len(reason) != size or size > REASON_SIZE_MAX or not until >= 0:
        raise PeerRecordInvalid("a ban", "its size or its time cannot be")
    try:
        text = reason.decode()
    except UnicodeDecodeError:
        raise PeerRecordInvalid("the reason of a ban", "bytes that are not UTF-8") from None
    if bounded_text(text, REASON_SIZE_MAX) != text:
        raise PeerRecordInvalid("the reason of a ban", "characters that cannot be printed")
    return Ban(text, until)


def _unpack_head(key: bytes, data: bytes) -> tuple[int, int, float, float, float]:
    """(flags, features, added, seen, removed)."""
    _check_seal(data)
    if len(data) < _CRC.size + _HEAD.size:
        raise PeerRecordInvalid("bytes of a record", len(data))
    format_, flags, raw, features, added_at, seen_at, deleted_at = _HEAD.unpack_from(data, _CRC.size)
    if format_ != FORMAT:
        raise PeerRecordInvalid("the format of a record", format_)
    if raw != key:
        raise PeerRecordInvalid("a record", "it is of another peer than its key says")
    return flags, features, added_at, seen_at, deleted_at


def _decode_record(key: bytes, data: bytes) -> PeerRecord:
    flags, features, added_at, seen_at, deleted_at = _unpack_head(key, data)
    reader = _Reader(data, _CRC.size + _HEAD.size)
    public_key, noise_key, claimed_at = _KEYS.unpack(reader.take(_KEYS.size))
    user_agent = reader.text(reader.count8(USER_AGENT_SIZE_MAX))
    claim = reader.take(reader.count16(CLAIM_SIZE_MAX))
    protocols = tuple(reader.text(reader.count8(PROTOCOL_SIZE_MAX)) for _ in range(reader.count8(PROTOCOLS_MAX)))
    metadata = tuple(
        (reader.count8(METADATA_KEY_MAX), reader.take(reader.count16(METADATA_SIZE_MAX)))
        for _ in range(reader.count8(METADATA_MAX))
    )
    addresses = tuple(_read_address(reader) for _ in range(reader.count8(ADDRESSES_MAX)))
    reader.end()
    check_time(added_at)
    record = PeerRecord(
        peer_id=PeerId(key),
        added_at=added_at,
        public_key=_optional_key(public_key, flags & _HAS_KEY),
        noise_key=_optional_key(noise_key, flags & _HAS_NOISE_KEY),
        addresses=addresses,
        seen_at=_restored(seen_at),
        features=features,
        protocols=protocols,
        user_agent=user_agent,
        claimed_at=claimed_at,
        claim=claim,
        metadata=metadata,
        deleted_at=_restored(deleted_at),
    )
    if flags & ~(_HAS_KEY | _HAS_NOISE_KEY | _IS_KEPT) or bool(flags & _IS_KEPT) != record.is_kept:
        raise ValueError(f"flags {flags:#x}")
    return record


def _encode_address(one: KnownAddress) -> bytes:
    return b"".join(
        (
            _sized16(one.encoded),
            _PAST.pack(
                one.source,
                _stored(one.last_seen),
                _stored(one.last_attempt),
                one.attempts,
                one.failures,
                one.latency_s,
                one.samples,
            ),
            _sized8(one.last_failure.encode()),
        )
    )


def _read_address(reader: _Reader) -> KnownAddress:
    encoded = reader.take(reader.count16(ADDRESS_SIZE_MAX))
    address = _decoded_address(encoded)
    source, last_seen, last_attempt, attempts, failures, latency_s, samples = _PAST.unpack(reader.take(_PAST.size))
    known = KnownAddress(
        address=address,
        source=Source(source),
        last_seen=_restored(last_seen),
        last_attempt=_restored(last_attempt),
        attempts=attempts,
        failures=failures,
        latency_s=latency_s,
        samples=samples,
        last_failure=reader.text(reader.count8(FAILURE_SIZE_MAX)),
    )
    if known.encoded != encoded:
        raise ValueError("the bytes of an address are not the shortest for it")
    return known


@lru_cache(ADDRESSES_CACHED)
def _decoded_address(encoded: bytes) -> Multiaddr:
    return Multiaddr.decode_untrusted(encoded)


class _Reader:
    """Walks over the bytes of a record; every size is checked before what it counts is looked at."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise ValueError(f"it ends {end - len(self._data)} bytes early")
        part = self._data[self._at : end]
        self._at = end
        return part

    def count8(self, maximum: int) -> int:
        return self._bounded(self.take(1)[0], maximum)

    def count16(self, maximum: int) -> int:
        count: int = _U16.unpack(self.take(_U16.size))[0]
        return self._bounded(count, maximum)

    def text(self, size: int) -> str:
        return self.take(size).decode()

    def end(self) -> None:
        if self._at != len(self._data):
            raise ValueError(f"{len(self._data) - self._at} bytes are left over")

    def _bounded(self, count: int, maximum: int) -> int:
        if count > maximum:
            raise ValueError(f"{count} before byte {self._at}, at most {maximum} are possible")
        return count


def _sealed(body: bytes) -> bytes:
    return _CRC.pack(zlib.crc32(body)) + body


def _check_seal(data: bytes) -> None:
    if not _CRC.size < len(data) <= RECORD_SIZE_MAX:
        raise PeerRecordInvalid("bytes of a record", len(data))
    if _CRC.unpack_from(data)[0] != zlib.crc32(memoryview(data)[_CRC.size :]):
        raise PeerRecordInvalid("a record", "its checksum is wrong")


def _sized8(data: bytes) -> bytes:
    return bytes((len(data),)) + data


def _sized16(data: bytes) -> bytes:
    return _U16.pack(len(data)) + data


def _stored(time: float | None) -> float:
    return NEVER if time is None else time


def _restored(time: float) -> float | None:
    if time == NEVER:
        return None
    check_time(time)
    return time


def _optional_key(key: bytes, is_there: int) -> bytes:
    if not is_there and key != bytes(PUBLIC_KEY_SIZE):
        raise ValueError("a key where none is said to be")
    return key if is_there else b""
