"""What the opener holds of its supervisor: starts the process, and ends it with its whole family.

Between the opener and `supervisor`, which it does not import: that program's modules are not needed here. The one
invariant: a handle that was made is ended by `end`, and then nothing of the family is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .child_process import ChildProcess
from .control_socket import ControlSocket

SUPERVISOR_MODULE: Final = "partywire.engine.supervisor"


@dataclass(slots=True)
class SupervisorHandle:
    """What the opener holds of its supervisor. Ends it, and with it the whole family, by `end`."""

    process: ChildProcess
    control: ControlSocket

    @property
    def pidfd(self) -> int:
        """Readable once the supervisor has ended."""
        return self.process.fileno()

    def end(self, timeout_s: float = 5.0) -> str:
        """Close the control socket, wait for the supervisor to end its family, reap it; says how it ended ("": well).

        Raises nothing but KeyboardInterrupt, and never leaves the supervisor behind; may be called again.
        """
        self.control.close()
        try:
            if self.process.fileno() >= 0:
                self.process.wait(timeout_s)
        finally:  # also when Ctrl-C ended the wait
            cause = self.process.end()  # kills it if it still runs; its children have asked the kernel to die with it
        return cause


def spawn_supervisor() -> SupervisorHandle:
    """Start a supervisor as a child of this process. Send it a Start next.

    Raises:
        OSError: no process or socket can be made.
    """
    ours, theirs = ControlSocket.pair()
    with theirs:
        control = ControlSocket(ours, "the supervisor")
        try:
            process = ChildProcess.start("supervisor", SUPERVISOR_MODULE, theirs.fileno(), new_session=True)
        except BaseException:
            control.close()
            raise
    return SupervisorHandle(process, control)
