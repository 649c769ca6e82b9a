"""How the parties of a service agree which job is next. No I/O: messages in, messages and orders out.

Party 0 orders. Submissions, from whichever party, go to it; it asks everybody whether they take the job, queues it when
all do, and for one job at a time asks everybody to load their data, lets them run it, and gathers how it ended. Every
party (the orderer too) follows what it says; because one session carries it in order, all parties run the same jobs in
the same order, and each is final everywhere with the same causes.

    Submit, Cancel, Vote, Ended      party -> orderer
    Ask, Queue, Refuse, Prepare, Go, Close      orderer -> every party

The one invariant: Go follows only after every party has voted for the job twice (it may run; its data are loaded), so
no party ever computes alone. What peers say is checked field by field; what no honest peer can say ends the service.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from partywire.engine.errors import LinkProtocolError

from .serve_book import CANCELLED, DONE, FAILED, QUEUE_MAX, REFUSED

MESSAGE_SIZE_MAX: Final = 64 * 1024
"""One message as JSON. The causes of nine parties, each of CAUSE_LENGTH_MAX characters, fit in any spelling."""

SUBMISSION_SIZE_MAX: Final = MESSAGE_SIZE_MAX - 1024
"""A Submit; the Ask that comes of it names the party, too."""

CAUSE_LENGTH_MAX: Final = 1000
NAME_LENGTH_MAX: Final = 200

MAY_RUN: Final = "may run"
IS_READY: Final = "is ready"

_ID = re.compile(r"[0-9a-f]{16}\Z")


@dataclass(frozen=True, slots=True)
class Submit:
    """A client of this party wants a job."""

    id: str
    job: str
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cancel:
    """A client of this party no longer wants it."""

    id: str


@dataclass(frozen=True, slots=True)
class Vote:
    """Whether this party takes a job (MAY_RUN), or has loaded its data (IS_READY); `refusal` says why not."""

    id: str
    question: str
    refusal: str


@dataclass(frozen=True, slots=True)
class Ended:
    """This party's run of a job is over; `cause` is empty when it ended well."""

    id: str
    cause: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Every party: may this job run here? `party` is where it was submitted."""

    id: str
    job: str
    options: dict[str, Any]
    party: str


@dataclass(frozen=True, slots=True)
class Queue:
    """Every party takes the job; it waits for its turn."""

    id: str


@dataclass(frozen=True, slots=True)
class Prepare:
    """It is this job's turn: load your data."""

    id: str


@dataclass(frozen=True, slots=True)
class Go:
    """Everybody is ready: run it."""

    id: str


@dataclass(frozen=True, slots=True)
class Close:
    """The job is final: "done", "failed", "refused" or "cancelled", and the causes that parties named."""

    id: str
    state: str
    causes: dict[str, str]


Message = Submit | Cancel | Vote | Ended | Ask | Queue | Prepare | Go | Close
TO_ORDERER: Final = (Submit, Cancel, Vote, Ended)
FROM_ORDERER: Final = (Ask, Queue, Prepare, Go, Close)
_TYPES: Final[dict[str, Any]] = {kind.__name__: kind for kind in (*TO_ORDERER, *FROM_ORDERER)}
_STATES: Final = (DONE, FAILED, REFUSED, CANCELLED)


def sentence(text: str) -> str:
    """A cause as messages and answers take it: of bounded length, and text that UTF-8 has a word for (file names of an
    error may hold other bytes)."""
    return text[:CAUSE_LENGTH_MAX].encode("utf-8", "replace").decode("utf-8")


def encode(message: Message) -> bytes:
    """One message as JSON.

    Raises:
        ValueError: a Submit with options above what a message holds.
    """
    fields = {name: getattr(message, name) for name in message.__slots__}
    data = orjson.dumps({"type": type(message).__name__, **fields})
    if isinstance(message, Submit) and len(data) > SUBMISSION_SIZE_MAX:
        raise ValueError(f"the submission has {len(data)} bytes as JSON, at most {SUBMISSION_SIZE_MAX} are allowed")
    return data


def decode_untrusted(data: bytes, peer: str) -> Message:
    """The message that a peer sent.

    Raises:
        LinkProtocolError: it is none.
    """
    if len(data) > MESSAGE_SIZE_MAX:
        raise LinkProtocolError(peer, "size of a service message", len(data), MESSAGE_SIZE_MAX)
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        document = None
    kind = _TYPES.get(str(document.pop("type", None))) if isinstance(document, dict) else None
    if kind is None or document.keys() != set(kind.__slots__):
        raise LinkProtocolError(peer, "a service message", "of no known type", "one of " + ", ".join(_TYPES))
    for name, value in document.items():
        if not _is_valid(name, value):
            raise LinkProtocolError(peer, f"{name} of {kind.__name__}", "not as it must be", _RULES[name])
    if kind is Submit and len(data) > SUBMISSION_SIZE_MAX:
        raise LinkProtocolError(peer, "size of a submission", len(data), SUBMISSION_SIZE_MAX)
    message: Message = kind(**document)
    return message


_RULES: Final = {
    "id": "16 hexadecimal digits",
    "job": f"a text of at most {NAME_LENGTH_MAX} characters",
    "party": f"a text of at most {NAME_LENGTH_MAX} characters",
    "options": "an object of texts and numbers",
    "question": f"{MAY_RUN!r} or {IS_READY!r}",
    "refusal": "a sentence",
    "cause": "a sentence",
    "state": "a final state",
    "causes": "an object of sentences",
}


def _is_valid(name: str, value: object) -> bool:
    match name:
        case "id":
            return isinstance(value, str) and _ID.match(value) is not None
        case "job" | "party":
            return isinstance(value, str) and 0 < len(value) <= NAME_LENGTH_MAX
        case "options":
            return isinstance(value, dict) and all(type(one) in (str, int, float) for one in value.values())
        case "question":
            return value in (MAY_RUN, IS_READY)
        case "state":
            return value in _STATES
        case "causes":
            return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())
    return isinstance(value, str)


@dataclass(slots=True)
class _Job:
    """One job as the orderer sees it."""

    party: str
    question: str = MAY_RUN  # what the votes below answer; "" once it runs
    votes: dict[str, str] = field(default_factory=dict)  # party -> refusal or cause, empty for none


class Orderer:
    """Driven by the messages of all parties, its own included. Each call returns what to tell every party."""

    def __init__(self, parties: tuple[str, ...]) -> None:
        self._parties = parties
        self._jobs: dict[str, _Job] = {}
        self._queue: deque[str] = deque()
        self._current = ""  # the job that is prepared or runs

    def take_untrusted(self, party: str, message: Message) -> list[Message]:
        """What follows from a message of `party`.

        Raises:
            LinkProtocolError: no honest party can say this now.
        """
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
