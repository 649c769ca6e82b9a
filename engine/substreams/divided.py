"""A connection divided into substreams: moves bytes between a stream of the transport and a yamux session.

Between a connected `Stream` (of any transport, secured or not) and the readers and writers of substreams; who drives it
all is behind `Turns`: an asyncio loop (`connection`), or a worker of a party. The one invariant: whatever the session
has to send is on its way or in the kernel's hands before this process sleeps, and a peer that does not take it is not
read from beyond the session's bounds; so memory stays bounded both ways.

Per turn of the loop, however many substreams wrote: one flush, which is one `sendmsg` for each 256 KiB. Receiving is
one `recv_into` for up to 256 KiB, behind which each reader with something new is woken once, and a flush behind them
all, in the same turn: answers go out together, before anybody looks for what else has come.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from partywire.shm.blank_pages import blank_pages

from ..errors import HandshakeRejected, LinkProtocolError
from ..transport import VIEWS_MAX
from ..yamux.errors import SubstreamReset, SubstreamSessionOver
from ..yamux.events import Answered, GoingAway, Offered, Over, Readable, RoundTrip, SessionOver, WasReset, Writable
from ..yamux.session import YamuxSession
from .streams import SubstreamReader, SubstreamWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..transport import Stream
    from ..yamux.events import Event
    from ..yamux.limits import YamuxLimits
    from ..yamux.substream import Substream
    from .turns import Place, Timer, Turns

    OnSubstream = Callable[[SubstreamReader, SubstreamWriter], object]


class Woken(Protocol):
    """One half of a substream, or both, as its connection knows it."""

    def wake(self) -> None:
        """Something arrived, or there is room, or never will be any more. Called in the midst of things: act later."""


RECEIVE_SIZE: Final = 256 * 1024

WRITE_TIMEOUT_S: Final = 10.0
"""For the peer to take anything at all of what waits; a stalled connection is over."""

TIMER_EARLY_MAX_S: Final = 1.0
"""How much too early a timer may ring. Setting it anew costs less than a wake-up, and more than nothing."""

CLOSE_TIMEOUT_S: Final = 5.0
"""For substreams that are open when we say goodbye, and for the last bytes."""


class _Ping:
    """One that was sent, and who waits for its answer."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.seconds: float | None = None


class DividedStream:
    """Both ends are alike but for `is_client`, who dialled. Of one thread, from `start` to `is_over`."""

    def __init__(
        self,
        turns: Turns,
        stream: Stream,
        *,
        is_client: bool,
        on_substream: OnSubstream,
        peer: str = "",
        limits: YamuxLimits | None = None,
        write_timeout_s: float = WRITE_TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,  # a loop's own may have milliseconds only
    ) -> None:
        """Owns the stream. `on_substream` is called with each substream that the peer opens, and accepts it by doing
        anything but resetting it."""
        self.turns: Final = turns
        self.peer = peer
        self.is_over = False
        self.violation: LinkProtocolError | None = None
        """What the peer did that the protocol forbids, if that ended the connection."""
        self._stream = stream
        self._on_substream = on_substream
        self._clock = clock
        self._session = YamuxSession(is_client, clock, peer, limits)
        self._write_timeout_s = write_timeout_s
        self._ends: dict[Substream, tuple[Woken, Woken]] = {}
        self._closing: set[Substream] = set()  # whose input nobody wants any more
        self._waiting: list[Place] = []  # for room to open a substream, or for the end of those that are open
        self._pings: list[_Ping] = []
        self._scratch = blank_pages(RECEIVE_SIZE)
        self._unsent: list[memoryview] = []
        self._is_blocked = False  # the kernel takes no more for now
        self._is_reading = False
        self._is_flush_due = False
        self._timer: Timer | None = None
        self._timer_at = math.inf
        self._write_timer: Timer | None = None

    def was_ended(self, cause: str) -> None:
        """For who makes more of this class: called once, when it is over; `cause` is empty after a goodbye of ours."""

    def start(self, received: bytes = b"") -> None:
        """Begin; `received` came behind whatever was said on the stream before."""
        self._read_on()
        if received:
            self._take(memoryview(received))
        self._flush()

    def name_peer(self, peer: str) -> None:
        """From now on errors call the peer so: it has said who it is."""
        self.peer = self._session.peer = peer

    # For users.

    @property
    def substreams(self) -> int:
        """How many are open, or hold something that was not read."""
        return self._session.substreams

    @property
    def is_leaving(self) -> bool:
        """Whether either side opens no further substreams."""
        return self._session.is_leaving or self._session.is_peer_leaving

    async def open(self) -> tuple[SubstreamReader, SubstreamWriter]:
        """A new substream. It is announced with what is written first, or at the end of this turn of the loop.

        Waits while too many others wait for the peer's answer.

        Raises:
            SubstreamRefused: one of the sides is leaving, or all ids are used.
            SubstreamSessionOver: the connection is gone.
        """
        while not self._session.may_open:
            await self._wait_for_room()
        ends = self._add(self._session.open())
        self.flush_soon()
        return ends

    async def ping(self) -> float:
        """The round trip in seconds, through the peer's session.

        Raises:
            SubstreamSessionOver: no answer came in time, or the connection is gone.
        """
        self._session.ping()
        self.flush_soon()
        ping = _Ping(self.turns.make_place())
        self._pings.append(ping)
        try:
            while ping.seconds is None:
                if self.is_over:
                    raise SubstreamSessionOver(self.peer, self._session.cause)
                await ping.place.wait("ping the peer")
        finally:
            if ping in self._pings:
                self._pings.remove(ping)
        return ping.seconds

    async def aclose(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Say goodbye, let open substreams end for at most `timeout_s`, and close the stream."""
        if self.is_over:
            return
        if not self._session.is_leaving:
            self._session.go_away()
            self._flush()
        deadline = self.turns.time() + timeout_s
        while not self.is_over and (self._session.substreams or self._unsent):
            left_s = deadline - self.turns.time()
            if left_s <= 0:
                break
            try:
                await self._wait_for_room(left_s)
            except TimeoutError:
                break
        self._end("")

    async def _wait_for_room(self, timeout_s: float | None = None) -> None:
        """Until a substream was answered, or is over, or the connection is."""
        place = self.turns.make_place()
        self._waiting.append(place)
        try:
            await place.wait("use the connection", timeout_s)
        finally:
            self._waiting.remove(place)

    def _make_room(self) -> None:
        for place in self._waiting:
            place.wake()

    def leave(self) -> None:
        """Say goodbye and end at once; what is open is over for both sides."""
        if not self.is_over:
            if not self._session.is_leaving:
                self._session.go_away()
                self._flush()
            self._end("")

    def abort(self, cause: str) -> None:
        """End at once, without a goodbye; `cause`, which is not empty, is what our end hears of it."""
        self._end(cause)

    # For readers and writers.

    def flush_soon(self) -> None:
        """Something was written or read: send what follows from it at the end of this turn of the loop."""
        if not self._is_flush_due:
            self._is_flush_due = True
            self.turns.call_soon(self._flush_if_due)

    def was_read(self) -> None:
        """Something was read; there may be credit to give, or a substream at its end."""
        if not self._is_flush_due and self._session.has_news:
            self.flush_soon()

    def close(self, substream: Substream) -> None:
        """End our side of a substream, and drop what still comes on the other."""
        self._closing.add(substream)
        self.end_write(substream)
        self._drop_input(substream)

    def end_write(self, substream: Substream) -> None:
        """End our side of a substream. Nobody waits for an end that answers the peer's and has nothing before it."""
        if self.turns.is_patient and substream.is_at_end and not substream.send_size:
            substream.close_write(is_unhurried=True)
            self._set_timer()
        else:
            substream.close_write()
            self.flush_soon()

    def accept(self, substream: Substream) -> None:
        """Tell the peer that its substream is welcome, with what is sent next or a moment later."""
        substream.accept(is_unhurried=self.turns.is_patient)
        if self.turns.is_patient:
            self._set_timer()
        else:
            self.flush_soon()

    # Receiving.

    def _on_readable(self) -> None:
        try:
            count = self._stream.try_recv_into(self._scratch)
        except OSError as error:
            self._end((error.strerror or str(error)).lower())
            return
        except HandshakeRejected as error:  # a secured stream whose handshake shows only now that it was none
            self._end(error.detail)
            return
        if count == 0:
            self._take_end()
        elif count:
            self._take(self._scratch[:count])
            if self._session.has_news:
                self._flush()
            self.flush_soon()  # runs behind those who were woken, and finds what they wrote

    def _take_end(self) -> None:
        self._end("the peer ended the connection")

    def _take(self, data: memoryview) -> None:
        try:
            events = self._session.receive_untrusted(data)
        except LinkProtocolError as error:
            self.violation = error
            self._flush()  # GO_AWAY, as far as the kernel takes it
            self._end(str(error))
        except SubstreamSessionOver:
            pass
        else:
            self._meet(events)

    def _meet(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Readable(substream):
                    if substream in self._closing:
                        self._drop_input(substream)
                    elif substream in self._ends:
                        self._ends[substream][0].wake()
                case Writable(substream):
                    if substream in self._ends:
                        self._ends[substream][1].wake()
                case Offered(substream):
                    self._offer(substream)
                case WasReset(substream):
                    self._wake(substream)
                case Over(substream):
                    self._wake(substream)
                    self._ends.pop(substream, None)
                    self._closing.discard(substream)
                    self._make_room()
                case RoundTrip(seconds):
                    for ping in self._pings:
                        ping.seconds = seconds
                        ping.place.wake()
                    self._pings.clear()
                case SessionOver(cause):
                    self._end(cause)
                case Answered() | GoingAway():  # `open` finds room, or says that the peer is leaving
                    self._make_room()

    def _offer(self, substream: Substream) -> None:
        if not substream.is_reset:  # nobody is troubled for one that came and went in one piece of input
            self._on_substream(*self._add(substream))

    def _add(self, substream: Substream) -> tuple[SubstreamReader, SubstreamWriter]:
        ends = SubstreamReader(self, substream), SubstreamWriter(self, substream)
        self._ends[substream] = ends
        return ends

    def _drop_input(self, substream: Substream) -> None:
        try:
            while substream.read(RECEIVE_SIZE):
                pass
        except (SubstreamReset, SubstreamSessionOver):
            pass  # then nothing more comes

    def _wake(self, substream: Substream) -> None:
        if substream in self._ends:
            reader, writer = self._ends[substream]
            reader.wake()
            writer.wake()

    # Sending.

    def _flush_if_due(self) -> None:
        self._is_flush_due = False
        if self._session.has_news:
            self._flush()

    def _flush(self) -> None:
        """Send as much as the kernel takes."""
        self._is_flush_due = False
        try:
            while not self._is_blocked and (self._unsent or self._session.has_something_to_send):
                if not self._unsent:
                    self._unsent = [memoryview(part) for part in self._session.take_output()]
                self._send_unsent()
        except OSError as error:
            self._end((error.strerror or str(error)).lower())
            return
        if self._session.has_news:
            self._meet(self._session.take_events())
            if self.is_over:
                return
        self._make_room()
        self._set_timer()
        if self._may_read != self._is_reading:
            self._read_on()

    def _send_unsent(self) -> None:
        unsent = self._unsent
        while unsent:
            sent = self._stream.try_send(unsent[:VIEWS_MAX])
            if sent is None:
                self._block()
                return
            while sent:
                if len(unsent[0]) > sent:
                    unsent[0] = unsent[0][sent:]
                    break
                sent -= len(unsent.pop(0))

    def _block(self) -> None:
        self._is_blocked = True
        self._stream.on_writable(self._unblock)
        if self._write_timeout_s < math.inf:
            cause = f"the peer took nothing for {self._write_timeout_s:g} s"
            self._write_timer = self.turns.call_later(self._write_timeout_s, self._end, cause)

    def _unblock(self) -> None:
        self._is_blocked = False
        self._stream.on_writable(None)
        if self._write_timer is not None:
            self._write_timer.cancel()
        self._flush()

    @property
    def _may_read(self) -> bool:
        return self._session.may_receive

    def _read_on(self) -> None:
        """Read, unless what the peer makes us answer is not taken."""
        self._is_reading = self._may_read
        self._stream.on_readable(self._on_readable if self._is_reading else None)

    # Time.

    def _set_timer(self) -> None:
        deadline = self._session.deadline
        if self._timer is None or not 0.0 <= deadline - self._timer_at <= TIMER_EARLY_MAX_S:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None
            self._timer_at = deadline
            if deadline < math.inf:
                self._timer = self.turns.call_later(max(deadline - self._clock(), 0), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        self._meet(self._session.tick())
        self._flush()

    # Ending.

    def _end(self, cause: str) -> None:
        if self.is_over:
            return
        self.is_over = True
        for timer in (self._timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        self._session.connection_ended(cause or "we closed the connection")
        if cause:
            self._stream.abort()
        else:
            with suppress(OSError):  # it is broken, and nobody has noticed yet
                self._stream.shutdown_write()  # a secured stream tells its end from a cut
            self._stream.close()
        self._unsent.clear()
        for substream in list(self._ends):
            self._wake(substream)
        self._ends.clear()
        for ping in self._pings:
            ping.place.wake()
        self._make_room()
        self.was_ended(cause)
