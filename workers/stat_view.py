"""What a party's figures mean together: rates between two snapshots, depths in percent, and who holds up whom.

Between the stat reader and those who show (tables, JSON). The one invariant: a figure that is not known is None and
never a guess; a rate is over the time between the two publications that it comes from, however late a reader is.

The dataclasses are the schema of `partywire stat --json`, which docs/operations.md describes: SCHEMA grows when a field
changes its meaning or goes, not when one is added.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from partywire.engine.stat_server import OPENER, SUPERVISOR

if TYPE_CHECKING:
    from .stat_reader import PartySnapshot

SCHEMA: Final = 1

Key = tuple[str, frozenset[tuple[str, str]]]

STALL_PEER: Final = "peer or network slow"
STALL_WORKER: Final = "worker slow"


@dataclass(frozen=True, slots=True)
class Rated:
    """Something that only grows: how much by now, and how fast it grew. None: not known."""

    total: int | None
    per_s: float | None


@dataclass(frozen=True, slots=True)
class RingView:
    """One ring. tx: from the worker to the I/O process; rx: back. Sizes in bytes."""

    capacity: int
    depth: int
    depth_percent: float
    depth_max_percent: float
    bytes: Rated
    records: Rated
    full: Rated
    bells: Rated
    is_stalled: bool


@dataclass(frozen=True, slots=True)
class LaneView:
    """One connection of a link, and the worker that uses it."""

    connection: int
    worker: int
    sessions: int | None
    waiting_senders: int | None
    bytes_sent: Rated
    bytes_received: Rated
    messages_received: Rated
    tx: RingView | None
    rx: RingView | None
    stall: str


@dataclass(frozen=True, slots=True)
class LinkView:
    """The link to one peer: the sums of its lanes, and each of them."""

    peer: str
    state: str
    is_up: bool
    epoch: int | None
    losses: int | None
    cause: str
    heartbeat_age_s: float | None
    bytes_sent: Rated
    bytes_received: Rated
    messages_received: Rated
    tx_depth_percent: float | None  # of the fullest ring
    rx_depth_percent: float | None
    stall: str  # of the first lane that has one
    lanes: tuple[LaneView, ...]


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One compute process's sessions and inbox. Sizes in bytes; None before it has published."""

    worker: int
    sessions: int | None
    inbox_size: int | None
    inbox_size_max: int | None
    inbox_percent: float | None
    parked: Rated
    dropped_stale: Rated
    dropped_unknown: Rated
    late_wakeups: int | None
    published_age_s: float | None


@dataclass(frozen=True, slots=True)
class ProcessView:
    """One process as the kernel and its doorbell show it."""

    role: str
    pid: int
    is_running: bool
    cpu_percent: float | None
    cpu_s: float | None
    wakeups: Rated
    sleeps: Rated
    is_asleep: bool | None
    memory_size: int | None


@dataclass(frozen=True, slots=True)
class PartyView:
    """Everything that `stat` shows of one party."""

    schema: int
    party: str
    parties: tuple[str, ...]
    pid: int  # of the opener
    supervisor_pid: int
    started: str  # RFC 3339, UTC
    uptime_s: float
    interval_s: float | None  # between the two snapshots; None: there was only one, and no rates
    links: tuple[LinkView, ...]
    workers: tuple[WorkerView, ...]
    processes: tuple[ProcessView, ...]
    refused_connections: dict[str, int]
    worker_losses: int
    gateway_restarts: int
    node: dict[str, int] | None  # `connections` that stand, and counts of events by name; None: no node, or silent yet

    def as_dict(self) -> dict[str, Any]:
        """Plain containers, for JSON."""
        return asdict(self)


def party_view(snapshot: PartySnapshot, before: PartySnapshot | None = None) -> PartyView:
    """The figures of one moment; with an earlier snapshot also rates."""
    figures = _Figures(snapshot, before)
    started = datetime.fromtimestamp(snapshot.started_ns / 1e9, UTC)
    refused = {dict(value.labels)["reason"]: value.value for value in snapshot.values("refused_connections_total")}
    return PartyView(
        schema=SCHEMA,
        party=snapshot.party,
        parties=snapshot.parties,
        pid=snapshot.pids.get(OPENER, 0),
        supervisor_pid=snapshot.pids.get(SUPERVISOR, 0),
        started=started.isoformat(timespec="seconds").replace("+00:00", "Z"),
        uptime_s=max(0.0, time.time() - snapshot.started_ns / 1e9),
        interval_s=None if before is None else (snapshot.taken_ns - before.taken_ns) / 1e9,
        links=tuple(_link(figures, peer) for peer in snapshot.parties if peer != snapshot.party),
        workers=tuple(_worker(figures, index) for index in _workers(snapshot)),
        processes=tuple(_process(figures, role, pid) for role, pid in snapshot.pids.items()),
        refused_connections=refused,
        worker_losses=figures.value("worker_losses_total") or 0,
        gateway_restarts=figures.value("gateway_restarts_total") or 0,
        node=_node(snapshot),
    )


def _node(snapshot: PartySnapshot) -> dict[str, int] | None:
    connections = [value.value for value in snapshot.values("node_connections")]
    if not connections:
        return None
    events = {dict(value.labels)["event"]: value.value for value in snapshot.values("node_events_total")}
    return {"connections": sum(connections), **events}


class _Figures:
    """Values by name and labels, now and before."""

    def __init__(self, now: PartySnapshot, before: PartySnapshot | None) -> None:
        self.now = now
        self.before = before
        self._values = indexed(now)
        self._before = {} if before is None else indexed(before)

    def value(self, name: str, **labels: str) -> int | None:
        found = self._values.get((name, frozenset(labels.items())))
        return None if found is None else found[0]

    def rated(self, name: str, **labels: str) -> Rated:
        """Total and rate; no rate where the process has not published between the snapshots."""
        key = name, frozenset(labels.items())
        now, before = self._values.get(key), self._before.get(key)
        if now is None:
            return Rated(None, None)
        if before is None or now[1] <= before[1] or now[0] < before[0]:
            return Rated(now[0], None)
        return Rated(now[0], (now[0] - before[0]) * 1e9 / (now[1] - before[1]))

    def words(self, name: str, peer: str) -> str:
        """What was published as words about a peer."""
        return next((words.text for words in self.now.words(name) if ("peer", peer) in words.labels), "")


def indexed(snapshot: PartySnapshot) -> dict[Key, tuple[int, int]]:
    """(name, labels) -> the value, and when it was published."""
    return {
        (value.name, frozenset(value.labels)): (value.value, publication.published_ns)
        for publication in snapshot.publications.values()
        for value in publication.values
    }


# Links.


def _link(figures: _Figures, peer: str) -> LinkView:
    lanes = tuple(_lane(figures, peer, worker, connection) for worker, connection in _connections(figures.now, peer))
    heard_ns = figures.value("link_heartbeat_age_seconds", peer=peer)
    return LinkView(
        peer=peer,
        state=figures.words("link_state", peer) or "unknown",
        is_up=figures.value("link_up", peer=peer) == 1,
        epoch=figures.value("link_epoch", peer=peer),
        losses=figures.value("link_losses_total", peer=peer),
        cause=figures.words("link_cause", peer),
        heartbeat_age_s=None if heard_ns is None else max(0, figures.now.taken_ns - heard_ns) / 1e9,
        bytes_sent=summed([lane.bytes_sent for lane in lanes]),
        bytes_received=summed([lane.bytes_received for lane in lanes]),
        messages_received=summed([lane.messages_received for lane in lanes]),
        tx_depth_percent=max((lane.tx.depth_percent for lane in lanes if lane.tx is not None), default=None),
        rx_depth_percent=max((lane.rx.depth_percent for lane in lanes if lane.rx is not None), default=None),
        stall=next((lane.stall for lane in lanes if lane.stall), ""),
        lanes=lanes,
    )


def _connections(snapshot: PartySnapshot, peer: str) -> list[tuple[int, int]]:
    """(worker, connection) of every lane that anybody speaks of."""
    found = set()
    for name in ("ring_capacity_bytes", "lane_sessions"):
        for value in snapshot.values(name):
            labels = dict(value.labels)
            if labels["peer"] == peer:
                found.add((int(labels["worker"]), int(labels["connection"])))
    return sorted(found, key=lambda pair: pair[1])


def _lane(figures: _Figures, peer: str, worker: int, connection: int) -> LaneView:
    labels = {"peer": peer, "connection": str(connection), "worker": str(worker)}
    tx = _ring(figures, labels | {"direction": "tx"})
    rx = _ring(figures, labels | {"direction": "rx"})
    return LaneView(
        connection=connection,
        worker=worker,
        sessions=figures.value("lane_sessions", **labels),
        waiting_senders=figures.value("lane_waiting_senders", **labels),
        bytes_sent=figures.rated("lane_sent_bytes_total", **labels),
        bytes_received=figures.rated("lane_received_bytes_total", **labels),
        messages_received=figures.rated("lane_received_messages_total", **labels),
        tx=tx,
        rx=rx,
        stall=stall_of(tx, rx),
    )


def _ring(figures: _Figures, labels: dict[str, str]) -> RingView | None:
    capacity = figures.value("ring_capacity_bytes", **labels)
    if not capacity:
        return None
    depth = figures.value("ring_depth_bytes", **labels) or 0
    depth_max = figures.value("ring_depth_max_bytes", **labels) or 0
    return RingView(
        capacity=capacity,
        depth=depth,
        depth_percent=100 * depth / capacity,
        depth_max_percent=100 * depth_max / capacity,
        bytes=figures.rated("ring_bytes_total", **labels),
        records=figures.rated("ring_records_total", **labels),
        full=figures.rated("ring_full_total", **labels),
        bells=figures.rated("ring_bells_total", **labels),
        is_stalled=figures.value("ring_stalled", **labels) == 1,
    )


def stall_of(tx: RingView | None, rx: RingView | None) -> str:
    """Who holds a lane up, now or since the snapshot before; "" if nobody does.

    What arrives stands still behind a worker that does not take it. What we send stands still when our I/O process
    cannot give it to the kernel, because the peer's side, or the network, takes no more.
    """
    if rx is not None and (rx.is_stalled or rx.full.per_s):
        return STALL_WORKER
    if tx is not None and (tx.is_stalled or tx.full.per_s):
        return STALL_PEER
    return ""


def summed(parts: list[Rated]) -> Rated:
    """The sum of all that are known; a rate only if every part has one."""
    totals = [part.total for part in parts if part.total is not None]
    rates = [part.per_s for part in parts if part.per_s is not None]
    return Rated(sum(totals) if totals else None, sum(rates) if rates and len(rates) == len(parts) else None)


# Workers and processes.


def _workers(snapshot: PartySnapshot) -> list[int]:
    names = [role.removeprefix("worker ") for role in snapshot.pids if role.startswith("worker ")]
    return sorted(int(name) for name in names if name.isdecimal())


def _worker(figures: _Figures, index: int) -> WorkerView:
    worker = str(index)
    size = figures.value("inbox_bytes", worker=worker)
    size_max = figures.value("inbox_limit_bytes", worker=worker)
    return WorkerView(
        worker=index,
        sessions=figures.value("sessions", worker=worker),
        inbox_size=size,
        inbox_size_max=size_max,
        inbox_percent=100 * size / size_max if size is not None and size_max else None,
        parked=figures.rated("parked_frames_total", worker=worker),
        dropped_stale=figures.rated("dropped_stale_frames_total", worker=worker),
        dropped_unknown=figures.rated("dropped_unknown_frames_total", worker=worker),
        late_wakeups=figures.value("worker_late_wakeups_total", worker=worker),
        published_age_s=figures.now.age_s(f"worker {index}"),
    )


def _process(figures: _Figures, role: str, pid: int) -> ProcessView:
    use = figures.now.uses.get(role)
    before = None if figures.before is None else figures.before.uses.get(role)
    doorbells = doorbells_of(role)
    asleep = [figures.value("process_asleep", process=name) for name in doorbells]
    cpu_percent = wakeups_per_s = None
    if use is not None and before is not None and figures.before is not None:
        elapsed_s = max(figures.now.taken_ns - figures.before.taken_ns, 1) / 1e9
        cpu_percent = 100 * max(0.0, use.cpu_s - before.cpu_s) / elapsed_s
        wakeups_per_s = max(0, use.wakeups - before.wakeups) / elapsed_s
    return ProcessView(
        role=role,
        pid=pid,
        is_running=use is not None,
        cpu_percent=cpu_percent,
        cpu_s=None if use is None else use.cpu_s,
        wakeups=Rated(None if use is None else use.wakeups, wakeups_per_s),
        sleeps=summed([figures.rated("process_sleeps_total", process=name) for name in doorbells]),
        is_asleep=None if use is None or None in asleep else all(asleep),
        memory_size=None if use is None else use.memory_size,
    )


def doorbells_of(role: str) -> list[str]:
    """The names under which the doorbells of a process are shown: an I/O process has one for each link."""
    links = role.removeprefix("links ")
    return [role] if links == role else [f"link {peer}" for peer in links.split(", ")]
