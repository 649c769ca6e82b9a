"""A test-only opener: the smallest thing that speaks the control socket and moves bytes through lanes.

It stands where `Party` stands, without sessions. Everything waits with a deadline; `close` leaves nothing behind.
"""

from __future__ import annotations

import select
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from partywire.engine import records
from partywire.engine.commands import Close, Lanes, Message, Start, Started, Stopped, Welcome, WorkerStarted
from partywire.engine.control_socket import ControlClosed
from partywire.engine.frames import encode_goodbye
from partywire.engine.link_options import LinkOptions
from partywire.engine.records import StreamEnd, decode_stream_end
from partywire.engine.supervisor_handle import SupervisorHandle, spawn_supervisor
from partywire.engine.topology import PartySpec, PeerSpec
from partywire.shm import fence
from partywire.shm.doorbell import Bell, Doorbell
from partywire.shm.ring import RingReader, RingWriter
from partywire.shm.segment import Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DEADLINE_S = 30.0
_Result = TypeVar("_Result")
NAMES = ("alice", "bob", "charlie", "dave")


def make_listener(host: str = "127.0.0.1") -> socket.socket:
    """A listening socket on a port of the kernel's choice."""
    return socket.create_server((host, 0))


def make_parties(listeners: Iterable[socket.socket], names: Iterable[str] = NAMES) -> list[PartySpec]:
    """Party specs whose addresses are those of the listeners, one per party."""
    peers = tuple(
        PeerSpec(name, index, *listener.getsockname()[:2])
        for index, (name, listener) in enumerate(zip(names, listeners, strict=False))
    )
    return [PartySpec(peer.name, peer.index, peers) for peer in peers]


@dataclass
class TestLane:
    """The worker's side of one ring pair."""

    __test__ = False

    tx: RingWriter
    rx: RingReader
    bell: Bell
    received: bytearray = field(default_factory=bytearray)
    control: list[bytes] = field(default_factory=list)
    end: StreamEnd | None = None

    def read(self) -> None:
        """Take what is there."""
        for record in self.rx.poll():
            if record.kind == records.DATA:
                self.received += record.payload
            elif record.kind == records.CONTROL:
                self.control.append(bytes(record.payload))
            elif record.kind == records.STREAM_END:
                self.end = decode_stream_end(record.payload)
        self.rx.release_all()

    def close(self) -> None:
        self.tx.close()
        self.rx.close()


def attach_lanes(
    stack: ExitStack, message: Lanes, fds: list[int], fence_: fence.Fence
) -> tuple[dict[int, TestLane], TestLane | None]:
    """The lanes of one Lanes message: by connection, and the control lane if there is one."""
    lanes = []
    bell = Bell.from_fds(fds[0], fds[1])
    stack.callback(bell.close)
    for tx_fd, rx_fd in zip(fds[2::2], fds[3::2], strict=True):
        tx = RingWriter(Segment.attach(tx_fd), fence_, bell)
        lane = TestLane(tx, RingReader(Segment.attach(rx_fd), fence_, bell), bell)
        stack.callback(lane.close)
        lanes.append(lane)
    control = lanes.pop() if message.control else None
    return dict(zip(message.connections, lanes, strict=True)), control


class Opener:
    """Opens one party's family and serves its control socket and lanes."""

    def __init__(
        self,
        party: PartySpec,
        listener: socket.socket | None = None,
        *,
        workers: int = 1,
        options: LinkOptions | None = None,
        worker_module: str = "tests.support.echo_worker",
        links_per_io_process: int = 1,
    ) -> None:
        fence.register()
        self.party = party
        self.options = options or LinkOptions(ring_size=256 * 1024, control_ring_size=64 * 1024)
        self._fence = fence.probe()
        self._stack = ExitStack()
        self.supervisor: SupervisorHandle = spawn_supervisor()
        self.messages: list[Message] = []
        self.links: dict[int, Lanes] = {}
        self.lanes: dict[tuple[int, int], TestLane] = {}  # (peer, connection)
        self.control_lanes: dict[int, TestLane] = {}
        self.channels: dict[int, socket.socket] = {}
        self.doorbell: Doorbell | None = None
        self.is_hung_up = False
        ours = party.ours
        start = Start(party, (ours.address,), workers, self.options, None, worker_module, links_per_io_process)
        self.supervisor.control.send(start, [listener.fileno()] if listener is not None else [])

    # Waiting.

    def serve(self, timeout_s: float = 0.0) -> None:
        """Take what came, after waiting for the doorbell or the control socket at most so long."""
        for lane in (*self.lanes.values(), *self.control_lanes.values()):
            lane.read()
        poller = select.poll()
        if not self.is_hung_up:
            poller.register(self.supervisor.control, select.POLLIN)
        if self.doorbell is not None:
            poller.register(self.doorbell, select.POLLIN)
            self.doorbell.arm()
            if not all(lane.rx.is_empty() for lane in (*self.lanes.values(), *self.control_lanes.values())):
                timeout_s = 0
        poller.poll(timeout_s * 1000)
        if self.doorbell is not None:
            self.doorbell.disarm()
            self.doorbell.drain()
        for lane in (*self.lanes.values(), *self.control_lanes.values()):
            lane.read()
        self._take_messages()

    def _take_messages(self) -> None:
        if self.is_hung_up:
            return
        try:
            while (received := self.supervisor.control.try_receive()) is not None:
                self._take(*received)
        except ControlClosed:
            self.is_hung_up = True

    def _take(self, message: Message, fds: list[int]) -> None:
        self.messages.append(message)
        if isinstance(message, Welcome):
            self.doorbell = Doorbell.from_fds(fds[0], fds[1], self._fence)
            self._stack.callback(self.doorbell.close)
        elif isinstance(message, Lanes):
            self.links[message.peer] = message
            lanes, control = attach_lanes(self._stack, message, fds, self._fence)
            for connection, lane in lanes.items():
                self.lanes[message.peer, connection] = lane
            assert control is not None
            self.control_lanes[message.peer] = control
        elif isinstance(message, WorkerStarted):
            self.channels[message.index] = self._stack.enter_context(socket.socket(fileno=fds[0]))
        else:
            assert not fds

    def wait(
        self, what: Callable[[], _Result], others: Iterable[Opener] = (), deadline_s: float = DEADLINE_S
    ) -> _Result:
        """Serve this opener (and `others`) until `what` is true; fail with everything that was heard if it never is."""
        deadline = time.monotonic() + deadline_s
        everybody = [self, *others]
        while not (result := what()):
            if time.monotonic() > deadline:
                heard = {opener.party.name: opener.messages for opener in everybody}
                raise AssertionError(f"the condition never came true; heard: {heard}")
            for opener in everybody:
                opener.serve(0.005)
        return result

    def message(self, kind: type[_Result]) -> _Result | None:
        """The last message of this type."""
        return next((message for message in reversed(self.messages) if isinstance(message, kind)), None)

    @property
    def is_up(self) -> bool:
        """Whether every link is up."""
        return len(self.links) == len(self.party.peers)

    @property
    def pids(self) -> dict[str, int]:
        """Roles and pids of the family; empty before Started."""
        started = self.message(Started)
        return dict(started.pids) if started else {}

    # Sending.

    def send(self, peer: int, data: bytes, connection: int = 0, others: Iterable[Opener] = ()) -> None:
        """Put raw bytes on a connection, reading (and letting others read) while there is no room."""
        lane = self.lanes[peer, connection]
        step = lane.tx.record_size_max
        for start in range(0, len(data), step):
            part = data[start : start + step]
            self.wait(lambda part=part: self._try_write(lane, part), others)  # type: ignore[misc]

    @staticmethod
    def _try_write(lane: TestLane, part: bytes) -> bool:
        if not lane.tx.try_write([part], len(part), records.DATA):
            lane.tx.request_space()
            return False
        lane.tx.publish()
        return True

    def send_control(self, peer: int, body: bytes) -> None:
        """Put one control message on the control lane."""
        lane = self.control_lanes[peer]
        assert lane.tx.try_write([body], len(body), records.CONTROL)
        lane.tx.publish()

    def finish(self, others: Iterable[Opener] = ()) -> None:
        """Say goodbye on every lane, as a worker does when its party closes."""
        goodbye = encode_goodbye()
        for lane in self.lanes.values():
            self.wait(lambda lane=lane: self._try_write(lane, goodbye), others)  # type: ignore[misc]
        for lane in (*self.lanes.values(), *self.control_lanes.values()):
            self.wait(lambda lane=lane: lane.tx.try_write([], 0, records.FINISH), others)  # type: ignore[misc]
            lane.tx.publish()

    # Ending.

    def request_close(self) -> None:
        """Tell the supervisor that the party closes."""
        self.supervisor.control.send(Close())

    def close_orderly(self, others: Iterable[Opener] = ()) -> Stopped:
        """The whole closing conversation; returns the supervisor's last message."""
        self.finish(others)
        self.request_close()
        stopped = self.wait(lambda: self.message(Stopped), others)
        assert stopped is not None
        return stopped

    def close(self) -> None:
        """Give everything back, orderly end or not."""
        self.supervisor.end()
        self._stack.close()


def open_all(
    parties: Iterable[PartySpec], listeners: Iterable[socket.socket], stack: ExitStack, **how: object
) -> list[Opener]:
    """Open every party and wait until all links of all of them are up."""
    openers = []
    for party, listener in zip(parties, listeners, strict=True):
        opener = Opener(party, listener, **how)  # type: ignore[arg-type]
        stack.callback(opener.close)
        openers.append(opener)
    openers[0].wait(lambda: all(opener.is_up and opener.pids for opener in openers), openers[1:])
    return openers
