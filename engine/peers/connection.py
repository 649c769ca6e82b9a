"""One connection to a peer whose identity is proven: opens substreams for us, and serves those of the peer.

Between users of substreams, the handlers of protocols, and the SubstreamConnection that moves their bytes. The one
invariant: each substream of the peer is negotiated and served in a task of its own, and all tasks end with the
connection; so whatever one substream does holds up no other. At most `negotiations_max` are being negotiated; further
ones wait, and there are no more of all of them than the limits of yamux allow.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Protocol

from ..errors import LinkProtocolError
from ..negotiation import NegotiationFailed
from ..yamux.errors import SubstreamReset, SubstreamSessionOver
from .errors import NegotiationTimedOut
from .negotiating import answer, propose
from .serving import run_handler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..multiaddr import Multiaddr
    from ..substreams.streams import SubstreamReader, SubstreamWriter
    from .claims import PeerClaim
    from .contract import Direction, ProtocolHandler
    from .counters import PeerCounters
    from .options import PeerOptions
    from .peer_id import PeerId

_LOG: Final = logging.getLogger("partywire.peers")

EARLY_MAX: Final = 64
"""Substreams that the peer may open before we have taken in who it is; more are reset."""


class Substreams(Protocol):
    """What carries the substreams of one peer: a connection, or a part of one."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where it runs."""

    @property
    def closed(self) -> asyncio.Future[str]:
        """Done when it is over, with the cause."""

    @property
    def violation(self) -> LinkProtocolError | None:
        """What the peer did that the protocol forbids, if that ended it."""

    @property
    def substreams(self) -> int:
        """How many are open."""

    @property
    def is_leaving(self) -> bool:
        """Whether either side opens no further substreams."""

    def name_peer(self, peer: str) -> None:
        """The peer has said who it is."""

    async def open(self) -> tuple[SubstreamReader, SubstreamWriter]:
        """As SubstreamConnection.open."""

    async def ping(self) -> float:
        """As SubstreamConnection.ping."""

    async def aclose(self, timeout_s: float) -> None:
        """As SubstreamConnection.aclose."""

    def abort(self, cause: str) -> None:
        """As SubstreamConnection.abort."""


class SubstreamGate:
    """What a connection hands its peer's substreams to: keeps them until somebody is there to serve them."""

    def __init__(self) -> None:
        self._early: list[tuple[SubstreamReader, SubstreamWriter]] = []
        self._serve: Callable[[SubstreamReader, SubstreamWriter], object] | None = None
        self._came = asyncio.Event()
        self._cause = ""  # why none comes any more

    def __call__(self, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        if self._serve is not None:
            self._serve(reader, writer)
        elif len(self._early) == EARLY_MAX:
            writer.reset("too many substreams before the identity exchange")
        else:
            self._early.append((reader, writer))
            self._came.set()

    async def first(self) -> tuple[SubstreamReader, SubstreamWriter]:
        """The first one, for the identity exchange of who accepted the connection.

        Raises:
            SubstreamSessionOver: the connection ended without one.
        """
        await self._came.wait()
        if not self._early:
            raise SubstreamSessionOver("", self._cause)
        return self._early.pop(0)

    def end(self, closed: asyncio.Future[str]) -> None:
        """The connection is over."""
        self._cause = closed.result()
        self._came.set()

    def open(self, serve: Callable[[SubstreamReader, SubstreamWriter], object]) -> None:
        """From now on `serve` gets them, those that wait at once."""
        self._serve = serve
        early, self._early = self._early, []
        for reader, writer in early:
            serve(reader, writer)


class EstablishedConnection:
    """A PeerConnection (see `contract`). Made when the identity exchange is done; `start` lets substreams in."""

    def __init__(
        self,
        substreams: Substreams,
        claim: PeerClaim,
        direction: Direction,
        address: Multiaddr,
        observed: Multiaddr | None,
        told: PeerClaim,
        handlers: Mapping[str, ProtocolHandler],
        options: PeerOptions,
        counters: PeerCounters,
        on_violation: Callable[[EstablishedConnection, LinkProtocolError], object],
    ) -> None:
        """Owns `substreams`; `claim` is what the peer says about itself, `told` what we told it about us. `handlers`
        may change at any time."""
        self.peer_id: Final[PeerId] = claim.peer_id
        self.public_key: Final = claim.public_key
        self.direction: Final = direction
        self.address: Final = address
        self.observed: Final = observed
        """Where the peer says it sees us; nothing proves it."""
        self.claim = claim
        self.closed: Final = substreams.closed
        self.used_at = substreams.loop.time()
        """When a substream was last known to be open, by the loop's clock."""
        self.told = told
        """What the peer last heard from us about ourselves."""
        self.is_updating = False
        """Whether a change of its claim is being taken in."""
        self._substreams = substreams
        self._handlers = handlers
        self._options = options
        self._counters = counters
        self._on_violation = on_violation
        self._slots = asyncio.Semaphore(options.negotiations_max)
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, gate: SubstreamGate) -> None:
        """Serve the peer's substreams, those that came early at once."""
        self._substreams.name_peer(str(self.peer_id))
        self.closed.add_done_callback(self._on_closed)
        gate.open(self._begin)

    def __repr__(self) -> str:
        return f"<connection to {self.peer_id} at {self.address}, {self.direction.value}>"

    # For users.

    @property
    def is_open(self) -> bool:
        """Whether it stands, as far as is known here, and neither side is leaving."""
        return not (self.closed.done() or self._substreams.is_leaving)

    @property
    def substreams(self) -> int:
        """How many are open."""
        return self._substreams.substreams

    async def open(self, protocols: Sequence[str]) -> tuple[str, SubstreamReader, SubstreamWriter]:
        """As PeerConnection.open."""
        known = self.claim.protocols
        self.used_at = self._substreams.loop.time()
        reader, writer = await self._substreams.open()
        try:
            agreed = await propose(reader, writer, protocols, known.__contains__, self._options.negotiation_timeout_s)
        except LinkProtocolError as error:
            self._on_violation(self, error)
            raise
        return agreed, reader, writer

    async def ping(self) -> float:
        """As PeerConnection.ping."""
        return await self._substreams.ping()

    async def aclose(self) -> None:
        """As PeerConnection.aclose."""
        await self._substreams.aclose(self._options.close_timeout_s)
        self._cancel_all()
        if tasks := self._tasks - {asyncio.current_task()}:
            await asyncio.wait(tasks, timeout=self._options.close_timeout_s)

    def abort(self, cause: str) -> None:
        """End it at once; `cause` goes to the log of this end alone."""
        self._substreams.abort(cause)

    def idle_s(self, now: float) -> float:
        """For how long no substream was open; asked now and then, since that is how it learns of those that end."""
        if self.substreams:
            self.used_at = now
        return now - self.used_at

    # Serving.

    def _begin(self, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        self._counters.negotiations += 1
        self.used_at = self._substreams.loop.time()
        task = self._substreams.loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        protocol = await self._negotiate(reader, writer)
        handler = None if protocol is None else self._handlers.get(protocol)
        if protocol is None or handler is None:
            return
        try:
            if not await run_handler(handler, self, reader, writer, protocol, self._options.negotiation_timeout_s):
                self._counters.handlers_failed += 1
        except LinkProtocolError as error:
            self._on_violation(self, error)

    async def _negotiate(self, reader: SubstreamReader, writer: SubstreamWriter) -> str | None:
        timeout_s = self._options.negotiation_timeout_s
        try:
            if self._slots.locked():
                async with asyncio.timeout(timeout_s):
                    await self._slots.acquire()
            else:
                await self._slots.acquire()
        except TimeoutError:
            self._counters.negotiations_failed += 1
            writer.reset("too many negotiations at a time")
            return None
        try:
            return await answer(reader, writer, self._handlers.__contains__, timeout_s)
        except (NegotiationFailed, NegotiationTimedOut) as error:
            self._counters.negotiations_failed += 1
            _LOG.debug("%s", error)
        except (SubstreamReset, SubstreamSessionOver):
            self._counters.negotiations_failed += 1
        except LinkProtocolError as error:
            self._counters.negotiations_failed += 1
            self._on_violation(self, error)
        finally:
            self._slots.release()
        return None

    # Ending.

    def _on_closed(self, _: asyncio.Future[str]) -> None:
        if (violation := self._substreams.violation) is not None:
            self._on_violation(self, violation)
        # Not at once: what had arrived can still be read.
        self._substreams.loop.call_later(self._options.close_timeout_s, self._cancel_all)

    def _cancel_all(self) -> None:
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()
