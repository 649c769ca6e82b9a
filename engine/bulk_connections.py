"""The bulk connections of a link: dialled while it stands, when the first session of their class needs them.

Between the keeper of the link and its openers on both sides. The one invariant: a bulk connection joins the attempt
that it was greeted for, with rings of its own, or is closed; one that cannot be made harms only what waits for it.

    asked for -> rings -> dial -> attach (docs/wire.md, Handshake) -> BulkLane to its worker

Both ends make their rings before the handshake is done, since behind it a connection that ends is a link that is lost;
but only once their own opener has asked, so that no stranger has memory reserved here. Both openers ask, when they have
agreed on sessions; a connection that is dialled before the acceptor's has waits for that.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from partywire.shm.errors import ShmError

from .attempt import Lane
from .bulk_commands import BulkFailed, BulkLane
from .channel.errors import CredentialError
from .connection_pump import BULK_SLICE_SIZE, ConnectionPump
from .dialler import DialFailed
from .errors import HandshakeRejected
from .greeting import GreetingFailed
from .limits import HANDSHAKE_TIMEOUT_S
from .topology import worker_of_connection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import TypeAlias

    from partywire.shm.doorbell import Bell
    from partywire.shm.fence import Fence

    from .attempt import Attempt
    from .bulk_commands import OpenBulk
    from .dialler import Dialler
    from .link_options import LinkOptions
    from .link_report import Home
    from .transport import Stream

    Dial: TypeAlias = Callable[[Attempt, Dialler, int], Awaitable[tuple[Stream, bytes]]]
    """Dial and greet a bulk connection by its index: the stream, and what came behind its handshake."""


class BulkConnections:
    """Of one link, over all of its attempts. Driven by the openers of both ends."""

    def __init__(
        self, home: Home, peer: int, options: LinkOptions, bells: Sequence[Bell], fence: Fence, dropped: set[int]
    ) -> None:
        """`dropped`: workers that are gone for good, which the keeper keeps up to date."""
        self._home = home
        self._peer = peer
        self._options = options
        self._bells = bells
        self._fence = fence
        self._dropped = dropped
        self._under_way: set[tuple[int, int]] = set()  # (epoch, connection) that we dial
        self._wanted: set[tuple[int, int]] = set()  # that our opener has asked for, of the latest epoch
        self._asked = asyncio.Event()  # set, and replaced, when it asks

    def want(self, attempt: Attempt, command: OpenBulk, *, we_dial: bool) -> list[int]:
        """Our opener asks. Returns which connections the caller has to `dial` now; no other call returns them again."""
        epoch = attempt.link.epoch
        asked = {
            (epoch, number)
            for number in command.connections
            if attempt.link.refusal_of_bulk_untrusted(number) is None
        }
        self._wanted = {known for known in self._wanted if known[0] == epoch} | asked
        self._asked.set()
        self._asked = asyncio.Event()
        if not we_dial:
            return []
        asked -= self._under_way
        self._under_way |= asked
        return sorted(number for _, number in asked)

    async def until_wanted(self, attempt: Attempt, number: int) -> bool:
        """Whether there is a place and memory for a connection that the peer dials, once our opener wants it."""
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                while attempt.link.refusal_of_bulk_untrusted(number) is None:
                    if (attempt.link.epoch, number) in self._wanted:
                        is_orphan = worker_of_connection(number, len(self._bells)) in self._dropped
                        return not is_orphan and self._reserve(attempt, number)
                    await self._asked.wait()
        except TimeoutError:
            pass
        return False

    async def dial(self, attempt: Attempt, dialler: Dialler, number: int, dial: Dial) -> None:
        """Dial until the connection stands, the attempt is over, or the connect timeout has passed, which is told."""
        cause = ""
        try:
            if not self._reserve(attempt, number):
                return
            async with asyncio.timeout(self._options.connect_timeout_s):
                while attempt.link.refusal_of_bulk_untrusted(number) is None:
                    try:
                        stream, received = await dial(attempt, dialler, number - attempt.link.connections)
                    except (HandshakeRejected, GreetingFailed, DialFailed) as error:
                        cause = str(error)
                        dialler.lost()
                        await dialler.back_off()
                        continue
                    self.join(attempt, stream, number, received)
                    return
        except TimeoutError:
            self._fail(attempt, number, f"not within {self._options.connect_timeout_s:g} s; {cause or 'no answer'}")
        except CredentialError as error:
            self._fail(attempt, number, str(error))
        finally:
            self._under_way.discard((attempt.link.epoch, number))

    def _reserve(self, attempt: Attempt, number: int) -> bool:
        """Have rings for a connection. False: there is no memory, which is told."""
        if number in attempt.bulk_lanes:
            return True
        bell = self._bells[worker_of_connection(number, len(self._bells))]
        ring_id = self._peer << 32 | number << 1
        try:
            attempt.bulk_lanes[number] = Lane(self._options.bulk_ring_size, ring_id, self._fence, bell)
        except ShmError as error:
            self._fail(attempt, number, str(error))
            return False
        return True

    def join(self, attempt: Attempt, stream: Stream, number: int, received: bytes) -> None:
        """A connection is the peer's from now on; `received` came behind its handshake. Owns the stream."""
        multiplexer, link, result = attempt.multiplexer, attempt.link, attempt.result
        if multiplexer is None or result is None or not link.may_join(number):
            stream.close()
            return
        lane = attempt.bulk_lanes[number]
        worker = worker_of_connection(number, len(self._bells))
        message = BulkLane(worker, self._peer, link.epoch, number, result.message_size_max)
        self._home.tell(message, lane.fds)
        pump = ConnectionPump(multiplexer, stream, lane.tx, lane.rx, number, link.epoch, slice_size=BULK_SLICE_SIZE)
        multiplexer.add_bulk(pump, received)

    def _fail(self, attempt: Attempt, number: int, cause: str) -> None:
        cause = f"{attempt.link.name_of(number)} cannot be made: {cause}"
        self._home.tell(BulkFailed(self._peer, attempt.link.epoch, cause))
