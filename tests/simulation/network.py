"""A simulated network: byte streams with buffers, delays, cuts and partitions, by the contract of `engine.transport`.

Between the simulated processes. The one invariant: a stream delivers the bytes of its other end in order, each once,
and then either end of file or a reset, whatever else happens; TCP loses connections and never bytes.

    try_send -> flight (what the sender's kernel holds, or is under way) -> arrived (the receiver's kernel) -> try_recv

A partition is silent: what is in flight stays there until it heals. One that cuts only one direction keeps the
acknowledgements back, so the other direction fills up.
"""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Final

from partywire.engine.transport import VIEWS_MAX, Stream, Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from partywire.engine.addresses import Address
    from partywire.engine.transport import Buffer, Listener

    from .loop import SimLoop
    from .world import World

ARRIVED_MAX: Final = 64 * 1024
"""The receiver's buffer."""

RESET: Final = "connection reset by peer"


class Direction:
    """Bytes from one party to another on one connection."""

    def __init__(self, network: Network, source: int, target: int) -> None:
        self.source = source
        self.target = target
        self.flight = bytearray()
        self.arrived = bytearray()
        self.unacknowledged = 0
        self.is_ending = False  # end of file, or a reset, follows what is in flight
        self.is_reset = False  # it is a reset
        self.has_ended = False  # and has arrived
        self.writer: SimStream
        self.reader: SimStream
        self._network = network
        self._is_scheduled = False

    @property
    def room(self) -> int:
        """What the sender's kernel takes now."""
        return self._network.capacity - len(self.flight) - self.unacknowledged

    @property
    def has_news(self) -> bool:
        """Whether the reader would not be told to wait."""
        return bool(self.arrived) or self.has_ended

    def schedule(self) -> None:
        """Something is to be delivered."""
        if not self._is_scheduled and not self.has_ended and (self.flight or self.is_ending):
            self._is_scheduled = True
            self._network.world.after(self._network.latency(), self._deliver)

    def _deliver(self) -> None:
        self._is_scheduled = False
        network = self._network
        if network.is_cut(self.source, self.target):
            network.held.append(self)
            return
        if self.flight and self.reader.is_closed:
            self.flight.clear()
            self.arrived.clear()
            self.writer.take_reset()  # a kernel answers so for a socket that nobody has any more
            return
        size = min(len(self.flight), ARRIVED_MAX - len(self.arrived))
        if size:
            if network.world.random.random() < network.slice_chance:
                size = network.world.random.randint(1, size)
            self.arrived += self.flight[:size]
            del self.flight[:size]
            if network.is_cut(self.target, self.source):
                self.unacknowledged += size
                network.held.append(self)
        if self.is_ending and not self.flight:
            self.has_ended = True
            if self.is_reset:
                self.reader.take_reset()
        network.world.mix(size)
        self.reader.wake()
        self.writer.wake()
        if len(self.arrived) < ARRIVED_MAX:
            self.schedule()

    def heal(self) -> None:
        """The partition is over."""
        self.unacknowledged = 0
        self.schedule()
        self.writer.wake()


class SimStream(Stream):
    """One end of a connection."""

    def __init__(self, loop: SimLoop, incoming: Direction, outgoing: Direction, peer_address: str) -> None:
        self.loop = loop
        self.is_closed = False
        self._world = loop.world
        self._incoming = incoming
        self._outgoing = outgoing
        self._is_reset = False
        self._peer_address = peer_address
        self._readable: Callable[[], object] | None = None
        self._writable: Callable[[], object] | None = None
        self._is_scheduled = False
        incoming.reader = outgoing.writer = self

    @property
    def peer_address(self) -> str:
        return self._peer_address

    @property
    def parties(self) -> tuple[int, int]:
        """Ours and the other one."""
        return self._outgoing.source, self._outgoing.target

    def move_to(self, loop: SimLoop) -> None:
        """Another process of the same party gets the descriptor."""
        self.loop = loop

    # Bytes.

    def try_send(self, views: Sequence[Buffer]) -> int | None:
        self._require_open()
        outgoing = self._outgoing
        if self._is_reset:
            raise ConnectionResetError(errno.ECONNRESET, RESET)
        if outgoing.is_ending:
            raise BrokenPipeError(errno.EPIPE, "the sending half was shut down")
        room = outgoing.room
        if room <= 0:
            return None
        if self._world.random.random() < self._outgoing._network.slice_chance:
            room = self._world.random.randint(1, room)
        taken = 0
        for view in views[:VIEWS_MAX]:
            part = memoryview(view)[: room - taken]
            outgoing.flight += part
            taken += len(part)
            if taken == room:
                break
        outgoing.schedule()
        return taken

    def try_recv_into(self, view: memoryview) -> int | None:
        self._require_open()
        incoming = self._incoming
        if not incoming.arrived:
            if self._is_reset:
                raise ConnectionResetError(errno.ECONNRESET, RESET)
            return 0 if incoming.has_ended else None
        size = min(len(view), len(incoming.arrived))
        if self._world.random.random() < incoming._network.slice_chance:
            size = self._world.random.randint(1, size)
        view[:size] = incoming.arrived[:size]
        del incoming.arrived[:size]
        incoming.schedule()
        return size

    def shutdown_write(self) -> None:
        self._require_open()
        if not self._is_reset:
            self._outgoing.is_ending = True
            self._outgoing.schedule()

    # Readiness.

    def on_readable(self, callback: Callable[[], object] | None) -> None:
        if callback is not None:
            self._require_open()
        self._readable = callback
        self.wake()

    def on_writable(self, callback: Callable[[], object] | None) -> None:
        if callback is not None:
            self._require_open()
        self._writable = callback
        self.wake()

    def wake(self) -> None:
        """Something may be possible that was not."""
        if self._is_scheduled or self.is_closed:
            return
        if (self._readable and self._is_readable) or (self._writable and self._is_writable):
            self._is_scheduled = True
            self.loop.call_soon(self._call_back)

    @property
    def _is_readable(self) -> bool:
        return self._is_reset or self._incoming.has_news

    @property
    def _is_writable(self) -> bool:
        return self._is_reset or self._outgoing.is_ending or self._outgoing.room > 0

    def _call_back(self) -> None:
        self._is_scheduled = False
        if self._readable and self._is_readable:
            self._readable()
        if self._writable and self._is_writable:
            self._writable()
        self.wake()  # level-triggered: again while it holds

    # Ending.

    def close(self) -> None:
        if self.is_closed:
            return
        if self._incoming.arrived:
            self._reset_other()  # as TCP does: unread bytes turn an orderly end into a reset
        else:
            self._outgoing.is_ending = True
        self._end()

    def abort(self) -> None:
        if not self.is_closed:
            self._reset_other()
            self._end()

    def take_reset(self) -> None:
        """The other end, or what is left of it, has broken the connection. What had arrived can be read."""
        if not self._is_reset:
            self._is_reset = True
            self._outgoing.flight.clear()
            self._outgoing.is_ending = self._outgoing.is_reset = True
            self._outgoing.schedule()
            self.wake()

    def _reset_other(self) -> None:
        outgoing = self._outgoing
        if outgoing.has_ended:
            return
        if outgoing.flight:  # a part of it was on the wire already
            del outgoing.flight[self._world.random.randint(0, len(outgoing.flight)) :]
        outgoing.is_ending = outgoing.is_reset = True

    def _end(self) -> None:
        self.is_closed = True
        self._readable = self._writable = None
        self._incoming.arrived.clear()
        self._outgoing.schedule()
        self._outgoing._network.streams.pop(self, None)

    def _require_open(self) -> None:
        if self.is_closed:
            raise OSError(errno.EBADF, "the stream is closed")


class Network:
    """All connections of one world."""

    def __init__(self, world: World, capacity: int, latency_s: tuple[float, float], slice_chance: float) -> None:
        """`latency_s`: least and most of one delivery; `slice_chance`: that a call or delivery moves only a part."""
        self.world = world
        self.capacity = capacity
        self.slice_chance = slice_chance
        self.held: list[Direction] = []
        self.streams: dict[SimStream, None] = {}
        self.gateways: dict[int, Callable[[SimStream], object]] = {}
        """Party -> who accepts there, as long as anybody does."""
        self._latency_s = latency_s
        self._cuts: dict[tuple[int, int], int] = {}

    def latency(self) -> float:
        return self.world.random.uniform(*self._latency_s)

    # Cuts.

    def is_cut(self, source: int, target: int) -> bool:
        return (source, target) in self._cuts

    def cut(self, source: int, target: int) -> None:
        """Nothing arrives from `source` at `target`; cuts of the same direction add up."""
        self._cuts[source, target] = self._cuts.get((source, target), 0) + 1

    def heal(self, source: int, target: int) -> None:
        left = self._cuts.pop((source, target)) - 1
        if left:
            self._cuts[source, target] = left
        held, self.held = self.held, []
        for direction in held:
            direction.heal()

    def of_loop(self, loop: SimLoop) -> list[SimStream]:
        return [stream for stream in self.streams if stream.loop is loop]

    def between(self, one: int, other: int) -> list[SimStream]:
        """Our ends of the connections from `one` to `other`."""
        return [stream for stream in self.streams if stream.parties == (one, other)]

    # Connecting.

    def dial(self, source: int, target: int, loop: SimLoop, answer: asyncio.Future[Stream]) -> None:
        """A SYN arrives, or is repeated."""
        if answer.done() or loop.is_dead:
            return
        if self.is_cut(source, target) or self.is_cut(target, source):
            self.world.after(0.5, self.dial, source, target, loop, answer)
            return
        gateway = self.gateways.get(target)
        if gateway is None:
            answer.set_exception(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"))
            return
        there, back = Direction(self, source, target), Direction(self, target, source)
        ours = SimStream(loop, back, there, f"party {target}")
        theirs = SimStream(loop, there, back, f"party {source}")
        self.streams[ours] = self.streams[theirs] = None
        answer.set_result(ours)
        gateway(theirs)


class SimTransport(Transport):
    """The network as one process of one party sees it. Ports are party indices."""

    def __init__(self, network: Network, party: int, loop: SimLoop) -> None:
        self._network = network
        self._party = party
        self._loop = loop

    async def resolve(self, host: str, port: int) -> list[Address]:
        return [(host, port)]

    async def connect(self, address: Address, client_host: str | None, timeout_s: float) -> Stream:
        answer: asyncio.Future[Stream] = self._loop.create_future()
        self._network.world.after(
            self._network.latency(), self._network.dial, self._party, address[1] - 1, self._loop, answer
        )
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise TimeoutError(errno.ETIMEDOUT, "Connection timed out") from None
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                answer.result().close()
            raise

    def listen(self, host: str, port: int, on_accept: Callable[[Stream], object]) -> Listener:
        raise OSError(errno.EOPNOTSUPP, "gateways accept in a simulation")
