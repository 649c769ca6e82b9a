"""The memory ordering that plain Python lacks, supplied by the side that can afford it.

An aligned 8-byte store or load through `memoryview.cast("Q")` is never torn, but CPython orders nothing between
processes. The rings and doorbells need three things:

  release/acquire   what was stored before `tail` (or `head`) is seen by whoever has seen the new `tail` (`head`)
  sleeper           the store of a sleep ticket is visible before the re-check that follows it is loaded
  waker             the publication is visible before the ticket is loaded

x86-64 gives the first for nothing. The second and third are the one reordering that it permits: both sides may load
the old value, the sleeper sleeps, the waker does not ring, and nothing repairs it.

Back ends, strongest first:

  compiled      both sides execute an atomic fence of the compiled core, some twenty nanoseconds each. Sound wherever
                C11 is, between compiled ends. An end in plain Python, which stores positions without ordering them,
                may use it on x86-64 only.
  membarrier    the sleeper calls membarrier(2), which runs a full barrier on every CPU that executes a registered
                process; the waker pays nothing. Sound on x86-64 and arm64. On arm64 the observer of a position calls
                it too, once per batch.
  sched_yield   both sides go through the kernel's scheduler, which is a full barrier on x86-64; sound only there.

Guarantees: `probe` returns a sound back end or raises; both sides of a ring record theirs in it and refuse a
different one. Assumptions: Linux, CPython with its GIL, and `register()` in each process before its first ring.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

from . import compiled
from .errors import UnsoundOrdering

if TYPE_CHECKING:
    from collections.abc import Callable

# Names a back end for tests: "compiled", "membarrier", "sched_yield", or "none" for a machine that has none.
OVERRIDE_VARIABLE: Final = "PARTYWIRE_FENCE"

# Commands of membarrier(2). The expedited one takes 0.7 us; the plain global one 10 ms, so it is never used.
COMMAND_QUERY: Final = 0
COMMAND_GLOBAL_EXPEDITED: Final = 1 << 1
COMMAND_REGISTER_GLOBAL_EXPEDITED: Final = 1 << 2
COMMANDS_NEEDED: Final = COMMAND_GLOBAL_EXPEDITED | COMMAND_REGISTER_GLOBAL_EXPEDITED

SYSCALL_NUMBERS: Final = {"x86_64": 324, "aarch64": 283}
TSO_MACHINES: Final = ("x86_64",)

# How a side names its back end in the ring's header page; 0 means that the side has not come yet.
FENCE_IDS: Final = {"membarrier": 1, "sched_yield": 2, "compiled": 3}


class Fence:
    """One back end. It has no state of its own, so all rings of a process may share one."""

    __slots__ = ("id", "name", "observe", "observer_pays", "orders_plain_stores", "sleeper", "waker", "waker_pays")

    def __init__(
        self,
        name: str,
        sleeper: Callable[[], None],
        waker: Callable[[], None] | None = None,
        observe: Callable[[], None] | None = None,
        *,
        orders_plain_stores: bool = True,
    ) -> None:
        self.name = name
        self.id = FENCE_IDS[name]
        # Between "ticket = n" and the re-check: the ticket is visible to every waker before anything later is loaded.
        self.sleeper = sleeper
        # Between a publication and the load of the other side's ticket. Hot paths test `waker_pays` and skip the call.
        self.waker = waker or do_nothing
        self.waker_pays = waker is not None
        # Between the load of a position and the accesses that it allows. Needed only where loads are reordered.
        self.observe = observe or do_nothing
        self.observer_pays = observe is not None
        # Whether a position stored by plain Python becomes visible after what was stored before it.
        self.orders_plain_stores = orders_plain_stores

    def __repr__(self) -> str:
        return f"Fence({self.name!r})"


def do_nothing() -> None:
    """The fence of a side that has nothing to pay."""


def register() -> None:
    """Register this process with membarrier(2), so that a sleeper's barrier reaches it.

    The first thing in each process's main: before any thread exists it takes 0.01 ms, later 15 ms. Calling it again
    is harmless; where the kernel or a seccomp filter refuses, `probe` decides what that means. A registration
    survives fork and is lost at exec.
    """
    number = SYSCALL_NUMBERS.get(os.uname().machine)
    if number is not None and sys.platform == "linux":
        membarrier(number)(COMMAND_REGISTER_GLOBAL_EXPEDITED)


def probe() -> Fence:
    """The strongest sound back end of this machine. Raises UnsoundOrdering where there is none.

    Costs three system calls; call it once in each process, after `register`.
    """
    refuse_other_interpreters()
    machine = os.uname().machine
    wanted = os.environ.get(OVERRIDE_VARIABLE, "")
    if wanted not in ("", "none", *FENCE_IDS):
        raise UnsoundOrdering(
            f"{OVERRIDE_VARIABLE} names the unknown back end {wanted!r}", f"unset it or use one of {sorted(FENCE_IDS)}"
        )
    if wanted in ("", "compiled") and compiled.core is not None:
        return Fence(
            "compiled",
            sleeper=compiled.core.fence,
            waker=compiled.core.fence,
            orders_plain_stores=machine in TSO_MACHINES,
        )
    if wanted == "compiled":
        raise UnsoundOrdering(
            f"{OVERRIDE_VARIABLE} asks for the back end 'compiled' and this process has no compiled core",
            f"unset {OVERRIDE_VARIABLE} or install a C compiler and partywire again",
        )
    if wanted in ("", "membarrier"):
        fence = probe_membarrier(machine)
        if fence is not None:
            return fence
    if wanted in ("", "sched_yield") and machine in TSO_MACHINES:
        return Fence("sched_yield", sleeper=os.sched_yield, waker=os.sched_yield)
    raise UnsoundOrdering(
        f"this {machine} machine offers no usable membarrier(2)"
        if wanted in ("", "membarrier")
        else f"the back end {wanted!r} that {OVERRIDE_VARIABLE} asks for is not sound on {machine}",
        "allow membarrier in the seccomp filter of the container (Linux 4.16 or newer)",
    )


def probe_membarrier(machine: str) -> Fence | None:
    number = SYSCALL_NUMBERS.get(machine)
    if number is None or sys.platform != "linux":
        return None
    call = membarrier(number)
    commands = call(COMMAND_QUERY)
    if commands < 0 or commands & COMMANDS_NEEDED != COMMANDS_NEEDED:
        return None
    if call(COMMAND_REGISTER_GLOBAL_EXPEDITED) != 0 or call(COMMAND_GLOBAL_EXPEDITED) != 0:
        return None

    def barrier() -> None:
        if call(COMMAND_GLOBAL_EXPEDITED) != 0:
            raise UnsoundOrdering("membarrier(2) worked at start and fails now", "end this process and look at seccomp")

    return Fence("membarrier", sleeper=barrier, observe=None if machine in TSO_MACHINES else barrier)


def membarrier(number: int) -> Callable[[int], int]:
    """membarrier(2) as a function of its command; negative results mean a refusal."""
    import ctypes  # only here: nobody pays for it at import

    # PyDLL keeps the GIL: giving it up for less than a microsecond could cost a switch interval of 5 ms.
    syscall = ctypes.PyDLL(None, use_errno=True).syscall
    syscall.restype = ctypes.c_long
    syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_uint, ctypes.c_int)

    def call(command: int) -> int:
        return int(syscall(number, command, 0, 0))

    return call


def refuse_other_interpreters() -> None:
    if sys.implementation.name != "cpython" or sys.byteorder != "little":
        raise UnsoundOrdering(
            f"{sys.implementation.name} on a {sys.byteorder}-endian machine stores words in a way nobody has checked",
            "use CPython on x86-64 or arm64",
        )
    gil_enabled: Callable[[], bool] | None = getattr(sys, "_is_gil_enabled", None)
    if gil_enabled is not None and not gil_enabled():
        raise UnsoundOrdering("this is a free-threaded CPython", "use a build with the GIL")
