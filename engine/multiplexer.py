"""The multiplexer: everything an I/O process does while its link stands.

Between the workers' rings and the sockets of one link, and between the opener's control lane and the control
connection. The one invariant: whatever happens, every lane gets everything that arrived before the end and then exactly
one STREAM_END, and the link machine (`link.Link`) alone decides what kind of end it was.

What one batch costs, in system calls of this process (k frames, published by a worker in one pass):

    outgoing   1 epoll return (the bell), 1 eventfd read, 1 sendmsg for all k, 1 membarrier before it sleeps again
    incoming   1 epoll return, 1 recv_into for all k, 1 eventfd write if the worker sleeps

so 7 system calls and one wake-up at each end for k frames, whatever k is, and less while both sides are busy: an
awake worker is not rung, and this process is rung once per sleep of its own. After work it may look again for some
microseconds before it sleeps, in turns of its event loop so that sockets are looked at too; `polling` says when that
is worth it.

The doorbell protocol: the bell of this process stands in its event loop. When it rings, all rings are served until
they are empty; then the ticket is armed, every source is looked at once more, and only if all are empty does the
process go back to its event loop. Sockets have no such race: the kernel remembers them.

How a link ends, by goodbyes or by a loss, is in `link_end`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from partywire.shm.errors import ShmError

from . import limits, records
from .breakage import Breakage
from .control_connection import ControlConnection
from .frames import LINK_SESSION, Descriptor, encode_frame, encode_ping
from .link_end import EndsLink
from .link_events import LinkClosed, LinkLost, LinkUp, PeerSaidGoodbye, PingDue
from .polling import Polling
from .polling_in_core import PollsInCore
from .pump_states import Incoming
from .records import StreamEnd

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from partywire.shm.doorbell import Doorbell

    from .connection_pump import ConnectionPump
    from .control_lane import ControlLane
    from .link import Link
    from .transport import Stream

MEND_S: Final = 60.0
"""How long a link goes on without a connection that broke twice, each time soon after the link came up, before it is
made anew. Arbitrary: a peer whose worker stays away breaks it again each time, and its other workers' sessions end with
it; that a network only flapped is not held against the peer for longer."""

PASSES_MAX: Final = 8
"""Passes over all rings in one callback, so that sockets have their turn while workers send without a pause."""


class Multiplexer(PollsInCore, EndsLink):
    """Serves one link from its greeting to its end. Driven by sockets, the doorbell, and `link`'s deadlines.

    After the end (`on_end` was called) nothing of it is registered anywhere; then `close` gives everything back.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: Link,
        peer: str,
        control_stream: Stream,
        control_lane: ControlLane,
        doorbell: Doorbell,
        *,
        on_up: Callable[[], object],
        on_end: Callable[[bool, str], object],
        close_timeout_s: float = limits.CLOSE_TIMEOUT_S,
        neighbours: list[PollsInCore] | None = None,
        brittle: frozenset[int] = frozenset(),
    ) -> None:
        """`link` is in ATTACHING. Owns the stream and the lane, not the doorbell. `on_end` gets (clean, cause).

        `brittle`: connections that broke soon in the epoch before. One that does again breaks alone: its lane ends, and
        the others go on.

        `neighbours`: all multiplexers of this process, each with a doorbell of its own, from their start to their end.
        Where they are several, none looks in vain inside a call unless that moves the bytes of all.
        """
        self._loop = loop
        self._link = link
        self._peer = peer
        self._lane = control_lane
        self._doorbell = doorbell
        self._on_up = on_up
        self._on_end = on_end
        self._close_timeout_s = close_timeout_s
        self._neighbours = neighbours if neighbours is not None else []
        self._control = ControlConnection(loop, link, peer, control_stream, control_lane, self)
        self._pumps: dict[int, ConnectionPump] = {}
        self._served: list[ConnectionPump] = []  # the same, for the hot path, those of bulk connections last
        self._bulk: list[ConnectionPump] = []  # these alone
        self._breakage = Breakage(brittle)
        self._broken = self._breakage.connections
        self._mending: asyncio.TimerHandle | None = None  # set while the link goes on without a connection
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0  # when it fires; uvloop's handle for a time in the past does not know
        self._will_serve = False  # whether the rings are served again in the loop's next turn: not asleep, not armed
        self._polling = Polling()
        self._moved = 0  # bytes of all connections up to the last poll
        self._outcome: StreamEnd | None = None  # set when the link is over and lanes are being told
        self._is_over = False
        # While closing: bytes moved when the progress was looked at last, and when that is looked at again.
        self._closing_mark = -1
        self._closing_timer: asyncio.TimerHandle | None = None

    # Coming up.

    def start(self, received: bytes = b"") -> None:
        """Serve the control connection; `received` came behind its handshake. Streams are added as they attach."""
        self._join_neighbours()
        self._loop.add_reader(self._doorbell.fileno(), self._on_doorbell)
        self._serve_soon()  # arms the doorbell for the first time
        self._control.start(received)
        self.facts_came()

    def add(self, pump: ConnectionPump, received: bytes = b"") -> None:
        """A normal connection is attached. Its bytes flow from now on."""
        self._pumps[pump.connection] = pump
        self._served = list(self._pumps.values())
        self._link.attached(self._loop.time(), pump.connection)
        pump.start(received, self._poll_after_receive)
        self.facts_came()

    def add_bulk(self, pump: ConnectionPump, received: bytes = b"") -> None:
        """A bulk connection is attached while the link stands, at its dialler perhaps behind a goodbye."""
        self._pumps[pump.connection] = pump
        self._bulk.append(pump)
        self._served.append(pump)
        self._link.bulk_attached(pump.connection)
        pump.start(received, self._poll_after_receive)
        if self._link.goodbye_sent:
            pump.discard_when_full()
            pump.break_outgoing()
            pump.shutdown_write()
        self.facts_came()
        self._serve_soon()  # its bell may have been rung already

    # The doorbell.

    def _on_doorbell(self) -> None:
        """Serve all rings, then sleep with the ticket armed, or come back at once if there is more than one turn's."""
        self._doorbell.disarm()
        self._doorbell.drain()
        self._serve_until_empty()

    def _serve_until_empty(self) -> None:
        """Serve all rings while disarmed; then poll, sleep, or give sockets their turn."""
        doorbell = self._doorbell
        for _ in range(PASSES_MAX):
            if self._serve_rings():
                self._polling.found()
            if self._is_over:
                return
            if self._polling.look_again():
                self._serve_soon()
                self._pump_for_a_moment()
                return
            doorbell.arm()
            if not self._has_ring_work():
                return
            doorbell.disarm()
        self._serve_soon()

    def _poll_after_receive(self) -> None:
        """Bytes came: what a worker answers may come at once, so look for it as after a bell."""
        if self._will_serve:
            self._polling.found()
        elif self._polling.look_again():
            self._doorbell.disarm()
            self._serve_soon()

    def _serve_soon(self) -> None:
        """Serve the rings in the next turn of the loop: once, however often this was asked for."""
        if not self._will_serve:
            self._will_serve = True
            self._loop.call_soon(self._serve_again)

    def _serve_again(self) -> None:
        self._will_serve = False
        if not self._is_over:
            self._doorbell.disarm()
            self._serve_until_empty()

    def _serve_rings(self) -> bool:
        """One pass over all rings; whether any of them had something to send."""
        has_sent = False
        for pump in self._served:
            try:
                if pump.serve_ring():
                    has_sent = True
                if pump.wants_space:
                    pump.fill_ring()
            except ShmError as error:
                self.ring_broke(pump, error)
        if self._control_lane_has_work() or not self._lane.is_flushed:
            self._serve_control_lane()
        return has_sent

    def _has_ring_work(self) -> bool:
        for pump in self._served:  # hot: any() would make a generator each time
            if pump.has_work:
                return True
        return self._control_lane_has_work()

    # The control lane.

    def _control_lane_has_work(self) -> bool:
        lane = self._lane
        return not (lane.is_finished or lane.tx.is_empty()) and self._control.may_take_more

    def _serve_control_lane(self) -> None:
        try:
            self._pass_control_messages()
        except ShmError as error:
            self.ring_broke(self._lane, error)

    def _pass_control_messages(self) -> None:
        lane = self._lane
        if not lane.is_flushed:
            lane.flush()
            if self._outcome is not None:
                self._end_when_told()
        while self._control_lane_has_work() and (polled := lane.tx.poll(16)):
            for record in polled:
                if record.kind == records.FINISH:
                    lane.is_finished = True
                    break
                if self._outcome is None and not self._link.goodbye_sent:
                    self._control.put(encode_frame(LINK_SESSION, Descriptor.CONTROL, record.payload))
            lane.tx.release_all()
            self._control.send()
            if lane.is_finished:
                self._say_goodbye_when_due()

    def control_has_room(self) -> None:
        """As ControlOwner."""
        if not self._is_over:
            self._serve_control_lane()

    # What pumps say.

    def pump_ended(self, pump: ConnectionPump) -> None:
        """End of file: clean if the goodbye came already, else the link decides within its grace time."""
        if self._link.is_dead:
            return
        if self._link.goodbye_received:
            pump.tell(StreamEnd(True, self._farewell))
        self._link.stream_ended(self._loop.time(), pump.connection)
        self.facts_came()

    def pump_failed(self, pump: ConnectionPump, cause: str) -> None:
        """One connection broke: the link is lost, to be made anew with all of them. Our own worker that died for good,
        and what breaks again at once, ends its lane alone, as long as there are others."""
        if self._link.is_dead or pump.connection in self._broken:
            return
        self._broken.add(pump.connection)
        pump.abort()
        broke = f"{self._link.name_of(pump.connection)} to {self._peer} broke: {cause}"
        pump.tell(StreamEnd(False, broke))
        if self._link.goodbye_received or self._link.goodbye_sent:
            self._link.stream_ended(self._loop.time(), pump.connection)
        elif len(self._broken) == self._link.streams or not self._breaks_alone(pump):
            self._link.lost(broke)
        elif self._mending is None and not pump.is_orphaned:
            self._mending = self._loop.call_later(MEND_S, self._lose, broke)
        self.facts_came()

    def _breaks_alone(self, pump: ConnectionPump) -> bool:
        return pump.is_orphaned or self._breakage.breaks_alone(pump.connection, self._loop.time())

    @property
    def broken_early(self) -> frozenset[int]:
        """Connections that broke soon after the link came up."""
        return frozenset(self._breakage.early)

    def pump_finished(self, pump: ConnectionPump) -> None:
        """A worker has finished its lane."""
        if pump.peer_has_erred:
            self._link.peer_has_erred()
        self._say_goodbye_when_due()

    def pump_told(self, pump: ConnectionPump) -> None:
        """A lane has its STREAM_END."""
        if self._outcome is not None:
            self._end_when_told()

    def pump_has_more(self, pump: ConnectionPump) -> None:
        """A ring that was blocked holds more than one turn's worth."""
        self._serve_soon()

    def ring_broke(self, end: ConnectionPump | ControlLane, error: ShmError) -> None:
        """A worker wrote nonsense into a ring: its process is broken, and so is the party."""
        self._lose(f"a ring of our own workers is broken: {error}")
        end.give_up()
        self._end_when_told()

    # What becomes of workers.

    def drop_worker(self, index: int, workers: int) -> None:
        """A worker died: its connections break at the peer, its lanes count as finished."""
        for pump in list(self._served):
            if pump.connection % workers == index:
                try:
                    pump.orphan()
                except ShmError as error:
                    self.ring_broke(pump, error)
        if not self._is_over:
            self._say_goodbye_when_due()

    def forsake(self, worker: int, workers: int, cause: str) -> None:
        """Lose the link because a worker reads and writes its rings no more, so that nothing can be told there."""
        self._lose(cause)
        for pump in self._served:
            if pump.connection % workers == worker:
                pump.give_up()
        if worker == 0:
            self._lane.give_up()
        self._end_when_told()

    # What the link decides.

    def facts_came(self) -> None:
        """Act on what the link makes of the facts, then set the timer to its next deadline."""
        while not self._is_over and (event := self._link.next_event()) is not None:
            if isinstance(event, LinkUp):
                self._breakage.link_is_up(self._loop.time())
                self._on_up()
            elif isinstance(event, PingDue):
                self._control.put(encode_ping(event.token))
                self._control.send()
            elif isinstance(event, PeerSaidGoodbye):
                self._tell_link_of_broken()
                for pump in self._served:
                    if pump.incoming is Incoming.ENDED:
                        pump.tell(StreamEnd(True, self._farewell))
            elif isinstance(event, LinkLost):
                self._end(StreamEnd(False, event.cause), abort=True)
            elif isinstance(event, LinkClosed):
                # Not aborted even when the peer was too slow: the kernel goes on delivering what was sent.
                self._end(StreamEnd(event.clean, event.cause or self._farewell), abort=False)
        if self._is_over or self._outcome is not None:
            return
        self._say_goodbye_when_due()
        self._set_timer()

    def _set_timer(self) -> None:
        deadline = self._link.next_deadline()
        if self._timer is not None:
            if deadline is not None and self._timer_at <= deadline:
                return  # it fires early and looks again; heartbeats move the deadline with every byte
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer = self._loop.call_at(deadline, self._on_timer)
            self._timer_at = deadline

    def _on_timer(self) -> None:
        self._timer = None
        if self._control.is_open:
            # What arrived while this process was stopped, or starved, counts before its lateness does.
            self._control.receive()
        if self._outcome is None and not self._is_over:
            self._link.tick(self._loop.time())
            self.facts_came()

    def ask_for_sign_of_life(self) -> None:
        """Send a ping, unless one is under way; what comes moves `link.last_heard`."""
        if self._outcome is None and not self._is_over:
            self._link.ping_soon(now := self._loop.time())
            self._link.tick(now)
            self.facts_came()

    def close(self) -> None:
        """Close every socket and ring. What is in the rings stays readable for the workers."""
        self._finish()
        self._control.close()
        for pump in self._served:
            pump.close()
        self._lane.close()
