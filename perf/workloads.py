"""The workloads, defined once for every contender, in terms that all of them share: send to a party, receive from one.

A workload is played by `sessions` coroutines at each party, one for each session, over whatever a contender offers as a
channel (contender.py). A PartyWire `Session` is such a channel as it stands, so ours pays for no adapter.

A unit is what the rate counts: once for all parties together, summed over the sessions. All payloads are zeros made
before the clock starts, except in the first bytes where the order of messages is checked; no contender compresses.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable


class Channel(Protocol):
    """One session at one party. Peers are named by index. Per peer and direction, messages arrive in order.

    A channel may also have `async def sleep(seconds)`, where asyncio.sleep is not the way to wait under its contender.
    """

    def send(self, peer: int, value: bytes, /) -> Awaitable[object]:
        """Returns when the value may be reused; may wait for room."""

    def recv(self, peer: int, /) -> Awaitable[bytes]:
        """The peer's next message of this session."""


class Stopwatch:
    """Collects the latencies of one session, in nanoseconds. Sessions that are not sampled get None instead of one."""

    __slots__ = ("latencies_ns",)

    def __init__(self) -> None:
        self.latencies_ns: list[int] = []


class Workload(Protocol):
    """What is measured. Instances are small, frozen, and travel to the party processes as JSON (see NAMED)."""

    name: ClassVar[str]
    unit: ClassVar[str]
    """What is counted: "round", "message", "job"."""

    @property
    def parties(self) -> int:
        """How many parties take part."""

    @property
    def sessions(self) -> int:
        """How many sessions play at once, at every party."""

    @property
    def counted_sessions(self) -> int:
        """How many of them, from the first on, are counted in the rate and in the latencies."""

    @property
    def messages_per_unit(self) -> int:
        """Messages of all parties together in one unit of one session."""

    @property
    def bytes_per_unit(self) -> int:
        """Payload bytes of these messages."""

    async def play(self, channel: Channel, party: int, session: int, units: int, stopwatch: Stopwatch | None) -> None:
        """Run one session's share at one party, `units` times."""


class EverySession:
    """What workloads share in which every session does the same, with messages of one size."""

    if TYPE_CHECKING:
        sessions: int
        size: int

        @property
        def messages_per_unit(self) -> int: ...

    @property
    def counted_sessions(self) -> int:
        return self.sessions

    @property
    def bytes_per_unit(self) -> int:
        return self.messages_per_unit * self.size


@dataclass(frozen=True, slots=True)
class RingRounds(EverySession):
    """Every session at every party sends `size` bytes to the next party and waits for as many from the previous."""

    name: ClassVar[str] = "ring"
    unit: ClassVar[str] = "round"
    sessions: int
    size: int
    parties: int = 3

    @property
    def messages_per_unit(self) -> int:
        return self.parties

    async def play(self, channel: Channel, party: int, session: int, units: int, stopwatch: Stopwatch | None) -> None:
        payload = bytes(self.size)
        to, of = (party + 1) % self.parties, (party - 1) % self.parties
        if stopwatch is None:
            for _ in range(units):
                await channel.send(to, payload)
                message = await channel.recv(of)
        else:
            clock = time.monotonic_ns
            record = stopwatch.latencies_ns.append
            for _ in range(units):
                start = clock()
                await channel.send(to, payload)
                message = await channel.recv(of)
                record(clock() - start)
        if units:
            check_size(message, self.size)


@dataclass(frozen=True, slots=True)
class PingPong(EverySession):
    """Two parties; each session of party 0 sends `size` bytes and party 1 sends them back."""

    name: ClassVar[str] = "pingpong"
    unit: ClassVar[str] = "round trip"
    sessions: int
    size: int
    parties: int = 2

    @property
    def messages_per_unit(self) -> int:
        return 2

    async def play(self, channel: Channel, party: int, session: int, units: int, stopwatch: Stopwatch | None) -> None:
        if party == 0:
            payload = bytes(self.size)
            clock = time.monotonic_ns
            for _ in range(units):
                start = clock()
                await channel.send(1, payload)
                message = await channel.recv(1)
                if stopwatch is not None:
                    stopwatch.latencies_ns.append(clock() - start)
        else:
            for _ in range(units):
                message = await channel.recv(0)
                await channel.send(0, message)
        if units:
            check_size(message, self.size)


@dataclass(frozen=True, slots=True)
class OneWay(EverySession):
    """Two parties; party 0 sends messages of `size` bytes as fast as party 1 takes them, which says so at the end.

    With large messages a stream (MB/s), with small ones over many sessions a message rate. At most two windows of
    `WINDOW_SIZE` bytes, or two messages, are under way in each session: party 1 answers with one byte for each window,
    so that contenders with unbounded queues cannot pile everything up in memory and be called fast for it.
    """

    WINDOW_SIZE: ClassVar[int] = 4 * 1024 * 1024
    name: ClassVar[str] = "oneway"
    unit: ClassVar[str] = "message"
    sessions: int
    size: int
    parties: int = 2

    @property
    def messages_per_unit(self) -> int:
        return 1

    async def play(self, channel: Channel, party: int, session: int, units: int, stopwatch: Stopwatch | None) -> None:
        window = max(1, self.WINDOW_SIZE // self.size)
        payload = bytes(self.size)
        peer = 1 - party
        for number in range(units):
            last = number == units - 1
            if party == 0:
                await channel.send(peer, payload)
                # One window ahead: the answer to the window before the last one is waited for.
                if (number + 1) % window == 0 and number >= window:
                    await channel.recv(peer)
                if last and units >= window:
                    await channel.recv(peer)
                if last and units % window:
                    await channel.recv(peer)
            else:
                check_size(await channel.recv(peer), self.size)
                if (number + 1) % window == 0 or last:
                    await channel.send(peer, b"\x01")


@dataclass(frozen=True, slots=True)
class AllToAll(EverySession):
    """In each round every session at every party sends `size` bytes to all others and waits for as many from each."""

    name: ClassVar[str] = "alltoall"
    unit: ClassVar[str] = "round"
    sessions: int
    size: int
    parties: int = 3

    @property
    def messages_per_unit(self) -> int:
        return self.parties * (self.parties - 1)

    async def play(self, channel: Channel, party: int, session: int, units: int, stopwatch: Stopwatch | None) -> None:
        payload = bytes(self.size)
        others = [other for other in range(self.parties) if other != party]
        clock = time.monotonic_ns
        for _ in range(units):
            start = clock()
            for other in others:
                await channel.send(other, payload)
            for other in others:
                message = await channel.recv(other)
            if stopwatch is not None:
                stopwatch.latencies_ns.append(clock() - start)
        if units:
            check_size(message, self.size)


@dataclass(frozen=True, slots=True)
class IrisTrace:
    """One comparison of iris-mpc's networking bench: 27 messages, all to the next party, with their dependencies.

    Source: reference/iris.md 6.1. The sizes there are wire bytes; less 9 bytes of session id, descriptor and length
    they leave the payloads. The 25-byte step is a chain of two hops and the 9-byte step one of three around the ring,
    whose first hop belongs to party (session mod 3): that party sends at once, the others when the hop before theirs
    has come. One unit is one job (comparison).
    """

    name: ClassVar[str] = "iris"
    unit: ClassVar[str] = "job"
    WIRE_SIZES: ClassVar[tuple[int, ...]] = (137, *(13,) * 16, 25, 13, 9, 257, 241, 129, 65, 33, 13, 5)
    CHAIN_OF_2: ClassVar[int] = 17
    CHAIN_OF_3: ClassVar[int] = 19
    sessions: int = 32
    parties: int = 3

    @property
    def counted_sessions(self) -> int:
        return self.sessions

    @property
    def messages_per_unit(self) -> int:
        return self.parties * len(self.WIRE_SIZES)

    @property
    def bytes_per_unit(self) -> int:
        return self.parties * sum(payload_size(size) for size in self.WIRE_SIZES)

    async def play(self, channel: Channel, party: int, session: int, units: int, stopwatch: Stopwatch | None) -> None:
        to, of = (party + 1) % self.parties, (party - 1) % self.parties
        role = (party - session) % self.parties
        steps = [
            # Whether this party must have heard from the previous one before it sends.
            (bytes(payload_size(size)), (at == self.CHAIN_OF_2 and role == 1) or (at == self.CHAIN_OF_3 and role != 0))
            for at, size in enumerate(self.WIRE_SIZES)
        ]
        clock = time.monotonic_ns
        for _ in range(units):
            start = clock()
            for payload, receives_first in steps:
                if receives_first:
                    await channel.recv(of)
                    await channel.send(to, payload)
                else:
                    await channel.send(to, payload)
                    await channel.recv(of)
            if stopwatch is not None:
                stopwatch.latencies_ns.append(clock() - start)


@dataclass(frozen=True, slots=True)
class BesideStream:
    """Session 0 plays ring rounds of `size` bytes while session 1 of every party streams to the next one.

    The stream is held at `stream_mb_s` megabytes a second by its sender (and is slower where it cannot keep up; the
    report says what was reached); `stream_mb_s = 0` gives the idle latency. A unit is one small round; the stream goes
    on until the small rounds are over, and its end is a message of one byte. What session 1 records are the gaps
    between the arrivals of its messages.
    """

    AHEAD: ClassVar[int] = 4
    """Messages of the stream that a party may be ahead of the one before it, which bounds what is under way."""
    LATE_MAX_NS: ClassVar[int] = 20_000_000
    """A sender that is later than this gives up what it missed, and does not send it all at once."""
    name: ClassVar[str] = "beside"
    unit: ClassVar[str] = "round"
    size: int = 64
    stream_mb_s: int = 200
    stream_message_size: int = 256 * 1024
    parties: int = 3
    plays: PlayCounts = field(default_factory=lambda: PlayCounts(), init=False, repr=False, compare=False)
    """At this party. How session 1 knows that session 0 is done."""

    @property
    def sessions(self) -> int:
        return 2

    @property
    def counted_sessions(self) -> int:
        return 1

    @property
    def messages_per_unit(self) -> int:
        return self.parties

    @property
    def bytes_per_unit(self) -> int:
        return self.parties * self.size

    async def play(self, channel: Channel, party: int, session: int, units: int, stopwatch: Stopwatch | None) -> None:
        if session == 0:
            try:
                await RingRounds(1, self.size, self.parties).play(channel, party, session, units, stopwatch)
            finally:
                self.plays.rounds_over += 1
        elif self.stream_mb_s:
            self.plays.streams_begun += 1
            await self._stream(channel, party, stopwatch or Stopwatch())

    async def _stream(self, channel: Channel, party: int, stopwatch: Stopwatch) -> None:
        to, of = (party + 1) % self.parties, (party - 1) % self.parties
        payload = bytes(self.stream_message_size)
        interval_ns = self.stream_message_size * 1_000 // self.stream_mb_s
        clock = time.monotonic_ns
        sleep = getattr(channel, "sleep", asyncio.sleep)
        due = clock()
        arrived = 0
        sent = 0
        is_over_there = False
        while self.plays.rounds_over < self.plays.streams_begun:
            # Also when it is late: others have to get their turn.
            await sleep(max(0, due - clock()) / 1e9)
            due = max(due + interval_ns, clock() - self.LATE_MAX_NS)
            await channel.send(to, payload)
            sent += 1
            if sent > self.AHEAD and not is_over_there:
                is_over_there, arrived = await self._take(channel, of, arrived, stopwatch)
        await channel.send(to, b"\x01")
        while not is_over_there:
            is_over_there, arrived = await self._take(channel, of, arrived, stopwatch)

    async def _take(self, channel: Channel, of: int, before: int, stopwatch: Stopwatch) -> tuple[bool, int]:
        """Whether the next message of the stream was its end, and when it came."""
        message = await channel.recv(of)
        now = time.monotonic_ns()
        if len(message) == 1:
            return True, now
        check_size(message, self.stream_message_size)
        if before:
            stopwatch.latencies_ns.append(now - before)
        return False, now


@dataclass(slots=True)
class PlayCounts:
    """How many plays of a BesideStream one party has begun or ended."""

    rounds_over: int = 0
    streams_begun: int = 0


@dataclass(frozen=True, slots=True)
class IdleSeconds:
    """All sessions wait for a byte that party 0 sends after `units` seconds: what does doing nothing cost?

    Not in WORKLOADS, as its rate says nothing; idle.py looks at the counters meanwhile.
    """

    name: ClassVar[str] = "idle"
    unit: ClassVar[str] = "second"
    sessions: int
    parties: int = 3

    @property
    def counted_sessions(self) -> int:
        return self.sessions

    @property
    def messages_per_unit(self) -> int:
        return 0

    @property
    def bytes_per_unit(self) -> int:
        return 0

    async def play(self, channel: Channel, party: int, session: int, units: int, stopwatch: Stopwatch | None) -> None:
        if party == 0:
            await getattr(channel, "sleep", asyncio.sleep)(units)
            for other in range(1, self.parties):
                await channel.send(other, b"\x01")
        else:
            check_size(await channel.recv(0), 1)


def payload_size(wire_size: int) -> int:
    """The payload of a frame of the iris trace: all have a header of 9 bytes but the bit, which has one of 5."""
    return max(wire_size - 9, 1)


def check_size(message: bytes, size: int) -> None:
    """A contender that loses bytes is not measured but stopped."""
    if len(message) != size:
        raise RuntimeError(f"a message of {len(message)} bytes arrived where {size} were sent")


def bulk_sessions(work: Workload) -> tuple[int, ...]:
    """The sessions, by number, whose large messages go beside small ones of others: who has a class for such sessions
    uses it for these."""
    return (1,) if work.name == BesideStream.name else ()


WORKLOADS: dict[str, type[Workload]] = {
    kind.name: kind for kind in (RingRounds, PingPong, OneWay, AllToAll, IrisTrace, BesideStream)
}
"""By name, for the command line and for the party processes."""


def workload_kind(name: str) -> type[Workload]:
    """Raises KeyError when there is none of that name."""
    return IdleSeconds if name == IdleSeconds.name else WORKLOADS[name]
