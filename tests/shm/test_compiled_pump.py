"""A connection pump between a real socket and real rings, moved by the compiled core and by plain Python alike."""

from __future__ import annotations

import os
import random
import socket
import time
from typing import TYPE_CHECKING

import pytest
import uvloop

from partywire.engine import connection_pump, records
from partywire.engine.connection_pump import RECEIVE_SIZE, ConnectionPump
from partywire.engine.pump_states import Incoming, Outgoing
from partywire.engine.tcp import TcpStream, tune
from partywire.shm import RingReader, RingWriter, Segment, compiled, probe
from partywire.shm.counters import WORD_HEAD, WORD_TAIL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from partywire.engine.control_lane import ControlLane
    from partywire.shm import ShmError

DEADLINE_S = 20.0
CONNECTION = 5
EPOCH = 9
BUFFER_SIZE = 64 * 1024  # of a socket that is to block soon; far smaller ones make TCP wait for its timers


class Log:
    """An owner that notes what its pump says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def pump_ended(self, pump: ConnectionPump) -> None:
        self.said.append("ended")

    def pump_failed(self, pump: ConnectionPump, cause: str) -> None:
        self.said.append(f"failed: {cause}")
        pump.abort()

    def pump_finished(self, pump: ConnectionPump) -> None:
        self.said.append("finished")

    def pump_told(self, pump: ConnectionPump) -> None:
        self.said.append("told")

    def pump_has_more(self, pump: ConnectionPump) -> None:
        self.said.append("has more")

    def ring_broke(self, end: ConnectionPump | ControlLane, error: ShmError) -> None:
        self.said.append(f"ring broke: {error}")
        end.give_up()


class PumpRig:
    """A pump, the worker's ends of its rings, and the peer's socket."""

    def __init__(self, capacity: int = 1 << 16, buffer_size: int = 0) -> None:
        self.loop = uvloop.new_event_loop()
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.peer = socket.create_connection(server.getsockname())
            sock, _ = server.accept()
        if buffer_size:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_size)
            self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_size)
        tune(sock)
        self.peer.settimeout(DEADLINE_S)
        self.stream = TcpStream(sock, self.loop)
        self.log = Log()
        fence = probe()
        tx, rx = Segment.create(capacity), Segment.create(capacity)
        self.worker_tx = RingWriter(Segment.attach(os.dup(tx.fileno())), fence, None)
        self.worker_rx = RingReader(Segment.attach(os.dup(rx.fileno())), fence, None)
        self.tx = RingReader(tx, fence, None)
        self.pump = ConnectionPump(self.log, self.stream, self.tx, RingWriter(rx, fence, None), CONNECTION, EPOCH)
        self.arrivals = 0

    def start(self) -> PumpRig:
        self.loop.call_soon(lambda: self.pump.start(on_received=self._count))
        self.turn()
        return self

    def _count(self) -> None:
        self.arrivals += 1

    def turn(self) -> None:
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    def wait(self, what: Callable[[], object], each: Callable[[], object] = lambda: None) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not what():
            assert time.monotonic() < deadline, f"the condition never came true; the pump said {self.log.said}"
            each()
            self.turn()

    def write(self, *payloads: bytes, kind: int = records.DATA) -> None:
        for payload in payloads:
            assert self.worker_tx.try_write([payload], len(payload), kind)
        self.worker_tx.publish()

    def read(self, size: int) -> bytes:
        """What the peer gets, driving the pump meanwhile."""
        received = bytearray()
        self.peer.setblocking(False)

        def take() -> None:
            self.pump.serve_ring()
            try:
                received.extend(self.peer.recv(1 << 20))
            except BlockingIOError:
                pass

        self.wait(lambda: len(received) >= size, take)
        return bytes(received)

    def worker_takes(self) -> list[tuple[int, bytes]]:
        taken = [(record.kind, bytes(record.payload)) for record in self.worker_rx.poll()]
        self.worker_rx.release_all()
        return taken

    def close(self) -> None:
        self.pump.close()
        self.worker_tx.close()
        self.worker_rx.close()
        self.peer.close()
        self.turn()
        self.loop.close()


@pytest.fixture(params=["pure", "compiled"])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., PumpRig]]:
    if request.param == "pure":
        monkeypatch.setattr(connection_pump, "core", None)
    elif compiled.core is None:
        pytest.skip("this process uses plain Python")
    rigs: list[PumpRig] = []

    def make(**how: int) -> PumpRig:
        rigs.append(PumpRig(**how))
        return rigs[-1].start()

    yield make
    for rig in rigs:
        rig.close()


# Socket -> ring.


def test_bytes_of_the_peer_become_records_of_the_connection(make: Callable[..., PumpRig]) -> None:
    rig = make()
    for content in (b"first", b"second"):
        rig.peer.sendall(content)
        rig.wait(lambda: not rig.worker_rx.is_empty())
        (record,) = rig.worker_rx.poll()
        assert (record.kind, record.connection, record.link_epoch) == (records.DATA, CONNECTION, EPOCH)
        assert bytes(record.payload) == content
        rig.worker_rx.release_all()
    assert rig.arrivals == 2
    assert rig.pump.bytes_moved == 11
    assert rig.log.said == []


@pytest.mark.parametrize("capacity", [128, 4096, 1 << 16, 1 << 20])
def test_any_amount_arrives_in_order_through_a_ring_of_any_size(make: Callable[..., PumpRig], capacity: int) -> None:
    rig = make(capacity=capacity)
    data = random.Random(1).randbytes(5 * capacity + 1000)
    rig.peer.setblocking(False)
    position = 0
    received = bytearray()

    def act() -> None:
        nonlocal position
        try:
            position += rig.peer.send(data[position : position + RECEIVE_SIZE])
        except BlockingIOError:
            pass
        received.extend(b"".join(content for _, content in rig.worker_takes()))
        rig.pump.fill_ring()

    rig.wait(lambda: len(received) == len(data), act)
    assert received == data
    assert rig.pump.bytes_moved == len(data)


def test_a_full_ring_stops_the_receiving_and_the_bell_starts_it_again(make: Callable[..., PumpRig]) -> None:
    rig = make(capacity=1024)
    data = bytes(range(250)) * 10
    rig.peer.sendall(data)
    rig.wait(lambda: rig.pump.wants_space)
    for _ in range(5):
        rig.turn()
        rig.pump.fill_ring()
    assert rig.pump.wants_space
    received = bytearray()
    while len(received) < len(data):
        received.extend(b"".join(content for _, content in rig.worker_takes()))
        rig.pump.fill_ring()
        rig.turn()
    assert received == data


def test_end_of_file_comes_behind_everything(make: Callable[..., PumpRig]) -> None:
    rig = make()
    rig.peer.sendall(b"last")
    rig.peer.shutdown(socket.SHUT_WR)
    rig.wait(lambda: rig.log.said)
    assert rig.log.said == ["ended"]
    assert rig.worker_takes() == [(records.DATA, b"last")]
    rig.pump.tell(records.StreamEnd(True, "bye"))
    assert rig.log.said == ["ended", "told"]
    assert [kind for kind, _ in rig.worker_takes()] == [records.STREAM_END]


def test_a_reset_is_told_by_its_name_and_loses_nothing_that_came_before(make: Callable[..., PumpRig]) -> None:
    rig = make()
    rig.peer.sendall(b"before")
    rig.wait(lambda: rig.arrivals)
    rig.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    rig.peer.close()
    rig.wait(lambda: rig.log.said)
    assert rig.log.said == ["failed: connection reset by peer"]
    assert rig.worker_takes() == [(records.DATA, b"before")]


def test_a_closing_party_throws_away_what_its_worker_does_not_take(make: Callable[..., PumpRig]) -> None:
    rig = make(capacity=1024)
    rig.peer.sendall(bytes(5000))
    rig.wait(lambda: rig.pump.wants_space)
    rig.pump.discard_when_full()
    rig.wait(lambda: rig.pump.bytes_moved == 5000)
    rig.peer.sendall(b"more")
    rig.wait(lambda: rig.pump.bytes_moved == 5004)


def test_a_consumer_that_writes_nonsense_breaks_the_ring(make: Callable[..., PumpRig]) -> None:
    rig = make(capacity=1024)
    rig.peer.sendall(bytes(5000))
    rig.wait(lambda: rig.pump.wants_space)
    rig.worker_rx._segment.words[WORD_HEAD] = 1 << 40
    rig.pump.wants_space = False
    rig.pump.receive()
    (said,) = rig.log.said
    assert "head is 1099511627776" in said


# Ring -> socket.


def test_all_records_of_a_batch_leave_in_one_pass_and_their_room_is_given_back(make: Callable[..., PumpRig]) -> None:
    rig = make()
    rig.write(*(bytes([number]) * number for number in range(1, 200)))
    assert rig.pump.serve_ring()
    assert rig.worker_tx.free_size == 1 << 16
    assert not rig.pump.serve_ring()
    assert rig.read(199 * 200 // 2) == b"".join(bytes([number]) * number for number in range(1, 200))


def test_empty_records_cost_nothing_and_stop_nothing(make: Callable[..., PumpRig]) -> None:
    rig = make()
    rig.write(b"", b"")
    rig.pump.serve_ring()
    rig.write(b"", b"x", b"", b"y", b"")
    rig.pump.serve_ring()
    assert rig.read(2) == b"xy"
    assert rig.worker_tx.free_size == 1 << 16


def test_what_a_slow_peer_does_not_take_waits_and_goes_out_in_order(make: Callable[..., PumpRig]) -> None:
    rig = make(capacity=1 << 18, buffer_size=BUFFER_SIZE)
    chance = random.Random(2)
    data = chance.randbytes(1 << 20)
    position = 0
    received = bytearray()
    rig.peer.setblocking(False)
    blocked = 0

    def act() -> None:
        nonlocal position, blocked
        while position < len(data):
            size = min(chance.randint(1, 9000), len(data) - position)
            if not rig.worker_tx.try_write([data[position : position + size]], size, records.DATA):
                break
            position += size
        rig.worker_tx.publish()
        rig.pump.serve_ring()
        blocked += rig.pump._is_blocked
        try:
            received.extend(rig.peer.recv(chance.randint(1, 20_000)))
        except BlockingIOError:
            pass

    rig.wait(lambda: len(received) == len(data), act)
    assert received == data
    assert blocked
    rig.wait(lambda: rig.worker_tx.free_size == 1 << 18)


def test_finish_is_reached_behind_the_last_byte(make: Callable[..., PumpRig]) -> None:
    rig = make()
    rig.write(b"almost")
    rig.write(b"", kind=records.FINISH)
    rig.pump.serve_ring()
    assert rig.log.said == ["finished"]
    assert rig.pump.outgoing is Outgoing.FINISHED
    assert rig.read(6) == b"almost"
    assert not rig.pump.serve_ring()


def test_what_a_worker_found_of_its_peer_is_known_with_its_finish(make: Callable[..., PumpRig]) -> None:
    rig = make()
    room = rig.worker_tx.free_size
    rig.write(b"", kind=records.FINISH)
    rig.write(b"", kind=records.PEER_ERRED)
    rig.pump.serve_ring()
    assert rig.log.said == ["finished"]
    assert rig.pump.peer_has_erred
    assert rig.worker_tx.free_size == room


def test_finish_behind_bytes_that_wait_is_told_once_they_left(make: Callable[..., PumpRig]) -> None:
    rig = make(capacity=1 << 20, buffer_size=BUFFER_SIZE)
    data = random.Random(3).randbytes(400_000)
    rig.write(data)
    rig.write(b"", kind=records.FINISH)
    rig.pump.serve_ring()
    assert rig.pump._is_blocked
    assert rig.log.said == []
    assert rig.read(len(data)) == data
    rig.wait(lambda: rig.log.said)
    assert rig.log.said == ["finished"]


def test_a_peer_that_left_breaks_the_sending_but_not_what_it_had_sent(make: Callable[..., PumpRig]) -> None:
    rig = make(capacity=1024)
    rig.peer.sendall(bytes(3000))
    rig.wait(lambda: rig.pump.wants_space)
    rig.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    rig.peer.close()

    def send() -> None:
        rig.write(b"x")
        rig.pump.serve_ring()

    rig.wait(lambda: rig.pump.outgoing is Outgoing.BROKEN, send)
    assert rig.pump.incoming is Incoming.OPEN
    for _ in range(100):  # what the worker writes from now on is thrown away
        rig.write(bytes(100))
        rig.pump.serve_ring()
    rig.write(b"", kind=records.FINISH)
    rig.pump.serve_ring()
    assert rig.log.said == ["finished"]


def test_a_closed_stream_is_an_error_and_not_somebody_elses_descriptor(make: Callable[..., PumpRig]) -> None:
    rig = make()
    rig.stream.close()
    reused = os.eventfd(0)  # very likely the number that the socket had
    try:
        rig.write(b"to nobody")
        rig.pump.serve_ring()
        rig.pump.receive()
    finally:
        os.close(reused)
    assert rig.log.said
    assert all(said.startswith("failed: bad file descriptor") for said in rig.log.said)


def test_a_worker_that_writes_nonsense_is_an_error_of_the_ring(make: Callable[..., PumpRig]) -> None:
    rig = make()
    rig.worker_tx._segment.words[WORD_TAIL] = 12345
    with pytest.raises(Exception, match="tail is 12345"):
        rig.pump.serve_ring()


def test_a_dead_workers_last_records_leave_before_its_connection_breaks(make: Callable[..., PumpRig]) -> None:
    rig = make()
    rig.write(b"one", b"two")
    rig.pump.orphan()
    assert rig.log.said == ["failed: the worker of this connection died"]
    assert rig.pump.outgoing is Outgoing.BROKEN
