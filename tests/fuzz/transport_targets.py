"""Fuzz targets of the protocols between a router and proxies, Tor and WebSockets, beside those in targets.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from wsproto.frame_protocol import FrameProtocol

from partywire.engine.transports.errors import SocksError, TorProtocolError
from partywire.engine.transports.socks import SocksClient, SocksCommand, SocksCredentials
from partywire.engine.transports.tor_lines import (
    LINE_SIZE_MAX,
    ReplyLines,
    protocol_info_untrusted,
    words_untrusted,
)
from partywire.engine.transports.websocket import WebSocketCore, WebSocketError

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET: Final = "never shown"
REQUEST: Final = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def _pieces(data: bytes) -> Iterator[bytes]:
    """What follows the first byte, in slices of the size that it says."""
    size = max(1, data[0]) if data else 1
    for start in range(1, len(data), size):
        yield data[start : start + size]


def fuzz_socks(data: bytes) -> None:
    """Bytes of a proxy, none beyond what may be read, are a result, a beginning, or a SocksError without the secret."""
    credentials = SocksCredentials("user", SECRET) if data and data[0] & 1 else None
    command = SocksCommand.RESOLVE if data and data[0] & 2 else SocksCommand.CONNECT
    core = SocksClient(command, "bob.example", 80, credentials, "proxy")
    rest = data[1:]
    try:
        while rest and core.missing:
            size = core.missing
            assert 0 < size <= 258
            core.receive_data_untrusted(rest[:size])
            rest = rest[size:]
            assert (core.result is None) == (core.missing > 0)
    except SocksError as error:
        shown = str(error)
    else:
        shown = repr(credentials)
    assert SECRET not in shown


def fuzz_tor_lines(data: bytes) -> None:
    """Slices are replies or a TorProtocolError, from then on the same; any line has words."""
    core = ReplyLines("tor")
    try:
        for part in _pieces(data):
            for reply in core.receive_data_untrusted(part):
                assert reply.lines
                assert 0 <= reply.code <= 999
                protocol_info_untrusted(reply)
                for line in reply.lines:
                    assert len(line) <= len(data) + LINE_SIZE_MAX
                    words_untrusted(line)
    except TorProtocolError as error:
        first = error.args
    else:
        return
    with pytest.raises(TorProtocolError) as again:
        core.receive_data_untrusted(b"250 OK\r\n")
    assert again.value.args == first


def fuzz_websocket(data: bytes) -> None:
    """Slices from a dialler are bytes for the reader, no more than came, or a WebSocketError; what is answered stays
    small."""
    core = WebSocketCore(dials=False, host="", path="/", tls=None)
    _drive(core, data)


def fuzz_websocket_frames(data: bytes) -> None:
    """As `websocket`, behind a request that is right."""
    core = WebSocketCore(dials=False, host="", path="/", tls=None)
    core.receive_data_untrusted(REQUEST)
    core.data_to_send()
    _drive(core, data)


def fuzz_websocket_answer(data: bytes) -> None:
    """As `websocket`, from whom we dialled."""
    core = WebSocketCore(dials=True, host="a", path="/", tls=None)
    core.data_to_send()
    _drive(core, data)


def _drive(core: WebSocketCore, data: bytes) -> None:
    try:
        for part in _pieces(data):
            core.receive_data_untrusted(part)
    except WebSocketError:
        pass
    assert len(core.received) <= len(data)
    assert len(core.data_to_send()) <= 1024


def socks() -> Iterator[bytes]:
    """Honest proxies: without a method, with a password, and a look-up."""
    yield b"\0\x05\0\x05\0\0\x01\x7f\0\0\x01\x1f\x90"
    yield b"\1\x05\2\x01\0\x05\0\0\x03\x04name\x1f\x90"
    yield b"\2\x05\0\x05\0\0\x04" + bytes(15) + b"\1\0\0"
    yield b"\0\x05\0\x05\x05\0\x01" + bytes(6)


def tor_lines() -> Iterator[bytes]:
    """What Tor answers."""
    yield (
        b'\x40250-PROTOCOLINFO 1\r\n250-AUTH METHODS=COOKIE,SAFECOOKIE COOKIEFILE="/run/tor/c\\"\\303"\r\n'
        b'250-VERSION Tor="0.4.9.11"\r\n250 OK\r\n650 NETWORK_LIVENESS UP\r\n'
    )
    yield b"\x05250+onions/detached=\r\nfirst\r\n..second\r\n.\r\n250 OK\r\n"
    yield b"\xff550 Onion address collision\r\n"


def websocket() -> Iterator[bytes]:
    """A dialler that opens one and says something."""
    yield b"\xff" + REQUEST + bytes(FrameProtocol(True, []).send_data(b"hello"))
    yield b"\x01" + REQUEST


def websocket_frames() -> Iterator[bytes]:
    """What a dialler may send afterwards."""
    frames = FrameProtocol(True, [])
    yield b"\xff" + bytes(
        frames.send_data(b"a", fin=False) + frames.ping(b"b") + frames.send_data(b"c" * 300) + frames.close(1000, "d")
    )


def websocket_answer() -> Iterator[bytes]:
    """Who refuses; the key of an acceptance is another one each time."""
    yield b"\xffHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    yield b"\xffHTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: eA==\r\n\r\n"
