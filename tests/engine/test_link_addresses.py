"""Multiaddresses of links, servers and pools: the pairs that they stand for, and every refusal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine.addresses import (
    UNIX_PATH_SIZE_MAX,
    check_host,
    format_address,
    is_loopback,
    is_onion,
    meanings_of,
    parse_address,
)
from partywire.engine.link_addresses import host_and_port_of, host_of, multiaddr_of, onion_name, service_of
from partywire.engine.multiaddr import Multiaddr
from tests.support.scripted_tor import onion_id

ONION = onion_id(5)
PEER = "QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC"
LONGEST_PATH = "/" + "x" * (UNIX_PATH_SIZE_MAX - 1)

BOTH_FORMS = {
    "/ip4/10.0.0.1/tcp/7101": "10.0.0.1:7101",
    "/ip4/0.0.0.0/tcp/1": "0.0.0.0:1",
    "/ip6/fd00::2/tcp/65535": "[fd00::2]:65535",
    "/ip6zone/eth0/ip6/fe80::1/tcp/7101": "[fe80::1%eth0]:7101",
    "/dns/bob.example/tcp/7101": "bob.example:7101",
    "/unix/run/a b=c.sock": "unix:/run/a b=c.sock",
    f"/unix{LONGEST_PATH}": f"unix:{LONGEST_PATH}",
}
ONE_FORM = {
    "/dns4/bob.example/tcp/7101": ("/dns4/bob.example", 7101),
    "/dns6/bob.example/tcp/7101": ("/dns6/bob.example", 7101),
    f"/onion3/{ONION}:7101": (f"/onion3/{ONION}", 7101),
}


@pytest.mark.parametrize("text", BOTH_FORMS)
def test_a_multiaddress_and_the_host_and_port_that_mean_the_same_are_one_pair(text: str) -> None:
    pair = parse_address(text)
    assert pair == parse_address(BOTH_FORMS[text])
    assert format_address(pair) == BOTH_FORMS[text]
    assert multiaddr_of(pair) == Multiaddr.parse(text)


@pytest.mark.parametrize("text", ONE_FORM)
def test_what_host_and_port_cannot_say_is_a_pair_that_is_written_as_it_was_read(text: str) -> None:
    pair = parse_address(text)
    assert pair == ONE_FORM[text]
    assert format_address(pair) == text
    assert multiaddr_of(pair) == Multiaddr.parse(text)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("/memory/7", "within one process, and this is between processes"),
        (f"/ip4/10.0.0.1/tcp/7101/p2p/{PEER}", "leave /p2p out"),
        (f"/p2p/{PEER}", "leave /p2p out"),
        ("/ip4/10.0.0.1/tcp/7101/ws", "leave /ws out"),
        ("/ip4/10.0.0.1/tcp/7101/wss", "leave /wss out"),
        ("/ip4/10.0.0.1/tcp/7101/tls", "leave /tls out"),
        ("/ip4/10.0.0.1/udp/7101", "nobody here carries /udp"),
        ("/ip4/10.0.0.1/udp/7101/utp", "/utp has a place among addresses, but nobody"),
        ("/ip4/10.0.0.1", "lacks its port, as in /ip4/10.0.0.1/tcp/7101"),
        ("/ip4/10.0.0.1/tcp/0", "0 in .* is not a port between 1 and 65535"),
        ("/ip4/10.0.0.1/tcp/65536", "not a number below 2..16"),
        ("/ip4/10.0.0.1/tcp/1/tcp/2", "no way to a socket"),
        ("/ip4/10.0.0.1/ip4/10.0.0.2/tcp/1", "no way to a socket"),
        ("/ip6zone/eth0/ip4/10.0.0.1/tcp/1", "no way to a socket"),
        ("/tcp/7101", "no way to a socket"),
        ("/ip4/10.0.0.256/tcp/1", "10.0.0.256"),
        ("/dns4/10.0.0.1/tcp/1", "an address and not a name; write /ip4/10.0.0.1"),
        ("/dns/::1/tcp/1", "an address and not a name; write /ip6/::1"),
        ("/dns4/*/tcp/1", "not a host name"),
        (f"/unix{LONGEST_PATH}x", "may have 107 bytes"),
        ("/unix", "absolute path"),
        (f"/onion3/{ONION[:-1]}b:7101", "version|checksum"),
        (f"/onion3/{ONION}:0", "port 0"),
        (f"/onion3/{ONION}:80/tcp/80", "no way to a socket"),
        ("/nonsense/7", "not a protocol"),
        ("/", "not a protocol"),
    ],
)
def test_what_no_link_can_use_says_why(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        parse_address(text)


def test_a_free_port_is_for_those_who_may_ask_for_one_and_an_onion_service_is_listened_for_by_tor() -> None:
    assert parse_address("/ip4/127.0.0.1/tcp/0", listening=True, port_min=0) == ("127.0.0.1", 0)
    with pytest.raises(ValueError, match="listen where Tor delivers"):
        parse_address(f"/onion3/{ONION}:80", listening=True)


TEXTS = st.lists(
    st.sampled_from(["ip4/1.2.3.4", "ip6/::1", "ip6zone/eth0", "dns4/a", "dns/b", "tcp/1", "udp/1", "ws", "memory/1",
                     f"onion3/{ONION}:1", "unix/a", "p2p"]), min_size=1, max_size=4
)  # fmt: skip


@given(st.text(max_size=40) | st.from_regex(r"\A(ip[46]|dns[46]?|unix|onion3|tcp)/.{1,20}(/tcp/[0-9]{1,5})?\Z"))
def test_any_text_behind_a_slash_is_a_pair_that_reads_back_or_a_value_error(text: str) -> None:
    try:
        pair = parse_address("/" + text)
    except ValueError:
        return
    assert parse_address(format_address(pair)) == pair


@given(TEXTS)
def test_every_multiaddress_is_a_pair_that_reads_back_or_a_value_error(parts: list[str]) -> None:
    try:
        pair = parse_address("/" + "/".join(parts))
    except ValueError:
        return
    assert parse_address(format_address(pair)) == pair
    assert parse_address(str(multiaddr_of(pair))) == pair


def test_a_host_without_a_port_is_written_in_both_forms() -> None:
    assert host_of("/ip4/10.0.0.1") == host_of("10.0.0.1") == "10.0.0.1"
    assert host_of("/dns4/bob") == "/dns4/bob"
    assert host_and_port_of("/ip6/::1/tcp/5") == ("::1", 5)
    assert host_and_port_of("/ip6/::") == host_and_port_of("::") == ("::", None)
    for more in ("/ip4/10.0.0.1/tcp/5", "/unix/a", f"/onion3/{ONION}:5"):
        with pytest.raises(ValueError, match="more than the address of a host"):
            host_of(more)
    with pytest.raises(ValueError, match="not a host name"):
        check_host("/dns4/a/b")


def test_a_service_is_one_of_tcp_or_of_a_unix_socket() -> None:
    assert str(service_of("127.0.0.1:9050")) == str(service_of("/ip4/127.0.0.1/tcp/9050")) == "/ip4/127.0.0.1/tcp/9050"
    assert str(service_of("unix:/run/tor/socks")) == "/unix/run/tor/socks"
    with pytest.raises(ValueError, match="neither an address of TCP nor of a unix socket"):
        service_of(f"/onion3/{ONION}:9050")
    with pytest.raises(ValueError, match="several addresses"):
        multiaddr_of(("*", 1))


def test_names_of_hosts_are_what_proxies_and_certificates_know() -> None:
    assert onion_name(f"/onion3/{ONION}") == f"{ONION}.onion"
    assert onion_name("/dns6/bob.example") == onion_name("bob.example") == "bob.example"
    assert is_onion(f"/onion3/{ONION}")
    assert not is_loopback(f"/onion3/{ONION}")
    assert is_loopback("/dns4/localhost")
    assert not is_loopback("/dns4/bob")


def test_addresses_that_certainly_are_one_have_a_meaning_in_common() -> None:
    here = meanings_of(("localhost", 5))
    for host in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "/dns4/localhost"):
        assert meanings_of((host, 5)) & here
    for other in (("127.0.0.2", 5), ("127.0.0.1", 6), ("bob", 5), ("unix:/localhost", 5)):
        assert not meanings_of(other) & here
    assert not meanings_of(("/dns6/localhost", 5)) & meanings_of(("127.0.0.1", 5))
    assert meanings_of(("Bob.example", 5)) == meanings_of(("bob.EXAMPLE", 5))
    assert meanings_of(("fd00:0::1", 5)) == meanings_of(("fd00::1", 5))
    assert meanings_of(("unix:/A", 0)) != meanings_of(("unix:/a", 0))
