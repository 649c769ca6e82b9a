"""What one transaction of a peer store reads and writes, in terms of records instead of bytes.

Between the store, which says when a transaction begins and ends, and the databases of the environment. The one
invariant: nothing leaves here that was not checked. A record that cannot be read is noted, and treated as not there; an
entry of the index of Noise keys counts only if the record that it leads to has this key.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, TypeAlias

from ..peers.peer_id import PEER_ID_SIZE, PeerId
from .codec import (
    RECORD_SIZE_MAX,
    decode_ban_untrusted,
    decode_head_untrusted,
    decode_record_untrusted,
    encode_ban,
    encode_record,
)
from .errors import PeerRecordInvalid, PeerStoreFull
from .query import ID_BITS, PeerFilter, common_bits

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from ..peers.contract import Ban
    from .codec import RecordHead
    from .environment import Environment, Transaction
    from .record import PeerRecord

    Change: TypeAlias = Callable[[PeerRecord | None], PeerRecord | None]

Spoiled: TypeAlias = dict[tuple[str, bytes], tuple[str, bytes]]
"""Database and key of what cannot be read, why, and what was there. At most QUARANTINE_MAX entries."""

QUARANTINE_MAX: Final = 1024
"""Entries that are set aside for whoever wants to look at them; the bytes of further ones are dropped."""

LEAST: Final = bytes(PEER_ID_SIZE)
GREATEST: Final = b"\xff" * PEER_ID_SIZE

_DROP_FRACTION: Final = 16
_U16: Final = struct.Struct("<H")


class StoreReader:
    """One state of the store."""

    def __init__(self, environment: Environment, transaction: Transaction, now: float, spoiled: Spoiled) -> None:
        """What cannot be read is noted in `spoiled`."""
        self._transaction = transaction
        self._now = now
        self._spoiled = spoiled
        self._path = str(environment.path)
        self._databases = environment.databases
        self._peers = environment.databases["peers"]
        self._bans = environment.databases["bans"]
        self._noise_keys = environment.databases["noise_keys"]
        self._any_bans = transaction.stat(self._bans)["entries"] > 0

    def record(self, raw: bytes) -> PeerRecord | None:
        """The record under an id, if it can be read."""
        data = self._transaction.get(raw, db=self._peers)
        if data is None:
            return None
        try:
            return decode_record_untrusted(raw, data)
        except PeerRecordInvalid as error:
            self._spoil("peers", raw, data, error)
            return None

    def heads(self, filter_: PeerFilter, least: bytes = LEAST, greatest: bytes = GREATEST) -> Iterator[RecordHead]:
        """The heads of records with ids from `least` to `greatest` that may match, by id."""
        with self._transaction.cursor(self._peers) as cursor:
            is_there = cursor.set_range(least)
            while is_there:
                raw, data = cursor.item()
                if raw[:PEER_ID_SIZE] > greatest:
                    return
                head = self._head(raw, data)
                if head is not None and filter_.may_match(head, self._any_bans and self.ban(raw) is not None):
                    yield head
                is_there = cursor.next()

    def records(self, filter_: PeerFilter, least: bytes = LEAST, greatest: bytes = GREATEST) -> Iterator[PeerRecord]:
        """The records with ids from `least` to `greatest` that match, by id."""
        for head in self.heads(filter_, least, greatest):
            record = self.matching(head, filter_)
            if record is not None:
                yield record

    def matching(self, head: RecordHead, filter_: PeerFilter) -> PeerRecord | None:
        """The record of a head that may match, if it does."""
        record = self.record(head.raw)
        return record if record is not None and filter_.matches(record) else None

    def shuffled(self, filter_: PeerFilter, chance: random.Random) -> Iterator[PeerRecord]:
        """The records that match, in random order; as many are read as are asked for."""
        with self._transaction.cursor(self._peers) as cursor:
            keys: list[bytes] = list(cursor.iternext(keys=True, values=False))
            for index in range(len(keys)):
                other = chance.randrange(index, len(keys))
                keys[index], keys[other] = keys[other], keys[index]
                data = self._transaction.get(keys[index], db=self._peers)
                head = None if data is None else self._head(keys[index], data)
                if head is None or not filter_.may_match(head, self.ban(keys[index]) is not None):
                    continue
                record = self.matching(head, filter_)
                if record is not None:
                    yield record

    def common_bits_max(self, target: PeerId) -> int:
        """How many bits the nearest id of all begins with as `target` does. It stands beside it: ids are sorted."""
        most = 0
        with self._transaction.cursor(self._peers) as cursor:
            follows = cursor.set_range(target.raw)
            if follows:
                most = common_bits(target.raw, cursor.key()[:PEER_ID_SIZE].ljust(PEER_ID_SIZE, b"\0"))
            if cursor.prev() if follows else cursor.last():
                most = max(most, common_bits(target.raw, cursor.key()[:PEER_ID_SIZE].ljust(PEER_ID_SIZE, b"\0")))
        return min(most, ID_BITS)

    def ban(self, raw: bytes) -> Ban | None:
        """The ban of an id that holds now."""
        data = self._transaction.get(raw, db=self._bans)
        ban = None if data is None else self._decoded_ban(raw, data)
        return ban if ban is not None and ban.until > self._now else None

    def bans(self, *, holding: bool = True) -> Iterator[tuple[bytes, Ban]]:
        """Ids and bans that hold now; or those that have ended."""
        with self._transaction.cursor(self._bans) as cursor:
            for raw, data in cursor:
                ban = self._decoded_ban(raw, data)
                if ban is not None and (ban.until > self._now) == holding:
                    yield raw, ban

    def id_of_noise_key(self, noise_key: bytes) -> bytes | None:
        """Who claimed this key last."""
        raw = self._transaction.get(noise_key, db=self._noise_keys) if noise_key else None
        if raw is None:
            return None
        record = self.record(raw)
        return raw if record is not None and record.noise_key == noise_key else None

    def _head(self, raw: bytes, data: bytes) -> RecordHead | None:
        try:
            return decode_head_untrusted(raw, data)
        except PeerRecordInvalid as error:
            self._spoil("peers", raw, data, error)
            return None

    def _decoded_ban(self, raw: bytes, data: bytes) -> Ban | None:
        try:
            return decode_ban_untrusted(raw, data)
        except PeerRecordInvalid as error:
            self._spoil("bans", raw, data, error)
            return None

    def _spoil(self, database: str, key: bytes, data: bytes, error: PeerRecordInvalid) -> None:
        if len(self._spoiled) < QUARANTINE_MAX:
            self._spoiled[database, key] = str(error), data[:RECORD_SIZE_MAX]


class StoreWriter(StoreReader):
    """One change of the store, from one state to the next."""

    def change(self, peer_id: PeerId, change: Change, peers_max: int) -> None:
        """Put what `change` makes of the record that is there.

        Raises:
            PeerStoreFull: there are `peers_max`, all put there by a person.
        """
        old = self.record(peer_id.raw)
        new = change(old)
        if new is None or new == old:
            return
        if new.peer_id != peer_id:
            raise ValueError(f"a change of {peer_id} gave a record of {new.peer_id}")
        if old is None and self._transaction.stat(self._peers)["entries"] >= peers_max:
            self.make_room(peers_max)
        self.put(old, new)

    def put(self, old: PeerRecord | None, new: PeerRecord) -> None:
        """Write a record in the place of `old`."""
        raw = new.peer_id.raw
        self._transaction.put(raw, encode_record(new), db=self._peers)
        if old is not None and old.noise_key != new.noise_key:
            self._drop_noise_key(old)
        if new.noise_key and (old is None or old.noise_key != new.noise_key):
            self._transaction.put(new.noise_key, raw, db=self._noise_keys)

    def forget(self, record: PeerRecord) -> None:
        """Drop a record and all that leads to it."""
        self._transaction.delete(record.peer_id.raw, db=self._peers)
        self._drop_noise_key(record)

    def make_room(self, peers_max: int) -> None:
        """Drop a sixteenth of the records: removed peers first, then those never seen, then those seen longest ago.

        Raises:
            PeerStoreFull: all were put there by a person.
        """
        heads = [head for head in self.heads(PeerFilter(is_banned=None, is_deleted=None)) if not head.is_kept]
        if not heads:
            raise PeerStoreFull(self._path, "peers", peers_max)
        heads.sort(
            key=lambda head: (
                head.deleted_at < 0,
                head.seen_at >= 0,
                head.seen_at if head.seen_at >= 0 else head.added_at,
            )
        )
        for head in heads[: max(1, len(heads) // _DROP_FRACTION)]:
            record = self.record(head.raw)
            if record is not None:
                self.forget(record)

    def put_ban(self, peer_id: PeerId, ban: Ban, bans_max: int) -> Ban:
        """Put a ban, unless a longer one is there; which of the two it is now.

        Raises:
            PeerStoreFull: there are `bans_max` that end later.
        """
        held = self.ban(peer_id.raw)
        if held is not None and held.until >= ban.until:
            return held
        if held is None and self._transaction.stat(self._bans)["entries"] >= bans_max:
            self._make_room_for_ban(ban, bans_max)
        data = encode_ban(peer_id, ban)
        self._transaction.put(peer_id.raw, data, db=self._bans)
        return decode_ban_untrusted(peer_id.raw, data)

    def drop_ban(self, raw: bytes) -> None:
        """Drop the ban of an id, if any."""
        self._transaction.delete(raw, db=self._bans)

    def set_aside(self, spoiled: Spoiled) -> None:
        """Move what cannot be read out of the way, unless something else has taken its place."""
        aside = self._databases["quarantine"]
        for (name, key), (reason, data) in spoiled.items():
            there = self._transaction.get(key, db=self._databases[name])
            if there is not None and there[:RECORD_SIZE_MAX] == data:
                self._transaction.delete(key, db=self._databases[name])
            if self._transaction.stat(aside)["entries"] < QUARANTINE_MAX:
                why = reason.encode()
                self._transaction.put(name[:1].encode() + key[:500], _U16.pack(len(why)) + why + data, db=aside)

    def _drop_noise_key(self, record: PeerRecord) -> None:
        if not record.noise_key:
            return
        if self._transaction.get(record.noise_key, db=self._noise_keys) == record.peer_id.raw:
            self._transaction.delete(record.noise_key, db=self._noise_keys)

    def _make_room_for_ban(self, ban: Ban, bans_max: int) -> None:
        ends = sorted([(0.0, raw) for raw, _ in self.bans(holding=False)]
                      + [(held.until, raw) for raw, held in self.bans()])  # fmt: skip
        dropped = [raw for until, raw in ends[: max(1, len(ends) // _DROP_FRACTION)] if until < ban.until]
        if not dropped:
            raise PeerStoreFull(self._path, "bans that end later", bans_max)
        for raw in dropped:
            self.drop_ban(raw)
