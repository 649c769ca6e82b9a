"""Reads the figures of a running party from its stat pages, without its help and without slowing it.

Between a party of this user on this host (engine/stat_server.py) and whoever shows figures: `stat`, `top`, and
metrics. The one invariant: nothing of the party is written, and nothing of it is waited for but the first answer of its
supervisor, for at most ANSWER_TIMEOUT_S.

Everything that comes is checked: the server's user by the kernel's word, sizes and shapes here and in stat_page.
"""

from __future__ import annotations

import array
import os
import select
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from partywire.engine.errors import PartyWireError
from partywire.engine.stat_page import Publication, StatPageError, StatPageReader
from partywire.engine.stat_server import NAME_PREFIX, OPENER, PROCESSES_MAX, PROTOCOL, WATCH, peer_uid

from .stat_process import ProcessUse, process_use

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from partywire.engine.stat_page import Value, Words

ANSWER_TIMEOUT_S: Final = 2.0
"""For the supervisor's first answer. It serves everybody always; a machine that is busy may take that long."""

ANSWER_SIZE_MAX: Final = 64 * 1024
SOCKETS: Final = "/proc/net/unix"


class StatUnavailable(PartyWireError):
    """Raised when the figures of a party cannot be read; the text is the whole sentence."""


class PartyEnded(PartyWireError):
    """Raised by a read after the party's supervisor ended."""

    def __init__(self, party: str) -> None:
        super().__init__(party)
        self.party = party

    def __str__(self) -> str:
        return f"party {self.party} has ended"


@dataclass(frozen=True, slots=True)
class Running:
    """A stat server of this user: the supervisor's pid and where it listens (an abstract socket's name)."""

    pid: int
    address: str


def running_parties() -> list[Running]:
    """Every party of this user in this network namespace, by pid. Not asked yet whether it answers."""
    prefix = f"@{NAME_PREFIX}-{os.geteuid()}-"
    found: dict[str, Running] = {}
    try:
        with open(SOCKETS, encoding="utf-8", errors="replace") as file:
            names = [fields[7] for line in file if len(fields := line.split()) >= 8]
    except OSError as error:
        raise StatUnavailable(f"{SOCKETS} cannot be read ({error.strerror}), so no party can be found") from error
    for name in names:
        pid = name.removeprefix(prefix).partition("-")[0]
        if name.startswith(prefix) and pid.isascii() and pid.isdigit():
            found[name] = Running(int(pid), f"\0{name[1:]}")
    return sorted(found.values(), key=lambda running: running.pid)


@dataclass(frozen=True, slots=True)
class PartySnapshot:
    """One party's figures at one moment. A role is "supervisor", "gateway", "worker 0" (the opener), "link 2" ..."""

    party: str
    parties: tuple[str, ...]  # all names, by index
    started_ns: int  # Unix time
    taken_ns: int  # CLOCK_MONOTONIC
    pids: dict[str, int]
    publications: dict[str, Publication]  # role -> its latest
    uses: dict[str, ProcessUse]  # role -> what the kernel says; without those that ended

    def values(self, name: str) -> Iterator[Value]:
        """Every value of that name."""
        for publication in self.publications.values():
            for value in publication.values:
                if value.name == name:
                    yield value

    def words(self, name: str) -> Iterator[Words]:
        """Everything published as words under that name."""
        for publication in self.publications.values():
            for words in publication.words:
                if words.name == name:
                    yield words

    def age_s(self, role: str) -> float | None:
        """How old what a process published is; None if it has not published yet."""
        publication = self.publications.get(role)
        return None if publication is None else max(0, self.taken_ns - publication.published_ns) / 1e9


class StatReader:
    """Attached to one party. Not for several threads. Ends by `close`; the party's end is PartyEnded at a read."""

    def __init__(self, running: Running, *, watch: bool = True) -> None:
        """Attach, wait until the party has said who it is, and `watch` it unless told otherwise.

        Raises:
            StatUnavailable: nobody answers there, or it is another user's, or another version.
        """
        self.pid = running.pid
        self.party = f"of pid {running.pid}"
        self._pages: dict[str, StatPageReader] = {}
        self.parties: tuple[str, ...] = ()  # all names, by index
        self.links_up = 0  # when it answered last
        self._pids: dict[str, int] = {}
        self._started: dict[int, int] = {}  # pid -> its start, as first seen
        self.started_ns = 0  # Unix time of the party's start
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._sock.settimeout(ANSWER_TIMEOUT_S)
            self._sock.connect(running.address)
            if peer_uid(self._sock) != os.geteuid():
                raise StatUnavailable(f"the process {running.pid} that answers for a party is another user's")
            self._sock.setblocking(False)
            self._wait_for_answer()
            if watch:
                self.watch()
        except OSError as error:
            self.close()
            reason = error.strerror or str(error)
            raise StatUnavailable(f"the supervisor {running.pid} does not answer: {reason}") from error
        except BaseException:
            self.close()
            raise

    def watch(self) -> None:
        """Have the party publish from now on, until `close`.

        Raises:
            StatUnavailable: it ends, or too many watch it already.
        """
        try:
            self._sock.send(WATCH)
        except OSError:
            pass  # it has ended, which the answer says
        self._wait_for_answer()

    def _wait_for_answer(self) -> None:
        if not self._wait(ANSWER_TIMEOUT_S):
            raise StatUnavailable(f"the supervisor {self.pid} did not answer within {ANSWER_TIMEOUT_S:g} s")
        try:
            self._take_answers()
        except PartyEnded as error:
            raise StatUnavailable(
                f"the supervisor {self.pid} shows no figures: it has just ended, or too many programs read them"
            ) from error

    def __enter__(self) -> StatReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def opener_pid(self) -> int:
        """The process that opened the party; 0 if it was not told."""
        return self._pids.get(OPENER, 0)

    def fileno(self) -> int:
        """For pollers; readable means that the next `read` has news, or that the party ended."""
        return self._sock.fileno()

    def read(self) -> PartySnapshot:
        """The figures of this moment. Never waits.

        Raises:
            PartyEnded: the party ended.
            StatUnavailable: what a page holds is not of this version.
        """
        self._take_answers()
        publications = {}
        try:
            for role, page in self._pages.items():
                publication = page.read()
                if publication is not None:
                    publications[role] = publication
        except StatPageError as error:
            raise StatUnavailable(str(error)) from error
        return PartySnapshot(
            party=self.party,
            parties=self.parties,
            started_ns=self.started_ns,
            taken_ns=time.monotonic_ns(),
            pids=dict(self._pids),
            publications=publications,
            uses=self._uses(),
        )

    def read_fresh(self, timeout_s: float) -> PartySnapshot:
        """Like `read`, once every process has published, or `timeout_s` have passed: one may be deep in a computation.

        For the first read after attaching.
        """
        deadline = time.monotonic() + timeout_s
        while any(page.generation == 0 for page in self._pages.values()):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            # No descriptor says that a page was published: the writer must not pay for that.
            self._wait(min(left, 0.02))
            self._take_answers()
        return self.read()

    def _uses(self) -> dict[str, ProcessUse]:
        uses = {}
        for role, pid in self._pids.items():
            use = process_use(pid, self._started.get(pid))
            if use is not None:
                self._started[pid] = use.started
                uses[role] = use
        return uses

    def _wait(self, timeout_s: float) -> bool:
        poller = select.poll()
        poller.register(self._sock, select.POLLIN)
        return bool(poller.poll(timeout_s * 1000))

    def _take_answers(self) -> None:
        while True:
            try:
                data, ancillary, _, _ = self._sock.recvmsg(
                    ANSWER_SIZE_MAX, socket.CMSG_SPACE(4 * (PROCESSES_MAX + 1)), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except OSError as error:
                raise PartyEnded(self.party) from error
            fds = array.array("i")
            for level, kind, received in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds.frombytes(received[: len(received) - len(received) % fds.itemsize])
            if not data:
                raise PartyEnded(self.party)
            self._take_answer_untrusted(data, fds.tolist())

    def _take_answer_untrusted(self, data: bytes, fds: list[int]) -> None:
        pages: dict[str, StatPageReader] = {}
        try:
            document: dict[str, Any] = orjson.loads(data)
            if document["protocol"] != PROTOCOL:
                raise StatUnavailable(
                    f"the party of pid {self.pid} runs another version of partywire than this command"
                )
            roles = [str(role) for role in document["pages"]]
            parties = tuple(str(name) for name in document["parties"])
            pids = {str(role): int(pid) for role, pid in document["pids"].items()}
            party, started_ns = str(document["party"]), int(document["started_ns"])
            links_up = int(document["links_up"])
            if len(roles) != len(fds):
                raise ValueError("another number of descriptors than of pages")
            for role in roles:
                pages[role] = StatPageReader(fds.pop(0))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError, StatPageError) as error:
            for page in pages.values():
                page.close()
            raise StatUnavailable(f"the answer of the party of pid {self.pid} cannot be read: {error}") from error
        finally:
            for fd in fds:
                os.close(fd)
        for page in self._pages.values():
            page.close()
        self._pages, self.parties, self._pids = pages, parties, pids
        self.party, self.started_ns, self.links_up = party, started_ns, links_up

    def close(self) -> None:
        """Leave. The party stops publishing when its last reader has left. May be called again."""
        self._sock.close()
        for page in self._pages.values():
            page.close()
        self._pages.clear()


def attach_to(pid: int) -> StatReader:
    """A reader of the party whose supervisor has this pid.

    Raises:
        StatUnavailable: there is none, or it does not answer.
    """
    for running in running_parties():
        if running.pid == pid:
            return StatReader(running)
    raise StatUnavailable(f"no party of this user has a supervisor with pid {pid}")
