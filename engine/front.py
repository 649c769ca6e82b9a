"""The HTTP front: a process that serves HTTP/1.1 clients and passes their requests through a ring to a worker.

Between clients (sockets), the worker that answers (two rings and a doorbell) and the supervisor (commands). It is a
process of its own, so that no client can delay a link, and so that a handler that blocks or dies cannot delay a client
beyond its deadline. The one invariant: every request that was begun gets exactly one answer (the worker's, or 502 when
the worker died, 504 when it was late), or its client has left and the worker is told to forget it.

The listening socket belongs to the supervisor: a front that died is replaced by one that goes on with it.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

import uvloop

from partywire.shm import fence
from partywire.shm.doorbell import Doorbell
from partywire.shm.errors import ShmError

from .child_process import begin_child
from .commands import Close, CommandError
from .control_socket import ControlClosed, ControlSocket, close_all
from .front_client import Client
from .http_commands import HttpLaneLost, HttpLaneMade, ServeHttp
from .http_lane import RECORD_SIZE_MAX
from .http_pump import LanePump
from .http_records import AnswerAssembler, Request, cancel_record, request_records

if TYPE_CHECKING:
    from .http_options import HttpOptions
    from .http_records import Headers

START_TIMEOUT_S: Final = 60.0

REFUSED_MAX: Final = 64
"""Clients above connections_max that are told 503 at the same time; beyond these a connection is just closed."""

DRAIN_TIMEOUT_S: Final = 4.0
"""For the answers in flight once the party closes; below the supervisor's own patience of 5 s."""


class Front:
    """Driven by its loop. Counts what clients may use together."""

    def __init__(self, options: HttpOptions, listener: socket.socket, doorbell: Doorbell, order: fence.Fence) -> None:
        """Takes ownership of the listener and the doorbell."""
        self.options = options
        self.loop: asyncio.AbstractEventLoop
        self.is_draining = False
        self.why_busy = "the service is starting; try again"
        self._listener = listener
        self._doorbell = doorbell
        self._pump = LanePump(doorbell, order, self._take_record, self._fail)
        self._assembler = AnswerAssembler(options.answer_size_max)
        self.clients: set[Client] = set()
        """Connected, those that are being refused included."""
        self._waiting: dict[int, Client] = {}  # request id -> who gets the answer
        self._next_id = 1
        self._reserved = 0
        self._server: asyncio.Server | None = None
        self._drained: asyncio.Event
        self._failure = ""  # why this process cannot go on

    async def run(self, control: ControlSocket) -> None:
        """Serve until the supervisor says Close and the answers in flight are out."""
        self.loop = asyncio.get_running_loop()
        self._drained = asyncio.Event()
        unix = self._listener.family == socket.AF_UNIX
        create = self.loop.create_unix_server if unix else self.loop.create_server
        self._server = await create(lambda: Client(self), sock=self._listener)
        self._pump.start(self.loop)
        self.loop.add_reader(control.fileno(), self._take_commands, control)
        try:
            await self._drained.wait()
        finally:
            self.loop.remove_reader(control.fileno())
            for client in list(self.clients):
                client.abort()
            self._server.close()
            self._pump.stop()
        if self._failure:
            raise SystemExit(f"the HTTP front ends: {self._failure}")

    def close(self) -> None:
        """Give the doorbell and the listening socket back, after `run`."""
        self._doorbell.close()
        self._listener.close()

    @property
    def held_size(self) -> int:
        """Bytes of bodies and answers that are held for clients."""
        return self._reserved

    # What clients ask.

    def join(self, client: Client) -> str:
        """A client has connected; why it cannot be served, or nothing."""
        self.clients.add(client)
        if self.is_draining:
            return "the service is stopping"
        if len(self.clients) > self.options.connections_max + REFUSED_MAX:
            client.abort()
            return ""
        if len(self.clients) > self.options.connections_max:
            return f"{self.options.connections_max} clients are connected, no more are served at once; try again"
        return ""

    def leave(self, client: Client) -> None:
        """It is gone, and owes and holds nothing."""
        self.clients.discard(client)
        self._note_drained()

    @property
    def may_begin(self) -> bool:
        """Whether one more request may be passed on; `why_busy` says why not."""
        if not self._pump.is_open:
            return False
        if len(self._waiting) >= self.options.in_flight_max:
            self.why_busy = f"{self.options.in_flight_max} requests wait for their answers already; try again"
            return False
        return True

    def try_reserve(self, size: int) -> bool:
        """Take `size` bytes of the budget for bodies and answers."""
        if self._reserved + size > self.options.buffer_size_max:
            return False
        self._reserved += size
        return True

    def release(self, size: int) -> None:
        """Give bytes of the budget back."""
        self._reserved -= size

    def submit(
        self, client: Client, method: bytes, target: bytes, headers: Headers, body: bytes | bytearray
    ) -> int | None:
        """Pass a whole request to the worker; its id, or None when there is no room or no worker."""
        if not self.may_begin:
            return None
        number = self._next_id
        self._next_id += 1
        self._waiting[number] = client
        # Headers of a proxy or client that only matter between it and us are dropped with the token.
        passed = tuple(header for header in headers if header[0] != b"authorization")
        self._pump.send(request_records(Request(number, method, target, passed, body), RECORD_SIZE_MAX))
        return number

    def cancel(self, number: int) -> None:
        """Nobody waits for this answer any more."""
        if self._waiting.pop(number, None) is not None:
            self._pump.send(iter([cancel_record(number)]))

    # The worker.

    def _take_record(self, kind: int, payload: memoryview) -> None:
        answer = self._assembler.take_untrusted(kind, payload)
        if answer is not None and (client := self._waiting.pop(answer.id, None)) is not None:
            client.answer(answer)

    def _lose_worker(self, why: str) -> None:
        self._pump.drop()
        self.why_busy = "the service starts another worker; try again"
        waiting, self._waiting = self._waiting, {}
        for client in waiting.values():
            client.fail(502, why)

    # The supervisor.

    def _take_commands(self, control: ControlSocket) -> None:
        try:
            while (received := control.try_receive()) is not None:
                self._take_command(*received)
        except (ControlClosed, CommandError, ShmError) as error:
            self._fail(str(error))

    def _fail(self, why: str) -> None:
        """What the worker wrote cannot be believed, nor what follows: the supervisor replaces process and rings."""
        self._failure = why
        self._drained.set()

    def _take_command(self, message: object, fds: list[int]) -> None:
        match message:
            case HttpLaneMade() if len(fds) == 4:
                self._lose_worker("the worker that had the request was replaced")
                self._assembler = AnswerAssembler(self.options.answer_size_max)
                self._pump.open(fds)
                return
            case HttpLaneLost(cause):
                self._lose_worker(f"the worker that had the request {cause}; the service starts another one")
            case Close():
                self._drain()
        close_all(fds)

    def _drain(self) -> None:
        self.is_draining = True
        assert self._server is not None
        self._server.close()
        for client in list(self.clients):
            client.drain()
        self.loop.call_later(DRAIN_TIMEOUT_S, self._drained.set)
        self._note_drained()

    def _note_drained(self) -> None:
        if self.is_draining and not self.clients:
            self._drained.set()


def main() -> None:
    """The program of the front."""
    fence.register()
    control = ControlSocket.from_fd(begin_child(), "the supervisor")
    try:
        message, fds = control.receive(START_TIMEOUT_S)
    except ControlClosed:
        return
    if not isinstance(message, ServeHttp) or len(fds) != 3:
        close_all(fds)
        raise SystemExit(f"the HTTP front ends: {type(message).__name__} instead of ServeHttp")
    listener = socket.socket(fileno=fds[0])
    order = fence.probe()
    front = Front(message.options, listener, Doorbell.from_fds(fds[1], fds[2], order), order)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(front.run(control))
