"""What a party logs about its links and processes, for library users and for the command alike.

Between the commands that the opener gets from its supervisor and the loggers `partywire.link`, `partywire.process` and
`partywire.session`. The one invariant: each record says in its fields what its sentence says (`event`, `party`, `peer`,
`cause` ...), and nothing that a peer or a session sent but its name, address and the cause that the engine made of it.

An opener that computes hears of an event later than it happened; the time of a record is when it was heard.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from partywire.engine.commands import LinkEventKind, LinkLost, LinkNews, Refused, Started, Stopped, WorkerLost
from partywire.engine.node_commands import NodeLost

if TYPE_CHECKING:
    from partywire.engine.commands import Message

    from .worker import Worker

link_log = logging.getLogger("partywire.link")
process_log = logging.getLogger("partywire.process")
session_log = logging.getLogger("partywire.session")


class PartyLog:
    """Driven by the party: each command, and its end."""

    def __init__(self, party: str, names: tuple[str, ...]) -> None:
        self._party = party
        self._names = names
        self._refused = 0
        self._lost_told: set[str] = set()  # peers whose loss was logged, and whose link was not made anew since
        self._pids: dict[str, int] = {}  # of our processes, once all are started
        self._lost_processes: list[str] = []  # what was said of processes that died since
        for logger in (link_log, process_log, session_log):
            if not logger.handlers:
                # Without it, what also raises at every session would stand on the standard error of any program.
                logger.addHandler(logging.NullHandler())
        self._is_closing = False  # what ends now was meant to
        self._is_stopped = False  # the supervisor has said its last word

    def hear(self, message: Message) -> None:
        """Log a command of the supervisor, if it tells of something that happened."""
        if isinstance(message, LinkNews):
            self._hear_news(message)
        elif isinstance(message, Refused):
            self._hear_refused(message)
        elif isinstance(message, Started):
            self._hear_started(message)
        elif isinstance(message, WorkerLost | LinkLost | NodeLost):
            self._lost_processes.append(message.cause)
        elif isinstance(message, Stopped):
            self._is_stopped = True

    def _hear_started(self, started: Started) -> None:
        """The first time everybody is started; later, who took the place of a process that died."""
        before, self._pids = self._pids, dict(started.pids)
        causes, self._lost_processes = self._lost_processes, []
        cause = causes[-1] if causes else ""
        for role, pid in self._pids.items():
            if before.get(role, pid) != pid:
                what = f"{role} is started again as process {pid}{because(cause)}"
                process_log.warning("%s: %s", self._party, what, extra=self._extra("process_restarted", cause=what))

    def _hear_news(self, news: LinkNews) -> None:
        peer = self._names[news.peer] if 0 <= news.peer < len(self._names) else str(news.peer)
        event = news.kind.replace(" ", "_")
        is_loss = news.kind == LinkEventKind.CLOSED.value and bool(news.cause) and not self._is_closing
        level = logging.WARNING if is_loss else logging.INFO
        if is_loss:
            event = "lost"
            self._lost_told.add(peer)
        elif news.kind in (LinkEventKind.ACCEPTED.value, LinkEventKind.CONNECTED.value):
            self._lost_told.discard(peer)
        sentence = f"{self._party}: the link to {peer}"
        said = {
            "accepted": f"{sentence} was accepted from {news.address}",
            "connected": f"{sentence} was dialled at {news.address}",
            "closed": f"{sentence} is closed{because(news.cause)}",
            "lost": f"{sentence} is lost{because(news.cause)}",
        }.get(event, f"{sentence}: {news.kind} at {news.address}{because(news.cause)}")
        fields = {"peer": peer, "cause": news.cause or None, "address": news.address or None}
        link_log.log(level, "%s", said, extra=self._extra(f"link_{event}", **fields))
        if news.dropped:
            extra = self._extra("link_events_dropped", count=news.dropped)
            link_log.warning("%s: %d events of links were not told", self._party, news.dropped, extra=extra)

    def _hear_refused(self, refused: Refused) -> None:
        kinds = (
            (refused.unknown, "of unknown parties"),
            (refused.garbage, "not PartyWire"),
            (refused.silent, "silent"),
            (refused.crowded, "too many at once"),
        )
        cause = ", ".join(f"{count} {what}" for count, what in kinds if count)
        extra = self._extra("connections_refused", count=refused.total - self._refused, cause=cause)
        self._refused = refused.total
        link_log.warning("%s: connections at our address were refused: %s", self._party, cause, extra=extra)

    def begin_closing(self, worker: Worker) -> None:
        """The party is about to say goodbye. Its worker may know of losses that it had no time to hear of."""
        self._tell_losses(worker)
        self._is_closing = True

    def end(self, worker: Worker) -> None:
        """The party ends, closed or not: what its worker knows and nobody told yet."""
        if not self._is_closing:
            self._tell_losses(worker)
        self._tell_rest(worker)

    def _tell_losses(self, worker: Worker) -> None:
        for link in worker.links.values():
            if link.cause and link.name not in self._lost_told and worker.failure is None:
                extra = self._extra("link_lost", peer=link.name, cause=link.cause)
                link_log.warning("%s: the link to %s was lost: %s", self._party, link.name, link.cause, extra=extra)

    def _tell_rest(self, worker: Worker) -> None:
        for index, died in worker.lost_workers.items():
            extra = self._extra("worker_died", worker=index, cause=died.cause)
            process_log.error("%s", died, extra=extra)
        if worker.failure is not None and not self._is_stopped:  # behind its last word the supervisor ends
            extra = self._extra("party_failed", cause=worker.failure.cause)
            process_log.error("%s", worker.failure, extra=extra)
        counters = worker.counters
        for count, event, what in (
            (counters.dropped_stale, "late_frames_dropped", "late frames of closed sessions were dropped"),
            (counters.dropped_unknown, "unknown_frames_dropped", "frames of unknown sessions were refused"),
        ):
            if count:
                extra = self._extra(event, count=count)
                session_log.info("%s: %d %s", self._party, count, what, extra=extra)

    def _extra(self, event: str, **fields: object) -> dict[str, object]:
        return {"event": event, "party": self._party, **fields}


def because(cause: str) -> str:
    return f": {cause}" if cause else ""
