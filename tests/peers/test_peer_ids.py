"""Ids of peers: the hash of the reference, texts, and distances."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine.errors import LinkProtocolError
from partywire.engine.peers.peer_id import PEER_ID_SIZE, PeerId

IDS = st.binary(min_size=PEER_ID_SIZE, max_size=PEER_ID_SIZE).map(PeerId)


def test_an_id_is_the_hash_that_the_reference_makes_of_a_key() -> None:
    key = bytes.fromhex("02622ace8f7303a31cafc63f8fc48fdc16e1c8c8d234b2f0d6685282a9076031")
    assert str(PeerId.of_key(key)) == "c1a7552e5d9e9b257c4008b965"
    assert PeerId.of_key(key).short == "c1a7552e5d9e9b25"


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_size_has_no_id(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        PeerId.of_key(bytes(size))


@pytest.mark.parametrize("size", [12, 14])
def test_an_id_has_13_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="13 bytes"):
        PeerId(bytes(size))
    with pytest.raises(LinkProtocolError):
        PeerId.decode_untrusted(bytes(size))


@given(IDS)
def test_text_and_bytes_of_an_id_read_back(peer_id: PeerId) -> None:
    assert PeerId.parse(str(peer_id)) == PeerId.parse(str(peer_id).upper()) == peer_id
    assert PeerId.decode_untrusted(peer_id.raw) == peer_id


@pytest.mark.parametrize("text", ["", "c1a7", "c1a7552e5d9e9b257c4008b96", "c1 a7552e5d9e9b257c4008b96", "g" * 26])
def test_other_texts_are_no_ids(text: str) -> None:
    with pytest.raises(ValueError, match="26 hexadecimal digits"):
        PeerId.parse(text)


@given(IDS, IDS, IDS)
def test_distance_is_a_metric_and_order_is_that_of_the_bytes(one: PeerId, two: PeerId, three: PeerId) -> None:
    assert one.distance(two) == two.distance(one)
    assert (one.distance(two) == 0) == (one == two)
    assert one.distance(three) <= one.distance(two) + two.distance(three)
    assert (one < two) == (one.raw < two.raw)


def test_distance_is_xor_as_a_number() -> None:
    zero = PeerId(bytes(13))
    assert zero.distance(PeerId(bytes(12) + b"\x05")) == 5
    assert zero.distance(PeerId(b"\x80" + bytes(12))) == 1 << 103
