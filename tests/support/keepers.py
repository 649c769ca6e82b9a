"""Keepers of one link each, in this process and its event loop, and the little that they need around them."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import uvloop

from partywire.engine.commands import Accepted, Lanes, OpenLinks
from partywire.engine.control_socket import ControlSocket
from partywire.engine.link_keeper import LinkKeeper
from partywire.engine.link_options import LinkOptions
from partywire.engine.preamble import PREAMBLE_SIZE
from partywire.engine.resolver import Resolver
from partywire.engine.tcp import TcpTransport
from partywire.shm import fence
from partywire.shm.doorbell import Bell, Doorbell
from tests.support.family import attach_lanes, make_listener, make_parties

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from partywire.engine.commands import Message
    from partywire.engine.topology import PartySpec

DEADLINE_S = 20.0


class Side:
    """One party's keeper of its link to the other of two, and what it told; it is its own home."""

    def __init__(self, loop: asyncio.AbstractEventLoop, party: PartySpec, options: LinkOptions) -> None:
        fence.register()
        fence_ = fence.probe()
        self.told: list[Message] = []
        self.takes_lanes = False  # as the worker does
        self._stack = ExitStack()
        self.on_lanes: Callable[[], object] = lambda: None
        self._doorbell = Doorbell.create(fence_)
        self._bell = Bell.from_fds(*(os.dup(fd) for fd in self._doorbell.fds))
        gateway, self._accepts = ControlSocket.pair()
        self.gateway = ControlSocket(gateway, "the keeper")
        self._loop = loop
        self._fence = fence_
        self._command = OpenLinks(party, [party.peers[0].index], 1, options)
        self.names: Callable[..., list[Any]] | None = None  # looks names up, like getaddrinfo
        self.keeper: LinkKeeper

    def start(self) -> asyncio.Future[None]:
        accepts = None
        if self._command.party.name == "alice":
            accepts = ControlSocket.from_fd(self._accepts.detach(), "the gateway")
        peer = self._command.peers[0]
        transport = TcpTransport(self._loop, Resolver(self.names) if self.names else None)
        self.keeper = LinkKeeper(self, self._loop, self._command, peer, [self._bell], self._fence, accepts, transport)
        return asyncio.ensure_future(self.keeper.run())

    def tell(self, message: Message, fds: Sequence[int] = ()) -> None:
        self.told.append(message)
        if isinstance(message, Lanes):
            if self.takes_lanes:
                self.take(message, [os.dup(fd) for fd in fds])
            self.on_lanes()

    def take(self, message: Lanes, fds: list[int]) -> None:
        """Open the rings, as the worker does."""
        attach_lanes(self._stack, message, fds, self._fence)

    def fail(self, error: BaseException) -> None:
        raise AssertionError("the process would end") from error

    def heard(self, kind: type[Message]) -> list[Any]:
        return [message for message in self.told if isinstance(message, kind)]

    def close(self) -> None:
        self._stack.close()
        self.gateway.close()
        self._accepts.close()
        self._bell.close()
        self._doorbell.close()


class Rig:
    """Alice, whom bob dials, and the listening socket before her gateway."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connect_timeout_s: float, **options: Any) -> None:
        """`connect_timeout_s` is alice's; bob has time. The other options are those of both."""
        self.loop = loop
        self.bugs: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: self.bugs.append(context))
        self.listener = make_listener()
        self.listener.setblocking(False)
        other = make_listener()
        self.parties = make_parties([self.listener, other])
        other.close()
        self.options = LinkOptions(1 << 16, 1 << 16, **options)
        self.alice = Side(loop, self.parties[0], replace(self.options, connect_timeout_s=connect_timeout_s))
        self.bob = Side(loop, self.parties[1], self.options)
        self._accepting = loop.create_task(self._accept(self.listener))

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            sock, _ = await self.loop.sock_accept(listener)
            with sock:
                self.alice.gateway.send(Accepted(await self.loop.sock_recv(sock, PREAMBLE_SIZE), ""), [sock.fileno()])

    async def wait(self, what: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not what():
            assert time.monotonic() < deadline, "the condition never came true"
            await asyncio.sleep(0.001)

    async def up(self) -> list[asyncio.Future[None]]:
        """Start both, and wait until their link is up."""
        keeping = [self.alice.start(), self.bob.start()]
        await self.wait(lambda: self.alice.heard(Lanes) and self.bob.heard(Lanes))
        return keeping

    async def move(self, host: str) -> None:
        """Alice listens at another address from now on, at the same port."""
        port = self.listener.getsockname()[1]
        await self._stop_accepting()
        self.listener.close()
        self.listener = socket.create_server((host, port))
        self.listener.setblocking(False)
        self._accepting = self.loop.create_task(self._accept(self.listener))

    async def _stop_accepting(self) -> None:
        self._accepting.cancel()
        await asyncio.wait([self._accepting])

    async def close(self) -> None:
        await self._stop_accepting()
        self.listener.close()
        self.alice.close()
        self.bob.close()


def run(scenario: Callable[[Rig], Awaitable[None]], connect_timeout_s: float = DEADLINE_S, **options: Any) -> None:
    """Run a scenario in a loop of an I/O process; it must end, and no callback may fail."""

    async def main() -> None:
        rig = Rig(asyncio.get_running_loop(), connect_timeout_s, **options)
        try:
            await asyncio.wait_for(scenario(rig), DEADLINE_S)
        finally:
            await rig.close()
        assert rig.bugs == []

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
