"""Takes in who dials us: the first byte, Noise, the identity, and whether it is wanted.

Between the transports and the pool. The one invariant: at most `inbound_upgrades_max` streams are with us that are no
peers yet, a bounded share of them from one host (`strangers`), and each is a peer or gone within the deadlines of its
steps. Nothing that somebody says before its identity is proven has a consequence for anybody but its own stream.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from ..substreams.connection import SubstreamConnection
from .connection import SubstreamGate
from .contract import Direction
from .errors import PeerRefused, RefusalCode, UpgradeFailed
from .events import InboundFailed
from .identity_exchange import IdentityMessage, IdentityReader
from .introductions import introduce_accepted
from .strangers import Strangers
from .upgrade import echo_liveness, read_first_byte, secure_accepted
from .wire import LivenessPermits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..multiaddr import Multiaddr
    from ..noise import PublicKey
    from ..transport import Stream
    from .claims import PeerClaim
    from .dialling import NodeParts

_LOG: Final = logging.getLogger("partywire.peers")

_REASONS: Final = {
    RefusalCode.BANNED: "the peer is banned",
    RefusalCode.FULL: "no room for another connection at the moment",
    RefusalCode.DUPLICATE: "the connection that stands stays",
    RefusalCode.OURSELVES: "both ends are the same peer",
    RefusalCode.NOT_ALLOWED: "the peer is not on the list of those that may dial",
}

_CROWDED_OUT: Final = "it had not shown who it is when others came"


class PeerAcceptor:
    """Takes streams of any number of listenings. Of one event loop."""

    def __init__(self, parts: NodeParts) -> None:
        self._parts = parts
        self._permits = LivenessPermits(parts.options.liveness_permits, parts.options.liveness_networks)
        options = parts.options
        self._strangers: Strangers[asyncio.Task[None]] = Strangers(
            options.inbound_upgrades_max, options.inbound_share_max, options.inbound_rate_max
        )
        self._tasks: dict[asyncio.Task[None], Multiaddr] = {}
        self._expected: dict[bytes, asyncio.Event] = {}  # lines of our own checks, and whether they came
        self._is_over = False

    def accept(self, stream: Stream, address: Multiaddr) -> None:
        """Owns a stream that came from `address`."""
        loop = asyncio.get_running_loop()
        counters = self._parts.counters
        counters.inbound += 1
        if self._is_over or not self._strangers.may_enter(address, loop.time()):
            counters.inbound_refused += 1
            stream.abort()
            return
        task = loop.create_task(self._run(stream, address))
        self._tasks[task] = address
        if (crowded_out := self._strangers.enter(task, address)) is not None:
            counters.inbound_refused += 1
            self._parts.hub.publish(InboundFailed(self._tasks[crowded_out], _CROWDED_OUT))
            crowded_out.cancel()

        def is_done(task: asyncio.Task[None]) -> None:
            del self._tasks[task]
            self._strangers.leave(task)
            if task.cancelled():
                stream.abort()  # a task that is cancelled at once never runs

        task.add_done_callback(is_done)

    async def aclose(self) -> None:
        """Give up everybody who is no peer yet."""
        self._is_over = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(self, stream: Stream, address: Multiaddr) -> None:
        try:
            await self._take_in(stream, address)
        except UpgradeFailed as error:
            if isinstance(error, PeerRefused) and error.code is RefusalCode.DUPLICATE:
                self._parts.counters.duplicates += 1
                return
            self._parts.counters.inbound_failed += 1
            self._parts.hub.publish(InboundFailed(address, str(error)))
        except Exception:
            _LOG.exception("a connection from %s failed", address)
            stream.abort()

    async def _take_in(self, stream: Stream, address: Multiaddr) -> None:
        parts = self._parts
        if await read_first_byte(stream, str(address), parts.options):
            await self._echo(stream, address)
            return
        secured, noise_key = await secure_accepted(stream, str(address), parts.identity.noise_key, parts.options)
        gate = SubstreamGate()
        connection = SubstreamConnection(
            asyncio.get_running_loop(),
            secured,
            is_client=False,
            on_substream=gate,
            peer=str(address),
            limits=parts.options.substreams,
        )
        connection.closed.add_done_callback(gate.end)
        connection.start()
        is_established = False

        def establish(message: IdentityMessage) -> IdentityMessage:
            nonlocal is_established
            ours = IdentityMessage(parts.our_claim(), address)
            parts.establish(connection, gate, message, Direction.ACCEPTED, address, ours.claim)
            is_established = True
            if (task := asyncio.current_task()) is not None:
                self._strangers.leave(task)
            return ours

        try:
            await introduce_accepted(
                gate,
                self._is_banned(noise_key),
                IdentityReader(noise_key.raw, parts.clock, has_verdict=False, is_local=parts.options.is_local),
                self._admit,
                establish,
                str(address),
                parts.options.identity_timeout_s,
            )
        except UpgradeFailed as error:
            if not is_established and isinstance(error, PeerRefused):
                await connection.aclose(parts.options.close_timeout_s)  # until it has read why
            raise
        finally:
            if not is_established:
                connection.abort("it did not become a peer")

    async def _echo(self, stream: Stream, address: Multiaddr) -> None:
        is_permitted = self._permits.take(address)
        if not is_permitted and not self._expected:
            stream.abort()
            raise UpgradeFailed(str(address), "liveness echo", "it is not permitted from there, or not at the moment")
        try:
            self._parts.counters.liveness_echoes += 1
            await echo_liveness(stream, str(address), self._parts.options, self._heard)
        finally:
            if is_permitted:
                self._permits.give_back()

    @contextmanager
    def expecting(self, line: bytes) -> Iterator[asyncio.Event]:
        """A check of our own addresses will ask for an echo of `line`: until the end of the block nobody needs a permit
        for one. The event says that it came."""
        heard = self._expected[line] = asyncio.Event()
        try:
            yield heard
        finally:
            del self._expected[line]

    def _heard(self, lines: bytes) -> None:
        for line in lines.split(b"\n") if self._expected else ():
            if line in self._expected:
                self._expected[line].set()

    def _is_banned(self, noise_key: PublicKey) -> bool:
        """Whether we know whose key this is, and do not want it: nothing of it is looked at then."""
        peer_id = self._parts.book.peer_of_noise_key(noise_key.raw)
        if peer_id is None or self._parts.book.ban_of(peer_id) is None:
            return False
        self._parts.counters.banned_refused += 1
        return True

    async def _admit(self, claim: PeerClaim) -> tuple[RefusalCode, str] | None:
        allowed = self._parts.options.allowed
        code: RefusalCode | None = RefusalCode.NOT_ALLOWED
        if allowed is None or claim.peer_id in allowed:
            code = await self._parts.pool.admit(claim.peer_id)
        if self._parts.book.ban_of(claim.peer_id) is not None:  # also since a moment ago
            self._parts.counters.banned_refused += 1
            code = RefusalCode.BANNED
        return None if code is None else (code, _REASONS[code])
