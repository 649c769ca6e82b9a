"""Drives one end of the rings between the HTTP front and its worker on an asyncio loop: both ends are driven alike.

Between the loop and an HttpLane. The one invariant: while there is a lane, either a turn of the pump is due or the
doorbell is armed and both rings were looked at after that; so nothing that the other side publishes is left lying.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from partywire.shm.errors import ShmError

from .http_lane import HttpLane
from .http_records import HttpRecordError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Sequence

    from partywire.shm.doorbell import Doorbell
    from partywire.shm.fence import Fence

SLEEP_MAX_S: Final = 1.0
"""A net under the doorbell, as every process of a party has one: no sleep is longer."""


class LanePump:
    """Driven by its loop. One lane at a time; none between the death of the other side and its successor."""

    def __init__(
        self,
        doorbell: Doorbell,
        order: Fence,
        take: Callable[[int, memoryview], None],
        fail: Callable[[str], None],
    ) -> None:
        """`take` gets each record, lent for the call. `fail` is told when what the other side wrote cannot be believed;
        whoever is told should end. The doorbell stays the caller's."""
        self._doorbell = doorbell
        self._fence = order
        self._take = take
        self._fail = fail
        self._lane: HttpLane | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # from start to stop
        self._is_scheduled = False
        self._net: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch the doorbell in this loop."""
        self._loop = loop
        loop.add_reader(self._doorbell.fileno(), self._wake)

    def stop(self) -> None:
        """Leave the loop and the lane."""
        assert self._loop is not None
        self._loop.remove_reader(self._doorbell.fileno())
        self.drop()
        self._loop = None

    @property
    def is_open(self) -> bool:
        """Whether there is another side."""
        return self._lane is not None

    def open(self, fds: Sequence[int]) -> None:
        """Go on with these rings, which belong to the pump from here on. What was held for older ones is forgotten.

        Raises:
            ShmError: they cannot be used.
        """
        self.drop()
        self._lane = HttpLane(fds, self._fence)
        self._schedule()
        self._look_again()

    def drop(self) -> None:
        """The other side is gone. Nothing is sent or taken until `open`."""
        lane, self._lane = self._lane, None
        if lane is not None:
            lane.close()
        if self._net is not None:
            self._net.cancel()
            self._net = None

    def send(self, records: Iterator[tuple[int, Sequence[bytes | memoryview]]]) -> None:
        """Send one message, together with whatever else this turn of the loop sends. Without a lane it is dropped."""
        if self._lane is not None:
            self._lane.send(records)
            self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled and self._loop is not None:
            self._is_scheduled = True
            self._loop.call_soon(self._pump)

    def _wake(self) -> None:
        self._doorbell.drain()
        self._schedule()

    def _look_again(self) -> None:
        self._schedule()
        if self._loop is not None:
            self._net = self._loop.call_later(SLEEP_MAX_S, self._look_again)

    def _pump(self) -> None:
        self._is_scheduled = False
        lane = self._lane
        if lane is None:
            return
        self._doorbell.disarm()
        try:
            lane.flush()
            if lane.receive(self._take):
                self._schedule()
                return
            self._doorbell.arm()
            if not lane.may_sleep():
                self._schedule()
        except (ShmError, HttpRecordError) as error:
            self.drop()
            self._fail(str(error))
