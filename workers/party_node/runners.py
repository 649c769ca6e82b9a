"""Who runs the coroutines of a party's control plane: handlers, and what listens to a bridge.

Between them and whatever drives the party: tasks of the asyncio loop of a `Party`, or slots that a pass of the worker
resumes, under a `BlockingParty` and its batches. The one invariant: a slot is resumed by one pass at a time; a blocking
call inside a handler serves the worker meanwhile, but resumes no other handler.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..waiting import Wait
from .errors import NeedsAsyncio

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ..worker import Worker

log = logging.getLogger("partywire.node")

RESUMPTIONS_MAX: Final = 64
"""In one pass, so that sessions have their turns beside handlers that never wait for long."""


class Running(Protocol):
    """One coroutine that runs."""

    def cancel(self) -> object:
        """Have CancelledError raised where it stands."""

    def done(self) -> bool:
        """Whether it has ended."""


class Runner(Protocol):
    """Of one lane."""

    def spawn(self, coroutine: Coroutine[Any, Any, None], on_done: Callable[[], object]) -> Running:
        """Run a coroutine that lets no error pass. Its end is told to `on_done`."""

    def run_ready(self) -> int:
        """For the lane: resume what is ready. Returns the count of resumptions."""

    def close(self) -> None:
        """Resume nothing more."""

    @property
    def is_ready(self) -> bool:
        """Whether `run_ready` would resume anything."""


class LoopRunner:
    """Runs tasks."""

    is_ready = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def spawn(self, coroutine: Coroutine[Any, Any, None], on_done: Callable[[], object]) -> Running:
        """As Runner.spawn."""

        def has_ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self._loop.call_exception_handler(
                    {"message": "a bug in the control plane", "exception": error, "task": task}
                )
            on_done()

        task = self._loop.create_task(coroutine)
        task.add_done_callback(has_ended)
        return task

    def run_ready(self) -> int:
        """As Runner.run_ready: the loop does."""
        return 0

    def close(self) -> None:
        """As Runner.close: tasks are the loop's, and end when they are cancelled."""


class _Slot:
    """One coroutine and where it stands."""

    __slots__ = ("_error", "_is_done", "_on_done", "_runner", "_wait", "coroutine")

    def __init__(self, runner: PassRunner, coroutine: Coroutine[Any, Any, None], on_done: Callable[[], object]) -> None:
        self.coroutine = coroutine
        self._runner = runner
        self._on_done = on_done
        self._wait: Wait | None = None
        self._error: BaseException | None = None  # to be raised where the coroutine stands
        self._is_done = False

    def cancel(self) -> None:
        """As Running.cancel."""
        if self._is_done or self._error is not None:
            return
        self._error = asyncio.CancelledError()
        if self._wait is not None:
            self._wait.waker = None
            self._wake()

    def done(self) -> bool:
        """As Running.done."""
        return self._is_done

    def resume(self) -> None:
        """Run to the next wait, or to the end."""
        self._wait = None
        try:
            error, self._error = self._error, None
            wait = self.coroutine.send(None) if error is None else self.coroutine.throw(error)
            while not isinstance(wait, Wait):
                wait = self.coroutine.throw(NeedsAsyncio("what a handler awaits beside its party, reader and writer"))
        except StopIteration:
            self.end()
        except asyncio.CancelledError:
            self.end()
        except BaseException:
            self.end()
            raise
        else:
            self._wait = wait
            wait.waker = self._wake

    def end(self) -> None:
        """It runs no more."""
        if not self._is_done:
            self._is_done = True
            if self._wait is not None:
                self._wait.waker = None
            self._runner.has_ended(self)
            self._on_done()

    def _wake(self) -> None:
        self._wait = None
        self._runner.is_ready_again(self)


class PassRunner:
    """Runs slots. `on_ready` is called when a pass has to come back for one of them."""

    def __init__(self, worker: Worker, on_ready: Callable[[], object]) -> None:
        self._worker = worker
        self._on_ready = on_ready
        self._slots: set[_Slot] = set()
        self._ready: deque[_Slot] = deque()
        self._is_running = False
        self._resuming: _Slot | None = None

    def spawn(self, coroutine: Coroutine[Any, Any, None], on_done: Callable[[], object]) -> Running:
        """As Runner.spawn."""
        slot = _Slot(self, coroutine, on_done)
        self._slots.add(slot)
        self.is_ready_again(slot)
        return slot

    def has_ended(self, slot: _Slot) -> None:
        """For slots."""
        self._slots.discard(slot)

    def is_ready_again(self, slot: _Slot) -> None:
        """For slots: what it waited for may have happened."""
        self._ready.append(slot)
        self._on_ready()

    @property
    def is_ready(self) -> bool:
        """As Runner.is_ready."""
        return bool(self._ready) and not self._is_running

    def run_ready(self) -> int:
        """As Runner.run_ready."""
        if not self.is_ready:
            return 0
        worker = self._worker
        nested = worker.driving
        self._is_running = worker.driving = True
        count = 0
        try:
            for _ in range(min(len(self._ready), RESUMPTIONS_MAX)):
                if not self._ready:
                    break
                slot = self._resuming = self._ready.popleft()
                slot.resume()
                count += 1
        finally:
            worker.driving = nested
            self._is_running = False
            self._resuming = None
        return count

    def close(self) -> None:
        """As Runner.close. A handler that closes its party from inside is left to end by itself."""
        self._ready.clear()
        for slot in tuple(self._slots):
            slot.end()
            if slot is not self._resuming:
                slot.coroutine.close()
