"""A control socket: whole messages of `commands`, with descriptors beside them, between two processes of one party.

A SEQPACKET socket pair: message boundaries, order and end-of-file are the kernel's, so there is no framing to lose.
The one invariant: a message arrives whole with all its descriptors, or its receiver hears that it did not; received
descriptors always belong to the caller, sent ones stay the sender's.

Guarantees: `try_receive`, `post` and `flush` never wait; `send` and `receive` wait no longer than their deadline; at
most PENDING_MAX messages are held for a peer that does not read. Both ends are one version of one program, so an
invalid message is a bug or an attack and ends the socket.
"""

from __future__ import annotations

import array
import errno
import os
import select
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from . import commands
from .commands import DESCRIPTORS_MAX, MESSAGE_SIZE_MAX, CommandError, Message
from .errors import PartyWireError

if TYPE_CHECKING:
    from collections.abc import Sequence

PENDING_MAX: Final = 256
"""Messages held for a process that does not read its control socket (a worker deep in a computation), beside some
hundreds in the kernel. Arbitrary; a party sends about ten per link in its life."""

SEND_TIMEOUT_S: Final = 10.0
"""How long `send` waits for room. The other end is a process that only serves its control socket."""

RETRY_PAUSE_S: Final = 0.005
"""Between two attempts of `send` while the kernel lacks what no poll reports."""

_ANCILLARY_SIZE = socket.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)


class ControlClosed(PartyWireError):
    """Raised when the process at the other end of a control socket is gone."""

    def __init__(self, whose: str) -> None:
        super().__init__(whose)
        self.whose = whose

    def __str__(self) -> str:
        return f"the control socket of {self.whose} is closed; that process has ended"


class ControlTimeout(PartyWireError):
    """Raised when the process at the other end did not answer, or did not read, within the deadline."""

    def __init__(self, whose: str, seconds: float) -> None:
        super().__init__(whose, seconds)
        self.whose = whose
        self.seconds = seconds

    def __str__(self) -> str:
        return f"{self.whose} did not react on its control socket within {self.seconds:g} s"


class DescriptorsLost(CommandError):
    """Raised when a message came and its descriptors did not: this process may have no more of them open."""

    def __str__(self) -> str:
        return f"a message of this party came without its descriptors: {self.what}; is the limit of open files too low?"


class ControlSocket:
    """One end. Not thread-safe.

    After any error but ControlTimeout, and DescriptorsLost, which costs one message, every later call raises
    ControlClosed; after an error of sending, what the other end had said before it ended is received first.
    """

    def __init__(self, sock: socket.socket, whose: str) -> None:
        """Takes ownership of `sock`. `whose` names the other end in errors."""
        self.whose = whose
        self._sock = sock
        self._pending: deque[tuple[bytes, list[int]]] = deque()  # descriptors in it are our duplicates
        self._open = True
        self._can_send = True
        sock.setblocking(False)

    @classmethod
    def from_fd(cls, fd: int, whose: str) -> ControlSocket:
        """Takes ownership of an inherited descriptor."""
        return cls(socket.socket(fileno=fd), whose)

    @staticmethod
    def pair() -> tuple[socket.socket, socket.socket]:
        """Two connected ends, not inheritable; give one to a child process and wrap the other."""
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def fileno(self) -> int:
        """For pollers; readable means that `try_receive` has something to say."""
        return self._sock.fileno()

    # Sending.

    def send(self, message: Message, fds: Sequence[int] = (), timeout_s: float = SEND_TIMEOUT_S) -> None:
        """Send one message, waiting for room if need be. The caller keeps `fds`.

        Raises:
            ControlClosed: the other end is gone.
            ControlTimeout: no room within the deadline; nothing was sent.
        """
        data = commands.encode(message)
        deadline = time.monotonic() + timeout_s
        while not (self.flush() and self._try_send(data, fds)):
            left = deadline - time.monotonic()
            if left > 0 and _wait(self.fileno(), select.POLLOUT, 0):
                time.sleep(min(left, RETRY_PAUSE_S))  # it has room, so the kernel is short of something else
            elif left <= 0 or not _wait(self.fileno(), select.POLLOUT, left):
                raise ControlTimeout(self.whose, timeout_s)

    def post(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send one message now, or hold it for `flush`. Never waits. The caller keeps `fds`.

        Raises:
            ControlClosed: the other end is gone.
            ControlTimeout: PENDING_MAX messages are held already.
        """
        data = commands.encode(message)
        if self.flush() and self._try_send(data, fds):
            return
        if len(self._pending) >= PENDING_MAX:
            raise ControlTimeout(self.whose, 0.0)
        self._pending.append((data, [os.dup(fd) for fd in fds]))

    @property
    def has_pending(self) -> bool:
        """Whether messages are held; poll for writability and call `flush`."""
        return bool(self._pending)

    def flush(self) -> bool:
        """Send what is held; True if nothing is left.

        Raises:
            ControlClosed: the other end is gone.
        """
        while self._pending:
            data, fds = self._pending[0]
            if not self._try_send(data, fds):
                return False
            self._pending.popleft()
            close_all(fds)
        return True

    def _try_send(self, data: bytes, fds: Sequence[int]) -> bool:
        if not (self._open and self._can_send):
            raise ControlClosed(self.whose)
        if len(fds) > DESCRIPTORS_MAX:
            raise ValueError(f"{len(fds)} descriptors beside one message, at most {DESCRIPTORS_MAX} are allowed")
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno in _OUT_OF_RESOURCES:
                return False
            self._can_send = False
            self._drop_pending()
            raise ControlClosed(self.whose) from error
        return True

    # Receiving.

    def try_receive(self) -> tuple[Message, list[int]] | None:
        """The next message and its descriptors, which are now the caller's; None if there is none yet.

        Raises:
            ControlClosed: end of file.
            DescriptorsLost: there was no room for its descriptors. It is lost, and what follows may be received.
            CommandError: an invalid message; its descriptors are closed, and so is the socket.
        """
        if not self._open:
            raise ControlClosed(self.whose)
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(
                MESSAGE_SIZE_MAX, _ANCILLARY_SIZE, socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return None
        except ConnectionResetError:
            # The other end closed with messages of ours unread. The kernel says so once, ahead of its last words.
            return self.try_receive()
        except OSError as error:
            self._die()
            raise ControlClosed(self.whose) from error
        fds = _descriptors(ancillary)
        try:
            if flags & socket.MSG_CTRUNC:
                raise DescriptorsLost(f"{len(fds)} of them did")
            if flags & socket.MSG_TRUNC:
                raise CommandError("truncated message")
            if not data:
                raise ControlClosed(self.whose)
            return commands.decode(data), fds
        except DescriptorsLost:
            close_all(fds)
            raise
        except PartyWireError:
            close_all(fds)
            self._die()
            raise

    def receive(self, timeout_s: float) -> tuple[Message, list[int]]:
        """Wait for the next message.

        Raises:
            ControlTimeout: none within the deadline.
            ControlClosed: end of file.
        """
        deadline = time.monotonic() + timeout_s
        while (received := self.try_receive()) is None:
            left = deadline - time.monotonic()
            if left <= 0 or not _wait(self.fileno(), select.POLLIN, left):
                raise ControlTimeout(self.whose, timeout_s)
        return received

    # Ending.

    def close(self) -> None:
        """Close this end; the other one reads end of file after what was sent. May be called again."""
        self._die()
        self._sock.close()

    def _die(self) -> None:
        self._open = False
        self._drop_pending()

    def _drop_pending(self) -> None:
        while self._pending:
            close_all(self._pending.popleft()[1])

    def __enter__(self) -> ControlSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# The kernel lacks memory, or too many descriptors of this user are in flight: both pass when somebody else reads.
_OUT_OF_RESOURCES = frozenset({errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM})


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors that arrived with a message nobody wants."""
    for fd in fds:
        os.close(fd)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return fds.tolist()


def _wait(fd: int, events: int, timeout_s: float) -> bool:
    poller = select.poll()
    poller.register(fd, events)
    return bool(poller.poll(timeout_s * 1000))
