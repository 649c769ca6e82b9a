"""The process of a party's node: connections to peers that are no party of the set, for the opener.

Between the supervisor (RunNode, and what linked peers say who they are), the gateway, which hands over what peers dial
at the party's own address, strangers, and the opener, which by its lane opens substreams and serves protocols
(`engine/worker_bridge`). The one invariant: the opener gets its lane only when the node stands; a start that comes to
nothing ends in one NodeFailed whose sentence says what to do.

What the opener serves ends with this process or with the opener; what the configuration names is served here. Messages
and calls are the opener's: nothing that a peer sends waits here for somebody to read it.

Runs on uvloop. Started only if the party has a table [node].
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import uvloop

from partywire.engine import tcp
from partywire.engine.child_logs import log_as
from partywire.engine.child_process import begin_child
from partywire.engine.commands import AreYouThere, Close, CommandError, Here, LinkClaimed
from partywire.engine.control_socket import ControlClosed, ControlSocket, close_all
from partywire.engine.errors import LinkProtocolError, PartyWireError
from partywire.engine.handed_over import handed_over
from partywire.engine.multiaddr import Multiaddr
from partywire.engine.node_commands import NodeFailed, NodeLane, RunNode
from partywire.engine.peers.claims import ADDRESSES_MAX, PeerClaim, fault_of_address
from partywire.engine.stat_page import Value
from partywire.engine.stat_publish import StatPublisher
from partywire.engine.transports.routes import peer_address
from partywire.shm import fence
from partywire.shm.doorbell import Bell
from partywire.shm.errors import ShmError

from .config_file import read_node_table
from .opener_lane import OpenerLane
from .standing import listen, set_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from partywire.engine.commands import Message

    from .standing import Standing

START_TIMEOUT_S: Final = 60.0
"""For RunNode, which the supervisor sends at once."""

LANES_MAX: Final = 1 << 20
"""Lanes that one process makes: one, and another one after each fault of a ring."""

LANE_PAUSE_S: Final = 0.5
"""Before another lane is made: of an opener that closes its party, the supervisor's Close comes in this time."""

_LOG: Final = logging.getLogger("partywire.node")


class NodeProcess:
    """Serves one RunNode. Driven by the supervisor's commands, the gateway's descriptors, and its connections."""

    def __init__(self, control: ControlSocket, command: RunNode, fds: list[int]) -> None:
        """Takes ownership of `fds`, as RunNode orders them. Made inside a running loop."""
        self._loop = asyncio.get_running_loop()
        self._control = control
        self._command = command
        self._config = read_node_table(json.loads(command.options.settings), command.options.path)
        self._bell = Bell.from_fds(fds[0], fds[1])
        self._gateway = ControlSocket.from_fd(fds[2], "the gateway")
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._stack = AsyncExitStack()
        self._standing: Standing | None = None  # from the moment it can take connections
        self._claims: list[LinkClaimed] = []  # that came before that
        self._lanes = 0  # that were made
        self._lane: OpenerLane | None = None
        self._remaking: asyncio.TimerHandle | None = None  # of a lane that broke
        self._stat = StatPublisher(self._values)

    async def run(self) -> None:
        """Until the supervisor says so, or is gone."""
        self._tell(Here())
        self._loop.add_reader(self._control.fileno(), self._on_command)
        starting = self._loop.create_task(self._start())
        try:
            await asyncio.wait((starting, self._over), return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                await asyncio.wait((starting,), timeout=self._command.close_timeout_s)
            elif starting.result():
                await self._over
        finally:
            self._loop.remove_reader(self._gateway.fileno())
            if self._remaking is not None:
                self._remaking.cancel()
            with suppress(TimeoutError):  # then what is left ends with the process
                async with asyncio.timeout(self._command.close_timeout_s):
                    if self._lane is not None:
                        await self._lane.aclose()
                    await self._stack.aclose()
            self._loop.remove_reader(self._control.fileno())
            self._gateway.close()
            self._bell.close()
            self._stat.close()

    # Coming up.

    async def _start(self) -> bool:
        """Come to stand; False: that cannot be, and was told."""
        try:
            standing = await self._stack.enter_async_context(set_up(self._config))
            listening = await listen(self._config, standing.peers)
            if self._config.advertise is None:
                standing.peers.advertise(self._claimable(listening))
            self._open_lane(standing, [str(one) for one in listening])
        except (PartyWireError, ShmError, OSError, ValueError) as error:
            self._tell(NodeFailed(f"the node of {self._command.party} cannot start: {error}"))
            return False
        self._standing = standing
        for claim in self._claims:
            self._learn(standing, claim)
        self._claims.clear()
        self._loop.add_reader(self._gateway.fileno(), self._on_accepted)
        return True

    def _claimable(self, listening: Sequence[Multiaddr]) -> list[Multiaddr]:
        """Where we may be dialled: where we listen, and at the party's own address."""
        addresses = dict.fromkeys((*listening, *map(Multiaddr.parse, self._command.advertised)))
        is_local = self._config.options.is_local
        return [one for one in addresses if fault_of_address(one, is_local=is_local) is None][:ADDRESSES_MAX]

    def _open_lane(self, standing: Standing, listening: list[str]) -> None:
        """Give the opener its lane, and another one whenever it broke: the peers need not notice."""
        self._lanes += 1
        epoch = self._command.epoch * LANES_MAX + self._lanes
        lane = self._lane = OpenerLane(self._loop, self._command.ring_size, self._bell, standing.peers, epoch)
        self._tell(NodeLane(epoch, str(standing.peers.peer_id), listening), lane.fds)

        def remake(cause: str) -> None:
            if not self._over.done() and self._lanes < LANES_MAX:
                _LOG.warning("the opener's substreams with the node are over: %s", cause)
                lane.close()
                try:
                    self._open_lane(standing, listening)
                except ShmError as error:
                    self._over.set_exception(error)  # another process may have better luck

        def on_broken(closed: asyncio.Future[str]) -> None:
            if (cause := closed.result()) and not self._over.done():  # else it said goodbye, as when its party closes
                self._remaking = self._loop.call_later(LANE_PAUSE_S, remake, cause)

        lane.closed.add_done_callback(on_broken)

    # The supervisor.

    def _on_command(self) -> None:
        try:
            while (received := self._control.try_receive()) is not None:
                command, fds = received
                self._stat.take(command, fds)
                if isinstance(command, Close):
                    self._end()
                elif isinstance(command, AreYouThere):
                    self._tell(Here())
                elif isinstance(command, LinkClaimed):
                    if self._standing is None:
                        self._claims.append(command)
                    else:
                        self._learn(self._standing, command)
        except ControlClosed:
            self._end()  # the supervisor died

    def _learn(self, standing: Standing, message: LinkClaimed) -> None:
        """The peer of a link said who it is, and where it may be dialled."""
        try:
            is_local = self._config.options.is_local
            standing.book.learn(PeerClaim.decode_untrusted(message.claim, time.time(), is_local=is_local))
        except LinkProtocolError as error:
            _LOG.info("what a linked peer says about itself is of no use to the node: %s", error)

    def _tell(self, message: Message, fds: Sequence[int] = ()) -> None:
        try:
            self._control.send(message, fds)
        except ControlClosed:
            self._end()

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    # The gateway.

    def _on_accepted(self) -> None:
        """It hands over connections that begin like ours, unread."""
        try:
            for _, sock in handed_over(self._gateway):
                self._take(sock)
        except (ControlClosed, CommandError):
            self._loop.remove_reader(self._gateway.fileno())

    def _take(self, sock: socket.socket) -> None:
        assert self._standing is not None
        try:
            tcp.tune(sock)
            stream = tcp.TcpStream(sock, self._loop)
            is_unix = sock.family == socket.AF_UNIX
            address = Multiaddr.parse(f"/unix{sock.getsockname()}") if is_unix else peer_address(stream.peer_address)
        except (OSError, ValueError):
            sock.close()  # it is gone already
            return
        self._standing.peers.accept(stream, address)

    # Figures.

    def _values(self) -> list[Value]:
        if self._standing is None:
            return []
        peers = self._standing.peers
        values = [Value("node_connections", (), len(peers.connections))]
        counts = asdict(peers.counters)
        return values + [Value("node_events_total", (("event", name),), count) for name, count in counts.items()]


async def serve(control: ControlSocket) -> None:
    """Be the node that the supervisor's RunNode describes."""
    command, fds = control.receive(START_TIMEOUT_S)
    if not isinstance(command, RunNode) or len(fds) != 3:
        close_all(fds)
        raise CommandError(f"{type(command).__name__} with {len(fds)} descriptors instead of RunNode")
    log_as(command.party, "its node")
    await NodeProcess(control, command, fds).run()


def main() -> None:
    """The program of the node's process."""
    control_fd = begin_child()
    fence.register()
    with ControlSocket.from_fd(control_fd, "the supervisor") as control:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serve(control))
        except ControlClosed:
            pass  # the supervisor ended before it told us anything


if __name__ == "__main__":
    main()
