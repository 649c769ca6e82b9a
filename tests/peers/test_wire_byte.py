"""The first byte, and the echo behind one of its values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine.errors import LinkProtocolError
from partywire.engine.multiaddr import Multiaddr
from partywire.engine.peers.options import PeerOptions
from partywire.engine.peers.wire import (
    LINE_SIZE_MAX,
    LINES_MAX,
    LIVENESS,
    LivenessEcho,
    LivenessPermits,
    check_first_byte_untrusted,
)

LOOPBACK = Multiaddr.parse("/ip4/127.0.0.1/tcp/1")


@given(st.integers(0, 255), st.integers(0, 255).filter(lambda byte: byte != LIVENESS))
def test_the_first_byte_is_our_network_or_asks_for_an_echo_or_is_refused(byte: int, network_byte: int) -> None:
    if byte in (network_byte, LIVENESS):
        assert check_first_byte_untrusted(byte, network_byte) == (byte == LIVENESS)
    else:
        with pytest.raises(LinkProtocolError, match="network byte"):
            check_first_byte_untrusted(byte, network_byte)


@pytest.mark.parametrize("byte", [-1, 256, LIVENESS])
def test_a_network_cannot_have_every_byte(byte: int) -> None:
    with pytest.raises(ValueError, match="network byte"):
        PeerOptions(network_byte=byte)


lines = st.lists(st.binary(max_size=LINE_SIZE_MAX).map(lambda line: line.replace(b"\n", b"")), max_size=20)


@given(lines, st.binary(max_size=LINE_SIZE_MAX), st.integers(1, 80))
def test_whole_lines_come_back_in_any_slices(sent: list[bytes], rest: bytes, size: int) -> None:
    echo = LivenessEcho()
    data = b"".join(line + b"\n" for line in sent)
    tail = rest.replace(b"\n", b"")
    whole = data + tail
    back = b"".join(echo.receive_untrusted(whole[at : at + size]) for at in range(0, len(whole), size))
    assert back == data
    assert not echo.is_over


def test_ten_lines_are_echoed_and_a_hundred_are_all() -> None:
    echo = LivenessEcho()
    assert echo.receive_untrusted(b"pingpong\n" * 10) == b"pingpong\n" * 10
    assert echo.receive_untrusted(b"x\r\n" * LINES_MAX) == b"x\r\n" * (LINES_MAX - 10)
    assert echo.is_over
    assert echo.receive_untrusted(b"more\n") == b""


@pytest.mark.parametrize("is_ended", [False, True])
def test_a_line_of_50_bytes_is_echoed_and_of_51_refused(is_ended: bool) -> None:
    assert LivenessEcho().receive_untrusted(bytes(LINE_SIZE_MAX) + b"\n") == bytes(LINE_SIZE_MAX) + b"\n"
    with pytest.raises(LinkProtocolError):
        LivenessEcho().receive_untrusted(b"x" * (LINE_SIZE_MAX + 1) + b"\n" * is_ended)


def test_permits_are_counted_and_never_run_negative() -> None:
    permits = LivenessPermits(1, ["127.0.0.0/8"])
    assert permits.take(LOOPBACK)
    assert not permits.take(LOOPBACK)
    assert not permits.take(LOOPBACK)
    permits.give_back()
    assert permits.take(LOOPBACK)
    assert not LivenessPermits(0, ["127.0.0.0/8"]).take(LOOPBACK)


@pytest.mark.parametrize(
    ("address", "is_allowed"),
    [
        ("/ip4/127.0.0.1/tcp/5", True),
        ("/ip4/10.1.2.3/tcp/5", True),
        ("/ip4/10.2.2.3/tcp/5", False),
        ("/ip6/::1/tcp/5", True),
        ("/ip6/::ffff:10.1.2.3/tcp/5", True),
        ("/ip6/fd00::1/tcp/5", False),
        ("/memory/5", False),
        ("/unix/run/a", False),
    ],
)
def test_only_listed_networks_get_an_echo(address: str, is_allowed: bool) -> None:
    permits = LivenessPermits(1, ["127.0.0.0/8", "::1/128", "10.1.0.0/16"])
    assert permits.take(Multiaddr.parse(address)) == is_allowed


@pytest.mark.parametrize(
    "options",
    [
        {"noise_pattern": "KK"},
        {"noise_cipher": "none"},
        {"liveness_permits": -1},
        {"liveness_networks": ("10.0.0.1/8",)},
        {"never_dial": ("10.0.0.1/8",)},
        {"never_dial": ("/ip4/10.0.0.1/tcp",)},
        {"dials_max": 0},
        {"negotiation_timeout_s": 0.0},
        {"idle_timeout_s": float("nan")},
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        PeerOptions(**options)  # type: ignore[arg-type]
