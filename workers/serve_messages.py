"""What the service (the opener of a party) and the worker that answers HTTP tell each other on their channel.

Two processes of one party on a socket pair that their own supervisor made, so these are pickled. The one invariant:
after a `Snapshot` the worker's JobBook is the service's, and each `JobChanged` keeps it so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .jobs import JobOption
    from .serve_book import JobEntry


@dataclass(frozen=True, slots=True)
class Health:
    """How the service is: "starting", "serving", "recovering" or "stopping"; `cause` says why no job can be run now."""

    state: str
    cause: str
    peers: dict[str, str]
    """Peer -> "up", or why its link is not."""
    recoveries: int = 0
    """How often the parties have met again after a loss."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """service -> worker, the first message: everything that it answers from."""

    party: str
    parties: tuple[str, ...]
    jobs: dict[str, tuple[JobOption, ...]]
    """The jobs that may be asked for here, with the options that a client may set: the shared ones."""
    entries: list[JobEntry]
    results: dict[str, bytes]
    health: Health
    has_token: bool


@dataclass(frozen=True, slots=True)
class JobChanged:
    """service -> worker: a job is new, or has moved on."""

    entry: JobEntry


@dataclass(frozen=True, slots=True)
class JobResult:
    """service -> worker: what a finished job has opened to this party, as JSON."""

    id: str
    result: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class HealthChanged:
    """service -> worker."""

    health: Health


@dataclass(frozen=True, slots=True)
class HandlersReady:
    """worker -> service: the handlers are loaded, requests are answered."""


@dataclass(frozen=True, slots=True)
class HandlersFailed:
    """worker -> service: the user's handlers cannot be loaded; the sentence says why."""

    sentence: str


@dataclass(frozen=True, slots=True)
class SubmitJob:
    """worker -> service: a client wants this job run."""

    id: str
    job: str
    options: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class CancelJob:
    """worker -> service: a client no longer wants a job that has not begun."""

    id: str
