"""The yamux session: which substreams there are, and every frame in and out, without I/O.

Between an owner, who has a connection and a clock, and the users of substreams. The owner gives in what it received
(`receive_untrusted`), sends what `take_output` gives, calls `tick` at `deadline`, and passes on the events that these
return. Everything else (open, write, read ...) only changes state; whoever did it asks for output afterwards.

The one invariant: whatever the peer sends, memory stays within `YamuxLimits`; every size is checked on the header,
before anything of the body is looked at. A violation ends the session with GO_AWAY and LinkProtocolError; after that,
as after the end of the connection, every substream fails, and what had arrived in order can still be read.

Fairness: substreams with something to send have turns of one frame of at most 64 KiB, so a large one delays a small one
by one frame for each large one. Whatever was written between two turns travels in one frame.

Where implementations differ: a stray frame of a substream that is not known is ignored, since it may be late; SYN for a
known one, of the wrong parity, or for 0, ends the session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..errors import LinkProtocolError
from . import frames
from .errors import SubstreamRefused, SubstreamSessionOver
from .events import Answered, GoingAway, Offered, Over, Readable, RoundTrip, SessionOver, WasReset, Writable
from .frames import (
    ACK,
    DATA,
    DATA_SIZE_MAX,
    FIN,
    GO_AWAY,
    HEADER,
    HEADER_SIZE,
    LENGTH_MAX,
    PING,
    RST,
    STREAM_ID_MAX,
    SYN,
    WINDOW_SIZE,
    WINDOW_UPDATE,
    GoAwayCode,
    encode_header,
)
from .limits import YamuxLimits
from .outgoing import Outgoing
from .overdue import Overdue
from .pings import Pings
from .substream import Substream
from .window_growth import WindowGrowth

if TYPE_CHECKING:
    from collections.abc import Callable

    from .events import Event
    from .substream import Buffer

OUTPUT_SIZE: Final = 256 * 1024
"""What one `take_output` gives, about."""

JOINED_SIZE_MAX: Final = 16 * 1024
"""A frame below this is one piece of output: copying it is cheaper than a vector of pieces."""


class YamuxSession:
    """One end. `clock` gives seconds that never go back."""

    def __init__(
        self, is_client: bool, clock: Callable[[], float], peer: str = "", limits: YamuxLimits | None = None
    ) -> None:
        """The client is who dialled. `peer` is a name for errors."""
        self.peer = peer
        self.limits = limits or YamuxLimits()
        self.cause = ""  # why the session is over
        self.is_leaving = False  # we said GO_AWAY
        self.is_peer_leaving = False
        self._clock = clock
        self._next_id = 1 if is_client else 2
        self._parity = 0 if is_client else 1  # of the peer's ids
        self._substreams: dict[int, Substream] = {}
        self._theirs = 0
        self._unaccepted = 0
        self._unanswered = Overdue(self.limits.answer_timeout_s, "the peer did not answer")
        self._half_closed = Overdue(self.limits.half_closed_timeout_s, "the peer did not end its side")
        self._growth = WindowGrowth(self.limits)
        self._replies = bytearray()
        self._outgoing = Outgoing(clock)
        self._turns = self._outgoing.turns
        self.has_output: Final = self._outgoing.add
        """For substreams: one has something to send, and gets its turn."""
        self.has_unhurried_output: Final = self._outgoing.add_unhurried
        """The same, but it may wait for what is sent next, or a moment."""
        self._pings = Pings(clock(), self.limits.keepalive_s, self.limits.ping_timeout_s)
        # What stands between two calls of receive_untrusted: a part of a header, or of a body.
        self._header = bytearray()
        self._body_left = 0
        self._body_of: Substream | None = None
        self._body_ends = False
        self._events: list[Event] = []
        self._readable: dict[Substream, None] = {}

    # Substreams.

    def open(self) -> Substream:
        """A new substream. Something may be written at once; it travels with the opening.

        Raises:
            SubstreamRefused: too many wait for an answer, all ids are used, or one of the sides is leaving.
            SubstreamSessionOver: the connection is gone.
        """
        self._check_alive()
        if self.is_leaving or self.is_peer_leaving:
            raise SubstreamRefused(self.peer, f"{'we' if self.is_leaving else 'the peer'} said goodbye", True)
        if self._next_id > STREAM_ID_MAX:
            raise SubstreamRefused(self.peer, "all ids are used", True)
        if len(self._unanswered) >= self.limits.unanswered_max:
            raise SubstreamRefused(self.peer, f"{len(self._unanswered)} wait for the peer's answer", False)
        now = self._clock()
        substream = Substream(self, self._next_id, True, now)
        self._next_id += 2
        self._substreams[substream.id] = substream
        self._unanswered.begin(substream, now)
        self.has_output(substream)
        return substream

    @property
    def may_open(self) -> bool:
        """Whether waiting is of no use to `open`: it succeeds, or raises what stays."""
        return bool(
            self.cause
            or self.is_leaving
            or self.is_peer_leaving
            or self._next_id > STREAM_ID_MAX
            or len(self._unanswered) < self.limits.unanswered_max
        )

    @property
    def round_trip_s(self) -> float | None:
        """As the last ping measured it."""
        return self._pings.round_trip_s

    @property
    def substreams(self) -> int:
        """How many are open, or hold something that was not read."""
        return len(self._substreams)

    def prefer(self, substream: Substream) -> None:
        """From now on the frames of this one substream go before those of all others."""
        self._outgoing.urgent = substream

    def ping(self) -> None:
        """Measure the round trip; `RoundTrip` follows, or `SessionOver` when no answer comes in time."""
        self._check_alive()
        if (value := self._pings.begin(self._clock())) is not None:
            self._replies += encode_header(PING, SYN, 0, value)

    def go_away(self) -> None:
        """Open and take no further substreams; those that are open go on. A second call does nothing."""
        self._check_alive()
        if not self.is_leaving:
            self.is_leaving = True
            self._outgoing.hurry_from_now_on()
            self._replies += encode_header(GO_AWAY, 0, 0, GoAwayCode.NORMAL)

    def connection_ended(self, cause: str) -> list[Event]:
        """The connection is gone: every substream fails. Only the first call counts."""
        if self.cause:
            return []
        self._end(cause)
        return self.take_events()

    # What substreams say (substream.py).

    def accepted(self, substream: Substream, is_unhurried: bool) -> None:
        """The user took what the peer opened."""
        if substream.is_reset or self.cause:
            return
        substream.is_answered = True
        substream.owes_ack = True
        self._unaccepted -= 1
        (self.has_unhurried_output if is_unhurried else self.has_output)(substream)

    def was_read(self, substream: Substream, size: int) -> None:
        """The user took bytes: give credit when half the window is due, and more of it to who is held up by it."""
        if substream.is_ended_by_peer:
            self._forget_if_done(substream)
            return
        substream.uncredited += size
        if substream.uncredited * 2 < substream.window_size or self.cause:
            return
        now = self._clock()
        if self._pings.is_measurement_due(now):
            self.ping()
        credit = substream.uncredited + self._growth.grow(substream, now, self.round_trip_s)
        substream.uncredited = 0
        substream.receive_window += credit
        substream.owed_credit += credit
        self.has_output(substream)

    def reset(self, substream: Substream, cause: str) -> None:
        """The user gave the substream up."""
        was_announced = not substream.owes_syn
        substream.set_reset(by_us=True, cause=cause)
        if substream.id in self._substreams:
            self._forget(substream)
            if was_announced and not self.cause:
                self._replies += encode_header(WINDOW_UPDATE, RST, substream.id, 0)

    # Output.

    @property
    def has_something_to_send(self) -> bool:
        """Whether `take_output` would give anything; it may be a little."""
        return bool(self._replies or self._turns)

    @property
    def has_news(self) -> bool:
        """Whether `take_output` or `take_events` would give anything."""
        return bool(self._replies or self._turns or self._events)

    @property
    def may_receive(self) -> bool:
        """Whether the owner should go on reading. A peer that makes us answer and does not listen is not heard."""
        return len(self._replies) <= self.limits.replies_max

    def take_output(self, size_max: int = OUTPUT_SIZE) -> list[Buffer]:
        """What to send next, about `size_max` bytes; empty when there is nothing. Given once: send all of it.

        Events that this causes (`Writable`) are in what `receive_untrusted` or `tick` returns next, or `take_events`.
        """
        output: list[Buffer] = []
        if self._replies or self._turns:
            self._outgoing.hurry()
        if self._replies:
            output.append(bytes(self._replies))
            size_max -= len(self._replies)
            self._replies.clear()
        turns = self._turns
        while turns and size_max > 0:
            substream = turns.popleft()
            size_max -= self._emit(substream, output)
            if (substream.sendable or (substream.owes_fin and not substream.send_size)) and not substream.is_reset:
                self._outgoing.add_again(substream)
            else:
                substream.is_in_turn = False
        return output

    def take_events(self) -> list[Event]:
        """What happened since the last events were given."""
        events = self._events
        if self._readable:
            events += [Readable(substream) for substream in self._readable]
            self._readable.clear()
        self._events = []
        return events

    def _emit(self, substream: Substream, output: list[Buffer]) -> int:
        """One turn of a substream: its credit and flags, and one frame of its data. Returns the size."""
        size = min(substream.sendable, DATA_SIZE_MAX)
        flags = (SYN if substream.owes_syn else 0) | (ACK if substream.owes_ack else 0)
        total = 0
        if substream.owed_credit:
            output.append(encode_header(WINDOW_UPDATE, flags, substream.id, substream.owed_credit))
            substream.owed_credit = flags = 0
            total = HEADER_SIZE
        ends = substream.owes_fin and size == substream.send_size
        if ends:
            flags |= FIN
        substream.owes_syn = substream.owes_ack = False
        if size or flags:
            header = encode_header(DATA if size else WINDOW_UPDATE, flags, substream.id, size)
            total += HEADER_SIZE + size
            pieces = substream.take_unsent(size)
            output += [header, *pieces] if size >= JOINED_SIZE_MAX else [b"".join((header, *pieces))]
        if substream.is_write_refused and substream.send_size * 2 <= self.limits.send_size_max:
            substream.is_write_refused = False
            self._events.append(Writable(substream))
        if ends:
            substream.owes_fin = False
            substream.fin_sent = True
            if not substream.is_ended_by_peer:
                self._half_closed.begin(substream, self._clock())
            self._forget_if_done(substream)
        return total

    # Input.

    def receive_untrusted(self, data: Buffer) -> list[Event]:
        """Take what arrived, in any slices; it may be changed afterwards.

        Raises:
            LinkProtocolError: the peer broke the protocol. The session is over; send what `take_output` gives, close
                the connection, and pass on `take_events`.
            SubstreamSessionOver: the session was over already.
        """
        self._check_alive()
        view = memoryview(data)
        position = 0
        size = len(view)
        try:
            while position < size:
                if self._body_left:
                    count = min(self._body_left, size - position)
                    self._take_body(view[position : position + count])
                    position += count
                elif not self._header and size - position >= HEADER_SIZE:
                    self._take_header_untrusted(HEADER.unpack_from(view, position))
                    position += HEADER_SIZE
                else:
                    count = min(HEADER_SIZE - len(self._header), size - position)
                    self._header += view[position : position + count]
                    position += count
                    if len(self._header) == HEADER_SIZE:
                        header = HEADER.unpack(self._header)
                        self._header.clear()
                        self._take_header_untrusted(header)
                if self.cause:
                    break  # the peer ended the session; there is nothing behind that
        except LinkProtocolError as error:
            self._replies += encode_header(GO_AWAY, 0, 0, GoAwayCode.PROTOCOL_ERROR)
            self._end(str(error))
            raise
        return self.take_events()

    def _take_header_untrusted(self, header: tuple[int, int, int, int, int]) -> None:
        version, kind, flags, substream_id, length = header
        if version != frames.VERSION:
            raise LinkProtocolError(self.peer, "version of yamux", version, frames.VERSION)
        if kind <= WINDOW_UPDATE:
            self._take_frame_untrusted(kind, flags, substream_id, length)
        elif kind > GO_AWAY:
            raise LinkProtocolError(self.peer, "type of a yamux frame", kind, f"0 to {GO_AWAY}")
        elif substream_id:
            raise LinkProtocolError(self.peer, "substream of a frame that belongs to none", substream_id, 0)
        elif kind == PING:
            self._take_ping(flags, length)
        else:
            self._take_go_away(length)

    def _take_frame_untrusted(self, kind: int, flags: int, substream_id: int, length: int) -> None:
        """DATA or WINDOW_UPDATE."""
        substream = self._substreams.get(substream_id)
        if flags & SYN:
            substream = self._take_syn_untrusted(substream, kind, substream_id, length)
        elif not substream_id:
            raise LinkProtocolError(self.peer, "substream of a frame that belongs to one", 0)
        if kind == DATA:
            self._body_left = length
            self._body_of = None
            self._body_ends = False
        if substream is None:
            return  # refused, or late: what it has is not taken
        if flags & ACK:
            self._take_answer(substream)
        if flags & RST:
            self._take_reset(substream)
            return
        if ((length and kind == DATA) or flags & FIN) and substream.is_ended_by_peer:
            raise LinkProtocolError(self.peer, "a frame behind the end of substream", substream_id)
        if kind == DATA:
            if length > substream.receive_window:
                raise LinkProtocolError(
                    self.peer, f"bytes on substream {substream_id}", length, f"{substream.receive_window}, its window"
                )
            substream.receive_window -= length
            self._body_of = substream
            self._body_ends = bool(flags & FIN)
            if length:
                return  # the end comes behind the body
        elif length:
            if substream.send_window + length > LENGTH_MAX:
                raise LinkProtocolError(self.peer, f"window of substream {substream_id}", "above 2**32 - 1")
            substream.send_window += length
            if substream.send_size:
                self.has_output(substream)
        if flags & FIN:
            self._take_end(substream)

    def _take_syn_untrusted(
        self, substream: Substream | None, kind: int, substream_id: int, length: int
    ) -> Substream | None:
        """The peer opens a substream. None: it was refused."""
        if substream is not None or not substream_id or substream_id % 2 != self._parity:
            raise LinkProtocolError(self.peer, "id of a new substream", substream_id)
        if kind == DATA and length > WINDOW_SIZE:
            raise LinkProtocolError(self.peer, f"bytes on substream {substream_id}", length, WINDOW_SIZE)
        limits = self.limits
        if self.is_leaving or self._theirs >= limits.substreams_max or self._unaccepted >= limits.unaccepted_max:
            self._replies += encode_header(WINDOW_UPDATE, RST, substream_id, 0)
            return None
        substream = Substream(self, substream_id, False, self._clock())
        self._substreams[substream_id] = substream
        self._theirs += 1
        self._unaccepted += 1
        self._events.append(Offered(substream))
        return substream

    def _take_answer(self, substream: Substream) -> None:
        if self._unanswered.end(substream):
            substream.is_answered = True
            self._events.append(Answered(substream))

    def _take_reset(self, substream: Substream) -> None:
        substream.set_reset(by_us=False, cause="")
        self._events.append(WasReset(substream))
        self._forget(substream)

    def _take_body(self, piece: memoryview) -> None:
        """A piece of the body of a DATA frame, which may be nobody's."""
        self._body_left -= len(piece)
        substream = self._body_of
        if substream is None or substream.is_reset:
            return
        substream.put(piece)
        self._readable[substream] = None
        if self._body_ends and not self._body_left:
            self._take_end(substream)

    def _take_end(self, substream: Substream) -> None:
        substream.is_ended_by_peer = True
        self._half_closed.end(substream)
        self._readable[substream] = None
        self._forget_if_done(substream)

    def _take_ping(self, flags: int, value: int) -> None:
        if flags & SYN:
            self._replies += encode_header(PING, ACK, 0, value)
        elif (round_trip := self._pings.answered(value, self._clock())) is not None:
            self._events.append(RoundTrip(round_trip))

    def _take_go_away(self, code: int) -> None:
        if code == GoAwayCode.NORMAL:
            self.is_peer_leaving = True
            self._outgoing.hurry_from_now_on()
            self._events.append(GoingAway())
            return
        what = {1: "a protocol error of ours", 2: "an internal error"}.get(code, f"the unknown code {code}")
        self._end(f"{self.peer or 'the peer'} ended the session for {what}")

    # Time.

    @property
    def deadline(self) -> float:
        """When `tick` is due. It moves, both ways; looking at it after each call is enough."""
        if self.cause:
            return float("inf")
        owed = min(self._unanswered.deadline, self._half_closed.deadline)
        return min(self._pings.deadline, owed, self._outgoing.deadline)

    def tick(self) -> list[Event]:
        """Time has passed: ping, and give up what did not come in time."""
        if self.cause:
            return self.take_events()
        now = self._clock()
        if self._pings.is_lost(now):
            self._end(f"no answer to a ping within {self.limits.ping_timeout_s:g} s")
            return self.take_events()
        if self._pings.is_due(now):
            self.ping()
        if self._outgoing.deadline <= now:
            self._outgoing.hurry()
        for owed in (self._unanswered, self._half_closed):
            while (substream := owed.take_due(now)) is not None:
                self._events.append(WasReset(substream))
                self.reset(substream, owed.cause)
        return self.take_events()

    # Within.

    def _forget_if_done(self, substream: Substream) -> None:
        """Both sides have ended, and nothing waits to be read."""
        if substream.fin_sent and substream.is_at_end:
            self._forget(substream)

    def _forget(self, substream: Substream) -> None:
        if self._substreams.pop(substream.id, None) is None:
            return
        self._unanswered.end(substream)
        self._half_closed.end(substream)
        self._growth.give_back(substream)
        if not substream.is_ours:
            self._theirs -= 1
            if not substream.is_answered:
                self._unaccepted -= 1
        self._events.append(Over(substream))

    def _end(self, cause: str) -> None:
        self.cause = cause
        for substream in self._substreams.values():
            substream.drop_unsent()
        self._substreams.clear()
        self._unanswered.clear()
        self._half_closed.clear()
        self._outgoing.clear()
        self._events.append(SessionOver(cause))

    def _check_alive(self) -> None:
        if self.cause:
            raise SubstreamSessionOver(self.peer, self.cause)
