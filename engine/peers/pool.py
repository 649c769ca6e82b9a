"""Which connection stands: at most one to each peer, and the same one at both ends.

Between whoever made a connection, either way, and everybody who wants one. Two peers that dial each other at the same
time get along by one rule: **the connection that the peer with the smaller id dialled stays**. So that it need not
replace one that is in use, neither end says yes to both:

- A dial is committed when our identity goes out on it. A connection that comes to stand before ends the dial.
- An acceptor with the smaller id whose own dial is committed waits for how that ends before it answers; and since the
  one with the larger id never waits, neither waits for the other.
- An acceptor with the smaller id that has a connection it dialled itself refuses another one, if the first still
  answers a ping. Otherwise the peer may know better than we do: the new one takes its place.

The one invariant: where both ends stay, at least one connection does, and what one end has the other end has.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..yamux.errors import SubstreamSessionOver
from .connectivity import Connectivity
from .contract import Direction
from .errors import RefusalCode
from .events import PeerConnected, PeerDisconnected

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from .connection import EstablishedConnection
    from .counters import PeerCounters
    from .events import EventHub
    from .options import PeerOptions
    from .peer_id import PeerId


class Dial:
    """One peer that is being dialled, and everybody who waits for it."""

    def __init__(self, peer_id: PeerId, loop: asyncio.AbstractEventLoop) -> None:
        self.peer_id = peer_id
        self.result: asyncio.Future[EstablishedConnection] = loop.create_future()
        """What the waiters get: the connection of this dial, or one that the peer dialled meanwhile."""
        self.waiters = 0
        self.is_committed = False
        self.settled = asyncio.Event()
        """Whether the peer cannot take a connection of this dial for one that stands."""
        self.settled.set()
        self.task: asyncio.Task[None] | None = None

    def commit(self) -> None:
        """Our identity goes out."""
        self.is_committed = True
        self.settled.clear()

    def settle(self) -> None:
        """That connection stands, or is closed."""
        self.is_committed = False
        self.settled.set()


class ConnectionPool:
    """The connections that stand, and the dials under way. One event loop; nothing in it waits but `admit` and
    `stays`."""

    def __init__(self, us: PeerId, options: PeerOptions, counters: PeerCounters, hub: EventHub) -> None:
        self.standing: dict[PeerId, EstablishedConnection] = {}
        self.dials: dict[PeerId, Dial] = {}
        self.connectivity = Connectivity(options.online_min, hub)
        self._us = us
        self._options = options
        self._counters = counters
        self._hub = hub
        self._tasks: set[asyncio.Task[None]] = set()

    def get(self, peer_id: PeerId) -> EstablishedConnection | None:
        """The connection that stands."""
        connection = self.standing.get(peer_id)
        return connection if connection is not None and connection.is_open else None

    # Deciding.

    async def admit(self, peer_id: PeerId) -> RefusalCode | None:
        """Whether a connection that the peer dialled is refused. None: it must be `put` before anything else happens
        in the loop."""
        if peer_id == self._us:
            return RefusalCode.OURSELVES
        while True:
            dial = self.dials.get(peer_id)
            existing = self.get(peer_id)
            if self._us < peer_id and dial is not None and dial.is_committed:
                await dial.settled.wait()
            elif existing is None:
                is_full = len(self.standing) >= self._options.connections_max
                return RefusalCode.FULL if is_full and peer_id not in self.standing else None
            elif existing.direction is Direction.ACCEPTED or peer_id < self._us:
                return None  # it dials only if it has none; or its dial counts more than ours
            elif await self._answers(existing):
                return RefusalCode.DUPLICATE

    async def stays(self, peer_id: PeerId) -> EstablishedConnection | None:
        """Behind a dial that the peer accepted: the connection that stays all the same. None: the new one must be
        `put` before anything else happens in the loop."""
        while (existing := self.get(peer_id)) is not None:
            if existing.direction is Direction.DIALLED or self._us < peer_id:
                return None
            if await self._answers(existing):
                return existing
        return None

    async def _answers(self, connection: EstablishedConnection) -> bool:
        """Whether a connection is alive; one that is not is given up."""
        try:
            async with asyncio.timeout(self._options.duplicate_ping_s):
                await connection.ping()
            return connection.is_open
        except (TimeoutError, SubstreamSessionOver):
            connection.abort("it did not answer, and the peer connected anew")
            return False

    # Changing.

    def put(self, connection: EstablishedConnection) -> None:
        """From now on this one stands; whoever waits for the peer gets it."""
        peer_id = connection.peer_id
        existing = self.standing.get(peer_id)
        self.standing[peer_id] = connection
        connection.closed.add_done_callback(lambda closed: self._on_closed(connection, closed.result()))
        self._counters.connected += 1
        if existing is not None:
            self._counters.duplicates += existing.is_open
            self.spawn(existing.aclose())
        dial = self.dials.get(peer_id)
        if dial is not None:
            if not dial.result.done():
                dial.result.set_result(connection)
            if not dial.is_committed and dial.task is not None and dial.task is not asyncio.current_task():
                dial.task.cancel()
        self._hub.publish(PeerConnected(peer_id, connection.direction, connection.address))
        self.connectivity.reached(peer_id)
        self.connectivity.count(len(self.standing))

    def _on_closed(self, connection: EstablishedConnection, cause: str) -> None:
        self._counters.disconnected += 1
        if self.standing.get(connection.peer_id) is connection:
            del self.standing[connection.peer_id]
            self._hub.publish(PeerDisconnected(connection.peer_id, cause))
            self.connectivity.count(len(self.standing))

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Do something beside everything else, to be waited for by `aclose`."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def reap(self, now: float) -> None:
        """Close what was idle too long, the longest first, while more than `idle_keep` stand."""
        excess = len(self.standing) - self._options.idle_keep
        idle = sorted(((one.idle_s(now), index, one) for index, one in enumerate(self.standing.values())), reverse=True)
        for idle_s, _, connection in idle[: max(excess, 0)]:
            if idle_s >= self._options.idle_timeout_s:
                self._counters.reaped += 1
                self.spawn(connection.aclose())

    async def aclose(self) -> None:
        """Close every connection, and wait for what is beside."""
        for connection in self.standing.values():
            self.spawn(connection.aclose())
        while self._tasks:
            await asyncio.wait(self._tasks)
