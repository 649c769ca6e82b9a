"""Where a pool listens, or a peer of it is dialled: a host and a port, or a multiaddress that has both."""

from __future__ import annotations

from partywire.engine.link_addresses import host_and_port_of
from partywire.engine.multiaddr import Multiaddr


def place_of_pool(addr: str, port: int | None, default_port: int, *, listening: bool = False) -> tuple[str, int]:
    """Host and port; `addr` may be a host or a multiaddress such as /ip4/10.0.0.1/tcp/61001.

    Raises:
        ValueError: a multiaddress cannot be used, or there are two ports.
    """
    if not addr.startswith("/"):
        return addr, default_port if port is None else port
    kinds = {"unix", "onion3"} & set(Multiaddr.parse(addr).protocols)
    if kinds:
        raise ValueError(f"{addr}: pools find each other over TCP, at a host and a port, not by /{kinds.pop()}")
    host, own_port = host_and_port_of(addr, listening=listening)
    if own_port is not None and port is not None:
        raise ValueError(f"{addr} has a port of its own; leave the other one, {port}, out")
    given = port if own_port is None else own_port
    return host, default_port if given is None else given
