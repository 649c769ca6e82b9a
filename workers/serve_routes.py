"""The routes of a service: submit a job, look at it, take its result, cancel it; health, metrics.

In the worker that answers HTTP. Between clients and the copy of the job book that the service keeps up to date, so a
service that is deep in a job does not delay an answer. The one invariant: 202 is said when the submission lies in the
service's own socket, where the death of this worker cannot lose it.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from .http_handlers import Handlers, HttpError, HttpResponse
from .jobs import JobOptionError, resolve_options
from .serve_book import CANCELLED, DONE, QUEUE_MAX, QUEUED, SUBMITTED, JobBook, JobEntry
from .serve_messages import CancelJob, HealthChanged, JobChanged, JobResult, Snapshot, SubmitJob
from .serve_words import Submit, encode

if TYPE_CHECKING:
    from .channel import Channel

ID_SIZE: Final = 8
"""Random bytes of a job's id: no two parties make the same, and nobody guesses one."""

RETRY_AFTER: Final = {"retry-after": "1"}
JSON: Final = "application/json"


@dataclass(frozen=True)
class JobSubmission:
    """What POST /jobs takes: the name of a job and those of its options that all parties share."""

    job: str
    options: dict[str, Any] = field(default_factory=dict)


class ServiceView:
    """What the worker knows of its service. Empty until the first snapshot."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.snapshot: Snapshot | None = None
        self.book = JobBook()
        self.cancelled: set[str] = set()
        """Jobs that the service was told to cancel and has not closed."""
        self._room = asyncio.Event()

    def note_room(self) -> None:
        """The channel may have room again."""
        self._room.set()

    async def flush(self) -> None:
        """Wait until everything that was sent lies in the service's own socket."""
        while not self.channel.is_flushed:
            self._room.clear()
            await self._room.wait()

    def take(self, message: object) -> None:
        """A message of the service."""
        match message:
            case Snapshot():
                self.snapshot = message
                self.book = JobBook()
                self.cancelled.clear()
                for entry in message.entries:
                    self.book.put(entry)
                self.book.results.update(message.results)
            case JobChanged(entry):
                self.book.put(entry)
                if entry.is_final:
                    self.cancelled.discard(entry.id)
            case JobResult(id=job_id, result=result):
                self.book.put_result(job_id, result)
            case HealthChanged(health) if self.snapshot is not None:
                self.snapshot = replace(self.snapshot, health=health)
            case _:
                raise TypeError(f"{type(message).__name__} from the service")

    @property
    def known(self) -> Snapshot:
        """Raises HttpError until the service has said what there is."""
        if self.snapshot is None:
            raise HttpError(503, "the service has not said yet how it is; try again", RETRY_AFTER)
        return self.snapshot

    def entry(self, job_id: str) -> JobEntry:
        """Raises HttpError 404."""
        entry = self.book.entries.get(job_id)
        if entry is None:
            raise HttpError(404, "there is no such job, or it was forgotten; GET /jobs lists those that are known")
        return entry


def make_routes(view: ServiceView) -> Handlers:
    """The routes of a service, answering from `view`."""
    app = Handlers()

    @app.get("/jobs")
    async def list_jobs() -> dict[str, Any]:
        """The jobs that this party knows, oldest first, and those that can be submitted here."""
        known = view.known
        return {
            "party": known.party,
            "jobs": [document(entry) for entry in view.book.entries.values()],
            "available": {name: [asdict(option) for option in options] for name, options in known.jobs.items()},
        }

    @app.post("/jobs", status=202)
    async def submit_job(body: JobSubmission) -> HttpResponse:
        """Have all parties run a job. They take it in turn with the jobs of other clients.

        `options` are those that all parties share; paths to own data come from each party's configuration alone.
        """
        known = view.known
        if known.health.cause:
            raise HttpError(503, f"no job can be submitted now: {known.health.cause}", RETRY_AFTER)
        if body.job not in known.jobs:
            names = ", ".join(known.jobs) or "none"
            raise HttpError(422, f"there is no job {body.job[:80]!r} at {known.party}; it runs: {names}")
        try:
            resolve_options(known.jobs[body.job], body.options)
        except JobOptionError as error:
            what = "is not an option that a client may set" if error.option not in _names(known, body.job) else ""
            raise HttpError(422, f"the option {error.option[:80]!r} {what or error.what}") from error
        if view.book.pending_of(known.party) >= QUEUE_MAX:
            raise HttpError(503, f"{QUEUE_MAX} jobs of {known.party} wait already; try again", RETRY_AFTER)
        options = {name: value for name, value in body.options.items() if value is not None}
        entry = JobEntry(secrets.token_hex(ID_SIZE), body.job, options, known.party)
        try:
            encode(Submit(entry.id, entry.job, entry.options))
        except ValueError as error:
            raise HttpError(413, str(error)) from error
        if not view.channel.is_flushed:
            raise HttpError(503, "the service takes no submission at the moment; try again", RETRY_AFTER)
        view.channel.send(SubmitJob(entry.id, entry.job, entry.options))
        view.book.put(entry)  # from here on it is submitted, whatever this client hears
        await view.flush()
        return HttpResponse(document(entry), 202, {"location": f"/jobs/{entry.id}"})

    @app.get("/jobs/{job_id}")
    async def show_job(job_id: str) -> dict[str, Any]:
        """How far a job is, and why it failed or was refused if it was."""
        return document(view.entry(job_id))

    @app.get("/jobs/{job_id}/result")
    async def show_result(job_id: str) -> HttpResponse:
        """What a job has opened to this party. 409 while it has no result, 410 once it was forgotten."""
        entry = view.entry(job_id)
        result = view.book.results.get(job_id)
        if result is not None:
            return HttpResponse(result, content_type=JSON)
        if entry.state == DONE:
            raise HttpError(410, "the result was forgotten: later ones needed its room")
        causes = "; ".join(f"{party}: {cause}" for party, cause in entry.causes.items())
        raise HttpError(409, f"the job is {entry.state} and has no result{f' ({causes})' if causes else ''}")

    @app.delete("/jobs/{job_id}", status=202)
    async def cancel_job(job_id: str) -> dict[str, Any]:
        """Take back a job that has not begun. The answer shows it as it was; look again to see it cancelled."""
        entry = view.entry(job_id)
        if entry.state == CANCELLED:
            return document(entry)
        if entry.state not in (SUBMITTED, QUEUED):
            raise HttpError(409, f"the job is {entry.state}; only one that has not begun can be cancelled")
        if job_id not in view.cancelled:
            view.cancelled.add(job_id)
            view.channel.send(CancelJob(job_id))
        return document(entry)

    @app.get("/health")
    async def show_health() -> HttpResponse:
        """200 while jobs can be submitted and run, 503 with the cause when not."""
        known = view.known
        body = {"party": known.party, "parties": known.parties, **asdict(known.health)}
        return HttpResponse(body, 200) if not known.health.cause else HttpResponse(body, 503, RETRY_AFTER)

    return app


def _names(known: Snapshot, job: str) -> set[str]:
    return {option.name for option in known.jobs[job]}


def document(entry: JobEntry) -> dict[str, Any]:
    """A job as clients see it."""
    return asdict(entry)
