"""An event loop that never waits: somebody else watches its descriptors, and turns it whenever something of it is due.

Between the code of links, which is written for asyncio, and a process whose time belongs to another event loop, or to a
plain call. The one invariant: whoever sleeps until a watched descriptor is readable, or until `next_deadline`, after
`is_due` was False, misses nothing.

Readers are called by whoever watches, outside any turn: what arrives for a link is moved without one. They may neither
wait nor ask which loop runs.

A turn may be inside another loop, even inside one of its tasks, which asyncio refuses unless that loop steps back.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import selectors
from asyncio import tasks
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, TypeVarTuple, Unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from contextvars import Context

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

NEVER = math.inf


class Watcher(Protocol):
    """Who has the process's time."""

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Call back whenever a descriptor is readable."""

    def unwatch(self, fd: int) -> None:
        """No longer call back."""

    def has_due(self) -> None:
        """Something became due, now or at another time than was known."""


class LinkLoop(asyncio.SelectorEventLoop):
    """Driven by its watcher, from `attach` to `detach`."""

    def __init__(self) -> None:
        self._epoll = selectors.DefaultSelector()
        super().__init__(self._epoll)
        self._watcher: Watcher | None = None
        self._watched: set[int] = set()
        self._alarms: list[float] = []  # when timers fire; those of cancelled ones cost a turn in vain
        self.is_due = False
        """Whether there is something to do without waiting for a descriptor or for time."""

    def attach(self, watcher: Watcher) -> None:
        """Belong to `watcher` from now on."""
        self._watcher = watcher
        self.add_reader(self._epoll.fileno(), self.turn)  # for what is written, and for other threads

    def detach(self) -> None:
        """Watch nothing any more."""
        for fd in tuple(self._watched):
            self.remove_reader(fd)
        self._watcher = None

    def leave_to_parent(self) -> list[int]:
        """This process is a fork: have no turn any more. Returns the descriptors that were watched."""
        self._watcher = None
        watched, self._watched = self._watched, set()
        return list(watched)

    def next_deadline(self) -> float:
        """When the next timer fires, on the clock of `time`; infinity if there is none."""
        return self._alarms[0] if self._alarms else NEVER

    def turn(self) -> None:
        """Do what is due, once. Never waits."""
        self.is_due = False
        now = self.time()
        while self._alarms and self._alarms[0] <= now:
            heapq.heappop(self._alarms)
        try:
            with _outer_loop_aside():
                self.stop()
                self.run_forever()
        except BaseException:
            self.is_due = True  # Ctrl-C: what is left of this turn has the next one
            raise

    def complete(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, waiting as long as it does."""
        with _outer_loop_aside():
            return self.run_until_complete(coroutine)

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """As every loop's; a turn is due."""
        handle = super().call_soon(callback, *args, context=context)
        if not self.is_due:
            self.is_due = True
            self._tell_due()
        return handle

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As every loop's; a turn is due then."""
        handle = super().call_at(when, callback, *args, context=context)
        is_first = when < self.next_deadline()
        heapq.heappush(self._alarms, when)
        if is_first:
            self._tell_due()
        return handle

    def _tell_due(self) -> None:
        if self._watcher is not None:
            self._watcher.has_due()

    def add_reader(self, fd: Any, callback: Callable[[Unpack[Ts]], object], *args: *Ts) -> None:
        """As every loop's; the watcher calls it. Once detached, nobody does."""
        self.remove_reader(fd)
        if self._watcher is not None:
            self._watched.add(fd)
            self._watcher.watch(fd, partial(callback, *args) if args else callback)

    def remove_reader(self, fd: Any) -> bool:
        """As every loop's."""
        if fd not in self._watched:
            return False
        self._watched.discard(fd)
        assert self._watcher is not None
        self._watcher.unwatch(fd)
        return True


@contextmanager
def _outer_loop_aside() -> Iterator[None]:
    """asyncio runs one loop at a time in a thread, and from 3.12 on looks at the running task as well."""
    outer = asyncio._get_running_loop()
    swap = getattr(tasks, "_swap_current_task", None)
    # Where there is no task, early versions of 3.12 do not take "none" for an answer.
    task = asyncio.current_task(outer) if swap is not None and outer is not None else None
    if task is not None and swap is not None:
        swap(outer, None)
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(outer)
        if task is not None and swap is not None:
            swap(outer, task)
