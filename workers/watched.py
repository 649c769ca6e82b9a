"""Descriptors that a worker watches for reading, and whom it calls back for each.

Between the worker, which asks and calls, and the kernel (epoll, which costs the same for any number). The one
invariant: a descriptor that has no callback any more is not watched, whether it was closed before it was taken out or
not.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

EVENTS_MAX: Final = 64
"""Descriptors that one look names; those beyond have the next one."""


class WatchedDescriptors:
    """Of one thread. Owns nothing but its epoll. Raises OSError if the machine lacks a descriptor for that."""

    def __init__(self, doorbell: int) -> None:
        """`doorbell` is watched from the beginning to the end, with nobody to call back."""
        self.callbacks: Final[dict[int, Callable[[], object]]] = {}
        self._epoll = select.epoll()
        self._epoll.register(doorbell, select.EPOLLIN)

    def look(self, timeout_s: float) -> list[tuple[int, int]]:
        """Wait until some are readable. Returns (descriptor, event) of each."""
        return self._epoll.poll(timeout_s, EVENTS_MAX)

    def add(self, fd: int, callback: Callable[[], object]) -> None:
        """Watch one, or call another one back for it.

        Raises:
            OSError: the kernel cannot say when it is readable, as of a file, or the machine lacks something.
        """
        try:
            self._epoll.register(fd, select.EPOLLIN)
        except FileExistsError:
            pass  # watched already
        self.callbacks[fd] = callback

    def discard(self, fd: int) -> bool:
        """Watch it no longer. Whether it was watched."""
        if self.callbacks.pop(fd, None) is None:
            return False
        try:
            self._epoll.unregister(fd)
        except OSError:
            pass  # it was closed, which ended it
        return True

    def close(self) -> None:
        """For good. In a fork everything is only forgotten: what the kernel watches is the parent's as well."""
        self.callbacks.clear()
        self._epoll.close()
