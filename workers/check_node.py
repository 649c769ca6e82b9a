"""What `partywire check` finds out about the node of a party: who it is, what it serves, where it would listen.

Between `cli_check`, which imports this only if there is a table [node], and the node's settings. The one invariant: no
file is made, no address is listened on; the modules of handlers are loaded, as they are at every start.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from partywire.engine.named_handlers import HandlerNotLoaded, load_handlers
from partywire.engine.transports.routes import Carrier, Upgrade, route_of

from .check_row import Row
from .node.in_party import advertised, known_identity

if TYPE_CHECKING:
    from partywire.engine.addresses import Address

    from .config import PartyConfig
    from .node.config import NodeConfig


def node_rows(config: PartyConfig) -> list[Row]:
    """Everything but its addresses.

    Raises:
        ConfigError: the file of its identity cannot be used.
    """
    assert config.node is not None
    return [*identity_rows(config), *handler_rows(config.node), *_certificate_rows(config.node)]


def identity_rows(config: PartyConfig) -> list[Row]:
    """Who our node is, and where its peers are told to dial it.

    Raises:
        ConfigError: the file of its identity cannot be used.
    """
    assert config.node is not None
    identity = known_identity(config)
    told = advertised(config.node, config.parties[config.name])
    detail = f"its peers are told to dial {' or '.join(map(str, told))}" if told else "its peers are told no address"
    advice = "" if told else "Set advertise in [node], if anybody is to dial it"
    if identity is None:
        return [Row("node", "-", True, "its identity is made at the first start", detail, advice)]
    return [Row("node", str(identity.peer_id), True, "its id", detail, advice)]


def handler_rows(node: NodeConfig) -> list[Row]:
    """Whether each handler that `[node.protocols]` names can be loaded. Runs the code of their modules."""
    rows = []
    for protocol, target in node.protocols.items():
        try:
            load_handlers({protocol: target})
        except HandlerNotLoaded as error:
            advice = f"Correct [node.protocols]; modules are looked for where the party is started, here {os.getcwd()}"
            rows.append(Row("handler", protocol, False, "cannot be loaded", str(error), advice))
        else:
            rows.append(Row("handler", protocol, True, "can be loaded", target))
    return rows


def _certificate_rows(node: NodeConfig) -> list[Row]:
    """Addresses that need what a configuration cannot say."""
    return [
        Row(
            "node",
            str(address),
            False,
            "cannot be listened on",
            "secure WebSockets need a certificate, which only a program can give",
            "Listen at /ws behind a proxy that has the certificate, or leave it out",
        )
        for address in node.listen
        if route_of(address, listening=True).upgrade is Upgrade.WSS
    ]


def node_addresses(node: NodeConfig) -> dict[str, Address]:
    """Where the node would listen, as it is written -> what is bound for that. Those in this process alone are none."""
    routes = {str(address): route_of(address, listening=True) for address in node.listen}
    return {
        text: (route.host, route.port)
        for text, route in routes.items()
        if route.carrier in (Carrier.TCP, Carrier.UNIX) and route.upgrade is not Upgrade.WSS
    }
