"""What the supervisor does about HTTP when one of the two processes dies on a machine that is short of something."""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import socket
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from partywire.engine.control_socket import ControlSocket
from partywire.engine.front_family import FRONT_ROLE, RESTARTS_MAX, WORKER_ROLE, FrontFamily, SupervisorSteps
from partywire.engine.http_commands import HttpFailed, HttpLaneMade, HttpWorkerStarted, StartHttp
from partywire.engine.http_options import HttpOptions
from partywire.engine.supervisor_retries import RETRY_INTERVAL_S, Retries
from partywire.shm.errors import SegmentError
from partywire.shm.segment import Segment
from tests.support.family import Opener, make_listener, make_parties

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from partywire.engine.children import Child
    from partywire.engine.commands import Message

pytestmark = pytest.mark.timeout(120)

COMMAND = StartHttp(HttpOptions(), "partywire.workers.http_worker", "")


class Started:
    """What the family knows of a process."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.pid = os.getpid()
        self.process = self.control = self
        self.was_killed = False

    def kill(self) -> None:
        self.was_killed = True


class Rig:
    """Everything that the family asks of its supervisor, kept."""

    def __init__(self) -> None:
        self.retries = Retries("alice")
        self.running: dict[str, Any] = {}
        self.told: list[Message] = []  # the opener
        self.lanes: list[str] = []  # who was given rings, in order
        self.error: OSError | None = None
        ours, theirs = ControlSocket.pair()
        theirs.close()
        self.opener = ControlSocket(ours, "the opener")
        self.family = FrontFamily(SupervisorSteps(self._start, self._send, self.retries), self.opener, make_listener())
        self.family.start(COMMAND)

    def _start(self, role: str, module: str) -> Child:
        if self.error is not None:
            raise self.error
        started: Any = Started(role)
        self.running[role] = started
        return started  # type: ignore[no-any-return]

    def _send(self, sock: Any, message: Message, fds: Sequence[int]) -> None:
        if sock is self.opener:
            self.told.append(message)
        elif isinstance(message, HttpLaneMade):
            self.lanes.append(sock.role)

    def lose(self, role: str) -> None:
        self.family.on_end(self.running.pop(role), "was killed by SIGKILL")


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    assert rig.lanes == [FRONT_ROLE, WORKER_ROLE]
    rig.told.clear()
    rig.lanes.clear()
    yield rig
    rig.family.free()
    rig.opener.close()


@pytest.mark.parametrize("lost", [(FRONT_ROLE,), (WORKER_ROLE,), (FRONT_ROLE, WORKER_ROLE), (WORKER_ROLE, FRONT_ROLE)])
def test_whoever_cannot_be_started_again_is_tried_until_both_run_and_have_rings_once(
    rig: Rig, lost: tuple[str, ...]
) -> None:
    rig.error = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    for role in lost:
        rig.lose(role)
    later = time.monotonic() + 2 * RETRY_INTERVAL_S
    assert not rig.retries.tick(later)
    rig.error = None
    assert rig.retries.tick(later + RETRY_INTERVAL_S)
    assert rig.running.keys() == {FRONT_ROLE, WORKER_ROLE}
    assert rig.lanes == [FRONT_ROLE, WORKER_ROLE]
    assert [type(message) for message in rig.told] == [HttpWorkerStarted] * (WORKER_ROLE in lost)
    assert rig.retries.timeout_s(later) is None


def test_rings_that_cannot_be_made_are_tried_again_and_no_process_is_started_for_them(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(*_: object) -> None:
        raise SegmentError("/dev/shm could not reserve 1052672 bytes") from OSError(errno.ENOSPC, "No space left")

    with monkeypatch.context() as patch:
        patch.setattr(Segment, "create", create)
        rig.lose(FRONT_ROLE)
        front = rig.running[FRONT_ROLE]
        later = time.monotonic() + 2 * RETRY_INTERVAL_S
        assert not rig.retries.tick(later)
    assert rig.lanes == []
    assert rig.retries.tick(later + RETRY_INTERVAL_S)
    assert rig.running[FRONT_ROLE] is front
    assert rig.lanes == [FRONT_ROLE, WORKER_ROLE]
    assert rig.told == []


def test_http_that_was_given_up_is_not_tried_any_more(rig: Rig) -> None:
    rig.error = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    rig.lose(FRONT_ROLE)
    rig.error = None
    for _ in range(RESTARTS_MAX):
        rig.lose(WORKER_ROLE)
    [failed] = [message for message in rig.told if isinstance(message, HttpFailed)]
    assert f"for the {RESTARTS_MAX + 1}th time within" in failed.message
    assert rig.retries.timeout_s(time.monotonic()) is None


class HttpOpener(Opener):
    """Keeps the channels to workers that answer HTTP."""

    def _take(self, message: Message, fds: list[int]) -> None:
        if isinstance(message, HttpWorkerStarted):
            self._stack.enter_context(socket.socket(fileno=fds.pop()))
        super()._take(message, fds)

    def is_answered(self, address: tuple[str, int]) -> bool:
        """Whether HTTP is served: the request crosses the rings to the worker."""
        with socket.create_connection(address) as client:
            client.sendall(f"GET /nothing HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n\r\n".encode())
            self.wait(lambda: bool(select.select([client], [], [], 0)[0]))
            return client.recv(1 << 16).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("role", [FRONT_ROLE, WORKER_ROLE])
def test_http_is_served_again_once_the_machine_has_room_for_the_process_that_died(
    capfd: pytest.CaptureFixture[str], role: str
) -> None:
    with ExitStack() as stack:
        listeners = [stack.enter_context(make_listener()) for _ in range(3)]
        alice = HttpOpener(make_parties(listeners[:2])[0], listeners[0])
        stack.callback(alice.close)
        alice.wait(lambda: bool(alice.pids))
        alice.supervisor.control.send(COMMAND, [listeners[2].fileno()])
        address = listeners[2].getsockname()[:2]
        before = alice.wait(lambda: alice.pids.get(role))
        assert before is not None
        assert alice.is_answered(address)
        watcher, said = alice.supervisor.process.pid, ""
        limits = resource.prlimit(watcher, resource.RLIMIT_NOFILE)
        resource.prlimit(watcher, resource.RLIMIT_NOFILE, (4, limits[1]))
        os.kill(before, signal.SIGKILL)

        def has_said(words: str) -> bool:
            nonlocal said
            said += capfd.readouterr().err
            return words in said

        alice.wait(lambda: has_said(f"the {role} cannot be started again yet: too many open files; raise"))
        resource.prlimit(watcher, resource.RLIMIT_NOFILE, limits)
        alice.wait(lambda: has_said(f"the {role} is started again\n"))
        alice.wait(lambda: alice.pids.get(role) not in (None, before))
        assert alice.message(HttpFailed) is None
        assert alice.is_answered(address)
