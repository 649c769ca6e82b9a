"""The batch runner: one job function over many inputs, on all workers and sessions, in lockstep at all parties.

Between the user's program (in the opener) and the workers. Every party calls `map` with the same function and the same
number of inputs; input k meets input k of the others on session k mod N. The one invariant: `map` returns at a party
only when every party has reported every job; otherwise it raises at every party, with the same first failure where the
parties can still tell each other of it.

How a batch goes: children are told to expect sessions, one rendezvous agrees on what is run and on the session ids,
every worker runs its share (batch_share.py). The first failure stops all shares (resets stop the peers'), and a second
rendezvous finds the failure that everybody names: the one of the lowest job, at the party where it began.
"""

from __future__ import annotations

import pickle
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from partywire.engine import limits
from partywire.engine.errors import LinkProtocolError, SetupAborted
from partywire.engine.rendezvous import check_fields_equal

from .batch_share import (
    BatchPlan,
    BatchShare,
    ExpectSessions,
    ForgetSessions,
    JobFinal,
    RunShare,
    SessionsExpected,
    ShareFailed,
    ShareProgress,
    ShareStopped,
    StopShare,
    Totals,
    load_error,
)
from .blocking_party import BlockingParty
from .channel import PICKLE_PROTOCOL, ChannelClosed
from .errors import (
    JobFailed,
    PartyFailed,
    PeerClosed,
    PeerLost,
    RendezvousTimeout,
    SessionClosed,
    SessionError,
    WorkerDied,
    describe,
    describe_to_peers,
)
from .scheduler import Scheduler
from .waiting import NEVER, Wait, run_blocking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .batch_share import JobFunction
    from .channel import Channel
    from .party import Party

SESSIONS_DEFAULT: Final = 8
"""Sessions per worker (of the least common multiple of all worker counts). Enough to hide a loopback round trip behind
the computation of the others; more pay off when rounds are small or the network is far."""

STOP_TIMEOUT_S: Final = 5.0
"""How long a failed batch waits for our own children to stop, and for the peers to say what failed at theirs. One that
is deep in a computation is not waited for: it finds its sessions gone."""

PROGRESS_INTERVAL_S: Final = 0.25

REASON_LENGTH_MAX: Final = 300
"""Characters of a failure's cause that the other parties are told."""


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far a batch is at this party, over all its workers. `rounds` counts messages received per peer."""

    jobs_done: int
    jobs_total: int
    sessions: int
    rounds: int
    bytes_sent: int
    bytes_received: int
    is_start: bool = False


@dataclass(slots=True)
class _Failure:
    """The failure that this party saw first. `is_ours`: it began here, and was not told by a peer."""

    index: int
    error: BaseException

    @property
    def is_ours(self) -> bool:
        return not isinstance(self.error, SessionError)

    @property
    def rank(self) -> tuple[int, int]:
        """Of several the least counts: ours, then what peers told us, last what our own giving up did to other jobs;
        among these the lowest job."""
        kind = 0 if self.is_ours else 2 if isinstance(self.error, SessionClosed) else 1
        return kind, self.index


class BatchRunner:
    """Runs batches one after another on an open party. Not for several threads or several batches at once."""

    def __init__(
        self,
        party: BlockingParty | Party,
        sessions: int = SESSIONS_DEFAULT,
        on_progress: Callable[[BatchProgress], None] | None = None,
    ) -> None:
        """`sessions` is per worker and must be the same at every party.

        `on_progress` is called when all sessions are ready, about four times a second while the worker is served, and
        at the end.
        """
        if not isinstance(sessions, int) or isinstance(sessions, bool) or sessions < 1:
            raise ValueError(f"{sessions!r} sessions, at least 1 is needed")
        self.party = party
        self._party = party.asynchronous if isinstance(party, BlockingParty) else party
        self._sessions = sessions
        self._on_progress = on_progress
        self._batch: _Batch | None = None
        self._count = 0

    def map(self, job: JobFunction, inputs: Iterable[Any], /) -> list[Any]:
        """Call `job(session, x)` for each input, in lockstep at all parties; results in the order of the inputs.

        `job` is a coroutine function, which gets a Session, or a plain function, which gets a BlockingSession and
        occupies its worker until it returns. With more than one worker it must be importable, and inputs and results
        must be picklable. It may be called in any order; when it raises, the batch ends at every party.

        Raises:
            JobFailed: some job failed somewhere; says which, where and why. Its cause is the error if it is ours.
            SetupMismatch: another job, number of inputs or of sessions at another party; raised at every party.
            SetupAborted: a peer gave up before the batch began.
            WorkerDied, PartyFailed: a process of our own party ended; the peers get JobFailed.
        """
        if not isinstance(self.party, BlockingParty):
            raise TypeError("map is for a BlockingParty; with an asynchronous Party use `await runner.amap(...)`")
        worker = self._party.worker
        batch = self._new_batch(job, inputs)
        try:
            if run_blocking(worker, batch.begin()):
                batch.scheduler.run(lambda: batch.is_over)
            run_blocking(worker, batch.end())
        except BaseException as error:
            if batch.give_up(error):
                run_blocking(worker, batch.end())
            raise
        finally:
            batch.close()
            self._batch = None
        return batch.results

    async def amap(self, job: JobFunction, inputs: Iterable[Any], /) -> list[Any]:
        """`map` for an asynchronous Party; other tasks of the loop go on meanwhile. Cancelling it stops the batch at
        every party."""
        batch = self._new_batch(job, inputs)
        try:
            if await batch.begin():
                await batch.scheduler.run_async(lambda: batch.is_over)
            await batch.end()
        except BaseException as error:
            if batch.give_up(error):
                await batch.end()
            raise
        finally:
            batch.close()
            self._batch = None
        return batch.results

    def _new_batch(self, job: JobFunction, inputs: Iterable[Any]) -> _Batch:
        if self._batch is not None:
            raise RuntimeError("a batch is running already; a BatchRunner runs one after another")
        batch = _Batch(self._party, self._count, job, list(inputs), self._sessions, self._on_progress)
        self._count += 1
        self._batch = batch
        return batch


class _Batch:
    """One call of `map` at one party. Driven by the runner (begin, end) and by the events of the shares."""

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
        worker = party.worker
        self._party = party
        self._worker = worker
        self._round = number  # for messages
        # Told from every other batch of this process, of other runners too: a child may still be busy with one.
        self._number = time.monotonic_ns()
        self._function = function
        self._inputs = inputs
        self._on_progress = on_progress
        self._session_count = sessions * party.stride
        if self._session_count > limits.SESSIONS_MAX:
            raise ValueError(f"{self._session_count} sessions, at most {limits.SESSIONS_MAX} are allowed")
        self._channels: dict[int, Channel] = party.channels
        self._pickled = self._pickle_shares() if self._channels else {}
        self.scheduler = Scheduler(worker)
        self.results: list[Any] = [None] * len(inputs)
        self._done = 0
        self._failure: _Failure | None = None
        self._share: BatchShare | None = None  # ours, once all parties agreed
        self._has_expectation = False
        self._expecting: set[int] = set()  # children that expect sessions
        self._running: set[int] = set()  # children that were told to run
        self._told_to_stop: set[int] = set()
        self._stopped: set[int] = set()  # children that have stopped
        self._child_totals: dict[int, Totals] = {}
        self._is_ended = False
        self._ticker = Wait(worker)
        for index, channel in self._channels.items():
            worker.watch(channel.fileno(), lambda index=index: self._take_messages(index))  # type: ignore[misc]

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to run: every job is final, or one failed."""
        return self._failure is not None or self._done == len(self._inputs)

    # Beginning.

    async def begin(self) -> bool:
        """Agree with all parties and start every share. False: there is nothing to run.

        Raises:
            SetupMismatch, SetupAborted, PeerLost, PeerClosed, PartyFailed, WorkerDied.
        """
        await self._expect_sessions()
        plan = await self._agree()
        self._share = BatchShare(self._worker, self.scheduler, plan, self._job_final, self._job_failed)
        for index, channel in self._channels.items():
            channel.send(RunShare(plan, self._pickled[index](plan), sys.path, sys.argv))
            self._running.add(index)
        self._share.start(self._function, {index: self._inputs[index] for index in plan.jobs_of(0, self._workers)})
        self._end_expectation()
        self._progress(is_start=True)
        self._tick()
        return not self.is_over

    @property
    def _workers(self) -> int:
        return self._worker.workers

    async def _expect_sessions(self) -> None:
        self._worker.expect_sessions()
        self._has_expectation = True
        for channel in self._channels.values():
            channel.send(ExpectSessions(self._number, self._worker.inbox_size_max))

        def everybody_expects() -> bool:
            self._raise_dead_workers()
            return self._expecting >= self._channels.keys()

        await self._worker.until(everybody_expects)

    async def _agree(self) -> BatchPlan:
        fields = {"job": job_name(self._function), "number of inputs": len(self._inputs)}
        block, outcome = await self._party.agree("batch", self._session_count, fields)
        check_fields_equal(self._round, fields, outcome, fields)
        return BatchPlan(self._number, block.first, block.count, len(self._inputs))

    def _pickle_shares(self) -> dict[int, Callable[[BatchPlan], bytes]]:
        """For each child, what makes the pickle of its share; tried out now, before anybody is told anything."""
        sys.modules.setdefault("__mp_main__", sys.modules["__main__"])  # where children find our script's classes
        try:
            pickle.dumps(self._function, PICKLE_PROTOCOL)
        except Exception as error:
            raise TypeError(
                f"the job {job_name(self._function)} cannot be sent to the other workers of this party: {error}. "
                "Define it at the top level of a module or script"
            ) from error
        return {index: lambda plan, index=index: self._payload(plan, index) for index in self._channels}  # type: ignore[misc]

    def _payload(self, plan: BatchPlan, worker: int) -> bytes:
        inputs = {index: self._inputs[index] for index in plan.jobs_of(worker, self._workers)}
        return pickle.dumps((self._function, inputs), PICKLE_PROTOCOL)

    def _end_expectation(self) -> None:
        if self._has_expectation:
            self._has_expectation = False
            self._worker.expect_sessions_end()

    # Running.

    def _take_messages(self, child: int) -> None:
        channel = self._channels[child]
        try:
            for message in channel.poll():
                self._take(child, message)
        except ChannelClosed:
            self._worker.unwatch(channel.fileno())  # WorkerLost follows on the control socket
        self._worker.notify()
        self.scheduler.notify()

    def _take(self, child: int, message: Any) -> None:
        if message.batch != self._number:
            return  # of a batch that failed, from a child that was busy then
        match message:
            case SessionsExpected():
                self._expecting.add(child)
            case JobFinal(_, index, value):
                self._job_final(index, pickle.loads(value))
            case ShareFailed(_, index, error):
                self._job_failed(index, load_error(error))
            case ShareProgress(_, totals):
                self._child_totals[child] = totals
            case ShareStopped():
                self._stopped.add(child)

    def _job_final(self, index: int, value: Any) -> None:
        self.results[index] = value
        self._done += 1
        self.scheduler.notify()

    def _job_failed(self, index: int, error: BaseException) -> None:
        failure = _Failure(index, error)
        if self._failure is None or failure.rank < self._failure.rank:
            self._failure = failure
        self._stop(self._reason(failure))
        self.scheduler.notify()

    def _raise_dead_workers(self) -> None:
        for died in self._worker.lost_workers.values():
            raise WorkerDied(*died.args)

    # Progress.

    def _tick(self) -> None:
        if self._on_progress is not None and not self.is_over:
            self._progress()
            self._ticker.waker = self._tick
            self._worker.set_timer(self._ticker, self._worker.clock() + PROGRESS_INTERVAL_S)

    def _progress(self, is_start: bool = False) -> None:
        if self._on_progress is None or self._share is None:
            return
        totals = sum(self._child_totals.values(), self._share.totals)
        self._on_progress(
            BatchProgress(
                jobs_done=self._done,
                jobs_total=len(self._inputs),
                sessions=min(self._session_count, len(self._inputs)),
                rounds=totals.messages // max(1, len(self._worker.links)),
                bytes_sent=totals.bytes_sent,
                bytes_received=totals.bytes_received,
                is_start=is_start,
            )
        )

    # Ending.

    def give_up(self, error: BaseException) -> bool:
        """Stop everything because of an error outside the jobs. True: the peers should hear of it by `end`."""
        if self._is_ended or self._share is None:
            return False
        if not isinstance(error, WorkerDied):
            reason = describe_to_peers(error) if isinstance(error, Exception) else f"{self._party.name} was interrupted"
            self._stop(reason)
            self._share.stop(reason)
            self._party.give_up_agreed(reason)  # sessions of the batch that were not even made here
            return False
        self._failure = _Failure(-1, error)
        return True

    async def end(self) -> None:
        """Finish the sessions of a batch that went well; otherwise stop it, and raise what all parties agree failed.

        Raises:
            JobFailed, WorkerDied, PartyFailed.
        """
        self._is_ended = True
        failure = self._failure
        assert self._share is not None
        if failure is None:
            self._progress()
            self._share.finish()
            return
        if isinstance(failure.error, PartyFailed) and not isinstance(failure.error, WorkerDied):
            raise failure.error
        self._stop(self._reason(failure))
        self._share.stop(self._reason(failure))
        # Children first: one of them may have begun what we only heard of from a peer.
        await self._worker.until(self._children_stopped, self._worker.clock() + STOP_TIMEOUT_S)
        failure = self._failure or failure
        if not failure.is_ours and self._worker.lost_workers:
            # The peers noticed the death of our worker, and told us so, before our own supervisor did.
            failure = _Failure(-1, next(iter(self._worker.lost_workers.values())))
        index, party, cause = await self._common_failure(failure)
        if isinstance(failure.error, WorkerDied):
            raise WorkerDied(*failure.error.args)
        raise JobFailed(index, party, cause) from failure.error

    def _reason(self, failure: _Failure) -> str:
        """What the peers are told by the resets of our sessions."""
        cause = describe_to_peers(failure.error)
        if not failure.is_ours:
            return cause
        where = f"job {failure.index} failed at {self._party.name}: " if failure.index >= 0 else ""
        return f"{where}{cause}"[:REASON_LENGTH_MAX]

    def _children_stopped(self) -> bool:
        return self._stopped >= self._running - self._worker.lost_workers.keys()

    def _stop(self, reason: str) -> None:
        """Give up all sessions of the batch, ours at once and the children's by message; resets stop the peers. Also
        from inside a job; what is said a second time is not sent."""
        if self._share is not None:
            self._share.abort(reason)
        for index in self._running - self._told_to_stop:
            self._told_to_stop.add(index)
            try:
                self._channels[index].send(StopShare(self._number, reason))
            except ChannelClosed:
                pass  # WorkerLost follows on the control socket

    async def _common_failure(self, failure: _Failure) -> tuple[int, str, str]:
        """The failure that all parties name: of those that began at a party the one of the lowest job."""
        cause = describe(failure.error)
        ours = {"index": failure.index, "is_ours": failure.is_ours, "cause": cause}
        told = ours | {"cause": describe_to_peers(failure.error)[:REASON_LENGTH_MAX]}
        said: dict[str, Mapping[str, object]] = {self._party.name: ours}
        try:
            said |= await self._party.rendezvous("batch failure", told, timeout=STOP_TIMEOUT_S)
        except (PeerClosed, PeerLost) as gone:
            if isinstance(failure.error, PeerClosed | PeerLost):
                # We saw the end of a peer that left because of this one, whose own words are still under way.
                return failure.index, gone.peer, describe(gone)
        except SetupAborted as aborted:
            if isinstance(failure.error, PeerClosed | PeerLost):
                return failure.index, aborted.peer, aborted.reason  # the same, seen by another peer
        except (RendezvousTimeout, LinkProtocolError):
            pass  # somebody cannot tell any more; what we know ourselves has to do
        began = [
            (index, name, str(theirs.get("cause")))
            for name, theirs in said.items()
            if theirs.get("is_ours") is True and isinstance(index := theirs.get("index"), int)
        ]
        if began:
            order = self._party.names.index
            index, name, cause = min(began, key=lambda one: (one[0], order(one[1])))
            return index if index >= 0 else lowest_job(said), name, cause
        peer = getattr(failure.error, "peer", None)
        return failure.index, peer if isinstance(peer, str) else self._party.name, cause

    def close(self) -> None:
        """Leave the worker as it was before the batch. May follow anything."""
        self._end_expectation()
        self._ticker.waker = None
        self._ticker.deadline = NEVER
        if self._share is None:
            for channel in self._channels.values():
                try:
                    channel.send(ForgetSessions(self._number))
                except ChannelClosed:
                    pass  # WorkerLost says more, to whoever calls next
        for channel in self._channels.values():
            self._worker.unwatch(channel.fileno())
        self.scheduler.close()


def lowest_job(said: Mapping[str, Mapping[str, object]]) -> int:
    """The first job that anybody noticed to fail; for a failure that began outside the jobs."""
    indices = [index for fields in said.values() if isinstance(index := fields.get("index"), int) and index >= 0]
    return min(indices, default=0)


def job_name(function: JobFunction) -> str:
    """How the parties name a job to each other: the function's qualified name, whatever was bound to it.

    The module is left out: one party's script may be another party's import.
    """
    while hasattr(function, "func"):
        function = function.func
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else type(function).__qualname__
