"""A party's figures at one moment: what each link carried, and what each of its rings looks like.

Between the running engine and a person, or a machine that reads JSON. Reading them disturbs nothing; every figure was
true at some instant of the call.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from partywire.shm.counters import RingStat

    from .worker import Worker

__all__ = ["LaneStat", "LinkStat", "PartyStat", "party_stat"]


@dataclass(frozen=True, slots=True)
class LaneStat:
    """One connection as its worker sees it."""

    connection: int
    bytes_sent: int
    bytes_received: int
    messages_received: int
    sessions: int
    tx: RingStat
    rx: RingStat


@dataclass(frozen=True, slots=True)
class LinkStat:
    """The link to one peer. `cause` says why it is gone; empty while it is up, or was closed in good order."""

    peer: str
    epoch: int
    is_up: bool
    cause: str
    lanes: tuple[LaneStat, ...]


@dataclass(frozen=True, slots=True)
class PartyStat:
    """The opener's share of a party: `worker` 0."""

    name: str
    worker: int
    sessions: int
    inbox_size: int
    inbox_size_max: int
    parked: int
    dropped_stale: int
    dropped_unknown: int
    sleeps: int
    bells_missed: int
    links: tuple[LinkStat, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain containers, for JSON."""
        document = asdict(self)
        for link, link_stat in zip(document["links"], self.links, strict=True):
            for lane, lane_stat in zip(link["lanes"], link_stat.lanes, strict=True):
                lane["tx"] = lane_stat.tx._asdict()
                lane["rx"] = lane_stat.rx._asdict()
        return document


def party_stat(worker: Worker) -> PartyStat:
    """The figures of one worker's lanes."""
    links = tuple(
        LinkStat(
            peer=link.name,
            epoch=link.epoch,
            is_up=link.is_up,
            cause=link.cause,
            lanes=tuple(
                LaneStat(
                    connection=lane.connection,
                    bytes_sent=lane.bytes_sent,
                    bytes_received=lane.bytes_received,
                    messages_received=lane.messages_received,
                    sessions=len(lane.mailboxes),
                    tx=lane.writer.stat(),
                    rx=lane.reader.stat(),
                )
                for lane in link.lanes.values()
            ),
        )
        for link in worker.links.values()
    )
    counters = worker.counters
    return PartyStat(
        name=worker.party.name,
        worker=worker.index,
        sessions=len(worker.table.live),
        inbox_size=worker.inbox_size,
        inbox_size_max=worker.inbox_size_max,
        parked=counters.parked,
        dropped_stale=counters.dropped_stale,
        dropped_unknown=counters.dropped_unknown,
        sleeps=counters.sleeps,
        bells_missed=counters.bells_missed,
        links=links,
    )
