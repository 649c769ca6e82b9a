"""How a link ends: the goodbyes of a party that closes, what was lost, and what every lane is told of it.

A part of `multiplexer`, which serves the link until then. The one invariant: `_outcome` is set once, and `on_end` is
called once, when every lane was told it behind everything that arrived, or when nobody waits for that: workers are
gone, or the party closes. From then on nothing of the link is registered in the event loop.

Closing (docs/wire.md, Goodbye): when every lane is finished and written, GOODBYE goes out on the control connection and
every stream is shut down; the peer delivers everything, says goodbye itself, and shuts down in turn. End of file on all
streams then means that both sides have everything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from partywire.shm.errors import ShmError

from . import records
from .frames import encode_goodbye
from .link import LinkState
from .pump_states import Incoming
from .records import StreamEnd

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from partywire.shm.doorbell import Doorbell

    from .connection_pump import ConnectionPump
    from .control_connection import ControlConnection
    from .control_lane import ControlLane
    from .link import Link

LINGER_LOOK_S: Final = 0.01
"""Between two looks whether the end of a secured stream has found room; it gives up by itself (CLOSE_TIMEOUT_S)."""


class EndsLink:
    """For `Multiplexer`, whose fields these are."""

    if TYPE_CHECKING:
        _loop: asyncio.AbstractEventLoop
        _link: Link
        _peer: str
        _lane: ControlLane
        _doorbell: Doorbell
        _control: ControlConnection
        _served: list[ConnectionPump]
        _broken: set[int]
        _on_end: Callable[[bool, str], object]
        _close_timeout_s: float
        _mending: asyncio.TimerHandle | None
        _timer: asyncio.TimerHandle | None
        _outcome: StreamEnd | None
        _is_over: bool
        _closing_mark: int
        _closing_timer: asyncio.TimerHandle | None

        def facts_came(self) -> None: ...

        def _leave_neighbours(self) -> None: ...

    # Closing.

    def begin_close(self) -> None:
        """The party closes: give up once nothing moved for the close timeout. Their owners finish the lanes."""
        if self._outcome is not None:
            self._finish()  # nobody waits for what the lanes would be told
        elif self._closing_timer is None:
            self._watch_progress()

    def _watch_progress(self) -> None:
        moved = sum(pump.bytes_moved for pump in self._served)
        if moved == self._closing_mark and not self._link.goodbye_sent:
            self._lose(f"the link to {self._peer} could not be closed: nothing moved for {self._close_timeout_s:g} s")
            self._finish()
            return
        self._closing_mark = moved
        self._closing_timer = self._loop.call_later(self._close_timeout_s, self._watch_progress)

    def _may_say_goodbye(self) -> bool:
        return self._link.state in (LinkState.UP, LinkState.PEER_CLOSING) and self._outcome is None

    def _say_goodbye_when_due(self) -> None:
        """Say goodbye once every lane is finished, or once everything of a peer that said goodbye was delivered."""
        if not self._may_say_goodbye():
            return
        link = self._link
        finished = self._lane.is_finished and all(pump.is_finished for pump in self._served)
        delivered = link.goodbye_received and all(pump.incoming is not Incoming.OPEN for pump in self._served)
        if not finished and not delivered:
            return
        if self._lane.is_finished:
            for pump in self._served:
                pump.discard_when_full()
            if not self._may_say_goodbye():
                return  # behind what a full ring held up stood the end of a stream, which led here before us
        self._control.put(encode_goodbye())
        link.goodbye_said(self._loop.time())
        # Before any stream ends: the peer takes an end of file for a loss if no goodbye comes soon.
        self._control.send()
        self._shut_down_pumps()
        self._tell_link_of_broken()
        self.facts_came()

    def _shut_down_pumps(self) -> None:
        if self._outcome is not None:
            return  # the control connection broke under our goodbye
        for pump in self._served:
            if pump.connection not in self._broken:
                pump.break_outgoing()  # the peer reads nothing more, if we only answer its goodbye
                pump.shutdown_write()

    def _tell_link_of_broken(self) -> None:
        """Once goodbyes are said, a connection that broke earlier counts as ended."""
        for connection in self._broken:
            self._link.stream_ended(self._loop.time(), connection)

    @property
    def _farewell(self) -> str:
        return f"{self._peer} said goodbye"

    # The link is lost, or closed.

    def lose(self, cause: str) -> None:
        """Give the link up for a reason of our own."""
        self._lose(cause)

    def _lose(self, cause: str) -> None:
        self._link.lost(cause)
        self.facts_came()

    def _end(self, outcome: StreamEnd, *, abort: bool) -> None:
        """The link is over: deliver what came, tell every lane, and end when all know."""
        if self._outcome is not None:
            return
        self._outcome = outcome
        for pump in self._served:
            try:
                self._end_pump(pump, outcome, abort=abort)
            except ShmError:
                pump.give_up()
        self._control.end(abort=abort)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            self._lane.put(records.STREAM_END, records.encode_stream_end(outcome))
        except ShmError:
            self._lane.give_up()
        self._end_when_told()

    def _end_pump(self, pump: ConnectionPump, outcome: StreamEnd, *, abort: bool) -> None:
        if abort:
            pump.receive_rest()
        pump.tell(outcome)
        if pump.connection in self._broken:
            return
        if abort:
            pump.abort()
        else:
            pump.break_outgoing()  # what workers of this party still write has no reader
            pump.close_stream()

    def _end_when_told(self) -> None:
        if self._outcome is None or self._is_over:
            return
        if self._lane.is_flushed and all(pump.incoming is Incoming.TOLD for pump in self._served):
            self._finish()
        elif self._lane.is_finished and all(pump.is_finished for pump in self._served):
            self._finish()  # every worker has closed its lanes; nobody will read what is left to tell

    def _finish(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._leave_neighbours()
        self._loop.remove_reader(self._doorbell.fileno())
        for timer in (self._closing_timer, self._timer, self._mending):
            if timer is not None:
                timer.cancel()
        self._loop.call_soon(self._tell_end, self._outcome or StreamEnd(False, "ended before its time"))

    def _tell_end(self, outcome: StreamEnd) -> None:
        """Behind this the process may end, so a clean end waits until closed streams have told the peer that they are.
        One that took too long has waited enough."""
        if outcome.clean and (self._control.is_lingering or any(pump.is_lingering for pump in self._served)):
            self._loop.call_later(LINGER_LOOK_S, self._tell_end, outcome)
        else:
            self._on_end(outcome.clean, outcome.cause)
