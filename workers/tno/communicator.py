"""A communicator for the Pool of tno.mpc.communication 5.x, which has to be installed.

Between that Pool, which packs, matches and counts, and a PartyWire Pool, which carries its packets in order. The one
invariant: a `send` of 5.x returns when the peer's Pool has had the packet handed to it, or raises CommunicationError.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tno.mpc.communication import Communicator
from tno.mpc.communication.exceptions import CommunicationError

from partywire.engine.errors import PartyWireError

from ..errors import ConnectFailed
from ..pool.deadlines import LATE_S
from ..pool.errors import PoolClosed
from ..pool.pool import Pool

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PartyWireCommunicator", "PartyWireConnection"]

log = logging.getLogger("partywire.pool")


@dataclass(frozen=True, slots=True)
class PartyWireConnection:
    """Where a peer is, and its certificate if links are secured."""

    addr: str
    port: int | None = None
    cert: str | Path | None = None


class PartyWireCommunicator(Communicator):  # type: ignore[misc]
    """Give it to `Pool(name, communicator)` of tno.mpc.communication 5.x, and connections to its `add_client`."""

    def __init__(
        self,
        addr: str = "localhost",
        port: int | None = None,
        *,
        key: str | Path | None = None,
        cert: str | Path | None = None,
        ca_cert: str | Path | None = None,
        timeout: float | None = LATE_S,
    ) -> None:
        """`addr` and `port` are where we listen; the rest as of `partywire.Pool`. Listens from `initialize` on."""
        super().__init__()
        self._addr = addr
        self._port = port
        self._pool = Pool(key, cert, ca_cert, timeout)
        self._readers: list[asyncio.Task[None]] = []
        # id of a connection -> the name that it was added under.
        self._names: dict[int, str] = {}

    async def _initialize(self) -> None:
        self._pool.add_server(self._addr, self._port)
        for name, connection in self._connections.items():
            self._names[id(connection)] = name
            self._pool.add_client(name, connection.addr, connection.port, connection.cert)
            self._readers.append(asyncio.create_task(self._read(name)))

    async def _read(self, name: str) -> None:
        said = ""
        while True:
            try:
                packet = await self._pool.recv(name)
                await self.receive_handler(name, packet)
            except PoolClosed:
                return
            except ConnectFailed as error:  # it may still come, or get the right certificate
                if str(error) != said:
                    said = str(error)
                    log.warning("%s", said)
            except PartyWireError as error:
                log.warning("%s", error)
                return
            except Exception as error:  # of a packet that their Pool could not use; those behind it may be good
                log.warning("a packet of %s was refused: %s", name, type(error).__name__)

    async def _send(self, recipient: PartyWireConnection, packet: bytes) -> None:
        try:
            await self._pool.send(self._names[id(recipient)], packet)
        except PartyWireError as error:
            raise CommunicationError(str(error)) from error

    async def _shutdown(self) -> None:
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        await self._pool.shutdown()
