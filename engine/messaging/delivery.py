"""What became of one message: queued, written, acknowledged, or failed; never more than is known."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING

from .errors import MessageNotDelivered

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..peers.peer_id import PeerId


class DeliveryState(Enum):
    """How far a message is known to have come."""

    QUEUED = "queued"  # in our memory
    WRITTEN = "written"  # given to a connection that stood; the peer may have it
    ACKNOWLEDGED = "acknowledged"  # what receives messages at the peer has it
    FAILED = "failed"  # given up, or refused


class Delivery:
    """One message on its way. Waiting is optional, and cancelling a wait changes nothing."""

    def __init__(self, peer_id: PeerId, message_id: bytes) -> None:
        self.peer_id = peer_id
        self.message_id = message_id
        self.state = DeliveryState.QUEUED
        self.was_written = False
        """Whether it ever was; a message of a lost connection is queued again."""
        self.error: MessageNotDelivered | None = None
        self._changed: asyncio.Event | None = None  # while somebody waits

    def __repr__(self) -> str:
        return f"<Delivery to {self.peer_id}, {self.state.value}>"

    async def written(self) -> None:
        """Wait until a connection took the message.

        Raises:
            MessageNotDelivered: it was given up, or refused.
        """
        await self._wait(lambda: self.was_written)

    async def acknowledged(self) -> None:
        """Wait until what receives messages at the peer has it.

        Raises:
            MessageNotDelivered: it was given up, or refused.
        """
        await self._wait(lambda: self.state is DeliveryState.ACKNOWLEDGED)

    def become(self, state: DeliveryState) -> None:
        """For the outbox."""
        if self.state not in (DeliveryState.ACKNOWLEDGED, DeliveryState.FAILED):
            self.state = state
            self.was_written = self.was_written or state is not DeliveryState.QUEUED
            self._wake()

    def fail(self, cause: str, may_have_arrived: bool) -> None:
        """For the outbox."""
        if self.state not in (DeliveryState.ACKNOWLEDGED, DeliveryState.FAILED):
            self.state = DeliveryState.FAILED
            self.error = MessageNotDelivered(str(self.peer_id), cause, may_have_arrived)
            self._wake()

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def _wait(self, is_reached: Callable[[], bool]) -> None:
        while not is_reached():
            if self.error is not None:
                raise self.error
            if self._changed is None:
                self._changed = asyncio.Event()
            await self._changed.wait()
