"""Short time slices for the processes that a message passes.

Between such a process and the scheduler of Linux (EEVDF, from 6.12 on). A slice is how long a thread may go on before
another one that waits for the core has it, and what a thread gives up that offers its core while it looks for work: by
the system's slices of some milliseconds both are far more than a message takes. The one invariant: nothing else of the
thread's scheduling is changed, and nothing at all where it is not an ordinary one, or the kernel will not.

Asked for by I/O processes, and by a worker for the thread that drives it, until it is closed: with short slices at one
end only, the other end waits. A thread may drive several workers: it has short slices until the last of them is closed,
and then its own again. Threads and processes that such a thread starts meanwhile inherit it.
"""

from __future__ import annotations

import functools
import os
import struct
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

SLICE_US: Final = 100
"""The shortest that the kernel gives. A message takes a process some microseconds."""

SLICE_US_MAX: Final = 100_000
"""The longest that it gives."""

OVERRIDE_VARIABLE: Final = "PARTYWIRE_TIME_SLICE_US"
"""Another number of microseconds; 0 leaves the system's."""

_SET: Final = {"x86_64": 314, "aarch64": 274}
"""sched_setattr; sched_getattr is the next number."""

_SCHED_OTHER: Final = 0
_ATTRIBUTES: Final = struct.Struct("<IIQiIQQQ")
"""size | policy | flags | nice | priority | runtime in ns | deadline | period"""


class _Held(threading.local):
    """What a thread has asked for."""

    def __init__(self) -> None:
        self.count = 0
        """Calls of `shorten_slices` that no `restore_slices` has followed yet."""
        self.own_ns = 0
        """The thread's slice before the first of them."""
        self.short_ns = 0
        """The one that it has got since; 0 if none."""


_held = _Held()


def shorten_slices() -> bool:
    """Ask for short slices for this thread, until it has called `restore_slices` once for each time.

    Returns:
        False: they are not wanted, and no system call was made, which a filter of system calls may punish by death.
        `restore_slices` is not to be called then.
    """
    wanted = os.environ.get(OVERRIDE_VARIABLE, "")
    microseconds = min(int(wanted), SLICE_US_MAX) if wanted.isascii() and wanted.isdigit() else SLICE_US
    if not microseconds:
        return False
    _held.count += 1
    if _held.count == 1:
        _held.own_ns = _slice_ns()
        _ask_for(microseconds * 1000)
        _held.short_ns = _slice_ns()
    return True


def restore_slices() -> None:
    """Take back one call of `shorten_slices`; with the last one the thread gets the slices that it had before.

    A slice that somebody else has set meanwhile stays. Nothing happens in a thread that has not called it.
    """
    if not _held.count:
        return
    _held.count -= 1
    if not _held.count and _slice_ns() == _held.short_ns:
        _ask_for(0)
        if _slice_ns() != _held.own_ns:  # it was not the system's, which follows what is set for the whole machine
            _ask_for(_held.own_ns)


def slice_us() -> int | None:
    """What this thread has, in microseconds; None where the kernel does not say."""
    attributes = _attributes()
    return None if attributes is None else attributes[5] // 1000


def _slice_ns() -> int:
    attributes = _attributes()
    return 0 if attributes is None else attributes[5]


def _ask_for(runtime_ns: int) -> None:
    """0: the system's."""
    attributes = _attributes()
    if attributes is None:
        return
    size, policy, flags, nice, priority, _, deadline, period = attributes
    if policy == _SCHED_OTHER:
        _call(0, _ATTRIBUTES.pack(size, policy, flags, nice, priority, runtime_ns, deadline, period), 0)


def _attributes() -> tuple[int, ...] | None:
    buffer = bytearray(_ATTRIBUTES.size)
    return _ATTRIBUTES.unpack(buffer) if _call(1, buffer, len(buffer), 0) else None


def _call(offset: int, attributes: bytes | bytearray, *rest: int) -> bool:
    """Whether the kernel did as it was told for this thread."""
    number = _SET.get(os.uname().machine)
    if number is None or sys.platform != "linux":
        return False
    import ctypes  # only here: nobody pays for it at import

    block = (ctypes.c_char * len(attributes)).from_buffer_copy(attributes)
    done = _syscall()(ctypes.c_long(number + offset), ctypes.c_int(0), block, *map(ctypes.c_uint, rest))
    if done == 0 and isinstance(attributes, bytearray):
        attributes[:] = bytes(block)
    return done == 0


@functools.cache
def _syscall() -> Callable[..., int]:
    import ctypes

    function: Any = ctypes.CDLL(None, use_errno=True).syscall
    function.restype = ctypes.c_long
    return function  # type: ignore[no-any-return]
