"""What a party says when the machine gives it no more: which limit was met, what its processes need, what to do.

Between system calls that fail for want of descriptors, processes or memory, and whoever reads of it. The one invariant:
saying so needs nothing that may be short: no import, no descriptor, no thread.
"""

from __future__ import annotations

import errno
import os
import resource
from typing import Final, NamedTuple

from .child_process import CONTROL_FD

SAY_INTERVAL_S: Final = 10.0
"""Between two lines about the same want of one process: it lasts, and whoever dials meanwhile tries again and again."""

SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC})
"""What a call that makes something fails with when there is no room for it"""


def shortage_of(error: BaseException) -> int | None:
    """The number of the shortage that an error comes from, itself or as a cause; None if it comes from none."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in SHORTAGES:
            return seen.errno
        seen = seen.__cause__ or seen.__context__
    return None


def describe_shortage(error: BaseException) -> str:
    """What an error of starting something says, and, if something was short, what to do about it."""
    number = shortage_of(error)
    if number is None:
        return str(error)
    what = words = os.strerror(number).lower()
    if not isinstance(error, OSError):
        what = str(error)
    elif error.strerror and error.strerror.lower() != words:
        what = f"{words}: {error.strerror}"
    return f"{what}; {_advice(number)}"


def _advice(number: int) -> str:
    if number == errno.EMFILE:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"raise the limit of open files of a process (`ulimit -n`, now {limit})"
    if number == errno.ENFILE:
        return "no program of this host can open a file: end what holds so many, or raise fs.file-max"
    if number == errno.EAGAIN:
        return "raise the limit of processes (`ulimit -u`, or that of the container), or end some"
    if number == errno.ENOSPC:
        return "make /dev/shm larger, or end what fills it"
    return "the kernel has no memory left for it: run fewer programs here, or give this host or container more"


def say(party: str, process: str, what: str) -> None:
    """A line on standard error, shaped as `child_logs` has them, from a process that could not import logging now."""
    try:
        os.write(2, f"partywire: {party}: {process}: {what}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # nobody reads


class Complaint:
    """Says of one process, not too often, that something is short."""

    def __init__(self, party: str, process: str) -> None:
        self._party = party
        self._process = process
        self._quiet_until = float("-inf")

    def about(self, what: str, error: BaseException, now: float) -> None:
        """`what` could not be done because of `error`."""
        if now >= self._quiet_until:
            self._quiet_until = now + SAY_INTERVAL_S
            say(self._party, self._process, f"{what}: {describe_shortage(error)}")


# Descriptors.

OPENER_BASE: Final = 8
IO_PROCESS_BASE: Final = 13
SUPERVISOR_BASE: Final = 13
"""Whatever the links: standard streams, control sockets, event loops, and what is on its way to another process. All
three were found by lowering the limit until a party no longer opened."""


class DescriptorNeed(NamedTuple):
    """What the processes of a party have open at the most while they start and their links come up."""

    opener: int
    """More than its program has open before."""
    io_process: int
    supervisor: int


def descriptor_need(links: int, workers: int, links_per_io_process: int = 1, listeners: int = 1) -> DescriptorNeed:
    """Of a party whose peers have as many workers as it has, without a node.

    A ring is a segment and its mapping, which each hold a descriptor; a doorbell is an eventfd, a page and its mapping.
    A link has one pair of rings for each worker and one for control.
    """
    io_processes = -(-links // links_per_io_process)
    links_each = -(-links // io_processes)
    return DescriptorNeed(
        opener=OPENER_BASE + 2 * (workers - 1) + 11 * links,
        io_process=IO_PROCESS_BASE + 3 * workers + links_each * (10 + 6 * workers),
        supervisor=SUPERVISOR_BASE + listeners + 2 * (io_processes + workers) + 3 * workers + links * (3 + 2 * workers),
    )


def refuse_few_descriptors(need: DescriptorNeed, whose: str) -> None:
    """Say at once what would else be found out by whichever process is the first to lack one.

    Raises:
        OSError: EMFILE, with what `whose` party needs.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return
    with os.scandir("/proc/self/fd") as listed:
        ours = [fd for entry in listed if (fd := int(entry.name)) < limit]
    in_use = len(ours) - 1  # but for the one that lists them
    handed_down = sum(_is_handed_down(fd) for fd in ours)
    least = max(in_use + need.opener, handed_down + max(need.io_process, need.supervisor))
    if limit < least:
        what = f"{whose} needs up to {least} descriptors in one process, and this one has {in_use} open already"
        raise OSError(errno.EMFILE, what)


def _is_handed_down(fd: int) -> bool:
    """Whether whatever we start gets a descriptor that we do not give it."""
    try:
        return fd > CONTROL_FD and os.get_inheritable(fd)
    except OSError:
        return False  # the one that listed them
