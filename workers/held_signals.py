"""Signals that come amid a step that nobody may leave in its middle: their handlers are called right behind it.

Between Python, which calls the handlers of signals at any bytecode of the main thread, where they may raise (Ctrl-C),
and workers that move the bytes of their links themselves. The one invariant: a handler is ours only while such a worker
is driven by a blocking call or a batch, or moves bytes in a turn of somebody's event loop; whoever looks at any other
time, as `asyncio.run` does, finds the program's own.

Guarantees: a handler is called once for all signals of its number that came amid one step, in the main thread, with the
exception of the step, if it has one, as context of its own. Ours calls the program's also when somebody keeps it and
installs it again.
Assumptions: steps are short. Nothing is held in threads other than the main one, where no handler is called. What is no
function (SIG_DFL, SIG_IGN) stays, and so do handlers of asyncio, which only take note of a first signal.

Masks (pthread_sigmask) would not do: the kernel gives the signal to another thread, and Python calls the handler here.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import asyncio
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, TypeAlias

Handler: TypeAlias = Callable[[int, FrameType | None], Any]

# Hot: what stands behind the functions of `signal`, which take 8 us more, to look for an enum.
_set_handler = _signal.signal
_handler_of = _signal.getsignal

NUMBERS: Final = (int(signal.SIGINT), int(signal.SIGTERM))


class HeldSignals:
    """Of one thread. Driven by workers and by signals.

    A step raises `depth`, and behind it, in `finally`, lowers it and calls `deliver` if something is `pending`. Written
    out there and not a context manager, since it stands in every pass. Python looks for signals where a function
    begins, where a call has returned and where a loop begins again, so none is met between `depth += 1` and `try`.
    """

    def __init__(self, *, is_main_thread: bool) -> None:
        self._is_main_thread: Final = is_main_thread
        # Steps that have begun and not ended, one inside the other.
        self.depth = 0
        # Number -> the program's handler, of signals that came amid a step.
        self.pending: dict[int, Handler] = {}
        self._owners: set[object] = set()
        # Number -> what is in the program's place, or was last.
        self._holders: dict[int, Holder] = {}

    def take(self, owner: object) -> None:
        """Be the handler from now on, until every owner has let go. May be called again by the same one.

        Call `let_go` also if this raises, which a signal's handler may make it do.
        """
        if not self._is_main_thread:
            return
        is_first = not self._owners
        self._owners.add(owner)
        for number in NUMBERS if is_first else ():
            handler = _handler_of(number)
            if isinstance(handler, Holder):
                self._holders[number] = handler  # whoever kept it has put it back
            elif callable(handler) and not _is_of_asyncio(handler):
                holder = self._holders[number] = Holder(self, handler)
                _set_handler(number, holder)

    def let_go(self, owner: object) -> None:
        """The program's handlers are back where ours still is, unless others own them. Call it inside a step."""
        self._owners.discard(owner)
        if self._holders and not self._owners:
            try:
                self._restore(NUMBERS[0])
            finally:
                self._restore(NUMBERS[1])

    def _restore(self, number: int) -> None:
        holder = self._holders.get(number)
        if holder is not None and _handler_of(number) is holder:
            try:
                _set_handler(number, holder.handler)
            except BaseException:  # of another number's handler, before anything was set
                _set_handler(number, holder.handler)
                raise

    def leave_to_parent(self) -> None:
        """This process is a fork: steps that have begun have no end here."""
        self._owners.clear()
        self.let_go(None)

    def deliver(self, frame: FrameType | None = None) -> None:
        """Call the handlers of what is pending, unless another step goes on around this one. Raises what they do."""
        frame = frame or sys._getframe(1)
        while self.pending and not self.depth:
            number, handler = self.pending.popitem()
            try:
                handler(number, frame)
            except BaseException:
                self.deliver(frame)  # a second one has its turn all the same
                raise


class Holder:
    """In the place of one of the program's handlers."""

    __slots__ = ("_held", "handler")

    def __init__(self, held: HeldSignals, handler: Handler) -> None:
        self._held = held
        self.handler: Final = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """A signal came: now, or behind the step."""
        self._held.pending[number] = self.handler
        self._held.deliver(frame)


def _is_of_asyncio(handler: Handler) -> bool:
    """Whether it is a runner's, which first cancels its task and raises nothing, or that of `loop.add_signal_handler`,
    which does nothing and is to leave system calls whole."""
    if handler is signal.default_int_handler:
        return False
    function = getattr(handler, "func", handler)  # a runner's is a partial
    owner = getattr(function, "__self__", None)
    return (
        isinstance(owner, asyncio.Runner | asyncio.AbstractEventLoop)
        or getattr(function, "__module__", None) == "asyncio.unix_events"
    )


_elsewhere: Final = HeldSignals(is_main_thread=False)
_here = HeldSignals(is_main_thread=True)
_main_thread = threading.main_thread().ident


def signals_here() -> HeldSignals:
    """Those of the calling thread: in all but the main one there are none to hold."""
    return _here if threading.get_ident() == _main_thread else _elsewhere


def leave_signals_to_parent() -> None:
    """This process is a fork, made in any thread and at any time: begin anew. May be called again."""
    global _here, _main_thread
    _here.leave_to_parent()
    _here = HeldSignals(is_main_thread=True)
    _main_thread = threading.get_ident()
