"""What happens to connections, as events, and how a subscriber hears of them without being able to hold anybody up.

Between the connections and any number of subscribers. The one invariant: a subscriber gets every event in order, or in
the place of those it was too slow for one `Lagged` that says how many they were. Memory of a subscription: `size_max`
events.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from ..multiaddr import Multiaddr
    from .connectivity import NodeState
    from .contract import Direction
    from .peer_id import PeerId

EVENTS_MAX: Final = 256
"""Events that wait for a subscriber, unless it asks for another bound."""


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """A connection to the peer stands, and is the one that `connect` gives."""

    peer_id: PeerId
    direction: Direction
    address: Multiaddr


@dataclass(frozen=True, slots=True)
class PeerDisconnected:
    """The connection to the peer is over and no other took its place."""

    peer_id: PeerId
    cause: str
    """Empty after a goodbye of ours."""


@dataclass(frozen=True, slots=True)
class PeerConnectFailed:
    """Every attempt to reach the peer failed."""

    peer_id: PeerId
    cause: str


@dataclass(frozen=True, slots=True)
class InboundFailed:
    """Somebody dialled us and did not become a peer. Who it was is not proven."""

    address: Multiaddr
    cause: str


@dataclass(frozen=True, slots=True)
class PeerUpdated:
    """A connected peer told us that its addresses, features or protocols are others now."""

    peer_id: PeerId


@dataclass(frozen=True, slots=True)
class PeerBanned:
    """A peer was banned; its connection is being closed."""

    peer_id: PeerId
    reason: str
    until: float
    """Seconds since the epoch; infinity: for good."""


@dataclass(frozen=True, slots=True)
class NodeStateChanged:
    """We are online, or no more."""

    state: NodeState
    connections: int


@dataclass(frozen=True, slots=True)
class AddressChecked:
    """We dialled an address of our own."""

    address: Multiaddr
    latency_s: float | None
    """Until an echo came back; None: it leads to nobody, or to somebody else."""
    cause: str
    """What was wrong."""


@dataclass(frozen=True, slots=True)
class Lagged:
    """In the place of `count` events that this subscriber was too slow for."""

    count: int


PeerEvent: TypeAlias = (
    PeerConnected
    | PeerDisconnected
    | PeerConnectFailed
    | InboundFailed
    | PeerUpdated
    | PeerBanned
    | NodeStateChanged
    | AddressChecked
    | Lagged
)


class EventSubscription:
    """One subscriber's: `async for event in subscription`, which ends when the connections are closed. One task reads
    it; cancelling a wait loses nothing. Dropping it unsubscribes."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._waiting: deque[PeerEvent] = deque()
        self._missed = 0
        self._is_over = False
        self._wake = asyncio.Event()

    def put(self, event: PeerEvent) -> bool:
        """For the hub: keep an event. Returns False if another one had to go for it."""
        self._wake.set()
        self._waiting.append(event)
        if len(self._waiting) <= self._size_max:
            return True
        self._waiting.popleft()
        self._missed += 1
        return False

    def close(self) -> None:
        """Hear of nothing more; what waits can still be read."""
        self._is_over = True
        self._wake.set()

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._is_over

    def __aiter__(self) -> EventSubscription:
        return self

    async def __anext__(self) -> PeerEvent:
        while True:
            if self._missed:
                missed, self._missed = self._missed, 0
                return Lagged(missed)
            if self._waiting:
                return self._waiting.popleft()
            if self._is_over:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()


class EventHub:
    """Tells all subscribers. Never waits."""

    def __init__(self) -> None:
        self.missed = 0
        """Events that were dropped, all subscribers together."""
        self._subscriptions: weakref.WeakSet[EventSubscription] = weakref.WeakSet()
        self._is_over = False

    def subscribe(self, size_max: int = EVENTS_MAX) -> EventSubscription:
        """Hear of everything from now on.

        Raises:
            ValueError: `size_max` is below 1.
        """
        if size_max < 1:
            raise ValueError(f"room for {size_max} events, at least 1 is needed")
        subscription = EventSubscription(size_max)
        if self._is_over:
            subscription.close()
        self._subscriptions.add(subscription)
        return subscription

    def publish(self, event: PeerEvent) -> None:
        """Tell everybody."""
        for subscription in list(self._subscriptions):
            if subscription.is_closed:
                self._subscriptions.discard(subscription)
            elif not subscription.put(event):
                self.missed += 1

    def close(self) -> None:
        """End every subscription behind what waits in it."""
        self._is_over = True
        for subscription in list(self._subscriptions):
            subscription.close()
