"""Substreams driven by a worker: its clock, its timers, its waits, and its passes instead of a loop's turns.

Between the substreams of one lane and the worker. What waits here waits under each of the worker's three drivers
(waiting.py). The one invariant: whatever was put off to the end of a turn is done before the process sleeps, because
the lane is then dirty (Worker.add_dirty).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..waiting import NEVER, Wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..worker import Worker


class WorkerTimer:
    """Calls once, from a pass of the worker."""

    def __init__(self, worker: Worker, delay: float, callback: Callable[[], object]) -> None:
        self._wait = Wait(worker)
        self._wait.waker = callback
        worker.set_timer(self._wait, worker.clock() + delay)

    def cancel(self) -> None:
        """As Timer.cancel."""
        self._wait.waker = None
        self._wait.deadline = NEVER


class WorkerPlace:
    """Where one coroutine can stand still that the worker resumes."""

    __slots__ = ("_is_taken", "_wait", "_was_woken")

    def __init__(self, worker: Worker) -> None:
        self._wait = Wait(worker)
        self._is_taken = False
        self._was_woken = False

    def wake(self) -> None:
        """As Place.wake."""
        self._was_woken = True
        self._wait.wake()

    async def wait(self, what: str, timeout_s: float | None = None) -> None:
        """As Place.wait."""
        if self._is_taken:
            raise RuntimeError(f"another coroutine is already waiting to {what} this substream")
        self._is_taken = True
        self._was_woken = False
        wait = self._wait
        try:
            if timeout_s is None:
                await wait
                return
            wait.worker.set_timer(wait, wait.worker.clock() + timeout_s)
            await wait
            if not self._was_woken:
                raise TimeoutError
        finally:
            wait.deadline = NEVER
            self._is_taken = False


class WorkerTurns:
    """As Turns, of one lane: `put_off` is called with what is to be done at the end of the turn."""

    is_patient = False
    """A program may not come back to its worker for minutes."""

    def __init__(self, worker: Worker, put_off: Callable[[Callable[[], object]], object]) -> None:
        self._worker = worker
        self.call_soon = put_off

    def time(self) -> float:
        """As Turns.time."""
        return self._worker.clock()

    def call_later(self, delay: float, callback: Callable[..., object], /, *arguments: object) -> WorkerTimer:
        """As Turns.call_later."""
        return WorkerTimer(self._worker, delay, partial(callback, *arguments))

    def make_place(self) -> WorkerPlace:
        """As Turns.make_place."""
        return WorkerPlace(self._worker)
