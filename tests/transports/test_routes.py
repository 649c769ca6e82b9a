"""Which route an address asks for, and which addresses nobody here understands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine.multiaddr import Multiaddr
from partywire.engine.transports.errors import AddressNotSupported
from partywire.engine.transports.routes import Carrier, Route, Upgrade, peer_address, route_of, tcp_address
from tests.support.scripted_tor import onion_id

ONION = onion_id(5)
PEER = "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC"

KNOWN = {
    "/ip4/10.0.0.1/tcp/7101": Route(Carrier.TCP, "10.0.0.1", 7101),
    "/ip6/fd00::2/tcp/1": Route(Carrier.TCP, "fd00::2", 1),
    "/ip6zone/eth0/ip6/fe80::1/tcp/7101": Route(Carrier.TCP, "fe80::1%eth0", 7101),
    "/dns/bob.example/tcp/65535": Route(Carrier.TCP, "bob.example", 65535),
    "/dns4/bob.example/tcp/7101": Route(Carrier.TCP, "bob.example", 7101, 4),
    "/dns6/bob.example/tcp/7101/ws": Route(Carrier.TCP, "bob.example", 7101, 6, Upgrade.WS),
    "/dns/bob.example/tcp/443/wss": Route(Carrier.TCP, "bob.example", 443, 0, Upgrade.WSS),
    "/ip4/10.0.0.1/tcp/443/tls/ws": Route(Carrier.TCP, "10.0.0.1", 443, 0, Upgrade.WSS),
    "/unix/run/alice.sock": Route(Carrier.UNIX, "unix:/run/alice.sock"),
    "/memory/18446744073709551615": Route(Carrier.MEMORY, "", 2**64 - 1),
    f"/onion3/{ONION}:80": Route(Carrier.ONION, f"{ONION}.onion", 80),
    f"/onion3/{ONION}:80/ws": Route(Carrier.ONION, f"{ONION}.onion", 80, 0, Upgrade.WS),
}

UNKNOWN = (
    "/ip4/10.0.0.1",
    "/tcp/80",
    "/ip4/10.0.0.1/udp/7101",
    "/ip4/10.0.0.1/udp/7101/utp",
    "/ip4/10.0.0.1/tcp/7101/tls",
    "/ip4/10.0.0.1/tcp/7101/ws/ws",
    "/ip4/10.0.0.1/tcp/7101/tcp/7102",
    "/dns4/bob.example",
    "/memory/7/ws",
    "/ws",
    "/wss",
    f"/p2p/{PEER}",
    "/ip6zone/eth0/ip4/10.0.0.1/tcp/7101",
)


@pytest.mark.parametrize("text", KNOWN)
def test_a_known_address_has_its_route_and_a_peer_behind_it_changes_nothing(text: str) -> None:
    assert route_of(Multiaddr.parse(text)) == KNOWN[text]
    if not text.startswith("/unix"):
        assert route_of(Multiaddr.parse(f"{text}/p2p/{PEER}")) == KNOWN[text]


@pytest.mark.parametrize("text", UNKNOWN)
def test_any_other_address_is_a_typed_error_that_names_it(text: str) -> None:
    for listening in (False, True):
        with pytest.raises(AddressNotSupported, match=text.split("/")[1]):
            route_of(Multiaddr.parse(text), listening=listening)


@pytest.mark.parametrize("text", ["/ip4/10.0.0.1/tcp/0", "/memory/0", "/dns/bob/tcp/0/ws"])
def test_port_0_can_only_be_listened_on(text: str) -> None:
    with pytest.raises(AddressNotSupported, match="free port"):
        route_of(Multiaddr.parse(text))
    assert route_of(Multiaddr.parse(text), listening=True).port == 0


PARTS = st.sampled_from(
    [("ip4", "1.2.3.4"), ("ip6", "::1"), ("ip6zone", "eth0"), ("dns", "a"), ("dns4", "b"), ("dns6", "c"), ("tcp", 1),
     ("udp", 1), ("utp", None), ("p2p", PEER), ("onion3", f"{ONION}:1"), ("tls", None), ("ws", None), ("wss", None),
     ("memory", 1)]
)  # fmt: skip


@given(st.lists(PARTS, min_size=1, max_size=5))
def test_every_address_has_a_route_or_is_not_supported(parts: list[tuple[str, str | int | None]]) -> None:
    try:
        route = route_of(Multiaddr(parts))
    except AddressNotSupported:
        return
    assert route.port
    assert bool(route.host) != (route.carrier is Carrier.MEMORY)


def test_what_needs_a_look_up() -> None:
    names = {text for text in KNOWN if route_of(Multiaddr.parse(text)).is_name}
    assert names == {text for text in KNOWN if text.startswith("/dns")}
    assert not route_of(Multiaddr.parse("/dns/localhost/tcp/1")).is_name
    assert not route_of(Multiaddr.parse("/dns4/127.0.0.1/tcp/1")).is_name


def test_addresses_of_sockets_become_multiaddresses() -> None:
    assert str(tcp_address("fe80::1%eth0", 5, Upgrade.WSS)) == "/ip6zone/eth0/ip6/fe80::1/tcp/5/wss"
    assert str(peer_address("[::1]:5")) == "/ip6/::1/tcp/5"
    assert str(peer_address("10.0.0.1:5", Upgrade.WS)) == "/ip4/10.0.0.1/tcp/5/ws"
    with pytest.raises(ValueError, match="not host:port"):
        peer_address("a peer that is gone")
