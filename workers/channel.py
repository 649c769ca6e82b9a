"""The private channel between the opener of a party and one of its child workers: whole Python objects, both ways.

Between two processes of one party's family, over a socket pair that the party's own supervisor made. That is why it
may pickle: nothing of a peer's ever travels here as a pickle, except inside values that a job of ours returned.

The one invariant: sending never waits. What the kernel does not take is kept and goes out at the next `poll`, so two
ends that both have a lot to say cannot stop each other.

Guarantees: messages arrive whole, in order, exactly once, or `ChannelClosed` is raised.
Assumptions: one thread per end; the socket is a stream or keeps records of up to PIECE_SIZE.
"""

from __future__ import annotations

import os
import pickle
import select
import struct
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket

PIECE_SIZE = 64 * 1024
"""Bytes given to one `send` or taken by one `recv`: below the default socket buffer of 208 KiB, which bounds a record
of a socket that keeps records."""

READ_SIZE_MAX = 1024 * 1024
"""Bytes read in one `poll`, so that a child with large results cannot keep its opener from its own sessions."""

LENGTH = struct.Struct("<Q")
PICKLE_PROTOCOL = 5


class ChannelClosed(Exception):
    """Raised when the other end of a channel has gone; the supervisor says why."""


class Channel:
    """One end. Driven by its owner alone; `fileno()` is readable whenever `poll` has something to do.

    The descriptor is an epoll instance around the socket: an owner that can only wait for readable descriptors thereby
    also learns that the socket takes bytes again.
    """

    def __init__(self, sock: socket.socket) -> None:
        """Takes ownership of `sock`."""
        sock.setblocking(False)
        self._sock = sock
        self._epoll = select.epoll()
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        self._wants_write = False
        self._outgoing: deque[memoryview] = deque()
        self._incoming = bytearray()
        self._closed = False

    def fileno(self) -> int:
        return self._epoll.fileno()

    # Sending.

    def send(self, message: object) -> None:
        """Queue `message` and send what the kernel takes now. Never waits.

        Raises:
            ChannelClosed: the other end has gone.
            Exception: whatever pickling `message` raises; nothing has been queued then.
        """
        self.send_pickled(pickle.dumps(message, PICKLE_PROTOCOL))

    def send_pickled(self, data: bytes) -> None:
        """`send` for a message that is pickled already, for instance because several channels get the same one."""
        self._outgoing.append(memoryview(LENGTH.pack(len(data)) + data[:PIECE_SIZE]))
        if len(data) > PIECE_SIZE:
            self._outgoing.append(memoryview(data)[PIECE_SIZE:])
        self._flush()

    @property
    def is_flushed(self) -> bool:
        """Whether the kernel has taken everything that was sent."""
        return not self._outgoing

    def _flush(self) -> None:
        try:
            while self._outgoing:
                head = self._outgoing[0]
                taken = self._sock.send(head[:PIECE_SIZE])
                if taken < len(head):
                    self._outgoing[0] = head[taken:]
                else:
                    self._outgoing.popleft()
        except BlockingIOError:
            pass
        except OSError as exc:
            raise ChannelClosed from exc
        self._watch_write(bool(self._outgoing))

    def _watch_write(self, wants_write: bool) -> None:
        if wants_write != self._wants_write:
            self._wants_write = wants_write
            self._epoll.modify(self._sock.fileno(), select.EPOLLIN | (select.EPOLLOUT if wants_write else 0))

    # Receiving.

    def poll(self) -> list[Any]:
        """Send what is queued and return the messages that are complete. Never waits.

        Raises:
            ChannelClosed: the other end has gone and every complete message has been returned before.
        """
        if self._outgoing:
            self._flush()
        size_before = len(self._incoming)
        ended = False
        while len(self._incoming) - size_before < READ_SIZE_MAX:
            try:
                piece = self._sock.recv(PIECE_SIZE)
            except BlockingIOError:
                break
            except OSError:
                piece = b""
            if not piece:
                ended = True
                break
            self._incoming += piece
        messages = self._take_messages()
        if ended and not messages:
            raise ChannelClosed
        return messages

    def _take_messages(self) -> list[Any]:
        messages = []
        start = 0
        while len(self._incoming) - start >= LENGTH.size:
            (size,) = LENGTH.unpack_from(self._incoming, start)
            end = start + LENGTH.size + size
            if end > len(self._incoming):
                break
            messages.append(pickle.loads(self._incoming[start + LENGTH.size : end]))
            start = end
        del self._incoming[:start]
        return messages

    def wait(self, timeout_s: float) -> list[Any]:
        """The next complete messages, waiting for them at most `timeout_s`; empty when none came.

        For owners without sessions to serve in the meantime.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            messages = self.poll()
            left = deadline - time.monotonic()
            if messages or left <= 0:
                return messages
            self._epoll.poll(left)

    def close(self) -> None:
        """Close both descriptors. What the kernel has taken still arrives."""
        if not self._closed:
            self._closed = True
            self._epoll.close()
            self._sock.close()


# Job functions across processes.


def main_path() -> str | None:
    """The script that this process runs, so that child workers find the functions that it defines."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return None if path is None else os.path.abspath(path)


def load_main(path: str) -> None:
    """Run the user's script as `__mp_main__` and let `__main__` mean it, so that its functions can be unpickled.

    What multiprocessing does for spawned processes, under the name that scripts guard against with
    `if __name__ == "__main__":`. Does nothing when it has been done.
    """
    import runpy
    import types

    if "__mp_main__" in sys.modules:
        return
    module = types.ModuleType("__mp_main__")
    module.__file__ = path
    sys.modules["__mp_main__"] = module
    # The module is registered first and filled afterwards: a dataclass of the script looks up its own module.
    module.__dict__.update(runpy.run_path(path, run_name="__mp_main__"))
    sys.modules["__main__"] = module
