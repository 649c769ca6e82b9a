"""The address book of a node on a store: what is known at once, what is written when, and nodes that find each other
again."""

from __future__ import annotations

import asyncio
import math
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from partywire.engine.multiaddr import Multiaddr
from partywire.engine.peer_store import address_book
from partywire.engine.peer_store.address_book import StoredAddressBook
from partywire.engine.peer_store.errors import PeerStoreFailed
from partywire.engine.peer_store.store import PeerStore
from partywire.engine.peers.connections import PeerConnections
from partywire.engine.peers.contract import Ban
from partywire.engine.peers.errors import PeerIsBanned
from partywire.engine.peers.identity import NodeIdentity
from partywire.engine.peers.selection import Selection
from tests.peer_store.peers import ADDRESSES, NOW, peer_id, record
from tests.peers.peer_net import MEMORY, PeerNet, options_of, scenario, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from partywire.engine.peer_store.transactions import Change
    from partywire.engine.peers.claims import PeerClaim
    from partywire.engine.peers.peer_id import PeerId

ALICE = NodeIdentity.generate()


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[StoredAddressBook]:
    with PeerStore(path, clock=lambda: NOW) as store:
        book = StoredAddressBook(store, clock=lambda: NOW)
        try:
            yield book
        finally:
            await book.aclose()


def run(path: Path, test: Callable[[StoredAddressBook], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20), opened(path) as book:
            await test(book)

    asyncio.run(main())


def claim(updated_at: int, *hosts: int) -> PeerClaim:
    return ALICE.sign(updated_at=updated_at, addresses=tuple(ADDRESSES[host] for host in hosts))


def test_peers_are_found_whether_they_are_written_or_not(tmp_path: Path) -> None:
    """Those that wait to be written are changed, new, removed or banned since."""
    chance = random.Random(1)
    bob = NodeIdentity.generate().sign(updated_at=1, features=0b11, protocols=["/app/1"], addresses=ADDRESSES[:1])
    claimed = ALICE.sign(updated_at=1, features=0b01, addresses=ADDRESSES[:1])
    known = [peer_id(number) for number in range(6)]

    async def look(book: StoredAddressBook) -> None:
        def found(limit: int = 100, **wanted: Any) -> list[PeerId]:
            return list(book.find(Selection(**wanted), limit, chance))

        for number in range(6):
            book.add(peer_id(number), ADDRESSES[:1])
        book.add(peer_id(6), [])  # nowhere to be dialled
        book.learn(claimed)
        for _ in range(2):
            everybody = [*known, claimed.peer_id]
            assert sorted(found()) == sorted(everybody)
            assert len(set(found(3))) == 3
            assert found(near=known[2], limit=3) == sorted(everybody, key=known[2].distance)[:3]
            assert found(features=1) == [claimed.peer_id]
            await book.flush()
        book.learn(bob)
        book.ban(known[0], Ban("no reason", NOW + 60))
        assert sorted(found()) == sorted([*known[1:], claimed.peer_id, bob.peer_id])
        assert found(protocol="/app/1") == found(features=0b10) == [bob.peer_id]
        assert bob.peer_id not in found(exclude=frozenset({bob.peer_id}))
        await book.flush()
        assert sorted(found()) == sorted([*known[1:], claimed.peer_id, bob.peer_id])
        book.unban(known[0])
        await book.flush()
        assert known[0] in found()

    run(tmp_path, look)


def test_what_was_told_is_known_at_once_and_after_opening_again(tmp_path: Path) -> None:
    async def tell(book: StoredAddressBook) -> None:
        book.learn(claim(5, 1, 2))
        book.dial_failed(ALICE.peer_id, ADDRESSES[1], "refused")
        book.dial_succeeded(ALICE.peer_id, ADDRESSES[2], 0.1)
        book.add(ALICE.peer_id, [ADDRESSES[3]])
        await check(book)
        await book.flush()
        await check(book)

    async def check(book: StoredAddressBook) -> None:
        assert book.addresses_of(ALICE.peer_id) == (ADDRESSES[2], ADDRESSES[3], ADDRESSES[1])
        assert book.claim_of(ALICE.peer_id) == claim(5, 1, 2)
        assert book.peer_of_noise_key(claim(5, 1, 2).noise_key) == ALICE.peer_id

    run(tmp_path, tell)
    run(tmp_path, check)


def test_an_older_claim_changes_nothing(tmp_path: Path) -> None:
    async def learn(book: StoredAddressBook) -> None:
        book.learn(claim(6, 1))
        book.learn(claim(5, 2))
        assert book.claim_of(ALICE.peer_id) == claim(6, 1)
        await book.flush()
        book.learn(claim(5, 2))
        assert book.addresses_of(ALICE.peer_id) == (ADDRESSES[1],)

    run(tmp_path, learn)


def test_of_strangers_nothing_is_known_and_dialling_them_keeps_nothing(tmp_path: Path) -> None:
    async def dial(book: StoredAddressBook) -> None:
        book.dial_failed(peer_id(1), ADDRESSES[1], "refused")
        book.dial_succeeded(peer_id(1), ADDRESSES[1], 0.1)
        await book.flush()
        assert book.addresses_of(peer_id(1)) == ()
        assert book.claim_of(peer_id(1)) is None
        assert book.peer_of_noise_key(bytes(32)) is None
        assert book.ban_of(peer_id(1)) is None

    run(tmp_path, dial)


def test_a_removed_peer_is_dialled_no_more(tmp_path: Path) -> None:
    with PeerStore(tmp_path) as store:
        store.add(record(1).with_addresses([], NOW))
        store.remove(peer_id(1))

    async def look(book: StoredAddressBook) -> None:
        assert book.addresses_of(peer_id(1)) == ()
        book.add(peer_id(1), [ADDRESSES[1]])
        assert book.addresses_of(peer_id(1)) == (ADDRESSES[1],)

    run(tmp_path, look)


def test_a_ban_holds_at_once_and_is_soon_on_the_disk(tmp_path: Path) -> None:
    async def ban(book: StoredAddressBook) -> None:
        store = book._store
        book.add(peer_id(9), [ADDRESSES[1]])  # whose writing may wait, but then does not
        book.ban(peer_id(1), Ban("why", NOW + 10))
        book.ban(peer_id(1), Ban("shorter", NOW + 5))
        assert book.ban_of(peer_id(1)) == Ban("why", NOW + 10)
        await until(lambda: store.ban_of(peer_id(1)) == book.ban_of(peer_id(1)) == Ban("why", NOW + 10))
        assert store.get(peer_id(9)) is not None
        book.ban(peer_id(1), Ban("shorter", NOW + 5))
        assert book.ban_of(peer_id(1)) == Ban("why", NOW + 10)
        assert book.unban(peer_id(1))
        assert not book.unban(peer_id(1))
        assert book.ban_of(peer_id(1)) is None
        book.ban(peer_id(2), Ban("over", NOW))
        assert book.ban_of(peer_id(2)) is None
        await book.flush()
        assert store.bans() == {}
        for wrong in (-1.0, math.nan):
            with pytest.raises(ValueError, match="until"):
                book.ban(peer_id(1), Ban("why", wrong))

    run(tmp_path, ban)


def test_bans_that_wait_are_bounded_and_one_too_many_in_a_full_store_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(address_book, "PENDING_MAX", 3)

    async def ban(book: StoredAddressBook) -> None:
        book._store._bans_max = 2
        for number in range(4):
            book.ban(peer_id(number), Ban("why", NOW + 9 - number))
        assert book.dropped == 1
        await book.flush()
        assert book._store.bans().keys() == {peer_id(1), peer_id(2)}
        assert f"peer {peer_id(3)} is not banned" in caplog.text

    run(tmp_path, ban)


def test_a_bad_address_is_refused_where_it_is_told(tmp_path: Path) -> None:
    async def add(book: StoredAddressBook) -> None:
        with pytest.raises(ValueError, match="bytes"):
            book.add(peer_id(1), [Multiaddr([("dns4", "a" * 60)] * 6)])

    run(tmp_path, add)


def test_news_are_written_together_behind_the_caller_and_again_when_the_disk_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(address_book, "FLUSH_AFTER_S", 0.01)
    monkeypatch.setattr(address_book, "FLUSH_AGAIN_S", 0.01)
    monkeypatch.setattr(address_book, "PENDING_MAX", 5)
    batches: list[int] = []
    done = asyncio.Event()

    async def tell(book: StoredAddressBook) -> None:
        apply = book._store.apply

        def counting(changes: list[tuple[PeerId, Change]], bans: list[tuple[PeerId, Ban | None]]) -> None:
            batches.append(len(changes))
            if len(batches) == 1:
                raise PeerStoreFailed("somewhere", "no room")
            apply(changes, bans)
            loop.call_soon_threadsafe(done.set)

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(book._store, "apply", counting)
        for number in range(7):
            book.add(peer_id(number), [ADDRESSES[1]])
        await done.wait()
        assert book.dropped == 2
        assert batches == [5, 5]
        assert book._store.count() == 5
        assert "not written yet" in caplog.text

    run(tmp_path, tell)


@scenario
async def test_a_node_that_is_started_again_finds_its_peers_and_keeps_its_bans(net: PeerNet, tmp_path: Path) -> None:
    bob = await net.node("bob")
    bob.serve_echo()
    for start in ("first", "again"):
        with PeerStore(tmp_path) as store:
            book = StoredAddressBook(store)
            if start == "first":
                book.add(bob.peers.peer_id, bob.addresses)
            async with PeerConnections(ALICE, net.router, book, options_of()) as alice:
                await alice.listen(Multiaddr.parse(MEMORY))
                if start == "again":
                    assert book.claim_of(bob.peers.peer_id) == bob.peers.claim
                await alice.connect(bob.peers.peer_id)
                if start == "again":
                    await alice.ban(bob.peers.peer_id, "enough", math.inf)
            await book.aclose()
            known = store.get(bob.peers.peer_id)
            assert known is not None
            assert known.seen_at is not None
            assert known.public_key == bob.identity.public_key
            assert [(one.address, one.attempts, one.failures) for one in known.addresses] == [
                (bob.addresses[0], 1 if start == "first" else 2, 0)
            ]
    with PeerStore(tmp_path) as store:
        book = StoredAddressBook(store)
        async with PeerConnections(ALICE, net.router, book, options_of()) as alice:
            with pytest.raises(PeerIsBanned, match="enough"):
                await alice.connect(bob.peers.peer_id)
        await book.aclose()
