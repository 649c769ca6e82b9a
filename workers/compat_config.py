"""The tables [compat.NAME] of a configuration: which peers speak another protocol than ours.

Between whoever writes the configuration and `PartyConfig`. The one invariant: what is read here can be used, and every
problem is reported at once, each with its key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from partywire.engine.addresses import format_address, is_unix, parse_address
from partywire.engine.iris_options import CONNECTIONS_MAX, VERSION_VALIDATE, VERSIONS, IrisOptions
from partywire.engine.topology import dials

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .config import PartyConfig

PROTOCOL: Final = "iris"
_KEYS: Final = ("protocol", "connections", "version", "tls", "listen", "certificate_name")

NAME_SIZE_MAX: Final = 253
"""Characters of a name in a certificate, as DNS has it."""


def iris_options(table: Mapping[str, Any]) -> IrisOptions:
    """The options of a table in which nothing is wrong."""
    return IrisOptions(
        connections=table.get("connections", 1),
        version=table.get("version", VERSION_VALIDATE),
        tls=speaks_tls(table),
        listen=table.get("listen", ""),
        certificate_name=table.get("certificate_name", ""),
    )


def speaks_tls(table: object) -> bool:
    """Whether the link of the peer with this table, in which anything may be wrong, is secured by TLS."""
    return isinstance(table, Mapping) and table.get("tls") is True


def compat_problems(config: PartyConfig) -> Iterable[tuple[str, str]]:
    """Every (key, problem) of `config.compat`."""
    ours = config.listen or [address for name, address in config.parties.items() if name == config.name]
    seen = {format_address(address): "our other links" for address in ours}
    for name, table in config.compat.items():
        if not isinstance(table, Mapping):
            yield f"compat.{name}", f"must be a table: [compat.{name}]"
            continue
        yield from _table_problems(name, table)
        if name not in config.parties or name == config.name:
            yield f"compat.{name}", "is not one of our peers in [parties]"
        elif is_unix(config.parties[name][0]):
            yield f"compat.{name}", "needs an address of TCP"
        elif speaks_tls(table):
            yield from _port_problems(f"compat.{name}.listen", table, dials(name, config.name), name, seen)
        elif config.insecure is not True and not config.is_loopback:
            yield f"compat.{name}", "needs tls = true, or insecure = true: else it is plaintext, and proves no names"
    if config.compat and config.workers != 1:
        yield "workers", "must be 1 when a peer has a [compat] table"


def _table_problems(name: str, table: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    prefix = f"compat.{name}."
    for key in table:
        if key not in _KEYS:
            yield f"{prefix}{key}", f"is not a setting; known are {', '.join(_KEYS)}"
    if table.get("protocol") != PROTOCOL:
        yield f"{prefix}protocol", f'must be "{PROTOCOL}", the only other protocol that is known'
    connections = table.get("connections", 1)
    if type(connections) is not int or not 1 <= connections <= CONNECTIONS_MAX:
        yield f"{prefix}connections", f"must be a whole number between 1 and {CONNECTIONS_MAX}"
    if table.get("version", VERSION_VALIDATE) not in VERSIONS:
        yield f"{prefix}version", f"must be one of {', '.join(VERSIONS)}"
    if type(table.get("tls", False)) is not bool:
        yield f"{prefix}tls", "must be true or false"
    certificate_name = table.get("certificate_name", "name")
    is_name = isinstance(certificate_name, str) and 1 <= len(certificate_name) <= NAME_SIZE_MAX
    if not is_name or not certificate_name.isascii() or not certificate_name.isprintable():
        yield f"{prefix}certificate_name", f"must be a DNS name in quotes, of 1 to {NAME_SIZE_MAX} characters of ASCII"
    for key in ("listen", "certificate_name"):
        if key in table and not speaks_tls(table):
            yield f"{prefix}{key}", "is for a peer with tls = true"


def _port_problems(
    key: str, table: Mapping[str, Any], is_dialled: bool, name: str, seen: dict[str, str]
) -> Iterable[tuple[str, str]]:
    """What is wrong with the port that is this peer's alone; adds it to `seen`, which holds whose the others are."""
    listen = table.get("listen")
    if not is_dialled:
        if listen is not None:
            yield key, f"must be left out: we dial {name}, whose name is smaller than ours"
        return
    if listen is None:
        yield key, f"is missing: the address with a port of its own that {name} dials"
        return
    try:
        address = parse_address(listen, listening=True) if isinstance(listen, str) else None
    except ValueError as error:
        yield key, str(error)
        return
    if address is None or is_unix(address[0]):
        yield key, 'must be an address of TCP in quotes: "host:port"'
    elif (other := seen.setdefault(format_address(address), f"[compat.{name}]")) != f"[compat.{name}]":
        yield key, f"is the address of {other} as well; each such peer needs a port of its own"


def compat_lines(compat: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The tables as lines of a configuration file."""
    lines: list[str] = []
    for name, table in compat.items():
        lines += ["", f"[compat.{_quoted(name)}]"]
        lines += [f"{key} = {_value(value)}" for key, value in table.items()]
    return lines


def _value(value: object) -> str:
    if isinstance(value, str):
        return _quoted(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _quoted(text: str) -> str:
    """A TOML string of a name, version or address, which have no unprintable characters."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
