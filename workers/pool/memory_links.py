"""Links between pools of one process: for tests of programs that use a pool, without a socket or a process.

A `MemoryNetwork` is what the pools share; each has its `links(name)`. Messages are handed over in a later turn of the
loop, as everywhere. Losses can be had: `cut` and `kill` end the channels of two pools, or of one with all others, as a
broken connection or a killed process would. The one invariant: both ends of a channel live the same lives.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from partywire.engine.limits import MESSAGE_SIZE_MAX

from ..errors import AddressUnavailable, MessageTooLarge, PeerClosed, PeerLost, SessionError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from partywire.engine.frames import Buffer

    from .links import PeerChannel, PoolLinks, Receiver

BUFFER_SIZE: Final = 4 << 20
"""Bytes on their way in one direction, beyond which a send waits: as much as the ring of a real link holds."""

FIRST_PORT: Final = 49152


class MemoryNetwork:
    """Pools that can reach each other, by name. All in one thread and one event loop."""

    def __init__(self) -> None:
        self._links: dict[str, MemoryLinks] = {}
        self.next_port = FIRST_PORT

    def links(self, name: str) -> PoolLinks:
        """The links of the pool that the others call `name`; once more after its end, for a restarted one.

        Raises:
            ValueError: a pool of that name is there.
        """
        if name in self._links and not self._links[name].is_over:
            raise ValueError(f"there is a pool {name} already")
        links = self._links[name] = MemoryLinks(self, name)
        return links

    def cut(self, one: str, other: str) -> None:
        """Break the channel between two pools: both get PeerLost."""
        for channel in self._links[one].channels.values():
            if channel.name == other:
                channel.end("the connection was cut")

    def kill(self, name: str) -> None:
        """End one pool as if its process had been killed: all others get PeerLost."""
        self._links[name].kill()

    def other_end(self, channel: MemoryChannel) -> MemoryChannel | None:
        """The channel of the peer to us, once it has one."""
        links = self._links.get(channel.name)
        if links is None or links.is_over:
            return None
        return links.channels.get(channel.owner)


class MemoryLinks:
    """See PoolLinks."""

    def __init__(self, network: MemoryNetwork, name: str) -> None:
        self.network = network
        self.name = name
        self.channels: dict[str, MemoryChannel] = {}
        self.loop: asyncio.AbstractEventLoop | None = None
        self.is_over = False
        self._port = 0

    def listen(self, addr: str, port: int) -> int:
        """Needs nothing: pools find each other by name."""
        if self._port:
            raise AddressUnavailable(self.name, f"{self.name} listens already")
        self.network.next_port += 1
        self._port = port or self.network.next_port
        return self._port

    def add_peer(self, name: str, addr: str | None, port: int | None, cert: Path | None) -> PeerChannel:
        """See PoolLinks; only the name counts."""
        if name in self.channels:
            raise ValueError(f"{name} is a peer already")
        channel = self.channels[name] = MemoryChannel(self, name)
        channel.try_open()
        return channel

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """See PoolLinks."""
        self.loop = loop
        for channel in self.channels.values():
            channel.try_open()

    async def close(self, timeout: float) -> None:
        """See PoolLinks. What is under way is delivered before the goodbye; nothing is waited for."""
        self._end(clean=True)

    def kill(self) -> None:
        """See PoolLinks."""
        self._end(clean=False)

    def _end(self, clean: bool) -> None:
        if self.is_over:
            return
        self.is_over = True
        for channel in self.channels.values():
            channel.end_with(None if clean else "its process was killed")


class MemoryChannel:
    """See PeerChannel. The end at one pool; `_far` is the other one while a life lasts."""

    def __init__(self, links: MemoryLinks, name: str) -> None:
        self._links = links
        self.name = name
        self.owner = links.name
        self._receiver: Receiver | None = None
        self._far: MemoryChannel | None = None
        self._is_ready = True
        self._failure: SessionError | None = None
        self._life = 0
        # What has come and is not delivered: messages, and the end of the life.
        self._arrived: deque[bytes | bytearray | SessionError] = deque()
        self._arrived_size = 0
        self._is_paused = False
        self._is_scheduled = False
        self._room = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """See PeerChannel."""
        return self._far is not None

    @property
    def why_not_open(self) -> str:
        """See PeerChannel."""
        return f"no pool {self.name} of this process has added {self.owner} yet"

    def attach(self, receiver: Receiver) -> None:
        """See PeerChannel."""
        self._receiver = receiver

    # Lives.

    def try_open(self) -> None:
        """Begin a life if both ends are there, in loops, and none is open."""
        far = self._links.network.other_end(self)
        if far is None or not self._can_open() or not far._can_open():
            return
        life = max(self._life, far._life) + 1
        for end, other in ((self, far), (far, self)):
            end._far = other
            end._is_ready = False
            end._life = life
            end._failure = None
            loop = end._links.loop
            assert loop is not None
            loop.call_soon(end._tell_opened, life)

    def _can_open(self) -> bool:
        return self._is_ready and self._far is None and self._links.loop is not None and not self._links.is_over

    def _tell_opened(self, life: int) -> None:
        if life == self._life and self._receiver is not None:
            self._receiver.channel_opened()
            self._schedule()

    def renew(self) -> None:
        """See PeerChannel."""
        if self._far is None:
            self._is_ready = True
            self._arrived.clear()
            self._arrived_size = 0
            self.try_open()

    def end(self, reason: str) -> None:
        """See PeerChannel."""
        self.end_with(reason)

    def end_with(self, reason: str | None) -> None:
        """End the life at both ends; without a reason it is a goodbye."""
        far, self._far = self._far, None
        if far is None:
            return
        far._far = None
        self._lose(PeerLost(self.name, None, self._life, reason or "the pool was shut down"))
        far._lose(
            PeerClosed(self.owner, None, self._life, "pool")
            if reason is None
            else PeerLost(self.owner, None, self._life, reason)
        )

    def _lose(self, error: SessionError) -> None:
        self._failure = error
        self._arrived.append(error)
        self._room.set()
        self._schedule()

    # Sending.

    def check_size(self, nbytes: int) -> None:
        """See PeerChannel."""
        if nbytes > MESSAGE_SIZE_MAX:
            raise MessageTooLarge(0, self.name, nbytes, MESSAGE_SIZE_MAX, "")

    def try_send(self, parts: Sequence[Buffer], nbytes: int, is_raw: bool = False) -> bool:
        """See PeerChannel."""
        far = self._open_end()
        self.check_size(nbytes)
        if far._arrived_size > BUFFER_SIZE:
            return False
        far._take(b"".join(parts) if is_raw else bytearray().join(parts))
        return True

    async def send(self, parts: Sequence[Buffer], nbytes: int, is_raw: bool = False) -> None:
        """See PeerChannel."""
        while not self.try_send(parts, nbytes, is_raw):
            self._room.clear()
            await self._room.wait()

    def _open_end(self) -> MemoryChannel:
        if self._far is None:
            failure = self._failure or PeerLost(self.name, None, self._life, "it was never there")
            raise failure.again()
        return self._far

    # Receiving.

    def _take(self, data: bytes | bytearray) -> None:
        self._arrived.append(data)
        self._arrived_size += len(data)
        self._schedule()

    def _schedule(self) -> None:
        loop = self._links.loop
        if not self._is_scheduled and self._arrived and loop is not None and not loop.is_closed():
            self._is_scheduled = True
            loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._is_scheduled = False
        receiver = self._receiver
        arrived = self._arrived
        while receiver is not None and arrived:
            if self._is_paused and not isinstance(arrived[-1], PeerLost):
                return
            data = arrived[-1] if self._is_paused else arrived.popleft()
            if isinstance(data, SessionError):
                # What a lost peer sent and nobody has read yet is lost with it.
                arrived.clear()
                self._arrived_size = 0
                receiver.channel_ended(data)
                return
            self._arrived_size -= len(data)
            receiver.message_arrived(data)
        if self._far is not None:
            self._far._room.set()

    def pause_reading(self) -> None:
        """See PeerChannel."""
        self._is_paused = True

    def resume_reading(self) -> None:
        """See PeerChannel."""
        self._is_paused = False
        self._schedule()
