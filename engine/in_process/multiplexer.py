"""A multiplexer whose rings have both ends in this process.

Between the worker and the sockets of one link, like any. What the worker publishes at the end of a pass is fetched by a
call (`serve`), for which nobody is rung. The one invariant: at all other times the doorbell is armed, so that what is
published elsewhere (a piece of a large message), or room that was made, is met with in a turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from partywire.shm.errors import ShmError

from ..link_keeper import LinkKeeper
from ..multiplexer import Multiplexer

if TYPE_CHECKING:
    from ..pump_states import JoinedLane


class InProcessMultiplexer(Multiplexer):
    """Driven by its sockets and timers, and by its owner's `serve` in the place of a doorbell."""

    def hold(self) -> None:
        """The worker publishes; `serve` follows."""
        if not self._is_over:  # then the doorbell may be closed
            self._doorbell.disarm()

    def serve(self) -> None:
        """One pass over the rings of connections. Never waits. What is left then has its turn after others."""
        # Hot: behind every pass of the worker that sent something. It writes no control lane there.
        if self._is_over:
            return
        for pump in self._served:
            try:
                pump.serve_ring()
                if pump.wants_space:
                    pump.fill_ring()
            except ShmError as error:
                self.ring_broke(pump, error)
        self._rest()

    def join(self, connection: int, epoch: int, lane: JoinedLane) -> bool:
        """Have a pump and its lane pass bytes by their rings. False: the pump is not there yet."""
        pump = self._pumps.get(connection)
        if pump is None or pump.epoch != epoch:
            return False
        pump.join(lane)
        return True

    @property
    def joined_fds(self) -> set[int]:
        """See `ConnectionPump.joined_fd`."""
        return {pump.joined_fd for pump in self._served}

    def break_off(self, cause: str) -> None:
        """Lose the link behind an interrupt, which may have left a ring amid a record: it takes nothing more."""
        for pump in self._served:
            pump.give_up()
        self.forsake(0, 1, cause)

    def _serve_until_empty(self) -> None:
        """One pass over all rings."""
        self._serve_rings()
        self._rest()

    def _rest(self) -> None:
        if not self._is_over:
            self._doorbell.arm()
            if self._has_ring_work():
                self._serve_soon()

    def _poll_after_receive(self) -> None:
        """The worker looks by itself, behind each turn."""


class InProcessKeeper(LinkKeeper):
    """Keeps one link in the process of its worker."""

    multiplexer_type = InProcessMultiplexer

    @property
    def peer(self) -> int:
        """The index of the party at the other end."""
        return self._peer.index

    @property
    def multiplexer(self) -> InProcessMultiplexer | None:
        """Of the present attempt, from its greeting to its end."""
        multiplexer = None if self._attempt is None else self._attempt.multiplexer
        return multiplexer if isinstance(multiplexer, InProcessMultiplexer) else None
