"""A network of nodes in one process, over memory or over TCP on loopback."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import AsyncExitStack, contextmanager
from inspect import signature
from typing import TYPE_CHECKING, Any, TypeVar

from partywire.engine.multiaddr import Multiaddr
from partywire.engine.peers.address_book import MemoryAddressBook
from partywire.engine.peers.connections import PeerConnections
from partywire.engine.peers.identity import NodeIdentity
from partywire.engine.peers.options import PeerOptions
from partywire.engine.transports.router import Router
from partywire.engine.transports.switchboard import Switchboard

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from partywire.engine.peers.contract import AddressBook, ConnectionManager, PeerConnection, Transports
    from partywire.engine.peers.events import EventSubscription
    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter

E = TypeVar("E")

DEADLINE_S = 20.0

MEMORY = "/memory/0"
TCP = "/ip4/127.0.0.1/tcp/0"

ECHO = "/test/echo/1"


def options_of(**changes: object) -> PeerOptions:
    """Options for one host, and for tests that wait for nothing."""
    defaults: dict[str, object] = {
        "is_local": True, "back_off_min_s": 0.001, "back_off_max_s": 0.01, "close_timeout_s": 0.1,
    }  # fmt: skip
    return PeerOptions(**{**defaults, **changes})  # type: ignore[arg-type]


class Node:
    """One node, its book, and where it listens."""

    def __init__(
        self, net: PeerNet, name: str, identity: NodeIdentity, options: PeerOptions, transports: Transports | None
    ) -> None:
        self.net = net
        self.name = name
        self.identity = identity
        self.book = MemoryAddressBook()
        self.peers = PeerConnections(
            identity,
            transports or net.router,
            self.book,
            options,
            user_agent=f"test {name}",
            chance=random.Random(name),
        )
        self.addresses: list[Multiaddr] = []

    @property
    def id(self) -> object:
        return self.peers.peer_id

    async def listen(self, address: str = MEMORY) -> Multiaddr:
        self.addresses.append(await self.peers.listen(Multiaddr.parse(address)))
        return self.addresses[-1]

    def knows(self, *others: Node) -> None:
        for other in others:
            self.book.add(other.peers.peer_id, other.addresses)

    async def connect(self, other: Node) -> PeerConnection:
        return await self.peers.connect(other.peers.peer_id)

    def to(self, other: Node) -> PeerConnection | None:
        return self.peers.connection_to(other.peers.peer_id)

    def serve_echo(self, protocol: str = ECHO) -> None:
        self.peers.serve(protocol, echo)


class PeerNet:
    """All nodes of a test; closed with it."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.switchboard = Switchboard()
        self.router = Router(self.loop, switchboard=self.switchboard)
        self._stack = AsyncExitStack()

    async def node(
        self,
        name: str,
        *,
        listen: str | None = MEMORY,
        identity: NodeIdentity | None = None,
        transports: Transports | None = None,
        **options: Any,
    ) -> Node:
        node = Node(self, name, identity or NodeIdentity.generate(), options_of(**options), transports)
        await self._stack.enter_async_context(node.peers)
        if listen is not None:
            await node.listen(listen)
        return node

    async def pair(self, listen: str = MEMORY, **options: Any) -> tuple[Node, Node]:
        """Two nodes, of which the first has the smaller id, and that know each other."""
        first, second = sorted((NodeIdentity.generate(), NodeIdentity.generate()), key=lambda one: one.peer_id)
        alice = await self.node("alice", listen=listen, identity=first, **options)
        bob = await self.node("bob", listen=listen, identity=second, **options)
        alice.knows(bob)
        bob.knows(alice)
        return alice, bob

    async def __aenter__(self) -> PeerNet:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()


def scenario(
    test: Callable[..., Coroutine[object, object, None]],
) -> Callable[..., None]:
    """A test that is given a PeerNet, behind what else it is given by name."""

    def run(**given: Any) -> None:
        async def main() -> None:
            async with asyncio.timeout(DEADLINE_S), PeerNet() as net:
                await test(net, **given)

        asyncio.run(main())

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    declared = signature(test)
    run.__signature__ = declared.replace(parameters=list(declared.parameters.values())[1:])  # type: ignore[attr-defined]
    return run


async def echo(_: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
    while data := await reader.read(64 * 1024):
        writer.write(data)
        await writer.drain()


async def ask(connection: PeerConnection, data: bytes, protocol: str = ECHO) -> bytes:
    """Have bytes echoed."""
    _, reader, writer = await connection.open([protocol])
    writer.write(data)
    await writer.drain()
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


async def until(condition: Callable[[], object]) -> None:
    """As soon as it holds; a scenario has a deadline."""
    while not condition():  # noqa: ASYNC110 - conditions of every kind, many of which nothing announces
        await asyncio.sleep(0.001)


async def next_event(events: EventSubscription, kind: type[E]) -> E:
    """The next event of a kind."""
    async for event in events:
        if isinstance(event, kind):
            return event
    raise AssertionError("the events ended")


class _Records(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def caught_logs() -> Iterator[list[logging.LogRecord]]:
    """What the log is told of peers, which then goes nowhere else."""
    logger, handler = logging.getLogger("partywire.peers"), _Records()
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield handler.records
    finally:
        logger.propagate = True
        logger.removeHandler(handler)


def satisfies_the_contract(node: Node) -> tuple[ConnectionManager, AddressBook]:
    """For the type checker."""
    return node.peers, node.book
