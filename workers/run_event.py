"""What a party says about its run: the events between the process that runs a job and whoever shows it.

From `party_run` to the progress display, in the same process with `--config`, as lines of JSON over a pipe with
`--local`. The one invariant: a run ends with exactly one `Finished` or one `Failed`, and nothing follows it.

No event carries an input, a share or a key; `Finished.result` is what the job opens to its user.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable

LINE_SIZE_MAX = 64 * 1024 * 1024
"""One line of JSON. Only `Finished` is large, and only when a job returns a large result."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A peer's link does not stand yet, and why the last attempt did not make it."""

    party: str
    peer: str
    cause: str


@dataclass(frozen=True, slots=True)
class Connected:
    """Every link of the party stands. `clock_s` is CLOCK_MONOTONIC, which all processes of a host share."""

    party: str
    clock_s: float


@dataclass(frozen=True, slots=True)
class Progressed:
    """Counts since the run began. The first with `sessions` above 0 says that all sessions are ready. `jobs_done` goes
    back when `retries` goes up: results that not all parties had are made again."""

    party: str
    clock_s: float
    jobs_done: int
    jobs_total: int
    sessions: int
    rounds: int
    bytes_sent: int
    bytes_received: int
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """The job ended well and the links are closed. `rows` are lines of the summary for people."""

    party: str
    clock_s: float
    result: dict[str, Any]
    checked: bool | None
    rows: list[list[str]]


@dataclass(frozen=True, slots=True)
class Failed:
    """The run ended with an error.

    `kind` is the error's type. `peer` names the party whose own report says more about the cause, if there is one.
    `trace` is for PARTYWIRE_DEBUG.
    """

    party: str
    exit_code: int
    sentence: str
    kind: str
    peer: str | None
    trace: str


@dataclass(frozen=True, slots=True)
class Logged:
    """A log line of a party process, as of logs.py; only where lines are wanted as JSON."""

    party: str
    line: dict[str, Any]


RunEvent = Waiting | Connected | Progressed | Finished | Failed | Logged

_TYPES: dict[str, type[RunEvent]] = {
    type_.__name__: type_ for type_ in (Waiting, Connected, Progressed, Finished, Failed, Logged)
}

if TYPE_CHECKING:
    EventSink = Callable[[RunEvent], None]


def encode_event(event: RunEvent) -> bytes:
    """One line of JSON. Numpy scalars and arrays of a result become numbers and lists.

    Raises:
        TypeError: the job's result holds something that JSON has no word for.
    """
    document = {"event": type(event).__name__, **asdict(event)}
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def decode_event(line: bytes) -> RunEvent:
    """The inverse of `encode_event`, for lines of our own processes."""
    document = orjson.loads(line)
    return _TYPES[document.pop("event")](**document)
