"""What a worker publishes about itself while somebody reads: its sessions, its inbox, and what its lanes carried.

Between the worker, whose counters exist anyway, and its stat page. The one invariant: nothing is counted for this; the
figures are looked at when the supervisor asks, which is while a reader is attached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from partywire.engine.commands import PublishStat
from partywire.engine.control_socket import close_all
from partywire.engine.stat_page import StatPageError, StatPageWriter, Value

if TYPE_CHECKING:
    from partywire.engine.commands import Message

    from .worker import Worker


class StatPublisher:
    """One worker's page, from the supervisor's first PublishStat on."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._page: StatPageWriter | None = None

    def take(self, message: Message, fds: list[int]) -> None:
        """Obey a PublishStat; another command is nothing to us. Owns the descriptors."""
        if isinstance(message, PublishStat):
            self._publish(fds)
        else:
            close_all(fds)

    def _publish(self, fds: list[int]) -> None:
        if fds:
            page_fd = fds.pop(0)
            close_all(fds)
            self.close()
            try:
                self._page = StatPageWriter(page_fd)
            except StatPageError:
                return  # no memory to map it: the party goes on without
        if self._page is not None:
            self._page.publish(worker_values(self._worker))

    def close(self) -> None:
        """Give the page back; what was published stays readable. May be called again."""
        page, self._page = self._page, None
        if page is not None:
            page.close()


def worker_values(worker: Worker) -> list[Value]:
    """A worker's figures of this moment."""
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
