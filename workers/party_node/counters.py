"""What the control plane of a party's opener counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class NodeCounters:
    """Since the party was opened."""

    opened: int = 0
    """Substreams of ours."""
    served: int = 0
    """Substreams of peers that a handler of ours took."""
    handlers_failed: int = 0
    """Handlers that raised an error of their own; what a peer did is none."""
