"""The addresses of a party's configuration: [parties], [listen] and [dial], as host:port or as multiaddresses.

Between the person who writes the file and `PartyConfig`. The one invariant: an address in which no problem was found
can be dialled, or listened on, as the key asks; every problem is reported at once, each with its key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from partywire.engine.addresses import (
    EVERY_ADDRESS,
    Address,
    check_host,
    check_unix_path,
    format_address,
    is_onion,
    is_unix,
    meanings_of,
    parse_address,
    split_family,
    unix_path,
)
from partywire.engine.link_addresses import host_of
from partywire.engine.topology import dials

from .socks_config import socks_problems

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .config import PartyConfig

    Problems = list[tuple[str, str]]

LISTEN_MAX: Final = 8
"""Addresses in [listen]: more than a host has networks that parties come from. Arbitrary."""

FORMS: Final = '"host:port" or a multiaddress such as "/ip4/10.0.0.1/tcp/7101"'


def address_of(key: str, given: object, problems: Problems, *, listening: bool = False) -> Address | None:
    """An address, as text or as (host, port), as the latter; port 0 is for whoever brings a listening socket."""
    try:
        if isinstance(given, str):
            return parse_address(given, listening=listening)
        if isinstance(given, (tuple, list)) and len(given) == 2:
            host, port = given
            if isinstance(host, str) and host and type(port) is int and 0 <= port <= 65535:
                _check_pair(host, port, listening=listening)
                return host, 0 if is_unix(host) else port
    except ValueError as error:
        problems.append((key, str(error)))
        return None
    problems.append((key, f"must be {FORMS}, or (host, port)"))
    return None


def _check_pair(host: str, port: int, *, listening: bool) -> None:
    if is_unix(host):
        check_unix_path(unix_path(host))
    elif is_onion(host):
        parse_address(format_address((host, port)), listening=listening)
    elif host.startswith("/") and split_family(host)[1] == 0:
        raise ValueError(f"{host!r} is a multiaddress where a host belongs: give it as text, with its port")
    else:
        check_host(host, listening=listening)


def listen_addresses_of(given: object, problems: Problems) -> tuple[Address, ...] | None:
    """One address, or several, as a tuple of pairs."""
    key = "listen.address"
    is_several = isinstance(given, (tuple, list)) and all(isinstance(item, (str, tuple, list)) for item in given)
    several = list(given) if is_several and isinstance(given, (tuple, list)) else [given]
    if not 1 <= len(several) <= LISTEN_MAX:
        problems.append((key, f"lists {len(several)} addresses, between 1 and {LISTEN_MAX} are allowed"))
        return None
    pairs = tuple(pair for item in several if (pair := address_of(key, item, problems, listening=True)) is not None)
    twice = sorted({pair for pair in pairs if pairs.count(pair) > 1})
    problems += [(key, f"has {format_address(pair)} twice") for pair in twice]
    return pairs


def client_host_of(given: object, problems: Problems) -> str | None:
    """The local address to dial from: a host, or a multiaddress without a port."""
    key = "dial.client_host"
    if not isinstance(given, str):
        problems.append((key, f"must be a host name or an address without a port, not a {type(given).__name__}"))
        return None
    try:
        host = host_of(given)
        if host == EVERY_ADDRESS or is_unix(host):
            raise ValueError(f"{given!r} is not an address that connections can come from")
    except ValueError as error:
        problems.append((key, f"{error}; it has no port and no brackets"))
        return None
    return host


def address_problems(config: PartyConfig) -> Iterable[tuple[str, str]]:
    """What addresses that can each be used cannot be together, or not at this party."""
    seen: dict[Address, str] = {}
    for name, address in config.parties.items():
        meanings = meanings_of(address) if address[1] or is_unix(address[0]) else frozenset()
        if (other := next((seen[one] for one in meanings if one in seen), None)) is not None:
            yield f"parties.{name}", f"has the same address as {other}"
        seen.update(dict.fromkeys(meanings, name))
        if is_onion(address[0]) and (problem := _onion_problem(config, name)):
            yield f"parties.{name}", problem
    if config.socks is not None:
        yield from socks_problems("dial.socks", config.socks)


def _onion_problem(config: PartyConfig, name: str) -> str:
    if name == config.name:
        if config.listen is not None:
            return ""
        return (
            "is an onion service, which Tor listens for: set [listen] address to where Tor delivers, as in "
            '"127.0.0.1:7101" (docs/networks.md)'
        )
    if config.proxy is not None or not dials(config.name, name):
        return ""
    return f'is an onion service, and we dial {name}: set [dial.socks] address, as in "127.0.0.1:9050" for Tor'
