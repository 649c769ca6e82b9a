"""The executor: jobs of all parties handed in one by one, as `concurrent.futures.Executor` has it, and run in lockstep.

Between code that knows `submit`, `map` and futures, and the batch runner. Every party submits the same functions in the
same order, each with inputs of its own; the k-th job of one party meets the k-th of the others. The one invariant: a
future has a result only when every party has its own of that job, and it has an error at every party or at none.

A thread takes what has been submitted and agrees with the other parties on the jobs that all of them have at hand
(executor_offer.py); these run as one batch. While the executor is open, the party belongs to that thread.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

from partywire.engine.errors import LinkProtocolError, PartyWireError

from ..batch import SESSIONS_DEFAULT, BatchRunner
from ..blocking_party import BlockingParty
from ..errors import JobFailed, describe_to_peers
from ..job_function import check_sendable, job_name
from ..retry import RETRIES_DEFAULT, RETRY_TIMEOUT_S
from ..waiting import run_blocking
from .executor_offer import OFFER_MAX, Agreement, JobMismatch, Offer, agree, printable
from .executor_task import Task, run_coroutine, run_plain

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["JobMismatch", "PartyExecutor"]

T = TypeVar("T")

PENDING_MAX: Final = 1024
"""Jobs that wait or run at a party before `submit` waits. Each is a function, its inputs and a future."""

SHRINK: Final = 4
"""By how much a batch shrinks when a job in it fails, and the next grows when none does: the other jobs of such a batch
run again, so where many fail, small batches waste least."""

ROUND: Final = "the executor"
"""The kind of the round in which the parties agree on the next jobs."""


@dataclass(eq=False, slots=True)
class _Job:
    """One call of `submit`."""

    task: Task
    future: Future[Any] = field(default_factory=Future)
    is_offered: bool = False
    """Whether the peers may have heard of it; then it can no longer be cancelled."""
    is_cancelled: bool = False

    @property
    def name(self) -> str:
        return printable(job_name(self.task.function))


class PartyExecutor(Executor):
    """Runs jobs with the other parties, who have an executor like this one. Closed by `with` or `shutdown`.

    `submit` and futures may be used from any thread. The party may not, as long as the executor is open.
    """

    def __init__(
        self,
        party: BlockingParty,
        *,
        sessions: int = SESSIONS_DEFAULT,
        pending_max: int = PENDING_MAX,
        retries: int = RETRIES_DEFAULT,
        retry_timeout_s: float = RETRY_TIMEOUT_S,
    ) -> None:
        """`sessions` and `retries` must be the same at every party.

        Args:
            party: open, and of the form for plain code.
            sessions: how many jobs run at the same time in each worker.
            pending_max: how many jobs may wait or run here; one more and `submit` waits.
            retries, retry_timeout_s: as for BatchRunner: what a lost link or a dead worker ended runs again.
        """
        if not isinstance(party, BlockingParty):
            raise TypeError(f"an executor needs an open BlockingParty, not {type(party).__name__}")
        if not isinstance(pending_max, int) or isinstance(pending_max, bool) or pending_max < 1:
            raise ValueError(f"{pending_max!r} pending jobs, at least 1 is needed")
        self._party = party
        self._runner = BatchRunner(party, sessions, retries=retries, retry_timeout_s=retry_timeout_s)
        self._patience = retry_timeout_s if retries else None
        self._pending_max = pending_max
        # Guards everything below; notified when any of it changes.
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._unfinished = 0  # jobs without an outcome: those that wait and those that run
        self._is_over = False
        # Why no further job can run.
        self._broken: BaseException | None = None
        # Of the thread alone.
        self._agreed: list[_Job] = []  # what the parties agreed to run last
        self._next = 0  # number of the first job on which they have not agreed
        self._batch_max = OFFER_MAX
        self._thread = threading.Thread(target=self._run, name=f"partywire-executor-{party.name}", daemon=True)
        self._thread.start()

    # What Executor promises.

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have `fn(session, *args, **kwargs)` run at all parties, as soon as every one has submitted it.

        `fn` is a coroutine function, which gets a Session, or a plain function, which gets a BlockingSession. With more
        than one worker it must be importable, and inputs and results must be picklable. Waits while `pending_max` jobs
        have no outcome. The future raises what `BatchRunner.map` raises for one job:

        - JobFailed: it failed somewhere; says where and why, at every party. Other jobs go on.
        - CancelledError: a party has cancelled it before the parties agreed to run it.
        - JobMismatch, SetupMismatch, SetupAborted, PeerLost, PeerClosed, PartyFailed ...: nothing more can run.

        Raises:
            BrokenExecutor: nothing more can run; its cause is the error.
            RuntimeError: the executor is shut down; or a callback of a future has no room to submit.
            TypeError: `fn` cannot be called, or not be sent to the other workers of this party.
        """
        if not callable(fn):
            raise TypeError(f"a job is a function of (session, ...), not {type(fn).__name__}")
        if self._party.config.workers > 1:
            check_sendable(fn)
        job = _Job(Task(fn, args, kwargs))
        with self._changed:
            while True:
                self._refuse_if_over()
                if self._unfinished < self._pending_max:
                    break
                if threading.current_thread() is self._thread:
                    raise RuntimeError(
                        f"{self._pending_max} jobs are pending, and a callback of a future cannot wait: it runs in the "
                        "thread that would make room"
                    )
                self._changed.wait()
            self._jobs.append(job)
            self._unfinished += 1
            self._changed.notify_all()
        return job.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no further job. Those that were submitted still run, as far as the other parties have submitted them.

        A party that submits more jobs than one that has shut down gets SetupAborted for them, which names it.

        Args:
            wait: return when all jobs have an outcome and the party may be used again.
            cancel_futures: cancel the jobs on which the parties have not agreed yet, at every party.
        """
        with self._changed:
            self._is_over = True
            waiting = [job for job in self._jobs if not job.is_offered]
        if cancel_futures:
            for job in waiting:
                job.future.cancel()  # refused, as it should be, if it has been offered since
        with self._changed:
            self._changed.notify_all()
        if wait and threading.current_thread() is not self._thread:
            self._thread.join()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown(cancel_futures=error is not None)

    def _refuse_if_over(self) -> None:
        if self._broken is not None:
            raise BrokenExecutor(f"no further job can run: {self._broken}") from self._broken
        if self._is_over:
            raise RuntimeError("cannot schedule new futures after shutdown")

    # The thread.

    def _run(self) -> None:
        try:
            while offered := self._wait_for_jobs():
                self._run_offered(offered)
            self._refuse(f"{self._party.name} has shut its executor down after {self._next} jobs")
        except BaseException as error:  # of a peer, our party or the adapter: whoever waits here has to hear of it
            self._break(error)

    def _wait_for_jobs(self) -> list[_Job]:
        """The jobs to be offered next, which then cannot be cancelled here any more; none when all is over."""
        with self._changed:
            while not self._jobs and not self._is_over:
                self._changed.wait()
            offered: list[_Job] = []
            for job in islice(self._jobs, OFFER_MAX):
                if offered and job.task.is_coroutine != offered[0].task.is_coroutine:
                    break
                if not job.is_offered:
                    job.is_offered = True
                    job.is_cancelled = not job.future.set_running_or_notify_cancel()
                offered.append(job)
            return offered

    def _run_offered(self, offered: list[_Job]) -> None:
        """Agree on what all parties have at hand, and run it."""
        agreement = self._agree(offered)
        with self._changed:
            self._agreed = [self._jobs.popleft() for _ in range(agreement.count)]
        batch: list[tuple[int, _Job]] = []
        for place, job in enumerate(self._agreed):
            if place not in agreement.cancelled:
                batch.append((self._next + place, job))
            elif not job.is_cancelled:
                job.future.set_exception(CancelledError(f"{agreement.cancelled[place]} has cancelled the job"))
        self._finish(agreement.count - len(batch))
        self._next += agreement.count
        function = run_coroutine if offered[0].task.is_coroutine else run_plain
        while batch:
            self._run_some(function, batch)

    def _agree(self, offered: list[_Job]) -> Agreement:
        """Tell the other parties what we have at hand; returns what all of them have."""
        party = self._party.asynchronous
        names = tuple(job.name for job in offered)
        cancelled = frozenset(place for place, job in enumerate(offered) if job.is_cancelled)
        ours = Offer(self._next, names, cancelled)
        said = run_blocking(party.worker, party.rendezvous(ROUND, ours.fields(), patience=self._patience))
        offers = {name: Offer.from_fields_untrusted(said[name], name) for name in party.names if name != party.name}
        return agree(party.name, {name: offers.get(name, ours) for name in party.names})

    def _run_some(self, function: Callable[..., Any], batch: list[tuple[int, _Job]]) -> None:
        """Run a batch of the first jobs; whatever has an outcome then leaves the list. The same at every party."""
        some = batch[: self._batch_max]
        try:
            results = self._runner.map(function, [job.task for _, job in some])
        except JobFailed as error:
            # Results of the other jobs may not be final at every party, so they run again; fewer of them at once.
            number, failed = batch.pop(error.index)
            failed.future.set_exception(_renumbered(error, number))
            self._finish(1)
            self._batch_max = max(1, len(some) // SHRINK)
            return
        for (_, job), result in zip(some, results, strict=True):
            job.future.set_result(result)
        self._finish(len(some))
        del batch[: len(some)]
        self._batch_max = min(OFFER_MAX, self._batch_max * SHRINK)

    def _finish(self, count: int) -> None:
        """So many jobs more have an outcome."""
        with self._changed:
            self._unfinished -= count
            self._changed.notify_all()

    def _break(self, error: BaseException) -> None:
        """Nothing more can run: every job without an outcome has this one."""
        if isinstance(error, LinkProtocolError) or not isinstance(error, PartyWireError):
            self._refuse(describe_to_peers(error))  # of any other error the peers have heard already
        with self._changed:
            self._broken = error
            pending = [*self._agreed, *self._jobs]
            self._jobs.clear()
            self._unfinished = 0
            self._changed.notify_all()
        for job in pending:
            if not job.future.done() and (job.is_offered or job.future.set_running_or_notify_cancel()):
                job.future.set_exception(error)

    def _refuse(self, reason: str) -> None:
        """Peers that wait for our next offer are told that none comes."""
        try:
            self._party.asynchronous.refuse_round(ROUND, reason)
            self._party.worker.flush()
        except PartyWireError:
            pass  # without a party, or without links, nobody is left to be told


def _renumbered(error: JobFailed, number: int) -> JobFailed:
    """The error with the number of the job among all that were submitted, instead of its place in a batch."""
    copy = JobFailed(number, error.party, error.cause, error.history, error.is_loss)
    copy.__cause__ = error.__cause__
    return copy
