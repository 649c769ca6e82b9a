"""The processes of a party as its opener sees them: started, heard, told, ended.

Between the party and its supervisor, which has all the others. The one invariant: a `start` that raises and `end` leave
no process of the family, no channel and no descriptor behind.
"""

from __future__ import annotations

import errno
import logging
import socket
from typing import TYPE_CHECKING

from partywire.engine.addresses import format_address
from partywire.engine.commands import (
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
from partywire.engine.control_socket import ControlClosed, ControlSocket, ControlTimeout, DescriptorsLost, close_all
from partywire.engine.node_commands import NodeFailed, NodeLane, NodeLost
from partywire.engine.shortage import describe_shortage, descriptor_need, refuse_few_descriptors
from partywire.engine.supervisor_handle import SupervisorHandle, spawn_supervisor
from partywire.shm.errors import ShmError

from .channel import Channel, main_path
from .config import IO_IN_PROCESS
from .errors import AddressUnavailable, PartyFailed
from .link_events import LinkEvents
from .party_log import PartyLog
from .stat_publish import worker_publisher
from .watched_node import NodeWatch
from .worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from partywire.engine.commands import Message
    from partywire.engine.stat_publish import StatPublisher

    from .config import PartyConfig
    from .link_events import LinkEvent
    from .opening import Opening

log = logging.getLogger("partywire")

WELCOME_TIMEOUT_S = 20.0
"""From the start of the supervisor to its first word: the start of one Python process, on a machine that is busy."""


class Processes:
    """Of one party. Driven by the party and by the supervisor's commands."""

    def __init__(
        self,
        config: PartyConfig,
        opening: Opening,
        on_progress: Callable[[str, str], None] | None,
        on_event: Callable[[LinkEvent], object] | None,
    ) -> None:
        """Starts nothing yet. `opening` is told what happens to links; the callbacks are those of Party."""
        self._config = config
        self._name = config.spec.name
        self._opening = opening
        # Called while the party opens, and then taken away.
        self.on_progress = on_progress
        self._on_event = on_event
        self._events: LinkEvents | None = None
        self.log = PartyLog(config.spec.name, config.spec.names)
        self.node = NodeWatch(config.spec.name, has_node=config.node is not None)
        # Set by `start`, cleared by `end`.
        self._supervisor: SupervisorHandle | None = None
        # Of the workers 1 .. W-1, by index.
        self._channels: dict[int, Channel] = {}
        self._workers_started: set[int] = set()
        self._is_started = False
        self._pids: dict[str, int] = {}
        self._stat_publisher: StatPublisher | None = None
        # Whether the supervisor has said its last word, or we have ended it, and what it had to complain of.
        self.is_stopped = False
        self.complaints: list[str] = []

    def start(self, listener: socket.socket | None) -> Worker:
        """Start the supervisor and become worker 0. Waits about as long as a Python process takes to start.

        Raises:
            AddressUnavailable: our own address cannot be listened on.
            PartyFailed: the supervisor could not be started, or there are too few descriptors for the party, of which
                the OSError behind it tells.
        """
        try:
            self._refuse_few_descriptors()
            return self._start_supervisor(listener)
        except (OSError, ShmError, DescriptorsLost) as error:
            cause = f"its processes cannot be started: {describe_shortage(error)}"
            raise PartyFailed(self._name, cause) from error

    def _refuse_few_descriptors(self) -> None:
        """Raises OSError if the limit of open files is too low for this party."""
        config = self._config
        links, workers = len(config.spec.peers), config.workers
        listeners = max(1, len(config.listen_addresses))
        need = descriptor_need(links, workers, config.links_per_io_process, listeners)
        whose = f"a party with {links} link{'s' * (links > 1)} and {workers} worker{'s' * (workers > 1)}"
        refuse_few_descriptors(need, whose)

    def _start_supervisor(self, listener: socket.socket | None) -> Worker:
        self._supervisor = spawn_supervisor()
        worker: Worker | None = None
        try:
            control = self._supervisor.control
            control.send(self._start_message(), [] if listener is None else [listener.fileno()])
            worker = self._welcome(control)
            self._begin_events()
        except (ControlClosed, ControlTimeout) as error:
            cause = self._end_supervisor() or str(error)
            raise PartyFailed(self._name, f"its supervisor did not start: {cause}") from error
        except BaseException:
            if worker is not None:
                worker.close()
            self._end_supervisor()
            raise
        return worker

    def _begin_events(self) -> None:
        if self._on_event is not None:
            try:
                self._events = LinkEvents(self._name, self._config.spec.names, self._on_event)
            except RuntimeError as error:  # which Python makes of the kernel's error
                raise OSError(errno.EAGAIN, "no thread can be started for on_event") from error

    def _start_message(self) -> Start:
        config = self._config
        listen = tuple(format_address(address) for address in config.listen_addresses)
        main = main_path() if config.workers > 1 else None
        links = config.links_per_io_process
        options = config.link_options
        node = None
        if config.node is not None:
            from .node.in_party import node_options  # only here: most parties have no node

            node = node_options(config.node)
        return Start(config.spec, listen, config.workers, options, main, links_per_io_process=links, node=node)

    def _welcome(self, control: ControlSocket) -> Worker:
        message, fds = control.receive(WELCOME_TIMEOUT_S)
        if isinstance(message, Welcome):
            return Worker.from_welcome(control, message, fds, inbox_size_max=self._config.inbox_mib << 20)
        close_all(fds)
        if isinstance(message, ListenFailed):
            raise AddressUnavailable(self._name, message.message)
        complaints = message.complaints if isinstance(message, Stopped) else []
        raise PartyFailed(self._name, "; ".join(complaints) or f"its supervisor said {type(message).__name__}")

    @property
    def are_up(self) -> bool:
        """Whether all of them have been started, and the node, if there is one, stands.

        Raises:
            NodeUnavailable: it never will.
        """
        is_whole = self._is_started and len(self._workers_started) == self._config.workers - 1
        return not self.node.is_awaited and is_whole

    @property
    def pids(self) -> dict[str, int]:
        """Role -> process id, as last heard."""
        supervisor = {} if self._supervisor is None else {"supervisor": self._supervisor.process.pid}
        return supervisor | self._pids

    @property
    def channels(self) -> dict[int, Channel]:
        """Worker index -> our end of its channel, for the batch runner. They stay ours to close."""
        return dict(self._channels)

    def hear(self, worker: Worker, message: Message, fds: list[int]) -> None:
        """Take in a command that concerns the party, or one of its processes. Owns the descriptors."""
        self.log.hear(message)
        match message:
            case WorkerStarted() if len(fds) == 1:
                if (of_the_dead := self._channels.pop(message.index, None)) is not None:
                    of_the_dead.close()
                self._channels[message.index] = Channel(socket.socket(fileno=fds[0]))
                worker.lost_workers.pop(message.index, None)
                self._workers_started.add(message.index)
                return
            case PublishStat():
                if self._stat_publisher is None:
                    self._stat_publisher = worker_publisher(worker)
                self._stat_publisher.take(message, fds)
                return
            case NodeLane() | NodeLost() | NodeFailed():
                self.node.hear(message, fds)
                return
            case Started():
                self._is_started = True
                self._pids = dict(message.pids)
            case LinkProgress():
                self._opening.progress[message.peer] = message.cause
                if self.on_progress is not None:
                    self.on_progress(worker.links[message.peer].name, message.cause)
            case LinkNews():
                if self._events is not None:
                    self._events.put(message)
            case LinkFailed():
                self._opening.failed[message.peer] = message
            case Stopped():
                self.is_stopped = True
                self.complaints = list(message.complaints)
            case _:
                pass
        close_all(fds)

    def tell(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Give our supervisor a command of engine.commands; it answers on `worker.on_command`. The caller keeps `fds`.

        Raises:
            PartyFailed: the party is not open.
            ControlClosed, ControlTimeout: the supervisor is gone, or does not read.
        """
        if self._supervisor is None:
            raise PartyFailed(self._name, "it is not open")
        self._supervisor.control.send(message, fds)

    def end(self, *, is_told: bool) -> None:
        """End what runs and give everything back. Logs complaints, as warnings unless an error tells the user."""
        self.is_stopped = True
        try:
            for channel in self._channels.values():
                channel.close()
            self._channels.clear()
            if self._stat_publisher is not None:
                self._stat_publisher.close()
        finally:
            complaint = self._end_supervisor()
        if self._events is not None:
            self._events.close()
        for line in [*self.complaints, *([complaint] if complaint else [])]:
            log.log(logging.INFO if is_told else logging.WARNING, "%s: %s", self._name, line)

    def _end_supervisor(self) -> str:
        supervisor, self._supervisor = self._supervisor, None
        return "" if supervisor is None else supervisor.end()


def processes_of(config: PartyConfig) -> type[Processes]:
    """What kind of family a configuration asks for."""
    if config.io == IO_IN_PROCESS:
        from .in_process import InProcess  # only here: most parties have processes, which import asyncio in its place

        return InProcess
    return Processes
