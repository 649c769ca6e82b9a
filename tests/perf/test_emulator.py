"""The link emulator against real sockets: what it delays, what it limits, what it must pass on untouched."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from partywire.perf.emulator import EmulatorFailed, LinkEmulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TIMEOUT_S = 20.0
MB = 1_000_000


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """What the emulated link leads to."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(TIMEOUT_S)
        yield sock


@contextlib.contextmanager
def connected(link: LinkEmulator, listener: socket.socket) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of one connection through the link."""
    with socket.create_connection(("127.0.0.1", link.port), TIMEOUT_S) as near:
        far, _ = listener.accept()
        with far:
            for sock in (near, far):
                sock.settimeout(TIMEOUT_S)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield near, far


@contextlib.contextmanager
def running(body: Callable[[], object]) -> Iterator[None]:
    """A thread that must have ended by the end of the block."""
    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(TIMEOUT_S)
    assert not thread.is_alive()


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        chunk = sock.recv(min(1 << 20, size - len(received)))
        if not chunk:
            break
        received += chunk
    return bytes(received)


def wait_for_end(pid: int) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        return bool(poller.poll(TIMEOUT_S * 1000))
    finally:
        os.close(pidfd)


# Delay and rate.


def test_a_round_trip_takes_what_it_should(listener: socket.socket) -> None:
    rtt_s = 0.02
    with (
        LinkEmulator(port_of(listener), rtt_ms=rtt_s * 1000) as link,
        connected(link, listener) as (near, far),
    ):
        took = []
        for _ in range(10):
            start = time.monotonic()
            near.sendall(b"there")
            far.sendall(receive_exactly(far, 5))
            assert receive_exactly(near, 5) == b"there"
            took.append(time.monotonic() - start)
    assert min(took) >= rtt_s
    assert min(took) < 2 * rtt_s  # the best of ten, so a busy machine has ten chances


def test_messages_do_not_wait_for_each_other_on_the_wire(listener: socket.socket) -> None:
    """Delay is not rate: what is sent within one round trip arrives within one."""
    with LinkEmulator(port_of(listener), rtt_ms=200) as link, connected(link, listener) as (near, far):
        start = time.monotonic()
        for number in range(20):
            near.sendall(bytes([number]) * 1000)
        assert len(receive_exactly(far, 20_000)) == 20_000
        took = time.monotonic() - start
    assert 0.1 <= took < 1  # one after the other they would take two seconds


def measure_rate(link: LinkEmulator, listener: socket.socket, size: int) -> float:
    """Bytes a second over two connections at once, from the first byte that arrives to the last."""
    ends: list[float] = []
    with connected(link, listener) as (near, far), connected(link, listener) as (near_2, far_2):

        def receive(sock: socket.socket) -> None:
            receive_exactly(sock, size)
            ends.append(time.monotonic())

        payload = bytes(size)
        with (
            running(lambda: near.sendall(payload)),
            running(lambda: near_2.sendall(payload)),
            running(lambda: receive(far_2)),
        ):
            receive_exactly(far, 1)
            start = time.monotonic()
            receive_exactly(far, size - 1)
            ends.append(time.monotonic())
    return 2 * size / (max(ends) - start)


def test_the_rate_is_that_of_all_connections_together(listener: socket.socket) -> None:
    wanted = 10 * MB
    with LinkEmulator(port_of(listener), rtt_ms=10, mbit=80) as link:
        rates = [measure_rate(link, listener, MB)]
        while rates[-1] < 0.85 * wanted and len(rates) < 6:  # a busy machine can only make it slower
            rates.append(measure_rate(link, listener, MB))
    assert 0.85 * wanted < max(rates) < 1.1 * wanted


def test_both_directions_have_the_rate_at_once(listener: socket.socket) -> None:
    size, wanted = MB, 2 * MB
    with LinkEmulator(port_of(listener), mbit=16) as link, connected(link, listener) as (near, far):
        start = time.monotonic()
        payload = bytes(size)
        with (
            running(lambda: near.sendall(payload)),
            running(lambda: far.sendall(payload)),
            running(lambda: receive_exactly(near, size)),
        ):
            receive_exactly(far, size)
        took = time.monotonic() - start
    assert 0.95 * size / wanted <= took < 1.9 * size / wanted  # sharing one wire they would take twice as long


def test_a_link_without_settings_is_only_a_relay(listener: socket.socket) -> None:
    with LinkEmulator(port_of(listener)) as link, connected(link, listener) as (near, far):
        near.sendall(b"hello")
        assert receive_exactly(far, 5) == b"hello"


# Bytes.


@pytest.mark.parametrize("settings", [{}, {"rtt_ms": 5.0, "mbit": 400.0}], ids=["bare", "5 ms, 400 Mbit/s"])
def test_bytes_arrive_as_they_were_sent(listener: socket.socket, settings: dict[str, float]) -> None:
    generator = random.Random(1)
    payload = generator.randbytes(3 * MB)
    received: list[bytes] = []

    def send(sock: socket.socket) -> None:
        at = 0
        while at < len(payload):
            size = generator.choice((1, 9, 1000, 65_537, 300_000))
            sock.sendall(payload[at : at + size])
            at += size

    with (
        LinkEmulator(port_of(listener), **settings) as link,
        connected(link, listener) as (near, far),
        running(lambda: send(near)),
        running(lambda: far.sendall(payload)),
        running(lambda: received.append(receive_exactly(near, len(payload)))),
    ):
        received.append(receive_exactly(far, len(payload)))
    wanted = hashlib.sha256(payload).digest()
    assert [hashlib.sha256(got).digest() for got in received] == [wanted, wanted]


def test_a_receiver_that_does_not_read_holds_the_sender_but_no_other_connection(listener: socket.socket) -> None:
    with (
        LinkEmulator(port_of(listener), rtt_ms=1, mbit=1000) as link,
        connected(link, listener) as (near, far),
        connected(link, listener) as (other_near, other_far),
    ):
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        near.setblocking(False)
        sent, chunk = 0, bytes(1 << 20)
        poller = select.poll()
        poller.register(near, select.POLLOUT)
        while poller.poll(300):  # nothing taken for so long: it is held
            sent += near.send(chunk)
            assert sent < 64 * MB
        other_near.sendall(b"still here")
        assert receive_exactly(other_far, 10) == b"still here"
        assert len(receive_exactly(far, sent)) == sent


# Ends.


def test_a_half_closed_connection_still_carries_the_answer(listener: socket.socket) -> None:
    with LinkEmulator(port_of(listener), rtt_ms=4, mbit=100) as link, connected(link, listener) as (near, far):
        near.sendall(b"question")
        near.shutdown(socket.SHUT_WR)
        assert receive_exactly(far, 100) == b"question"
        far.sendall(bytes(100_000))
        far.shutdown(socket.SHUT_WR)
        assert len(receive_exactly(near, 200_000)) == 100_000


@pytest.mark.parametrize("side", ["near", "far"])
def test_a_reset_is_passed_on_behind_the_bytes_before_it(listener: socket.socket, side: str) -> None:
    with LinkEmulator(port_of(listener), rtt_ms=4) as link, connected(link, listener) as ends:
        ours, theirs = ends if side == "near" else reversed(ends)
        ours.sendall(b"last words")
        assert receive_exactly(theirs, 10) == b"last words"
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ours.close()
        with pytest.raises(ConnectionResetError):
            theirs.recv(1)


def test_a_reset_after_the_end_of_the_stream_is_noticed_when_bytes_come_back(listener: socket.socket) -> None:
    with LinkEmulator(port_of(listener)) as link, connected(link, listener) as (near, far):
        near.shutdown(socket.SHUT_WR)
        assert far.recv(1) == b""
        near.close()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):  # noqa: PT012 - either call may be the one
            while True:
                far.sendall(bytes(1000))
                select.select([far], [], [], 0.01)


def test_a_target_that_refuses_resets_the_dialler() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = port_of(closed)
    with (
        LinkEmulator(port, rtt_ms=1) as link,
        socket.create_connection(("127.0.0.1", link.port), TIMEOUT_S) as near,
        pytest.raises(ConnectionResetError),
    ):
        near.recv(1)


# The process.


def test_the_process_is_gone_afterwards(listener: socket.socket) -> None:
    with LinkEmulator(port_of(listener), rtt_ms=1) as link:
        pid, port = link.pid, link.port
        assert port > 0
    assert link.pid == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
    link.close()


def test_the_process_dies_with_its_parent() -> None:
    program = (
        "import time; from partywire.perf.emulator import LinkEmulator\n"
        "with LinkEmulator(9) as link: print(link.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert parent.stdout is not None
        emulator = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait(TIMEOUT_S)
        assert wait_for_end(emulator)
    finally:
        parent.kill()
        parent.communicate()


def test_impossible_links_are_refused() -> None:
    with pytest.raises(ValueError, match="no round trip"):
        LinkEmulator(1, rtt_ms=-1)
    with pytest.raises(ValueError, match="0 Mbit/s"):
        LinkEmulator(1, mbit=0)


def test_a_relay_that_does_not_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(EmulatorFailed, match="did not start"), LinkEmulator(1):
        pass
