"""The scheduler: many sessions' coroutines on one worker, resumed directly, without a task or future per message.

Between the worker, which wakes slots when their messages arrive, and the coroutines of jobs. A pass is: take in what
has arrived, resume what is ready, publish everything at once. The one invariant: no pass is longer than
PASS_RESUMPTIONS_MAX resumptions or PASS_TIME_MAX_NS between two looks at the clock, so what was sent never waits for
more.

Two drivers: `run` (this thread, natively) and `run_async` (inside somebody's asyncio loop). A job may await things of
asyncio under both: at the first such await its coroutine becomes a real task, and stays one. Before that it has no
current task, so `asyncio.timeout` and `TaskGroup` need an `await asyncio.sleep(0)` in front of them. A synchronous job
occupies its worker until it ends; meanwhile other sessions only receive.
"""

from __future__ import annotations

import asyncio
import inspect
import signal
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from partywire.engine.frames import JobStatus

from .errors import PartyFailed, SessionError, WorkerDied, describe_to_peers
from .hot import Queue, SlotHot, run_slots
from .waiting import LoopDriver, Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator

    from .session import Session
    from .worker import Worker

PASS_RESUMPTIONS_MAX: Final = 256
"""Resumptions in one pass. At 2 us each half a millisecond, in which hundreds of frames share one publication."""

PASS_SHARE: Final = 2
PASS_TIME_NS: Final = 20_000
PASS_TIME_MAX_NS: Final = 200_000
"""A pass ends once one coroutine in PASS_SHARE has been resumed, within these bounds; the lower one is a few times what
a publication costs. Messages bunch up, since what comes while a party computes is taken in together, and a coroutine
that finds the messages of three rounds plays them all before it waits. A pass that publishes half of a bunch lets the
next party begin with it; with longer ones the others sleep while one has it all, shorter ones only cost."""


@dataclass(slots=True, frozen=True)
class JobCallbacks:
    """Whom to tell what, all called inside a pass. `on_final` and `on_failure` of a job come after its `on_result`."""

    on_result: Callable[[int, Any], object]
    """The job ended here with this value."""
    on_failure: Callable[[int, BaseException], object]
    """The job failed here, or its session did; the session's further jobs will not run. Once per session."""
    on_final: Callable[[int], object] | None = None
    """Every party has reported that the job ended well."""


class Slot(SlotHot):
    """One coroutine and where it stands. Finished when `is_done`."""

    __slots__ = ("error", "on_done", "result")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        session: Session | None,
        ready: deque[Slot],
        on_done: Callable[[Slot], object] | None,
    ) -> None:
        super().__init__(coroutine, ready)
        self.session = session
        self.on_done = on_done
        self.result: Any = None
        self.error: BaseException | None = None


class Scheduler:
    """Driven by its owner (spawn, add, run) and by arriving messages. Several runs one after another are fine."""

    def __init__(self, worker: Worker, *, pass_time_ns: int | None = None) -> None:
        """`pass_time_ns`: of each pass, however many coroutines there are."""
        self._pass_times_ns = (PASS_TIME_NS, PASS_TIME_MAX_NS) if pass_time_ns is None else (pass_time_ns, pass_time_ns)
        self._worker = worker
        self._ready: deque[Slot] = Queue()
        self._slots: set[Slot] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        # The loop of jobs that await asyncio; made by the first native run, used only while there are tasks.
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._changed = Wait(worker)

    # Work.

    @property
    def is_idle(self) -> bool:
        """Whether every coroutine has ended."""
        return not self._slots

    def spawn(
        self,
        coroutine: Coroutine[Any, Any, Any],
        session: Session | None = None,
        on_done: Callable[[Slot], object] | None = None,
    ) -> Slot:
        """Run a coroutine beside the others, from the next pass on. Its end is told to `on_done`."""
        slot = Slot(coroutine, session, self._ready, on_done)
        self._slots.add(slot)
        self._ready.append(slot)
        return slot

    def add(
        self,
        session: Session,
        jobs: Iterable[tuple[int, Callable[..., Any], Any]],
        on_result: Callable[[int, Any], object],
        on_failure: Callable[[int, BaseException], object],
        on_final: Callable[[int], object] | None = None,
    ) -> Slot:
        """Run (index, function, input) jobs one after another on a session, in lockstep with the other parties.

        A function is called with (session, input): with the Session if it is a coroutine function, otherwise with the
        BlockingSession. After each job its end is told to every peer; the next one begins at once.
        """
        callbacks = JobCallbacks(on_result, on_failure, on_final)
        return self.spawn(_run_jobs(session, jobs, callbacks), session)

    def cancel(self, reason: str) -> None:
        """Give up every session with a coroutine here, and close the coroutines."""
        for slot in tuple(self._slots):
            if slot.session is not None:
                slot.session.on_final = None
                slot.session.on_failure = None
                slot.session.abort(reason)
            if slot.task is not None:
                slot.task.cancel()
                continue
            if slot.wait is not None:
                slot.wait.waker = None
            self._finish(slot, None, asyncio.CancelledError(reason))
            slot.coroutine.close()
        self._ready.clear()
        self._worker.flush()

    def notify(self) -> None:
        """Let `run` and `run_async` look at their condition again: something other than a resumption changed it."""
        self._changed.wake()

    # Passes.

    def do_work(self) -> int:
        """Resume what is ready, for one pass at most. Returns the count of resumptions."""
        if not self._ready:
            return 0
        worker = self._worker
        nested = worker.driving
        worker.driving = True
        enough = len(self._slots) // PASS_SHARE
        try:
            times_ns = self._pass_times_ns
            return run_slots(self._ready, PASS_RESUMPTIONS_MAX, enough, *times_ns, self._finish, self._promote)
        finally:
            worker.driving = nested

    def _finish(self, slot: Slot, result: Any, error: BaseException | None) -> None:
        slot.is_done = True
        slot.result = result
        slot.error = error
        self._slots.discard(slot)
        if slot.on_done is not None:
            slot.on_done(slot)
        self._changed.wake()

    # Coroutines that await asyncio.

    def _promote(self, slot: Slot, awaited: Any) -> None:
        """The coroutine awaits something of asyncio: from here on it is a task of the loop."""
        slot.task = asyncio.get_running_loop().create_task(_continue(slot.coroutine, awaited))
        self._tasks.add(slot.task)
        slot.task.add_done_callback(partial(self._task_done, slot))
        self._changed.wake()

    def _task_done(self, slot: Slot, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            self._finish(slot, None, asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self._finish(slot, None, error)
        else:
            self._finish(slot, task.result(), None)

    # Driver: this thread.

    def run(self, until: Callable[[], bool] | None = None) -> None:
        """Run passes until the condition holds (default: every coroutine has ended).

        Raises:
            WorkerDied, PartyFailed: our own party cannot go on; the coroutines are left as they are.
            RuntimeError: an asyncio loop runs in this thread.
        """
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("an asyncio loop runs in this thread already: await run_async instead of calling run")
        done = until or (lambda: self.is_idle)
        if self._own_loop is None:
            self._own_loop = new_loop()
        loop = self._own_loop
        worker = self._worker
        hears_in_sleep_alone = worker.hears_in_sleep_alone
        try:
            # A job that calls asyncio before its first await finds the loop that it will run in. Not around each pass:
            # to set it is as dear as a message.
            asyncio._set_running_loop(loop)
            while not done():
                self._raise_failure()
                if self._tasks:
                    asyncio._set_running_loop(None)
                    self._run_loop(loop, lambda: not self._tasks or done())
                    asyncio._set_running_loop(loop)
                    continue
                work = worker.service() + self.do_work()
                worker.flush()
                if (not work or (hears_in_sleep_alone and not (self._ready or self._tasks))) and not done():
                    worker.rest()
        finally:
            asyncio._set_running_loop(None)
            worker.leave()

    def _run_loop(self, loop: asyncio.AbstractEventLoop, done: Callable[[], bool]) -> None:
        """Let the loop run everything, as long as a task exists; the native driver is several times faster."""
        driver = LoopDriver(self._worker, loop)
        driver.attach()  # before the loop runs: its first callbacks may be tasks that wait on a session
        try:
            loop.run_until_complete(self._drive(done, loop))
        finally:
            driver.detach()

    def close(self) -> None:
        """Give up what still runs, and the loop. May be called again."""
        if self._slots:
            self.cancel("the scheduler is closed")
        loop = self._own_loop
        if loop is not None:
            if self._tasks:
                loop.run_until_complete(asyncio.wait(self._tasks))
            with uninterrupted():
                self._own_loop = None
                loop.close()

    # Driver: somebody's asyncio loop.

    async def run_async(self, until: Callable[[], bool] | None = None) -> None:
        """Like `run`, inside a running loop, which may do other things meanwhile."""
        await self._drive(until or (lambda: self.is_idle), asyncio.get_running_loop())

    async def _drive(self, done: Callable[[], bool], loop: asyncio.AbstractEventLoop) -> None:
        worker = self._worker
        driver = worker.loop_driver
        own_driver = None
        if driver is None:
            driver = own_driver = LoopDriver(worker, loop)
            driver.attach()
        worker.agents.append(self._agent)
        driver.schedule()
        try:
            while not done():
                self._raise_failure()
                await self._changed
        finally:
            worker.agents.remove(self._agent)
            if own_driver is not None:
                own_driver.detach()

    def _agent(self) -> int:
        """One pass inside the loop. Whoever waits for the end looks again after each pass that did something."""
        work = self.do_work()
        if work or self._worker.lost_workers or self._worker.failure is not None:
            self._changed.wake()
        return work

    def _raise_failure(self) -> None:
        for died in self._worker.lost_workers.values():
            raise WorkerDied(*died.args)
        if self._worker.failure is not None:
            raise PartyFailed(*self._worker.failure.args)


async def _continue(coroutine: Coroutine[Any, Any, Any], awaited: Any) -> Any:
    """Run on, as a task, a coroutine that awaited `awaited` natively."""
    return await _Resumed(coroutine, awaited)


class _Resumed:
    """Yields what the coroutine has yielded already, then whatever it yields."""

    __slots__ = ("_awaited", "_coroutine")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], awaited: Any) -> None:
        self._coroutine = coroutine
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, awaited = self._coroutine, self._awaited
        try:
            while True:
                try:
                    value = yield awaited
                except GeneratorExit:
                    coroutine.close()
                    raise
                except BaseException as error:
                    awaited = coroutine.throw(error)
                else:
                    awaited = coroutine.send(value)
        except StopIteration as stopped:
            return stopped.value


async def _run_jobs(
    session: Session, jobs: Iterable[tuple[int, Callable[..., Any], Any]], callbacks: JobCallbacks
) -> None:
    """The life of one session in a batch. Ends well, or tells of one failure and returns."""
    reported: deque[int] = deque()
    first = session.job
    current = -1

    def job_is_final(job: int) -> None:
        if job >= first and callbacks.on_final is not None:
            callbacks.on_final(reported.popleft())

    def session_failed(error: SessionError) -> None:
        # Jobs that ended here may still be waiting for their peers' report; nobody else would tell of the failure.
        if not is_running and reported:
            callbacks.on_failure(reported[0], error)

    is_running = True
    session.on_final = job_is_final
    session.on_failure = session_failed
    for index, function, value in jobs:
        current = index
        try:
            if inspect.iscoroutinefunction(function):
                result = await function(session, value)
            else:
                result = function(session.blocking, value)
            reported.append(index)
            callbacks.on_result(index, result)
            await session.end_job()
        except Exception as error:
            await _report_failure(session, error)
            callbacks.on_failure(current, error)
            return
    is_running = False
    if session.failure is not None and reported:
        callbacks.on_failure(reported[0], session.failure)


async def _report_failure(session: Session, error: Exception) -> None:
    """Tell the peers which job failed and why, unless the session itself failed and they know already."""
    if session.failure is not None:
        return
    try:
        await session.end_job(JobStatus.FAILED, describe_to_peers(error))
    except SessionError:
        pass  # it failed while we stood in line to say so; the peers have been told


def new_loop() -> asyncio.AbstractEventLoop:
    """A loop for the jobs that await asyncio."""
    with uninterrupted():
        return asyncio.new_event_loop()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Signals wait until the end: the destructor of a loop that is half made or half closed complains."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))  # raises if one just came
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
