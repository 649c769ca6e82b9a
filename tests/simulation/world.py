"""The world of one simulation: its clock, its chance, and who may run next.

Between the simulated processes (`loop.SimLoop`) and whatever happens to them. The one invariant: everything that is not
decided by the engine is decided by one `random.Random(seed)`, in an order that depends on nothing else, so the same
seed is the same run, event by event; `fingerprint` sums that up.

Time passes when nobody can run, and a little with every turn. A process may be preempted where it matters: between the
arming of a doorbell and the look behind it, others may have their turns (`maybe_preempt`).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import operator
import random
import select
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from .loop import SimLoop

TURN_S: Final = 5e-6
"""What one turn of a process takes: the order of one pass of an I/O process."""

PAUSE_S: Final = 1e-3

PREEMPTED_STEPS_MAX: Final = 6
PREEMPTED_S: Final = 1e-3
"""What others do, and the time that passes, at most, while a process has lost its core."""

MASK: Final = (1 << 61) - 1


_number_of = operator.attrgetter("number")


class Violation(AssertionError):
    """Raised when a promise of the engine was broken. Its text says which; the seed repeats it."""


class World:
    """Driven by a scenario: `run_until`."""

    def __init__(self, seed: int, *, is_tracing: bool = False) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now = 1000.0
        self.steps = 0
        self.fingerprint = seed
        self.is_tracing = is_tracing
        self.trace: list[str] = []
        self.preempt_chance = 0.0
        self.on_pause: Callable[[], object] = int
        """Called when everybody waits for something that takes longer than PAUSE_S."""
        self.loops: list[SimLoop] = []
        self._events: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._numbers = itertools.count()
        self._poller = select.poll()
        self._owner_of: dict[int, SimLoop] = {}
        self._active: dict[SimLoop, None] = {}  # with callbacks to run
        self._running: list[SimLoop] = []  # preempted ones first

    # Processes and their descriptors.

    def register(self, loop: SimLoop) -> int:
        """One more process; returns its number."""
        self.loops.append(loop)
        return len(self.loops)

    def watch(self, fd: int, loop: SimLoop) -> None:
        self._owner_of[fd] = loop
        self._poller.register(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        del self._owner_of[fd]
        self._poller.unregister(fd)

    # What happens.

    def at(self, when: float, callback: Callable[..., object], *args: Any) -> None:
        """Something of the outside happens then: bytes arrive, a cable is pulled."""
        heapq.heappush(self._events, (when, next(self._numbers), callback, args))

    def after(self, delay_s: float, callback: Callable[..., object], *args: Any) -> None:
        self.at(self.now + delay_s, callback, *args)

    def mix(self, value: int) -> None:
        """Let a decision, or a count that followed from one, stand in the fingerprint."""
        self.fingerprint = (self.fingerprint * 1_000_003 ^ value) & MASK

    def note(self, text: str) -> None:
        """A line of the readable trace."""
        if self.is_tracing:
            self.trace.append(f"{self.now - 1000.0:12.6f}  {text}")

    # Running.

    def run_until(self, condition: Callable[[], bool], deadline: float, steps_max: int) -> bool:
        """Let everything go on until the condition holds. False: the deadline, or the ceiling of steps, came first."""
        steps_end = self.steps + steps_max
        while not condition():
            if self.steps >= steps_end or self.now >= deadline:
                return False
            self.step(deadline)
        return True

    def step(self, deadline: float) -> None:
        """What happens next: an event from outside, or one turn of one process, or time passes until there is one."""
        self.steps += 1
        events = self._events
        if events and events[0][0] <= self.now:
            _, _, callback, args = heapq.heappop(events)
            callback(*args)
        elif not self._run_one():
            then = max(self.now, min(deadline, self._next_instant()))
            if then - self.now > PAUSE_S and not self._running:
                self.on_pause()
            self.now = then
            self.mix(int(then * 1e6))

    def activate(self, loop: SimLoop) -> None:
        """A process has something to do."""
        if not loop.is_dead:
            self._active[loop] = None

    def forget(self, loop: SimLoop) -> None:
        """A process is dead."""
        self._active.pop(loop, None)

    def stop(self, loop: SimLoop, duration_s: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        loop.stopped_until = max(loop.stopped_until, self.now + duration_s)

    def _next_instant(self) -> float:
        """When something happens next, now that nothing can."""
        instants = [loop.stopped_until for loop in self.loops if loop.stopped_until > self.now]
        if self._events:
            instants.append(self._events[0][0])
        return min(instants, default=math.inf)

    def _run_one(self) -> bool:
        """One turn of one of those that can run; False if nobody can."""
        now = self.now
        owners: dict[SimLoop, list[int]] = {}
        for fd, _ in self._poller.poll(0):
            owners.setdefault(self._owner_of[fd], []).append(fd)
        running = self._running
        able = [
            loop
            for loop in (self._active | dict.fromkeys(owners) if owners else self._active)
            if loop.stopped_until <= now and loop not in running
        ]
        if not able:
            return False
        if len(able) == 1:
            loop = able[0]
        else:
            able.sort(key=_number_of)
            loop = able[int(self.random.random() * len(able))]
        self._active.pop(loop, None)
        if loop in owners:
            for fd in loop.readers:
                if fd in owners[loop]:
                    loop.make_ready(fd)
        self._turn(loop)
        return True

    def _turn(self, loop: SimLoop) -> None:
        self._running.append(loop)
        try:
            count = loop.turn()
        finally:
            self._running.pop()
        self.now += TURN_S
        self.mix(loop.number << 8 | count)
        if loop.bugs:
            raise Violation(f"a bug ended {loop.name}: {loop.bugs[0]!r}") from loop.bugs[0]

    def maybe_preempt(self) -> None:
        """The running process loses its core here, perhaps, and others run."""
        if not self._running or self.random.random() >= self.preempt_chance or len(self._running) > 2:
            return
        preempted = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        end = self.now + PREEMPTED_S
        try:
            for _ in range(self.random.randint(1, PREEMPTED_STEPS_MAX)):
                if self._events and self._events[0][0] <= end:
                    self.now = max(self.now, self._events[0][0])
                self.step(end)
        finally:
            asyncio._set_running_loop(preempted)
