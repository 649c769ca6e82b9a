"""Claims of peers: what is signed is what is read, and nothing else is ever one."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partywire.engine.errors import FrameTooLarge, LinkProtocolError
from partywire.engine.multiaddr import Multiaddr
from partywire.engine.peers.claims import CLAIM_SIZE_MAX, FUTURE_MAX_S, PeerClaim, fault_of_address
from tests.peers.claim_making import ADDRESSES, ALICE, BOB, NOW, ONION, claims, resign

HEAD = struct.pack(">BQI", 1, int(NOW), 0) + ALICE.public_key + ALICE.noise_key.public.raw


def decode(data: bytes, now: float = NOW) -> PeerClaim:
    return PeerClaim.decode_untrusted(data, now, is_local=True, peer="bob")


@given(claims)
@settings(max_examples=40)
def test_a_claim_reads_back_and_says_who_made_it(claim: PeerClaim) -> None:
    read = decode(claim.encode())
    assert read == claim
    assert read.peer_id == ALICE.peer_id
    assert read.noise_key == ALICE.noise_key.public.raw


@given(claims, st.data())
@settings(max_examples=60)
def test_a_claim_with_any_byte_changed_left_out_or_added_is_none(claim: PeerClaim, data: st.DataObject) -> None:
    encoded = claim.encode()
    at = data.draw(st.integers(0, len(encoded) - 1))
    flip = data.draw(st.integers(1, 255))
    for changed in (
        encoded[:at] + bytes((encoded[at] ^ flip,)) + encoded[at + 1 :],
        encoded[:at],
        encoded[:at] + encoded[at + 1 :],
        encoded + b"\0",
    ):
        with pytest.raises(LinkProtocolError):
            decode(changed)


def test_the_key_of_another_peer_cannot_be_claimed() -> None:
    body = ALICE.sign(updated_at=int(NOW)).encode()[:-64]
    with pytest.raises(LinkProtocolError, match="not by the key that is claimed"):
        decode(resign(BOB, body))


def test_a_claim_may_be_from_a_clock_that_is_a_day_ahead_and_no_further() -> None:
    claim = ALICE.sign(updated_at=int(NOW) + FUTURE_MAX_S)
    assert decode(claim.encode()) == claim
    with pytest.raises(LinkProtocolError, match="future"):
        decode(claim.encode(), NOW - 1)


@pytest.mark.parametrize(
    ("rest", "what"),
    [
        (b"\x41" + b"a" * 65 + b"\0\0", "user agent"),
        (b"\x02\xff\xff\0\0", "UTF-8"),
        (b"\x01\n\0\0", "printed"),
        (b"\0\x09" + b"\0\x08\x04\x0a\0\0\1\x06\x1b\xbd" * 9 + b"\0", "addresses of a claim"),
        (b"\0\x01\x01\x41" + bytes(321) + b"\0", "bytes of an address"),
        (b"\0\x01\0\x00\0", "multiaddress"),
        (b"\0\x01\0\x03\x05\0\0\0", "multiaddress"),
        (b"\0\x01\0\x08\x04\0\0\0\0\x06\x1b\xbd\0", "address of nobody"),
        (b"\0\x01\0\x08\x04\x0a\0\0\1\x06\0\0\0", "no port"),
        (b"\0\x01\0\x09\x84\0\x0a\0\0\1\x06\x1b\xbd\0", "shortest|multiaddress"),
        (b"\0\0\x41" + b"\1a" * 65, "protocols of a claim"),
        (b"\0\0\x01\0", "protocol id"),
        (b"\0\0\0\0", "behind a claim"),
    ],
)
def test_what_is_signed_and_breaks_a_limit_is_no_claim(rest: bytes, what: str) -> None:
    with pytest.raises(LinkProtocolError, match=what):
        decode(resign(ALICE, HEAD + rest))


def test_another_version_is_refused() -> None:
    with pytest.raises(LinkProtocolError, match="version"):
        decode(resign(ALICE, b"\x02" + HEAD[1:] + b"\0\0\0"))


def test_the_largest_claim_is_read_and_a_larger_one_is_not_looked_at() -> None:
    protocols = tuple(f"/{index:02}/" + "x" * 119 for index in range(63))
    claim = ALICE.sign(updated_at=int(NOW), protocols=protocols, user_agent="u" * 36)
    size = len(claim.encode())
    grown = ALICE.sign(
        updated_at=int(NOW), protocols=(*protocols, "x" * (CLAIM_SIZE_MAX - size - 1)), user_agent="u" * 36
    )
    assert len(grown.encode()) == CLAIM_SIZE_MAX
    assert decode(grown.encode()) == grown
    with pytest.raises(FrameTooLarge):
        decode(grown.encode() + b"\0")
    with pytest.raises(ValueError, match="at most 8192"):
        ALICE.sign(updated_at=0, protocols=(*protocols, "x" * (CLAIM_SIZE_MAX - size)), user_agent="u" * 36)


@pytest.mark.parametrize(
    "fields",
    [
        {"addresses": [ADDRESSES[0]] * 9},
        {"addresses": [Multiaddr.parse("/ip4/0.0.0.0/tcp/7101")]},
        {"addresses": [Multiaddr.parse("/ip4/10.0.0.1/udp/7101")]},
        {"protocols": ["/a"] * 65},
        {"protocols": [""]},
        {"protocols": ["a" * 256]},
        {"user_agent": "a" * 65},
        {"user_agent": "a\nb"},
        {"features": -1},
        {"features": 1 << 32},
    ],
)
def test_we_sign_nothing_that_others_would_refuse(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        ALICE.sign(updated_at=0, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "anywhere", "locally"),
    [
        ("/ip4/10.0.0.1/tcp/7101", True, True),
        ("/ip4/127.0.0.1/tcp/7101", True, True),
        ("/ip4/10.0.0.1/tcp/0", False, False),
        ("/ip4/0.0.0.0/tcp/7101", False, False),
        ("/ip6/::/tcp/7101", False, False),
        ("/ip4/224.0.0.1/tcp/7101", False, False),
        ("/dns4/a.example/tcp/7101/ws", True, True),
        ("/dns4/a.example/tcp/7101/tls", False, False),
        ("/dns4/a.example", False, False),
        (ONION, True, True),
        ("/memory/7", False, True),
        ("/memory/0", False, False),
        ("/unix/run/a.sock", False, True),
    ],
)
def test_which_addresses_can_be_claimed(text: str, anywhere: bool, locally: bool) -> None:
    address = Multiaddr.parse(text)
    assert (fault_of_address(address, is_local=False) is None) == anywhere
    assert (fault_of_address(address, is_local=True) is None) == locally


def test_an_address_of_one_host_alone_is_refused_where_it_was_not_allowed() -> None:
    claim = ALICE.sign(updated_at=int(NOW), addresses=[Multiaddr.parse("/memory/7")])
    assert decode(claim.encode()) == claim
    with pytest.raises(LinkProtocolError, match="outside its process"):
        PeerClaim.decode_untrusted(claim.encode(), NOW)
