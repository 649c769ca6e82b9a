"""What a worker publishes about itself while somebody reads: its sessions, its inbox, and what its lanes carried."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from partywire.engine.stat_publish import StatPublisher

if TYPE_CHECKING:
    from partywire.engine.stat_page import Value

    from .worker import Worker


def worker_publisher(worker: Worker) -> StatPublisher:
    """What obeys the supervisor's PublishStat for a worker."""
    return StatPublisher(partial(worker_values, worker))


def worker_values(worker: Worker) -> list[Value]:
    """A worker's figures of this moment."""
    from partywire.engine.stat_page import Value  # only here: most parties are never watched

    index = str(worker.index)
    own = (("worker", index),)
    counters = worker.counters
    values = [
        Value("sessions", own, len(worker.table.live)),
        Value("inbox_bytes", own, worker.inbox_size),
        Value("inbox_limit_bytes", own, worker.inbox_size_max),
        Value("parked_frames_total", own, counters.parked),
        Value("dropped_stale_frames_total", own, counters.dropped_stale),
        Value("dropped_unknown_frames_total", own, counters.dropped_unknown),
        Value("worker_late_wakeups_total", own, counters.bells_missed),
    ]
    for link in worker.links.values():
        for lane in link.lanes.values():
            labels = (("peer", link.name), ("connection", str(lane.connection)), ("worker", index))
            values += [
                Value("lane_sent_bytes_total", labels, lane.bytes_sent),
                Value("lane_received_bytes_total", labels, lane.bytes_received),
                Value("lane_received_messages_total", labels, lane.messages_received),
                Value("lane_sessions", labels, len(lane.mailboxes)),
                Value("lane_waiting_senders", labels, len(lane.waiters)),
            ]
    return values
