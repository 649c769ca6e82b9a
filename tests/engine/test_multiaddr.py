"""Multiaddresses: known bytes, everything that is refused, and that text and bytes say the same."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from partywire.engine.errors import LinkProtocolError
from partywire.engine.multiaddr import PARTS_MAX, Multiaddr

ONION = "vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd"

# Bytes as the implementations of others give them.
VECTORS = {
    "/ip4/1.2.3.4/tcp/18141": "04010203040646dd",
    "/memory/1234": "890600000000000004d2",
    "/memory/18446744073709551615": "8906ffffffffffffffff",
    "/ip6/::1/tcp/1": "2900000000000000000000000000000001060001",
    "/ip6zone/eth0/ip6/fe80::1/tcp/1": "2a046574683029fe800000000000000000000000000001060001",
    "/dns4/example.com/tcp/80/ws": "360b6578616d706c652e636f6d060050dd03",
    "/dns6/a.b/tcp/443/wss": "3703612e620601bbde03",
    "/dns/x/tcp/1/tls/ws": "350178060001c003dd03",
    "/ip4/1.2.3.4/udp/5/utp": "040102030491020005ae02",
    f"/onion3/{ONION}:1234": "bd03adadec040be047f9658668b11a504f3155001f231a37f54c4476c07fb4cc139ed7e30304d2",
    "/ip4/1.2.3.4/tcp/1/p2p/QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC": (
        "0401020304060001a503221220d52ebb89d85b02a284948203a62ff28389c57c9f42beec4ec20db76a68911c0b"
    ),
    "/p2p/12D3KooWPA6ax6t3jqTyGq73Zm1RmwppYqxaXzrtarfcTWGp5Wzx": (
        "a50326002408011220c635ed472d58edd8b9ee4641ec7557dc806b4886e568491ab00bff1269a7be65"
    ),
    "/unix/tmp/foo.sock": "90030d2f746d702f666f6f2e736f636b",
}


@pytest.mark.parametrize(("text", "data"), VECTORS.items())
def test_known_bytes(text: str, data: str) -> None:
    address = Multiaddr.parse(text)
    assert address.encode().hex() == data
    assert Multiaddr.decode_untrusted(bytes.fromhex(data)) == address
    assert str(address) == text


def test_a_unix_path_is_read_without_its_slash_too() -> None:
    assert str(Multiaddr.decode_untrusted(bytes.fromhex("90030c746d702f666f6f2e736f636b"))) == "/unix/tmp/foo.sock"


def test_texts_of_one_address_are_equal() -> None:
    assert Multiaddr.parse("/ip6/0:0::1/tcp/01") == Multiaddr.parse("/ip6/::1/tcp/1")
    assert Multiaddr.parse(f"/onion3/{ONION.upper()}:1") == Multiaddr.parse(f"/onion3/{ONION}:1")
    assert len({Multiaddr.parse("/memory/7"), Multiaddr([("memory", 7)]), Multiaddr([("memory", "7")])}) == 1


def test_parts_are_to_be_asked_for() -> None:
    address = Multiaddr.parse("/dns4/bob.example/tcp/443/tls/ws")
    assert address.protocols == ("dns4", "tcp", "tls", "ws")
    assert address.value_of("tcp") == 443
    assert address.value_of("ws") is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not a multiaddress"),
        ("ip4/1.2.3.4", "is not a multiaddress"),
        ("/", "'' is not a protocol"),
        ("/ip4/1.2.3.4/", "'' is not a protocol"),
        ("/ip4", "has no value"),
        ("/ip4/1.2.3", "1.2.3"),
        ("/ip4/01.2.3.4", "01.2.3.4"),
        ("/ip6/::1%eth0", "names an interface"),
        ("/ip6/1.2.3.4", "1.2.3.4"),
        ("/ip6zone/sixteen-letters-", "name of an interface"),
        ("/tcp/65536", "below 2..16"),
        ("/tcp/-1", "below 2..16"),
        ("/tcp/\u0661", "below 2..16"),
        ("/memory/18446744073709551616", "below 2..64"),
        ("/dns4//tcp/1", "not a host"),
        ("/dns4/a b/tcp/1", "not a host name"),
        ("/unix", "path of a socket|absolute path"),
        ("/unix/" + "x" * 200, "may have 107 bytes"),
        ("/p2p/0OIl", "base58"),
        ("/p2p/2", "multihash"),
        (f"/onion3/{ONION}", "a colon and a port"),
        (f"/onion3/{ONION}:0", "port 0"),
        (f"/onion3/{'a' + ONION[1:]}:1", "checksum"),
        (f"/onion3/{ONION[:-1]}a:1", "version"),
        ("/onion3/short:1", "56 letters"),
        ("/carrier-pigeon/1", "not a protocol"),
        ("/ws" * (PARTS_MAX + 1), "17 parts"),
        ("/ws" * 1000, "3000 characters"),
    ],
)
def test_what_is_no_address(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Multiaddr.parse(text)


def test_nothing_follows_a_unix_path() -> None:
    with pytest.raises(ValueError, match="takes the rest"):
        Multiaddr([("unix", "/run/a.sock"), ("ws", None)])


@pytest.mark.parametrize("parts", [[], [("tcp", None)], [("ws", 1)], [("tcp", "x")], [("nothing", 1)]])
def test_parts_are_checked(parts: list[tuple[str, str | int | None]]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Multiaddr(parts)


@pytest.mark.parametrize(
    "data",
    [
        "",
        "04010203",
        "ff01",
        "ffffffffff",
        "8000",
        "0400",
        "36ff7f",
        "3600",
        "dd03" * 17,
        "a50300",
        "a5030102",
        "3602ff00",
    ],
)
def test_bytes_that_are_no_address(data: str) -> None:
    with pytest.raises(LinkProtocolError, match="mallory broke the wire protocol: a multiaddress"):
        Multiaddr.decode_untrusted(bytes.fromhex(data), "mallory")


@given(st.binary(max_size=80))
@example(b"\x04\x01\x02\x03\x04")
def test_any_bytes_are_refused_or_read_back(data: bytes) -> None:
    try:
        address = Multiaddr.decode_untrusted(data)
    except LinkProtocolError:
        return
    assert Multiaddr.decode_untrusted(address.encode()) == address
    assert Multiaddr.parse(str(address)) == address


def onion3(key: bytes, port: int) -> tuple[str, str]:
    checksum = hashlib.sha3_256(b".onion checksum" + key + b"\x03").digest()[:2]
    return "onion3", f"{base64.b32encode(key + checksum + bytes([3])).decode().lower()}:{port}"


names = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=20).filter(
    lambda name: not name.isdigit()
)
ports = st.integers(0, 65535)
parts = st.one_of(
    st.integers(0, 2**32 - 1).map(lambda number: ("ip4", str(ipaddress.IPv4Address(number)))),
    st.integers(0, 2**128 - 1).map(lambda number: ("ip6", str(ipaddress.IPv6Address(number)))),
    st.tuples(st.sampled_from(("dns", "dns4", "dns6")), names),
    st.tuples(st.sampled_from(("tcp", "udp")), ports),
    st.tuples(st.just("memory"), st.integers(0, 2**64 - 1)),
    st.tuples(st.sampled_from(("ws", "wss", "tls", "utp")), st.none()),
    st.builds(onion3, st.binary(min_size=32, max_size=32), st.integers(1, 65535)),
)


@given(st.lists(parts, min_size=1, max_size=PARTS_MAX))
def test_text_and_bytes_say_the_same(chosen: list[tuple[str, str | int | None]]) -> None:
    address = Multiaddr(chosen)
    assert Multiaddr.parse(str(address)) == address
    assert Multiaddr.decode_untrusted(address.encode()) == address
