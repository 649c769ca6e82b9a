"""What a node stands on: its identity, its book of addresses, its transports, each as the configuration asks for it.

Every function either returns what can be used or raises an error that says what to do; nothing is left open then.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, TypeAlias

from partywire.engine.channel.credentials import read_file
from partywire.engine.channel.errors import CredentialError
from partywire.engine.multiaddr import Multiaddr
from partywire.engine.peers.address_book import MemoryAddressBook
from partywire.engine.peers.identity import NodeIdentity
from partywire.engine.transports import OnionService, Router, SocksProxy, TorAuthentication, TransportSettings
from partywire.engine.transports.proxied import proxy_of

from ..errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from partywire.engine.peer_store.address_book import StoredAddressBook
    from partywire.engine.peers.contract import Listening
    from partywire.engine.transport import Stream
    from partywire.engine.transports import Switchboard

    from .config import NodeConfig, OnionConfig

    Book: TypeAlias = MemoryAddressBook | StoredAddressBook


def load_identity(config: NodeConfig) -> NodeIdentity:
    """The identity of the file, which is made if it is not there; without a file a new one. Blocks for the disk.

    Raises:
        CredentialError: the file cannot be made or read, others may read it, or it holds none.
    """
    if not config.identity:
        return NodeIdentity.generate()
    path = config.file(config.identity)
    if not path.exists():
        try:
            return NodeIdentity.create(path)
        except CredentialError:
            if not path.exists():  # else another process was faster, and it is the same node
                raise
    return NodeIdentity.load(path)


@asynccontextmanager
async def open_book(config: NodeConfig) -> AsyncGenerator[Book, None]:
    """Who is known: in the store if there is one, which is written and closed at the end, else in memory.

    Raises:
        PeerStoreError: the store cannot be used; PeerStoreUnavailable: its library is not installed.
    """
    if not config.store:
        yield MemoryAddressBook()
        return
    from partywire.engine.peer_store.address_book import StoredAddressBook
    from partywire.engine.peer_store.errors import PeerStoreError
    from partywire.engine.peer_store.store import PeerStore

    opening = asyncio.create_task(asyncio.to_thread(PeerStore, config.file(config.store)))
    try:
        store = await asyncio.shield(opening)
    except asyncio.CancelledError:  # the thread cannot be: what it opens is given back
        with suppress(PeerStoreError):
            (await opening).close()
        raise
    try:
        book = StoredAddressBook(store)
        try:
            yield book
        finally:
            await book.aclose()
    finally:
        store.close()


class NodeTransports:
    """The router of a node, to which the control port of Tor is one more address to listen on."""

    def __init__(self, router: Router, onion: OnionService | None) -> None:
        self._router = router
        self._onion = onion

    async def dial(self, address: Multiaddr, timeout_s: float) -> Stream:
        """As `Router.dial`."""
        return await self._router.dial(address, timeout_s)

    async def listen(self, address: Multiaddr, on_accept: Callable[[Stream, Multiaddr], object]) -> Listening:
        """As `Router.listen`; at the address of the control port our onion service, as `Router.listen_onion`."""
        if self._onion is not None and address == self._onion.control:
            return await self._router.listen_onion(self._onion, on_accept)
        return await self._router.listen(address, on_accept)


def make_transports(
    config: NodeConfig, settings: TransportSettings | None, switchboard: Switchboard | None
) -> NodeTransports:
    """What the node dials and listens with. `settings` of the program hold in place of [node.socks]. Blocks for files.

    Raises:
        CredentialError: a file with a password cannot be read, or others may read it.
        ConfigError: what is in it cannot be sent.
    """
    if settings is None:
        settings = TransportSettings(_proxy_of(config))
    onion = None if config.onion is None else _onion_of(config, config.onion)
    return NodeTransports(Router(asyncio.get_running_loop(), settings, switchboard=switchboard), onion)


def _proxy_of(config: NodeConfig) -> SocksProxy | None:
    return None if config.socks is None else proxy_of(config.socks.options(config.file("")))


def _onion_of(config: NodeConfig, onion: OnionConfig) -> OnionService:
    password = _password(config, onion.password_file) if onion.password_file else None
    try:
        authentication = TorAuthentication(password, config.file(onion.cookie_file) if onion.cookie_file else None)
    except ValueError as error:
        raise ConfigError(config.path, (("node.onion.password_file", str(error)),)) from None
    return OnionService(
        Multiaddr.parse(onion.control),
        config.file(onion.key_file),
        onion.port,
        authentication,
        onion.local_port,
        onion.detach,
    )


def _password(config: NodeConfig, name: str) -> str:
    path = str(config.file(name))
    try:
        return read_file(path, private=True).decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise CredentialError(path, "does not hold a password in UTF-8") from None
