"""Starts, watches and ends the processes of a party, and what each of them does first.

Between a parent (the opener for its supervisor, the supervisor for all others) and its children. The one invariant: a
child never outlives its parent, and a parent never leaves a zombie: every child is watched through a pidfd, ended
through it (so never a process that took over the number), and reaped.

Children are started by exec of a module in a fresh interpreter, or by a fork of the supervisor (`forked`): we hand down
nothing but standard streams (reading is /dev/null), environment, and one control socket as descriptor CONTROL_FD.
(Descriptors that the user's program made inheritable come along with exec, as with any child of it.)
"""

from __future__ import annotations

import os
import select
import signal
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

CONTROL_FD: Final = 3
"""Where a child finds its control socket; also argv[1], for whoever reads `ps`."""

PARENT_VARIABLE: Final = "PARTYWIRE_PARENT"
"""Environment variable with the parent's pid: a child whose parent died before it could ask the kernel for the death
signal would never get it, but sees another parent than this."""

PROGRAM: Final = "partywire.engine.program"
"""What an engine process runs its module by."""

OF_ENGINE: Final = "partywire.engine."
"""What the names of modules begin with that run no code of users, but for handlers that they are told to load."""

_PR_SET_PDEATHSIG = 1

STANDARD_INPUT, STANDARD_OUTPUT, STANDARD_ERROR = 0, 1, 2


class ChildProcess:
    """One child, from its start until it was reaped. Not for several threads."""

    def __init__(self, role: str, pid: int) -> None:
        """`pid` is a child of this process that nobody else waits for."""
        self.role = role
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)  # cannot be another process: the child is not reaped yet
        self._exit_cause: str | None = None

    @classmethod
    def start(cls, role: str, module: str, control_fd: int, *, new_session: bool = False) -> ChildProcess:
        """Start `module`, which has a `main`, as a program. The caller keeps `control_fd` and should close it.

        With `new_session` the child leaves the terminal's process group, so that Ctrl-C reaches the opener alone.

        Raises:
            OSError: no process can be started.
        """
        file_actions = [
            (os.POSIX_SPAWN_OPEN, STANDARD_INPUT, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, control_fd, CONTROL_FD),
        ]
        arguments = [sys.executable, *_interpreter_flags(), *_program_flags(module), module, str(CONTROL_FD)]
        environment = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
        pid = os.posix_spawn(
            sys.executable, arguments, environment, file_actions=file_actions, setsid=new_session, setsigmask=()
        )
        return cls.watched(role, pid)

    @classmethod
    def watched(cls, role: str, pid: int) -> ChildProcess:
        """A child that was just started.

        Raises:
            OSError: it cannot be watched, and was ended.
        """
        try:
            return cls(role, pid)
        except OSError:
            # No descriptor left to watch it by.
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise

    def fileno(self) -> int:
        """The pidfd; readable once the child has ended."""
        return self._pidfd

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal, unless the child is reaped."""
        if self._exit_cause is None:
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                pass  # it ended and waits to be reaped

    def try_reap(self) -> str | None:
        """How the child ended, in words ("" for exit code 0), or None while it runs. Reaps it."""
        return self._reap(os.WNOHANG)

    def wait(self, timeout_s: float) -> str | None:
        """Like `try_reap`, but wait for the end; None if it still runs after `timeout_s`."""
        if self._exit_cause is None:
            poller = select.poll()
            poller.register(self._pidfd, select.POLLIN)
            if not poller.poll(timeout_s * 1000):
                return None
        return self._reap(0)

    def _reap(self, options: int) -> str | None:
        if self._exit_cause is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:
                # Somebody in this process waits for all children (a SIGCHLD handler of the user's program).
                self._exit_cause = "ended, its exit code was taken by other code of this process"
            else:
                if pid:
                    self._exit_cause = describe_status(status)
        return self._exit_cause

    def end(self) -> str:
        """Kill the child if it still runs, reap it, close the pidfd. May be called again."""
        self.kill()
        cause = self._reap(0)
        self.close()
        return cause or ""

    def close(self) -> None:
        """Close the pidfd. The child must have been reaped."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def __repr__(self) -> str:
        return f"ChildProcess({self.role!r}, pid={self.pid}, ended={self._exit_cause!r})"


def describe_status(status: int) -> str:
    """A wait status in words; empty for exit code 0."""
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return ""
    if code > 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _program_flags(module: str) -> list[str]:
    """-P: a module in the current directory must not shadow the standard library in an engine process, nor in that of a
    node, which strangers reach. Workers run user code and so keep the directory."""
    if module.startswith(OF_ENGINE):
        return ["-P", "-m", PROGRAM]
    return ["-P", "-m"] if module.startswith("partywire.workers.node.") else ["-m"]


def _interpreter_flags() -> list[str]:
    """What changes how our own modules behave: warnings as errors, development mode. Never -O, -i or -c."""
    flags = [f"-W{option}" for option in sys.warnoptions]
    if sys.flags.dev_mode:
        flags += ["-X", "dev"]
    return flags


def begin_child(*, dies_with_parent: bool = True) -> int:
    """The first thing in a child's main, before any thread; returns the control socket's descriptor.

    From here on the kernel kills this process when its parent ends, and Ctrl-C is the opener's business alone. The
    supervisor passes False: the signal comes at the death of the parent's *thread*, and a party may be opened in a
    thread that ends; the end of file on the supervisor's control socket has no such trap.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if dies_with_parent:
        die_with_parent()
    parent = os.environ.pop(PARENT_VARIABLE, "")
    if parent and os.getppid() != int(parent):
        os._exit(1)  # it ended before the line above could take effect
    control_fd = int(sys.argv[1])
    os.set_inheritable(control_fd, False)
    return control_fd


def parent_pidfd() -> int:
    """A descriptor that is readable once the parent has ended; to be called before `begin_child`, which makes sure that
    it is the right one.

    The end of file on the control socket says the same, but not while a process that the parent forked holds a copy.
    """
    return os.pidfd_open(os.getppid())


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that started it ends; look at getppid() afterwards."""
    import ctypes  # only here: a parent has no use for it

    prctl: Callable[..., int] = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
