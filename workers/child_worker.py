"""A child worker: sessions, protocol code and numpy of its share of a batch, told what to do by its opener.

Between the opener (channel), the supervisor (its Close, through the worker) and the scheduler. The one invariant: a
child ends when it is told to, or when nobody is left to tell it anything; never because a job of its raised something.

Job functions come by reference, as module and name; those of the user's script are found by running the script once
more as `__mp_main__`, as multiprocessing does.
"""

from __future__ import annotations

import pickle
import sys
from typing import TYPE_CHECKING, Any

from .batch_share import (
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
    portable_error,
)
from .channel import PICKLE_PROTOCOL, Channel, ChannelClosed, load_main
from .errors import PartyFailed, WorkerDied
from .retry import is_transient
from .scheduler import Scheduler
from .waiting import NEVER, Wait

if TYPE_CHECKING:
    from .batch_share import JobFunction
    from .worker import Worker

PROGRESS_INTERVAL_S = 0.25


class ChildWorker:
    """Driven by the opener's messages, by the supervisor's Close, and by what arrives for its sessions."""

    def __init__(self, worker: Worker, channel: Channel, main_path: str | None) -> None:
        """Owns the channel."""
        self._worker = worker
        self._channel = channel
        self._main_path = main_path
        self._scheduler = Scheduler(worker)
        self._share: BatchShare | None = None
        self._left = 0  # jobs of the share that are not final
        self._expected: int | None = None  # the batch whose sessions are expected
        self._has_opener = True
        self._stop: StopShare | None = None  # to be obeyed as soon as no job runs
        self._later: list[object] = []  # what the opener said behind it
        self._ticker = Wait(worker)

    def run(self) -> None:
        """Serve until the supervisor says Close, or is gone."""
        worker = self._worker
        worker.watch(self._channel.fileno(), self._take_messages)
        try:
            while not worker.is_closing and self._has_opener:
                self._obey_stops()
                try:
                    self._scheduler.run(lambda: worker.is_closing or not self._has_opener or self._stop is not None)
                except WorkerDied:
                    worker.lost_workers.clear()  # a sibling; the opener decides what follows from it
        except PartyFailed:
            pass  # the supervisor is gone: there is nobody left to tell
        finally:
            worker.unwatch(self._channel.fileno())

    def close(self) -> None:
        """Give up what still runs and free everything but the worker."""
        self._scheduler.close()
        self._channel.close()

    # What the opener says.

    def _take_messages(self) -> None:
        try:
            for message in self._channel.poll():
                if self._stop is None:
                    self._take(message)
                else:
                    self._later.append(message)  # a job may still run that belongs to what was stopped
        except ChannelClosed:
            self._has_opener = False
        self._worker.notify()

    def _take(self, message: object) -> None:
        match message:
            case ExpectSessions(batch, inbox_size_max, epochs):
                self._worker.inbox_size_max = inbox_size_max
                if self._expected is None:
                    self._worker.expect_sessions()
                self._expected = batch
                self._scheduler.spawn(self._say_when_linked(SessionsExpected(batch), epochs))
            case ForgetSessions():
                self._end_expectation()
            case RunShare():
                self._run(message)
            case StopShare(_, reason):
                self._stop = message
                if self._share is not None:
                    self._share.abort(reason)  # we may be inside a plain job that waits for a message
            case _:
                raise TypeError(f"{type(message).__name__} is not for a worker")

    def _obey_stops(self) -> None:
        while self._stop is not None:
            stop, self._stop = self._stop, None
            if self._share is not None:
                self._share.stop(stop.reason)
                self._end_share()
            self._scheduler.cancel(stop.reason)  # also who waits for links that an attempt given up was to have
            self._end_expectation()
            self._say(ShareStopped(stop.batch))
            later, self._later = self._later, []
            while later and self._stop is None:
                self._take(later.pop(0))
            self._later = later

    async def _say_when_linked(self, message: SessionsExpected, epochs: dict[int, int]) -> None:
        """The opener may know that a link is up, or up again, before our lanes of it have arrived."""
        links = self._worker.links.values()

        def is_linked() -> bool:
            return all(
                (link.connection_count or link.cause) and link.epoch >= epochs.get(link.index, 0) for link in links
            )

        await self._worker.until(is_linked)
        self._say(message)

    def _end_expectation(self) -> None:
        if self._expected is not None:
            self._expected = None
            self._worker.expect_sessions_end()

    def _run(self, order: RunShare) -> None:
        plan = order.plan
        try:
            function, inputs = self._load(order)
            share = BatchShare(self._worker, self._scheduler, plan, self._final, self._failed, pickled_value)
            self._share, self._left = share, len(inputs)
            share.start(function, inputs)
        except Exception as error:
            self._share = None
            self._say(ShareFailed(plan.number, -1, portable_error(error), is_transient(error)))
            return
        finally:
            self._end_expectation()
        self._tick()

    def _load(self, order: RunShare) -> tuple[JobFunction, dict[int, Any]]:
        for entry in order.sys_path:
            if entry not in sys.path:
                sys.path.append(entry)
        if b"__main__" in order.payload and self._main_path is not None:
            sys.argv[:] = order.sys_argv
            load_main(self._main_path)
        function, inputs = pickle.loads(order.payload)
        return function, inputs

    # What becomes of the share.

    def _final(self, index: int, value: bytes) -> None:
        assert self._share is not None
        self._say(JobFinal(self._share.plan.number, index, value))
        self._left -= 1
        if self._left == 0:
            self._tell_progress()
            self._share.finish()
            self._end_share()

    def _failed(self, index: int, error: BaseException) -> None:
        if self._share is not None and self._stop is None:
            self._say(ShareFailed(self._share.plan.number, index, portable_error(error), is_transient(error)))

    def _end_share(self) -> None:
        self._share = None
        self._ticker.waker = None
        self._ticker.deadline = NEVER

    def _tick(self) -> None:
        if self._share is not None:
            self._tell_progress()
            self._ticker.waker = self._tick
            self._worker.set_timer(self._ticker, self._worker.clock() + PROGRESS_INTERVAL_S)

    def _tell_progress(self) -> None:
        assert self._share is not None
        self._say(ShareProgress(self._share.plan.number, self._share.totals))

    def _say(self, message: object) -> None:
        try:
            self._channel.send(message)
        except ChannelClosed:
            self._has_opener = False


def pickled_value(index: int, value: Any) -> bytes:
    """A job's value as the opener gets it.

    Raises:
        TypeError: it cannot be pickled.
    """
    try:
        return pickle.dumps(value, PICKLE_PROTOCOL)
    except Exception as error:
        raise TypeError(f"the result of job {index} cannot be sent to the opener: {error}") from error
