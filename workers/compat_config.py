"""The tables [compat.NAME] of a configuration: which peers speak another protocol than ours.

Between whoever writes the configuration and `PartyConfig`. The one invariant: what is read here can be used, and every
problem is reported at once, each with its key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from partywire.engine.addresses import is_unix
from partywire.engine.iris_options import CONNECTIONS_MAX, VERSION_VALIDATE, VERSIONS, IrisOptions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .config import PartyConfig

PROTOCOL: Final = "iris"
_KEYS: Final = ("protocol", "connections", "version")


def iris_options(table: Mapping[str, Any]) -> IrisOptions:
    """The options of a table in which nothing is wrong."""
    return IrisOptions(table.get("connections", 1), table.get("version", VERSION_VALIDATE))


def compat_problems(config: PartyConfig) -> Iterable[tuple[str, str]]:
    """Every (key, problem) of `config.compat`."""
    for name, table in config.compat.items():
        if not isinstance(table, Mapping):
            yield f"compat.{name}", f"must be a table: [compat.{name}]"
            continue
        yield from _table_problems(name, table)
        if name not in config.parties or name == config.name:
            yield f"compat.{name}", "is not one of our peers in [parties]"
        elif is_unix(config.parties[name][0]):
            yield f"compat.{name}", "needs an address of TCP"
        elif config.insecure is not True and not config.is_loopback:
            yield f"compat.{name}", "needs insecure = true: that protocol is plaintext here, and proves no names"
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


def compat_lines(compat: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The tables as lines of a configuration file."""
    lines: list[str] = []
    for name, table in compat.items():
        lines += ["", f"[compat.{_quoted(name)}]"]
        lines += [f"{key} = {_quoted(value) if isinstance(value, str) else value}" for key, value in table.items()]
    return lines


def _quoted(text: str) -> str:
    """A TOML string of a name or version, which have no unprintable characters."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
