"""How a process that sleeps is woken: an eventfd, and a page with the ticket that says whether it sleeps.

Between one sleeper, who owns the `Doorbell`, and any number of wakers, who each hold a `Bell` of it.

    sleeper: ticket = n (never 0, never the same twice); fence; look at every source again; poll; ticket = 0
    waker:   publish; load ticket; if it is neither 0 nor the one rung last: write the eventfd

Invariant: whatever is published after the sleeper's last look finds a ticket that was not rung yet, so the sleeper is
woken; and one ticket is rung at most once per waker, so a busy waker pays for one bell per sleep.

The ticket has one writer, the sleeper. The eventfd is sticky: a bell rung before the poll ends that poll at once.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from typing import TYPE_CHECKING, Final

from .compiled import core
from .errors import RingClosed, SegmentError
from .fence import probe
from .pure import WORD_TICKET
from .segment import close_owned

if TYPE_CHECKING:
    from .fence import Fence

if TYPE_CHECKING or core is None:
    from .pure import BellCore
else:
    BellCore = core.BellCore

PAGE_SIZE: Final = 4096
WORD_TICKET_LAST: Final = 1  # the greatest ticket ever used; a new owner of an old page goes on from there

SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def create_doorbell() -> tuple[int, int]:
    """A fresh eventfd and ticket page, for whoever hands them out; the caller owns both descriptors.

    The page is a sealed memfd and not a named block: it needs no /dev/shm, and nobody who holds it can shrink it.
    """
    eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    try:
        page_fd = os.memfd_create("partywire-doorbell", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(page_fd, PAGE_SIZE)
            fcntl.fcntl(page_fd, fcntl.F_ADD_SEALS, SEALS)
        except BaseException:
            os.close(page_fd)
            raise
    except BaseException:
        os.close(eventfd)
        raise
    return eventfd, page_fd


class Doorbell:
    """The sleeper's side. One per process is enough, however many rings feed it; not safe for several threads."""

    def __init__(self, eventfd: int, page_fd: int, fence: Fence) -> None:
        self._eventfd = eventfd
        self._page_fd = page_fd
        self._map = map_page(page_fd, mmap.PROT_READ | mmap.PROT_WRITE)
        self._words = memoryview(self._map).cast("Q")
        self._fence_sleeper = fence.sleeper
        self._ticket = self._words[WORD_TICKET_LAST]
        self._words[WORD_TICKET] = 0

    @classmethod
    def create(cls, fence: Fence | None = None) -> Doorbell:
        """A new doorbell of this process, with the best fence there is unless one is given."""
        return cls.from_fds(*create_doorbell(), fence or probe())

    @classmethod
    def from_fds(cls, eventfd: int, page_fd: int, fence: Fence) -> Doorbell:
        """The doorbell that somebody else made for this process; both descriptors belong to it from this call on."""
        try:
            return cls(eventfd, page_fd, fence)
        except BaseException:
            close_owned(eventfd)
            close_owned(page_fd)
            raise

    @property
    def fds(self) -> tuple[int, int]:
        """Eventfd and page descriptor, to send to a waker; they stay ours."""
        return self.fileno(), self._page_fd

    def fileno(self) -> int:
        """What to poll for reading while armed."""
        if self._eventfd < 0:
            raise RingClosed("the doorbell")
        return self._eventfd

    def arm(self) -> None:
        """Announce the sleep. The caller then looks at every source once more, and polls only if all are empty.

        Release, with Bell.ring_if_asleep: whoever publishes after that look sees this ticket and rings.
        """
        self._ticket += 1
        self._words[WORD_TICKET_LAST] = self._ticket
        self._words[WORD_TICKET] = self._ticket
        self._fence_sleeper()

    def disarm(self) -> None:
        """Say that this process is awake, so that nobody rings. No fence: a late bell is only a spare wake-up."""
        self._words[WORD_TICKET] = 0

    def drain(self) -> None:
        """Make the eventfd silent again. Never waits. After it every source must be looked at before the next poll."""
        try:
            os.eventfd_read(self._eventfd)
        except BlockingIOError:
            pass  # it was silent

    @property
    def sleeps(self) -> int:
        """How often this process armed its doorbell."""
        return self._ticket

    def close(self) -> None:
        """Give everything back; calling it again does nothing."""
        if self._eventfd < 0:
            return
        self._words[WORD_TICKET] = 0
        self._words.release()
        self._map.close()
        os.close(self._eventfd)
        os.close(self._page_fd)
        self._eventfd = self._page_fd = -1


class Bell(BellCore):
    """A waker's handle of somebody's doorbell. May serve all rings between the two; not safe for several threads.

    `ring_if_asleep` and `ring` are those of pure.BellCore, compiled or not.
    """

    def __init__(self, eventfd: int, page_fd: int) -> None:
        self._map = map_page(page_fd, mmap.PROT_READ)
        super().__init__(eventfd, self._map)
        self._eventfd = eventfd
        self._page_fd = page_fd

    @classmethod
    def from_fds(cls, eventfd: int, page_fd: int) -> Bell:
        """The bell of the doorbell behind two descriptors, which belong to it from this call on."""
        try:
            return cls(eventfd, page_fd)
        except BaseException:
            close_owned(eventfd)
            close_owned(page_fd)
            raise

    def close(self) -> None:
        """Give everything back; calling it again does nothing."""
        if self._eventfd < 0:
            return
        self._detach()
        self._map.close()
        os.close(self._eventfd)
        os.close(self._page_fd)
        self._eventfd = self._page_fd = -1

    def _refuse_closed(self) -> None:
        raise RingClosed("the bell")


def map_page(page_fd: int, protection: int) -> mmap.mmap:
    """Map a ticket page, after making sure that the file really has one."""
    try:
        size = os.fstat(page_fd).st_size
        if size != PAGE_SIZE:
            raise SegmentError("a doorbell's page has a wrong size", size, PAGE_SIZE)
        return mmap.mmap(page_fd, PAGE_SIZE, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=protection)
    except (OSError, ValueError) as error:
        raise SegmentError("a doorbell's page cannot be mapped", str(error)) from error
