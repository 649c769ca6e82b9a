"""A NodeConfig as the table [node] of a file: for what writes configurations, and for the process that runs a node.

Between `NodeConfig` and its reader (config_file.py). The one invariant: `read_node_table(table_of(config))` is equal to
`config`, for every configuration that keeps the bounds of files.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .config import NodeConfig

_TEXTS: Final = ("identity", "store", "user_agent")
_TABLES: Final = ("messages", "rpc", "socks", "onion")


def table_of(config: NodeConfig) -> dict[str, Any]:
    """What a file would say: texts, numbers, truth values, lists and tables of these; nothing that is the default."""
    table: dict[str, Any] = {key: text for key in _TEXTS if (text := getattr(config, key))}
    if config.features:
        table["features"] = config.features
    if config.strangers is not None:
        table["strangers"] = config.strangers
    if config.listen:
        table["listen"] = [str(address) for address in config.listen]
    if config.advertise is not None:
        table["advertise"] = [str(address) for address in config.advertise]
    if config.peers:
        table["peers"] = {str(peer): [str(one) for one in addresses] for peer, addresses in config.peers.items()}
    if config.protocols:
        table["protocols"] = dict(config.protocols)
    if config.connections is not None:
        # With Tor the default of this one is another, so it is always said, and the table is there.
        always = {"dial_timeout_s": config.connections.dial_timeout_s}
        table["connections"] = _set_of(config.connections) | always
        table["substreams"] = _set_of(config.connections.substreams)
    for key in _TABLES:
        if (value := getattr(config, key)) is not None:
            table[key] = _set_of(value)
    return {key: value for key, value in table.items() if value != {}}


def _set_of(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not the default."""
    plain: dict[str, Any] = {}
    for one in fields(value):
        given = getattr(value, one.name)
        default = one.default_factory() if one.default_factory is not MISSING else one.default
        if one.name != "substreams" and given != default:
            plain[one.name] = sorted(map(str, given)) if isinstance(given, frozenset) else _plain(given)
    return plain


def _plain(given: Any) -> Any:
    return list(given) if isinstance(given, tuple) else given


def node_lines(config: NodeConfig) -> list[str]:
    """The lines of a file that `read_node_table` reads back as an equal configuration."""
    table = table_of(config)
    lines = ["[node]  # the peer-to-peer node of this party: docs/node.md"]
    lines += [f"{key} = {_value(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for name, own in table.items():
        if isinstance(own, dict):
            lines += ["", f"[node.{name}]", *(f"{_quoted(key)} = {_value(value)}" for key, value in own.items())]
    return lines


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    """A value as TOML, whose texts, numbers and lists of texts are those of JSON."""
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return _quoted(value) if isinstance(value, str) else json.dumps(value)
