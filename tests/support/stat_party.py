"""A stat server as a supervisor runs it, in a thread, with processes that are functions."""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from typing import TYPE_CHECKING

from partywire.engine.stat_page import Value
from partywire.engine.stat_publish import StatPublisher
from partywire.engine.stat_server import OPENER, ProcessEntry, StatServer
from partywire.engine.topology import PartySpec, PeerSpec
from partywire.workers.stat_reader import running_parties

if TYPE_CHECKING:
    from collections.abc import Sequence

    from partywire.engine.commands import PublishStat
    from partywire.workers.stat_reader import Running

NAMES = ("alice", "bob", "charlie")
DEADLINE_S = 20.0


class StatParty:
    """Use as a context manager. The opener is this process, and publishes whatever `sessions` is."""

    def __init__(self, name: str = "alice", *, names: Sequence[str] = NAMES) -> None:
        peers = tuple(PeerSpec(peer, index, "127.0.0.1", 7001 + index) for index, peer in enumerate(names))
        self.sessions = 5
        self.asked = 0
        self.answers = True  # whether the opener publishes when it is asked
        self.reads = True  # whether there is room in its control socket
        self._publisher = StatPublisher(self._values)
        self._selector = selectors.DefaultSelector()
        known = {running.address for running in running_parties()}
        self.server = StatServer(PartySpec(name, list(names).index(name), peers), self._selector, self._processes)
        [self.running] = [running for running in running_parties() if is_new(running, known)]
        self._wake_read, self._wake_write = socket.socketpair()
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._stop = False
        self._thread = threading.Thread(target=self._serve)

    def _values(self) -> list[Value]:
        return [Value("sessions", (("worker", "0"),), self.sessions)]

    def _processes(self) -> list[ProcessEntry]:
        return [ProcessEntry(OPENER, os.getpid(), self._ask), ProcessEntry("gateway", os.getpid(), None)]

    def _ask(self, message: PublishStat, fds: Sequence[int]) -> bool:
        if not self.reads:
            return False
        self.asked += 1
        taken = [os.dup(fd) for fd in fds]
        if self.answers:
            self._publisher.take(message, taken)
        else:
            for fd in taken:
                os.close(fd)
        return True

    def _serve(self) -> None:
        while not self._stop:
            now = time.monotonic()
            self.server.tick(now)
            for key, _ in self._selector.select(self.server.timeout_s(now)):
                if key.data is self.server and isinstance(key.fileobj, socket.socket) and key.fileobj.fileno() >= 0:
                    self.server.serve(key.fileobj)

    def __enter__(self) -> StatParty:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._wake_write.send(b"!")
        self._thread.join(DEADLINE_S)
        self.server.close()
        self._publisher.close()
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()


def is_new(running: Running, known: set[str]) -> bool:
    """Whether it is the one of this process that was just made; other tests run beside us."""
    return running.pid == os.getpid() and running.address not in known
