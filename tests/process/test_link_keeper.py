"""Keepers of one link each, in this process and its event loop: what a link does that the process has to survive."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from partywire.engine.commands import Accepted, Lanes, LinkEnded, LinkFailed, LinkOptions, LinkProgress, OpenLinks
from partywire.engine.control_socket import ControlSocket
from partywire.engine.handshake import Handshake, Role
from partywire.engine.handshake_messages import Hello
from partywire.engine.link_keeper import LinkKeeper
from partywire.engine.preamble import PREAMBLE_SIZE, ConnectionClass, Preamble
from partywire.engine.tcp import TcpTransport
from partywire.engine.topology import PartySpec, routing_tag
from partywire.shm import fence
from partywire.shm.doorbell import Bell, Doorbell
from tests.support.family import make_listener, make_parties

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from partywire.engine.commands import Message

DEADLINE_S = 20.0
ALICE_OF_BOB = Preamble(ConnectionClass.CONTROL, 0, routing_tag("alice", "bob")).encode()


class Side:
    """One party's keeper of its link to the other of two, and what it told; it is its own home."""

    def __init__(self, loop: asyncio.AbstractEventLoop, party: PartySpec, options: LinkOptions) -> None:
        fence.register()
        fence_ = fence.probe()
        self.told: list[Message] = []
        self.on_lanes: Callable[[], object] = lambda: None
        self._doorbell = Doorbell.create(fence_)
        self._bell = Bell.from_fds(*(os.dup(fd) for fd in self._doorbell.fds))
        gateway, self._accepts = ControlSocket.pair()
        self.gateway = ControlSocket(gateway, "the keeper")
        self._loop = loop
        self._fence = fence_
        self._command = OpenLinks(party, [party.peers[0].index], 1, options)
        self.keeper: LinkKeeper

    def start(self) -> asyncio.Future[None]:
        accepts = None
        if self._command.party.name == "alice":
            accepts = ControlSocket.from_fd(self._accepts.detach(), "the gateway")
        peer = self._command.peers[0]
        transport = TcpTransport(self._loop)
        self.keeper = LinkKeeper(self, self._loop, self._command, peer, [self._bell], self._fence, accepts, transport)
        return asyncio.ensure_future(self.keeper.run())

    def tell(self, message: Message, fds: Sequence[int] = ()) -> None:
        self.told.append(message)
        if isinstance(message, Lanes):
            self.on_lanes()

    def fail(self, error: BaseException) -> None:
        raise AssertionError("the process would end") from error

    def heard(self, kind: type[Message]) -> list[Any]:
        return [message for message in self.told if isinstance(message, kind)]

    def close(self) -> None:
        self.gateway.close()
        self._accepts.close()
        self._bell.close()
        self._doorbell.close()


class Rig:
    """Alice, whom bob dials, and the listening socket before her gateway."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connect_timeout_s: float) -> None:
        """`connect_timeout_s` is alice's; bob has time."""
        self.loop = loop
        self.bugs: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: self.bugs.append(context))
        self.listener = make_listener()
        self.listener.setblocking(False)
        other = make_listener()
        parties = make_parties([self.listener, other])
        other.close()
        self.alice = Side(loop, parties[0], LinkOptions(1 << 16, 1 << 16, connect_timeout_s))
        self.bob = Side(loop, parties[1], LinkOptions(1 << 16, 1 << 16))
        self._accepting = loop.create_task(self._accept())

    async def _accept(self) -> None:
        while True:
            sock, _ = await self.loop.sock_accept(self.listener)
            with sock:
                self.alice.gateway.send(Accepted(await self.loop.sock_recv(sock, PREAMBLE_SIZE), ""), [sock.fileno()])

    async def wait(self, what: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not what():
            assert time.monotonic() < deadline, "the condition never came true"
            await asyncio.sleep(0.001)

    async def close(self) -> None:
        self._accepting.cancel()
        await asyncio.wait([self._accepting])
        self.listener.close()
        self.alice.close()
        self.bob.close()


def run(scenario: Callable[[Rig], Awaitable[None]], connect_timeout_s: float = DEADLINE_S) -> None:
    async def main() -> None:
        rig = Rig(asyncio.get_running_loop(), connect_timeout_s)
        try:
            await asyncio.wait_for(scenario(rig), DEADLINE_S)
        finally:
            await rig.close()
        assert rig.bugs == []

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


@pytest.fixture
def dialler() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection that a gateway has accepted and read the preamble of."""
    with make_listener() as listener, socket.create_connection(listener.getsockname()) as ours:
        theirs, _ = listener.accept()
        with theirs:
            yield ours, theirs


def test_who_dials_a_link_that_is_over_does_not_begin_it_anew(dialler: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = dialler
    ours.setblocking(False)

    async def scenario(rig: Rig) -> None:
        keeping = rig.alice.start()
        await rig.wait(lambda: rig.alice.told)
        core = Handshake(
            Role.INITIATOR, Hello("bob", "alice", os.urandom(32), party_set=("alice", "bob")), ALICE_OF_BOB
        )
        ours.send(core.data_to_send())
        rig.alice.keeper.begin_close()
        # It is there before the keeper has ended, and accepted while it ends.
        rig.alice.gateway.send(Accepted(ALICE_OF_BOB, ""), [theirs.fileno()])
        theirs.close()
        await keeping
        try:
            answer = await rig.loop.sock_recv(ours, 1)
        except ConnectionResetError:
            answer = b""
        assert answer == b""

    run(scenario)


def test_a_greeting_that_waits_for_the_end_of_another_one_is_closed_with_the_link(
    dialler: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = dialler
    ours.setblocking(False)

    async def scenario(rig: Rig) -> None:
        keeping = [rig.alice.start(), rig.bob.start()]
        await rig.wait(lambda: rig.alice.heard(Lanes) and rig.bob.heard(Lanes))
        rig.alice.gateway.send(Accepted(ALICE_OF_BOB, ""), [theirs.fileno()])
        theirs.close()
        await rig.wait(lambda: len(rig.alice.keeper._tasks) > 1)
        for task in keeping:
            task.cancel()
        await asyncio.wait(keeping)
        assert await rig.loop.sock_recv(ours, 1) == b""

    run(scenario)


def test_a_link_that_comes_up_in_the_last_moment_is_up() -> None:
    connect_timeout_s = 0.3

    async def scenario(rig: Rig) -> None:
        keeping = [rig.alice.start(), rig.bob.start()]
        deadline = rig.loop.time() + connect_timeout_s
        # The loop is busy with the announcement when time is up; lanes that workers have must be told their end.
        rig.alice.on_lanes = lambda: time.sleep(max(0.0, deadline - time.monotonic()) + 0.05)
        await rig.wait(lambda: rig.alice.heard(Lanes) and rig.bob.heard(Lanes))
        await asyncio.sleep(0.01)
        assert not rig.alice.heard(LinkFailed)
        assert rig.alice.keeper.stat_values()
        keeping[1].cancel()  # as if bob's process had been killed
        await rig.wait(lambda: rig.alice.heard(LinkEnded))
        assert [ended.clean for ended in rig.alice.heard(LinkEnded)] == [False]
        rig.alice.keeper.begin_close()
        await keeping[0]

    run(scenario, connect_timeout_s)


def test_what_concerns_all_links_of_a_process_does_not_touch_one_that_is_down() -> None:
    async def scenario(rig: Rig) -> None:
        keeping = [rig.alice.start(), rig.bob.start()]
        await rig.wait(lambda: rig.alice.heard(Lanes) and rig.bob.heard(Lanes))
        keeping[1].cancel()
        await rig.wait(lambda: rig.alice.heard(LinkEnded))
        told = len(rig.alice.told)
        rig.alice.keeper.drop_worker(0)
        rig.alice.keeper.replace_worker(0)
        assert rig.alice.keeper.stat_values() == []
        rig.alice.keeper.begin_close()
        await keeping[0]
        assert all(isinstance(message, LinkProgress) for message in rig.alice.told[told:])

    run(scenario)
