"""The supervisor's stat server: hands the stat pages of its party to programs of the same user that ask.

Between the supervisor, who hears everything about links and processes, the processes that publish, and readers
(workers/stat_reader.py). Costs nothing while nobody watches: pages are made for the first who does, and processes are
asked to publish twice a second as long as one is there.

    reader -- connects to an abstract unix socket --> supervisor
           <-- who the party is: JSON --
           -- WATCH -->                                          -- PublishStat, page --> opener, workers, I/O processes
           <-- the same with all pages: JSON, descriptors, read-only, and again when there is another process --

The one invariant: whatever readers do, the supervisor never waits for one, holds at most CONNECTIONS_MAX of them, and
no process has more than one request to publish that it has not answered.

Whom it answers: programs with our effective user id, as the kernel says (SO_PEERCRED). Such a program could look into
our memory with a debugger just as well; the descriptors cannot be written so that it does not happen by mistake.

The abstract name carries user id and pid, for finding, and a random part, so that two pid namespaces cannot collide. It
is gone with the process, however that ends.
"""

from __future__ import annotations

import array
import errno
import os
import selectors
import socket
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson

from .bulk_commands import BulkLane
from .commands import Lanes, LinkEnded, LinkFailed, LinkLost, LinkProgress, PublishStat, Refused
from .stat_page import (
    Labels,
    StatPageError,
    StatPageReader,
    StatPageWriter,
    Value,
    Words,
    create_stat_page,
    open_read_only,
)
from .stat_rings import StatRings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .commands import Message
    from .topology import PartySpec

TICK_S: Final = 0.5
"""Between two publications while somebody reads."""

READERS_MAX: Final = 8
"""Who watch. Arbitrary; a `top`, a metrics endpoint and a few more."""

CONNECTIONS_MAX: Final = 4 * READERS_MAX
"""Who watch, and who only look for the party that they mean."""

WATCH: Final = b"watch"
"""All that a reader ever says."""

ACCEPT_PAUSE_S: Final = 0.5
"""How long nobody is accepted once descriptors or memory ran out: the listening socket stays readable meanwhile."""

_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

PROCESSES_MAX: Final = 240
"""Pages handed to a reader in one message; the kernel passes 253 descriptors."""

PROTOCOL: Final = 1
NAME_PREFIX: Final = "partywire-stat"
SUPERVISOR: Final = "supervisor"
OPENER: Final = "worker 0"
GATEWAY: Final = "gateway"

_CREDENTIALS: Final = struct.Struct("iII")  # struct ucred: pid, uid, gid


def peer_uid(sock: socket.socket) -> int:
    """The effective user id of the process at the other end when it connected, or began to listen."""
    packed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(packed)[1])


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """A process of the party at this moment. `ask` sends it a message; False: it does not read, nothing was sent."""

    role: str
    pid: int
    ask: Callable[[PublishStat, Sequence[int]], bool] | None  # None for a process that publishes nothing


@dataclass(slots=True)
class _Page:
    """What one process publishes into, as the supervisor holds it."""

    pid: int
    read_fd: int
    reader: StatPageReader
    write_fd: int  # -1 once the process has been given its own
    asked_at: int = -1  # its generation when the process was last asked

    def close(self) -> None:
        self.reader.close()
        os.close(self.read_fd)
        if self.write_fd >= 0:
            os.close(self.write_fd)


class StatServer:
    """Driven by the supervisor's selector, by what the supervisor hears, and by time while somebody reads."""

    def __init__(
        self, party: PartySpec, selector: selectors.BaseSelector, processes: Callable[[], Iterable[ProcessEntry]]
    ) -> None:
        """Listens at once; without a socket (a sandbox may forbid them) the party runs and shows no figures."""
        self._party = party
        self._selector = selector
        self._processes = processes
        self._started_ns = time.time_ns()
        self.rings = StatRings(party.names)
        self._state: dict[int, str] = {peer.index: "connecting" for peer in party.peers}
        self._cause: dict[int, str] = dict.fromkeys(self._state, "")
        self._epoch: dict[int, int] = dict.fromkeys(self._state, 0)
        self._losses: dict[int, int] = dict.fromkeys(self._state, 0)
        self._ended: dict[int, str] = {}  # peers whose link was up and is not -> why
        self._refused = Refused(0, 0, 0)
        self._worker_losses = 0
        self._gateway_restarts = 0
        self._readers: list[socket.socket] = []
        self._watchers: list[socket.socket] = []  # those readers that have said so
        self._pages: dict[str, _Page] = {}  # role -> page; those of processes that ended stay readable
        self._own: StatPageWriter | None = None
        self._tick_at = 0.0
        self._accept_at: float | None = None  # while nobody is accepted for want of descriptors or memory
        self._listener = self._listen()

    def _listen(self) -> socket.socket | None:
        name = f"\0{NAME_PREFIX}-{os.geteuid()}-{os.getpid()}-{os.urandom(4).hex()}"
        try:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        except OSError:
            return None
        try:
            listener.bind(name)
            listener.listen(READERS_MAX)
        except OSError:
            listener.close()
            return None
        self._selector.register(listener, selectors.EVENT_READ, self)
        return listener

    # What the supervisor hears.

    def hear(self, message: Message, fds: Sequence[int]) -> None:
        """A process said something about a link, or the gateway something of strangers. The descriptors stay theirs."""
        match message:
            case Lanes():
                self._state[message.peer], self._cause[message.peer] = "up", ""
                self._epoch[message.peer] = message.epoch
                self._ended.pop(message.peer, None)
                self.rings.add_lanes(message, fds)
            case BulkLane():
                self.rings.add_bulk_lane(message, fds)
            case LinkProgress():
                self._hear_progress(message)
            case LinkFailed():
                self._state[message.peer], self._cause[message.peer] = "failed", message.message
            case LinkEnded():
                self._end_link(message.peer, "closed" if message.clean else "lost", message.cause)
            case LinkLost():
                self._end_link(message.peer, "lost", message.cause)
            case Refused():
                self._refused = message
            case _:
                pass

    def _hear_progress(self, message: LinkProgress) -> None:
        """A link that was up stays lost, or closed, until it is made anew; its cause says what keeps it from that."""
        cause = message.cause
        if (ended := self._ended.get(message.peer)) is not None:
            cause = f"{ended}; {cause}"
        else:
            self._state[message.peer] = "connecting"
        self._cause[message.peer] = cause

    def _end_link(self, peer: int, state: str, cause: str) -> None:
        self._losses[peer] += state == "lost"
        self._ended[peer] = cause
        self._state[peer], self._cause[peer] = state, cause
        self.rings.drop_link(peer)

    def hear_end(self, role: str) -> None:
        """A process ended. Its last figures stay."""
        self.rings.drop_doorbell(role)
        self._gateway_restarts += role == GATEWAY
        self._worker_losses += role.startswith("worker ")

    # Readers.

    def serve(self, sock: socket.socket) -> None:
        """A socket of ours is readable: a reader comes, or goes."""
        if sock is self._listener:
            self._accept(sock)
            return
        try:
            said = sock.recv(len(WATCH) + 1)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if said == WATCH and sock not in self._watchers and len(self._watchers) < READERS_MAX:
            self._watchers.append(sock)
            self._publish(is_new=sock)
        else:
            self._dismiss(sock)  # it left, or it is no reader

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError as error:
            if error.errno in _OUT_OF_RESOURCES:
                self._selector.unregister(listener)
                self._accept_at = time.monotonic() + ACCEPT_PAUSE_S
            return  # or it left again
        try:
            welcome = peer_uid(sock) == os.geteuid() and len(self._readers) < CONNECTIONS_MAX
        except OSError:
            welcome = False
        if not welcome:
            sock.close()
            return
        sock.setblocking(False)
        self._readers.append(sock)
        self._selector.register(sock, selectors.EVENT_READ, self)
        self._introduce(sock, {})

    def _dismiss(self, sock: socket.socket) -> None:
        self._readers.remove(sock)
        self._selector.unregister(sock)
        sock.close()
        if sock in self._watchers:
            self._watchers.remove(sock)
            if not self._watchers:
                self._forget_ended()

    def _introduce(self, sock: socket.socket, pages: dict[str, _Page]) -> None:
        """Who the party is, and these pages. A reader that has no room for it goes."""
        document = {
            "protocol": PROTOCOL,
            "party": self._party.name,
            "parties": list(self._party.names),
            "started_ns": self._started_ns,
            "pids": {entry.role: entry.pid for entry in self._entries()},
            "links_up": sum(state == "up" for state in self._state.values()),
            "pages": list(pages),
        }
        fds = array.array("i", [page.read_fd for page in pages.values()])
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if pages else []
        try:
            sock.sendmsg([orjson.dumps(document)], ancillary, socket.MSG_NOSIGNAL)
        except OSError:
            self._dismiss(sock)

    # Publishing.

    def timeout_s(self, now: float) -> float | None:
        """How long the supervisor may sleep on our account."""
        deadlines = [self._tick_at] if self._watchers else []
        if self._accept_at is not None:
            deadlines.append(self._accept_at)
        return max(0.0, min(deadlines) - now) if deadlines else None

    def tick(self, now: float) -> None:
        """Publish if it is time and somebody watches; accept readers again after a pause."""
        if self._accept_at is not None and now >= self._accept_at and self._listener is not None:
            self._accept_at = None
            self._selector.register(self._listener, selectors.EVENT_READ, self)
        if self._watchers and now >= self._tick_at:
            self._publish()

    def _publish(self, is_new: socket.socket | None = None) -> None:
        self._tick_at = time.monotonic() + TICK_S
        has_changed = self._make_pages()
        for entry in self._entries():
            self._ask(entry)
        if self._own is not None:
            self._own.publish(self._values(), self._words())
        for sock in list(self._watchers) if has_changed else [is_new] if is_new is not None else []:
            self._introduce(sock, self._pages)

    def _entries(self) -> list[ProcessEntry]:
        return [ProcessEntry(SUPERVISOR, os.getpid(), None), *self._processes()]

    def _make_pages(self) -> bool:
        """A page for every process that has none, as far as descriptors and memory go. Whether one was made."""
        has_changed = False
        for entry in self._entries():
            known = self._pages.get(entry.role)
            publishes = entry.ask is not None or entry.role == SUPERVISOR
            if not publishes or (known is not None and known.pid == entry.pid) or len(self._pages) >= PROCESSES_MAX:
                continue
            try:
                page = make_page(entry.pid)
                if entry.role == SUPERVISOR:
                    self._own = self._write_into(page)
            except (OSError, StatPageError):
                break  # those that have a page go on; the next tick tries again
            if known is not None:
                known.close()
            self._pages[entry.role] = page
            has_changed = True
        return has_changed

    def _write_into(self, page: _Page) -> StatPageWriter:
        write_fd, page.write_fd = page.write_fd, -1
        try:
            return StatPageWriter(write_fd)
        except BaseException:
            page.close()
            raise

    def _ask(self, entry: ProcessEntry) -> None:
        page = self._pages.get(entry.role)
        if page is None or entry.ask is None or page.asked_at == page.reader.generation:
            return  # it has not answered the last time: it computes, or hangs
        generation = page.reader.generation
        if entry.ask(PublishStat(), [page.write_fd] if page.write_fd >= 0 else []):
            page.asked_at = generation
            if page.write_fd >= 0:
                os.close(page.write_fd)
                page.write_fd = -1

    def _forget_ended(self) -> None:
        """Nobody looks any more at what ended."""
        living = {entry.role: entry.pid for entry in self._entries()}
        for role, page in list(self._pages.items()):
            if living.get(role) != page.pid:
                self._pages.pop(role).close()

    def _values(self) -> list[Value]:
        values = []
        for peer in self._party.peers:
            labels = (("peer", peer.name),)
            values += [
                Value("link_up", labels, int(self._state[peer.index] == "up")),
                Value("link_epoch", labels, self._epoch[peer.index]),
                Value("link_losses_total", labels, self._losses[peer.index]),
            ]
        none: Labels = ()
        values += [
            Value("worker_losses_total", none, self._worker_losses),
            Value("gateway_restarts_total", none, self._gateway_restarts),
            Value("refused_connections_total", (("reason", "unknown party"),), self._refused.unknown),
            Value("refused_connections_total", (("reason", "not PartyWire"),), self._refused.garbage),
            Value("refused_connections_total", (("reason", "silent"),), self._refused.silent),
            Value("refused_connections_total", (("reason", "too many"),), self._refused.crowded),
            Value("stat_readers", none, len(self._watchers)),
        ]
        return values + self.rings.values()

    def _words(self) -> list[Words]:
        words = []
        for peer in self._party.peers:
            labels = (("peer", peer.name),)
            words.append(Words("link_state", labels, self._state[peer.index]))
            words.append(Words("link_cause", labels, self._cause[peer.index]))
        return words

    # Ending.

    def close(self) -> None:
        """Readers see the end of the party. May be called again."""
        for sock in self._readers:
            self._selector.unregister(sock)
            sock.close()
        self._readers.clear()
        self._watchers.clear()
        if self._listener is not None:
            if self._accept_at is None:
                self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None
        for page in self._pages.values():
            page.close()
        self._pages.clear()
        if self._own is not None:
            self._own.close()
            self._own = None
        self.rings.close()


def make_page(pid: int) -> _Page:
    """An empty page for a process.

    Raises:
        OSError, StatPageError: no descriptor or memory is left.
    """
    write_fd = create_stat_page()
    try:
        read_fd = open_read_only(write_fd)
        try:
            return _Page(pid, read_fd, StatPageReader(os.dup(read_fd)), write_fd)
        except BaseException:
            os.close(read_fd)
            raise
    except BaseException:
        os.close(write_fd)
        raise
