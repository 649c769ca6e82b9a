"""Who drives substreams: the clock, the later and the waiting that readers, writers and their connection need.

Between what is written once (`divided`, `streams`) and an event loop, or a worker of a party that has waits of its own.
The one invariant: a coroutine that stands at a place goes on behind `wake`, never inside it, and looks again at what it
waited for; so a wake-up too many is harmless.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class Place(Protocol):
    """Where at most one coroutine can stand still."""

    def wake(self) -> None:
        """Let the coroutine go on, if one stands here."""

    async def wait(self, what: str, timeout_s: float | None = None) -> None:
        """Stand here until somebody wakes us. Cancelling it loses nothing.

        Raises:
            TimeoutError: nobody did within `timeout_s`.
            RuntimeError: another coroutine stands here, to do `what` as well.
        """


class Timer(Protocol):
    """Something that will be called later."""

    def cancel(self) -> None:
        """It will not."""


class Turns(Protocol):
    """What drives a connection. All of it is of one thread."""

    @property
    def is_patient(self) -> bool:
        """Whether what nobody waits for may be put off: somebody is sure to come back for it in time."""

    def time(self) -> float:
        """Seconds that never go back."""

    def call_soon(self, callback: Callable[[], object], /) -> object:
        """Call it at the end of this turn, before the process may sleep."""

    def call_later(self, delay: float, callback: Callable[..., object], /, *arguments: object) -> Timer:
        """Call it after `delay` seconds."""

    def make_place(self) -> Place:
        """A place that nobody stands at."""


class LoopTurns:
    """An asyncio loop."""

    is_patient = True

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.time = loop.time
        self.call_soon = loop.call_soon
        self.call_later = loop.call_later

    def make_place(self) -> LoopPlace:
        """A place for a task of this loop."""
        return LoopPlace(self._loop)


class LoopPlace:
    """Where a task of a loop can stand still."""

    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[bool] | None = None  # its result: whether somebody woke us

    def wake(self) -> None:
        """As Place.wake."""
        if self._future is not None and not self._future.done():
            self._future.set_result(True)

    async def wait(self, what: str, timeout_s: float | None = None) -> None:
        """As Place.wait."""
        if self._future is not None:
            raise RuntimeError(f"another task is already waiting to {what} this substream")
        future = self._future = self._loop.create_future()
        timer = None if timeout_s is None else self._loop.call_later(max(timeout_s, 0.0), _give_up, future)
        try:
            if not await future:
                raise TimeoutError
        finally:
            self._future = None
            if timer is not None:
                timer.cancel()


def _give_up(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)
