"""The address book of a node (engine/peers/contract.py), kept in a peer store.

Between the connections of a node, on its event loop, and the disk. The one invariant: no call waits for the disk, so
that no stranger can make the node wait by misbehaving. What is told is known at once, and written behind the caller,
together: bans and their ends as soon as the disk is free, what dialling brought and what peers claim within
FLUSH_AFTER_S, and all of it at the end. Killed in between, a node forgets these last moments, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from ..errors import LinkProtocolError
from ..peers.claims import PeerClaim
from .errors import PeerStoreError
from .known_address import ADDRESSES_MAX, KnownAddress, Source, dial_order
from .query import PeerFilter
from .record import PeerRecord

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from ..multiaddr import Multiaddr
    from ..peers.contract import Ban
    from ..peers.peer_id import PeerId
    from ..peers.selection import Selection
    from .store import PeerStore
    from .transactions import Change

FLUSH_AFTER_S: Final = 1.0
"""From the first news to the disk: what a node that is killed may forget."""

FLUSH_AGAIN_S: Final = 10.0
"""Until the next try, after one that failed."""

PENDING_MAX: Final = 4096
"""News that wait to be written. More come only if the disk refuses; then the oldest are dropped, and counted."""

CLAIMS_CACHED: Final = 256
"""Claims whose signature need not be verified again: 8 KiB each at most."""

_logger = logging.getLogger("partywire.peer_store")


class StoredAddressBook:
    """An `AddressBook`. Of one event loop; the store may be shared with other threads and processes. Every call that
    asks for something may raise PeerStoreError, should the files be unreadable."""

    def __init__(self, store: PeerStore, *, clock: Callable[[], float] = time.time) -> None:
        """The store stays the caller's, who closes it behind `aclose`."""
        self.dropped = 0
        """News that were never written, because the disk refused for too long."""
        self._store = store
        self._clock = clock
        self._pending: deque[tuple[PeerId, Change]] = deque()
        self._claimed: dict[PeerId, PeerClaim] = {}  # of what is pending
        self._bans: dict[PeerId, Ban | None] = {}  # that are pending; None: ended
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._is_waiting_for_disk = False  # it refused; the timer is that of the next try
        self._decoded = lru_cache(CLAIMS_CACHED)(self._decode)

    def claim_of(self, peer_id: PeerId) -> PeerClaim | None:
        """The latest claim of a peer; verified, though it comes from our own disk."""
        record = self._record(peer_id)
        return self._decoded(record.claim) if record is not None and record.claim else None

    def peer_of_noise_key(self, noise_key: bytes) -> PeerId | None:
        """Who claimed this static key of Noise last."""
        for peer_id, claim in reversed(self._claimed.items()):
            if claim.noise_key == noise_key:
                return peer_id
        return self._store.peer_of_noise_key(noise_key)

    def addresses_of(self, peer_id: PeerId) -> Sequence[Multiaddr]:
        """Where the peer may be dialled, the best first (known_address.py). None of a removed peer."""
        record = self._record(peer_id)
        if record is None or record.deleted_at is not None:
            return ()
        return tuple(one.address for one in dial_order(record.addresses, self._clock()))

    def find(self, selection: Selection, limit: int, chance: random.Random) -> Sequence[PeerId]:
        """At most `limit` of those peers that fit, have a known address, and are neither banned nor removed. In a
        random choice, whoever was heard of within the last second is a little likelier than others."""
        pending = {peer_id for peer_id, _ in self._pending}
        banned = {peer_id for peer_id, ban in self._bans.items() if ban is not None}
        filter_ = PeerFilter(
            features=selection.features,
            protocol=selection.protocol,
            has_address=True,
            exclude=selection.exclude | pending | banned,
        )
        if selection.near is None:
            records = self._store.random(limit, filter_, chance)
        else:
            records = self._store.closest(selection.near, limit, filter_)
        found = [record.peer_id for record in records]
        for peer_id in pending - selection.exclude - banned:
            record = self._record(peer_id)
            if record is None or record.deleted_at is not None or self.ban_of(peer_id) is not None:
                continue
            has_features = record.features & selection.features == selection.features
            if has_features and filter_.matches(record):
                found.append(peer_id)
        return selection.choose(found, limit, chance)

    def add(self, peer_id: PeerId, addresses: Sequence[Multiaddr]) -> None:
        """Tell where a peer may be dialled, beside what is known already. It is no more removed, if it was.

        Raises:
            ValueError: an address is too long.
        """
        now = self._clock()
        told = [KnownAddress(address, Source.CONFIG) for address in addresses[:ADDRESSES_MAX]]

        def adding(old: PeerRecord | None) -> PeerRecord:
            return replace(old or PeerRecord(peer_id, now), deleted_at=None).with_addresses(told, now)

        self._later(peer_id, adding)

    def learn(self, claim: PeerClaim) -> None:
        """Keep what a peer that is connected signed about itself, which was verified, unless a later claim is there."""
        now = self._clock()
        self._claimed.pop(claim.peer_id, None)
        self._claimed[claim.peer_id] = claim  # at the end: of two peers that showed one key the last one has it
        new = PeerRecord.of_key(claim.public_key, now)
        self._later(claim.peer_id, lambda old: (old or new).with_claim(claim, now).seen(now))

    def dial_succeeded(self, peer_id: PeerId, address: Multiaddr, latency_s: float) -> None:
        """The peer was reached there, after `latency_s`. Of a peer that was forgotten meanwhile nothing is kept."""
        now = self._clock()
        self._later(peer_id, lambda old: None if old is None else old.reached(address, now, latency_s))

    def dial_failed(self, peer_id: PeerId, address: Multiaddr, cause: str) -> None:
        """The peer was not reached there."""
        now = self._clock()
        self._later(peer_id, lambda old: None if old is None else old.not_reached(address, now, cause))

    def ban_of(self, peer_id: PeerId) -> Ban | None:
        """The ban that holds now, whoever made it: also a person at a terminal, a moment ago."""
        if peer_id not in self._bans:
            return self._store.ban_of(peer_id)
        ban = self._bans[peer_id]
        return ban if ban is not None and ban.until > self._clock() else None

    def ban(self, peer_id: PeerId, ban: Ban) -> None:
        """Ban a peer, which need not be known otherwise; a longer ban that holds already stays.

        Raises:
            ValueError: `until` is no time.
        """
        if not ban.until >= 0:
            raise ValueError(f"a ban until {ban.until}")
        held = self.ban_of(peer_id)
        if held is None or held.until < ban.until:
            self._put_ban(peer_id, ban)

    def unban(self, peer_id: PeerId) -> bool:
        """Whether there was a ban."""
        held = self.ban_of(peer_id) is not None
        self._put_ban(peer_id, None)
        return held

    # Writing behind.

    async def flush(self) -> None:
        """Write everything that was told before.

        Raises:
            PeerStoreError: it could not be written; it is tried again later.
        """
        await self._write_pending()

    async def aclose(self) -> None:
        """Write what waits, once.

        Raises:
            PeerStoreError: it could not be written, and is lost.
        """
        if self._timer is not None:
            self._timer.cancel()
        if self._flushing is not None:
            await asyncio.wait([self._flushing])
        try:
            await self.flush()
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _record(self, peer_id: PeerId) -> PeerRecord | None:
        record = self._store.get(peer_id)
        for other, change in self._pending:
            if other == peer_id:
                record = change(record) or record
        return record

    def _later(self, peer_id: PeerId, change: Change) -> None:
        self._pending.append((peer_id, change))
        if len(self._pending) > PENDING_MAX:
            self._pending.popleft()
            self.dropped += 1
        self._schedule(FLUSH_AFTER_S)

    def _put_ban(self, peer_id: PeerId, ban: Ban | None) -> None:
        self._bans.pop(peer_id, None)
        self._bans[peer_id] = ban
        if len(self._bans) > PENDING_MAX:
            del self._bans[next(iter(self._bans))]
            self.dropped += 1
        if self._timer is not None and not self._is_waiting_for_disk:
            self._timer.cancel()
            self._timer = None
        self._schedule(0)

    def _schedule(self, after_s: float) -> None:
        if self._timer is None and self._flushing is None:
            self._timer = asyncio.get_running_loop().call_later(after_s, self._begin_flush)

    def _begin_flush(self) -> None:
        self._timer = None
        self._flushing = asyncio.get_running_loop().create_task(self._flush_in_turn())

    async def _flush_in_turn(self) -> None:
        try:
            await self._write_pending()
            self._is_waiting_for_disk = False
        except PeerStoreError as error:
            _logger.warning("what was learnt about peers is not written yet: %s", error)
            self._is_waiting_for_disk = True
        finally:
            self._flushing = None
        if self._is_waiting_for_disk:
            self._schedule(FLUSH_AGAIN_S)
        elif self._pending or self._bans:
            self._schedule(0 if self._bans else FLUSH_AFTER_S)

    async def _write_pending(self) -> None:
        async with self._turn:
            batch, bans = list(self._pending), dict(self._bans)
            if not batch and not bans:
                return
            await asyncio.to_thread(self._store.apply, batch, list(bans.items()))
            written = set(map(id, batch))
            self._pending = deque(one for one in self._pending if id(one) not in written)
            waiting = {peer_id for peer_id, _ in self._pending}
            self._claimed = {peer_id: claim for peer_id, claim in self._claimed.items() if peer_id in waiting}
            self._bans = {
                peer_id: ban for peer_id, ban in self._bans.items() if peer_id not in bans or ban is not bans[peer_id]
            }

    def _decode(self, encoded: bytes) -> PeerClaim | None:
        try:
            return PeerClaim.decode_untrusted(encoded, self._clock(), is_local=True)
        except LinkProtocolError as error:
            _logger.warning("a claim in the peer store is none: %s", error)
            return None
