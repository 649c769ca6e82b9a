"""A party: opens the links to all peers, agrees with them on sessions and barriers, and closes in good order.

Between the user's program and what makes up a party: its processes (processes.py), its worker, the common steps with
its peers (common_steps.py) and what these say of sessions (session_agreement.py). `Party` is for asyncio,
`BlockingParty` (blocking_party.py) for plain code; both have the same methods. The process that opens a party is its
worker 0. The one invariant: every way out of an open party, an exception while opening included, ends all its processes
and gives everything back.

A common step (make_sessions, barrier, rendezvous) must be entered by all parties in the same order: the same round
with another kind raises SetupMismatch at every party.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from functools import partial
from typing import TYPE_CHECKING

from partywire.engine.commands import Close
from partywire.engine.control import Abort, Resume, decode_control_untrusted, encode_control
from partywire.engine.control_socket import ControlClosed, ControlTimeout
from partywire.engine.errors import LinkProtocolError, PartyWireError
from partywire.engine.rendezvous import check_fields_equal
from partywire.engine.session_resets import ResetSession
from partywire.shm import fence

from .bulk import refuse_bulk
from .common_steps import MAKE_SESSIONS, CommonSteps
from .config import PartyConfig, load_config
from .errors import PartyFailed, PeerClosed, PeerLost, RendezvousTimeout, WorkerDied
from .iris_sessions import refuse_stride, speak_iris, validate
from .opening import Opening
from .processes import processes_of
from .resets import SessionResets
from .retry import NOT_BEGUN
from .rounds import Rounds
from .security import announcement, check_files
from .session_agreement import SessionAgreement
from .waiting import LoopDriver, deadline_of, shared_timeout

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from partywire.engine.peers.contract import ProtocolHandler
    from partywire.engine.peers.peer_id import PeerId
    from partywire.engine.sessions import SessionBlock

    from .link_events import LinkEvent
    from .party_node.files import SubstreamFile
    from .party_node.node import PartyNode
    from .peer_link import PeerLink
    from .session import Session
    from .stat import PartyStat
    from .worker import Worker

CHILD_VARIABLE = "PARTYWIRE_WORKER"
"""Set in the environment of child workers."""

log = logging.getLogger("partywire")

OPEN_GRACE_S = 3.0
"""How much longer than the I/O processes themselves we wait for links: they know better why one did not come up."""

STOP_GRACE_S = 3.0
"""How much longer than close_s we wait for the supervisor to say that everything has ended."""


class Party:
    """The asynchronous form. Opened by `async with`, in the loop that then drives it.

    Finished by leaving the block. PartyFailed is raised by every call once one of our own processes has died.
    """

    def __init__(
        self,
        config: PartyConfig | str | Path,
        listener: socket.socket | None = None,
        *,
        on_progress: Callable[[str, str], None] | None = None,
        on_event: Callable[[LinkEvent], object] | None = None,
    ) -> None:
        """Starts nothing yet.

        Args:
            config: a configuration, or the path of its file.
            listener: a listening socket to accept peers on, instead of binding our address; stays the caller's.
            on_progress: called while opening with a peer and why it is not connected yet.
            on_event: called with what happens to links from the start to the end, in a thread of its own.

        Raises:
            ConfigError: names every key at fault.
        """
        self.config = config if isinstance(config, PartyConfig) else load_config(config)
        spec = self.config.spec
        self.name = spec.name
        self.index = spec.index
        self.names = spec.names
        self._listener = listener
        # Set by _start, cleared by _end.
        self._worker: Worker | None = None
        self._loop_driver: LoopDriver | None = None
        self._opening = Opening(spec.name, self.config.connect_s)
        self._was_opened = False
        self.processes = processes_of(self.config)(self.config, self._opening, on_progress, on_event)
        peers = [peer.name for peer in spec.peers if peer.iris is None]
        self._rounds = Rounds(spec.name, peers, lambda: self.worker.links.values())
        self._steps = CommonSteps(self._rounds, lambda: self.worker, self._opening.why_lost)
        self.agreement = SessionAgreement(spec.name, self._rounds, lambda: self.worker)
        # One agreement at a time: each proposes the ids behind those of the one before.
        self._is_agreeing = False
        # The last batch that we were in and have left.
        self.last_batch = NOT_BEGUN
        self._node: PartyNode | None = None
        if self.config.node is not None:
            from .party_node.node import PartyNode  # only here: most parties have no control plane

            self._node = PartyNode(self.config)
        # Whether an error is on its way to the user, who then need not read of its consequences in the log.
        self._has_raised = False

    # Opening.

    async def __aenter__(self) -> Party:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._has_raised = error is not None
        await self.close()

    async def open(self) -> None:
        """Start our processes and wait for the links to all peers.

        Raises:
            AddressUnavailable: our own address cannot be listened on.
            NodeUnavailable: the party's node cannot start.
            ConnectFailed: names every peer without a link, and why. Its cause is HandshakeRejected when a peer refused.
            PartyFailed: a process of our own could not be started.
        """
        loop = asyncio.get_running_loop()
        self._start(loop)
        try:
            self._loop_driver = LoopDriver(self.worker, loop)
            self._loop_driver.attach()
            await self._connect()
        except BaseException:
            self._has_raised = True
            self._end()
            raise

    def _start(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Start the supervisor and become worker 0. Waits about as long as a Python process takes to start. `loop` runs
        the handlers of protocols, if it is going to drive the party."""
        if self._worker is not None or self.processes.is_stopped:
            raise RuntimeError("a Party is opened once; make a new one")
        if CHILD_VARIABLE in os.environ:
            raise RuntimeError(
                "a child worker is loading the script that opened its party; put what opens the party "
                "under `if __name__ == '__main__':`"
            )
        check_files(self.config)
        identity = None
        if self._node is not None:
            from .node.in_party import make_identity  # only here: most parties have no node

            self._node.check_loop(loop)
            identity = make_identity(self.config)
        log.log(*announcement(self.config))
        fence.register()
        self._worker = worker = self.processes.start(self._listener)
        worker.on_command = partial(self.processes.hear, worker)
        worker.on_control = self._take_control
        worker.on_link_up = self._link_up
        worker.resets = SessionResets(worker, lambda: self.stride)
        if self._node is not None and identity is not None:
            self._node.begin(worker, identity.peer_id, loop)
            self.processes.node.on_lane = self._node.take_process_lane
            self.processes.node.on_lost = self._node.lose_process

    async def _connect(self) -> None:
        worker = self.worker
        deadline = worker.clock() + self.config.connect_s + OPEN_GRACE_S
        try:
            if not await worker.until(self._is_open, deadline):
                if all(link.is_up for link in worker.links.values()) and self.processes.node.is_awaited:
                    raise self.processes.node.late_error(self.config.connect_s)
                raise self._opening.error(worker.links.values())
        except PartyWireError as error:
            await self._tell_why(str(error))
            raise
        self._was_opened = True
        self.processes.on_progress = None

    async def _tell_why(self, reason: str) -> None:
        """Opening failed: peers whose links stand already shall name the reason, and not a lost connection."""
        if any(link.is_up for link in self.worker.links.values()):
            self._rounds.tell_all(encode_control(Abort(self._rounds.book.next_round, reason)))
            await self._say_goodbye()

    def _is_open(self) -> bool:
        links = self.worker.links.values()
        self._opening.raise_if_hopeless(links)
        if self.processes.is_stopped:
            raise PartyFailed(self.name, "; ".join(self.processes.complaints) or "its supervisor has stopped")
        for lost in self.worker.lost_workers.values():
            raise lost
        if self._node is not None and not self._node.is_ready:
            return False
        return self.processes.are_up and all(link.is_up and link.control is not None for link in links)

    # What peers say to openers.

    def _take_control(self, link: PeerLink, body: bytes) -> None:
        try:
            message = decode_control_untrusted(body, link.name)
            if isinstance(message, ResetSession):
                if self.worker.resets is not None:
                    self.worker.resets.take_untrusted(link, message)
                return
            if isinstance(message, Resume):
                self._rounds.take_untrusted(link, message)
                return
            if isinstance(message, Abort) and not self._was_opened and link.name not in self._rounds.running:
                self._opening.gave_up[link.name] = message.reason
            self._rounds.book.theirs(link.name, message)
            if isinstance(message, Abort):
                self.agreement.given_up_by(link, message)
        except LinkProtocolError as error:
            self.worker.link_life.lose_link(link, str(error))

    def _link_up(self, link: PeerLink) -> None:
        """A link is up (again)."""
        self._opening.progress.pop(link.index, None)
        if link.iris is not None:
            return
        lost = self.agreement.link_was_made(link)
        if self.worker.resets is not None:
            self.worker.resets.link_was_made(link)
        if lost is not None and self.agreement.on_given_up is not None:
            self.agreement.on_given_up(lost)

    # What a user may ask.

    @property
    def worker(self) -> Worker:
        """Worker 0 of the party, in this process.

        Raises:
            PartyFailed: the party is not open.
        """
        if self._worker is None:
            raise PartyFailed(self.name, "it is not open")
        return self._worker

    @property
    def pids(self) -> dict[str, int]:
        """Role -> process id of every process of the party but this one, as of now: others may have taken the place of
        those that died."""
        if self._worker is not None:
            self._worker.commands.look()
        return self.processes.pids

    def stat(self) -> PartyStat:
        """Figures of this moment."""
        from .stat import party_stat  # few ask

        return party_stat(self.worker)

    # The control plane.

    @property
    def node(self) -> PartyNode:
        """Substreams, messages and calls of linked parties and other peers (docs/control-plane.md).

        Raises:
            NodeNotConfigured: the configuration has no table [node].
        """
        if self._node is None:
            from .party_node.errors import NodeNotConfigured  # only here, as above

            raise NodeNotConfigured(self.name)
        return self._node

    def protocol(self, protocol: str) -> Callable[[ProtocolHandler], ProtocolHandler]:
        """Serve substreams for a protocol in this process, as a decorator of `async def (connection, reader, writer)`.
        Handlers that are registered before the party opens miss nobody. Raises like `node`, and PartyNode.serve."""
        return self.node.protocol(protocol)

    def open_file(self, peer: str | PeerId, protocol: str, *, timeout: float | None = None) -> SubstreamFile:
        """A new substream as a plain file, for code that does not await: PartyNode.open_file."""
        return self.node.open_file(peer, protocol, timeout=timeout)

    # Recovery.

    async def wait_for_links(self, timeout: float | None = None) -> None:
        """Return when the links to all peers are up and all our workers run, as after a failure or before a retry.

        A peer that closed its party may be started again meanwhile. Without `timeout` it waits for `reconnect_s`.

        Raises:
            WorkerDied: a worker of ours is gone and no other took its place in time.
            PeerLost, PeerClosed: a link is down, and why; the first one of several.
        """
        worker = self.worker
        seconds = self.config.reconnect_s if timeout is None else timeout

        def is_whole() -> bool:
            return not worker.lost_workers and all(link.is_up for link in worker.links.values())

        if await worker.until(is_whole, deadline_of(worker, seconds)):
            return
        for died in worker.lost_workers.values():
            raise WorkerDied(*died.args)
        for link in worker.links.values():
            if link.is_closed and not link.cause and link.iris is None:
                raise PeerClosed(link.name, None, link.epoch)
            if not link.is_up:
                raise PeerLost(link.name, None, link.epoch, self._opening.why_lost(link))

    # Common steps.

    async def make_sessions(self, count: int, *, bulk: bool = False, timeout: float | None = None) -> list[Session]:
        """Agree with all peers on `count` new sessions, in one round trip for all of them.

        Those of the `bulk` class have connections to themselves, one with each peer, so that their large messages never
        stand in front of other sessions' small ones. The first such call of a link's life dials them.

        Raises:
            SetupMismatch: a peer is in another step, or wants another number or class; raised at every party.
            RendezvousTimeout, SetupAborted: some peer did not come in time; raised at every party that did.
            PeerLost: the link to a peer is lost, and did not come back within `reconnect_s`.
            PeerClosed: a peer has closed its party. It may be started again; `wait_for_links` waits for that.
            LinkProtocolError: a peer's proposal is impossible; the link to it is given up.
            SessionTimeout: the same as RendezvousTimeout, of a peer whose link speaks the iris protocol.
            UnsupportedByPeer: such a peer sits at a table with a party of several workers, or the sessions are of the
                bulk class.
            NoBulkConnection: a bulk connection cannot be made.

        When it raises at one party after others have made their sessions, those fail with PeerAborted.
        """
        worker = self.worker
        timeout = shared_timeout(worker, timeout)
        refuse_stride(worker, self.stride)
        if bulk:
            refuse_bulk(worker)
        if speak_iris(worker):
            await self.wait_for_links(timeout)  # else an id would be counted here and not there
        worker.expect_sessions()
        try:
            patience = self.config.reconnect_s
            block, _ = await self.agree(
                MAKE_SESSIONS, count, timeout=timeout, stride=self.stride, patience=patience, bulk=bulk
            )
            sessions = self.agreement.make_sessions(block, is_bulk=bulk)
        finally:
            worker.expect_sessions_end()
        await validate(worker, sessions, timeout, self.agreement.give_up)
        return sessions

    async def barrier(self, *, timeout: float | None = None) -> None:
        """Return when every party has called it. Raises like `make_sessions`."""
        await self.rendezvous("barrier", {}, timeout=timeout, patience=self.config.reconnect_s)

    async def rendezvous(
        self,
        kind: str,
        fields: Mapping[str, object],
        *,
        timeout: float | None = None,
        equal: bool = False,
        patience: float | None = None,
    ) -> dict[str, Mapping[str, object]]:
        """Enter a common step and return what every peer announced for it, by name.

        What the fields mean is the caller's business. With `equal` they must be the same at every party. With
        `patience` the link to a peer that has not come may be lost for so many seconds.

        Raises:
            SetupMismatch: a peer is in a step of another kind, or has another value in a field that must be equal;
                raised at every party, naming both.
            RendezvousTimeout, SetupAborted, PeerLost, PeerClosed: as for `make_sessions`.
        """
        round_, outcome = await self._steps.meet(kind, fields, timeout, patience)
        if equal:
            check_fields_equal(round_, fields, outcome, fields)
        return outcome

    async def agree(
        self,
        kind: str,
        count: int,
        fields: Mapping[str, object] | None = None,
        *,
        timeout: float | None = None,
        stride: int = 1,
        patience: float | None = None,
        bulk: bool = False,
    ) -> tuple[SessionBlock, dict[str, Mapping[str, object]]]:
        """A rendezvous that also gives a block of `count` session ids, `stride` apart. No session is made; the `bulk`
        connections that such sessions need are.

        Returns the block and what every peer announced, by name. Frames for these ids may arrive as soon as our own
        announcement is out: call Worker.expect_sessions before, on every worker that will have some of them.
        """
        worker = self.worker
        timeout = shared_timeout(worker, timeout)
        if not await worker.until(lambda: not self._is_agreeing, deadline_of(worker, timeout)):
            raise RendezvousTimeout(kind, (self.name,), float(timeout or 0))
        self._is_agreeing = True
        try:
            ours = self.agreement.propose(count, stride, bulk)
            round_, outcome = await self._steps.meet(kind, {**(fields or {}), **ours.fields()}, timeout, patience)
            try:
                block = self.agreement.reach_untrusted(round_, ours, outcome)
            except LinkProtocolError as error:
                worker.link_life.lose_link(worker.link_of(error.peer), str(error))
                self._rounds.tell_all(encode_control(Abort(round_, str(error))))
                raise
            if bulk:
                latest = worker.clock() + self.config.connect_s
                await self.agreement.open_bulk(block, min(deadline_of(worker, timeout), latest))
            return block, outcome
        finally:
            self._is_agreeing = False
            worker.notify()

    @property
    def stride(self) -> int:
        """The distance of session ids that belong to worker 0 at every party."""
        return math.lcm(self.config.workers, *(link.peer_workers or 1 for link in self.worker.links.values()))

    def refuse_round(self, kind: str, reason: str) -> None:
        """Take part in the next common step by giving it up: nobody waits for us there, and rounds stay in step."""
        self._steps.refuse(kind, reason)

    # Closing.

    async def close(self) -> None:
        """Say goodbye to all peers and end our processes. What was sent is delivered, if the peers take it within
        `close_s`. Sessions cannot be used afterwards. May be called again; never raises on account of a peer.
        """
        if self._worker is None:
            return
        try:
            await self._say_goodbye()
        finally:
            self._end()

    async def _say_goodbye(self) -> None:
        worker = self.worker
        worker.service()  # a peer that was lost while nobody looked is to be told of as that
        self.processes.log.begin_closing(worker)
        if worker.failure is not None:
            return
        deadline = worker.clock() + self.config.close_s
        try:
            if self._node is not None:
                await self._node.end(worker.clock() + self.config.close_s / 2)
            await worker.finish(deadline)
            self.processes.tell(Close())
            await worker.until(lambda: self.processes.is_stopped, deadline + STOP_GRACE_S)
        except (PartyFailed, ControlClosed, ControlTimeout) as error:
            log.debug("%s: the supervisor ended before it was told to: %s", self.name, error)

    def _end(self) -> None:
        """Give everything back, whatever state it is in."""
        if self._worker is not None and self._worker.is_of_parent:
            return  # a fork has no part in its parent's processes; the references stay, so that nothing is finalised
        worker, self._worker = self._worker, None
        if self._node is not None:
            self._node.abandon()
        if self._loop_driver is not None:
            self._loop_driver.detach()
            self._loop_driver = None
        try:
            if worker is not None:
                self.processes.log.end(worker)
                worker.close()
        finally:
            self.processes.end(is_told=self._has_raised)
