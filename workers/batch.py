"""The batch runner: one job function over many inputs, on all workers and sessions, in lockstep at all parties.

Between the user's program (in the opener) and the workers. Every party calls `map` with the same function and the same
number of inputs; input k meets input k of the others. The one invariant: `map` returns at a party only when every party
has every result in hand; otherwise it raises at every party, with the same first failure where the parties can still
tell each other of it.

How a batch goes: an attempt (batch_attempt.py) runs every job, on new sessions; the first failure stops it everywhere.
At its end all parties tell each other what failed and which results they hold, and decide alike (retry.py): the batch
is done, the other jobs run again on other new sessions, or the failure is raised.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from partywire.engine import limits
from partywire.engine.errors import LinkProtocolError, SetupAborted, SetupMismatch

from .batch_attempt import BATCH, BatchAttempt, Failure
from .batch_progress import BatchProgress as BatchProgress
from .batch_share import Totals
from .blocking_party import BlockingParty
from .errors import (
    JobFailed,
    PartyFailed,
    PeerClosed,
    PeerLost,
    RendezvousTimeout,
    WorkerDied,
    describe,
    describe_to_peers,
)
from .job_function import check_sendable, job_name
from .retry import (
    NOT_BEGUN,
    RETRIES_DEFAULT,
    RETRIES_MAX,
    RETRY_TIMEOUT_S,
    AttemptReport,
    BeginAnew,
    Ledger,
    Standing,
    Verdict,
    common_batch,
    decide,
    first_failure,
    is_loss,
    was_lost,
)
from .waiting import NEVER, Wait, run_blocking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .batch_share import JobFunction
    from .party import Party

SESSIONS_DEFAULT: Final = 8
"""Sessions per worker (of the least common multiple of all worker counts). Enough to hide a loopback round trip behind
the computation of the others; more pay off when rounds are small or the network is far."""

END_TIMEOUT_S: Final = 5.0
"""How long a batch that has failed for good waits for the peers to say what failed at theirs."""

PROGRESS_INTERVAL_S: Final = 0.25

END: Final = "the end of the batch"
"""The kind of the round in which the parties tell each other how an attempt ended."""

log = logging.getLogger("partywire.batch")
log.addHandler(logging.NullHandler())


class BatchRunner:
    """Runs batches one after another on an open party. Not for several threads or several batches at once."""

    def __init__(
        self,
        party: BlockingParty | Party,
        sessions: int = SESSIONS_DEFAULT,
        on_progress: Callable[[BatchProgress], None] | None = None,
        *,
        retries: int = RETRIES_DEFAULT,
        retry_timeout_s: float = RETRY_TIMEOUT_S,
        first_batch: int = 0,
    ) -> None:
        """`sessions` is per worker; it and `retries` must be the same at every party.

        Args:
            sessions: how many run jobs at the same time.
            on_progress: called when all sessions are ready, about four times a second while the worker is served, and
                at the end; also when jobs are about to run again.
            retries: how often a batch may run its unfinished jobs again after a lost link, a dead worker, a session
                time-out or a full inbox. A job then runs more than once, with the same input and fresh randomness. 0: a
                batch fails at once.
            retry_timeout_s: seconds that a lost link or a dead process of ours may be away before the batch fails.
            first_batch: how many batches the other parties have ended on theirs. For a program that was started again
                and calls `map` for the batch that they are in; they then run all jobs of that again, with it.
        """
        if not isinstance(sessions, int) or isinstance(sessions, bool) or sessions < 1:
            raise ValueError(f"{sessions!r} sessions, at least 1 is needed")
        if not isinstance(retries, int) or isinstance(retries, bool) or not 0 <= retries <= RETRIES_MAX:
            raise ValueError(f"{retries!r} retries, 0 to {RETRIES_MAX} are allowed")
        if not isinstance(first_batch, int) or isinstance(first_batch, bool) or first_batch < 0:
            raise ValueError(f"the first batch is number {first_batch!r}; they are counted from 0")
        if not 0 < retry_timeout_s < NEVER:
            raise ValueError(f"a retry timeout of {retry_timeout_s!r} s; it must be above 0")
        self.party = party
        self._party = party.asynchronous if isinstance(party, BlockingParty) else party
        self._sessions = sessions
        self._on_progress = on_progress
        self._retries = retries
        self._retry_timeout_s = retry_timeout_s
        self._batch: _Batch | None = None
        self._count = first_batch

    def map(self, job: JobFunction, inputs: Iterable[Any], /) -> list[Any]:
        """Call `job(session, x)` for each input, in lockstep at all parties; results in the order of the inputs.

        `job` is a coroutine function, which gets a Session, or a plain function, which gets a BlockingSession and
        occupies its worker until it returns. With more than one worker it must be importable, and inputs and results
        must be picklable. It may be called in any order, and again after a failure that was not its own; when it raises
        an error of its own, the batch ends at every party.

        Raises:
            JobFailed: some job failed somewhere; says which, where and why, and in `history` what failed in earlier
                attempts. Its cause is the error if it is ours.
            SetupMismatch: another job, number of inputs, sessions or retries at another party; raised at every party.
            SetupAborted: a peer gave up before the batch began.
            PeerLost, PeerClosed, RendezvousTimeout: a peer is gone before the batch began, or before it said that it
                has every result.
            WorkerDied, PartyFailed: a process of our own party ended; the peers get JobFailed.
        """
        if not isinstance(self.party, BlockingParty):
            raise TypeError("map is for a BlockingParty; with an asynchronous Party use `await runner.amap(...)`")
        worker = self._party.worker
        batch = self._new_batch(job, inputs)
        try:
            goes_on = run_blocking(worker, batch.begin())
            while goes_on:
                try:
                    batch.attempt.scheduler.run(lambda: batch.attempt.is_over)
                except WorkerDied as died:
                    batch.attempt.fail(-1, died)
                goes_on = run_blocking(worker, batch.end_attempt())
        except BaseException as error:
            batch.give_up(error)
            raise
        finally:
            batch.close()
            self._batch = None
        return batch.ledger.results

    async def amap(self, job: JobFunction, inputs: Iterable[Any], /) -> list[Any]:
        """`map` for an asynchronous Party; other tasks of the loop go on meanwhile. Cancelling it stops the batch at
        every party."""
        batch = self._new_batch(job, inputs)
        try:
            goes_on = await batch.begin()
            while goes_on:
                try:
                    await batch.attempt.scheduler.run_async(lambda: batch.attempt.is_over)
                except WorkerDied as died:
                    batch.attempt.fail(-1, died)
                goes_on = await batch.end_attempt()
        except BaseException as error:
            batch.give_up(error)
            raise
        finally:
            batch.close()
            self._batch = None
        return batch.ledger.results

    def _new_batch(self, job: JobFunction, inputs: Iterable[Any]) -> _Batch:
        if self._batch is not None:
            raise RuntimeError("a batch is running already; a BatchRunner runs one after another")
        batch = _Batch(self._party, self._count, job, list(inputs), self._sessions, self._on_progress)
        batch.retries = self._retries
        batch.retry_timeout_s = self._retry_timeout_s
        self._count += 1
        self._batch = batch
        return batch


class _Batch:
    """One call of `map` at one party: attempts, one after another, until all parties decide that it is over."""

    def __init__(
        self,
        party: Party,
        number: int,
        function: JobFunction,
        inputs: list[Any],
        sessions: int,
        on_progress: Callable[[BatchProgress], None] | None,
    ) -> None:
        if not callable(function):
            raise TypeError(f"a job is a function of (session, input), not {type(function).__name__}")
        self._party = party
        self._worker = party.worker
        self._number = number
        self._function = function
        self._inputs = inputs
        self._on_progress = on_progress
        self._session_count = sessions * party.stride
        if self._session_count > limits.SESSIONS_MAX:
            raise ValueError(
                f"{sessions} sessions take {self._session_count} ids with these numbers of workers at the parties, at "
                f"most {limits.SESSIONS_MAX} are allowed; use fewer sessions, or the same number of workers everywhere"
            )
        if party.config.workers > 1:
            check_sendable(function)
        # Set by the runner.
        self.retries = RETRIES_DEFAULT
        self.retry_timeout_s = RETRY_TIMEOUT_S
        self.ledger = Ledger(len(inputs))
        self._attempts = 1
        self._begun_as = NOT_BEGUN
        self._history: list[str] = []
        self._totals_before = Totals()  # of earlier attempts
        self._is_ending = False  # the parties tell each other how the attempt ended, or have done so
        self._ticker = Wait(self._worker)
        self.attempt = self._new_attempt()

    @property
    def _standing(self) -> Standing:
        return Standing(self._attempts, len(self.ledger.pending), self._begun_as, self._party.last_batch)

    @property
    def _patience(self) -> float | None:
        return self.retry_timeout_s if self.retries else None

    def _new_attempt(self) -> BatchAttempt:
        ledger = self.ledger
        inputs = [self._inputs[index] for index in ledger.pending]
        return BatchAttempt(self._party, self._function, inputs, ledger.pending, self._session_count, ledger.put)

    async def begin(self) -> bool:
        """Begin an attempt at all parties. False: there is nothing to run.

        Raises:
            JobFailed: a party was started again once too often.
            SetupMismatch, SetupAborted, PeerLost, PeerClosed, PartyFailed, WorkerDied.
        """
        fields = {
            "job": job_name(self._function),
            "number of inputs": len(self._inputs),
            "retries": self.retries,
            "batch of the runner": self._number,
        }
        self._is_ending = False
        try:
            while True:
                try:
                    common = await self.attempt.begin(
                        self._number, fields, self._standing, len(self._inputs), self._patience
                    )
                    self._attempts, self._begun_as = common.attempt, common.batch
                    break
                except BeginAnew as anew:
                    self._begin_anew(anew)
                except SetupMismatch as error:
                    if error.field != "kind" or error.theirs != END:
                        raise
                    # We were started again, and the others learn it here; or we missed that somebody else was.
                    self._discard()
        except SetupAborted as error:
            if not self.retries:
                raise
            # Whoever gave up does so at the end as well; if it only lost a link, which nobody else need have noticed,
            # all go on from there.
            self.attempt.fail(-1, error, transient=True)
        self._progress(is_start=self._attempts == 1)
        self._tick()
        return bool(self._inputs)

    # Progress.

    def _tick(self) -> None:
        if self._on_progress is not None and not self.attempt.is_over:
            self._progress()
            self._ticker.waker = self._tick
            self._worker.set_timer(self._ticker, self._worker.clock() + PROGRESS_INTERVAL_S)

    def _progress(self, is_start: bool = False) -> None:
        if self._on_progress is None or not self.attempt.has_begun:
            return
        totals = self._totals_before + self.attempt.totals
        self._on_progress(
            BatchProgress(
                jobs_done=self.ledger.kept + self.ledger.done,
                jobs_total=len(self._inputs),
                sessions=min(self._session_count, len(self._inputs)),
                rounds=totals.messages // max(1, len(self._worker.links)),
                bytes_sent=totals.bytes_sent,
                bytes_received=totals.bytes_received,
                is_start=is_start,
                retries=self._attempts - 1,
            )
        )

    # The end of an attempt.

    async def end_attempt(self) -> bool:
        """End the attempt at all parties. True: another one has begun. False: every party has every result.

        Raises:
            JobFailed, WorkerDied, PartyFailed: what all parties agree failed.
        """
        attempt = self.attempt
        await attempt.end_shares()
        self._progress()
        failure = attempt.failure
        if failure is None and not self.retries:
            return False
        self._is_ending = True
        ours = self._report(failure)
        said = {self._party.name: ours}
        try:
            theirs, bitmaps = await self._exchange(ours, failure)
        except BeginAnew as anew:
            self._begin_anew(anew)
            return await self.begin()
        except (PeerClosed, PeerLost, SetupAborted, SetupMismatch, RendezvousTimeout, LinkProtocolError) as error:
            if failure is None:
                raise
            alone = self._alone(failure, error)
            raise alone from None if alone is failure.error else failure.error
        said |= theirs
        is_complete = self.ledger.settle(bitmaps)
        verdict = decide(said, is_complete, self._attempts, self.retries)
        if verdict is Verdict.DONE:
            return False
        if verdict is Verdict.FAILED:
            raise self._common_failure(failure, said) from (failure.error if failure is not None else None)
        self._begin_again(failure, said)
        return await self.begin()

    def _report(self, failure: Failure | None) -> AttemptReport:
        if failure is None:
            return AttemptReport()
        index = self.attempt.job_of(failure)
        error = failure.error
        return AttemptReport(index, describe(error), failure.is_ours, failure.is_transient, is_loss(error))

    async def _exchange(
        self, ours: AttemptReport, failure: Failure | None
    ) -> tuple[dict[str, AttemptReport], list[bytes]]:
        """What every peer says of the attempt, and which of its jobs each holds results of.

        Raises:
            BeginAnew: a peer was started again.
            SetupMismatch: the same, when no attempt is left to begin.
            PeerClosed, PeerLost, SetupAborted, RendezvousTimeout, LinkProtocolError.
        """
        told = {**self._standing.fields(), **ours.fields()}
        if failure is not None:
            told["cause"] = AttemptReport(cause=describe_to_peers(failure.error)).fields()["cause"]
        is_last = failure is not None and (self._attempts > self.retries or not failure.is_transient)
        timeout, patience = (END_TIMEOUT_S, None) if is_last else (None, self._patience)
        while True:
            try:
                return await self._tell_all(told, timeout, patience)
            except SetupAborted as error:
                if is_last or not error.is_skipped:
                    raise
                # A peer was started again and meets another one, which is a chunk further: so do we, and begin anew.
            except SetupMismatch as error:
                if error.field != "kind" or error.theirs != BATCH:
                    raise
                if not is_last:
                    raise BeginAnew(error.peer, self._attempts) from None
                self._leave(error)
                raise

    async def _tell_all(
        self, told: Mapping[str, object], timeout: float | None, patience: float | None
    ) -> tuple[dict[str, AttemptReport], list[bytes]]:
        reports: dict[str, AttemptReport] = {}
        bitmaps: dict[str, bytes] = {}
        for number, chunk in enumerate(self.ledger.chunks()):
            fields = {"final": chunk, "chunk": number, **(told if number == 0 else {})}
            outcome = await self._party.rendezvous(END, fields, timeout=timeout, patience=patience)
            if number == 0:
                said = {peer: Standing.from_fields_untrusted(theirs, peer) for peer, theirs in outcome.items()}
                common_batch(self._number, self._party.name, {**said, self._party.name: self._standing})
            for peer, theirs in outcome.items():
                if number == 0:
                    reports[peer] = AttemptReport.from_fields_untrusted(theirs, peer)
                piece = self.ledger.take_chunk_untrusted(theirs.get("final"), number, peer)
                bitmaps[peer] = bitmaps.get(peer, b"") + piece
        return reports, list(bitmaps.values())

    def _begin_again(self, failure: Failure | None, said: Mapping[str, AttemptReport]) -> None:
        """Every party holds the same results and has decided to run the other jobs again."""
        index, party, cause = first_failure(said, self._party.names) or self._seen_here(failure)
        self._history.append(f"job {index} failed at {party}: {cause}")
        left = len(self.ledger.pending)
        extra = {"event": "batch_retry", "party": self._party.name, "peer": party, "cause": cause, "count": left}
        log.warning(
            "%s: attempt %d of %d of a batch ended (job %d failed at %s: %s); %d of %d jobs run again",
            *(self._party.name, self._attempts, self.retries + 1, index, party, cause, left, len(self._inputs)),
            extra=extra,
        )
        self._attempts += 1
        self._next_attempt()

    def _begin_anew(self, anew: BeginAnew) -> None:
        """A peer was started again: nothing that anybody holds is kept."""
        cause = f"{anew.peer} begins the batch anew"  # it was started again, or follows one that was
        if anew.attempt > self.retries:
            error = JobFailed(self.ledger.pending[0], anew.peer, cause, tuple(self._history), is_loss=True)
            self._leave(error)
            raise error
        self._history.append(cause)
        extra = {"event": "batch_retry", "party": self._party.name, "peer": anew.peer, "cause": cause}
        log.warning(
            "%s: attempt %d of %d of a batch ended (%s); all %d jobs run again",
            *(self._party.name, anew.attempt, self.retries + 1, cause, len(self._inputs)),
            extra=extra | {"count": len(self._inputs)},
        )
        self._attempts = anew.attempt + 1
        self._discard()

    def _leave(self, error: Exception) -> None:
        """Give up the rounds in which the others follow a peer that was started again."""
        self.attempt.refuse(BATCH, error)
        self.attempt.refuse(END, error)
        self._is_ending = True

    def _discard(self) -> None:
        self.ledger.restart()
        self._next_attempt()

    def _next_attempt(self) -> None:
        self._totals_before += self.attempt.totals
        self.attempt.close()
        self.attempt = self._new_attempt()

    # Failures.

    def _seen_here(self, failure: Failure | None) -> tuple[int, str, str]:
        """Job, party and cause as far as this party knows them."""
        if failure is None:
            return 0, self._party.name, "a peer did not end its jobs"
        peer = getattr(failure.error, "peer", None)
        name = peer if isinstance(peer, str) else self._party.name
        return max(0, self.attempt.job_of(failure)), name, describe(failure.error)

    def _common_failure(self, failure: Failure | None, said: Mapping[str, AttemptReport]) -> Exception:
        """What all parties raise: the failure that began first, if anybody says where."""
        if failure is not None and isinstance(failure.error, PartyFailed):
            return self._own_failure(failure.error)
        first = first_failure(said, self._party.names) or self._seen_here(failure)
        return JobFailed(*first, tuple(self._history), is_loss=was_lost(said))

    def _own_failure(self, error: PartyFailed) -> PartyFailed:
        """A fresh object for a process of ours that ended, with what failed before."""
        before = "".join(f"; attempt {number}: {what}" for number, what in enumerate(self._history, 1))
        if isinstance(error, WorkerDied):
            return WorkerDied(error.name, error.index, error.cause + before)
        return PartyFailed(error.name, error.cause + before)

    def _alone(self, failure: Failure, error: Exception) -> Exception:
        """The failure when a peer cannot say any more what it saw."""
        if isinstance(failure.error, PartyFailed):
            return self._own_failure(failure.error)
        if isinstance(failure.error, SetupAborted):
            return failure.error
        index, party, cause = self._seen_here(failure)
        why = error.reason if isinstance(error, SetupAborted) else describe(error)
        if isinstance(failure.error, PeerClosed | PeerLost) and isinstance(error, PeerClosed | PeerLost | SetupAborted):
            # We saw the end of a peer that left because of this one, whose own words are still under way; or that does
            # not come back, as we or another peer found.
            party, cause = error.peer, why
        elif failure.is_transient and self._attempts <= self.retries and why != cause:
            cause = f"{cause}; it cannot run again: {why}"
        return JobFailed(index, party, cause, tuple(self._history), is_loss=not failure.is_ours)

    def give_up(self, error: BaseException) -> None:
        """Stop everything because of an error outside the jobs, and tell the peers, who may wait for us."""
        if self._is_ending or isinstance(error, SetupMismatch):
            return
        if self.attempt.has_begun:
            self.attempt.give_up(error)
        if self.attempt.has_begun or self.retries:
            self.attempt.refuse(END, error)

    def close(self) -> None:
        """Leave the worker as it was before the batch. May follow anything."""
        self._ticker.waker = None
        self._ticker.deadline = NEVER
        if self._begun_as != NOT_BEGUN:
            self._party.last_batch = self._begun_as
        self.attempt.close()
