"""Dials peers: which address, when again, and from a connected stream to a connection that stands.

Between the pool and the transports. The one invariant: a dial ends with a connection to exactly the peer that was
asked for, whatever answers at its addresses; every other stream that it began is closed.

Addresses are tried in the order of the address book, the next one as soon as the one before it failed, or did not
connect within `dial_stagger_s`; the first that connects is upgraded while no other is tried. If none leads to the peer,
all are tried again after a pause, which doubles up to `back_off_max_s` and of which a random part is taken off.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..errors import PartyWireError
from ..noise import PublicKey
from ..substreams.connection import SubstreamConnection
from .address_rules import AddressRules
from .claims import ADDRESSES_MAX
from .connection import SubstreamGate
from .contract import Direction
from .errors import (
    ConnectionsClosed,
    PeerIsBanned,
    PeerNotKnown,
    PeerNotReached,
    PeerRefused,
    RefusalCode,
    UpgradeFailed,
)
from .events import PeerConnectFailed
from .identity_exchange import IdentityMessage, IdentityReader
from .introductions import introduce_dialled
from .pool import Dial
from .upgrade import secure_dialled

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from ..multiaddr import Multiaddr
    from ..transport import Stream
    from .claims import PeerClaim
    from .connection import EstablishedConnection
    from .contract import AddressBook, Transports
    from .counters import PeerCounters
    from .events import EventHub
    from .identity import NodeIdentity
    from .options import PeerOptions
    from .peer_id import PeerId
    from .pool import ConnectionPool

_LOG: Final = logging.getLogger("partywire.peers")

_FINAL: Final = (RefusalCode.BANNED, RefusalCode.OURSELVES, RefusalCode.NOT_ALLOWED)
"""What another attempt does not change."""


@dataclass(frozen=True, slots=True)
class NodeParts:
    """What both ways of making connections need."""

    identity: NodeIdentity
    transports: Transports
    book: AddressBook
    options: PeerOptions
    counters: PeerCounters
    hub: EventHub
    pool: ConnectionPool
    clock: Callable[[], float]
    """Seconds since the epoch."""
    our_claim: Callable[[], PeerClaim]
    establish: Callable[
        [SubstreamConnection, SubstreamGate, IdentityMessage, Direction, Multiaddr, PeerClaim], EstablishedConnection
    ]
    """Makes a connection that stands, of what the peer told and was told, before anything else happens in the loop."""


def back_off_s(attempt: int, options: PeerOptions, chance: random.Random) -> float:
    """The pause behind an attempt, counted from 1."""
    pause_s = min(options.back_off_min_s * 2.0 ** (attempt - 1), options.back_off_max_s)
    return pause_s * chance.uniform(0.5, 1.0)


class PeerDialler:
    """Dials any number of peers, each once at a time. Of one event loop."""

    def __init__(self, parts: NodeParts, chance: random.Random) -> None:
        self._parts = parts
        self._chance = chance
        self._slots = asyncio.Semaphore(parts.options.dials_max)
        self._never_dial = AddressRules(parts.options.never_dial)
        self._is_over = False

    async def connect(self, peer_id: PeerId) -> EstablishedConnection:
        """As ConnectionManager.connect."""
        pool = self._parts.pool
        while True:
            if self._is_over:
                raise ConnectionsClosed
            if (ban := self._parts.book.ban_of(peer_id)) is not None:
                raise PeerIsBanned(str(peer_id), ban.reason, ban.until)
            if (connection := pool.get(peer_id)) is not None:
                return connection
            dial = pool.dials.get(peer_id)
            if dial is None:
                dial = self._begin(peer_id)
            elif dial.result.done():
                # Nobody waits for it, or they got a connection that the peer dialled, which is over: it ends soon.
                assert dial.task is not None
                await asyncio.wait((dial.task,))
                continue
            return await self._wait(dial)

    def _begin(self, peer_id: PeerId) -> Dial:
        loop = asyncio.get_running_loop()
        dial = self._parts.pool.dials[peer_id] = Dial(peer_id, loop)
        dial.task = loop.create_task(self._run(dial))
        dial.task.add_done_callback(lambda _: self._forget(dial))  # a task that is cancelled at once never runs
        return dial

    def _forget(self, dial: Dial) -> None:
        dial.settle()
        del self._parts.pool.dials[dial.peer_id]
        self._fail(dial, ConnectionsClosed())

    async def _wait(self, dial: Dial) -> EstablishedConnection:
        dial.waiters += 1
        try:
            return await asyncio.shield(dial.result)
        finally:
            dial.waiters -= 1
            if not dial.waiters and not dial.result.done() and dial.task is not None:
                dial.result.cancel()  # so that nobody joins it any more
                dial.task.cancel()

    async def aclose(self) -> None:
        """End every dial."""
        self._is_over = True
        tasks = [dial.task for dial in self._parts.pool.dials.values() if dial.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # One dial.

    async def _run(self, dial: Dial) -> None:
        parts = self._parts
        try:
            async with self._slots:
                parts.counters.dials += 1
                connection = await self._reach(dial)
            if not dial.result.done():
                dial.result.set_result(connection)
        except PartyWireError as error:
            if not dial.result.done():
                parts.counters.dials_failed += 1
                parts.hub.publish(PeerConnectFailed(dial.peer_id, str(error)))
                parts.pool.connectivity.not_reached(dial.peer_id, str(error))
                self._fail(dial, error)
        except Exception as error:
            _LOG.exception("dialling peer %s failed", dial.peer_id)
            self._fail(dial, error)

    def _fail(self, dial: Dial, error: Exception) -> None:
        if not dial.result.done():
            dial.result.set_exception(error)
            dial.result.exception()  # with nobody left to hear it, it is no mistake

    async def _reach(self, dial: Dial) -> EstablishedConnection:
        parts = self._parts
        attempts = parts.options.dial_attempts
        causes: list[str] = []
        for attempt in range(1, attempts + 1):
            addresses = list(dict.fromkeys(parts.book.addresses_of(dial.peer_id)))[:ADDRESSES_MAX]
            if not addresses:
                raise PeerNotKnown(str(dial.peer_id))
            causes = []
            for address in [address for address in addresses if self._never_dial.covers(address)]:
                addresses.remove(address)
                causes.append(f"{address}: never_dial excludes it")
            if not addresses:
                raise PeerNotReached(str(dial.peer_id), attempt, tuple(causes))
            if (connection := await self._try(dial, addresses, causes, attempt)) is not None:
                return connection
            if attempt < attempts:
                await asyncio.sleep(back_off_s(attempt, parts.options, self._chance))
        raise PeerNotReached(str(dial.peer_id), attempts, tuple(causes))

    async def _try(
        self, dial: Dial, addresses: list[Multiaddr], causes: list[str], attempt: int
    ) -> EstablishedConnection | None:
        """Each address once, until one leads to the peer."""
        parts = self._parts

        def failed(address: Multiaddr, cause: str) -> None:
            parts.counters.addresses_failed += 1
            parts.book.dial_failed(dial.peer_id, address, cause)
            causes.append(f"{address}: {cause}")

        loop = asyncio.get_running_loop()
        while addresses:
            began_at = loop.time()
            found = await self._first_stream(addresses, failed)
            if found is None:
                return None
            address, stream = found
            addresses.remove(address)
            try:
                connection = await self._upgrade(dial, address, stream)
            except UpgradeFailed as error:
                failed(address, str(error))
                if (standing := parts.pool.get(dial.peer_id)) is not None:
                    return standing  # the peer dialled meanwhile
                if isinstance(error, PeerRefused) and error.code in _FINAL and not error.by_us:
                    raise PeerNotReached(str(dial.peer_id), attempt, tuple(causes)) from None
            else:
                if connection.address is address:  # else another one stays
                    parts.book.dial_succeeded(dial.peer_id, address, loop.time() - began_at)
                return connection
        return None

    async def _first_stream(
        self, addresses: list[Multiaddr], failed: Callable[[Multiaddr, str], None]
    ) -> tuple[Multiaddr, Stream] | None:
        """The first that connects; those that fail before are taken off `addresses`. Others that were begun are closed,
        and may be tried again."""
        options = self._parts.options
        untried = list(addresses)
        dials: dict[asyncio.Task[Stream], Multiaddr] = {}
        try:
            while untried or dials:
                if untried:
                    address = untried.pop(0)
                    dialling = self._parts.transports.dial(address, options.dial_timeout_s)
                    dials[asyncio.ensure_future(dialling)] = address
                done, _ = await asyncio.wait(
                    dials, timeout=options.dial_stagger_s if untried else None, return_when=asyncio.FIRST_COMPLETED
                )
                for task in [task for task in dials if task in done]:
                    error = task.exception()
                    if error is None:
                        return dials.pop(task), task.result()
                    address = dials.pop(task)
                    addresses.remove(address)
                    if not isinstance(error, OSError | PartyWireError):
                        raise error
                    failed(
                        address, (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
                    )
            return None
        finally:
            for task in dials:
                task.add_done_callback(_close_stream)
                task.cancel()

    async def _upgrade(self, dial: Dial, address: Multiaddr, stream: Stream) -> EstablishedConnection:
        """Make a connection of a stream.

        Raises:
            UpgradeFailed: it came to nothing, and the stream is closed.
        """
        parts = self._parts
        known = parts.book.claim_of(dial.peer_id)
        expected = None if known is None else PublicKey(known.noise_key)
        secured, noise_key = await secure_dialled(
            stream, str(address), parts.identity.noise_key, parts.options, expected
        )
        gate = SubstreamGate()
        connection = SubstreamConnection(
            asyncio.get_running_loop(),
            secured,
            is_client=True,
            on_substream=gate,
            peer=str(dial.peer_id),
            limits=parts.options.substreams,
        )
        connection.start()
        is_established = False
        try:
            dial.commit()
            ours = IdentityMessage(parts.our_claim(), address)
            theirs = IdentityReader(
                noise_key.raw, parts.clock, has_verdict=True, is_local=parts.options.is_local, peer=str(address)
            )
            message = await introduce_dialled(connection, ours, theirs, str(address), parts.options.identity_timeout_s)
            found = message.claim.peer_id
            if found != dial.peer_id:
                raise PeerRefused(str(address), RefusalCode.IDENTITY, f"it is peer {found}", by_us=True)
            if (ban := parts.book.ban_of(found)) is not None:
                raise PeerIsBanned(str(found), ban.reason, ban.until)
            if (standing := await parts.pool.stays(found)) is not None:
                return standing
            established = parts.establish(connection, gate, message, Direction.DIALLED, address, ours.claim)
            is_established = True
            return established
        finally:
            if not is_established:
                connection.abort("it did not become the connection of the peer")
            dial.settle()


def _close_stream(dialling: asyncio.Task[Stream]) -> None:
    if not dialling.cancelled() and dialling.exception() is None:
        dialling.result().close()
