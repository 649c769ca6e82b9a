"""What a worker has carried since it began, over all epochs of its links."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .lane import Lane


class Totals(NamedTuple):
    """What a worker has carried since it began."""

    messages_received: int
    bytes_sent: int
    bytes_received: int


def add_totals(totals: Totals, lane: Lane) -> Totals:
    """The totals with one more lane in them."""
    return Totals(
        totals.messages_received + lane.messages_received,
        totals.bytes_sent + lane.bytes_sent,
        totals.bytes_received + lane.bytes_received,
    )
