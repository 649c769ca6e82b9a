"""The WebSocket, byte by byte: two cores that are joined, and strangers that do not keep to RFC 6455."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import CloseReason, FrameProtocol

from partywire.engine.transports.tls_pipe import TlsPipe
from partywire.engine.transports.websocket import HEAD_SIZE_MAX, MESSAGE_SIZE, WebSocketCore, WebSocketError
from tests.support.websockets import websocket_settings

if TYPE_CHECKING:
    from pathlib import Path

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def dialler(path: str = "/", tls: TlsPipe | None = None) -> WebSocketCore:
    return WebSocketCore(dials=True, host="bob.example:80", path=path, tls=tls)


def acceptor(path: str = "/", tls: TlsPipe | None = None) -> WebSocketCore:
    return WebSocketCore(dials=False, host="", path=path, tls=tls)


def carry(source: WebSocketCore, sink: WebSocketCore, size: int = 100_000) -> int:
    data = source.data_to_send()
    for start in range(0, len(data), size):
        sink.receive_data_untrusted(data[start : start + size])
    return len(data)


def opened(size: int = 100_000) -> tuple[WebSocketCore, WebSocketCore]:
    left, right = dialler(), acceptor()
    carry(left, right, size)
    carry(right, left, size)
    assert left.is_open
    assert right.is_open
    return left, right


def stranger() -> tuple[FrameProtocol, WebSocketCore]:
    """A dialler of another make, and our end."""
    core = acceptor()
    core.receive_data_untrusted(REQUEST)
    assert core.data_to_send().startswith(b"HTTP/1.1 101")
    return FrameProtocol(True, []), core


@pytest.mark.parametrize("size", [1, 3, 100_000])
def test_bytes_arrive_however_they_are_cut(size: int) -> None:
    left, right = opened(size)
    for source, sink in ((left, right), (right, left)):
        source.send(bytes(range(256)))
        source.send(b"x")
        carry(source, sink, size)
        assert sink.received == bytes(range(256)) + b"x"


def test_bytes_right_behind_the_answer_are_not_lost() -> None:
    left, right = dialler(), acceptor()
    carry(left, right)
    right.send(b"at once")
    carry(right, left)
    assert left.received == b"at once"


def test_both_ends_of_the_size_of_a_message() -> None:
    left, right = opened()
    for size in (1, 125, 126, 65535, MESSAGE_SIZE):
        left.send(bytes(size))
        carry(left, right)
        assert len(right.received) == size
        right.received.clear()
    for size in (0, MESSAGE_SIZE + 1):
        with pytest.raises(AssertionError):
            left.send(bytes(size))


def test_ours_can_close_half() -> None:
    left, right = opened()
    left.shut()
    left.shut()
    assert not left.may_send
    carry(left, right)
    assert right.is_ended
    assert right.may_send
    right.send(b"last words")
    right.shut()
    carry(right, left)
    assert left.received == b"last words"
    assert left.is_ended
    left.receive_end_of_file()


@pytest.mark.parametrize("code", [None, CloseReason.NORMAL_CLOSURE, CloseReason.GOING_AWAY])
def test_a_close_of_strangers_is_answered_at_once_and_is_the_end(code: CloseReason | None) -> None:
    theirs, ours = stranger()
    ours.receive_data_untrusted(bytes(theirs.send_data(b"bye") + theirs.close(code)))
    assert ours.is_ended
    assert ours.received == b"bye"
    assert not ours.may_send
    assert ours.data_to_send()[0] == 0x88
    ours.receive_end_of_file()


def test_a_close_with_a_code_of_failure_is_a_break() -> None:
    theirs, ours = stranger()
    with pytest.raises(WebSocketError, match="code 1011"):
        ours.receive_data_untrusted(bytes(theirs.send_data(b"x") + theirs.close(CloseReason.INTERNAL_ERROR)))
    assert ours.received == b"x"


def test_an_end_without_a_close_is_a_break() -> None:
    left, _ = opened()
    with pytest.raises(WebSocketError, match="without a Close"):
        left.receive_end_of_file()
    with pytest.raises(WebSocketError, match="without a Close"):
        left.receive_data_untrusted(b"x")


def test_of_many_pings_only_the_last_is_answered() -> None:
    theirs, ours = stranger()
    for number in range(10_000):
        ours.receive_data_untrusted(bytes(theirs.ping(str(number).encode())))
    ours.receive_data_untrusted(bytes(theirs.pong(b"unasked")))
    assert ours.data_to_send() == b"\x8a\x049999"
    assert ours.data_to_send() == b""


def test_the_borders_of_messages_mean_nothing_and_announced_sizes_cost_nothing() -> None:
    theirs, ours = stranger()
    ours.receive_data_untrusted(bytes(theirs.send_data(b"a", fin=False) + theirs.send_data(b"b", fin=True)))
    ours.receive_data_untrusted(b"\x82\xff" + (2**62).to_bytes(8, "big") + bytes(4) + b"cd")
    assert ours.received == b"abcd"


@pytest.mark.parametrize(
    "frame",
    [
        b"\x82\x01x",  # not masked
        b"\x83\x80" + bytes(4),  # an opcode that there is not
        b"\xc2\x80" + bytes(4),  # a reserved bit
        b"\x89\xfe\0\x7e" + bytes(4 + 126),  # a ping that is too long
        b"\x09\x80" + bytes(4),  # a ping in parts
        b"\x80\x80" + bytes(4),  # the rest of nothing
        b"\x82\xff" + b"\xff" * 8 + bytes(4),  # 2**64 - 1 bytes
        b"\x81\x81" + bytes(4) + b"x",  # text
        b"\x88\x81" + bytes(4) + b"x",  # half a code
        b"\x88\x82" + bytes(4) + (1005).to_bytes(2, "big"),  # a code that is never sent
    ],
)
def test_what_rfc_6455_does_not_allow_ends_it(frame: bytes) -> None:
    _, ours = stranger()
    with pytest.raises(WebSocketError):
        ours.receive_data_untrusted(frame)
    assert ours.data_to_send()[0] == 0x88
    with pytest.raises(WebSocketError):
        ours.receive_data_untrusted(b"")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST" + REQUEST[3:], b"400"),
        (REQUEST.replace(b"Upgrade: websocket\r\n", b""), b"400"),
        (REQUEST.replace(b"Version: 13", b"Version: 8"), b"400"),
        (REQUEST.replace(b"Host: a\r\n", b""), b"400"),
        (REQUEST.replace(b"Host: a", b"Host: \xff"), b"400"),
        (REQUEST.replace(b"Host: a", b"Host: a\r\nOrigin: http://evil.example"), b"403"),
        (REQUEST.replace(b"GET / ", b"GET /other "), b"404"),
        (b"SSH-2.0-x\r\n\r\n", b""),
        (b"\r\n\r\n", b""),
        (REQUEST.replace(b"Host: a", b"Host: a\r\nContent-Length: 5"), b"400"),
        (REQUEST.replace(b"Host: a", b"Host: a\r\nTransfer-Encoding: chunked"), b"400"),
    ],
)
def test_who_does_not_ask_for_our_websocket_is_refused(request_: bytes, status: bytes) -> None:
    core = acceptor()
    with pytest.raises(WebSocketError):
        core.receive_data_untrusted(request_)
    assert not core.is_open
    assert core.data_to_send()[9:12] in (status, b"400")


def test_both_ends_of_the_size_of_a_head() -> None:
    room = HEAD_SIZE_MAX - len(REQUEST) - len("X: \r\n") + len("\r\n\r\n")
    core = acceptor()
    core.receive_data_untrusted(REQUEST[:-2] + b"X: " + b"x" * room + b"\r\n\r\n")
    assert core.is_open
    for data in (
        REQUEST[:-2] + b"X: " + b"x" * (room + 1) + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * HEAD_SIZE_MAX,
    ):
        with pytest.raises(WebSocketError, match=f"{HEAD_SIZE_MAX}"):
            acceptor().receive_data_untrusted(data)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "status 403"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "status 200"),
        (b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n", "accept"),
        (b"PW\0\0\r\n\r\n", "does not open"),
    ],
)
def test_an_answer_that_opens_nothing_says_so(answer: bytes, words: str) -> None:
    core = dialler()
    core.data_to_send()
    with pytest.raises(WebSocketError, match=words):
        core.receive_data_untrusted(answer)


def test_another_path_than_ours_is_refused() -> None:
    left, right = dialler("/a"), acceptor("/b")
    with pytest.raises(WebSocketError, match="another path"):
        carry(left, right)
    with pytest.raises(WebSocketError, match="404"):
        carry(right, left)


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_an_error_or_received(data: bytes, is_open: bool) -> None:
    core = acceptor()
    if is_open:
        core.receive_data_untrusted(REQUEST)
    try:
        core.receive_data_untrusted(data)
    except WebSocketError:
        pass
    assert len(core.received) <= len(data)


# TLS.


def tls_pair(folder: Path, name: str = "127.0.0.1", *, trusts: bool = True) -> tuple[WebSocketCore, WebSocketCore]:
    settings = websocket_settings(folder)
    assert settings.server_context is not None
    context = settings.client_context if trusts else ssl.create_default_context()
    assert context is not None
    return dialler(tls=TlsPipe(context, name)), acceptor(tls=TlsPipe(settings.server_context, None))


def converse(left: WebSocketCore, right: WebSocketCore, size: int) -> None:
    while carry(left, right, size) + carry(right, left, size):
        pass


@pytest.mark.parametrize("size", [1, 100_000])
def test_tls_carries_the_same_and_nothing_in_clear(size: int, tmp_path: Path) -> None:
    left, right = tls_pair(tmp_path)
    converse(left, right, size)
    for source, sink in ((left, right), (right, left)):
        source.send(b"secret share " * 10)
        data = source.data_to_send()
        assert b"share" not in data
        for start in range(0, len(data), size):
            sink.receive_data_untrusted(data[start : start + size])
        assert sink.received == b"secret share " * 10


@pytest.mark.parametrize(("name", "trusts"), [("bob.example", True), ("127.0.0.1", False)])
def test_a_certificate_that_is_not_the_hosts_or_of_an_unknown_issuer_ends_it(
    name: str, trusts: bool, tmp_path: Path
) -> None:
    left, right = tls_pair(tmp_path, name, trusts=trusts)
    with pytest.raises(WebSocketError, match="TLS"):
        converse(left, right, 100_000)
    with pytest.raises(WebSocketError, match="TLS"):  # by the alert
        carry(left, right)


def test_an_end_of_tls_without_a_close_is_a_break(tmp_path: Path) -> None:
    settings = websocket_settings(tmp_path)
    assert settings.client_context is not None
    assert settings.server_context is not None
    their_in, their_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    theirs = settings.server_context.wrap_bio(their_in, their_out, server_side=True)
    ours = TlsPipe(settings.client_context, "127.0.0.1")
    for _ in range(3):
        their_in.write(ours.data_to_send())
        with suppress(ssl.SSLWantReadError):
            theirs.do_handshake()
        ours.receive(their_out.read())
    with suppress(ssl.SSLWantReadError):
        theirs.unwrap()
    assert ours.receive(their_out.read()) == b""
    assert ours.is_established


def test_what_is_no_tls_ends_it(tmp_path: Path) -> None:
    for core in tls_pair(tmp_path):
        with pytest.raises(WebSocketError, match="TLS"):
            core.receive_data_untrusted(REQUEST)
