"""The address book in memory: which address is the best, what is kept, what is forgotten."""

from __future__ import annotations

import math

from partywire.engine.multiaddr import Multiaddr
from partywire.engine.peers.address_book import MemoryAddressBook
from partywire.engine.peers.contract import Ban
from partywire.engine.peers.identity import NodeIdentity
from partywire.engine.peers.peer_id import PeerId
from tests.peers.claim_making import ALICE, claim_of

A, B, C = (Multiaddr.parse(f"/ip4/10.0.0.{number}/tcp/7101") for number in (1, 2, 3))
PEER = ALICE.peer_id


def test_what_served_last_is_tried_first_and_what_failed_most_is_last() -> None:
    book = MemoryAddressBook()
    book.add(PEER, [A, B, C])
    assert book.addresses_of(PEER) == [A, B, C]
    book.dial_failed(PEER, A, "refused")
    assert book.addresses_of(PEER) == [B, C, A]
    book.dial_succeeded(PEER, C, 0.2)
    assert book.addresses_of(PEER) == [C, B, A]
    book.dial_succeeded(PEER, B, 0.1)
    assert book.addresses_of(PEER) == [B, C, A]
    book.dial_failed(PEER, B, "refused")
    book.dial_failed(PEER, B, "refused")
    assert book.addresses_of(PEER) == [C, A, B]
    book.dial_succeeded(PEER, A, 0.1)
    assert book.addresses_of(PEER)[0] == A


def test_what_happens_at_an_address_or_to_a_peer_that_is_not_known_is_no_error() -> None:
    book = MemoryAddressBook()
    book.dial_failed(PEER, A, "refused")
    book.dial_succeeded(PEER, A, 0.1)
    assert book.addresses_of(PEER) == ()
    assert book.claim_of(PEER) is None
    assert book.ban_of(PEER) is None
    assert not book.unban(PEER)


def test_a_later_claim_replaces_what_was_claimed_and_not_what_was_told() -> None:
    book = MemoryAddressBook()
    book.add(PEER, [A])
    book.learn(claim_of(addresses=[B], updated_at=5))
    assert set(book.addresses_of(PEER)) == {A, B}
    later = claim_of(addresses=[C], updated_at=6)
    book.learn(later)
    assert set(book.addresses_of(PEER)) == {A, C}
    book.learn(claim_of(addresses=[B], updated_at=5))
    assert book.claim_of(PEER) == later
    assert set(book.addresses_of(PEER)) == {A, C}
    assert book.peer_of_noise_key(later.noise_key) == PEER


def test_how_an_address_served_is_remembered_through_claims_and_a_claimed_one_is_no_better_for_it() -> None:
    book = MemoryAddressBook()
    book.learn(claim_of(addresses=[A, B], updated_at=5))
    book.dial_failed(PEER, A, "refused")
    book.learn(claim_of(addresses=[A, B], updated_at=6))
    assert book.addresses_of(PEER) == [B, A]


def test_the_peer_heard_of_longest_ago_is_forgotten_and_never_a_banned_one_before_others() -> None:
    book = MemoryAddressBook(peers_max=3)
    banned, oldest, newer, newest = (NodeIdentity.generate() for _ in range(4))
    book.ban(banned.peer_id, Ban("rude", math.inf))
    for identity in (oldest, newer):
        book.learn(claim_of(identity, addresses=[A]))
    book.learn(claim_of(oldest, addresses=[B], updated_at=1 << 31))
    book.learn(claim_of(newest))
    assert book.claim_of(newer.peer_id) is None
    assert book.peer_of_noise_key(newer.noise_key.public.raw) is None
    assert book.claim_of(oldest.peer_id) is not None
    assert book.ban_of(banned.peer_id) is not None
    full = MemoryAddressBook(peers_max=1)
    full.ban(banned.peer_id, Ban("rude", math.inf))
    full.ban(newest.peer_id, Ban("ruder", math.inf))
    assert full.ban_of(banned.peer_id) is None


def test_the_longer_of_two_bans_holds_and_ends_with_its_time() -> None:
    now = [100.0]
    book = MemoryAddressBook(clock=lambda: now[0])
    peer_id = PeerId(bytes(13))
    book.ban(peer_id, Ban("long", 200.0))
    book.ban(peer_id, Ban("short", 150.0))
    assert book.ban_of(peer_id) == Ban("long", 200.0)
    now[0] = 200.0
    assert book.ban_of(peer_id) is None
    assert not book.unban(peer_id)
    book.ban(peer_id, Ban("for good", math.inf))
    assert book.unban(peer_id)
    assert book.ban_of(peer_id) is None
