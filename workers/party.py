"""A party: opens the links to all peers, agrees with them on sessions and barriers, and closes in good order.

Between the user's program and the party's family of processes. `Party` is for asyncio, `BlockingParty`
(blocking_party.py) for plain code; both have the same methods. The process that opens a party is its worker 0. The one
invariant: every way out of an open party, an exception while opening included, ends all its processes and gives
everything back.

A common step (make_sessions, barrier, rendezvous) must be entered by all parties in the same order: the same round
with another kind raises SetupMismatch at every party.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
from typing import TYPE_CHECKING

from partywire.engine.addresses import format_address
from partywire.engine.commands import (
    Close,
    LinkFailed,
    LinkNews,
    LinkProgress,
    ListenFailed,
    PublishStat,
    Start,
    Started,
    Stopped,
    Welcome,
    WorkerStarted,
)
from partywire.engine.control import Abort, Rendezvous, Resume, decode_control_untrusted, encode_control
from partywire.engine.control_socket import ControlClosed, ControlSocket, ControlTimeout, close_all
from partywire.engine.errors import LinkProtocolError, PartyWireError, SetupAborted
from partywire.engine.frames import ResetCode
from partywire.engine.rendezvous import check_fields_equal
from partywire.engine.session_resets import ResetSession
from partywire.engine.sessions import SessionBlock, SessionProposal, agree
from partywire.engine.supervisor_handle import SupervisorHandle, spawn_supervisor
from partywire.shm import fence

from .channel import Channel, main_path
from .config import PartyConfig, load_config
from .errors import (
    AddressUnavailable,
    PartyFailed,
    PeerAborted,
    PeerClosed,
    PeerLost,
    RendezvousTimeout,
    SessionError,
    WorkerDied,
)
from .iris_sessions import refuse_common_step, refuse_stride, speak_iris, validate
from .link_events import LinkEvents
from .opening import Opening
from .party_log import PartyLog
from .resets import SessionResets
from .retry import NOT_BEGUN
from .rounds import Rounds
from .security import announcement, check_files
from .stat import PartyStat, party_stat
from .stat_publish import worker_publisher
from .waiting import NEVER, LoopDriver, deadline_of, shared_timeout
from .worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from partywire.engine.commands import Message
    from partywire.engine.stat_publish import StatPublisher

    from .link_events import LinkEvent
    from .peer_link import PeerLink
    from .session import Session

CHILD_VARIABLE = "PARTYWIRE_WORKER"
"""Set in the environment of child workers."""

log = logging.getLogger("partywire")

MAKE_SESSIONS = "make_sessions"
"""The one common step in which a peer without a control connection is not missed: its ids follow without a word."""

PATIENCE_LOOK_S = 1.0
"""How often a common step that waits for a lost link looks whether it has waited long enough."""

WELCOME_TIMEOUT_S = 20.0
"""From the start of the supervisor to its first word: the start of one Python process, on a machine that is busy."""

OPEN_GRACE_S = 3.0
"""How much longer than the I/O processes themselves we wait for links: they know better why one did not come up."""

IDS_AHEAD_MAX = 1 << 26
"""How far a peer's next session id may be ahead of ours once we have made sessions. Parties differ by the blocks of
failed set-ups, each below 2**24; dozens of rounds with all parties lie between a peer and the end of all ids."""

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
        self._spec = spec
        self._listener = listener
        self._on_progress = on_progress
        self._on_event = on_event
        self._events: LinkEvents | None = None
        # Set by _start, cleared by _end.
        self._supervisor: SupervisorHandle | None = None
        self._worker: Worker | None = None
        self._loop_driver: LoopDriver | None = None
        peers = [peer.name for peer in spec.peers if peer.iris is None]
        self._rounds = Rounds(spec.name, peers, lambda: self.worker.links.values())
        self._book = self._rounds.book
        self._next_session_id = 0
        self._is_agreeing = False
        # The last round that gave session ids, and which.
        self._agreed: tuple[int, SessionBlock] | None = None
        # The last batch that we were in and have left.
        self.last_batch = NOT_BEGUN
        # Called when a peer gives up the sessions of that round, some of which may be another worker's, or its link was
        # made anew.
        self.on_agreed_given_up: Callable[[SessionError], None] | None = None
        self._opening = Opening(spec.name, self.config.connect_s)
        self._was_opened = False
        self._channels: dict[int, Channel] = {}
        self._workers_started: set[int] = set()
        self._is_started = False
        self._is_stopped = False
        self._pids: dict[str, int] = {}
        self._complaints: list[str] = []
        self._stat_publisher: StatPublisher | None = None
        self._party_log = PartyLog(spec.name, spec.names)
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
            ConnectFailed: names every peer without a link, and why. Its cause is HandshakeRejected when a peer refused.
            PartyFailed: a process of our own could not be started.
        """
        self._start()
        try:
            self._loop_driver = LoopDriver(self.worker, asyncio.get_running_loop())
            self._loop_driver.attach()
            await self._connect()
        except BaseException:
            self._has_raised = True
            self._end()
            raise

    def _start(self) -> None:
        """Start the supervisor and become worker 0. Waits about as long as a Python process takes to start."""
        if self._worker is not None or self._is_stopped:
            raise RuntimeError("a Party is opened once; make a new one")
        if CHILD_VARIABLE in os.environ:
            raise RuntimeError(
                "a child worker is loading the script that opened its party; put what opens the party "
                "under `if __name__ == '__main__':`"
            )
        check_files(self.config)
        log.log(*announcement(self.config))
        fence.register()
        self._supervisor = spawn_supervisor()
        try:
            control = self._supervisor.control
            fds = [] if self._listener is None else [self._listener.fileno()]
            control.send(self._start_message(), fds)
            self._worker = self._welcome(control)
            if self._on_event is not None:
                self._events = LinkEvents(self.name, self.names, self._on_event)
        except (ControlClosed, ControlTimeout) as error:
            cause = self._end_supervisor() or str(error)
            raise PartyFailed(self.name, f"its supervisor did not start: {cause}") from error
        except BaseException:
            if self._worker is None:
                self._end_supervisor()
            else:
                self._end()
            raise
        self._worker.on_command = self._take_command
        self._worker.on_control = self._take_control
        self._worker.on_link_up = self._link_up
        self._worker.resets = SessionResets(self._worker, lambda: self.stride)

    def _start_message(self) -> Start:
        config = self.config
        listen = tuple(format_address(address) for address in config.listen_addresses)
        main = main_path() if config.workers > 1 else None
        links = config.links_per_io_process
        return Start(self._spec, listen, config.workers, config.link_options, main, links_per_io_process=links)

    def _welcome(self, control: ControlSocket) -> Worker:
        message, fds = control.receive(WELCOME_TIMEOUT_S)
        if isinstance(message, Welcome):
            return Worker.from_welcome(control, message, fds, inbox_size_max=self.config.inbox_mib << 20)
        close_all(fds)
        if isinstance(message, ListenFailed):
            raise AddressUnavailable(self.name, message.message)
        complaints = message.complaints if isinstance(message, Stopped) else []
        raise PartyFailed(self.name, "; ".join(complaints) or f"its supervisor said {type(message).__name__}")

    async def _connect(self) -> None:
        worker = self.worker
        deadline = worker.clock() + self.config.connect_s + OPEN_GRACE_S
        try:
            if not await worker.until(self._is_open, deadline):
                raise self._opening.error(worker.links.values())
        except PartyWireError as error:
            await self._tell_why(str(error))
            raise
        self._was_opened = True

    async def _tell_why(self, reason: str) -> None:
        """Opening failed: peers whose links stand already shall name the reason, and not a lost connection."""
        if any(link.is_up for link in self.worker.links.values()):
            self._rounds.tell_all(encode_control(Abort(self._book.next_round, reason)))
            await self._say_goodbye()

    def _is_open(self) -> bool:
        links = self.worker.links.values()
        self._opening.raise_if_hopeless(links)
        if self._is_stopped:
            raise PartyFailed(self.name, "; ".join(self._complaints) or "its supervisor has stopped")
        for lost in self.worker.lost_workers.values():
            raise lost
        return (
            self._is_started
            and len(self._workers_started) == self.config.workers - 1
            and all(link.is_up and link.control is not None for link in links)
        )

    # What the supervisor and the peers say.

    def _take_command(self, message: Message, fds: list[int]) -> None:
        self._party_log.hear(message)
        match message:
            case WorkerStarted() if len(fds) == 1:
                if (of_the_dead := self._channels.pop(message.index, None)) is not None:
                    of_the_dead.close()
                self._channels[message.index] = Channel(socket.socket(fileno=fds[0]))
                self.worker.lost_workers.pop(message.index, None)
                self._workers_started.add(message.index)
                return
            case PublishStat():
                if self._stat_publisher is None:
                    self._stat_publisher = worker_publisher(self.worker)
                self._stat_publisher.take(message, fds)
                return
            case Started():
                self._is_started = True
                self._pids = dict(message.pids)
            case LinkProgress():
                self._opening.progress[message.peer] = message.cause
                if self._on_progress is not None and not self._was_opened:
                    self._on_progress(self.worker.links[message.peer].name, message.cause)
            case LinkNews():
                if self._events is not None:
                    self._events.put(message)
            case LinkFailed():
                self._opening.failed[message.peer] = message
            case Stopped():
                self._is_stopped = True
                self._complaints = list(message.complaints)
            case _:
                pass
        close_all(fds)

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
            self._book.theirs(link.name, message)
            if isinstance(message, Abort):
                self._abort_agreed(link, message)
        except LinkProtocolError as error:
            self.worker.link_life.lose_link(link, str(error))

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
        supervisor = {} if self._supervisor is None else {"supervisor": self._supervisor.process.pid}
        return supervisor | self._pids

    def stat(self) -> PartyStat:
        """Figures of this moment."""
        return party_stat(self.worker)

    def tell_supervisor(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Give our supervisor a command of engine.commands; it answers on `worker.on_command`. The caller keeps `fds`.

        Raises:
            PartyFailed: the party is not open.
            ControlClosed, ControlTimeout: the supervisor is gone, or does not read.
        """
        if self._supervisor is None:
            raise PartyFailed(self.name, "it is not open")
        self._supervisor.control.send(message, fds)

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

    async def make_sessions(self, count: int, *, timeout: float | None = None) -> list[Session]:
        """Agree with all peers on `count` new sessions, in one round trip for all of them.

        Raises:
            SetupMismatch: a peer is in another step, or wants another number; raised at every party.
            RendezvousTimeout, SetupAborted: some peer did not come in time; raised at every party that did.
            PeerLost: the link to a peer is lost, and did not come back within `reconnect_s`.
            PeerClosed: a peer has closed its party. It may be started again; `wait_for_links` waits for that.
            LinkProtocolError: a peer's proposal is impossible; the link to it is given up.
            SessionTimeout: the same as RendezvousTimeout, of a peer whose link speaks the iris protocol.
            UnsupportedByPeer: such a peer sits at a table with a party of several workers.

        When it raises at one party after others have made their sessions, those fail with PeerAborted.
        """
        worker = self.worker
        timeout = shared_timeout(worker, timeout)
        refuse_stride(worker, self.stride)
        if speak_iris(worker):
            await self.wait_for_links(timeout)  # else an id would be counted here and not there
        worker.expect_sessions()
        try:
            patience = self.config.reconnect_s
            block, _ = await self.agree(MAKE_SESSIONS, count, timeout=timeout, stride=self.stride, patience=patience)
            sessions = self._make_sessions(block)
        finally:
            worker.expect_sessions_end()
        await validate(worker, sessions, timeout, self.give_up_agreed)
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
        round_, outcome = await self._meet(kind, fields, timeout, patience)
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
    ) -> tuple[SessionBlock, dict[str, Mapping[str, object]]]:
        """A rendezvous that also gives a block of `count` session ids, `stride` apart. No session is made.

        Returns the block and what every peer announced, by name. Frames for these ids may arrive as soon as our own
        announcement is out: call Worker.expect_sessions before, on every worker that will have some of them.
        """
        worker = self.worker
        timeout = shared_timeout(worker, timeout)
        if not await worker.until(lambda: not self._is_agreeing, deadline_of(worker, timeout)):
            raise RendezvousTimeout(kind, (self.name,), float(timeout or 0))
        self._is_agreeing = True
        try:
            ours = SessionProposal(count, self._next_session_id, stride)
            round_, outcome = await self._meet(kind, {**(fields or {}), **ours.fields()}, timeout, patience)
            try:
                block = self._agree_untrusted(round_, ours, outcome)
            except LinkProtocolError as error:
                worker.link_life.lose_link(worker.link_of(error.peer), str(error))
                self._rounds.tell_all(encode_control(Abort(round_, str(error))))
                raise
            self.take_sessions(block)
            self._agreed = round_, block
            return block, outcome
        finally:
            self._is_agreeing = False
            worker.notify()

    def _agree_untrusted(
        self, round_: int, ours: SessionProposal, outcome: Mapping[str, Mapping[str, object]]
    ) -> SessionBlock:
        """The block that follows from everybody's proposals.

        Ids begin again at 0 when they are used up. A peer that only says so would make us give ids away of which
        sessions, or their late frames, are still under way.
        """
        proposals = {peer: SessionProposal.from_fields_untrusted(theirs, peer) for peer, theirs in outcome.items()}
        for peer, theirs in proposals.items():
            if ours.next_id and theirs.next_id > ours.next_id + IDS_AHEAD_MAX:
                limit = ours.next_id + IDS_AHEAD_MAX
                raise LinkProtocolError(peer, "next session id too far ahead", theirs.next_id, limit)
        return agree(round_, self.name, {self.name: ours, **proposals})

    def _make_sessions(self, block: SessionBlock) -> list[Session]:
        """All the sessions of a block or none; peers that have made theirs already are told."""
        worker = self.worker
        made: list[Session] = []
        try:
            for session_id in block.ids:
                if session_id in worker.table.live:
                    reason = f"session {session_id} is still in use, and the ids have begun again at 0"
                    raise SetupAborted(self._agreed[0] if self._agreed else -1, self.name, reason)
                made.append(worker.make_session(session_id))
        except PartyWireError as error:
            for session in made:
                session.close()
            self.give_up_agreed(str(error))
            raise
        return made

    def give_up_agreed(self, reason: str) -> None:
        """The sessions of the last `agree` will not be made here: every peer ends those that it has made of them.

        Each peer acts as long as it has not left a later `agree`.
        """
        agreed, self._agreed = self._agreed, None
        if agreed is not None:
            # Said in place of our words in that round: a peer that has missed them must not make the sessions later.
            self._rounds.say(agreed[0], encode_control(Abort(agreed[0], reason)))

    def _abort_agreed(self, link: PeerLink, abort: Abort) -> None:
        """A peer gave up a round that had its outcome here already: its sessions will never be made there."""
        if self._agreed is None or self._agreed[0] != abort.round:
            return  # no peer can be further behind, because each later round needs all of them
        if self.on_agreed_given_up is not None:
            self.on_agreed_given_up(PeerAborted(link.name, self._agreed[1].first, abort.reason))
        for session_id in self._agreed[1].ids:
            session = self.worker.table.live.get(session_id)
            if session is not None:
                session.fail(PeerAborted(link.name, session_id, abort.reason), ResetCode.ABORTED, abort.reason)

    @property
    def next_session_id(self) -> int:
        """What we propose as the first id of the next block."""
        return self._next_session_id

    @property
    def stride(self) -> int:
        """The distance of session ids that belong to worker 0 at every party."""
        return math.lcm(self.config.workers, *(link.peer_workers or 1 for link in self.worker.links.values()))

    def take_sessions(self, block: SessionBlock) -> None:
        """The ids of a block are given away, whoever makes the sessions."""
        self._next_session_id = block.next_id
        if block.first == 0:
            self.worker.table.skip_below(0)  # ids began, or begin again, at 0

    @property
    def channels(self) -> dict[int, Channel]:
        """Worker index -> our end of its channel, for the batch runner. They stay the party's to close."""
        return dict(self._channels)

    def refuse_round(self, kind: str, reason: str) -> None:
        """Take part in the next common step by giving it up: nobody waits for us there, and rounds stay in step."""
        round_ = self._book.next_round
        self._book.our(round_, kind, {})
        self._rounds.say(round_, encode_control(self._book.abort(round_, reason)))

    async def _meet(
        self, kind: str, fields: Mapping[str, object], timeout: float | None, patience: float | None = None
    ) -> tuple[int, dict[str, Mapping[str, object]]]:
        worker = self.worker
        if kind != MAKE_SESSIONS:
            refuse_common_step(worker, kind)
        deadline = deadline_of(worker, timeout)
        if not await worker.until(lambda: not self._rounds.silent, deadline):
            raise RendezvousTimeout(kind, self._rounds.silent, float(timeout or 0))
        round_ = self._book.next_round
        body = encode_control(Rendezvous(round_, kind, fields))  # raises before anybody is told
        self._book.our(round_, kind, fields)
        self._rounds.say(round_, body)
        lost_at: dict[str, float] = {}
        outcome: dict[str, Mapping[str, object]] | None = None
        is_over = False

        def is_complete() -> bool:
            nonlocal outcome, is_over
            is_over = True  # the book closes the round with whatever it raises
            outcome = self._book.outcome(round_)
            is_over = outcome is not None
            if outcome is None:
                self._refuse_missing(round_, patience, lost_at)
            return is_over

        try:
            look_s = NEVER if patience is None else min(patience, PATIENCE_LOOK_S)
            while not await worker.until(is_complete, min(deadline, worker.clock() + look_s)):
                if worker.clock() >= deadline:
                    break
            if outcome is not None:
                return round_, outcome
            assert timeout is not None
            raise RendezvousTimeout(kind, self._book.missing(round_), float(timeout))
        except BaseException as error:
            if not is_over:
                reason = str(error) if isinstance(error, PartyWireError) else f"{kind} was cancelled"
                self._rounds.say(round_, encode_control(self._book.abort(round_, reason)))
            raise

    def _refuse_missing(self, round_: int, patience: float | None, lost_at: dict[str, float]) -> None:
        """Whoever is missing and gone will not come any more; with patience, once it has been gone for so long."""
        if (failure := self.worker.failure) is not None:
            raise PartyFailed(*failure.args)  # with it every link is over, and no peer is to blame
        missing = self._book.missing(round_)
        now = self.worker.clock()
        for link in self.worker.links.values():
            if link.cause and link.name in missing:
                if patience is None or now - lost_at.setdefault(link.name, now) >= patience:
                    raise PeerLost(link.name, None, link.epoch, self._opening.why_lost(link))
            else:
                lost_at.pop(link.name, None)
            if link.name in missing and link.is_closed:
                raise PeerClosed(link.name, None, link.epoch)

    def _link_up(self, link: PeerLink) -> None:
        """A link is up (again). Sessions on which we agreed before ended with its former epoch."""
        self._opening.progress.pop(link.index, None)
        if link.iris is not None:
            return
        agreed, self._agreed = self._agreed, None
        self._rounds.link_up(link, None if agreed is None else agreed[0])
        if self.worker.resets is not None:
            self.worker.resets.link_was_made(link)
        if agreed is not None and self.on_agreed_given_up is not None:
            self.on_agreed_given_up(PeerLost(link.name, agreed[1].first, link.epoch - 1, "the link was made anew"))

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
        assert self._supervisor is not None
        worker.service()  # a peer that was lost while nobody looked is to be told of as that
        self._party_log.begin_closing(worker)
        if worker.failure is not None:
            return
        deadline = worker.clock() + self.config.close_s
        try:
            await worker.finish(deadline)
            self._supervisor.control.send(Close())
            await worker.until(lambda: self._is_stopped, deadline + STOP_GRACE_S)
        except (PartyFailed, ControlClosed, ControlTimeout) as error:
            log.debug("%s: the supervisor ended before it was told to: %s", self.name, error)

    def _end(self) -> None:
        """Give everything back, whatever state it is in."""
        if self._worker is not None and self._worker.is_of_parent:
            return  # a fork has no part in its parent's processes; the references stay, so that nothing is finalised
        worker, self._worker = self._worker, None
        self._is_stopped = True
        if self._loop_driver is not None:
            self._loop_driver.detach()
            self._loop_driver = None
        try:
            if worker is not None:
                self._party_log.end(worker)
                worker.close()
            for channel in self._channels.values():
                channel.close()
            self._channels.clear()
            if self._stat_publisher is not None:
                self._stat_publisher.close()
        finally:
            complaint = self._end_supervisor()
        if self._events is not None:
            self._events.close()
        for line in [*self._complaints, *([complaint] if complaint else [])]:
            log.log(logging.INFO if self._has_raised else logging.WARNING, "%s: %s", self.name, line)

    def _end_supervisor(self) -> str:
        supervisor, self._supervisor = self._supervisor, None
        return "" if supervisor is None else supervisor.end()
