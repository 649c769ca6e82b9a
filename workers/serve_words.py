"""What the parties of a service tell each other about jobs, and how it looks on the wire. No I/O.

Between the orderer (serve_order.py) and the followers (serve_follower.py) of all parties, over one session. The one
invariant: what a peer sent is checked field by field before anybody sees it.

    Recall, Recalled, Submit, Cancel, Vote, Ended           party -> orderer
    Ask, Queue, Prepare, Go, Close, Settled                 orderer -> every party

The first words of every session are what each party remembers (Recall, ended by Recalled); the orderer answers with
what became of those jobs, or asks for them anew, ended by Settled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from partywire.engine.errors import LinkProtocolError

from .serve_book import CANCELLED, DONE, FAILED, REFUSED

SUBMISSION_SIZE_MAX: Final = 63 * 1024
"""A Submit as JSON."""

MESSAGE_SIZE_MAX: Final = SUBMISSION_SIZE_MAX + 10 * 1024
"""One message as JSON. A Recall of a submission names its party, too, and what ended its run; the causes of nine
parties, each of CAUSE_LENGTH_MAX characters, fit in any spelling."""

CAUSE_LENGTH_MAX: Final = 1000
NAME_LENGTH_MAX: Final = 200

MAY_RUN: Final = "may run"
IS_READY: Final = "is ready"

OPEN: Final = "open"  # not run to its end here
ENDED: Final = "ended"  # it ended well here; whether everywhere is not known
BROKEN: Final = "broken"  # its run ended here because another party was not in it

TRIES_MAX: Final = 1 << 16
"""Above what retries allow; a bound for what a peer says."""

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
class Recall:
    """What this party remembers of a job: OPEN, ENDED, BROKEN or its final state, and how often it has begun here.

    `options` are said by the party whose client submitted it, while it is not final; the others leave them empty.
    """

    id: str
    job: str
    options: dict[str, Any] = field(repr=False)
    party: str
    word: str
    causes: dict[str, str]
    tries: int


@dataclass(frozen=True, slots=True)
class Recalled:
    """This party remembers no further jobs."""


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


@dataclass(frozen=True, slots=True)
class Settled:
    """What all parties remember has been dealt with: from here on it is jobs as ever."""


Message = Recall | Recalled | Submit | Cancel | Vote | Ended | Ask | Queue | Prepare | Go | Close | Settled
TO_ORDERER: Final = (Recall, Recalled, Submit, Cancel, Vote, Ended)
FROM_ORDERER: Final = (Ask, Queue, Prepare, Go, Close, Settled)
_TYPES: Final[dict[str, Any]] = {kind.__name__: kind for kind in (*TO_ORDERER, *FROM_ORDERER)}
_STATES: Final = (DONE, FAILED, REFUSED, CANCELLED)
_WORDS: Final = (OPEN, ENDED, BROKEN, *_STATES)


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
    "word": "one of " + ", ".join(_WORDS),
    "tries": f"a number up to {TRIES_MAX}",
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
        case "word":
            return value in _WORDS
        case "tries":
            return type(value) is int and 0 <= value <= TRIES_MAX
        case "causes":
            return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())
    return isinstance(value, str)
