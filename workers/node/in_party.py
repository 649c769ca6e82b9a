"""The node of a party: what its table [node] must say beside what every node's must, and what is made of it.

Between `PartyConfig`, which imports this only if there is such a table, and the processes that serve links and the
node. The one invariant: all of them have one identity, whose file is there before the first of them starts; none is
told more of it than the path.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from partywire.engine.addresses import is_unix
from partywire.engine.channel.errors import CredentialError
from partywire.engine.first_bytes import taken_by
from partywire.engine.link_addresses import multiaddr_of, pair_of
from partywire.engine.node_commands import NodeOptions
from partywire.engine.peers.claims import ADDRESSES_MAX, fault_of_address

from ..errors import ConfigError
from .config import NodeConfig
from .config_file import TABLE, read_node_table
from .ground import load_identity
from .table import table_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from partywire.engine.addresses import Address
    from partywire.engine.multiaddr import Multiaddr
    from partywire.engine.peers.identity import NodeIdentity

    from ..config import PartyConfig

TABLE_SIZE_MAX: Final = 20 * 1024
"""Bytes of the table on its way to the node's process. One control message, which has 64 KiB, holds them and once more
the protocols among them."""


def read_table(table: object, path: str, problems: list[tuple[str, str]]) -> NodeConfig | None:
    """The table [node] of a party's file; what is wrong with it is added to `problems`."""
    try:
        return read_node_table(table, path)
    except ConfigError as error:
        problems += error.problems
        return None


def table_problems(node: object) -> Iterable[tuple[str, str]]:
    """What is wrong with a party's NodeConfig, whoever its peers are."""
    if not isinstance(node, NodeConfig):
        yield TABLE, f"must be a NodeConfig, not a {type(node).__name__}"
        return
    if not node.identity:
        yield f"{TABLE}.identity", "is missing: all processes of a party have one identity, from one file"
    try:
        read_node_table(table := table_of(node), node.path)
    except ConfigError as error:
        yield from error.problems
        return
    if (size := len(json.dumps(table))) > TABLE_SIZE_MAX:
        yield f"{TABLE}.peers", f"makes {size} bytes of settings, at most {TABLE_SIZE_MAX} are possible; use a store"


def party_problems(config: PartyConfig, node: NodeConfig) -> Iterable[tuple[str, str]]:
    """What the node and its party cannot have together."""
    byte = node.options.network_byte
    if whose := taken_by(byte, config.spec):
        yield (
            f"{TABLE}.connections.network_byte",
            f"is {byte:#04x}, and {whose}; choose another one, the same at every node of the network",
        )
    for address in node.listen:
        if _pair_of(address) in config.listen_addresses:
            yield (
                f"{TABLE}.listen",
                f"{address} is the party's own address, where peers reach the node anyway; leave it out",
            )


def _pair_of(address: Multiaddr) -> Address | None:
    """What a party would call it; None for what a party cannot listen on."""
    try:
        return pair_of(str(address), listening=True)
    except ValueError:
        return None


def identity_path(node: NodeConfig) -> str:
    """Where the file of the identity is."""
    return os.path.abspath(node.file(node.identity))


def make_identity(config: PartyConfig) -> NodeIdentity | None:
    """The identity of a party's node, if it has one; its file is made, with mode 0600, if it is not there.

    Raises:
        ConfigError: the file cannot be made or used.
    """
    if config.node is None:
        return None
    try:
        return load_identity(config.node)
    except CredentialError as error:
        raise ConfigError(config.path, ((f"{TABLE}.identity", str(error)),)) from None


def known_identity(config: PartyConfig) -> NodeIdentity | None:
    """The same, but a file that is not there is not made, and then this is None.

    Raises:
        ConfigError: the file cannot be used, or there is no folder to make it in.
    """
    if config.node is None:
        return None
    path = identity_path(config.node)
    if os.path.exists(path):
        return make_identity(config)
    if not os.path.isdir(folder := os.path.dirname(path)):
        raise ConfigError(config.path, ((f"{TABLE}.identity", f"cannot be made: there is no folder {folder}"),))
    return None


def advertised(node: NodeConfig, own: Address) -> tuple[Multiaddr, ...]:
    """What peers are told about where they may dial: `advertise`, or where the node listens, and the address `own` that
    the parties dial, at which the gateway takes peers in."""
    if node.advertise is not None:
        addresses: tuple[Multiaddr, ...] = tuple(node.advertise)
    else:
        addresses = (*node.listen, *([multiaddr_of(own)] if own[1] or is_unix(own[0]) else []))
    is_local = node.options.is_local
    return tuple(one for one in addresses if fault_of_address(one, is_local=is_local) is None)[:ADDRESSES_MAX]


def without_strangers(node: NodeConfig) -> NodeConfig:
    """What holds in a party, unless its table says otherwise: whoever is listed may come, and nobody else."""
    is_said = node.strangers is not None or node.options.allowed is not None
    return node if is_said else replace(node, strangers=False)


def node_options(node: NodeConfig) -> NodeOptions:
    """What the processes of the party are told of it."""
    node = without_strangers(node)
    connections = node.options
    has_echo = connections.liveness_permits > 0 or math.isfinite(connections.self_check_interval_s)
    return NodeOptions(json.dumps(table_of(node)), node.path, connections.network_byte, has_echo=has_echo)


def link_settings(config: PartyConfig) -> dict[str, Any]:
    """The fields of LinkOptions that say what links carry for the node."""
    node = config.node
    assert node is not None
    return {
        "substreams": True,
        "identity_path": identity_path(node),
        "advertised": tuple(map(str, advertised(node, config.parties[config.name]))),
        "user_agent": node.user_agent,
        "features": node.features,
        "protocols": dict(node.protocols),
    }
