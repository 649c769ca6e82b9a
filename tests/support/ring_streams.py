"""Pairs of streams by rings, both ends in one process and loop, each on its own mappings as two processes have them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from partywire.engine.memory import MemoryTransport
from partywire.engine.ring_stream import RingDoorbell, RingStream
from partywire.shm.doorbell import Bell, Doorbell
from partywire.shm.fence import probe
from partywire.shm.ring import RingReader, RingWriter
from partywire.shm.segment import Segment

if TYPE_CHECKING:
    import asyncio

    from partywire.engine.addresses import Address
    from partywire.engine.transport import Stream

EPOCH = 7


class OwningRingStream(RingStream):
    """One end with everything that belongs to it; closing it closes all of that."""

    def __init__(self, loop: asyncio.AbstractEventLoop, segments: tuple[int, int], doorbell: Doorbell, bell: Bell):
        """`segments`: of the ring that is read and of the one that is written."""
        fence = probe()
        self.ring_reader = RingReader(Segment.attach(segments[0]), fence, bell)
        self.ring_writer = RingWriter(Segment.attach(segments[1]), fence, bell)
        super().__init__(self.ring_reader, self.ring_writer, EPOCH, loop.call_soon, "the other end")
        self._doorbell = doorbell
        self._bell = bell
        self._driver = RingDoorbell(loop, doorbell, self)

    def _leave(self) -> None:
        super()._leave()
        self._driver.close()
        self._doorbell.close()
        self._bell.close()


def ring_pair(loop: asyncio.AbstractEventLoop, size: int) -> tuple[OwningRingStream, OwningRingStream]:
    """Two connected ends, with rings of `size` bytes."""
    fence = probe()
    doorbells = Doorbell.create(fence), Doorbell.create(fence)
    there, back = (Segment.create(size, ring_id) for ring_id in (1, 2))
    try:
        left, right = (
            OwningRingStream(
                loop,
                (os.dup(read.fileno()), os.dup(written.fileno())),
                doorbells[ours],
                Bell.from_fds(*map(os.dup, doorbells[1 - ours].fds)),
            )
            for ours, read, written in ((0, back, there), (1, there, back))
        )
    finally:
        there.close()
        back.close()
    return left, right


class RingTransport(MemoryTransport):
    """A network of its own whose streams are rings."""

    def __init__(self, loop: asyncio.AbstractEventLoop, size: int) -> None:
        super().__init__(loop)
        self._size = size

    async def connect(self, address: Address, client_host: str | None, timeout_s: float) -> Stream:
        """As Transport.connect."""
        if (listener := self.listeners.get(address)) is None:
            return await super().connect(address, client_host, timeout_s)
        ours, theirs = ring_pair(self._loop, self._size)
        self._loop.call_soon(listener.on_accept, theirs)
        return ours
