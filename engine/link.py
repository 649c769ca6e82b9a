"""One link's life: from the first dial until both sides said goodbye, or one of them was lost.

Between the I/O process that owns the link's sockets, which drives this and obeys it, and the peer's. The link has one
control connection and `connections` normal ones, called streams here; CONTROL and 0..C-1 are their numbers. Bulk
connections, C..2C-1, join while it stands and share its fate from there on.

    AWAITING -> GREETING -> ATTACHING -> UP -> CLOSING | PEER_CLOSING -> CLOSED
    anywhere before CLOSED -> LOST(cause);   AWAITING, GREETING, ATTACHING -> REJECTED(error)

The one invariant: the link is UP exactly while all normal streams are attached and nobody said goodbye, it is CLOSED
only when both said goodbye and all streams ended behind it, or when we gave up waiting for that, and else it is LOST.

No I/O and no clock: facts come in with `now` (seconds, monotone), what follows from them is pulled with `next_event`
and `next_deadline`. Facts that arrive in a dead state are ignored, since sockets report late; requests are refused.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Final

from .errors import HandshakeRejected, LinkProtocolError, LocalProtocolError, RejectCode
from .handshake import Role
from .link_events import (
    GreetingTimedOut,
    LinkClosed,
    LinkLost,
    LinkRejected,
    LinkTimeouts,
    LinkUp,
    PeerSaidGoodbye,
    PingDue,
)
from .topology import dials, is_bulk_connection

if TYPE_CHECKING:
    from .handshake import HandshakeResult
    from .link_events import LinkEvent

CONTROL: Final = -1
"""The stream number of the control connection."""


class LinkState(Enum):
    """Where a link stands."""

    AWAITING = "awaiting"  # dialling, or waiting to be dialled
    GREETING = "greeting"  # the control connection stands, its handshake is under way
    ATTACHING = "attaching"  # the peer is known, normal connections are still missing
    UP = "up"  # every stream is attached
    CLOSING = "closing"  # we said goodbye; the peer may have, too
    PEER_CLOSING = "peer closing"  # the peer said goodbye, we did not yet
    CLOSED = "closed"  # over, as agreed
    LOST = "lost"  # over without a word
    REJECTED = "rejected"  # one side refused the other


PINGS_UNANSWERED_MAX: Final = 64
"""Pings that wait for their answers, unless twice the heartbeat timeout has more. A peer that sends other things and
never answers would else cost memory for ever; with the default interval this is a minute."""

_BEFORE_UP = frozenset({LinkState.AWAITING, LinkState.GREETING, LinkState.ATTACHING})
_STANDING = frozenset({LinkState.UP, LinkState.CLOSING, LinkState.PEER_CLOSING})
_DEAD = frozenset({LinkState.CLOSED, LinkState.LOST, LinkState.REJECTED})


class Link:
    """The state of one link. Driven by its owner (requests), the peer (`_untrusted` facts) and time (`tick`)."""

    def __init__(self, our_name: str, peer: str, now: float, timeouts: LinkTimeouts | None = None) -> None:
        self._our_name = our_name
        self._peer = peer
        self._timeouts = timeouts or LinkTimeouts()
        self._state = LinkState.AWAITING
        self._events: deque[LinkEvent] = deque()
        # Before the link is up.
        self._connect_deadline = now + self._timeouts.connect_s
        self._greeting_deadline = 0.0  # meaningful in GREETING
        self._last_cause = ""  # of the last attempt that failed; for the message when time is up
        # Set by `greeted`.
        self._epoch = 0
        self._connections = 0
        self._attached: set[int] = set()
        # Heartbeat, from `greeted` on.
        self._last_heard = now
        self._next_ping = now
        self._last_token = 0
        self._pings: dict[int, float] = {}  # token -> when it was sent; unanswered
        intervals = self._timeouts.heartbeat_timeout_s / self._timeouts.heartbeat_interval_s
        self._pings_max: Final = max(PINGS_UNANSWERED_MAX, int(2 * intervals))
        # The end.
        self._goodbye_sent = False
        self._goodbye_received = False
        self._ended: set[int] = set()
        self._farewell_s = self._timeouts.close_s  # how long we wait for the peer's goodbye behind ours
        self._close_deadline: float | None = None  # from our goodbye on
        self._goodbye_deadline: float | None = None  # from a data stream's end without a goodbye on
        self._cause = ""
        self._error: HandshakeRejected | None = None

    # What is known.

    @property
    def state(self) -> LinkState:
        """Where the link stands."""
        return self._state

    @property
    def role(self) -> Role:
        """The initiator dials all streams of the link."""
        return Role.INITIATOR if dials(self._our_name, self._peer) else Role.RESPONDER

    @property
    def is_dead(self) -> bool:
        """Whether nothing can happen any more."""
        return self._state in _DEAD

    @property
    def epoch(self) -> int:
        """The life of the link that was agreed on; 0 before."""
        return self._epoch

    @property
    def connections(self) -> int:
        """How many normal connections were agreed on; 0 before."""
        return self._connections

    @property
    def streams(self) -> int:
        """Normal and bulk connections that are attached."""
        return len(self._attached)

    @property
    def missing(self) -> tuple[int, ...]:
        """Normal connections that are not attached yet, in order."""
        return tuple(index for index in range(self._connections) if index not in self._attached)

    @property
    def last_heard(self) -> float:
        """When the last sign of life came, on the clock of `now`; of its beginning before the first."""
        return self._last_heard

    @property
    def goodbye_sent(self) -> bool:
        """Whether we said goodbye."""
        return self._goodbye_sent

    @property
    def goodbye_received(self) -> bool:
        """Whether the peer said goodbye."""
        return self._goodbye_received

    @property
    def cause(self) -> str:
        """Why the link is over; before that, why the last attempt failed."""
        return self._cause or self._last_cause

    @property
    def error(self) -> HandshakeRejected | None:
        """Why the link was rejected."""
        return self._error

    def next_event(self) -> LinkEvent | None:
        """What followed from the facts so far, in order, each once."""
        return self._events.popleft() if self._events else None

    # Coming up.

    def greeting_started(self, now: float) -> None:
        """The control connection stands and its handshake begins."""
        self._require("greeting_started", LinkState.AWAITING)
        self._state = LinkState.GREETING
        self._greeting_deadline = now + self._timeouts.handshake_s

    def greeting_failed(self, cause: str) -> None:
        """An attempt to connect or greet came to nothing; the next one may succeed."""
        self._require("greeting_failed", LinkState.AWAITING, LinkState.GREETING)
        self._state = LinkState.AWAITING
        self._last_cause = cause

    def rejected(self, error: HandshakeRejected) -> None:
        """A handshake of the link was refused by either side. A transient refusal of the greeting is an attempt."""
        self._require("rejected", *_BEFORE_UP)
        if error.is_transient and self._state is not LinkState.ATTACHING:
            self._state = LinkState.AWAITING
            self._last_cause = str(error)
            return
        self._state = LinkState.REJECTED
        self._error = error
        self._cause = str(error)
        self._events.append(LinkRejected(error))

    def refusal_of_greeting(self) -> tuple[RejectCode, str] | None:
        """Why a further control connection of this peer must be refused at this moment, or None if it is welcome."""
        if self._state is LinkState.AWAITING:
            return None
        if self._state in (LinkState.GREETING, LinkState.ATTACHING):
            # Not a duplicate yet: the peer may have given up an attempt whose end has not reached us.
            return RejectCode.BUSY, f"{self._our_name} is greeting another connection of {self._peer}"
        if self._state in _DEAD:
            return RejectCode.EPOCH, f"the link between {self._our_name} and {self._peer} is over"
        return RejectCode.DUPLICATE_IDENTITY, f"{self._our_name} is already linked with a {self._peer}"

    def greeted(self, now: float, result: HandshakeResult) -> None:
        """The handshake of the control connection is done."""
        self._require("greeted", LinkState.GREETING)
        if result.peer.name != self._peer:
            raise ValueError(f"the link to {self._peer} cannot be greeted by {result.peer.name}")
        self._state = LinkState.ATTACHING
        self._epoch = result.epoch
        self._connections = result.connections
        self._last_heard = now
        self._next_ping = now + self._timeouts.heartbeat_interval_s
        # The peer may have come late, which is no fault of the connections that follow.
        self._connect_deadline = now + self._timeouts.connect_s

    def refusal_of_attach_untrusted(self, index: int) -> tuple[RejectCode, str] | None:
        """Why a normal connection with this index must be refused at this moment, or None if it is welcome."""
        if self._state in (LinkState.AWAITING, LinkState.GREETING):
            return RejectCode.BUSY, f"{self._our_name} has not greeted {self._peer} yet"
        if self._state in _DEAD:
            return RejectCode.EPOCH, f"the link between {self._our_name} and {self._peer} is over"
        if not 0 <= index < self._connections:
            return RejectCode.PROTOCOL, f"connection {index} does not exist, the link has {self._connections}"
        if index in self._attached:
            return RejectCode.DUPLICATE_IDENTITY, f"connection {index} of the link is already attached"
        return None

    def refusal_of_bulk_untrusted(self, number: int) -> tuple[RejectCode, str] | None:
        """Why a bulk connection with this stream number must be refused at this moment, or None if it is welcome."""
        if self._state in _BEFORE_UP:
            return RejectCode.BUSY, f"the link between {self._our_name} and {self._peer} is not up yet"
        if self._state is not LinkState.UP:
            return RejectCode.EPOCH, f"the link between {self._our_name} and {self._peer} is over"
        if not is_bulk_connection(number, self._connections):
            return RejectCode.PROTOCOL, f"{self.name_of(number)} does not exist"
        if number in self._attached:
            return RejectCode.DUPLICATE_IDENTITY, f"{self.name_of(number)} of the link is already attached"
        return None

    def may_join(self, number: int) -> bool:
        """Whether a bulk connection whose handshake is done still finds a link, and its place free."""
        is_free = is_bulk_connection(number, self._connections) and number not in self._attached
        return is_free and self._state in _STANDING

    def bulk_attached(self, number: int) -> None:
        """A bulk connection's handshake is done. At its dialler a goodbye may have come between."""
        self._require("bulk_attached", *_STANDING)
        if not self.may_join(number):
            raise LocalProtocolError("link", self._state.value, f"bulk_attached({number})")
        self._attached.add(number)

    def name_of(self, stream: int) -> str:
        """What a stream is called in sentences."""
        if stream == CONTROL:
            return "the control connection"
        if self._connections and stream >= self._connections:
            return f"bulk connection {stream - self._connections}"
        return f"connection {stream}"

    def attached(self, now: float, index: int) -> None:
        """A normal connection's handshake is done."""
        self._require("attached", LinkState.ATTACHING)
        if index not in self.missing:
            raise LocalProtocolError("link", self._state.value, f"attached({index})")
        self._attached.add(index)
        self._last_heard = now
        if not self.missing:
            self._state = LinkState.UP
            self._events.append(LinkUp())

    # Heartbeat.

    def heard(self, now: float) -> None:
        """Bytes came on the control connection."""
        self._last_heard = now

    def ping_soon(self, now: float) -> None:
        """Whether the peer is still there is asked at the next tick, unless a ping is under way."""
        if not self._pings:
            self._next_ping = now

    def pong_received_untrusted(self, now: float, token: int) -> float:
        """The round trip time in seconds of the ping that a PONG answers.

        Raises:
            LinkProtocolError: no ping with this token is waiting for an answer.
        """
        self.heard(now)
        if self._state in _DEAD:
            return 0.0
        sent = self._pings.pop(token, None)
        if sent is None:
            raise LinkProtocolError(self._peer, "PONG without a PING, token", token)
        for earlier in [other for other in self._pings if other < token]:
            del self._pings[earlier]
        return now - sent

    @property
    def _expects_signs_of_life(self) -> bool:
        # Neither side pings behind a goodbye, and a worker may take long over what is left; close_s bounds that.
        is_saying_goodbye = self._goodbye_sent or self._goodbye_received
        return self._state in (LinkState.ATTACHING, *_STANDING) and not is_saying_goodbye

    # Ending.

    def goodbye_said(self, now: float) -> None:
        """Our goodbye was put on every stream; nothing of ours follows it."""
        self._require("goodbye_said", LinkState.UP, LinkState.PEER_CLOSING)
        self._state = LinkState.CLOSING
        self._goodbye_sent = True
        self._close_deadline = now + self._farewell_s
        self._close_when_over()

    def peer_has_erred(self) -> None:
        """The peer broke the protocol on a normal connection, before our goodbye. Its own is not waited for as long."""
        self._farewell_s = min(self._timeouts.close_s, self._timeouts.goodbye_grace_s)

    def goodbye_received_untrusted(self, now: float) -> None:
        """A GOODBYE came on the control connection.

        Raises:
            LinkProtocolError: it is the second one.
        """
        self.heard(now)
        if self._state in _DEAD:
            return
        if self._goodbye_received:
            raise LinkProtocolError(self._peer, "second GOODBYE on a control connection in state", self._state.value)
        if self._state not in _STANDING:
            self.lost(f"{self._peer} said goodbye before the link was up")
            return
        self._goodbye_received = True
        self._goodbye_deadline = None
        if self._state is LinkState.UP:
            self._state = LinkState.PEER_CLOSING
        self._events.append(PeerSaidGoodbye())
        self._close_when_over()

    def stream_ended(self, now: float, stream: int) -> None:
        """End of file on a stream, behind everything that the peer sent on it."""
        if self._state in _DEAD or stream in self._ended:
            return
        if self._state not in _STANDING:
            self.lost(f"{self._peer} closed {self.name_of(stream)} before the link was up")
            return
        if stream == CONTROL and not self._goodbye_received:
            self.lost(f"{self._peer} closed the control connection without a goodbye")
            return
        self._ended.add(stream)
        if not self._goodbye_received and self._goodbye_deadline is None:
            # Streams do not wait for each other: the goodbye may still be on its way on the control connection.
            self._goodbye_deadline = now + self._timeouts.goodbye_grace_s
        self._close_when_over()

    def stream_failed(self, stream: int, cause: str) -> None:
        """A stream broke; bytes of either side may be missing. Harmless only behind its end."""
        if self._state not in _DEAD and stream not in self._ended:
            self.lost(f"{self.name_of(stream)} to {self._peer} broke: {cause}")

    def lost(self, cause: str) -> None:
        """The link cannot go on, whatever the reason (also a broken protocol of the peer)."""
        if self._state in _DEAD:
            return
        self._state = LinkState.LOST
        self._cause = cause
        self._events.append(LinkLost(cause))

    def _close_when_over(self) -> None:
        everything = len(self._ended) == len(self._attached) + 1
        if self._goodbye_sent and self._goodbye_received and everything:
            self._state = LinkState.CLOSED
            self._events.append(LinkClosed(clean=True))

    # Timers.

    def next_deadline(self) -> float | None:
        """When `tick` must be called next at the latest, or None in a dead state."""
        if self._state in _DEAD:
            return None
        deadlines: list[float] = []
        if self._state in _BEFORE_UP:
            deadlines.append(self._connect_deadline)
        if self._state is LinkState.GREETING:
            deadlines.append(self._greeting_deadline)
        if self._expects_signs_of_life:
            deadlines.append(self._last_heard + self._timeouts.heartbeat_timeout_s)
            if not self._goodbye_sent:
                deadlines.append(self._next_ping)
        deadlines += [at for at in (self._close_deadline, self._goodbye_deadline) if at is not None]
        return min(deadlines, default=None)

    def tick(self, now: float) -> None:
        """Let time pass: whatever is due becomes an event."""
        if self._state in _DEAD:
            return
        if self._state in _BEFORE_UP and now >= self._connect_deadline:
            last = f"; the last attempt: {self._last_cause}" if self._last_cause else ""
            attaching = f" ({len(self.missing)} connections missing)" if self._state is LinkState.ATTACHING else ""
            self.lost(f"no link to {self._peer} within {self._timeouts.connect_s:g} s{attaching}{last}")
        elif self._close_deadline is not None and now >= self._close_deadline:
            self._state = LinkState.CLOSED
            self._cause = f"{self._peer} did not finish closing within {self._farewell_s:g} s"
            self._events.append(LinkClosed(clean=False, cause=self._cause))
        elif self._goodbye_deadline is not None and now >= self._goodbye_deadline:
            first = self.name_of(min(self._ended))
            self.lost(f"{self._peer} closed {first} without a goodbye")
        elif self._expects_signs_of_life and now >= self._last_heard + self._timeouts.heartbeat_timeout_s:
            self.lost(f"{self._peer} has been silent for {now - self._last_heard:.1f} s")
        else:
            self._tick_alive(now)

    def _tick_alive(self, now: float) -> None:
        if self._state is LinkState.GREETING and now >= self._greeting_deadline:
            self._state = LinkState.AWAITING
            self._last_cause = f"{self._peer} did not complete the handshake in {self._timeouts.handshake_s:g} s"
            self._events.append(GreetingTimedOut())
        if self._expects_signs_of_life and not self._goodbye_sent and now >= self._next_ping:
            if len(self._pings) == self._pings_max:
                self.lost(f"{self._peer} has not answered the last {len(self._pings)} pings")
                return
            self._last_token += 1
            self._pings[self._last_token] = now
            # From now, not from the last due time: a process that was stopped must not send a burst of pings.
            self._next_ping = now + self._timeouts.heartbeat_interval_s
            self._events.append(PingDue(self._last_token))

    def _require(self, request: str, *states: LinkState) -> None:
        if self._state not in states:
            raise LocalProtocolError(f"link to {self._peer}", self._state.value, request)

    def check_invariants(self) -> None:
        """What must hold after every public call."""
        greeted = self._state in (LinkState.ATTACHING, *_STANDING)
        if greeted:
            assert self._epoch >= 1
            assert self._connections >= 1
        assert self._attached <= set(range(2 * self._connections))
        assert self._ended <= {CONTROL, *self._attached}
        if self._state in (LinkState.AWAITING, LinkState.GREETING):
            assert not self._attached
            assert self._epoch == 0
        if self._state in _BEFORE_UP:
            assert not self._goodbye_sent
            assert not self._goodbye_received
            assert not self._ended
        if self._state is LinkState.ATTACHING:
            assert self.missing
        if self._state in _STANDING:
            assert not self.missing
        if self._state is LinkState.UP:
            assert not self._goodbye_sent
            assert not self._goodbye_received
        assert (self._state is LinkState.CLOSING) <= self._goodbye_sent
        if self._state is LinkState.PEER_CLOSING:
            assert self._goodbye_received
            assert not self._goodbye_sent
        assert (CONTROL in self._ended) <= self._goodbye_received
        assert (self.next_deadline() is None) == (self._state in _DEAD or self._state is LinkState.PEER_CLOSING)
        assert (self._error is not None) == (self._state is LinkState.REJECTED)
        assert len(self._pings) <= self._pings_max
