"""The 32 bytes that route a connection."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine.errors import LinkProtocolError
from partywire.engine.preamble import MAGIC, PREAMBLE_SIZE, ConnectionClass, Preamble

TAG = bytes(range(16))
GOLDEN = bytes.fromhex("93 50 74 79 57 69 72 65 01 00 00 01 02 01 00 00") + TAG


def test_a_preamble_is_encoded_as_documented() -> None:
    preamble = Preamble(ConnectionClass.NORMAL, 258, TAG)
    assert preamble.encode() == GOLDEN
    assert Preamble.decode_untrusted(GOLDEN) == preamble


def test_a_preamble_is_incomplete_until_its_last_byte_and_ignores_what_follows() -> None:
    for size in range(PREAMBLE_SIZE):
        assert Preamble.decode_untrusted(GOLDEN[:size]) is None
    assert Preamble.decode_untrusted(GOLDEN + b"frames") == Preamble.decode_untrusted(GOLDEN)


@given(
    st.sampled_from(ConnectionClass), st.integers(0, 0xFFFF), st.binary(min_size=16, max_size=16), st.binary(max_size=9)
)
def test_a_preamble_round_trips(class_: ConnectionClass, index: int, tag: bytes, tail: bytes) -> None:
    preamble = Preamble(class_, index, tag)
    assert Preamble.decode_untrusted(preamble.encode() + tail) == preamble


@pytest.mark.parametrize("opening", [b"GET / HTTP/1.1", b"POST", b"PRI * HTTP/2.0", b"\x16\x03\x01", b"\x00", b"2ok"])
def test_another_protocol_is_told_apart_at_its_first_byte(opening: bytes) -> None:
    assert opening[:1] != MAGIC[:1]
    with pytest.raises(LinkProtocolError, match="a stranger"):
        Preamble.decode_untrusted(opening[:1])


@pytest.mark.parametrize("position", range(len(MAGIC)))
def test_a_wrong_byte_in_the_magic_is_refused_at_once(position: int) -> None:
    wrong = bytearray(GOLDEN)
    wrong[position] ^= 1
    with pytest.raises(LinkProtocolError, match="does not begin like PartyWire"):
        Preamble.decode_untrusted(bytes(wrong[: position + 1]))


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (8, 2, "version"),
        (9, 1, "version"),
        (10, 8, "security mode"),
        (11, 5, "connection class"),
        (14, 1, "reserved"),
        (15, 1, "reserved"),
    ],
)
def test_a_field_out_of_its_bounds_is_refused(position: int, value: int, message: str) -> None:
    wrong = bytearray(GOLDEN)
    wrong[position] = value
    with pytest.raises(LinkProtocolError, match=message):
        Preamble.decode_untrusted(bytes(wrong))


@given(st.binary(max_size=40))
def test_any_bytes_are_a_preamble_incomplete_or_a_protocol_error(received: bytes) -> None:
    for candidate in (received, MAGIC + received):
        try:
            preamble = Preamble.decode_untrusted(candidate)
        except LinkProtocolError:
            continue
        assert (preamble is None) == (len(candidate) < PREAMBLE_SIZE)


@pytest.mark.parametrize(("index", "tag"), [(-1, TAG), (65536, TAG), (0, TAG[:-1])])
def test_a_preamble_that_could_not_be_encoded_is_a_mistake(index: int, tag: bytes) -> None:
    with pytest.raises(ValueError, match="preamble"):
        Preamble(ConnectionClass.NORMAL, index, tag)


def test_the_routing_tag_is_not_shown() -> None:
    assert "0001" not in repr(Preamble(ConnectionClass.CONTROL, 0, TAG))
    assert "routing_tag" not in repr(Preamble(ConnectionClass.CONTROL, 0, TAG))
