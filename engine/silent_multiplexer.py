"""The multiplexer of a link without a control connection.

Between the workers' rings and the sockets of such a link. The one invariant: its connections have one fate. One that
breaks loses the link, and the end of our own side is the end of our half of each stream, without a word.

Everything else, and every batch, is the Multiplexer's: it gets a control connection that never brings a byte and takes
every one. The opener's control lane stays, because the opener says on it that the party closes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import limits
from .multiplexer import Multiplexer
from .transport import Buffer, Stream

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from partywire.shm.doorbell import Doorbell

    from .connection_pump import ConnectionPump
    from .control_lane import ControlLane
    from .polling_in_core import PollsInCore
    from .silent_link import SilentLink


class NoStream(Stream):
    """What stands in the place of a control connection."""

    @property
    def peer_address(self) -> str:
        return "nowhere"

    def try_send(self, views: Sequence[Buffer]) -> int | None:
        return sum(len(view) for view in views)

    def try_recv_into(self, view: memoryview) -> int | None:
        return None

    def shutdown_write(self) -> None:
        """Nothing to shut down."""

    def on_readable(self, callback: Callable[[], object] | None) -> None:
        """It never is."""

    def on_writable(self, callback: Callable[[], object] | None) -> None:
        """It always is, so nobody has to wait."""

    def close(self) -> None:
        """Nothing to close."""

    def abort(self) -> None:
        """Nothing to break."""


class SilentMultiplexer(Multiplexer):
    """Serves one such link. Driven like a Multiplexer."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: SilentLink,
        peer: str,
        control_lane: ControlLane,
        doorbell: Doorbell,
        *,
        on_up: Callable[[], object],
        on_end: Callable[[bool, str], object],
        close_timeout_s: float = limits.CLOSE_TIMEOUT_S,
        neighbours: list[PollsInCore] | None = None,
    ) -> None:
        super().__init__(
            loop,
            link,
            peer,
            NoStream(),
            control_lane,
            doorbell,
            on_up=on_up,
            on_end=on_end,
            close_timeout_s=close_timeout_s,
            neighbours=neighbours,
        )
        self._silent_link = link
        self._peer_name = peer

    def pump_failed(self, pump: ConnectionPump, cause: str) -> None:
        """One connection broke: the others are of no use without it, unless we are closing anyway."""
        if self._silent_link.is_dead:
            return
        if self._silent_link.goodbye_sent:
            super().pump_failed(pump, cause)
        else:
            self.lose(f"connection {pump.connection} to {self._peer_name} broke: {cause}")
