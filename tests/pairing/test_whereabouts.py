"""Which addresses are of one host."""

from __future__ import annotations

import socket

import pytest

from partywire.engine.pairing.whereabouts import THIS_HOST, host_of, place_of, places_of


@pytest.mark.parametrize("ours", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0", ""])
def test_all_addresses_of_this_host_are_one(ours: str) -> None:
    assert place_of(ours) == THIS_HOST


def test_the_address_of_our_network_card_is_this_host() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this host has no route to anywhere")
        assert place_of(probe.getsockname()[0]) == THIS_HOST


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("fe80::1234%eth9", "fe80::1234"),
    ],
)
def test_an_address_of_another_host_has_one_spelling(address: str, place: str) -> None:
    assert place_of(address) == place


def test_the_host_of_a_connection() -> None:
    assert host_of("[2001:db8::1]:80") == "2001:db8::1"
    assert host_of("192.0.2.7:80") == "192.0.2.7"
    assert host_of("[::1]:80") == THIS_HOST
    assert places_of(["::1", "192.0.2.7"]) == {THIS_HOST, "192.0.2.7"}
