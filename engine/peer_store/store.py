"""PeerStore: who is known and who is banned, in a folder that outlives everything but the disk.

Between a node or the command line, and the files (environment.py). The one invariant: a record that cannot be read
harms no other. It is set aside with its reason, told in the log and in `quarantined`, and its peer counts as unknown.

Nothing is kept in memory, so what another process writes is seen by the next call. Every change is read, made and
written in one transaction, and on disk when the call returns: it takes as long as the disk does (address_book.py writes
behind its caller instead). Times are seconds since the epoch.
"""

from __future__ import annotations

import logging
import random
import struct
import time
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from ..peers.peer_id import PeerId
from .environment import MAP_SIZE_MAX, Environment, MapIsFull
from .errors import PeerStoreError, PeerStoreFull, PeerStoreUnusable
from .query import EVERYBODY, Order, PeerFilter, prefix_range, rings_around, sort_key
from .record import PeerRecord, merged_records
from .transactions import QUARANTINE_MAX, StoreReader, StoreWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType

    from ..peers.contract import Ban
    from .environment import Mode, Transaction
    from .transactions import Change, Spoiled

    Migration: TypeAlias = Callable[[Environment, Transaction], None]

SCHEMA: Final = 1
"""What the folder holds. A store of an earlier one is migrated when it is opened to be written."""

MIGRATIONS: Final[Mapping[int, Migration]] = {}
"""From each schema to the next one, in the transaction that migrates. There was no earlier one yet."""

PEERS_MAX: Final = 65_536
"""Records. With more, removed peers and those that were seen longest ago make room, a sixteenth at a time."""

BANS_MAX: Final = 65_536
"""Bans. With more, those that have ended go, then those that end soonest."""

FORGET_AFTER_S: Final = 30 * 86_400.0
"""How long a removed peer is remembered."""

MAKE_ROOM_MAX: Final = 8
"""How often a sixteenth of the peers makes room for one change that does not fit on the disk."""

_SCHEMA_KEY: Final = b"schema"
_U32: Final = struct.Struct("<I")
_logger = logging.getLogger("partywire.peer_store")

T = TypeVar("T")


class PeerStore:
    """An open store. Safe from any thread of its process; not to be used behind a fork."""

    def __init__(
        self,
        path: str | Path,
        mode: Mode = "own",
        *,
        peers_max: int = PEERS_MAX,
        bans_max: int = BANS_MAX,
        map_size_max: int = MAP_SIZE_MAX,
        clock: Callable[[], float] = time.time,
        schema: int = SCHEMA,
        migrations: Mapping[int, Migration] = MIGRATIONS,
    ) -> None:
        """Open the store in the folder `path`.

        Args:
            path: a folder that is this store's alone, and that nobody else may write.
            mode: "own" for a node, the only one in the folder; "share" to read and write beside it; "read" to read.
                The first two make what is not there.
            peers_max, bans_max, map_size_max: bounds, the last one in bytes on disk.
            clock: seconds since the epoch.

        Raises:
            PeerStoreUnavailable: the library lmdb is not installed.
            PeerStoreMissing: there is none, and it is only to be read.
            PeerStoreUnusable: it is damaged, of another version, or others may write it.
            PeerStoreInUse: another node has it.
            PeerStoreBusy, PeerStoreFailed: as for writing.
        """
        self.path = Path(path)
        self.quarantined: dict[str, str] = {}
        """What could not be read since the store was opened: database and key, and why."""
        self._clock = clock
        self._peers_max = peers_max
        self._bans_max = bans_max
        self._environment = Environment(self.path, mode, map_size_max=map_size_max)
        try:
            self._check_schema(schema, migrations)
            if mode == "own":
                self.tidy()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the folder back. A second time is fine; anything else afterwards is a bug."""
        self._environment.close()

    def __enter__(self) -> PeerStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Looking up. Each raises PeerStoreFailed or PeerStoreUnusable if the files cannot be read.

    def get(self, peer_id: PeerId) -> PeerRecord | None:
        """The record of a peer, also of a removed or banned one."""
        with self._reading() as reader:
            return reader.record(peer_id.raw)

    def get_by_key(self, public_key: bytes) -> PeerRecord | None:
        """The record of the peer with this identity key.

        Raises:
            ValueError: these are not 32 bytes.
        """
        return self.get(PeerId.of_key(public_key))

    def peer_of_noise_key(self, noise_key: bytes) -> PeerId | None:
        """Who claimed this static key of Noise last."""
        with self._reading() as reader:
            raw = reader.id_of_noise_key(noise_key)
            return None if raw is None else PeerId(raw)

    def find(self, prefix: str, filter_: PeerFilter = EVERYBODY, limit: int = PEERS_MAX) -> list[PeerRecord]:
        """Peers whose ids begin with these hexadecimal digits, by id.

        Raises:
            ValueError: these are none.
        """
        least, greatest = prefix_range(prefix)
        with self._reading() as reader:
            return list(islice(reader.records(filter_, least, greatest), limit))

    def select(
        self, filter_: PeerFilter = EVERYBODY, order: Order = Order.ID, limit: int = PEERS_MAX
    ) -> list[PeerRecord]:
        """The first `limit` peers that match, in that order."""
        with self._reading() as reader:
            heads = sorted(reader.heads(filter_), key=sort_key(order))
            found = (reader.matching(head, filter_) for head in heads)
            return list(islice((one for one in found if one is not None), limit))

    def closest(self, target: PeerId, limit: int, filter_: PeerFilter = EVERYBODY) -> list[PeerRecord]:
        """The peers whose ids are nearest to `target` by XOR, the nearest first; `target` too if it is one of them.

        It looks at about twice as many heads of records as it gives, not at all, if most of them match.
        """
        chosen: list[PeerRecord] = []
        number = int.from_bytes(target.raw, "big")
        with self._reading() as reader:
            for least, greatest in rings_around(target, reader.common_bits_max(target)):
                if len(chosen) >= limit:
                    break
                ring = list(reader.heads(filter_, least, greatest))
                ring.sort(key=lambda head: int.from_bytes(head.raw, "big") ^ number)
                found = (reader.matching(head, filter_) for head in ring)
                chosen += islice((one for one in found if one is not None), limit - len(chosen))
        return chosen

    def random(
        self, limit: int, filter_: PeerFilter = EVERYBODY, chance: random.Random | None = None
    ) -> list[PeerRecord]:
        """So many peers that match, each as likely as any other, in random order. `chance` is the system's if None."""
        with self._reading() as reader:
            return list(islice(reader.shuffled(filter_, chance or random.SystemRandom()), limit))

    def count(self, filter_: PeerFilter = EVERYBODY) -> int:
        """How many peers match."""
        with self._reading() as reader:
            return sum(1 for _ in reader.records(filter_))

    def ban_of(self, peer_id: PeerId) -> Ban | None:
        """The ban of a peer, known or not, that holds now."""
        with self._reading() as reader:
            return reader.ban(peer_id.raw)

    def bans(self) -> dict[PeerId, Ban]:
        """All bans that hold now."""
        with self._reading() as reader:
            return {PeerId(raw): ban for raw, ban in reader.bans()}

    # Changing. Each may raise PeerStoreBusy, -Full, -Failed or -Unusable; nothing was changed then.

    def add(self, *records: PeerRecord) -> None:
        """Add peers, or merge them with what is known of them (record.py): all of them, or on an error none."""

        def merging(new: PeerRecord) -> Change:
            return lambda old: new if old is None else merged_records(old, new, self._clock())

        self.apply((record.peer_id, merging(record)) for record in records)

    def apply(self, changes: Iterable[tuple[PeerId, Change]], bans: Iterable[tuple[PeerId, Ban | None]] = ()) -> None:
        """Make changes, in order, in one transaction. A change may be called again; it may not call the store.

        Args:
            bans: each is made as `ban` does, or ended if it is None. One for which there is no room, because all others
                end later, is left out, and the log says so.
        """
        changes, bans = list(changes), list(bans)

        def applying(writer: StoreWriter) -> None:
            for peer_id, change in changes:
                writer.change(peer_id, change, self._peers_max)
            for peer_id, ban in bans:
                if ban is None:
                    writer.drop_ban(peer_id.raw)
                    continue
                try:
                    writer.put_ban(peer_id, ban, self._bans_max)
                except PeerStoreFull as error:
                    _logger.warning("peer %s is not banned: %s", peer_id, error)

        self._write(applying)

    def remove(self, peer_id: PeerId, *, forget: bool = False) -> bool:
        """Whether there was such a peer. Should it be added again within FORGET_AFTER_S, it has its past, unless
        `forget`. A ban of it stays."""

        def removing(writer: StoreWriter) -> bool:
            record = writer.record(peer_id.raw)
            if record is None or (record.deleted_at is not None and not forget):
                return False
            if forget:
                writer.forget(record)
            else:
                writer.put(record, replace(record, deleted_at=self._clock()))
            return True

        return self._write(removing, is_freeing=True)

    def ban(self, peer_id: PeerId, ban: Ban) -> Ban:
        """Ban a peer, known or not. Of two bans the longer one stays; it is returned.

        Raises:
            ValueError: `until` is no time.
        """
        if not ban.until >= 0:
            raise ValueError(f"a ban until {ban.until}")
        return self._write(lambda writer: writer.put_ban(peer_id, ban, self._bans_max), is_freeing=True)

    def unban(self, peer_id: PeerId) -> bool:
        """Whether there was a ban that held."""

        def unbanning(writer: StoreWriter) -> bool:
            held = writer.ban(peer_id.raw) is not None
            writer.drop_ban(peer_id.raw)
            return held

        return self._write(unbanning, is_freeing=True)

    def set_aside_count(self) -> int:
        """How many records that could not be read are kept aside, ever since the store was made."""
        with self._environment.reading() as transaction:
            return int(transaction.stat(self._environment.databases["quarantine"])["entries"])

    def tidy(self) -> None:
        """Drop bans that have ended, and peers that were removed long ago. An owner does it when it opens the store."""
        removed_filter = PeerFilter(is_banned=None, is_deleted=True)
        forget_before = self._clock() - FORGET_AFTER_S

        def due(reader: StoreReader) -> tuple[list[bytes], list[PeerRecord]]:
            ended = [raw for raw, _ in reader.bans(holding=False)]
            removed = [one for one in reader.records(removed_filter) if (one.deleted_at or 0.0) <= forget_before]
            return ended, removed

        def tidying(writer: StoreWriter) -> None:
            ended, removed = due(writer)
            for raw in ended:
                writer.drop_ban(raw)
            for record in removed:
                writer.forget(record)

        with self._reading() as reader:
            is_due = any(due(reader))
        if is_due:
            self._write(tidying, is_freeing=True)

    # Within.

    @contextmanager
    def _reading(self) -> Iterator[StoreReader]:
        spoiled: Spoiled = {}
        try:
            with self._environment.reading() as transaction:
                yield StoreReader(self._environment, transaction, self._clock(), spoiled)
        finally:
            if self._tell(spoiled) and self._environment.mode != "read":
                try:
                    self._write(lambda _: None, spoiled)
                except PeerStoreError as error:
                    _logger.warning("what cannot be read could not be set aside either: %s", error)

    def _write(self, job: Callable[[StoreWriter], T], known: Spoiled | None = None, *, is_freeing: bool = False) -> T:
        """What `job` returns. What it cannot read, and what is `known` to be such, is set aside as well."""
        spoiled: Spoiled = {}

        def run(transaction: Transaction) -> T:
            spoiled.clear()
            spoiled.update(known or {})
            writer = StoreWriter(self._environment, transaction, self._clock(), spoiled)
            outcome = job(writer)
            writer.set_aside(spoiled)
            return outcome

        def make_room(transaction: Transaction) -> None:
            StoreWriter(self._environment, transaction, self._clock(), {}).make_room(self._peers_max)

        # What one transaction frees another can use only after the next one, and a batch may need more than one frees.
        for _ in range(MAKE_ROOM_MAX):
            try:
                outcome = self._environment.write(run, is_freeing=is_freeing)
                self._tell(spoiled)
                return outcome
            except MapIsFull:
                pass
            try:
                self._environment.write(make_room, is_freeing=True)
            except (MapIsFull, PeerStoreFull):
                break
        raise PeerStoreFull(str(self.path), "MiB of records", self._environment.map_size_max >> 20)

    def _tell(self, spoiled: Spoiled) -> bool:
        """Whether there is anything to tell."""
        for (database, key), (reason, _) in spoiled.items():
            name = f"{database} {key[:32].hex()}"
            if name not in self.quarantined and len(self.quarantined) < QUARANTINE_MAX:
                self.quarantined[name] = reason
                _logger.warning("peer store %s: %s is set aside: %s", self.path, name, reason)
        return bool(spoiled)

    def _check_schema(self, schema: int, migrations: Mapping[int, Migration]) -> None:
        meta = self._environment.databases["meta"]
        with self._environment.reading() as transaction:
            stored = transaction.get(_SCHEMA_KEY, db=meta)
            is_empty = not any(transaction.stat(one)["entries"] for one in self._environment.databases.values())
        if stored == _U32.pack(schema) or (stored is None and is_empty and self._environment.mode == "read"):
            return
        found = schema if stored is None and is_empty else _U32.unpack(stored)[0] if stored and len(stored) == 4 else 0
        if found > schema:
            raise PeerStoreUnusable(
                str(self.path), f"a newer PartyWire wrote it (schema {found}, known is {schema}); install that version"
            )
        if any(version not in migrations for version in range(found, schema)):
            raise PeerStoreUnusable(str(self.path), f"nothing here can migrate schema {found} to {schema}")
        if self._environment.mode == "read":
            raise PeerStoreUnusable(
                str(self.path), f"an older PartyWire wrote it (schema {found}); start its node once, which migrates it"
            )

        def migrate(transaction: Transaction) -> None:
            for version in range(found, schema):
                migrations[version](self._environment, transaction)
            transaction.put(_SCHEMA_KEY, _U32.pack(schema), db=meta)

        self._environment.write(migrate)
