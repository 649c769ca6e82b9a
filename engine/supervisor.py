"""The supervisor: starts, watches and ends every process of a party, and carries their messages between them.

Between the opener (its parent) and everybody else (its children). The one invariant: when the supervisor is gone,
whatever the reason, every process of the party but the opener is gone too, nothing of it is left in /dev/shm, and
nobody is a zombie.

    opener ── control socket ── supervisor ─┬─ gateway
      (worker 0)                            ├─ I/O process of each link, or of several
                                            ├─ node, if the party has one
                                            └─ worker 1, 2 ...

- It makes everything that two processes share before either exists (doorbells, channels, link sockets), so the order
  in which they come up does not matter.
- A message for a process that does not read is held, never waited for: the supervisor serves everybody always.
- A child that dies is started again, not too often (`restarts`): what it shares with others, the listening sockets,
  both ends of link sockets and the doorbells, is kept here. With an I/O process its links are lost, with a worker all
  links of the party, since rings are never repaired; new epochs of them follow. What the machine cannot start at the
  moment is tried again (`supervisor_retries`).
- Its parts for links, workers, HTTP and the node: `link_family`, `worker_family`, `front_family`, `node_family`.
- It runs on `selectors`, without an event loop, numpy or threads, so that gateway and I/O processes can be its forks.
  It has a session of its own: Ctrl-C reaches the opener alone.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from partywire.shm import fence
from partywire.shm.errors import ShmError

from . import limits, program
from .bulk_commands import OpenBulk
from .child_process import begin_child, parent_pidfd
from .children import FORKED, Child, Children, Kind
from .commands import (
    AreYouThere,
    Close,
    CommandError,
    Here,
    LinkClaimed,
    ListenFailed,
    RemakeLink,
    Start,
    Started,
    Stopped,
    Welcome,
    WorkerLost,
)
from .control_socket import ControlClosed, ControlSocket, ControlTimeout, DescriptorsLost, close_all
from .http_commands import HttpFailed, StartHttp
from .link_family import LinkFamily, LinkSteps
from .listening import ListenError
from .restarts import STAYS_AWAY, Restarts
from .shared_parts import SharedParts
from .shortage import describe_shortage
from .stat_server import OPENER, ProcessEntry, StatServer
from .supervisor_retries import Retries
from .topology import shares_of_links
from .vigil import Vigil
from .worker_family import WorkerFamily

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .commands import Message
    from .front_family import FrontFamily
    from .node_commands import NodeOptions
    from .node_family import NodeFamily

STOPPED_TIMEOUT_MIN_S: Final = 2.0
"""How long an I/O process may leave a question unanswered, at least; else twice the heartbeat timeout, so that its
peers have given it up for its silence before."""

START_TIMEOUT_S: Final = 60.0
"""For the opener's Start. The opener sends it at once; a machine that swaps may take long to run either of us."""


class Supervisor:
    """Driven by its control sockets, by the ends of its children, and by time while it closes."""

    def __init__(self, opener: ControlSocket, opener_pidfd: int) -> None:
        """Takes ownership of both; `opener_pidfd` is readable once the opener has ended."""
        self._opener = opener
        self._opener_pidfd = opener_pidfd
        self._selector = selectors.DefaultSelector()
        self._children = Children(self._selector)
        self._start: Start | None = None  # set by the first message
        self._parts = SharedParts()
        self._restarts = Restarts()
        self._retries = Retries("")  # with the party's name from its Start on
        self._vigil: Vigil[str] = Vigil(limits.HEARTBEAT_TIMEOUT_S, STOPPED_TIMEOUT_MIN_S)  # of I/O processes, by role
        self._closing = False
        self._worker_family = WorkerFamily(self._send, opener, self._children, self._parts)
        steps = LinkSteps(self._send, self._ask, self._worker_family.tell, self._note)
        self._link_family = LinkFamily(steps, opener, self._children, self._parts)
        self._front_family: FrontFamily | None = None  # once the opener has asked for HTTP
        self._node_family: NodeFamily | None = None  # from the start of the family, if the party has a node
        self._workers_deadline: float | None = None  # while closing
        self._complaints: list[str] = []
        self._stat: StatServer | None = None  # from the start of the family
        self._on_message: Final = {
            Kind.GATEWAY: self._on_gateway_message,
            Kind.LINK: self._on_link_message,
            Kind.WORKER: self._on_worker_message,
            Kind.HTTP: self._on_http_message,
            Kind.NODE: self._on_node_message,
        }
        self._on_end: Final = {
            Kind.GATEWAY: self._on_gateway_end,
            Kind.LINK: self._on_io_process_end,
            Kind.WORKER: self._on_worker_end,
            Kind.HTTP: self._on_http_end,
            Kind.NODE: self._on_node_end,
        }

    # The party comes up.

    def run(self) -> None:
        """Serve one party from its Start until everything has ended."""
        try:
            command, fds = self._opener.receive(START_TIMEOUT_S)
            if not isinstance(command, Start) or len(fds) > 1:
                close_all(fds)
                raise CommandError(f"{type(command).__name__} instead of Start")
            self._start = command
            self._retries = Retries(command.party.name)
            if not self._listen(command, fds):
                return
            self._start_family(command)
            self._serve()
        except (ControlClosed, ControlTimeout):
            pass  # the opener ended, died, or reads nothing any more: so do we
        finally:
            self._end_everything()

    def _listen(self, start: Start, fds: list[int]) -> bool:
        try:
            self._parts.listen(start, fds)
        except ListenError as error:
            self._opener.send(ListenFailed(f"{start.party.name} {error}"))
            return False
        return True

    def _start_family(self, start: Start) -> None:
        heartbeat_s = start.options.heartbeat_timeout_s
        self._vigil = Vigil(heartbeat_s, max(2 * heartbeat_s, STOPPED_TIMEOUT_MIN_S))
        self._selector.register(self._opener, selectors.EVENT_READ)
        self._selector.register(self._opener_pidfd, selectors.EVENT_READ)
        self._stat = StatServer(start.party, self._selector, self._processes)
        try:
            self._parts.make(start)
            for index in range(start.workers):
                self._stat.rings.add_doorbell(f"worker {index}", self._parts.doorbell_of(index)[1])
            # I/O processes first: they take longest to come up, and everything else waits for them.
            for share in shares_of_links([peer.index for peer in start.party.peers], start.links_per_io_process):
                self._start_io_process(start, share)
            if start.node is not None:
                self._start_node(start, start.node)
            self._start_gateway(start)
            welcome = Welcome(0, start.workers, start.party, start.options, start.main_path)
            self._send(self._opener, welcome, self._parts.doorbell_of(0))
            for index in range(1, start.workers):
                self._worker_family.start(start, index)
        except (OSError, ShmError) as error:
            self._complaints.append(f"a process of {start.party.name} cannot be started: {describe_shortage(error)}")
            self._close()
            return
        self._tell_pids()

    def _tell_pids(self) -> None:
        pids = {child.process.role: child.process.pid for child in self._children if child.kind is not Kind.LINK}
        for child in self._children:
            pids |= {f"{Kind.LINK.value} {peer}": child.process.pid for peer in sorted(child.links)}
        self._send(self._opener, Started(pids))

    def _start_io_process(self, start: Start, peers: list[int]) -> None:
        self._vigil.watch(self._link_family.start_process(start, peers), time.monotonic())

    def _start_gateway(self, start: Start) -> None:
        self._link_family.start_gateway(start, self._node_family)

    def _start_worker_late(self, start: Start, index: int) -> None:
        assert self._stat is not None
        self._worker_family.start_again(start, index, self._stat.rings)
        self._link_family.drop_worker(index, "was started again", is_replaced=True)  # it has no rings of older links

    # The party runs.

    def _serve(self) -> None:
        while self._children or not self._closing:
            assert self._stat is not None
            self._stat.tick(now := time.monotonic())
            self._look_after_silent(now)
            if self._retries.tick(now):
                self._tell_pids()
            left_s = None if self._workers_deadline is None else max(0.0, self._workers_deadline - now)
            waits = (self._stat.timeout_s(now), left_s, self._vigil.timeout_s(now), self._retries.timeout_s(now))
            timeout_s = min((wait for wait in waits if wait is not None), default=None)
            self._watch_held_messages()
            for key, events in self._selector.select(timeout_s):
                if isinstance(key.data, StatServer):
                    if isinstance(key.fileobj, socket.socket) and key.fileobj.fileno() >= 0:
                        key.data.serve(key.fileobj)
                    continue
                child: Child | None = key.data
                if key.fileobj == self._opener_pidfd:
                    raise ControlClosed("the opener")
                if child is None:
                    self._serve_opener(events)
                elif key.fileobj is child.process:
                    self._reap(child)
                elif child in self._children:
                    self._serve_child(child, events)
            if self._workers_deadline is not None and time.monotonic() >= self._workers_deadline:
                self._kill_late_workers()
        self._opener.send(Stopped(self._complaints))

    def _look_after_silent(self, now: float) -> None:
        """Ask I/O processes whether they are there, and kill those that were silent for too long: their peers have lost
        them already, and nobody here would hear of it."""
        ask, silent = self._vigil.tick(now)
        for child in self._children:
            if child.process.role in ask:
                self._ask(child.control, AreYouThere(), ())
            elif child.process.role in silent:
                child.fault = "did not answer for a while (was it stopped?), and was killed"
                child.process.kill()

    def _watch_held_messages(self) -> None:
        """Wait for room on exactly those sockets that we hold messages for."""
        self._children.watch_held_messages()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._opener.has_pending else 0)
        self._selector.modify(self._opener, events)

    def _serve_opener(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._opener.flush()
        try:
            received = self._opener.try_receive() if events & selectors.EVENT_READ else None
        except DescriptorsLost as error:  # those of a StartHttp: nothing else brings any
            self._send(self._opener, HttpFailed(f"the HTTP front and its worker cannot be started: {error}"))
            return
        if received is not None:
            if isinstance(received[0], StartHttp) and not self._closing and self._front_family is None:
                self._start_http(received[0], received[1])
                return
            close_all(received[1])
            if isinstance(received[0], Close):
                self._close()
            elif isinstance(received[0], (RemakeLink, OpenBulk)):
                self._link_family.pass_on(received[0])

    def _serve_child(self, child: Child, events: int) -> None:
        if child.control.fileno() < 0:
            return
        try:
            if events & selectors.EVENT_WRITE:
                child.control.flush()
            while (received := child.control.try_receive()) is not None:
                message, fds = received
                try:
                    self._on_message[child.kind](child, message, fds)
                finally:
                    close_all(fds)
        except ControlClosed:
            self._children.hang_up(child)  # its end follows
        except CommandError as error:
            self._complaints.append(str(error))
            self._retries.complaint.about(f"the {child.process.role} is ended", error, time.monotonic())
            child.process.kill()
            self._children.hang_up(child)

    def _send(self, sock: ControlSocket, message: Message, fds: Sequence[int] = ()) -> None:
        """Send now or hold it. A process that is gone, or that has not read hundreds of messages, gets nothing."""
        try:
            sock.post(message, fds)
        except ControlClosed:
            if sock is self._opener:
                raise
        except (ControlTimeout, OSError):  # or no descriptor is left to hold the message's by
            if sock is self._opener:
                raise ControlClosed("the opener") from None  # it has stopped serving its party for good

    def _processes(self) -> list[ProcessEntry]:
        """Whose figures a reader may see."""
        entries = [ProcessEntry(OPENER, os.getppid(), partial(self._ask, self._opener))]
        for child in self._children:
            ask = None if child.kind in (Kind.GATEWAY, Kind.HTTP) else partial(self._ask, child.control)
            entries.append(ProcessEntry(child.process.role, child.process.pid, ask))
        return entries

    def _ask(self, sock: ControlSocket, message: Message, fds: Sequence[int]) -> bool:
        """Send what may as well not be sent; False when there is a process that does not read."""
        if sock.fileno() < 0 or sock.has_pending:
            return False
        self._send(sock, message, fds)
        return True

    # What children say.

    def _on_link_message(self, child: Child, message: Message, fds: list[int]) -> None:
        self._note(message, fds)
        match message:
            case Here():
                self._vigil.answered(child.process.role, time.monotonic())
            case LinkClaimed():
                if self._node_family is not None:
                    self._node_family.learn(message)
            case _:
                if complaint := self._link_family.hear(child, message, fds, is_closing=self._closing):
                    self._complaints.append(complaint)

    def _on_gateway_message(self, child: Child, message: Message, fds: list[int]) -> None:
        self._link_family.hear_gateway(message)

    def _note(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Let those who read figures see it."""
        if self._stat is not None:
            self._stat.hear(message, fds)

    def _on_worker_message(self, child: Child, message: Message, fds: list[int]) -> None:
        if not isinstance(message, RemakeLink) or message.worker != child.index:
            raise CommandError(f"{type(message).__name__} from a worker")
        self._link_family.pass_on(message)

    def _on_http_message(self, child: Child, message: Message, fds: list[int]) -> None:
        raise CommandError(f"{type(message).__name__} from the {child.process.role}")

    # Children end.

    def _reap(self, child: Child) -> None:
        cause = child.process.try_reap()
        if cause is None:
            return
        self._serve_child(child, selectors.EVENT_READ)  # its last words stand before its end
        self._children.forget(child)
        self._vigil.forget(child.process.role)
        if self._stat is not None:
            self._stat.hear_end(child.process.role)
        self._on_end[child.kind](child, child.fault or cause)

    def _on_io_process_end(self, child: Child, cause: str) -> None:
        assert self._start is not None
        if not child.links:
            return
        is_closing = self._closing
        is_replaced = not is_closing and self._restarts.may_start(child.process.role, time.monotonic())
        family = self._link_family
        if complaint := family.on_end(self._start, child, cause, is_closing=is_closing, is_replaced=is_replaced):
            self._complaints.append(complaint)
        if is_replaced:
            peers = sorted(child.links)
            self._replace(child, lambda start: self._start_io_process(start, peers))
        elif not is_closing:
            self._tell_pids()

    def _replace(
        self, child: Child, start_child: Callable[[Start], None], start_late: Callable[[Start], None] | None = None
    ) -> None:
        """Start another process in the place of one that died, by `start_late` if the machine cannot now."""
        assert self._start is not None
        start, late = partial(start_child, self._start), partial(start_late or start_child, self._start)
        if self._retries.start(child.process.role, start, time.monotonic(), late):
            self._tell_pids()

    def _on_gateway_end(self, child: Child, cause: str) -> None:
        self._link_family.gateway_ended()
        if self._closing:
            return
        if self._restarts.may_start(child.process.role, time.monotonic()):
            self._replace(child, self._start_gateway)
        else:
            self._complaints.append(f"the gateway {cause}{STAYS_AWAY}")
            self._tell_pids()

    def _on_worker_end(self, child: Child, cause: str) -> None:
        is_replaced = not self._closing and self._restarts.may_start(child.process.role, time.monotonic())
        if not (self._closing and not cause):
            reason = f"worker {child.index} {cause or 'ended unexpectedly'}"
            if self._closing:
                self._complaints.append(reason)
            elif not is_replaced:
                reason += STAYS_AWAY
            self._worker_family.tell(WorkerLost(child.index, reason), but=child.index)
        if is_replaced:
            # Before the links are made anew, so that their lanes find it.
            assert self._stat is not None
            index, rings, family = child.index, self._stat.rings, self._worker_family
            late = partial(self._start_worker_late, index=index)
            self._replace(child, lambda start: family.start_again(start, index, rings), late)
        elif not self._closing:
            self._tell_pids()
        self._link_family.drop_worker(child.index, cause or "ended", is_replaced=is_replaced)

    # HTTP, if the opener asks for it.

    def _start_http(self, command: StartHttp, fds: list[int]) -> None:
        from .front_family import FrontFamily, SupervisorSteps  # only here: most parties serve none

        if len(fds) != 1:
            close_all(fds)
            raise ControlClosed("the opener")
        steps = SupervisorSteps(
            lambda role, module: self._children.start(Kind.HTTP, 0, module, role), self._send, self._retries
        )
        self._front_family = FrontFamily(steps, self._opener, socket.socket(fileno=fds[0]))
        self._front_family.start(command)
        self._tell_pids()

    def _on_http_end(self, child: Child, cause: str) -> None:
        assert self._front_family is not None
        if self._closing and cause:
            self._complaints.append(f"the {child.process.role} {cause}")
        self._front_family.on_end(child, cause)
        if not self._closing:
            self._tell_pids()

    # The party's node, if it has one.

    def _start_node(self, start: Start, options: NodeOptions) -> None:
        from .node_family import NodeFamily, NodeSteps  # only here: most parties have none

        steps = NodeSteps(
            lambda role, module: self._children.start(Kind.NODE, 0, module, role),
            self._send,
            lambda role: self._restarts.may_start(role, time.monotonic()),
            lambda role: self._vigil.watch(role, time.monotonic()),
            self._retries,
        )
        self._node_family = NodeFamily(steps, self._opener, start, options, self._parts.doorbell_of(0))
        self._node_family.start_process()

    def _on_node_message(self, child: Child, message: Message, fds: list[int]) -> None:
        assert self._node_family is not None
        self._node_family.hear(message, fds)

    def _on_node_end(self, child: Child, cause: str) -> None:
        assert self._node_family is not None
        if complaint := self._node_family.on_end(cause, is_closing=self._closing):
            self._complaints.append(complaint)
        if not self._closing:
            self._tell_pids()

    # The party ends.

    def _close(self) -> None:
        """Ask everybody to end in an orderly way. I/O processes bound their own closing; workers are bounded here."""
        if self._closing:
            return
        self._closing = True
        self._retries.end()
        assert self._start is not None
        self._workers_deadline = time.monotonic() + self._start.options.close_timeout_s
        for child in self._children:
            if child.kind is Kind.GATEWAY:
                self._children.hang_up(child)
            elif child.kind is not Kind.HTTP:
                self._send(child.control, Close())
        if self._front_family is not None:
            self._front_family.close()

    def _kill_late_workers(self) -> None:
        self._workers_deadline = None
        for child in self._children:
            if child.kind in (Kind.WORKER, Kind.HTTP, Kind.NODE):
                child.process.kill()

    def _end_everything(self) -> None:
        """Kill and reap whoever is left; close and unlink everything."""
        self._children.end_all()
        self._parts.close()
        if self._front_family is not None:
            self._front_family.free()
        if self._node_family is not None:
            self._node_family.free()
        if self._stat is not None:
            self._stat.close()
        self._selector.close()
        self._opener.close()
        os.close(self._opener_pidfd)


def main() -> None:
    """The program of the supervisor process."""
    fence.register()
    opener_pidfd = parent_pidfd()
    opener = ControlSocket.from_fd(begin_child(dies_with_parent=False), "the opener")
    program.load(FORKED)
    try:
        supervisor = Supervisor(opener, opener_pidfd)
    except OSError as error:
        opener.post(Stopped([f"its supervisor cannot work: {describe_shortage(error)}"]))
        return
    supervisor.run()
