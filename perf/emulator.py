"""A link with a round trip and a rate, between a dialler and a listener on this machine.

    dialler  <-- TCP -->  127.0.0.1:port  (a process of its own)  <-- TCP -->  127.0.0.1:target_port

One emulator stands for one link: all connections through it share its two wires, one in each direction. A wire passes
bytes on in the order in which they came, each after the time that its rate takes and half of the round trip.

    read -> waits for the wire (at most a bandwidth-delay product) -> on the wire, rtt / 2 -> written to the other side

Beyond that nothing is read, so that TCP holds the sender, as it would at a slow link. A receiver that does not read
holds only its own connection. End of stream and reset travel like bytes.

What it is not: both sides talk TCP over loopback. Slow start, losses and the retransmissions of a real path of that
length do not happen, and a connection is accepted before the target has answered. Delays are exact to the timer slack
of the kernel (50 us) and whatever a busy machine adds.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from typing import Final, Self

READ_SIZE: Final = 256 * 1024
READ_SIZE_MIN: Final = 4 * 1024
READ_S: Final = 0.001
"""At most what a wire carries in so long is read at once: bytes are passed on when the last of them is through."""

BACKLOG_SIZE_MIN: Final = 64 * 1024
"""A wire lets at least so much wait, whatever its round trip, or its sender could not keep it busy."""

UNLIMITED_BYTES_PER_S: Final = 1.25e9
"""10 Gbit/s: what a wire without a rate is taken for where its buffers are bounded."""

HELD_SIZE_MIN: Final = 4 * 1024 * 1024
"""What one connection may hold beyond what is on the wire, for a receiver that is late."""

SOCKET_BUFFER_SIZE: Final = 256 * 1024
"""The kernel's receive buffers here. Left to themselves they grow to tens of MiB, all of it ahead of a late message."""

WRITE_CHUNKS_MAX: Final = 64
LISTEN_BACKLOG: Final = 256
START_TIMEOUT_S: Final = 20.0
END_TIMEOUT_S: Final = 5.0

RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class EmulatorFailed(Exception):
    """Raised when the emulator's process did not start."""


class LinkEmulator:
    """A relay to `127.0.0.1:target_port` in a process of its own, from `with` to its end.

    The process ends with the block, and with this process however that ends.
    """

    def __init__(self, target_port: int, *, rtt_ms: float = 0, mbit: float | None = None) -> None:
        """`mbit` is the rate in each direction, in 10^6 bits a second; None for as fast as it goes."""
        if rtt_ms < 0 or (mbit is not None and mbit <= 0):
            raise ValueError(f"a link has no round trip of {rtt_ms} ms at {mbit} Mbit/s")
        self.target_port: Final = target_port
        self.rtt_ms: Final = rtt_ms
        self.mbit: Final = mbit
        self._process: subprocess.Popen[bytes] | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """Where to dial instead of the target; set within the block."""
        return self._port

    @property
    def pid(self) -> int:
        """The relay's process; 0 outside the block."""
        return 0 if self._process is None else self._process.pid

    def __enter__(self) -> Self:
        """Start the relay and wait until it listens. Raises EmulatorFailed."""
        command = [sys.executable, "-m", "partywire.perf.emulator", str(self.target_port), "--rtt-ms", str(self.rtt_ms)]
        if self.mbit is not None:
            command += ["--mbit", str(self.mbit)]
        command.append("--until-end-of-input")
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            self._port = read_port(self._process)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the relay; its connections are reset. Calling it again does nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def read_port(process: subprocess.Popen[bytes]) -> int:
    """The line that the relay prints once it listens."""
    assert process.stdout is not None
    poller = select.poll()
    poller.register(process.stdout, select.POLLIN)
    line = process.stdout.readline() if poller.poll(START_TIMEOUT_S * 1000) else b""
    if not line:
        raise EmulatorFailed("the link emulator did not start; what it said is on standard error")
    return int(line)


# The relay's process.

Chunk = bytes | None
"""What travels on a wire: bytes, none of them for the end of the stream, or None for a reset."""


class Wire:
    """One direction of the link. Due times only grow, so the first chunk is always the next one."""

    def __init__(self, delay_s: float, bytes_per_s: float | None) -> None:
        assumed = bytes_per_s or UNLIMITED_BYTES_PER_S
        self._delay_s = delay_s
        self._bytes_per_s = bytes_per_s
        self._backlog_s = max(2 * delay_s, BACKLOG_SIZE_MIN / assumed)
        self._free_at = 0.0  # when the last byte that was put here has left its sender
        self.read_size: Final = min(READ_SIZE, max(READ_SIZE_MIN, int(assumed * READ_S)))
        self.held_size_max: Final = HELD_SIZE_MIN + int((delay_s + self._backlog_s) * assumed)
        self.chunks: deque[tuple[float, Flow, Chunk]] = deque()
        self.waiting: deque[Flow] = deque()  # readable, but the backlog is full; in the order of their turns

    def put(self, flow: Flow, chunk: Chunk, now: float) -> None:
        """Send a chunk on its way."""
        if self._bytes_per_s is not None:
            started = self._free_at if self._free_at > now else now
            now = self._free_at = started + (len(chunk) if chunk else 0) / self._bytes_per_s
        self.chunks.append((now + self._delay_s, flow, chunk))

    def room_at(self) -> float:
        """When the wire takes more."""
        return self._free_at - self._backlog_s

    def next_due(self) -> float:
        """When something is to be done; infinity for never."""
        due = self.chunks[0][0] if self.chunks else float("inf")
        return min(due, self.room_at()) if self.waiting else due


class End:
    """One socket, and what the epoll set is asked for about it: source of one flow and sink of the other."""

    def __init__(self, sock: socket.socket, epoll: select.epoll) -> None:
        self.sock: Final = sock
        self.fd: Final = sock.fileno()
        self.is_open = True
        self._epoll = epoll
        self._events = 0

    def watch(self, event: int, wanted: bool) -> None:
        """Ask for EPOLLIN or EPOLLOUT, or no longer. With neither the socket leaves the set: the set would report one
        that was reset again and again.
        """
        events = self._events | event if wanted else self._events & ~event
        if events == self._events:
            return
        if not events:
            self._epoll.unregister(self.fd)
        elif self._events:
            self._epoll.modify(self.fd, events)
        else:
            self._epoll.register(self.fd, events)
        self._events = events


class Flow:
    """One direction of one connection: what is read from `source` is written to `sink`."""

    back: Flow
    """The other direction; set by whoever makes the pair."""

    def __init__(self, wire: Wire, source: End, sink: End) -> None:
        self.wire: Final = wire
        self.source: Final = source
        self.sink: Final = sink
        self.due: deque[memoryview | None] = deque()  # through the wire and not yet written
        self.held_size = 0  # bytes on the wire or due
        self.is_held = False  # not read because too much is held
        self.is_waiting = False  # stands in the wire's queue for a turn
        self.is_over = False  # the source has ended
        self.is_done = False  # and the sink was told


class Relay:
    """All connections of one emulated link, on one epoll set."""

    def __init__(self, listener: socket.socket, target_port: int, rtt_s: float, bytes_per_s: float | None) -> None:
        self._listener = listener
        self._target_port = target_port
        self._there = Wire(rtt_s / 2, bytes_per_s)
        self._back = Wire(rtt_s / 2, bytes_per_s)
        self._flows: dict[int, Flow] = {}  # by the descriptor of their source
        self._epoll = select.epoll()
        self._epoll.register(listener.fileno(), select.EPOLLIN)

    def run(self, until_readable: int | None) -> None:
        """Relay until that descriptor is readable or at its end; for ever if it is None."""
        wires = (self._there, self._back)
        if until_readable is not None:
            self._epoll.register(until_readable, select.EPOLLIN)
        while True:
            wait_s = min(wire.next_due() for wire in wires) - time.monotonic()
            # The epoll set rounds its timeout up to whole milliseconds; select does not.
            select.select([self._epoll], [], [], None if wait_s == float("inf") else max(0.0, wait_s))
            for fd, events in self._epoll.poll(0):
                if fd == until_readable:
                    return
                if fd == self._listener.fileno():
                    self._accept()
                elif fd in self._flows:
                    self._serve(self._flows[fd], events)
            for wire in wires:
                self._deliver(wire)
                self._give_turns(wire)

    # Connections.

    def _accept(self) -> None:
        try:
            near, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        far = socket.socket()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_SIZE)
        for sock in (near, far):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(OSError):  # a kernel without cubic is only slower
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        far.connect_ex(("127.0.0.1", self._target_port))  # a refusal shows when the socket is read
        near_end, far_end = End(near, self._epoll), End(far, self._epoll)
        there, back = Flow(self._there, near_end, far_end), Flow(self._back, far_end, near_end)
        there.back, back.back = back, there
        for flow in (there, back):
            self._flows[flow.source.fd] = flow
            flow.source.watch(select.EPOLLIN, True)

    def _serve(self, flow: Flow, events: int) -> None:
        """Something happened at the socket that is the source of `flow` and the sink of its other direction."""
        failed = events & (select.EPOLLHUP | select.EPOLLERR)
        if failed or events & select.EPOLLOUT:
            self._write(flow.back)
        if failed or events & select.EPOLLIN:
            self._read(flow)

    def _fail(self, flow: Flow) -> None:
        """The source of `flow` was reset or refused. The other side hears of it behind the bytes that came before."""
        if not flow.source.is_open:
            return
        self._close(flow.source)
        flow.is_over = True
        flow.back.due.clear()
        flow.wire.put(flow, None, time.monotonic())

    def _close(self, end: End) -> None:
        end.watch(select.EPOLLIN | select.EPOLLOUT, False)
        end.is_open = False
        del self._flows[end.fd]
        end.sock.close()

    # Reading.

    def _read(self, flow: Flow) -> None:
        """Read once, if the wire has room; otherwise wait for a turn."""
        wire, source, now = flow.wire, flow.source, time.monotonic()
        if not source.is_open or flow.is_over or flow.is_waiting:
            return
        if wire.room_at() > now:
            flow.is_waiting = True
            wire.waiting.append(flow)
            source.watch(select.EPOLLIN, False)
            return
        try:
            chunk = source.sock.recv(wire.read_size)
        except BlockingIOError:
            source.watch(select.EPOLLIN, True)
            return
        except OSError:
            self._fail(flow)
            return
        wire.put(flow, chunk, now)
        flow.held_size += len(chunk)
        flow.is_over = not chunk
        flow.is_held = flow.held_size >= wire.held_size_max
        source.watch(select.EPOLLIN, not flow.is_over and not flow.is_held)

    def _give_turns(self, wire: Wire) -> None:
        """Read from those that waited for the wire, one after the other, until it is full again."""
        while wire.waiting and wire.room_at() <= time.monotonic():
            flow = wire.waiting.popleft()
            flow.is_waiting = False
            self._read(flow)

    # Writing.

    def _deliver(self, wire: Wire) -> None:
        """Write what has come through the wire."""
        now = time.monotonic()
        touched: dict[Flow, None] = {}
        while wire.chunks and wire.chunks[0][0] <= now:
            _, flow, chunk = wire.chunks.popleft()
            if flow.sink.is_open:
                flow.due.append(None if chunk is None else memoryview(chunk))
                touched[flow] = None
        for flow in touched:
            self._write(flow)

    def _write(self, flow: Flow) -> None:
        """Write as much of what is due as the sink takes."""
        sink = flow.sink
        while flow.due and sink.is_open:
            first = flow.due[0]
            if first is None:
                self._pass_reset(flow)
            elif not first:
                if not self._pass_end(flow):
                    sink.watch(select.EPOLLOUT, True)
                    return
            elif not self._write_bytes(flow):
                return
        if sink.is_open:
            sink.watch(select.EPOLLOUT, False)

    def _write_bytes(self, flow: Flow) -> bool:
        """Write the bytes before the next end or reset; False if the sink takes no more now, or never will."""
        parts = list(itertools.takewhile(bool, itertools.islice(flow.due, WRITE_CHUNKS_MAX)))
        try:
            sent = flow.sink.sock.sendmsg(parts)  # type: ignore[arg-type]  # None is not true
        except BlockingIOError:
            flow.sink.watch(select.EPOLLOUT, True)
            return False
        except OSError:
            self._fail(flow.back)
            return False
        flow.held_size -= sent
        while sent:
            first = flow.due.popleft()
            assert first is not None
            if len(first) > sent:
                flow.due.appendleft(first[sent:])
                break
            sent -= len(first)
        if flow.is_held and flow.held_size < flow.wire.held_size_max // 2:
            flow.is_held = False
            self._read(flow)
        return True

    def _pass_end(self, flow: Flow) -> bool:
        """End the sink's stream; False while it is not connected yet."""
        sink = flow.sink
        try:
            sink.sock.getpeername()
            sink.sock.shutdown(socket.SHUT_WR)
        except OSError:
            if not flow.back.is_over:
                return False  # still connecting, or reset, which reading will tell
            self._fail(flow.back)
            return True
        flow.due.popleft()
        flow.is_done = True
        if flow.back.is_done:
            self._close(sink)
            if flow.source.is_open:
                self._close(flow.source)
        return True

    def _pass_reset(self, flow: Flow) -> None:
        flow.due.clear()
        flow.back.is_over = True
        flow.sink.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._close(flow.sink)


def open_listener(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Before listening, since accepted sockets inherit it and their window's scale with it.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_SIZE)
    listener.bind(("127.0.0.1", port))
    listener.listen(LISTEN_BACKLOG)
    listener.setblocking(False)
    return listener


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m partywire.perf.emulator", description="Relay connections to a port over a slower, longer link."
    )
    parser.add_argument("target_port", type=int, help="where the relay connects to, on 127.0.0.1")
    parser.add_argument("--rtt-ms", type=float, default=0.0, help="round trip that it adds (default 0)")
    parser.add_argument("--mbit", type=float, help="rate in each direction, in 10^6 bits a second (default: no limit)")
    parser.add_argument("--port", type=int, default=0, help="where it listens (default: a free one, printed)")
    parser.add_argument("--until-end-of-input", action="store_true", help="end with standard input")
    options = parser.parse_args(arguments)
    if options.until_end_of_input:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever holds our input decides
    with open_listener(options.port) as listener:
        print(listener.getsockname()[1], flush=True)
        bytes_per_s = options.mbit * 1e6 / 8 if options.mbit else None
        relay = Relay(listener, options.target_port, options.rtt_ms / 1000, bytes_per_s)
        relay.run(sys.stdin.fileno() if options.until_end_of_input else None)


if __name__ == "__main__":
    main()
