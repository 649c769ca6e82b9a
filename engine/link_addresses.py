"""Multiaddresses of links, servers and pools: which pair each stands for, and which are refused.

    /ip4/10.0.0.1/tcp/7101   /ip6/fd00::2/tcp/7101   /ip6zone/eth0/ip6/fe80::1/tcp/7101   /unix/run/alice.sock
    /dns/bob.example/tcp/7101   /dns4/bob.example/tcp/7101   /dns6/bob.example/tcp/7101   /onion3/<56>:7101

Between `addresses`, which hands over every text that begins with a slash, and `multiaddr`, which knows what the parts
look like. The one invariant: a multiaddress and the host:port that means the same become equal pairs; one that the two
ends of a link could not use as it stands is a ValueError with a sentence, and nothing of it is ignored.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from .addresses import (
    EVERY_ADDRESS,
    ONION_PREFIX,
    UNIX_PREFIX,
    check_host,
    is_onion,
    is_unix,
    parse_address,
    split_family,
    unix_path,
)
from .multiaddr import Multiaddr

if TYPE_CHECKING:
    from .addresses import Address
    from .multiaddr import Part

ONION_SUFFIX: Final = ".onion"

_REFUSALS: Final = {
    "p2p": "leave /p2p out: nobody here looks at whom it names",
    "memory": "/memory is within one process, and this is between processes; /unix is for those of one host",
    "ws": "nothing here is carried over a WebSocket; leave /ws out",
    "wss": "nothing here is carried over a WebSocket; leave /wss out",
    "tls": "leave /tls out: no address says here what is encrypted, settings do",
    "utp": "/utp has a place among addresses, but nobody here carries it; use /tcp",
    "udp": "nobody here carries /udp; use /tcp",
}
"""Parts that stand for something else than the way to a socket, and why they are refused; the first that is found."""


def pair_of(text: str, *, listening: bool = False, port_min: int = 1) -> Address:
    """The pair that a multiaddress stands for.

    Raises:
        ValueError: says what is wrong, or why it cannot be used here.
    """
    address = Multiaddr.parse(text)
    host, rest = _host_of(text, address)
    match rest:
        case () if is_unix(host):
            return host, 0
        case () if is_onion(host):
            service, _, port = host.partition(":")
            if listening:
                raise ValueError(
                    f"{text} is an onion service, which Tor listens for: listen where Tor delivers, as at "
                    "/ip4/127.0.0.1/tcp/7101 (docs/networks.md)"
                )
            return service, int(port)
        case (("tcp", int(number)),):
            if number < port_min:
                raise ValueError(f"{number} in {text} is not a port between {port_min} and 65535")
            return host, number
    raise ValueError(f"{text} lacks its port, as in {text}/tcp/7101" if not rest else _unknown(text))


def host_of(text: str, *, listening: bool = False) -> str:
    """The host that a multiaddress without a port stands for, /ip4/10.0.0.1 say, or `text` if it is none.

    Raises:
        ValueError: says what is wrong.
    """
    if not text.startswith("/"):
        check_host(text, listening=listening)
        return text
    host, rest = _host_of(text, Multiaddr.parse(text))
    if rest or is_unix(host) or is_onion(host):
        raise ValueError(f"{text} is more than the address of a host, as in /ip4/10.0.0.1")
    return host


def host_and_port_of(text: str, *, listening: bool = False) -> tuple[str, int | None]:
    """The host, and the port if it has one, of a text that is either a host or a multiaddress; no port is looked for in
    the former.

    Raises:
        ValueError: says what is wrong.
    """
    if text.startswith("/") and "tcp" in Multiaddr.parse(text).protocols:
        return pair_of(text, listening=listening, port_min=0 if listening else 1)
    return host_of(text, listening=listening), None


def multiaddr_of(address: Address) -> Multiaddr:
    """The multiaddress of a pair: of a literal host /ip4 or /ip6, of a name /dns, /dns4 or /dns6.

    Raises:
        ValueError: it has none: `*`, or the port of an onion service that is not known.
    """
    host, port = address
    if is_unix(host):
        return Multiaddr([("unix", unix_path(host))])
    if is_onion(host):
        return Multiaddr([("onion3", f"{host.removeprefix(ONION_PREFIX)}:{port}")])
    if host == EVERY_ADDRESS:
        raise ValueError(f"{host!r} stands for several addresses")
    name, family = split_family(host)
    literal, _, zone = name.partition("%")
    parts: list[Part] = [("ip6zone", zone)] if zone else []
    try:
        parts.append((f"ip{ipaddress.ip_address(literal).version}", literal))
    except ValueError:
        parts = [(f"dns{family or ''}", name)]
    return Multiaddr([*parts, ("tcp", port)])


def service_of(text: str) -> Multiaddr:
    """The multiaddress of a service such as a proxy, over TCP or a unix socket: given as one, or as host:port.

    Raises:
        ValueError: says what is wrong.
    """
    host, port = parse_address(text)
    if is_onion(host):
        raise ValueError(f"{text} is neither an address of TCP nor of a unix socket")
    return multiaddr_of((host, port))


def onion_name(host: str) -> str:
    """The name by which a proxy, and TLS, know an onion service; any other host's name without its family."""
    if is_onion(host):
        return host.removeprefix(ONION_PREFIX) + ONION_SUFFIX
    return split_family(host)[0]


def _host_of(text: str, address: Multiaddr) -> tuple[str, tuple[Part, ...]]:
    """The host, an onion service with its port, and the parts behind it."""
    for protocol, refusal in _REFUSALS.items():
        if protocol in address.protocols:
            raise ValueError(f"{text}: {refusal}")
    match address.parts:
        case (("ip4" | "ip6", str(host)), *rest):
            return host, tuple(rest)
        case (("ip6zone", str(zone)), ("ip6", str(host)), *rest):
            return f"{host}%{zone}", tuple(rest)
        case (("dns" | "dns4" | "dns6" as kind, str(name)), *rest):
            _refuse_literal(text, name)
            return name if kind == "dns" else f"/{kind}/{name}", tuple(rest)
        case (("unix", str(path)),):
            return f"{UNIX_PREFIX}{path}", ()
        case (("onion3", str(value)),):
            return f"{ONION_PREFIX}{value}", ()
    raise ValueError(_unknown(text))


def _refuse_literal(text: str, name: str) -> None:
    try:
        version = ipaddress.ip_address(name.partition("%")[0]).version
    except ValueError:
        return
    raise ValueError(f"{text} looks {name} up, which is an address and not a name; write /ip{version}/{name}")


def _unknown(text: str) -> str:
    return f"{text} is no way to a socket, as /ip4/10.0.0.1/tcp/7101 is; docs/networks.md lists what can stand here"
