"""Records: merging, claims, bounds; and their bytes."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings

from partywire.engine.peer_store.codec import (
    NEVER,
    REASON_SIZE_MAX,
    RECORD_SIZE_MAX,
    decode_ban_untrusted,
    decode_head_untrusted,
    decode_record_untrusted,
    encode_ban,
    encode_record,
)
from partywire.engine.peer_store.errors import PeerRecordInvalid
from partywire.engine.peer_store.known_address import ADDRESSES_MAX, KnownAddress, Source
from partywire.engine.peer_store.record import (
    CLAIM_SIZE_MAX,
    METADATA_MAX,
    METADATA_SIZE_MAX,
    NAME_KEY,
    PROTOCOL_SIZE_MAX,
    PROTOCOLS_MAX,
    USER_AGENT_SIZE_MAX,
    PeerRecord,
    merged_records,
)
from partywire.engine.peers.claims import PeerClaim, sign_claim
from partywire.engine.peers.contract import Ban
from tests.peer_store.peers import ADDRESSES, NOW, key, known, peer_id, record, records

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def claim(updated_at: int, *hosts: int, agent: str = "") -> PeerClaim:
    addresses = tuple(ADDRESSES[host] for host in hosts)
    return sign_claim(
        PRIVATE, key(1), updated_at=updated_at, addresses=addresses, user_agent=agent, protocols=("/a/1",)
    )


same_peer = records(1)


@settings(max_examples=40)
@given(same_peer, same_peer)
def test_which_of_two_records_comes_first_matters_for_metadata_only(first: PeerRecord, second: PeerRecord) -> None:
    one, other = merged_records(first, second, NOW), merged_records(second, first, NOW)
    assert replace(one, metadata=()) == replace(other, metadata=())
    assert dict(one.metadata).keys() == dict(other.metadata).keys()
    assert dict(one.metadata).items() >= dict(second.metadata).items()


@settings(max_examples=40)
@given(same_peer, same_peer)
def test_merging_a_record_again_changes_nothing(first: PeerRecord, second: PeerRecord) -> None:
    merged = merged_records(first, second, NOW)
    assert merged_records(merged, second, NOW) == merged
    assert merged_records(merged, merged, NOW) == merged
    assert merged_records(first, merged, NOW) == merged


def test_a_merge_takes_the_earlier_addition_the_later_sight_and_the_later_claim() -> None:
    old = record(1, added_at=NOW, seen_at=NOW + 9, claimed_at=7, user_agent="old", protocols=("/a/1",), features=3)
    new = record(1, added_at=NOW + 5, seen_at=NOW + 5, claimed_at=8, user_agent="new")
    merged = merged_records(old, new, NOW)
    assert (merged.added_at, merged.seen_at) == (NOW, NOW + 9)
    assert (merged.user_agent, merged.protocols, merged.features) == ("new", (), 0)


def test_a_removed_peer_comes_back_when_it_is_added_again() -> None:
    removed = record(1, deleted_at=NOW, addresses=(known(1).failed(NOW, "refused"),))
    assert merged_records(removed, record(1), NOW).deleted_at is None
    assert merged_records(removed, record(1), NOW).addresses == removed.addresses
    assert merged_records(removed, replace(removed, deleted_at=NOW + 1), NOW).deleted_at == NOW + 1


def test_records_of_two_peers_are_not_merged() -> None:
    with pytest.raises(ValueError, match="two peers"):
        merged_records(record(1), record(2), NOW)


def test_metadata_stays_within_its_bound_in_a_merge() -> None:
    old = record(1, metadata=tuple((number, b"old") for number in range(METADATA_MAX)))
    new = record(1, metadata=tuple((number, b"new") for number in range(10, 10 + METADATA_MAX)))
    merged = merged_records(old, new, NOW)
    assert merged.metadata == new.metadata
    few = merged_records(old, record(1, metadata=((200, b"new"),)), NOW)
    assert few.metadata == (*old.metadata[:-1], (200, b"new"))


def test_a_later_claim_takes_the_place_of_the_addresses_that_were_claimed_before() -> None:
    public = PRIVATE.public_key().public_bytes_raw()
    one = PeerRecord.of_key(public, NOW).with_addresses([KnownAddress(ADDRESSES[9], Source.CONFIG)], NOW)
    one = one.with_claim(claim(5, 1, 2, agent="five"), NOW).reached(ADDRESSES[2], NOW, 0.1)
    later = one.with_claim(claim(6, 2, 3, agent="six"), NOW)
    assert [known.address for known in later.addresses] == [ADDRESSES[2], ADDRESSES[9], ADDRESSES[3]]
    assert later.addresses[0].samples == 1
    assert (later.user_agent, later.claimed_at, later.protocols) == ("six", 6, ("/a/1",))
    assert later.with_claim(claim(5, 1), NOW) == later
    assert later.with_claim(claim(6, 2, 3, agent="six"), NOW) == later
    assert PeerClaim.decode_untrusted(later.claim, NOW) == claim(6, 2, 3, agent="six")


def test_a_claim_brings_a_removed_peer_back() -> None:
    one = PeerRecord.of_key(PRIVATE.public_key().public_bytes_raw(), NOW).with_claim(claim(5), NOW)
    assert replace(one, deleted_at=NOW).with_claim(claim(4), NOW) == one


def test_dials_at_addresses_that_are_not_known_any_more_are_not_learnt() -> None:
    one = record(1, addresses=(known(1),))
    assert one.reached(ADDRESSES[2], NOW, 0.1) == replace(one, seen_at=NOW)
    assert one.not_reached(ADDRESSES[2], NOW, "refused") == one


def test_a_name_is_what_a_person_said_and_safe_to_print() -> None:
    one = record(1).with_metadata(NAME_KEY, "bö\x1bb".encode()).with_metadata(40, b"x")
    assert one.name == "bö b"
    assert one.is_kept
    assert not one.with_metadata(NAME_KEY, b"").is_kept
    assert record(1, addresses=(known(1, Source.CONFIG),)).is_kept
    assert record(1).name == ""


def test_every_bound_of_a_record_is_checked_at_both_ends() -> None:
    addresses = tuple(known(host) for host in range(ADDRESSES_MAX))
    for fine, beyond in (
        ({"addresses": addresses}, {"addresses": (*addresses, known(ADDRESSES_MAX))}),
        ({"features": 2**32 - 1}, {"features": 2**32}),
        ({"claimed_at": 2**64 - 1}, {"claimed_at": 2**64}),
        ({"protocols": ("/x",) * PROTOCOLS_MAX}, {"protocols": ("/x",) * (PROTOCOLS_MAX + 1)}),
        ({"protocols": ("x" * PROTOCOL_SIZE_MAX,)}, {"protocols": ("x" * (PROTOCOL_SIZE_MAX + 1),)}),
        ({"protocols": ("x",)}, {"protocols": ("",)}),
        ({"user_agent": "x" * USER_AGENT_SIZE_MAX}, {"user_agent": "x" * (USER_AGENT_SIZE_MAX + 1)}),
        ({"claim": bytes(CLAIM_SIZE_MAX)}, {"claim": bytes(CLAIM_SIZE_MAX + 1)}),
        ({"metadata": ((0, bytes(METADATA_SIZE_MAX)),)}, {"metadata": ((0, bytes(METADATA_SIZE_MAX + 1)),)}),
        ({"metadata": ((255, b""),)}, {"metadata": ((256, b""),)}),
        ({"metadata": ((1, b""), (2, b""))}, {"metadata": ((2, b""), (1, b""))}),
        ({"noise_key": bytes(32)}, {"noise_key": bytes(31)}),
        ({"public_key": key(1)}, {"public_key": key(2)}),
        ({"seen_at": NOW}, {"seen_at": float("nan")}),
        ({"addresses": (known(1, last_seen=NOW),), "seen_at": NOW}, {"addresses": (known(1, last_seen=NOW),)}),
        ({"addresses": (known(1),)}, {"addresses": (known(1), known(1))}),
    ):
        made = record(1, **fine)
        assert decode_record_untrusted(made.peer_id.raw, encode_record(made)) == made
        with pytest.raises(ValueError):
            record(1, **beyond)


# Bytes.


@settings(max_examples=60)
@given(records())
def test_a_record_reads_back(one: PeerRecord) -> None:
    encoded = encode_record(one)
    assert decode_record_untrusted(one.peer_id.raw, encoded) == one
    head = decode_head_untrusted(one.peer_id.raw, encoded)
    times = [NEVER if time is None else time for time in (one.seen_at, one.deleted_at)]
    assert head == (one.peer_id.raw, one.features, one.added_at, *times, one.is_kept)


def test_the_largest_record_is_below_the_bound() -> None:
    largest = record(
        1,
        addresses=tuple(known(host, last_failure="x" * 200) for host in range(ADDRESSES_MAX)),
        protocols=tuple("x" * PROTOCOL_SIZE_MAX for _ in range(PROTOCOLS_MAX)),
        user_agent="x" * USER_AGENT_SIZE_MAX,
        claim=bytes(CLAIM_SIZE_MAX),
        metadata=tuple((number, bytes(METADATA_SIZE_MAX)) for number in range(METADATA_MAX)),
    )
    assert 30 * 1024 < len(encode_record(largest)) + ADDRESSES_MAX * 320 < RECORD_SIZE_MAX


def test_a_record_that_was_changed_cut_or_moved_is_none() -> None:
    one = record(1, addresses=(known(1).succeeded(NOW, 0.1),), seen_at=NOW, metadata=((1, b"x"),))
    encoded = encode_record(one)
    broken = [encoded[:size] for size in range(len(encoded))] + [encoded + b"\0", b"x" * (RECORD_SIZE_MAX + 1)]
    broken += [encoded[:at] + bytes((encoded[at] ^ 1,)) + encoded[at + 1 :] for at in range(len(encoded))]
    for data in broken:
        with pytest.raises(PeerRecordInvalid):
            decode_record_untrusted(one.peer_id.raw, data)
        with pytest.raises(PeerRecordInvalid):
            decode_head_untrusted(one.peer_id.raw, data)
    with pytest.raises(PeerRecordInvalid, match="another peer"):
        decode_record_untrusted(peer_id(2).raw, encoded)


def test_a_right_checksum_makes_no_record() -> None:
    one = record(1, addresses=(known(1),), protocols=("/a/1",), metadata=((1, b"x"),))
    body = encode_record(one)[4:]
    accepted = 0
    for at in range(len(body)):
        for value in (0, 0x7F, 0x80, 0xFF):
            changed = body[:at] + bytes((value,)) + body[at + 1 :]
            data = struct.pack("<I", zlib.crc32(changed)) + changed
            try:
                read = decode_record_untrusted(one.peer_id.raw, data)
            except PeerRecordInvalid:
                continue
            assert encode_record(read) == data
            accepted += changed != body
    assert accepted, "other numbers in a record are other records"


@pytest.mark.parametrize("until", [0.0, NOW, float("inf")])
def test_a_ban_reads_back_with_its_reason_cut(until: float) -> None:
    one = peer_id(1)
    ban = decode_ban_untrusted(one.raw, encode_ban(one, Ban("sends\nrubbish " + "é" * 600, until)))
    assert ban.until == until
    assert ban.reason.startswith("sends rubbish é")
    assert len(ban.reason.encode()) <= REASON_SIZE_MAX
    assert decode_ban_untrusted(one.raw, encode_ban(one, ban)) == ban


def test_a_ban_that_was_changed_is_none() -> None:
    one = peer_id(1)
    encoded = encode_ban(one, Ban("why", NOW))
    for at in range(len(encoded)):
        with pytest.raises(PeerRecordInvalid):
            decode_ban_untrusted(one.raw, encoded[:at])
        with pytest.raises(PeerRecordInvalid):
            decode_ban_untrusted(one.raw, encoded[:at] + bytes((encoded[at] ^ 1,)) + encoded[at + 1 :])
    with pytest.raises(PeerRecordInvalid):
        decode_ban_untrusted(peer_id(2).raw, encoded)
    for body in (encoded[4:-1] + b"\x1b", encoded[4:-1] + b"\xff", encoded[4:18] + struct.pack("<dH", -1, 0)):
        with pytest.raises(PeerRecordInvalid):
            decode_ban_untrusted(one.raw, struct.pack("<I", zlib.crc32(body)) + body)
