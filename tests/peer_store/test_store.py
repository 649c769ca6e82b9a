"""A store on a disk: what it finds, what it keeps, its bounds, and what it does with what cannot be read."""

from __future__ import annotations

import logging
import math
import random
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from partywire.engine.peer_store.environment import MAP_SIZE_MIN
from partywire.engine.peer_store.errors import PeerStoreFull
from partywire.engine.peer_store.known_address import Source
from partywire.engine.peer_store.query import Order, PeerFilter, rings_around
from partywire.engine.peer_store.record import NAME_KEY, PeerRecord
from partywire.engine.peer_store.store import FORGET_AFTER_S, PeerStore
from partywire.engine.peers.contract import Ban
from partywire.engine.peers.peer_id import PEER_ID_SIZE, PeerId
from tests.peer_store.peers import ADDRESSES, NOW, ids, key, known, peer_id, record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[PeerStore]:
    with PeerStore(tmp_path / "store", clock=clock) as opened:
        yield opened


def spoil(store: PeerStore, database: str, raw: bytes, change: bytes | None = None) -> None:
    """Change the last byte that is stored under a key, or all."""

    def spoiling(transaction: Any) -> None:
        data = transaction.get(raw, db=store._environment.databases[database]) or b"x"
        spoiled = data[:-1] + bytes((data[-1] ^ 1,)) if change is None else change
        transaction.put(raw, spoiled, db=store._environment.databases[database])

    store._environment.write(spoiling)


# Looking up.


def test_a_peer_is_found_by_its_id_its_keys_and_the_beginning_of_its_id(store: PeerStore) -> None:
    one, two = record(1, noise_key=key(101)), record(2, noise_key=key(102))
    store.add(one, two)
    assert store.get(one.peer_id) == one
    assert store.get_by_key(key(2)) == two
    assert store.peer_of_noise_key(key(101)) == one.peer_id
    for digits in (0, 1, 4, 7, 26):
        prefix = str(one.peer_id)[:digits].upper()
        expected = {peer for peer in (one, two) if str(peer.peer_id).startswith(prefix.lower())}
        assert set(store.find(prefix)) == expected
    assert store.get(peer_id(3)) is None
    assert store.peer_of_noise_key(key(103)) is None
    assert store.peer_of_noise_key(b"") is None
    for wrong in ("xyz", "0" * 27):
        with pytest.raises(ValueError, match="hexadecimal"):
            store.find(wrong)


def test_what_was_added_is_there_after_opening_again(tmp_path: Path) -> None:
    with PeerStore(tmp_path / "deep" / "store") as store:
        store.add(*(record(number) for number in range(50)))
        store.ban(peer_id(7), Ban("why", math.inf))
    with PeerStore(tmp_path / "deep" / "store", "read") as store:
        assert store.count(PeerFilter(is_banned=None)) == 50
        assert store.count() == 49
        assert store.bans() == {peer_id(7): Ban("why", math.inf)}


def test_a_peer_that_is_added_again_is_merged(store: PeerStore) -> None:
    served = record(1, addresses=(known(1).succeeded(NOW, 0.1),), seen_at=NOW)
    store.add(served)
    store.add(record(1, added_at=NOW + 5, addresses=(known(2),)))
    merged = store.get(peer_id(1))
    assert merged is not None
    assert [one.address for one in merged.addresses] == [ADDRESSES[1], ADDRESSES[2]]
    assert (merged.added_at, merged.seen_at) == (NOW, NOW)


def test_another_key_of_noise_takes_the_place_of_the_former(store: PeerStore) -> None:
    store.add(record(1, noise_key=key(101), claimed_at=1))
    store.add(record(1, noise_key=key(102), claimed_at=2))
    assert store.peer_of_noise_key(key(101)) is None
    assert store.peer_of_noise_key(key(102)) == peer_id(1)
    store.add(record(2, noise_key=key(102), claimed_at=3))
    assert store.peer_of_noise_key(key(102)) == peer_id(2)
    store.remove(peer_id(1), forget=True)
    assert store.peer_of_noise_key(key(102)) == peer_id(2)


def test_peers_that_were_never_seen_come_last(store: PeerStore) -> None:
    store.add(
        record(1), record(2, seen_at=NOW - 5, added_at=NOW - 5), record(3, seen_at=NOW), record(4, added_at=NOW + 1)
    )
    assert ids(store.select(order=Order.SEEN)) == [peer_id(3), peer_id(2), *sorted([peer_id(1), peer_id(4)])]
    assert ids(store.select(order=Order.ADDED, limit=1)) == [peer_id(4)]
    assert ids(store.select()) == sorted(peer_id(number) for number in range(1, 5))
    assert ids(store.select(PeerFilter(seen_since=NOW - 5), Order.SEEN)) == [peer_id(3), peer_id(2)]
    assert ids(store.select(PeerFilter(seen_since=NOW - 4))) == [peer_id(3)]


def test_everything_that_a_filter_says_has_to_hold(store: PeerStore) -> None:
    store.add(
        record(1, features=3, protocols=("/a/1", "/b/1")),
        record(2, features=1, addresses=(known(1),)),
        record(3, features=2, deleted_at=NOW),
        record(4, features=3),
    )
    store.ban(peer_id(4), Ban("why", NOW + 1))
    for filter_, expected in (
        (PeerFilter(), {1, 2}),
        (PeerFilter(features=1), {1, 2}),
        (PeerFilter(features=3), {1}),
        (PeerFilter(features=3, is_banned=None), {1, 4}),
        (PeerFilter(is_banned=True), {4}),
        (PeerFilter(is_deleted=True), {3}),
        (PeerFilter(is_deleted=None, is_banned=None), {1, 2, 3, 4}),
        (PeerFilter(protocol="/b/1"), {1}),
        (PeerFilter(has_address=True), {2}),
        (PeerFilter(exclude=frozenset({peer_id(1)})), {2}),
        (PeerFilter(where=lambda one: one.features == 1), {2}),
    ):
        wanted = {peer_id(number) for number in expected}
        assert set(ids(store.select(filter_))) == wanted
        assert set(ids(store.closest(peer_id(9), 10, filter_))) == wanted
        assert set(ids(store.random(10, filter_))) == wanted
        assert set(ids(store.find("", filter_))) == wanted
        assert store.count(filter_) == len(wanted)


def test_the_closest_are_those_with_the_least_distance(store: PeerStore) -> None:
    numbers = range(300)
    store.add(*(record(number) for number in numbers))
    everybody = [peer_id(number) for number in numbers]
    for target in [peer_id(number) for number in (0, 1000, 1001)] + [PeerId(bytes(13)), PeerId(b"\xff" * 13)]:
        nearest = sorted(everybody, key=target.distance)
        for limit in (0, 1, 8, 300, 400):
            assert ids(store.closest(target, limit)) == nearest[:limit]


def test_the_closest_of_an_empty_store_are_none(store: PeerStore) -> None:
    assert store.closest(peer_id(1), 5) == []
    assert store.random(5) == store.select() == []


def test_the_rings_around_an_id_are_all_ids_each_once() -> None:
    target = peer_id(1)
    rings = list(rings_around(target))
    sizes = [int.from_bytes(greatest, "big") - int.from_bytes(least, "big") + 1 for least, greatest in rings]
    assert sum(sizes) == 1 << (8 * PEER_ID_SIZE)
    ends = sorted(rings)
    assert all(
        int.from_bytes(before[1], "big") + 1 == int.from_bytes(after[0], "big") for before, after in pairwise(ends)
    )


def test_random_peers_are_each_as_likely(store: PeerStore) -> None:
    store.add(*(record(number) for number in range(8)))
    chance = random.Random(1)
    drawn = [one for _ in range(400) for one in ids(store.random(2, chance=chance))]
    assert all(60 < drawn.count(peer_id(number)) < 140 for number in range(8))
    assert len(set(ids(store.random(8, chance=chance)))) == 8


# Bans.


def test_a_ban_holds_until_its_end_for_peers_known_or_not(store: PeerStore, clock: Clock) -> None:
    assert store.ban(peer_id(1), Ban("why", NOW + 10)) == Ban("why", NOW + 10)
    clock.now = NOW + 9.9
    assert store.ban_of(peer_id(1)) == Ban("why", NOW + 10)
    clock.now = NOW + 10
    assert store.ban_of(peer_id(1)) is None
    assert store.bans() == {}
    assert not store.unban(peer_id(1))


def test_the_longer_ban_stays(store: PeerStore) -> None:
    store.ban(peer_id(1), Ban("long", NOW + 10))
    assert store.ban(peer_id(1), Ban("short", NOW + 5)) == Ban("long", NOW + 10)
    assert store.ban(peer_id(1), Ban("for good", math.inf)) == Ban("for good", math.inf)
    assert store.ban(peer_id(1), Ban("long", NOW + 10)) == Ban("for good", math.inf)
    assert store.unban(peer_id(1))
    assert store.ban_of(peer_id(1)) is None
    for until in (-1.0, math.nan):
        with pytest.raises(ValueError, match="until"):
            store.ban(peer_id(1), Ban("never", until))


def test_bans_make_room_for_those_that_end_later(tmp_path: Path, clock: Clock) -> None:
    with PeerStore(tmp_path, bans_max=3, clock=clock) as store:
        for number in range(3):
            store.ban(peer_id(number), Ban("why", NOW + 1 + number))
        clock.now = NOW + 1
        store.ban(peer_id(3), Ban("in the place of one that has ended", NOW + 9))
        assert store.bans().keys() == {peer_id(1), peer_id(2), peer_id(3)}
        store.ban(peer_id(4), Ban("in the place of the shortest", math.inf))
        assert store.bans().keys() == {peer_id(2), peer_id(3), peer_id(4)}
        with pytest.raises(PeerStoreFull, match="at most 3 bans that end later"):
            store.ban(peer_id(5), Ban("shorter than all", NOW + 2))
        store.ban(peer_id(2), Ban("in its own place", math.inf))


# Removing.


def test_a_removed_peer_is_not_found_but_remembered(store: PeerStore) -> None:
    store.add(record(1, addresses=(known(1).succeeded(NOW, 0.1),), seen_at=NOW))
    assert store.remove(peer_id(1))
    assert not store.remove(peer_id(1))
    assert not store.remove(peer_id(2))
    assert store.select() == store.random(5) == store.closest(peer_id(1), 5) == []
    store.add(record(1))
    assert [one.addresses[0].samples for one in store.select()] == [1]


def test_a_forgotten_peer_is_gone(store: PeerStore) -> None:
    store.add(record(1, noise_key=key(101)))
    assert store.remove(peer_id(1))
    assert store.remove(peer_id(1), forget=True)
    assert store.get(peer_id(1)) is None
    assert store.peer_of_noise_key(key(101)) is None


def test_removed_peers_and_bans_that_ended_are_dropped_when_a_node_opens_its_store(
    tmp_path: Path, clock: Clock
) -> None:
    with PeerStore(tmp_path, clock=clock) as store:
        store.add(record(1), record(2), record(3))
        store.remove(peer_id(1))
        clock.now += 1
        store.remove(peer_id(2))
        store.ban(peer_id(4), Ban("why", NOW + 5))
    clock.now = NOW + FORGET_AFTER_S
    with PeerStore(tmp_path, clock=clock) as store:
        assert set(ids(store.select(PeerFilter(is_deleted=None)))) == {peer_id(2), peer_id(3)}
        with store._reading() as reader:
            assert not list(reader.bans(holding=False))


# Bounds.


def test_peers_that_nobody_misses_make_room(tmp_path: Path, clock: Clock) -> None:
    with PeerStore(tmp_path, peers_max=6, clock=clock) as store:
        store.add(
            record(1, deleted_at=NOW),
            record(2, added_at=NOW - 9),
            record(3, seen_at=NOW - 8),
            record(4, seen_at=NOW - 7),
            record(5, addresses=(known(1, Source.CONFIG),)),
            record(6).with_metadata(NAME_KEY, b"bob"),
        )
        gone = []
        for number in range(10, 14):
            store.add(record(number, seen_at=NOW))
            gone += [old for old in range(1, 7) if store.get(peer_id(old)) is None and old not in gone]
        assert gone == [1, 2, 3, 4]


def test_a_store_full_of_what_a_person_put_there_says_so(tmp_path: Path) -> None:
    with PeerStore(tmp_path, peers_max=2) as store:
        store.add(*(record(number).with_metadata(NAME_KEY, b"bob") for number in range(2)))
        with pytest.raises(PeerStoreFull, match="at most 2 peers"):
            store.add(record(0, seen_at=NOW), record(2))
        assert store.count() == 2
        assert store.select(PeerFilter(seen_since=NOW)) == []
        store.remove(peer_id(0), forget=True)
        store.add(record(2))


def fat(number: int, **fields: Any) -> PeerRecord:
    """25 KiB of record."""
    return record(number, claim=bytes(8192), protocols=tuple("x" * 255 for _ in range(64)), **fields)


def test_the_map_grows_and_stops_at_its_bound(tmp_path: Path) -> None:
    with PeerStore(tmp_path / "grows") as store:
        store.add(*(fat(number) for number in range(400)))
        assert store.count() == 400
        assert (tmp_path / "grows" / "data.mdb").stat().st_size > MAP_SIZE_MIN
    with PeerStore(tmp_path / "full", map_size_max=MAP_SIZE_MIN) as store:
        for start in range(0, 400, 50):
            store.add(*(fat(number, seen_at=NOW + number) for number in range(start, start + 50)))
        assert 100 < store.count() < 350
        assert store.get(peer_id(399)) is not None
        assert store.get(peer_id(0)) is None
    with PeerStore(tmp_path / "stuck", map_size_max=MAP_SIZE_MIN) as store:
        for start in range(0, 200, 50):
            store.add(*(fat(number).with_metadata(NAME_KEY, b"x") for number in range(start, start + 50)))
        with pytest.raises(PeerStoreFull, match="8 MiB"):
            store.add(*(fat(number).with_metadata(NAME_KEY, b"x") for number in range(200, 400)))
        kept = store.count()
        assert kept > 100
        store.ban(peer_id(1), Ban("a ban still fits", math.inf))
        for one in store.select(limit=50):
            store.remove(one.peer_id, forget=True)
        store.add(fat(1000))
        assert store.count(PeerFilter(is_banned=None)) == kept - 50 + 1


def test_an_error_in_the_middle_of_changes_leaves_all_as_it_was(store: PeerStore) -> None:
    def fail(_: PeerRecord | None) -> PeerRecord:
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        store.apply([(peer_id(1), lambda _: record(1)), (peer_id(2), fail)])
    with pytest.raises(ValueError, match="gave a record of"):
        store.apply([(peer_id(1), lambda _: record(1)), (peer_id(2), lambda _: record(3))])
    assert store.select() == []
    store.apply([(peer_id(1), lambda _: None)])
    assert store.select() == []


# What cannot be read.


@pytest.mark.parametrize("change", [None, b"", b"\0" * 10, b"x" * 100_000])
def test_a_record_that_cannot_be_read_is_set_aside_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: bytes | None
) -> None:
    with PeerStore(tmp_path) as store:
        store.add(record(1), record(2, noise_key=key(102)), record(3))
        spoil(store, "peers", peer_id(2).raw, change)
        with caplog.at_level(logging.WARNING):
            assert set(ids(store.select())) == {peer_id(1), peer_id(3)}
        assert [peer_id(2).raw.hex() in one.message for one in caplog.records] == [True]
        assert list(store.quarantined) == [f"peers {peer_id(2).raw.hex()}"]
        assert store.set_aside_count() == 1
        assert store.get(peer_id(2)) is None
        assert store.peer_of_noise_key(key(102)) is None
        store.add(record(2))
    with PeerStore(tmp_path) as store:
        assert store.count() == 3
        assert store.quarantined == {}
        assert store.set_aside_count() == 1


def test_a_reader_leaves_what_it_cannot_read_where_it_is(tmp_path: Path) -> None:
    with PeerStore(tmp_path) as store:
        store.add(record(1), record(2))
        spoil(store, "peers", peer_id(2).raw)
    with PeerStore(tmp_path, "read") as store:
        assert store.closest(peer_id(2), 5) == [store.get(peer_id(1))]
        assert len(store.quarantined) == 1
        assert store.set_aside_count() == 0


def test_a_record_that_cannot_be_read_gives_way_to_a_new_one(store: PeerStore) -> None:
    store.add(record(1))
    spoil(store, "peers", peer_id(1).raw)
    new = record(1, seen_at=NOW)
    store.add(new)
    assert store.get(peer_id(1)) == new
    assert store.set_aside_count() == 1


def test_a_ban_and_a_key_that_cannot_be_read_are_set_aside(store: PeerStore) -> None:
    store.add(record(1))
    store.ban(peer_id(1), Ban("why", math.inf))
    store.ban(peer_id(2), Ban("why", math.inf))
    spoil(store, "bans", peer_id(1).raw)
    spoil(store, "peers", b"short", b"no record")
    spoil(store, "bans", b"long" * 20, b"no ban")
    assert store.bans().keys() == {peer_id(2)}
    assert ids(store.select()) == [peer_id(1)]
    assert store.set_aside_count() == 3


def test_an_entry_of_the_index_that_leads_elsewhere_is_nobody(store: PeerStore) -> None:
    store.add(record(1, noise_key=key(101)))
    spoil(store, "noise_keys", key(102), peer_id(1).raw)
    spoil(store, "noise_keys", key(103), b"x")
    assert store.peer_of_noise_key(key(102)) is None
    assert store.peer_of_noise_key(key(103)) is None


def test_records_are_those_that_were_put(store: PeerStore) -> None:
    one = replace(fat(1), addresses=tuple(known(host) for host in range(10)), user_agent="ü" * 32)
    store.add(one)
    assert store.get(peer_id(1)) == one
