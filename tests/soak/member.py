"""One party's program as the soak sees it: started, ordered about, killed, and started again."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.support.processes import children_of

if TYPE_CHECKING:
    import socket

NAMES: Final = ("alice", "bob", "charlie")
MODULES: Final = {
    "partywire.engine.io_process": "I/O process",
    "partywire.engine.gateway": "gateway",
    "partywire.workers.worker_main": "worker",
}
OPENER, SUPERVISOR = "opener", "supervisor"

Figure = tuple[int, int]
"""KiB resident, and descriptors."""


class SoakFailed(Exception):
    """Raised when a check of the soak failed."""


class Member:
    """One party over all its lives. Driven by the soak."""

    def __init__(
        self, index: int, listener: socket.socket, addresses: dict[str, tuple[str, int]], seed: int, workers: int
    ) -> None:
        """`listener` stays the soak's: what is dialled while the party is away waits there."""
        numbers = (index, listener.fileno(), seed, workers)
        self._command = [sys.executable, "-m", "tests.soak.party", *map(str, numbers)]
        self._command += [f"{name}={port}" for name, (_, port) in addresses.items()]
        self._listener = listener
        self.index = index
        self.name = NAMES[index]
        self.lives = 0
        self.family: list[int] = []  # supervisors, and the children of those that were killed
        self.supervisor = 0  # once it has said so
        self.is_doomed = False  # its opener or supervisor was killed by us, so its program ends
        self.order = -1  # what it was told last, and has not answered
        # What lives as long as the program: one list for each life.
        self.figures: dict[str, list[list[Figure]]] = {OPENER: [], SUPERVISOR: []}
        self.process: subprocess.Popen[bytes]
        self._unread = b""
        self.start()

    def start(self) -> None:
        """Begin a life."""
        self.process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[self._listener.fileno()]
        )
        self.lives += 1
        self.supervisor = 0
        self.is_doomed = False
        self._unread = b""
        for lives in self.figures.values():
            lives.append([])

    def tell(self, batch: int, order: int) -> None:
        """Have it run a batch."""
        self.order = order
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{batch} {order}\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # `poll` finds its end

    def poll(self) -> dict[str, Any] | None:
        """What it said, if it said something; its first word in a life is taken note of here.

        Raises:
            EOFError: it has ended, as it had to.
            SoakFailed: it has ended.
        """
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        while b"\n" not in self._unread:
            if not select.select([fd], [], [], 0)[0]:
                return None
            data = os.read(fd, 1 << 20)
            if not data:
                self._close()
                if self.is_doomed:
                    raise EOFError
                raise SoakFailed(f"{self.name} ended with {self.process.wait(10)}")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        document: dict[str, Any] = json.loads(line)
        if "supervisor" in document and "order" not in document:
            self.supervisor = document["supervisor"]
            self.family.append(self.supervisor)
            return None
        for what, lives in self.figures.items():
            if what in document:
                lives[-1].append(tuple(document[what]))
        return document

    def victims(self) -> dict[int, str]:
        """Its processes that it starts again by itself: pid -> what it is."""
        found: dict[int, str] = {}
        for child in children_of(self.supervisor) if self.supervisor else ():
            try:
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue  # it ended meanwhile
            for module, what in MODULES.items():
                if module.encode() in words:
                    found[child] = what
        return found

    def doom(self, what: str) -> bool:
        """Kill its opener or its supervisor; with either the whole party dies. False: it is not there yet."""
        if self.is_doomed or not self.supervisor:
            return False
        self.is_doomed = True
        self.family += self.victims()
        os.kill(self.process.pid if what == OPENER else self.supervisor, signal.SIGKILL)
        return True

    def _close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # it died before it read what it was told
        self.process.stdout.close()

    def end(self, deadline: float) -> None:
        """Let its input end, and wait for the program."""
        if self.process.stdout is not None and not self.process.stdout.closed:
            assert self.process.stdin is not None
            self.family += self.victims()
            try:
                self.process.stdin.close()
            except BrokenPipeError:
                pass
        try:
            self.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._close()
