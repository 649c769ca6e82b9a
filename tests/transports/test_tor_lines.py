"""The language of the control port: replies whole and in pieces, limits at both ends, quoting, proofs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine.transports.errors import TorProtocolError
from partywire.engine.transports.tor_lines import (
    LINE_SIZE_MAX,
    REPLY_SIZE_MAX,
    Reply,
    ReplyLines,
    proof_of_client,
    proof_of_server,
    protocol_info_untrusted,
    quote,
    words_untrusted,
)

CONVERSATION = (
    b'250-PROTOCOLINFO 1\r\n250-AUTH METHODS=COOKIE,SAFECOOKIE COOKIEFILE="/run/tor/c\\"\\\\\\303\\274"\r\n250 OK\r\n'
    b"650 NETWORK_LIVENESS UP\r\n"
    b"250+onions/detached=\r\nfirst\r\n..dotted\r\n\r\n.\r\n250 OK\r\n"
    b"552 Unknown Onion Service id\r\n"
)
REPLIES = [
    Reply(250, ("PROTOCOLINFO 1", 'AUTH METHODS=COOKIE,SAFECOOKIE COOKIEFILE="/run/tor/c\\"\\\\\\303\\274"', "OK")),
    Reply(650, ("NETWORK_LIVENESS UP",)),
    Reply(250, ("onions/detached=\nfirst\n.dotted\n", "OK")),
    Reply(552, ("Unknown Onion Service id",)),
]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_replies_and_events_come_out_whole_however_they_are_cut(size: int) -> None:
    core = ReplyLines("tor")
    out: list[Reply] = []
    for start in range(0, len(CONVERSATION), size):
        out += core.receive_data_untrusted(CONVERSATION[start : start + size])
    assert out == REPLIES
    assert [reply.is_event for reply in out] == [False, True, False, False]


def test_the_ways_to_be_let_in_are_read_with_their_quoted_path() -> None:
    info = protocol_info_untrusted(REPLIES[0])
    assert info.methods == {"COOKIE", "SAFECOOKIE"}
    assert info.cookie_path == '/run/tor/c"\\ü'.encode()
    assert protocol_info_untrusted(Reply(250, ("OK",))).methods == frozenset()


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"25 OK\r\n",
        b"250\r\n",
        b"250*OK\r\n",
        b"250-a\r\n251 OK\r\n",
        b"\xff\xff\xff \r\n",
        b"\r\n",
    ],
)
def test_anything_else_is_an_error_from_then_on(data: bytes) -> None:
    core = ReplyLines("tor")
    with pytest.raises(TorProtocolError, match="control port of Tor"):
        core.receive_data_untrusted(data)
    with pytest.raises(TorProtocolError, match="control port of Tor"):
        core.receive_data_untrusted(b"250 OK\r\n")


def test_both_ends_of_the_length_of_a_line() -> None:
    line = b"250 " + b"x" * (LINE_SIZE_MAX - 5) + b"\r"
    assert len(ReplyLines("tor").receive_data_untrusted(line + b"\n")) == 1
    for data in (line + b"\r\n", line + b"\r", b"x" * (LINE_SIZE_MAX + 1)):
        with pytest.raises(TorProtocolError, match=f"{LINE_SIZE_MAX}"):
            ReplyLines("tor").receive_data_untrusted(data)


def test_both_ends_of_the_length_of_a_reply() -> None:
    line = b"250-" + b"x" * 1018 + b"\r\n"
    assert len(line) == 1024
    core = ReplyLines("tor")
    assert core.receive_data_untrusted(line * (REPLY_SIZE_MAX // 1024 - 1) + b"250 OK\r\n")
    with pytest.raises(TorProtocolError, match=f"{REPLY_SIZE_MAX}"):
        core.receive_data_untrusted(line * (REPLY_SIZE_MAX // 1024 + 1))


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_what_is_quoted_reads_back(text: str) -> None:
    assert words_untrusted(f"A=b {'C'}={quote(text)} D=e") == {"A": "b", "C": text, "D": "e"}


@pytest.mark.parametrize("text", ["a\r\nDEL_ONION x", "a\n", "\0", "\x1f", "\x7f", "\ud800"])
def test_a_control_character_cannot_end_a_command(text: str) -> None:
    with pytest.raises(ValueError, match="control characters"):
        quote(text)


@given(st.text(max_size=80))
def test_any_line_has_some_words(line: str) -> None:
    words_untrusted(line)
    protocol_info_untrusted(Reply(250, (f"AUTH {line}",)))


def test_the_proofs_of_safecookie_are_the_hmacs_of_the_specification() -> None:
    """Computed with openssl dgst from the sentences of control-spec, 3.24."""
    cookie, ours, theirs = bytes(range(32)), bytes([1]) * 32, bytes([2]) * 32
    assert proof_of_server(cookie, ours, theirs).hex() == SERVER_PROOF
    assert proof_of_client(cookie, ours, theirs).hex() == CLIENT_PROOF


SERVER_PROOF = "18bf4049ee4f5be22254e66ded2c3778d180b1eb268e8e41fcbdd10d64538030"
CLIENT_PROOF = "e396c96ac795e44f88cc8bfdebd8517eadc1a9872cb9c6b01c244cf065abbcdb"
