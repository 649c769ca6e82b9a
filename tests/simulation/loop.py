"""An event loop that does nothing by itself: one simulated process, whose turns the world gives out.

Between the world, which owns the clock and decides who runs, and the engine, which sees an ordinary asyncio loop. The
one invariant: between two turns of one process any others may have theirs, but within one process callbacks run in the
order in which asyncio promises to run them.

Descriptors are real (doorbells are eventfds); the world looks which of them are readable. Tasks and futures hash by
their number, so that sets of them have the same order in every run.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from .world import World


TEARDOWN_ROUNDS: Final = 50
"""Turns in which cancelled tasks must have ended."""


class SimTask(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address."""

    def __init__(self, coro: Coroutine[Any, Any, Any], *, loop: asyncio.AbstractEventLoop, number: int) -> None:
        self.number = number
        super().__init__(coro, loop=loop, name="simulated")  # the default name counts all tasks of the interpreter

    def __hash__(self) -> int:
        return self.number


class SimFuture(asyncio.Future[Any]):
    """A future whose place in a set does not depend on its address."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop, number: int) -> None:
        self.number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


Base: Any = asyncio.AbstractEventLoop
"""Untyped: a fraction of what a loop can do is asked of this one, and what is missing says so when it is called."""


class SimLoop(Base):  # type: ignore[misc]
    """The loop of one simulated process. Driven by the world: `turn`."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.number = world.register(self)
        self.is_dead = False
        self.bugs: list[BaseException] = []
        self.stopped_until = 0.0
        """SIGSTOP: no turn before this instant."""
        self.readers: dict[int, asyncio.Handle] = {}
        self._ready: deque[asyncio.Handle] = deque()
        self._numbers = itertools.count(1)
        self._tasks: list[SimTask] = []

    # What the world does.

    def make_ready(self, fd: int) -> None:
        """A descriptor is readable."""
        self._ready.append(self.readers[fd])

    def _fire(self, handle: asyncio.TimerHandle) -> None:
        if not handle.cancelled() and not self.is_dead:
            self._ready.append(handle)
            self.world.activate(self)

    def turn(self) -> int:
        """Run what is ready, once each. Returns how many callbacks ran."""
        ready = self._ready
        count = len(ready)
        asyncio._set_running_loop(self)
        try:
            for _ in range(count):
                if self.is_dead:  # killed by what it did itself
                    break
                handle = ready.popleft()
                if not handle.cancelled():
                    handle._run()
        finally:
            asyncio._set_running_loop(None)
        if ready:
            self.world.activate(self)
        return count

    def kill(self) -> None:
        """No callback runs any more; what they refer to stays as it is until the world is torn down."""
        self.is_dead = True
        self.world.forget(self)
        for fd in list(self.readers):
            self.remove_reader(fd)

    def tear_down(self) -> None:
        """Cancel what is left, whether the process lives or not, until nothing of it is."""
        self.is_dead = False
        for _ in range(TEARDOWN_ROUNDS):
            left = [task for task in self._tasks if not task.done()]
            for task in left:
                task.cancel()
            if not left and not self._ready:
                break
            self.turn()
        self.kill()
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.exception()  # looked at, or asyncio complains of it

    # What asyncio asks of a loop.

    def time(self) -> float:
        return self.world.now

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self._ready:
            self.world.activate(self)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.world.now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.world.at(when, self._fire, handle)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return SimFuture(loop=self, number=next(self._numbers))

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Any = None
    ) -> asyncio.Task[Any]:
        task = SimTask(coro, loop=self, number=next(self._numbers))
        self._tasks.append(task)
        return task

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        self.readers[fd] = asyncio.Handle(callback, args, self)
        self.world.watch(fd, self)

    def remove_reader(self, fd: Any) -> bool:
        handle = self.readers.pop(fd, None)
        if handle is None:
            return False
        handle.cancel()
        self.world.unwatch(fd)
        return True

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.bugs.append(context.get("exception") or RuntimeError(context["message"]))

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are left with the world and skipped when they are due."""
