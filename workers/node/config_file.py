"""The file of a node: the table [node] of a TOML file. Other tables in it are somebody else's.

Between the person who writes the file and `NodeConfig`. The one invariant: everything that is wrong is reported at
once, each with its key.
"""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from partywire.engine.messaging.messaging import MessagingLimits
from partywire.engine.peers.options import PeerOptions
from partywire.engine.peers.peer_id import PeerId
from partywire.engine.rpc.server import RpcLimits
from partywire.engine.yamux.limits import YamuxLimits

from ..errors import ConfigError
from ..socks_config import SocksConfig
from .config import TOR_DIAL_TIMEOUT_S, NodeConfig, OnionConfig

if TYPE_CHECKING:
    from .config import Problems

FILE_SIZE_MAX: Final = 1024 * 1024

TABLE: Final = "node"

NUMBER_MAX: Final = 2**31 - 1
"""Of every limit and every time: sums of a few of them are still numbers of 64 bits."""

TABLES: Final[dict[str, type]] = {
    "connections": PeerOptions,
    "substreams": YamuxLimits,
    "messages": MessagingLimits,
    "rpc": RpcLimits,
    "socks": SocksConfig,
    "onion": OnionConfig,
}
_ZERO: Final = ("network_byte", "liveness_permits", "idle_keep", "growth_max", "local_port")
"""Numbers that may be 0."""

_PLAIN: Final = (
    "identity",
    "listen",
    "advertise",
    "peers",
    "store",
    "strangers",
    "user_agent",
    "features",
    "protocols",
)


def load_node_config(path: str | Path) -> NodeConfig:
    """The table [node] of a TOML file.

    Raises:
        ConfigError: the file cannot be read, or it says what cannot be; `keys` names every key at fault.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(FILE_SIZE_MAX + 1)
        if len(data) > FILE_SIZE_MAX:
            raise ConfigError(str(path), (("", f"has more than {FILE_SIZE_MAX} bytes"),))
        tables = tomllib.loads(data.decode())
    except OSError as error:
        raise ConfigError(str(path), (("", f"cannot be read: {(error.strerror or str(error)).lower()}"),)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), (("", f"is not TOML: {error}"),)) from error
    if TABLE not in tables:
        raise ConfigError(str(path), ((TABLE, "is missing: the settings of a node are in the table [node]"),))
    return read_node_table(tables[TABLE], str(path))


def read_node_table(table: object, path: str = "") -> NodeConfig:
    """The same of a table that was read already; relative paths are beside the file `path`.

    Raises:
        ConfigError: it says what cannot be.
    """
    if not isinstance(table, dict):
        raise ConfigError(path, ((TABLE, "must be a table: [node]"),))
    problems: Problems = []
    values: dict[str, Any] = {key: table[key] for key in _PLAIN if key in table}
    made: dict[str, Any] = {}
    for key, given in table.items():
        if key in TABLES:
            made[key] = _read(TABLES[key], key, given, problems)
        elif key not in _PLAIN:
            problems.append((key, f"is not a setting; known are {', '.join((*_PLAIN, *TABLES))}"))
    for key in ("messages", "rpc", "socks", "onion"):
        values[key] = _built(TABLES[key], made[key]) if key in made else None
    connections, substreams = made.get("connections"), made.get("substreams")
    if connections is not None or substreams is not None:
        options = dict(connections or {})
        if substreams is not None:
            options["substreams"] = YamuxLimits(**substreams)
        if "socks" in made or "onion" in made:
            options.setdefault("dial_timeout_s", TOR_DIAL_TIMEOUT_S)
        values["connections"] = PeerOptions(**options)
    try:
        config = NodeConfig(**{key: value for key, value in values.items() if value is not None}, path=path)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(path, tuple((f"{TABLE}.{key}", what) for key, what in problems))
    return config


def _built(kind: type, values: dict[str, Any]) -> Any:
    """An object of what was read; None if something that it needs was not, which has been reported."""
    return kind(**values) if _required(kind) <= values.keys() else None


def _required(kind: type) -> set[str]:
    return {one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING}


def _read(kind: type, table: str, given: object, problems: Problems) -> dict[str, Any]:
    """The settings of one table that can be used; every other one is added to `problems`."""
    if not isinstance(given, dict):
        problems.append((table, f"must be a table: [{TABLE}.{table}]"))
        return {}
    settings = {one.name: one.type for one in fields(kind) if one.name != "substreams"}
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in settings:
            problems.append((f"{table}.{key}", f"is not a setting; known are {', '.join(settings)}"))
            continue
        wanted = _fault(str(settings[key]), value, 0 if key in _ZERO else 1)
        if wanted is not None:
            problems.append((f"{table}.{key}", f"must be {wanted}"))
            continue
        try:
            taken = _taken(str(settings[key]), value)
            if not _required(kind):
                kind(**{key: taken})
        except ValueError as error:
            problems.append((f"{table}.{key}", str(error)))
        else:
            values[key] = taken
    problems += [(f"{table}.{key}", "is missing") for key in sorted(_required(kind) - given.keys())]
    return values


def _taken(kind: str, value: Any) -> Any:
    """The value that a setting has in a program. Raises ValueError for what is no id of a peer."""
    if kind.startswith("frozenset[PeerId]"):
        return frozenset(map(PeerId.parse, value))
    return tuple(value) if isinstance(value, list) else value


def _fault(kind: str, value: object, least: int) -> str | None:
    """What a value should have been; None if it is that."""
    match kind:
        case "bool":
            return None if isinstance(value, bool) else "true or false"
        case "int":
            is_good = type(value) is int and least <= value <= NUMBER_MAX
            return None if is_good else f"a whole number, {least} to {NUMBER_MAX}"
        case "float":
            is_good = type(value) in (int, float) and 0 < float(value) <= NUMBER_MAX  # type: ignore[arg-type]
            return None if is_good else f"a number above 0, {NUMBER_MAX} at most"
        case "str":
            return None if isinstance(value, str) else "text in quotes"
        case _:
            is_good = isinstance(value, list) and all(isinstance(one, str) for one in value)
            return None if is_good else "a list of texts in quotes"
