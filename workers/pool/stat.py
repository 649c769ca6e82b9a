"""What has passed through a pool, as its `stat` returns it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PeerTraffic:
    """What has passed between us and one peer since the pool was made. Bytes are those of our messages, ids included,
    without what the links add."""

    messages_sent: int
    bytes_sent: int
    messages_received: int
    bytes_received: int
    bytes_unread: int
    """Of messages that have arrived and were not received yet, with an overhead for each."""


@dataclass(frozen=True, slots=True)
class PoolStat:
    """Figures of one moment."""

    peers: dict[str, PeerTraffic]

    @property
    def total(self) -> PeerTraffic:
        """The sums over all peers."""
        traffic = self.peers.values()
        return PeerTraffic(
            sum(peer.messages_sent for peer in traffic),
            sum(peer.bytes_sent for peer in traffic),
            sum(peer.messages_received for peer in traffic),
            sum(peer.bytes_received for peer in traffic),
            sum(peer.bytes_unread for peer in traffic),
        )
