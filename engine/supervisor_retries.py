"""Processes that died and could not be started again for want of something: tried again until the machine has it.

Between the supervisor and time. The one invariant: what waits here is said on standard error when it begins to wait and
when it is over, and tried at most once in RETRY_INTERVAL_S, so a machine that is short of something is not kept busy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from partywire.shm.errors import ShmError

from .shortage import Complaint, describe_shortage, say

if TYPE_CHECKING:
    from collections.abc import Callable

RETRY_INTERVAL_S: Final = 2.0
"""Between two attempts to start a process. Arbitrary: what is short comes back when some other program ends."""


class Retries:
    """Of one party. Driven by its supervisor."""

    def __init__(self, party: str) -> None:
        self._party = party
        self.complaint = Complaint(party, "the supervisor")
        self._waiting: dict[str, Callable[[], None]] = {}  # role -> what starts the process
        self._try_at = 0.0

    def start(self, role: str, start: Callable[[], None], now: float, late: Callable[[], None] | None = None) -> bool:
        """Start a process in the place of one that died, by `late` if it has to wait. Whether it was started."""
        try:
            start()
        except (OSError, ShmError) as error:
            self.put_off(role, late or start, error, now)
            return False
        return True

    def put_off(self, role: str, start: Callable[[], None], error: Exception, now: float) -> None:
        """`start`, which raises as `error` says, is to be called again."""
        say(self._party, "the supervisor", f"the {role} cannot be started again yet: {describe_shortage(error)}")
        if not self._waiting:
            self._try_at = now + RETRY_INTERVAL_S
        self._waiting[role] = start

    def timeout_s(self, now: float) -> float | None:
        """When `tick` wants to be called."""
        return max(0.0, self._try_at - now) if self._waiting else None

    def tick(self, now: float) -> bool:
        """Try what is due. Whether a process was started."""
        if not self._waiting or now < self._try_at:
            return False
        self._try_at = now + RETRY_INTERVAL_S
        has_started = False
        for role, start in tuple(self._waiting.items()):
            try:
                start()
            except (OSError, ShmError):
                continue
            del self._waiting[role]
            has_started = True
            say(self._party, "the supervisor", f"the {role} is started again")
        return has_started

    def forget(self, role: str) -> None:
        """This process is not to be started any more."""
        self._waiting.pop(role, None)

    def end(self) -> None:
        """The party closes: nobody is started any more."""
        self._waiting.clear()
