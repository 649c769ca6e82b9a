"""How the parties of a service agree which job is next. No I/O: messages in, messages and orders out.

Party 0 orders. Submissions, from whichever party, go to it; it asks everybody whether they take the job, queues it when
all do, and for one job at a time asks everybody to load their data, lets them run it, and gathers how it ended. Every
party (the orderer too) follows what it says; because one session carries it in order, all parties run the same jobs in
the same order, and each is final everywhere with the same causes.

An orderer lives as long as its session. When that is lost, another one takes its place on a new session, even in the
same process: it first hears what every party remembers, and begins with the jobs that are left (serve_settle.py).

The one invariant: Go follows only after every party has voted for the job twice on this session (it may run; its data
are loaded), so no party ever computes alone. What no honest peer can say ends the link to it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from partywire.engine import limits
from partywire.engine.errors import LinkProtocolError

from .serve_book import CANCELLED, DONE, ENTRIES_MAX, FAILED, FINAL, QUEUE_MAX, REFUSED
from .serve_settle import settle
from .serve_words import (
    CAUSE_LENGTH_MAX,
    IS_READY,
    MAY_RUN,
    Ask,
    Cancel,
    Close,
    Ended,
    Go,
    Message,
    Prepare,
    Queue,
    Recall,
    Recalled,
    Settled,
    Submit,
    Vote,
)

RECALLS_MAX: Final = ENTRIES_MAX + (QUEUE_MAX + 1) * limits.PARTIES_MAX
"""Jobs that a party remembers: what its book holds, and jobs that have not ended, which the book always keeps."""


@dataclass(slots=True)
class _Job:
    """One job as the orderer sees it."""

    party: str
    question: str = MAY_RUN  # what the votes below answer; "" once it runs
    votes: dict[str, str] = field(default_factory=dict)  # party -> refusal or cause, empty for none


class Orderer:
    """Driven by the messages of all parties, its own included. Each call returns what to tell every party."""

    def __init__(self, parties: tuple[str, ...], retries: int) -> None:
        """`retries`: how often a job that has begun may begin again."""
        self._parties = parties
        self._retries = retries
        self._recalled: dict[str, dict[str, Recall]] = {party: {} for party in parties}  # until all have said
        self._silent = set(parties)  # who has not said all that it remembers
        self._jobs: dict[str, _Job] = {}
        self._queue: deque[str] = deque()
        self._current = ""  # the job that is prepared or runs

    def take_untrusted(self, party: str, message: Message) -> list[Message]:
        """What follows from a message of `party`.

        Raises:
            LinkProtocolError: no honest party can say this now.
        """
        if self._silent:
            return self._recall(party, message)
        match message:
            case Submit():
                return self._submit(party, message)
            case Cancel(job_id):
                return self._cancel(party, job_id)
            case Vote():
                return self._vote(party, message)
            case Ended(job_id, cause):
                return self._end(party, job_id, cause)
        raise LinkProtocolError(party, "service message", type(message).__name__, "one for the orderer")

    def _recall(self, party: str, message: Message) -> list[Message]:
        """What a party remembers. It says nothing else before Settled."""
        if party not in self._silent or not isinstance(message, (Recall, Recalled)):
            raise LinkProtocolError(party, "service message", type(message).__name__, "none before all have recalled")
        if isinstance(message, Recall):
            self._check_recall_untrusted(party, message)
            self._recalled[party][message.id] = message
            return []
        self._silent.discard(party)
        if self._silent:
            return []
        settled = settle(self._recalled, self._parties, self._retries)
        self._recalled.clear()
        for one in settled:
            if isinstance(one, Ask):
                self._jobs[one.id] = _Job(one.party)
        return [*settled, Settled()]

    def _check_recall_untrusted(self, party: str, recall: Recall) -> None:
        recalled = self._recalled[party]
        if recall.id in recalled:
            raise LinkProtocolError(party, "job recalled twice", recall.id, "once")
        if recall.party not in self._parties:
            raise LinkProtocolError(party, "party of a job", recall.party[:80], "a party")
        if len(recalled) >= RECALLS_MAX:
            raise LinkProtocolError(party, "jobs that are remembered", RECALLS_MAX + 1, RECALLS_MAX)
        is_own = recall.party == party and recall.word not in FINAL
        if is_own and sum(one.party == party and one.word not in FINAL for one in recalled.values()) > QUEUE_MAX:
            raise LinkProtocolError(party, "jobs that have not ended", QUEUE_MAX + 2, QUEUE_MAX + 1)
        if recall.options and not is_own:
            raise LinkProtocolError(party, "options of a job that is recalled", len(recall.options), 0)

    def _submit(self, party: str, message: Submit) -> list[Message]:
        if message.id in self._jobs:
            raise LinkProtocolError(party, "job submitted twice", message.id, "a fresh id")
        if sum(job.party == party for job in self._jobs.values()) > QUEUE_MAX:
            raise LinkProtocolError(party, "jobs that have not ended", QUEUE_MAX + 1, QUEUE_MAX)
        self._jobs[message.id] = _Job(party)
        return [Ask(message.id, message.job, message.options, party)]

    def _cancel(self, party: str, job_id: str) -> list[Message]:
        job = self._jobs.get(job_id)
        if job is None or job_id == self._current:
            return []  # it has begun or ended meanwhile
        if job_id in self._queue:
            self._queue.remove(job_id)
        del self._jobs[job_id]
        return [Close(job_id, CANCELLED, {party: "cancelled by a client"})]

    def _vote(self, party: str, vote: Vote) -> list[Message]:
        job = self._jobs.get(vote.id)
        if job is None:
            return []  # cancelled while the vote was under way
        if vote.question != job.question:
            raise LinkProtocolError(party, "vote", vote.question, job.question or "none, the job runs")
        if not self._gather(party, job, vote.refusal):
            return []
        causes = {name: why for name, why in job.votes.items() if why}
        if job.question == MAY_RUN:
            if causes:
                del self._jobs[vote.id]
                return [Close(vote.id, REFUSED, causes)]
            self._queue.append(vote.id)
            return [Queue(vote.id), *self._next()]
        if causes:
            return self._close(vote.id, causes)
        job.question, job.votes = "", {}
        return [Go(vote.id)]

    def _end(self, party: str, job_id: str, cause: str) -> list[Message]:
        job = self._jobs.get(job_id)
        if job is None or job_id != self._current or job.question:
            raise LinkProtocolError(party, "end of a job", job_id, "one that runs")
        if not self._gather(party, job, cause):
            return []
        return self._close(job_id, {name: why for name, why in job.votes.items() if why})

    def _gather(self, party: str, job: _Job, word: str) -> bool:
        """Whether every party has said its word."""
        if party in job.votes:
            raise LinkProtocolError(party, "vote", "a second one", "one")
        job.votes[party] = word[:CAUSE_LENGTH_MAX]
        return len(job.votes) == len(self._parties)

    def _close(self, job_id: str, causes: dict[str, str]) -> list[Message]:
        del self._jobs[job_id]
        self._current = ""
        return [Close(job_id, FAILED if causes else DONE, causes), *self._next()]

    def _next(self) -> list[Message]:
        if self._current or not self._queue:
            return []
        self._current = self._queue.popleft()
        job = self._jobs[self._current]
        job.question, job.votes = IS_READY, {}
        return [Prepare(self._current)]
