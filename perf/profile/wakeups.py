"""What waking the next process costs a message: two processes that sleep in turns, a bell or a socket between them.

All processes of a host read one monotonic clock, so a wake-up is the difference of two stamps:

    bell     from before the call that rings until the sleeper has disarmed and silenced its doorbell
    socket   from the return of the call that sends 64 bytes until the receiver's poll has returned, since sending and
             receiving are hops of their own (walk.py); negative where the receiver ran before the call was over

The sleeper sleeps in `poll` as a worker does, with its doorbell armed. What would make it lie: cores that others use. A
core that went idle is woken far more slowly than one on which another process just went to sleep; which of the two a
running party meets depends on how many cores are free.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from array import array
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Final

from partywire.shm import Bell, Doorbell, probe, register

from .walk import connected_pair, duplicated

if TYPE_CHECKING:
    from collections.abc import Sequence

MESSAGE: Final = bytes(64)
WARM_UP: Final = 20
STALL_MAX_S: Final = 20.0
"""Each side gives up after so long without a wake-up: the other one died."""


class OtherSideGone(Exception):
    """Raised when the other process does not answer."""


class BellEnd:
    """One process's half of a pair of doorbells."""

    def __init__(self, doorbell: Doorbell, bell: Bell) -> None:
        self._doorbell = doorbell
        self._bell = bell
        self._poller = poller_of(doorbell.fileno())

    def call(self) -> int:
        """Wake the other side. Returns when the wake-up began, in nanoseconds."""
        start = time.monotonic_ns()
        self._bell.ring()
        return start

    def sleep(self) -> int:
        """Returns when we were awake, in nanoseconds."""
        self._doorbell.arm()
        sleep_until_readable(self._poller)
        self._doorbell.disarm()
        self._doorbell.drain()
        return time.monotonic_ns()


class SocketEnd:
    """One process's half of a TCP connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._poller = poller_of(sock.fileno())

    def call(self) -> int:
        """Send to the other side. Returns when that was done, in nanoseconds."""
        self._sock.send(MESSAGE)
        return time.monotonic_ns()

    def sleep(self) -> int:
        """Returns when we were awake, in nanoseconds; what has come is received then."""
        sleep_until_readable(self._poller)
        awake = time.monotonic_ns()
        if not self._sock.recv(len(MESSAGE)):
            raise OtherSideGone("the other process of a wake-up measurement closed its socket")
        return awake


def poller_of(fd: int) -> select.poll:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return poller


def sleep_until_readable(poller: select.poll) -> None:
    if not poller.poll(STALL_MAX_S * 1000):
        raise OtherSideGone(f"the other process of a wake-up measurement did nothing for {STALL_MAX_S:.0f} s")


def bell_us(count: int) -> tuple[float, ...]:
    """Microseconds from ringing to being awake, of each wake-up."""
    fence = probe()
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(closing(Doorbell.create(fence))) for _ in range(2))
        bell = stack.enter_context(closing(Bell.from_fds(*duplicated(theirs.fds))))
        return measured("bell", BellEnd(ours, bell), count, (*theirs.fds, *ours.fds))


def socket_us(count: int) -> tuple[float, ...]:
    """Microseconds from the end of a send to the awake receiver, of each wake-up."""
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(closing(sock)) for sock in connected_pair())
        return measured("socket", SocketEnd(ours), count, (theirs.fileno(),))


def measured(kind: str, end: BellEnd | SocketEnd, count: int, fds: Sequence[int]) -> tuple[float, ...]:
    """Wake a process of ours, which answers by waking us; it is gone afterwards.

    Raises:
        OtherSideGone: it did not answer.
    """
    total = WARM_UP + count
    command = [sys.executable, "-m", "partywire.perf.profile.wakeups", kind, str(total), *map(str, fds)]
    process = subprocess.Popen(command, pass_fds=list(fds), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        called = array("q")
        for _ in range(total):
            called.append(end.call())
            end.sleep()
        output, _ = process.communicate(timeout=STALL_MAX_S)
    finally:
        process.kill()
        process.communicate()
    awake = array("q", output)
    return tuple((there - here) / 1e3 for here, there in zip(called, awake, strict=True))[WARM_UP:]


def answer(end: BellEnd | SocketEnd, count: int) -> None:
    """The other process's part; says at the end when it was awake each time."""
    awake = array("q")
    for _ in range(count):
        awake.append(end.sleep())
        end.call()
    sys.stdout.buffer.write(awake.tobytes())
    sys.stdout.buffer.flush()


def main(arguments: Sequence[str]) -> None:
    """Main of the process that answers: kind, count, descriptors."""
    kind, count, *fds = arguments
    register()
    if kind == "bell":
        event, page, their_event, their_page = map(int, fds)
        with (
            closing(Doorbell.from_fds(event, page, probe())) as doorbell,
            closing(Bell.from_fds(their_event, their_page)) as bell,
        ):
            answer(BellEnd(doorbell, bell), int(count))
    else:
        os.set_inheritable(int(fds[0]), False)
        with socket.socket(fileno=int(fds[0])) as sock:
            answer(SocketEnd(sock), int(count))


if __name__ == "__main__":
    main(sys.argv[1:])
