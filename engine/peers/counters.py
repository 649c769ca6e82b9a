"""What the connections of a node count. Plain numbers, one set for a node: none of them is kept for each peer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class PeerCounters:
    """Since the node began. Only the event loop of the connections writes them."""

    dials: int = 0
    """Peers that were dialled."""
    dials_failed: int = 0
    """... and not reached."""
    addresses_failed: int = 0
    """Addresses that did not lead to the peer, at any attempt."""
    connected: int = 0
    """Connections that came to stand, either way."""
    disconnected: int = 0
    inbound: int = 0
    """Streams that were accepted."""
    inbound_refused: int = 0
    """... and closed before they were peers, since too many came, or too many others were not peers yet."""
    inbound_failed: int = 0
    """... and did not become peers: silent, of another network, no proof, refused."""
    liveness_echoes: int = 0
    duplicates: int = 0
    """Connections that gave way to another one to the same peer."""
    banned_refused: int = 0
    """Peers that were turned away for a ban, before or behind their identity."""
    bans: int = 0
    violations: int = 0
    """Protocols that were broken behind a proven identity."""
    reaped: int = 0
    """Connections that were closed since they were idle."""
    negotiations: int = 0
    """Substreams that peers opened."""
    negotiations_failed: int = 0
    """... without agreement: not served, no answer in time, or too many at once."""
    handlers_failed: int = 0
    """Handlers that raised."""
    events_missed: int = 0
    """Events that slow subscribers were told they missed."""
