"""What is an address, what is not, and which of them stay on this host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine.addresses import (
    HOST_SIZE_MAX,
    UNIX_PATH_SIZE_MAX,
    format_address,
    is_loopback,
    parse_address,
)

LONGEST_PATH = "/" + "x" * (UNIX_PATH_SIZE_MAX - 1)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("bob.example:65535", ("bob.example", 65535)),
        ("[::1]:7101", ("::1", 7101)),
        ("[fe80::1%eth0]:7101", ("fe80::1%eth0", 7101)),
        ("unix:/run/a b=c.sock", ("unix:/run/a b=c.sock", 0)),
        (f"unix:{LONGEST_PATH}", (f"unix:{LONGEST_PATH}", 0)),
        ("h" * HOST_SIZE_MAX + ":7", ("h" * HOST_SIZE_MAX, 7)),
    ],
)
def test_an_address_is_read_and_written_alike(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address
    assert format_address(address) == text


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("host:0", "port between 1 and 65535"),
        ("host:65536", "port between 1 and 65535"),
        ("host:" + "9" * 5000, "port between 1 and 65535"),
        ("host:000000001999999", "port between 1 and 65535"),
        ("host:000001", "port between 1 and 65535"),
        ("::1:7101", "needs brackets"),
        ("[::1:7101", "needs brackets"),
        ("[bob]:7101", "not an IPv6 address"),
        ("[fe80::1%]:7101", "not an IPv6 address"),
        ("[fe80::1%e\n0]:7101", "the name of an interface"),
        ("[fe80::1%a b]:7101", "the name of an interface"),
        ("[fe80::1%a]b]:7101", "the name of an interface"),
        ("[fe80::1%" + "x" * HOST_SIZE_MAX + "]:7101", "1 to 253 characters"),
        ("10.0.0.256:7101", "not an IPv4 address"),
        ("10.0.1:7101", "not an IPv4 address"),
        ("bo b:1", "not a host name"),
        ("h" * (HOST_SIZE_MAX + 1) + ":7", "1 to 253 characters"),
        ("*:7101", "only .listen. takes it"),
        ("unix:", "absolute path"),
        ("unix:run/a.sock", "absolute path"),
        ("unix:@name", "absolute path"),
        ("unix:/run/", "absolute path"),
        ("unix:/run/a\0b", "unprintable"),
        ("unix:/run/\udc80", "UTF-8"),
        (f"unix:{LONGEST_PATH}x", "may have 107 bytes"),
        (f"unix:{LONGEST_PATH[:-1]}é", "may have 107 bytes"),
    ],
)
def test_what_is_no_address_is_named(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        parse_address(text)


def test_every_address_and_a_port_of_the_kernels_choice_are_for_those_who_listen() -> None:
    assert parse_address("*:7101", listening=True) == ("*", 7101)
    with pytest.raises(ValueError, match="not an IPv6 address"):
        parse_address("[*]:7101", listening=True)
    assert parse_address("host:0", port_min=0) == ("host", 0)


@given(st.text(max_size=40) | st.from_regex(r"unix:/.{1,20}|\[[0-9a-f:]{2,9}\]:[0-9]{1,5}|[a-z.]{1,9}:[0-9]{1,5}"))
def test_any_text_is_an_address_that_reads_back_or_a_value_error(text: str) -> None:
    try:
        address = parse_address(text)
    except ValueError:
        return
    assert parse_address(format_address(address)) == address


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.9.8.7", "::1", "::ffff:127.0.0.1", "localhost", "unix:/run/alice.sock"]
)
def test_these_hosts_are_certainly_this_one(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "::", "0.0.0.0", "*", "fe80::1%eth0", "::ffff:10.0.0.1", "localhost.x"])
def test_these_hosts_may_be_others(host: str) -> None:
    assert not is_loopback(host)
