"""The party for plain code: the same methods as `Party`, each of which returns when it is done.

Between a program without an event loop and the asynchronous party. The one invariant: nothing happens here that does
not happen there; only who waits differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from .errors import PartyFailed
from .party import Party
from .waiting import run_blocking

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Mapping
    from pathlib import Path
    from types import TracebackType

    from partywire.engine.peers.contract import ProtocolHandler
    from partywire.engine.peers.peer_id import PeerId
    from partywire.engine.sessions import SessionBlock

    from .blocking_session import BlockingSession
    from .config import PartyConfig
    from .link_events import LinkEvent
    from .party_node.files import SubstreamFile
    from .party_node.node import PartyNode
    from .stat import PartyStat
    from .worker import Worker

T = TypeVar("T")


class BlockingParty:
    """The form for plain code, opened by `with`. Single-threaded: peers are served while a call waits."""

    def __init__(
        self,
        config: PartyConfig | str | Path,
        listener: socket.socket | None = None,
        *,
        on_progress: Callable[[str, str], None] | None = None,
        on_event: Callable[[LinkEvent], object] | None = None,
    ) -> None:
        """Like Party."""
        self.asynchronous = Party(config, listener, on_progress=on_progress, on_event=on_event)

    def __enter__(self) -> BlockingParty:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.asynchronous._has_raised = error is not None
        self.close()

    def open(self) -> None:
        """Like Party.open."""
        party = self.asynchronous
        party._start()
        try:
            run_blocking(party.worker, party._connect())
        except BaseException:
            party._has_raised = True
            party._end()
            raise

    @property
    def config(self) -> PartyConfig:
        """What the party was opened with."""
        return self.asynchronous.config

    @property
    def name(self) -> str:
        """Our name."""
        return self.asynchronous.name

    @property
    def index(self) -> int:
        """Our index among the parties."""
        return self.asynchronous.index

    @property
    def names(self) -> tuple[str, ...]:
        """All names in index order."""
        return self.asynchronous.names

    @property
    def worker(self) -> Worker:
        """Like Party.worker."""
        return self.asynchronous.worker

    @property
    def pids(self) -> dict[str, int]:
        """Like Party.pids."""
        return self.asynchronous.pids

    def stat(self) -> PartyStat:
        """Like Party.stat."""
        return self.asynchronous.stat()

    def wait_for_links(self, timeout: float | None = None) -> None:
        """Like Party.wait_for_links."""
        self._run(self.asynchronous.wait_for_links(timeout))

    def make_sessions(
        self, count: int, *, bulk: bool = False, timeout: float | None = None
    ) -> list[BlockingSession]:
        """Like Party.make_sessions."""
        sessions = self._run(self.asynchronous.make_sessions(count, bulk=bulk, timeout=timeout))
        return [session.blocking for session in sessions]

    def barrier(self, *, timeout: float | None = None) -> None:
        """Like Party.barrier."""
        self._run(self.asynchronous.barrier(timeout=timeout))

    def rendezvous(
        self, kind: str, fields: Mapping[str, object], *, timeout: float | None = None, equal: bool = False
    ) -> dict[str, Mapping[str, object]]:
        """Like Party.rendezvous."""
        return self._run(self.asynchronous.rendezvous(kind, fields, timeout=timeout, equal=equal))

    def agree(
        self,
        kind: str,
        count: int,
        fields: Mapping[str, object] | None = None,
        *,
        timeout: float | None = None,
        stride: int = 1,
    ) -> tuple[SessionBlock, dict[str, Mapping[str, object]]]:
        """Like Party.agree."""
        return self._run(self.asynchronous.agree(kind, count, fields, timeout=timeout, stride=stride))

    # The control plane.

    @property
    def node(self) -> PartyNode:
        """Like Party.node: its coroutines for `run` and for jobs. No messages, calls or events: these need asyncio."""
        return self.asynchronous.node

    def protocol(self, protocol: str) -> Callable[[ProtocolHandler], ProtocolHandler]:
        """Like Party.protocol. Handlers run while a call waits, or a batch, and await nothing of asyncio."""
        return self.asynchronous.protocol(protocol)

    def open_file(self, peer: str | PeerId, protocol: str, *, timeout: float | None = None) -> SubstreamFile:
        """Like Party.open_file."""
        return self.asynchronous.open_file(peer, protocol, timeout=timeout)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What a coroutine of this party returns: of its node, its readers and writers, or one that awaits only these.

        Raises:
            RuntimeError: it awaited something of asyncio.
        """
        return self._run(coroutine)

    def close(self) -> None:
        """Like Party.close."""
        if self.asynchronous._worker is not None:
            self._run(self.asynchronous.close())

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            worker = self.asynchronous.worker
        except PartyFailed:
            coroutine.close()
            raise
        return run_blocking(worker, coroutine)
