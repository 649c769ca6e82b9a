"""What we say about ourselves, and what we serve: a claim that is signed anew with each change, and told to every
connected peer; and the changes that peers tell us.

Between the connections of a node, or of a link, and their handlers. The one invariant: every connection has been told
`claim`, or is about to be; a peer that does not take it three times in a row is left alone until the next change.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from ..errors import LinkProtocolError, PartyWireError
from .claims import PROTOCOLS_MAX, check_protocol_id
from .connection import EstablishedConnection
from .identity_exchange import IDENTITY_PROTOCOL, PUSH_PROTOCOL, IdentityMessage, IdentityReader
from .introductions import read_message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..multiaddr import Multiaddr
    from ..substreams.streams import SubstreamReader, SubstreamWriter
    from .claims import PeerClaim
    from .contract import PeerConnection, ProtocolHandler
    from .identity import NodeIdentity
    from .options import PeerOptions

_LOG: Final = logging.getLogger("partywire.peers")

PUSH_INTERVAL_S: Final = 1.0
"""A peer's changes are taken in at most so often; ours are told as often."""

PUSH_ATTEMPTS: Final = 3


class OwnClaim:
    """Of one event loop. Driven by whoever changes something, and by the handler of changes that
    peers tell."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        identity: NodeIdentity,
        options: PeerOptions,
        standing: Callable[[], Iterable[EstablishedConnection]],
        addresses: Callable[[], tuple[Multiaddr, ...]],
        on_updated: Callable[[EstablishedConnection], object],
        clock: Callable[[], float],
        *,
        user_agent: str = "",
        features: int = 0,
    ) -> None:
        """
        Args:
            loop: where it tells.
            identity: who signs.
            options: deadlines, and whether local addresses may be claimed.
            standing: the connections that are told of changes.
            addresses: where we may be dialled, at the moment.
            on_updated: called with a connection whose peer told a later claim.
            clock: seconds since the epoch.
            user_agent: what we call our program.
            features: 32 bits that peers are told.

        Raises:
            ValueError: something of it cannot be claimed.
        """
        self.features = features
        """Call `change` behind a change of it."""
        self.handlers: Final[dict[str, ProtocolHandler]] = {PUSH_PROTOCOL: self._take_push}
        """By protocol id, what every connection serves."""
        self._loop = loop
        self._identity = identity
        self._options = options
        self._standing = standing
        self._addresses = addresses
        self._on_updated = on_updated
        self._clock = clock
        self._user_agent = user_agent
        self._pushes: dict[EstablishedConnection, asyncio.Task[None]] = {}  # to whom a change is being told
        self._is_over = False
        self.claim: PeerClaim = self._sign(0)
        """As it stands."""

    # Changing.

    def serve(self, protocol: str, handler: ProtocolHandler) -> None:
        """As ConnectionManager.serve."""
        check_protocol_id(protocol)
        if protocol in self.handlers or protocol == IDENTITY_PROTOCOL:
            raise ValueError(f"{protocol} is served already")
        if len(self.handlers) == PROTOCOLS_MAX:
            raise ValueError(f"{PROTOCOLS_MAX} protocols are served already, more cannot be")
        self.handlers[protocol] = handler
        try:
            self.change()
        except ValueError:
            del self.handlers[protocol]
            raise

    def unserve(self, protocol: str) -> None:
        """As ConnectionManager.unserve.

        Raises:
            ValueError: it is not served.
        """
        if protocol == PUSH_PROTOCOL or protocol not in self.handlers:
            raise ValueError(f"{protocol} is not served")
        del self.handlers[protocol]
        self.change()

    def change(self) -> None:
        """Something of the claim is another now: sign it, and tell.

        Raises:
            ValueError: it breaks a limit of claims; the former one stays.
        """
        self.claim = self._sign(self.claim.updated_at)
        self.push_soon()

    def _sign(self, after: int) -> PeerClaim:
        return self._identity.sign(
            updated_at=max(int(self._clock()), after + 1),
            features=self.features,
            user_agent=self._user_agent,
            addresses=self._addresses(),
            protocols=sorted(self.handlers),
        )

    # Telling.

    def push_soon(self) -> None:
        """Tell everybody who has another claim of us; each in a task of its own, so that a slow peer holds up none."""
        for connection in self._standing():
            telling = self._pushes.get(connection)
            if (telling is None or telling.done()) and not self._is_over:
                task = self._loop.create_task(self._push(connection))
                self._pushes[connection] = task
                task.add_done_callback(partial(self._forget_push, connection))

    def _forget_push(self, connection: EstablishedConnection, task: asyncio.Task[None]) -> None:
        if self._pushes.get(connection) is task:
            del self._pushes[connection]

    async def _push(self, connection: EstablishedConnection) -> None:
        await asyncio.sleep(0)  # what else changes in this turn of the loop goes along
        attempts = 0
        while connection.is_open and connection.told is not self.claim and attempts < PUSH_ATTEMPTS:
            claim = self.claim
            if PUSH_PROTOCOL not in connection.claim.protocols:
                return
            try:
                async with asyncio.timeout(self._options.identity_timeout_s):
                    _, reader, writer = await connection.open((PUSH_PROTOCOL,))
                    try:
                        writer.write(IdentityMessage(claim, connection.address).encode())
                        await reader.read(1)  # its end: taken in
                    finally:
                        writer.close()
                connection.told = claim
                attempts = 0
            except (PartyWireError, TimeoutError) as error:
                _LOG.debug("peer %s did not take our new claim: %s", connection.peer_id, error)
                attempts += 1
            await asyncio.sleep(PUSH_INTERVAL_S)

    async def _take_push(self, connection: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        """Serves PUSH_PROTOCOL: one at a time for each peer, and a pause behind it."""
        assert isinstance(connection, EstablishedConnection)
        if connection.is_updating:
            writer.reset("one change at a time")
            return
        connection.is_updating = True
        try:
            theirs = IdentityReader(
                connection.claim.noise_key,
                self._clock,
                has_verdict=False,
                is_local=self._options.is_local,
                peer=str(connection.peer_id),
            )
            async with asyncio.timeout(self._options.identity_timeout_s):
                message = await read_message(reader, theirs)
            if message.claim.public_key != connection.public_key:
                raise LinkProtocolError(str(connection.peer_id), "the identity of a peer", "it changed")
            if message.claim.updated_at > connection.claim.updated_at:
                connection.claim = message.claim
                self._on_updated(connection)
            writer.close()
            await asyncio.sleep(PUSH_INTERVAL_S / 2)
        finally:
            connection.is_updating = False

    def close(self) -> None:
        """Tell nobody any more."""
        self._is_over = True
        for task in self._pushes.values():
            task.cancel()
