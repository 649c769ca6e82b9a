"""Children that are forks of their parent: what has been imported here need not be imported there.

Between the supervisor, which has one thread, no event loop and no secret, and the `main` of a module that a child is to
run. The one invariant: the child uses nothing of its parent's and gives nothing of it back. Descriptors are closed but
for standard streams and its control socket, and shared memory is unmapped; objects, whose descriptors these numbers no
longer are, are never looked through for garbage and never freed, since the process ends, whatever happens, without
coming back to its parent's frames.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from . import program
from .child_process import (
    CONTROL_FD,
    PARENT_VARIABLE,
    STANDARD_ERROR,
    STANDARD_INPUT,
    STANDARD_OUTPUT,
    ChildProcess,
)

if TYPE_CHECKING:
    from typing import Never

_ARGUMENTS: Final = slice(45, 47)
"""Where they begin and end in memory: fields 48 and 49 of /proc/PID/stat by proc(5), counted from the one behind the
name."""

_SHARED_MEMORY: Final = (b" /dev/shm/partywire-", b" /memfd:partywire-")
"""How /proc/PID/maps names what processes of a party share."""


def fork_child(role: str, module: str, control_fd: int) -> ChildProcess:
    """Like `ChildProcess.start`, for a parent with one thread. The caller keeps `control_fd` and should close it.

    Raises:
        OSError: no process can be started.
    """
    program.flush()  # or both would say it
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(module, control_fd, parent)
    return ChildProcess.watched(role, pid)


def _become(module: str, control_fd: int, parent: int) -> Never:
    """Run `module` as if it had been started; this process ends with it, as an interpreter would."""
    code = 1
    try:
        gc.freeze()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _keep_descriptors(control_fd)
        _unmap_shared_memory()
        os.environ[PARENT_VARIABLE] = str(parent)
        sys.argv[:] = [sys.argv[0], str(CONTROL_FD)]
        _show_as([*sys.orig_argv[:-2], module, str(CONTROL_FD)])
        program.run(module)
        code = 0
    except SystemExit as end:
        code = _code_of(end)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        program.leave(code)


def _code_of(end: SystemExit) -> int:
    """What an interpreter ends with; anything but a number it says."""
    if end.code is None or isinstance(end.code, int):
        return (end.code or 0) & 0xFF
    if sys.stderr is not None:
        print(end.code, file=sys.stderr)
    return 1


def _keep_descriptors(control_fd: int) -> None:
    """Standard streams and the control socket; everything else is closed."""
    os.dup2(control_fd, CONTROL_FD)
    for fd, stream in ((STANDARD_OUTPUT, sys.__stdout__), (STANDARD_ERROR, sys.__stderr__)):
        if stream is None:  # it was closed before our parent began, who has had the number for something since
            os.dup2(STANDARD_INPUT, fd)
    try:
        last = max(map(int, os.listdir("/proc/self/fd")))
    except OSError:
        last = os.sysconf("SC_OPEN_MAX")
    os.closerange(CONTROL_FD + 1, last + 1)  # not up to the limit: that may be a billion system calls, or lowered since


def _unmap_shared_memory() -> None:
    """A ring's memory would be in use for as long as this process lives, and not only while the ring is."""
    try:
        mapped = Path("/proc/self/maps").read_bytes().splitlines()
    except OSError:
        return
    unmap = ctypes.CDLL(None).munmap
    unmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    for line in mapped:
        if any(name in line for name in _SHARED_MEMORY):
            begin, end = (int(number, 16) for number in line.split(maxsplit=1)[0].split(b"-"))
            unmap(begin, end - begin)


def _show_as(arguments: list[str]) -> None:
    """Have `ps` show these arguments instead of the parent's, as far as there is room for them."""
    try:
        stat = Path("/proc/self/stat").read_bytes()
        begin, end = map(int, stat[stat.rindex(b")") + 2 :].split()[_ARGUMENTS])
    except (OSError, ValueError):
        return
    words = b"".join(os.fsencode(argument) + b"\0" for argument in arguments)
    if 0 < begin < end:
        ctypes.memmove(begin, words[: end - begin - 1].ljust(end - begin, b"\0"), end - begin)
