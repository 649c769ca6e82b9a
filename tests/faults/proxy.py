"""A TCP proxy that does to a connection what networks do: delay, trickle, corrupt, cut, close one half, swallow.

    dialler  <-- TCP -->  proxy.address  (a thread)  <-- TCP -->  target

Both directions of every connection have a `Fault`, which a test replaces whenever it likes; offsets in it count the
bytes from that moment on. `perf/emulator.py` models the time of a link and never touches what is on it; this touches
what is on it and keeps time only roughly. Needs no root.
"""

from __future__ import annotations

import selectors
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from partywire.engine.preamble import PREAMBLE_SIZE, ConnectionClass, Preamble

if TYPE_CHECKING:
    from types import TracebackType

READ_SIZE: Final = 64 * 1024
HELD_SIZE_MAX: Final = 1024 * 1024
PAUSE_S: Final = 0.002
_CLASS_OFFSET: Final = 11  # in a preamble
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to the bytes of one direction. Nothing, unless something is named."""

    delay_s: float = 0.0
    slice_size: int = READ_SIZE
    """At most so many bytes are passed on at once; with 1 everything arrives byte by byte."""
    corrupt_at: int | None = None
    """Every bit of this byte is turned over."""
    cut_at: int | None = None
    """Behind so many bytes both sides are reset."""
    close_at: int | None = None
    """Behind so many bytes the receiver reads end of file; what follows is thrown away. The other direction goes on."""
    swallows: bool = False
    """Nothing is passed on, nothing is closed: the cable is pulled."""
    only: ConnectionClass | None = None
    """Which connections it concerns, by their preambles; None for all."""


NO_FAULT: Final = Fault()


class _Way:
    """One direction of one connection."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.fault = NO_FAULT
        self.passed = 0  # bytes since the fault was set
        self.held: deque[tuple[float, bytes]] = deque()  # with the time from which they may go on; b"" is the end
        self.held_size = 0
        self.is_read_to_its_end = False
        self.is_closed = False  # the sink was told of the end

    def set_fault(self, fault: Fault) -> None:
        if fault is not self.fault:
            self.fault, self.passed = fault, 0


class _Connection:
    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near = near
        self.far = far
        self.there = _Way(near, far)
        self.back = _Way(far, near)
        self.preamble = b""

    @property
    def class_(self) -> ConnectionClass | None:
        return ConnectionClass(self.preamble[_CLASS_OFFSET]) if len(self.preamble) == PREAMBLE_SIZE else None

    @property
    def normal_index(self) -> int | None:
        """Which of the normal connections it is."""
        preamble = Preamble.decode_untrusted(self.preamble) if self.class_ is ConnectionClass.NORMAL else None
        return None if preamble is None else preamble.index


class FaultProxy:
    """A proxy to `target`, from `with` to its end. `there` is what the dialler sends, `back` what it receives."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.setblocking(False)
        self.address: tuple[str, int] = self._listener.getsockname()
        """Where to dial instead of the target."""
        self.there = NO_FAULT
        self.back = NO_FAULT
        self.passed_there = 0
        """Bytes of diallers that were passed on, of all connections."""
        self._is_cut_asked = False
        self._cut_index: int | None = None  # of a normal connection
        self._connections: list[_Connection] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fault proxy", daemon=True)

    def set_both(self, fault: Fault) -> None:
        """The same fault in both directions."""
        self.there = self.back = fault

    def cut(self) -> None:
        """Reset every connection that stands; those that come later are not concerned."""
        self._is_cut_asked = True

    def cut_one(self, index: int) -> None:
        """Reset the normal connection with this index, and no other."""
        self._cut_index = index

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(30)
        for connection in self._connections:
            self._reset(connection)
        self._listener.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            with selectors.DefaultSelector() as selector:
                selector.register(self._listener, selectors.EVENT_READ)
                for connection in self._connections:
                    for sock, way in ((connection.near, connection.there), (connection.far, connection.back)):
                        if not (way.is_read_to_its_end or way.fault.swallows or way.held_size > HELD_SIZE_MAX):
                            selector.register(sock, selectors.EVENT_READ)
                busy = any(way.held for connection in self._connections for way in (connection.there, connection.back))
                selector.select(PAUSE_S if busy else 10 * PAUSE_S)
            self._accept()
            is_cut, self._is_cut_asked = self._is_cut_asked, False
            index, self._cut_index = self._cut_index, None
            for connection in list(self._connections):
                if is_cut or (index is not None and connection.normal_index == index) or not self._serve(connection):
                    self._reset(connection)
                    self._connections.remove(connection)

    def _accept(self) -> None:
        try:
            near, _ = self._listener.accept()
        except OSError:
            return
        try:
            far = socket.create_connection(self._target, timeout=5)
        except OSError:
            near.close()
            return
        for sock in (near, far):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections.append(_Connection(near, far))

    def _serve(self, connection: _Connection) -> bool:
        """Move what can move; False when the connection is over, or is to be cut."""
        for way, fault in ((connection.there, self.there), (connection.back, self.back)):
            is_meant = fault.only is None or fault.only is connection.class_
            way.set_fault(fault if is_meant else NO_FAULT)
            if way.fault.swallows:
                continue
            try:
                self._read(connection, way)
                if not self._write(connection, way):
                    return False
            except OSError:
                return False
        return not (connection.there.is_closed and connection.back.is_closed)

    def _read(self, connection: _Connection, way: _Way) -> None:
        if way.is_read_to_its_end or way.held_size > HELD_SIZE_MAX:
            return
        is_there = way is connection.there
        # The preamble first and alone: a fault that concerns one class begins right behind it.
        missing = PREAMBLE_SIZE - len(connection.preamble) if is_there else 0
        try:
            data = way.source.recv(missing or READ_SIZE)
        except BlockingIOError:
            return
        if missing:
            connection.preamble += data
        way.is_read_to_its_end = not data
        way.held.append((time.monotonic() + way.fault.delay_s, data))
        way.held_size += len(data)

    def _write(self, connection: _Connection, way: _Way) -> bool:
        now = time.monotonic()
        fault = way.fault
        while way.held and way.held[0][0] <= now:
            due, data = way.held.popleft()
            if not data or way.is_closed:
                if not way.is_closed:
                    way.is_closed = True
                    way.sink.shutdown(socket.SHUT_WR)
                way.held_size -= len(data)
                continue
            ends = [at - way.passed for at in (fault.cut_at, fault.close_at) if at is not None]
            room = min([fault.slice_size, *ends])
            part = bytearray(data[: max(0, room)])
            if fault.corrupt_at is not None and 0 <= (at := fault.corrupt_at - way.passed) < len(part):
                part[at] ^= 0xFF
            try:
                sent = way.sink.send(part) if part else 0
            except BlockingIOError:
                sent = 0
            way.passed += sent
            way.held_size -= sent
            if way is connection.there:
                self.passed_there += sent
            if data[sent:]:
                way.held.appendleft((due, data[sent:]))
            if fault.cut_at is not None and way.passed >= fault.cut_at:
                return False
            if fault.close_at is not None and way.passed >= fault.close_at:
                way.is_closed = True
                way.sink.shutdown(socket.SHUT_WR)
            elif sent < len(data):
                break  # the sink is full, or the rest is for the next turn
        return True

    @staticmethod
    def _reset(connection: _Connection) -> None:
        for sock in (connection.near, connection.far):
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            except OSError:
                pass  # gone already
            sock.close()
