"""One worker's share of a batch: which sessions and jobs are its own, how they run, and what became of them.

Between the batch runner (the opener's share, and what children report) and the scheduler of one worker. The one
invariant: session s of a batch belongs to worker (first id + s) mod W at every party and runs jobs s, s + N, s + 2N
... in this order; a job's value is given away only when every party has reported that job.

This module also holds what the opener and its children say to each other on their channels.
"""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .channel import PICKLE_PROTOCOL
from .errors import describe, describe_to_peers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .scheduler import Scheduler
    from .session import Session
    from .worker import Worker

JobFunction = Callable[[Any, Any], Any]


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What all parties have agreed on. `number` counts the batches of this party."""

    number: int
    first_id: int
    sessions: int
    jobs: int

    def sessions_of(self, worker: int, workers: int) -> range:
        """The sessions of one worker, as numbers 0 .. sessions-1; those without a job are not made."""
        start = (worker - self.first_id) % workers
        return range(start, min(self.sessions, self.jobs), workers)

    def jobs_of(self, worker: int, workers: int) -> Iterator[int]:
        """The jobs of one worker, in no particular order."""
        for session in self.sessions_of(worker, workers):
            yield from range(session, self.jobs, self.sessions)


@dataclass(frozen=True, slots=True)
class Totals:
    """What a worker has carried. Messages received are counted, as a protocol's rounds end with one."""

    messages: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            self.messages + other.messages,
            self.bytes_sent + other.bytes_sent,
            self.bytes_received + other.bytes_received,
        )

    def __sub__(self, other: Totals) -> Totals:
        return Totals(
            self.messages - other.messages,
            self.bytes_sent - other.bytes_sent,
            self.bytes_received - other.bytes_received,
        )


def totals_of(worker: Worker) -> Totals:
    """The sum over the worker's present lanes."""
    lanes = [lane for link in worker.links.values() for lane in link.lanes.values()]
    return Totals(
        sum(lane.messages_received for lane in lanes),
        sum(lane.bytes_sent for lane in lanes),
        sum(lane.bytes_received for lane in lanes),
    )


# What the opener tells a child.


@dataclass(frozen=True, slots=True)
class ExpectSessions:
    """A proposal is about to go out; keep frames of unknown sessions from now on. Answered by SessionsExpected, once
    the links are there of which the opener knows: their `epochs` by peer index."""

    batch: int
    inbox_size_max: int
    epochs: dict[int, int]


@dataclass(frozen=True, slots=True)
class ForgetSessions:
    """The proposal came to nothing."""

    batch: int


@dataclass(frozen=True, slots=True)
class RunShare:
    """Run your share. `payload` is the pickle of (function, {index: input}), by itself, so that a child which cannot
    load it can say so."""

    plan: BatchPlan
    payload: bytes = field(repr=False)
    sys_path: list[str] = field(repr=False)
    sys_argv: list[str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class StopShare:
    """Give up what runs of this batch. Answered by ShareStopped, also when nothing does."""

    batch: int
    reason: str


# What a child tells its opener.


@dataclass(frozen=True, slots=True)
class SessionsExpected:
    batch: int


@dataclass(frozen=True, slots=True)
class JobFinal:
    """Every party has reported this job; here is the pickle of its value."""

    batch: int
    index: int
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ShareFailed:
    """A job of the share failed, or the share could not begin (index -1)."""

    batch: int
    index: int
    error: bytes = field(repr=False)  # see portable_error
    is_transient: bool  # see retry.is_transient; what the error came from stays in the child


@dataclass(frozen=True, slots=True)
class ShareProgress:
    batch: int
    totals: Totals


@dataclass(frozen=True, slots=True)
class ShareStopped:
    batch: int


def portable_error(error: BaseException) -> bytes:
    """An error as bytes that the opener can certainly load; its traceback comes along as a note.

    An error that does not survive pickling becomes a RuntimeError with its type and text.
    """
    note = "".join(traceback.format_exception(error)).rstrip()
    cause = error.__cause__
    try:
        data = pickle.dumps((error, cause, note), PICKLE_PROTOCOL)
        pickle.loads(data)
    except Exception:
        data = pickle.dumps((RuntimeError(describe(error)), None, note), PICKLE_PROTOCOL)
    return data


def load_error(data: bytes) -> BaseException:
    """The inverse of `portable_error`."""
    error, cause, note = pickle.loads(data)
    assert isinstance(error, BaseException)
    error.__cause__ = cause
    error.add_note(f"in a child worker:\n{note}")
    return error


class BatchShare:
    """Runs the jobs of one worker. Finished when every job is final, or by `stop`."""

    def __init__(
        self,
        worker: Worker,
        scheduler: Scheduler,
        plan: BatchPlan,
        on_final: Callable[[int, Any], object],
        on_failure: Callable[[int, BaseException], object],
        prepare: Callable[[int, Any], Any] | None = None,
    ) -> None:
        """`on_final(index, value)` is called for each job, `on_failure(index, error)` at most once per session.

        `prepare(index, value)` makes of a job's value what is kept for `on_final`; what it raises fails the job, at
        every party.
        """
        self.plan = plan
        self._worker = worker
        self._scheduler = scheduler
        self._on_final = on_final
        self._on_failure = on_failure
        self._prepare = prepare
        self._values: dict[int, Any] = {}  # jobs that ended here and are not final
        self._sessions: list[Session] = []
        self._totals_before = totals_of(worker)

    def start(self, function: JobFunction, inputs: dict[int, Any]) -> None:
        """Make the sessions and hand their jobs to the scheduler. `inputs` has at least the jobs of this worker.

        Raises:
            PeerLost, PeerClosed, PartyFailed: the sessions that were made are closed again.
        """
        plan = self.plan
        numbers = plan.sessions_of(self._worker.index, self._worker.workers)
        try:
            # All are made before any of them runs: a peer's frames for the last may be here already.
            for number in numbers:
                session = self._worker.make_session(plan.first_id + number)
                session.reset_refusal = "let the failure end the job, and the batch runs it again on another session"
                self._sessions.append(session)
        except BaseException as error:
            self.abort(describe_to_peers(error))
            raise
        for number, session in zip(numbers, self._sessions, strict=True):
            jobs = [(index, function, inputs[index]) for index in range(number, plan.jobs, plan.sessions)]
            self._scheduler.add(session, jobs, self._ended, self._failed, self._final)

    @property
    def totals(self) -> Totals:
        """What was carried since this share was made."""
        return totals_of(self._worker) - self._totals_before

    def abort(self, reason: str) -> None:
        """Give up every job that is not final, here and, by resets, at the peers. Also from inside a running job,
        which then finds its session closed; call `stop` when no job runs."""
        for session in self._sessions:
            session.on_failure = session.on_final = None
            session.abort(reason)
        self._sessions.clear()
        self._values.clear()
        self._worker.flush()

    def stop(self, reason: str) -> None:
        """`abort`, and close the coroutines of all jobs, whatever they wait for. Not from inside a job."""
        self.abort(reason)
        self._scheduler.cancel(reason)

    def finish(self) -> None:
        """Forget the sessions of a batch of which every job is final."""
        for session in self._sessions:
            session.on_failure = session.on_final = None
            session.close()
        self._sessions.clear()

    def _ended(self, index: int, value: Any) -> None:
        self._values[index] = value if self._prepare is None else self._prepare(index, value)

    def _final(self, index: int) -> None:
        self._on_final(index, self._values.pop(index))

    def _failed(self, index: int, error: BaseException) -> None:
        self._on_failure(index, error)
