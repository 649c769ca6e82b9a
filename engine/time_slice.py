"""Short time slices for the processes that a message passes.

Between such a process and the scheduler of Linux (EEVDF, from 6.12 on). A slice is how long a thread may go on before
another one that waits for the core has it, and what a thread gives up that offers its core while it looks for work: by
the system's slices of some milliseconds both are far more than a message takes. The one invariant: nothing else of the
thread's scheduling is changed, and nothing at all where it is not an ordinary one, or the kernel will not.

Asked for by I/O processes, and by a worker for the thread that drives it, until it is closed: with short slices at one
end only, the other end waits. Threads and processes that such a thread starts meanwhile inherit it.
"""

from __future__ import annotations

import functools
import os
import struct
import sys
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


def shorten_slices() -> bool:
    """Ask for short slices for this thread. False: they are not wanted, and no system call was made, which a filter of
    system calls may punish by death."""
    wanted = os.environ.get(OVERRIDE_VARIABLE, "")
    microseconds = min(int(wanted), SLICE_US_MAX) if wanted.isascii() and wanted.isdigit() else SLICE_US
    if microseconds:
        _ask_for(microseconds)
    return microseconds > 0


def restore_slices() -> None:
    """Take the system's again."""
    _ask_for(0)


def slice_us() -> int | None:
    """What this thread has, in microseconds; None where the kernel does not say."""
    attributes = _attributes()
    return None if attributes is None else attributes[5] // 1000


def _ask_for(microseconds: int) -> None:
    attributes = _attributes()
    if attributes is None:
        return
    size, policy, flags, nice, priority, _, deadline, period = attributes
    if policy == _SCHED_OTHER:
        runtime_ns = microseconds * 1000
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
