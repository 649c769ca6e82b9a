"""Two ends of one link joined by pipes in memory, on a clock that the test moves.

Each end is a real `Link` with real handshakes and frame buffers, driven as an I/O process drives them; only the sockets
are lists. `check_invariants` runs after every step.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field

from partywire.engine.errors import HandshakeRejected, LinkProtocolError
from partywire.engine.frame_buffer import FrameBuffer
from partywire.engine.frames import (
    Descriptor,
    decode_token_untrusted,
    encode_goodbye,
    encode_ping,
    encode_pong,
)
from partywire.engine.handshake import Attach, Handshake, Hello, Role
from partywire.engine.link import CONTROL, Link, LinkState
from partywire.engine.link_events import (
    GreetingTimedOut,
    LinkClosed,
    LinkEvent,
    LinkLost,
    LinkRejected,
    LinkTimeouts,
    PeerSaidGoodbye,
    PingDue,
)

EOF = None


@dataclass
class LinkEnd:
    """One I/O process without a process: obeys its link and answers its peer."""

    name: str
    peer: str
    timeouts: LinkTimeouts
    workers: int = 1
    epoch: int = 1
    answers_goodbye: bool = True
    answers_pings: bool = True
    now: float = 0.0
    link: Link = field(init=False)
    # Per stream: the handshake at first, then the frame buffer.
    machines: dict[int, Handshake | Attach | FrameBuffer] = field(default_factory=dict)
    outgoing: dict[int, deque[bytes | None]] = field(default_factory=lambda: defaultdict(deque))
    events: list[LinkEvent] = field(default_factory=list)
    round_trips: list[float] = field(default_factory=list)
    secret: bytes = b""

    def __post_init__(self) -> None:
        self.link = Link(self.name, self.peer, self.now, self.timeouts)
        self.link.check_invariants()

    # What the owner does.

    def open_control(self) -> None:
        hello = Hello(self.name, self.peer, self.name.encode().ljust(32), epoch=self.epoch, workers=self.workers)
        self.link.greeting_started(self.now)
        self.machines[CONTROL] = Handshake(self.link.role, hello)
        self._after_step()

    def open_normal(self, index: int) -> None:
        link = self.link
        self.machines[index] = Attach(link.role, self.name, self.peer, link.epoch, self.secret, index)
        self._after_step()

    def say_goodbye(self) -> None:
        for stream in (*range(self.link.connections), CONTROL):
            self.outgoing[stream] += [encode_goodbye(), EOF]
        self.link.goodbye_said(self.now)
        self._after_step()

    def pass_time(self, now: float) -> None:
        self.now = now
        self.link.tick(now)
        self._after_step()

    # What the peer does.

    def receive(self, stream: int, data: bytes | None) -> None:
        if self.link.is_dead:
            return
        machine = self.machines.get(stream)
        if data is EOF:
            self.link.stream_ended(self.now, stream)
        elif isinstance(machine, FrameBuffer):
            self._receive_frames(stream, machine, data)
        elif machine is not None:
            self._receive_handshake(stream, machine, data)
        self._after_step()

    def _receive_handshake(self, stream: int, machine: Handshake | Attach, data: bytes) -> None:
        try:
            machine.receive_data(data)
        except HandshakeRejected as error:
            self.link.rejected(error)
        except LinkProtocolError as error:
            self.link.lost(str(error))
        self._collect(stream, machine)
        if machine.result is None:
            return
        buffer = self.machines[stream] = FrameBuffer(peer=self.peer)
        if isinstance(machine, Handshake):
            assert machine.result is not None
            self.secret = machine.result.secret
            self.link.greeted(self.now, machine.result)
        else:
            assert self.link.refusal_of_attach_untrusted(stream) is None
            self.link.attached(self.now, stream)
        trailing = machine.trailing_data
        if trailing:
            self._receive_frames(stream, buffer, trailing)

    def _receive_frames(self, stream: int, buffer: FrameBuffer, data: bytes) -> None:
        for _, descriptor, _, body in buffer.split(memoryview(data)):
            if stream != CONTROL:
                continue
            self.link.heard(self.now)
            if descriptor == Descriptor.GOODBYE:
                self.link.goodbye_received_untrusted(self.now)
            elif descriptor == Descriptor.PING and self.answers_pings:
                self.outgoing[CONTROL].append(encode_pong(decode_token_untrusted(body)))
            elif descriptor == Descriptor.PONG:
                token = decode_token_untrusted(body)
                self.round_trips.append(self.link.pong_received_untrusted(self.now, token))

    def _collect(self, stream: int, machine: Handshake | Attach) -> None:
        data = machine.data_to_send()
        if data:
            self.outgoing[stream].append(data)

    def _after_step(self) -> None:
        for stream, machine in self.machines.items():
            if not isinstance(machine, FrameBuffer):
                self._collect(stream, machine)
        self.link.check_invariants()
        while (event := self.link.next_event()) is not None:
            self.events.append(event)
            match event:
                case PingDue(token):
                    self.outgoing[CONTROL].append(encode_ping(token))
                case PeerSaidGoodbye() if self.answers_goodbye and not self.link.goodbye_sent:
                    self.say_goodbye()
                case GreetingTimedOut():
                    del self.machines[CONTROL]
                case LinkLost() | LinkRejected() | LinkClosed(clean=False):
                    for stream in self.machines:
                        self.outgoing[stream].append(EOF)
        self.link.check_invariants()


class LinkPair:
    """`bob` dials `alice`. Streams are opened at both ends at once; `pump` carries what was written."""

    def __init__(self, timeouts: LinkTimeouts | None = None, workers: tuple[int, int] = (1, 1)) -> None:
        times = timeouts or LinkTimeouts()
        self.alice = LinkEnd("alice", "bob", times, workers[0])
        self.bob = LinkEnd("bob", "alice", times, workers[1])
        self.ends = (self.alice, self.bob)

    def greet(self) -> None:
        for end in self.ends:
            end.open_control()
        self.pump()

    def attach(self) -> None:
        for index in range(self.alice.link.connections):
            for end in self.ends:
                end.open_normal(index)
        self.pump()

    def come_up(self) -> None:
        self.greet()
        self.attach()
        assert [end.link.state for end in self.ends] == [LinkState.UP, LinkState.UP]

    def pump(self, slice_size: int = 11, only: tuple[int, ...] | None = None) -> None:
        """Carry everything that waits, in small slices, the streams in turn, until nothing moves."""
        moved = True
        while moved:
            moved = False
            for sender, receiver in ((self.alice, self.bob), (self.bob, self.alice)):
                for stream in sorted(sender.outgoing):
                    waiting = sender.outgoing[stream]
                    if not waiting or (only is not None and stream not in only):
                        continue
                    moved = True
                    data = waiting.popleft()
                    if data is not None and len(data) > slice_size:
                        waiting.appendleft(data[slice_size:])
                        data = data[:slice_size]
                    receiver.receive(stream, data)

    def pass_time(self, now: float) -> None:
        for end in self.ends:
            end.pass_time(now)
        self.pump()


__all__ = ["EOF", "LinkEnd", "LinkPair", "Role"]
