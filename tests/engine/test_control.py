"""Control messages: round trips, bounds, and hostile JSON."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine import limits
from partywire.engine.control import Abort, ControlMessage, Rendezvous, Resume, decode_control_untrusted, encode_control
from partywire.engine.errors import FrameTooLarge, LinkProtocolError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
kinds = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64)


def test_messages_are_encoded_as_documented() -> None:
    assert encode_control(Rendezvous(3, "barrier")) == b'{"type":"rendezvous","round":3,"kind":"barrier","fields":{}}'
    resume = b'{"type":"resume","round":3,"life":"ab","said":[1,2]}'
    assert encode_control(Resume(3, "ab", (1, 2))) == resume
    assert encode_control(Abort(3, "no")) == b'{"type":"abort","round":3,"reason":"no"}'


@given(
    st.one_of(
        st.builds(Rendezvous, st.integers(0, 2**53 - 1), kinds, st.dictionaries(st.text(max_size=5), json_values)),
        st.builds(Abort, st.integers(0, 2**53 - 1), st.text(st.characters(min_codepoint=32, max_codepoint=126))),
        st.builds(
            Resume,
            st.integers(0, 2**53 - 1),
            st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=32),
            st.lists(st.integers(0, 2**53 - 1), max_size=64).map(tuple),
        ),
    )
)
def test_any_message_round_trips(message: ControlMessage) -> None:
    assert decode_control_untrusted(encode_control(message)) == message


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 5000 + b"]" * 5000,
        b"[]",
        b"null",
        b"{}",
        b'{"type":"rendezvous","round":-1,"kind":"x","fields":{}}',
        b'{"type":"rendezvous","round":1.0,"kind":"x","fields":{}}',
        b'{"type":"rendezvous","round":true,"kind":"x","fields":{}}',
        b'{"type":"rendezvous","round":9007199254740992,"kind":"x","fields":{}}',
        b'{"type":"rendezvous","round":1,"kind":"","fields":{}}',
        b'{"type":"rendezvous","round":1,"kind":"a\\nb","fields":{}}',
        b'{"type":"rendezvous","round":1,"kind":5,"fields":{}}',
        b'{"type":"rendezvous","round":1,"kind":"x","fields":[]}',
        b'{"type":"rendezvous","round":1,"kind":"x"}',
        b'{"type":"rendezvous","round":1,"kind":"x","fields":{},"more":1}',
        b'{"type":"rendezvous","round":1,"kind":"' + b"x" * 65 + b'","fields":{}}',
        b'{"type":"resume","round":1}',
        b'{"type":"resume","round":1,"life":"a","said":[true]}',
        b'{"type":"resume","round":1,"life":"a","said":[-1]}',
        b'{"type":"resume","round":1,"life":"' + b"x" * 33 + b'","said":[]}',
        b'{"type":"resume","round":1,"life":"a\nb","said":[]}',
        b'{"type":"resume","round":1,"life":"a","said":[' + b"1," * 64 + b'1]}',
        b'{"type":"resume","round":1,"life":"a","said":[],"more":1}',
        b'{"type":"abort","round":1}',
        b'{"type":"abort","round":1,"reason":1}',
        b'{"type":"abort","round":1,"reason":"' + b"x" * 1025 + b'"}',
        b'{"type":"abort","round":1,"reason":"x","more":1}',
        b'{"type":"unknown","round":1}',
        b'{"type":["abort"],"round":1,"reason":"x"}',
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)
def test_a_malformed_message_is_a_protocol_error_of_the_peer(body: bytes) -> None:
    with pytest.raises(LinkProtocolError) as raised:
        decode_control_untrusted(body, "bob")
    assert raised.value.peer == "bob"


def test_an_oversized_message_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    monkeypatch.setattr(orjson, "loads", lambda body: parsed.append(len(body)))
    with pytest.raises(FrameTooLarge):
        decode_control_untrusted(b" " * (limits.CONTROL_SIZE_MAX + 1), "bob")
    assert parsed == []


@given(st.binary(max_size=60) | json_values.map(orjson.dumps))
def test_any_bytes_are_a_message_or_a_protocol_error(body: bytes) -> None:
    try:
        decode_control_untrusted(body)
    except LinkProtocolError:
        return


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (Rendezvous(1, ""), "kind"),
        (Rendezvous(1, "x" * 65), "kind"),
        (Rendezvous(1, "x", {"y": object()}), "JSON"),
        (Rendezvous(1, "x", {"y": "z" * limits.CONTROL_SIZE_MAX}), "at most"),
    ],
)
def test_a_message_that_no_peer_would_take_is_a_mistake(message: ControlMessage, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        encode_control(message)


def test_a_long_reason_is_cut_and_an_unprintable_one_made_harmless() -> None:
    message = decode_control_untrusted(encode_control(Abort(1, "ß" * 1000 + "\n")))
    assert isinstance(message, Abort)
    assert message.reason == "ß" * 512
    shown = decode_control_untrusted(encode_control(Abort(1, "a\nb\x1b")))
    assert isinstance(shown, Abort)
    assert shown.reason.isprintable()
