"""Addresses: the text that people write, the pair that programs pass on, and which of them stay on this host.

Between configurations, transports and messages. A pair is (host, port); a unix socket is ("unix:/path", 0), a name of
which only the addresses of one family are meant ("/dns4/name", port), an onion service ("/onion3/name", port). The one
invariant: `parse_address(format_address(pair)) == pair` for every pair that `parse_address` returns.

    127.0.0.1:7101   bob.example:7101   [fd00::2]:7101   [fe80::1%eth0]:7101   unix:/run/alice.sock   *:7101

and the same as multiaddresses, which `link_addresses` reads: /ip4/127.0.0.1/tcp/7101 is 127.0.0.1:7101.
"""

from __future__ import annotations

import ipaddress
from typing import Final, TypeAlias

Address: TypeAlias = tuple[str, int]
"""Host and port. A resolved address has a literal host."""

UNIX_PREFIX: Final = "unix:"

EVERY_ADDRESS: Final = "*"
"""As a host to listen on: every address of this host, of both families."""

UNIX_PATH_SIZE_MAX: Final = 107
"""Bytes of a unix socket's path: the kernel's field has 108, the last of them zero."""

ONION_PREFIX: Final = "/onion3/"
"""Before the 56 letters and digits of an onion service, as a host."""

NAME_PREFIXES: Final = {"/dns4/": 4, "/dns6/": 6}
"""Before a name of which only the addresses of one family are meant, as a host."""

HOST_SIZE_MAX: Final = 253
"""Characters of a host name, as DNS has it; a literal with a scope id is far shorter."""


def parse_address(text: str, *, listening: bool = False, port_min: int = 1) -> Address:
    """The pair that a text, host:port or a multiaddress, stands for; `*` is a host only when `listening`.

    Raises:
        ValueError: says what is wrong.
    """
    if text.startswith("/"):
        from .link_addresses import pair_of  # it is built on this module

        return pair_of(text, listening=listening, port_min=port_min)
    if text.startswith(UNIX_PREFIX):
        check_unix_path(text.removeprefix(UNIX_PREFIX))
        return text, 0
    host, separator, port_text = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r} needs brackets around an IPv6 address, as in [::1]:7001")
    if not separator or not host:
        raise ValueError(f"{text!r} is not host:port")
    is_number = port_text.isascii() and port_text.isdigit() and len(port_text) <= 5
    if not (is_number and port_min <= int(port_text) <= 65535):
        raise ValueError(f"{port_text[:20]!r} is not a port between {port_min} and 65535")
    check_host(host, bracketed=bracketed, listening=listening)
    return host, int(port_text)


def check_host(host: str, *, bracketed: bool = False, listening: bool = False) -> None:
    """Refuse what can be neither a host name nor a literal address.

    Raises:
        ValueError: says what is wrong.
    """
    if host == EVERY_ADDRESS and not bracketed:
        if not listening:
            raise ValueError(f"{host!r} is not a host name: it stands for every address, and only [listen] takes it")
        return
    if host.startswith(tuple(NAME_PREFIXES)):
        host = split_family(host)[0]
    if not 1 <= len(host) <= HOST_SIZE_MAX:
        raise ValueError(f"{host[:20]!r} is not a host of 1 to {HOST_SIZE_MAX} characters")
    if bracketed or ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError(f"{host!r} is not an IPv6 address") from None
        # What stands behind a `%` is the name of an interface, which ipaddress does not look at.
        if not host.isprintable() or any(character.isspace() or character in "[]/" for character in host):
            raise ValueError(f"{host!r} is not an IPv6 address with the name of an interface")
    elif not host.isprintable() or any(character.isspace() or character in "[]*/%" for character in host):
        raise ValueError(f"{host!r} is not a host name")
    elif host.replace(".", "").isdigit():
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise ValueError(f"{host!r} is not an IPv4 address") from None


def check_unix_path(path: str) -> None:
    """Refuse a path that a unix socket cannot have.

    Raises:
        ValueError: says what is wrong.
    """
    try:
        size = len(path.encode("utf-8"))
    except UnicodeEncodeError:
        raise ValueError(f"{path!r} is not text that UTF-8 can express") from None
    if not path.startswith("/") or path.endswith("/"):
        raise ValueError(f"{path!r} is not the absolute path of a socket, as in unix:/run/alice.sock")
    if not path.isprintable():
        raise ValueError(f"{path!r} has unprintable characters")
    if size > UNIX_PATH_SIZE_MAX:
        raise ValueError(
            f"the path of a unix socket may have {UNIX_PATH_SIZE_MAX} bytes, {path[:20]!r}... has {size}; "
            "choose a shorter folder"
        )


def format_address(address: Address) -> str:
    """The text for a pair, with brackets where a port would else be part of the address."""
    host, port = address
    if is_unix(host):
        return host
    if host.startswith(tuple(NAME_PREFIXES)):
        return f"{host}/tcp/{port}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_unix(host: str) -> bool:
    """Whether a host is a unix socket."""
    return host.startswith(UNIX_PREFIX)


def unix_path(host: str) -> str:
    """The path of a unix socket."""
    return host.removeprefix(UNIX_PREFIX)


def is_onion(host: str) -> bool:
    """Whether a host is an onion service of Tor's."""
    return host.startswith(ONION_PREFIX)


def split_family(host: str) -> tuple[str, int]:
    """The name or literal, and the family, 4 or 6, of which alone its addresses are meant; 0 for any."""
    for prefix, family in NAME_PREFIXES.items():
        if host.startswith(prefix):
            return host.removeprefix(prefix), family
    return host, 0


def meanings_of(address: Address) -> frozenset[Address]:
    """The pairs that an address certainly stands for, written in one way: `localhost` is 127.0.0.1 and ::1. Two that
    have one in common are one address, which of two names nobody can say without looking them up."""
    host, port = address
    name, family = split_family(host)
    if name == "localhost":
        ours = {4: "127.0.0.1", 6: "::1"}
        return frozenset((literal, port) for version, literal in ours.items() if family in (0, version))
    try:
        address_ = ipaddress.ip_address(name)
    except ValueError:
        return frozenset(((host if is_unix(host) else host.lower(), port),))
    mapped = address_.ipv4_mapped if isinstance(address_, ipaddress.IPv6Address) else None
    return frozenset(((str(mapped or address_), port),))


def is_loopback(host: str) -> bool:
    """Whether a host is certainly this one: a loopback address, the name reserved for it, or a unix socket."""
    host = split_family(host)[0]
    if host == "localhost" or is_unix(host):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
