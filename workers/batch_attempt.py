"""One attempt of a batch at one party: its sessions and jobs, here and in child workers, until all end or one fails.

Between the batch (batch.py, which decides what an attempt runs and whether there is another) and the shares of this
worker and of the children (batch_share.py). The one invariant: of each job at most one result is given to `on_final`,
and none once the attempt has been closed, however late a child that was busy tells of it.
"""

from __future__ import annotations

import pickle
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from partywire.engine.errors import PartyWireError, SetupAborted
from partywire.engine.rendezvous import check_fields_equal
from partywire.engine.restarts import STAYS_AWAY

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
from .channel import PICKLE_PROTOCOL, ChannelClosed
from .errors import PartyFailed, PeerClosed, PeerLost, SessionClosed, SessionError, WorkerDied, describe_to_peers
from .retry import CAUSE_LENGTH_MAX, NOT_BEGUN, Standing, common_attempt, common_batch, is_transient
from .scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .batch_share import JobFunction
    from .channel import Channel
    from .party import Party

BATCH: Final = "batch"
"""The kind of the round in which an attempt begins."""

STOP_TIMEOUT_S: Final = 5.0
"""How long a failed attempt waits for our own children to stop. One that is deep in a computation is not waited for: it
finds its sessions gone."""


@dataclass(slots=True)
class Failure:
    """A failure that this party saw. `is_ours`: it began here, and was not told by a peer or seen of a link."""

    position: int
    error: BaseException
    is_transient: bool

    @property
    def is_ours(self) -> bool:
        return not isinstance(self.error, SessionError | SetupAborted)

    @property
    def rank(self) -> tuple[int, int]:
        """Of several the least counts: ours, then what peers told us, last what our own giving up did to other jobs;
        among these the lowest job."""
        kind = 0 if self.is_ours else 2 if isinstance(self.error, SessionClosed) else 1
        return kind, self.position


class BatchAttempt:
    """Driven by the batch (begin, end_shares, close) and by the events of the shares."""

    def __init__(
        self,
        party: Party,
        function: JobFunction,
        inputs: Sequence[Any],
        jobs: Sequence[int],
        sessions: int,
        on_final: Callable[[int, Any], None],
    ) -> None:
        """`inputs` and the numbers of the jobs by position; `on_final(position, value)` is called for each job that all
        parties have reported."""
        self._party = party
        self._worker = party.worker
        # Told from every other attempt of this process: a child may still be busy with an earlier one.
        self._number = time.monotonic_ns()
        self._function = function
        self._inputs = inputs
        self._jobs = jobs
        self._session_count = sessions
        self._on_final = on_final
        self._channels: dict[int, Channel] = {}
        self._watched: dict[int, int] = {}  # child -> descriptor of its channel
        self.scheduler = Scheduler(self._worker)
        self.failure: Failure | None = None
        self._left = len(inputs)
        self._share: BatchShare | None = None  # ours, once all parties agreed
        self._has_expectation = False
        self._expecting: set[int] = set()  # children that expect sessions
        self._running: set[int] = set()  # children that were told to run
        self._told_to_stop: set[int] = set()
        self._stopped: set[int] = set()  # children that have stopped
        self._lost: set[int] = set()  # children that died while it ran
        self._died: WorkerDied | None = None  # one that died before the parties had agreed
        self._child_totals: dict[int, Totals] = {}

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to run: every job is final, or one failed."""
        return self.failure is not None or self._left == 0

    @property
    def has_begun(self) -> bool:
        """Whether all parties agreed to run it."""
        return self._share is not None

    @property
    def totals(self) -> Totals:
        """What all our workers have carried for it."""
        return sum(self._child_totals.values(), Totals() if self._share is None else self._share.totals)

    # Beginning.

    async def begin(
        self, round_: int, fields: Mapping[str, object], standing: Standing, total: int, patience: float | None
    ) -> Standing:
        """Agree with all parties and start every share; a failure to start one is the attempt's.

        Lost links and dead workers are waited for as many seconds as `patience` has; without it they are an error.
        Returns where all parties stand in the batch of `total` jobs: which attempt it is, and how it was begun.

        Raises:
            SetupMismatch, SetupAborted, PeerLost, PeerClosed, PartyFailed, WorkerDied.
            BeginAnew: the parties do not hold the same results; nothing was started anywhere.
        """
        try:
            await self._prepare(patience)
        except BaseException as error:
            self._party.refuse_round(BATCH, self._why(error))  # in which the others wait for us
            raise
        plan, standing = await self._agree(round_, fields, standing, total, patience)
        self._share = BatchShare(self._worker, self.scheduler, plan, self._job_final, self.fail)
        self._party.agreement.on_given_up = self._sessions_given_up
        try:
            if self._died is not None:
                raise self._died
            for index, channel in self._channels.items():
                payload = pickle.dumps((self._function, self._inputs_of(plan, index)), PICKLE_PROTOCOL)
                self._running.add(index)
                channel.send(RunShare(plan, payload, sys.path, sys.argv))
            self._share.start(self._function, self._inputs_of(plan, 0))
        except ChannelClosed:
            pass  # WorkerLost follows on the control socket
        except PartyWireError as error:
            if isinstance(error, PartyFailed) and not isinstance(error, WorkerDied):
                raise
            self._party.agreement.give_up(describe_to_peers(error))  # sessions that were not even made here
            self.fail(-1, error)
        self._end_expectation()
        return standing

    async def _prepare(self, patience: float | None) -> None:
        """Let all our workers expect sessions; one that dies meanwhile is waited for like one that was dead before."""
        deadline = self._worker.clock() + (patience or 0)
        while True:
            try:
                if patience is not None:
                    await self._until_whole(deadline)
                self._watch_children()
                await self._expect_sessions()
                return
            except WorkerDied:
                if self._worker.clock() >= deadline:
                    raise
                self._end_expectation()
                self._expecting.clear()
                for index in tuple(self._watched):
                    self._unwatch(index)

    async def _until_whole(self, deadline: float) -> None:
        """Wait for what has to be restarted or dialled again.

        Raises:
            PeerLost, PeerClosed, WorkerDied: it did not come back in time, or will not.
        """
        worker = self._worker

        def is_whole() -> bool:
            for link in worker.links.values():
                if link.is_closed:
                    raise PeerClosed(link.name, None, link.epoch)
            for died in worker.lost_workers.values():
                if died.cause.endswith(STAYS_AWAY):
                    raise WorkerDied(*died.args)
            return not worker.lost_workers and all(link.is_up for link in worker.links.values())

        if await worker.until(is_whole, deadline):
            return
        for died in worker.lost_workers.values():
            raise WorkerDied(*died.args)
        for link in worker.links.values():
            if not link.is_up:
                raise PeerLost(link.name, None, link.epoch, link.cause or "the link is not up")

    def _watch_children(self) -> None:
        self._lost.clear()
        self._died = next(iter(self._worker.lost_workers.values()), None)
        self._channels = self._party.processes.channels
        self._worker.on_worker_lost = self._worker_lost
        for index, channel in self._channels.items():
            self._watched[index] = channel.fileno()
            self._worker.watch(channel.fileno(), lambda index=index: self._take_messages(index))  # type: ignore[misc]

    async def _expect_sessions(self) -> None:
        self._worker.expect_sessions()
        self._has_expectation = True
        epochs = {link.index: link.epoch for link in self._worker.links.values()}
        for channel in self._channels.values():
            try:
                channel.send(ExpectSessions(self._number, self._worker.inbox_size_max, epochs))
            except ChannelClosed:
                pass  # WorkerLost follows on the control socket

        def everybody_expects() -> bool:
            if self._died is not None:
                died, self._died = self._died, None
                raise died
            return self._expecting >= self._channels.keys()

        await self._worker.until(everybody_expects)

    async def _agree(
        self, round_: int, fields: Mapping[str, object], standing: Standing, total: int, patience: float | None
    ) -> tuple[BatchPlan, Standing]:
        party = self._party
        told = {**fields, **standing.fields()}
        block, outcome = await party.agree(BATCH, self._session_count, told, patience=patience)
        check_fields_equal(round_, fields, outcome, fields)
        said = {peer: Standing.from_fields_untrusted(theirs, peer) for peer, theirs in outcome.items()}
        said[party.name] = standing
        batch = common_batch(round_, party.name, said)
        attempt = common_attempt(said, total)
        plan = BatchPlan(self._number, block.first, block.count, len(self._inputs))
        return plan, replace(standing, attempt=attempt, batch=block.first if batch == NOT_BEGUN else batch)

    def _inputs_of(self, plan: BatchPlan, worker: int) -> dict[int, Any]:
        return {position: self._inputs[position] for position in plan.jobs_of(worker, self._worker.workers)}

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
            self._unwatch(child)  # WorkerLost follows on the control socket
        self._worker.notify()
        self.scheduler.notify()

    def _take(self, child: int, message: Any) -> None:
        if message.batch != self._number:
            return  # of an attempt that failed, from a child that was busy then
        match message:
            case SessionsExpected():
                self._expecting.add(child)
            case JobFinal(_, position, value):
                self._job_final(position, pickle.loads(value))
            case ShareFailed(_, position, error, transient):
                self.fail(position, load_error(error), transient)
            case ShareProgress(_, totals):
                self._child_totals[child] = totals
            case ShareStopped():
                self._stopped.add(child)

    def _job_final(self, position: int, value: Any) -> None:
        self._on_final(position, value)
        self._left -= 1
        self.scheduler.notify()

    def fail(self, position: int, error: BaseException, transient: bool | None = None) -> None:
        """A job failed here, or something outside the jobs (position -1). Stops every share; resets stop the peers'."""
        failure = Failure(position, error, is_transient(error) if transient is None else transient)
        if self.failure is None or failure.rank < self.failure.rank:
            self.failure = failure
        self.stop(self._reason(failure))
        self.scheduler.notify()

    def _sessions_given_up(self, error: SessionError) -> None:
        """A peer could not make the sessions of this attempt, whichever of our workers has them."""
        self.fail(-1, error)

    def _worker_lost(self, died: WorkerDied) -> None:
        self._unwatch(died.index)
        self._lost.add(died.index)
        if self._share is None:
            self._died = died
        else:
            self.fail(-1, died)

    def _why(self, error: BaseException) -> str:
        """What the peers are told when we give up."""
        return describe_to_peers(error) if isinstance(error, Exception) else f"{self._party.name} was interrupted"

    # Ending.

    def job_of(self, failure: Failure) -> int:
        """The number of the job that failed, -1 for a failure outside the jobs."""
        return self._jobs[failure.position] if failure.position >= 0 else -1

    def _reason(self, failure: Failure) -> str:
        """What the peers are told by the resets of our sessions."""
        cause = describe_to_peers(failure.error)
        if not failure.is_ours:
            return cause
        where = f"job {self.job_of(failure)} failed at {self._party.name}: " if failure.position >= 0 else ""
        return f"{where}{cause}"[:CAUSE_LENGTH_MAX]

    def stop(self, reason: str) -> None:
        """Give up all sessions of the attempt, ours at once and the children's by message. Also from inside a job; what
        is said a second time is not sent."""
        if self._share is not None:
            self._share.abort(reason)
        for index in self._running - self._told_to_stop:
            self._told_to_stop.add(index)
            try:
                self._channels[index].send(StopShare(self._number, reason))
            except ChannelClosed:
                pass  # WorkerLost follows on the control socket

    def give_up(self, error: BaseException) -> None:
        """Stop everything because of an error outside the jobs, and tell the peers. Not from inside a job."""
        reason = self._why(error)
        self._cancel(reason)
        self._party.agreement.give_up(reason)  # sessions that were not even made here

    def refuse(self, kind: str, error: BaseException) -> None:
        """Give up the next round, in which the others are to begin an attempt or to tell each other how it ended."""
        self._party.refuse_round(kind, self._why(error))

    def _cancel(self, reason: str) -> None:
        """`stop`, and close the coroutines of all jobs."""
        self.stop(reason)
        if self._share is not None:
            self._share.stop(reason)

    async def end_shares(self) -> None:
        """Finish the sessions when every job is final; otherwise stop everything and wait for the children."""
        failure = self.failure
        if failure is None:
            assert self._share is not None
            self._share.finish()
            return
        self._cancel(self._reason(failure))
        # One of the children may have begun what we only heard of from a peer.
        await self._worker.until(self._children_stopped, self._worker.clock() + STOP_TIMEOUT_S)

    def _children_stopped(self) -> bool:
        return self._stopped >= self._running - self._lost

    def _unwatch(self, child: int) -> None:
        fd = self._watched.pop(child, None)
        if fd is not None:
            self._worker.unwatch(fd)

    def close(self) -> None:
        """Leave the worker as it was before the attempt. May follow anything."""
        self._end_expectation()
        self._party.agreement.on_given_up = None
        self._worker.on_worker_lost = None
        for index, channel in self._channels.items():
            if self._share is None:
                try:
                    channel.send(ForgetSessions(self._number))
                except ChannelClosed:
                    pass  # WorkerLost says more, to whoever calls next
            self._unwatch(index)
        self._channels = {}
        self.scheduler.close()
