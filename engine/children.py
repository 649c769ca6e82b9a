"""The children of a supervisor: each with its process and its socket, watched in one selector.

Between the supervisor, who decides whom to start and what an end means, and the processes. The one invariant: a child
that is among them is watched, its end by its process and its words by its socket, until it is forgotten; so none is
reaped twice and no socket is polled that is closed.
"""

from __future__ import annotations

import selectors
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

from partywire.shm.segment import sweep

from .child_process import OF_ENGINE, ChildProcess
from .control_socket import ControlSocket
from .forked import fork_child

if TYPE_CHECKING:
    from collections.abc import Iterator


FORKED: Final = ("partywire.engine.io_process", "partywire.engine.gateway")
"""Modules of children that every party has: for the supervisor to import once, so that none of them has to."""


class Kind(Enum):
    """What a child does."""

    GATEWAY = "gateway"
    LINK = "link"  # an I/O process
    WORKER = "worker"
    HTTP = "http"  # the HTTP front, and the worker that answers its requests
    NODE = "node"  # the party's peer-to-peer node


@dataclass(slots=True)
class Child:
    """One process under supervision. `index` is the first peer of an I/O process, the index of a worker."""

    kind: Kind
    index: int
    process: ChildProcess
    control: ControlSocket
    links: set[int] = field(default_factory=set)  # peers whose link is not over for good
    connected: dict[int, str] = field(default_factory=dict)  # peers with a connection -> its address, as last told
    watched_events: int = selectors.EVENT_READ
    fault: str = ""  # why we killed it


def _begin(role: str, module: str, control_fd: int) -> ChildProcess:
    """Processes of the engine are forks, all others begin with an interpreter of their own.

    Raises:
        OSError: the machine cannot.
    """
    if module.startswith(OF_ENGINE):
        return fork_child(role, module, control_fd)
    return ChildProcess.start(role, module, control_fd)


class Children:
    """All that have not been forgotten, in the order of their start. In the selector each is the data of both its
    sources."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._children: list[Child] = []
        self._unswept: list[int] = []  # processes that were reaped, and may have left something in shared memory

    def __iter__(self) -> Iterator[Child]:
        """Those of this moment, whatever happens meanwhile."""
        return iter(tuple(self._children))

    def __len__(self) -> int:
        return len(self._children)

    def __contains__(self, child: object) -> bool:
        return child in self._children

    def worker(self, index: int) -> ControlSocket | None:
        """The socket of a compute process that runs."""
        for child in self._children:
            if child.kind is Kind.WORKER and child.index == index:
                return child.control
        return None

    def start(self, kind: Kind, index: int, module: str, role: str = "") -> Child:
        """Start the program of a module as one of them.

        Raises:
            OSError: the machine cannot.
        """
        role = role or (kind.value if kind is Kind.GATEWAY else f"{kind.value} {index}")
        ours, theirs = ControlSocket.pair()
        with theirs:
            control = ControlSocket(ours, role)
            try:
                process = _begin(role, module, theirs.fileno())
            except BaseException:
                control.close()
                raise
        child = Child(kind, index, process, control)
        try:
            self._selector.register(control, selectors.EVENT_READ, child)
            self._selector.register(process, selectors.EVENT_READ, child)
        except BaseException:
            self._discard(child)
            raise
        self._children.append(child)
        return child

    def _discard(self, child: Child) -> None:
        """It runs, and cannot be watched."""
        for watched in (child.control, child.process):
            if watched.fileno() in self._selector.get_map():
                self._selector.unregister(watched)
        child.control.close()
        child.process.end()

    def watch_held_messages(self) -> None:
        """Wait for room on exactly those sockets that messages are held for."""
        for child in self._children:
            if child.control.fileno() < 0:
                continue
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if child.control.has_pending else 0)
            if events != child.watched_events:
                child.watched_events = events
                self._selector.modify(child.control, events, child)

    def hang_up(self, child: Child) -> None:
        """Say and hear nothing more; its end is still watched. May be called again."""
        if child.control.fileno() >= 0:
            self._selector.unregister(child.control)
            child.control.close()

    def forget(self, child: Child) -> None:
        """It was reaped: give back what it had, in shared memory too."""
        self._children.remove(child)
        self._selector.unregister(child.process)
        child.process.close()
        self.hang_up(child)
        self._sweep_up(child)

    def end_all(self) -> None:
        """Kill and reap whoever is left, and give back what they had. Their selector is of no use any more."""
        for child in self._children:
            child.process.kill()
        for child in self._children:
            child.process.end()
            child.control.close()
        for child in self._children:
            self._sweep_up(child)
        self._children.clear()

    def _sweep_up(self, child: Child) -> None:
        """Needs a descriptor for a moment: without one it is put off until the next end, or the last."""
        self._unswept.append(child.process.pid)
        try:
            while self._unswept:
                sweep(self._unswept[-1])
                self._unswept.pop()
        except OSError:
            pass
