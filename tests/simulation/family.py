"""The process family of one simulated party: the real opener, links and workers; the processes around them are thin.

Between the world and the engine. Real are `Party`, `Worker`, sessions, `LinkKeeper` with dialler, handshakes, rings,
doorbells, multiplexer and pumps. Played here, by the same contracts: the supervisor (passes messages on, tells of
deaths), the gateway (reads a preamble, hands the connection over) and the I/O process around its keepers. The one
invariant: a process that was killed runs no callback any more, and the kernel closes what it had.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

from partywire.engine import link_keeper
from partywire.engine.bulk_commands import BulkLane, OpenBulk
from partywire.engine.commands import (
    Close,
    DropWorker,
    Lanes,
    LinkEnded,
    LinkFailed,
    LinkLost,
    OpenLinks,
    Start,
    Started,
    Stopped,
    WorkerLost,
    WorkerStarted,
)
from partywire.engine.control_socket import close_all
from partywire.engine.errors import LinkProtocolError
from partywire.engine.preamble import PREAMBLE_SIZE, Preamble
from partywire.engine.topology import dials, routing_tag, shares_of_links
from partywire.shm import fence
from partywire.shm.doorbell import Bell, Doorbell
from partywire.workers import processes
from partywire.workers.party import Party
from partywire.workers.worker import Worker

from . import chatter
from .child import SimChild
from .loop import SimLoop
from .network import SimTransport
from .world import Violation

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from partywire.engine.commands import Message
    from partywire.engine.link_options import LinkOptions
    from partywire.workers.config import PartyConfig

    from .network import Network, SimStream
    from .world import World

RESTART_S: Final = 0.1
"""What the start of a process takes."""

MESSAGE_DELAY_S: Final = 2e-4
"""Most that a control message of a party takes from one of its processes to another."""


class SimDoorbell(Doorbell):
    """A doorbell whose owner may lose its core between arming and looking, where wake-ups get lost."""

    world: World

    def arm(self) -> None:
        self.world.maybe_preempt()
        super().arm()
        self.world.maybe_preempt()


class SimIoProcess:
    """One I/O process: the home of one or several real keepers."""

    def __init__(self, family: Family, peers: list[int], incarnation: int) -> None:
        self.family = family
        self.peers = peers
        self.loop = SimLoop(family.world, f"{family.name}/io{''.join(map(str, peers))}.{incarnation}")
        self.links = set(peers)  # whose link is not over
        self.is_over = False
        self._bells = [Bell.from_fds(*(os.dup(fd) for fd in doorbell.fds)) for doorbell in family.doorbells]
        config = family.party.config
        command = OpenLinks(config.spec, peers, config.workers, family.options, family.supervisor.epochs_of(peers))
        transport = SimTransport(family.network, family.index, self.loop)
        self.keepers = {
            peer: link_keeper.LinkKeeper(self, self.loop, command, peer, self._bells, fence.probe(), None, transport)
            for peer in peers
        }
        for peer in peers:
            if (link_peers := self.keepers[peer].peers) is not None:
                self.keepers[peer]._clock = self.loop.time
                chatter.begin(self.loop, link_peers)
            task = self.loop.create_task(self.keepers[peer].run())
            task.add_done_callback(partial(self._link_over, peer))
        self._standing = len(peers)

    def _link_over(self, peer: int, task: Any) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.fail(task.exception())
        self._standing -= 1
        if not self._standing and not self.is_over:
            self.is_over = True
            self.family.supervisor.on_io_process_end(self, "")

    def accept(self, stream: SimStream, preamble: Preamble, received: bytes, peer: int) -> None:
        """The gateway hands a connection over."""
        if self.loop.is_dead or self.is_over or self.keepers[peer]._over.done():
            stream.close()
        else:
            stream.move_to(self.loop)
            self.loop.call_soon(self.keepers[peer].take_stream, preamble, received, stream)

    # What the keepers say.

    def tell(self, message: Any, fds: Sequence[int] = ()) -> None:
        self.family.supervisor.hear(self, message, [os.dup(fd) for fd in fds])

    def fail(self, error: BaseException) -> None:
        self.loop.bugs.append(error)

    # The end.

    def kill(self) -> None:
        """SIGKILL. The kernel closes its connections."""
        self.loop.kill()
        for stream in self.family.network.of_loop(self.loop):
            stream.close()

    def tear_down(self) -> None:
        self.loop.tear_down()
        for keeper in self.keepers.values():
            keeper._close()
        for bell in self._bells:
            bell.close()


class SimGateway:
    """Accepts for one party and routes by the preamble, as engine/gateway.py does."""

    def __init__(self, family: Family) -> None:
        self._family = family
        spec = family.party.config.spec
        self._routes = {
            routing_tag(family.name, peer.name): peer.index for peer in spec.peers if dials(peer.name, family.name)
        }
        self.loop = SimLoop(family.world, f"{family.name}/gateway")
        family.network.gateways[family.index] = self._accept

    def _accept(self, stream: SimStream) -> None:
        stream.move_to(self.loop)
        stream.on_readable(partial(self._read, stream, bytearray()))

    def _read(self, stream: SimStream, received: bytearray) -> None:
        # Exactly the preamble: what follows it belongs to the I/O process.
        buffer = memoryview(bytearray(PREAMBLE_SIZE - len(received)))
        try:
            count = stream.try_recv_into(buffer)
        except OSError:
            count = 0
        if count is None:
            return
        received += buffer[:count]
        try:
            preamble = Preamble.decode_untrusted(bytes(received)) if count else None
        except LinkProtocolError:
            preamble = None
        if preamble is None and count:
            return
        stream.on_readable(None)
        peer = None if preamble is None else self._routes.get(preamble.routing_tag)
        process = None if peer is None else self._family.supervisor.serving(peer)
        if preamble is None or peer is None or process is None:
            stream.close()
        else:
            process.accept(stream, preamble, bytes(received), peer)

    def kill(self) -> None:
        self._family.network.gateways.pop(self._family.index, None)
        self.loop.kill()
        for stream in self._family.network.of_loop(self.loop):
            stream.close()


@dataclass
class _NoProcess:
    pid: int = 0


class SimSupervisor:
    """Passes messages on and tells of ends, as engine/supervisor.py does. Also what the opener holds of it."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._world = family.world
        self.process = _NoProcess()
        self.control = self
        self.io_processes: list[SimIoProcess] = []
        self.children: list[SimChild] = []
        """All further workers that there have been."""
        self.ended: dict[int, LinkEnded | LinkFailed] = {}
        """Peer -> how its link ended, as last told."""
        self.epochs: dict[int, int] = {}
        """Peer -> the epoch of its link, as last told."""
        self._complaints: list[str] = []
        self.is_closing = False
        self.is_over = False
        self._passed_at = 0.0
        self._in_transit: list[list[int]] = []  # descriptors that nobody has received yet

    def epochs_of(self, peers: list[int]) -> dict[str, int]:
        """The least epoch of the next attempt, for each link that was up."""
        return {str(peer): epoch + 1 for peer, epoch in self.epochs.items() if peer in peers}

    def _start(self) -> None:
        family = self._family
        peers = [peer.index for peer in family.party.config.spec.peers]
        for share in shares_of_links(peers, family.party.config.links_per_io_process):
            self._start_io_process(share)
        for index in range(1, family.party.config.workers):
            self._start_child(index)
        self._pass(self._tell_opener, Started({}), [])

    def _start_io_process(self, peers: list[int]) -> None:
        if not (self._family.is_dead or self.is_closing or self.is_over):
            self.io_processes.append(SimIoProcess(self._family, peers, len(self.io_processes)))

    def _start_child(self, index: int) -> None:
        self.children.append(child := SimChild(self._family, index, len(self.children)))
        self._in_transit.append(fds := [child.opener_end])
        self._pass(self._tell_opener, WorkerStarted(index, 0), fds)

    def child(self, index: int) -> SimChild | None:
        """The further worker that lives, of an index."""
        for child in self.children:
            if child.index == index and not child.loop.is_dead and not child.is_over:
                return child
        return None

    def kill_child(self, child: SimChild) -> None:
        """SIGKILL; another one takes its place, and the links are made anew."""
        child.kill()
        self._family.on_change()
        if self.is_closing or self.is_over:
            self._stop_when_over()
            return
        lost = WorkerLost(child.index, f"worker {child.index} was killed by signal 9 (SIGKILL)")
        self._pass(self._tell_opener, lost, [])
        self._start_child(child.index)
        self._world.stop(self.children[-1].loop, RESTART_S)
        command = DropWorker(child.index, "was killed", is_replaced=True)
        for process in self.io_processes:
            if not process.loop.is_dead and not process.is_over:
                for keeper in process.keepers.values():
                    process.loop.call_soon(keeper.replace_worker, command.index)

    def on_child_end(self, child: SimChild, cause: str) -> None:
        """It exited."""
        self._family.on_change()
        self._stop_when_over()

    def _tell_child(self, child: SimChild, message: Message, fds: list[int]) -> None:
        if child.loop.is_dead or child.is_over or self.is_over:
            return  # `drop` closes what was never received
        self.received(fds)
        child.loop.call_soon(child.take_command, message, fds)

    def serving(self, peer: int) -> SimIoProcess | None:
        """The I/O process that has the link to `peer`."""
        for process in self.io_processes:
            if peer in process.keepers and not process.loop.is_dead and not process.is_over:
                return process
        return None

    # To the opener.

    def _pass(self, what: Any, *args: Any) -> None:
        """Control sockets keep the order, and take a while."""
        self._passed_at = max(self._passed_at, self._world.now + self._world.random.uniform(0, MESSAGE_DELAY_S))
        self._world.at(self._passed_at, what, *args)

    def _tell_opener(self, message: Message, fds: list[int]) -> None:
        family = self._family
        if not (family.is_dead or self.is_over):
            family.loop.call_soon(family.take_command, message, fds)

    def hear(self, process: SimIoProcess, message: Message, fds: list[int]) -> None:
        """An I/O process said something."""
        self._in_transit.append(fds)
        match message:
            case LinkEnded(peer, clean, cause):
                self.ended[peer] = message
                if self.is_closing:
                    process.links.discard(peer)
                    self._complaints += [] if clean else [cause]
                self._world.note(f"{self._family.name}: the link to {peer} ended, {'clean' if clean else cause}")
                return
            case Lanes(worker=0, peer=peer, epoch=epoch):
                if epoch <= self.epochs.get(peer, 0):
                    raise Violation(f"{process.loop.name} has epoch {epoch} behind {self.epochs[peer]}")
                self.epochs[peer] = epoch
            case LinkFailed(peer):
                process.links.discard(peer)
                self.ended[peer] = message
        if self._world.is_tracing:
            self._world.note(f"{process.loop.name} says {message!r}")
        if isinstance(message, (Lanes, BulkLane)) and message.worker:
            if (child := self.child(message.worker)) is not None:
                self._pass(self._tell_child, child, message, fds)
            return
        self._pass(self._tell_opener, message, fds)

    def received(self, fds: list[int]) -> None:
        """The opener owns them now."""
        self._in_transit = [others for others in self._in_transit if others is not fds]

    def drop(self) -> None:
        """Close what was never received."""
        for fds in self._in_transit:
            close_all(fds)
        self._in_transit.clear()

    def on_io_process_end(self, process: SimIoProcess, cause: str) -> None:
        """It exited, or was killed."""
        self._family.on_change()
        for peer in sorted(process.links):
            if cause or not self.is_closing:
                lost = LinkLost(peer, f"our I/O process {cause or 'ended'}")
                self._pass(self._tell_opener, lost, [])
                for child in self.children:
                    self._pass(self._tell_child, child, lost, [])
        if cause and process.links:
            self._world.after(RESTART_S, self._start_io_process, sorted(process.links))
        self._stop_when_over()

    # From the opener.

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        if isinstance(message, Start):
            self._start()
        elif isinstance(message, Close):
            self.is_closing = True
            self._pass(self._close)

    def ask(self, message: Message) -> None:
        """The opener asks for something of a link. Only bulk connections are asked for here: no ring breaks."""
        if isinstance(message, OpenBulk):
            self._pass(self._open_bulk, message)

    def _open_bulk(self, message: OpenBulk) -> None:
        process = self.serving(message.peer)
        if process is not None:
            process.loop.call_soon(process.keepers[message.peer].open_bulk, message)

    def _close(self) -> None:
        for child in self.children:
            self._pass(self._tell_child, child, Close(), [])
        self._world.after(self._family.options.close_timeout_s, self._kill_late_children)
        for process in self.io_processes:
            if not process.loop.is_dead and not process.is_over:
                for keeper in process.keepers.values():
                    process.loop.call_soon(keeper.begin_close)
        self._stop_when_over()

    @property
    def processes(self) -> list[SimIoProcess | SimChild]:
        """All that there have been, but the opener and gateways."""
        return [*self.io_processes, *self.children]

    @property
    def has_ended(self) -> bool:
        """Whether none of them lives."""
        return all(process.is_over or process.loop.is_dead for process in self.processes)

    def _kill_late_children(self) -> None:
        for child in self.children:
            if not child.is_over and not child.loop.is_dead and not self.is_over:
                self.kill_child(child)

    def _stop_when_over(self) -> None:
        if self.is_closing and self.has_ended:
            self._pass(self._tell_opener, Stopped(self._complaints), [])

    def end(self) -> str:
        """The opener is done with us: whoever is left is killed."""
        self.is_over = True
        self._family.kill_processes()
        return ""


class SimParty(Party):
    """A party whose supervisor is simulated; everything else of it is real."""

    family: Family

    def _start(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        with (
            mock.patch.object(processes, "spawn_supervisor", return_value=self.family.supervisor),
            mock.patch.object(self.processes, "_welcome", side_effect=lambda _: self.family.make_worker()),
        ):
            super()._start(loop)


class Family:
    """One life of one party: its opener, its I/O processes and its gateway."""

    def __init__(
        self,
        world: World,
        network: Network,
        config: PartyConfig,
        options: dict[str, Any],
        on_change: Callable[[], object],
        incarnation: int = 0,
    ) -> None:
        """`options`: fields of LinkOptions that a configuration cannot make so small. `on_change`: a process ended."""
        self.world = world
        self.network = network
        self.name = config.name
        self.index = config.spec.index
        self.options: LinkOptions = replace(config.link_options, **options)
        self.is_dead = False
        self.on_change = on_change
        self.loop = SimLoop(world, f"{self.name}.{incarnation}")
        self.doorbells = [SimDoorbell.create(fence.probe()) for _ in range(config.workers)]
        """The opener's is its own; of the others these are what the supervisor keeps."""
        self.worker: Worker | None = None
        self.party = SimParty(config)
        self.party.family = self
        self.supervisor = SimSupervisor(self)
        self.gateway = SimGateway(self)

    @property
    def workers(self) -> list[tuple[SimLoop, Worker]]:
        """All that live, with their loops, the opener first."""
        found = [] if self.worker is None or self.party._worker is None else [(self.loop, self.worker)]
        children = self.supervisor.children
        return found + [(c.loop, c.worker) for c in children if not (c.loop.is_dead or c.is_over)]

    def make_worker(self) -> Worker:
        config = self.party.config
        self.worker = worker = Worker(
            config.spec,
            self.doorbells[0],
            fence.probe(),
            workers=config.workers,
            inbox_size_max=config.inbox_mib << 20,
            message_size_max=self.options.message_size_max,
        )
        worker.clock = self.loop.time
        worker.commands.ask = self.supervisor.ask  # type: ignore[method-assign]
        return worker

    def take_command(self, message: Message, fds: list[int]) -> None:
        """What the supervisor passed on has arrived in the opener."""
        assert self.worker is not None
        self.supervisor.received(fds)
        if self.party._worker is None:  # it has closed meanwhile
            close_all(fds)
        else:
            self.worker.commands.take(message, fds)
            if self.worker.loop_driver is not None:
                self.worker.loop_driver.schedule()

    def kill(self) -> None:
        """SIGKILL to every process of the party."""
        self.is_dead = True
        self.loop.kill()
        self.kill_processes()

    def kill_processes(self) -> None:
        """Everybody but the opener."""
        self.gateway.kill()
        for process in self.supervisor.processes:
            process.kill()

    def tear_down(self) -> None:
        """Give everything back, whatever state it is in."""
        self.loop.tear_down()
        self.gateway.loop.kill()
        if self.worker is not None:
            for channel in self.party.processes.channels.values():
                channel.close()
            self.worker.close()
        else:
            self.doorbells[0].close()
        for process in self.supervisor.processes:
            process.tear_down()
        for doorbell in self.doorbells[1:]:
            doorbell.close()
        self.supervisor.drop()
