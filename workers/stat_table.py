"""A party's figures as text for people: three small tables and a line for whatever needs attention.

Between a PartyView and standard output. The one invariant: the text says nothing that the view does not; what is not
known is a dash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .progress import scaled
from .stat_view import STALL_PEER, STALL_WORKER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .stat_view import LaneView, LinkView, PartyView, ProcessView, Rated, WorkerView

UNKNOWN = "-"
GAP = "  "
STALE_AFTER_S = 3.0
"""A worker whose figures are older computes without a pause, or is stopped."""

STALL_SENTENCES = {
    STALL_WORKER: "worker {worker} is slow: it does not take what {peer} sent (rx ring {rx})",
    STALL_PEER: "{peer} or the network is slow: it does not take what we send (tx ring {tx})",
}


def party_lines(view: PartyView) -> list[str]:
    """Everything about one party."""
    lines = [f"{view.party}  pid {view.pid}, up {duration_text(view.uptime_s)} (since {view.started})"]
    head = ["link", "state", "epoch", "heard", "sent/s", "received/s", "messages/s", "tx ring", "rx ring", "sessions"]
    lines += table([head, *(link_row(link) for link in view.links)])
    lines += table([["worker", "sessions", "inbox", "parked", "late", "unknown", "published"]]
                   + [worker_row(worker) for worker in view.workers])  # fmt: skip
    lines += table([["process", "pid", "cpu", "wake-ups/s", "sleeps/s", "now", "memory"]]
                   + [process_row(process) for process in view.processes])  # fmt: skip
    if view.node is not None:
        lines.append(GAP + node_text(view.node))
    return lines + [f"! {said}" for said in attention(view)]


def plain_lines(view: PartyView) -> list[str]:
    """One line for each link: for a log, or a program that cuts columns."""
    return [
        f"{view.party} {link.peer} {link.state}"
        f" sent={rate_text(link.bytes_sent, 'B')} received={rate_text(link.bytes_received, 'B')}"
        f" messages={rate_text(link.messages_received)} tx={percent_text(link.tx_depth_percent)}"
        f" rx={percent_text(link.rx_depth_percent)} heard={seconds_text(link.heartbeat_age_s)}"
        + (f" stall={link.stall!r}" if link.stall else "")
        + (f" cause={link.cause!r}" if link.cause else "")
        for link in view.links
    ]


def attention(view: PartyView) -> list[str]:
    """What is not as it should be, in sentences."""
    said = [f"{link.peer}: {link.cause}" for link in view.links if link.cause]
    for link in view.links:
        said += [stall_sentence(link, lane) for lane in link.lanes if lane.stall]
    for worker in view.workers:
        if worker.published_age_s is None:
            said.append(f"worker {worker.worker} has not answered yet: it computes without a pause, or is stopped")
        elif worker.published_age_s > STALE_AFTER_S:
            age = seconds_text(worker.published_age_s)
            said.append(f"worker {worker.worker} last answered {age} ago: it computes without a pause, or is stopped")
        if worker.inbox_percent is not None and worker.inbox_percent >= 50:
            said.append(
                f"worker {worker.worker}: the inbox is {percent_text(worker.inbox_percent)} full; sessions do not "
                "receive what came (limits.inbox_mib)"
            )
        if worker.late_wakeups:
            said.append(f"worker {worker.worker}: {worker.late_wakeups} lost wake-ups; please report this")
    said += [f"the {process.role} process has ended" for process in view.processes if not process.is_running]
    refused = ", ".join(f"{count} {reason}" for reason, count in view.refused_connections.items() if count)
    if refused:
        said.append(f"refused connections at our address: {refused}")
    if view.worker_losses:
        said.append(f"{view.worker_losses} further workers died")
    if view.gateway_restarts:
        said.append(f"the gateway was restarted {view.gateway_restarts} times")
    return said


def stall_sentence(link: LinkView, lane: LaneView) -> str:
    rx = UNKNOWN if lane.rx is None else percent_text(lane.rx.depth_percent)
    tx = UNKNOWN if lane.tx is None else percent_text(lane.tx.depth_percent)
    return STALL_SENTENCES[lane.stall].format(worker=lane.worker, peer=link.peer, rx=rx, tx=tx)


# Rows.


def link_row(link: LinkView) -> list[str]:
    sessions = [lane.sessions for lane in link.lanes if lane.sessions is not None]
    return [
        link.peer,
        link.state,
        UNKNOWN if link.epoch is None else str(link.epoch),
        seconds_text(link.heartbeat_age_s),
        rate_text(link.bytes_sent, "B"),
        rate_text(link.bytes_received, "B"),
        rate_text(link.messages_received),
        percent_text(link.tx_depth_percent),
        percent_text(link.rx_depth_percent),
        str(sum(sessions)) if sessions else UNKNOWN,
    ]


def worker_row(worker: WorkerView) -> list[str]:
    inbox = UNKNOWN
    if worker.inbox_size is not None:
        inbox = f"{scaled(worker.inbox_size)}B ({percent_text(worker.inbox_percent)})"
    return [
        str(worker.worker),
        UNKNOWN if worker.sessions is None else str(worker.sessions),
        inbox,
        total_text(worker.parked),
        total_text(worker.dropped_stale),
        total_text(worker.dropped_unknown),
        UNKNOWN if worker.published_age_s is None else f"{seconds_text(worker.published_age_s)} ago",
    ]


def node_text(node: dict[str, int]) -> str:
    """The peers of the party's node in one line, with those counts that are not 0."""
    counts = ", ".join(
        f"{count} {name.replace('_', ' ')}" for name, count in node.items() if count and name != "connections"
    )
    return f"node: {node['connections']} peers connected" + (f" ({counts})" if counts else "")


def process_row(process: ProcessView) -> list[str]:
    if not process.is_running:
        now = "ended"
    else:
        now = UNKNOWN if process.is_asleep is None else "asleep" if process.is_asleep else "awake"
    return [
        process.role,
        str(process.pid),
        percent_text(process.cpu_percent),
        rate_text(process.wakeups),
        rate_text(process.sleeps),
        now,
        UNKNOWN if process.memory_size is None else f"{scaled(process.memory_size)}B",
    ]


# Cells.


def rate_text(rated: Rated, unit: str = "") -> str:
    return UNKNOWN if rated.per_s is None else f"{scaled(rated.per_s)}{unit}".rstrip()


def total_text(rated: Rated) -> str:
    return UNKNOWN if rated.total is None else str(rated.total)


def percent_text(percent: float | None) -> str:
    return UNKNOWN if percent is None else f"{percent:.0f} %"


def seconds_text(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else f"{seconds:.1f} s"


def duration_text(seconds: float) -> str:
    """Two units are enough: 1 h 5 min."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    shown = [f"{count} {unit}" for count, unit in parts if count][:2]
    return " ".join(shown) or "0 s"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines, each column as wide as its widest cell; the first one to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *others = (
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append(GAP + GAP.join([first, *others]).rstrip())
    return lines
