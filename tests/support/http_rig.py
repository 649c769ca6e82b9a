"""The HTTP front with real sockets and rings in one loop, and a worker whose answers the test decides."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
import uvloop

from partywire.engine.commands import Close
from partywire.engine.control_socket import ControlSocket
from partywire.engine.front import Front
from partywire.engine.http_commands import HttpLaneLost, HttpLaneMade
from partywire.engine.http_lane import RECORD_SIZE_MAX, RING_SIZE, HttpLane
from partywire.engine.http_records import Answer, Cancel, Request, RequestAssembler, answer_records
from partywire.shm import fence
from partywire.shm.doorbell import Doorbell
from partywire.shm.segment import Segment
from partywire.workers.channel import Channel
from partywire.workers.http_worker import HttpWorker
from partywire.workers.serve_routes import ServiceView

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from partywire.engine.http_options import HttpOptions
    from partywire.workers.http_handlers import Handlers

DEADLINE_S = 30.0


class FakeWorker:
    """The worker's end of the rings. What arrives is kept until the test answers it."""

    def __init__(self, lane: HttpLane, doorbell: Doorbell, body_size_max: int) -> None:
        self._lane = lane
        self._doorbell = doorbell
        self._assembler = RequestAssembler(body_size_max)
        self.requests: asyncio.Queue[Request] = asyncio.Queue()
        self.cancelled: asyncio.Queue[int] = asyncio.Queue()
        asyncio.get_running_loop().add_reader(doorbell.fileno(), self._wake)
        self._pump()

    def answer(self, request: Request, status: int = 200, body: bytes = b"ok") -> None:
        self._lane.send(
            answer_records(Answer(request.id, status, ((b"x-id", b"%d" % request.id),), body), RECORD_SIZE_MAX)
        )
        self._pump()

    def _wake(self) -> None:
        self._doorbell.drain()
        self._pump()

    def _pump(self) -> None:
        self._doorbell.disarm()
        while True:
            self._lane.flush()
            while self._lane.receive(self._take):
                pass
            self._doorbell.arm()
            if self._lane.may_sleep():
                return

    def _take(self, kind: int, payload: memoryview) -> None:
        message = self._assembler.take_untrusted(kind, payload)
        if isinstance(message, Cancel):
            self.cancelled.put_nowait(message.id)
        elif message is not None:
            self.requests.put_nowait(message)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._doorbell.fileno())
        self._lane.close()


class HttpRig:
    """A running front. `kill_worker` and `start_worker` do what the supervisor does when a worker dies."""

    def __init__(
        self, front: Front, address: str | tuple[str, int], control: ControlSocket, bells: list[Doorbell]
    ) -> None:
        self.front = front
        self._address = address
        self._control = control
        self._bells = bells
        self.worker: FakeWorker | None = None
        self._writers: list[asyncio.StreamWriter] = []

    def start_worker(self) -> FakeWorker:
        front_bell, worker_bell = self._bells
        requests, answers = Segment.create(RING_SIZE), Segment.create(RING_SIZE)
        self._control.send(HttpLaneMade(), [*worker_bell.fds, requests.fileno(), answers.fileno()])
        fds = [*front_bell.fds, answers.fileno(), requests.fileno()]
        lane = HttpLane([os.dup(fd) for fd in fds], fence.probe())
        requests.close()
        answers.close()
        self.worker = FakeWorker(lane, worker_bell, self.front.options.body_size_max)
        return self.worker

    def make_lane(self, worker: ControlSocket) -> None:
        """Give the front and a real worker new rings, as the supervisor does."""
        front_bell, worker_bell = self._bells
        requests, answers = Segment.create(RING_SIZE), Segment.create(RING_SIZE)
        self._control.send(HttpLaneMade(), [*worker_bell.fds, requests.fileno(), answers.fileno()])
        worker.send(HttpLaneMade(), [*front_bell.fds, answers.fileno(), requests.fileno()])
        requests.close()
        answers.close()

    @asynccontextmanager
    async def answering(self, app: Handlers) -> AsyncIterator[ControlSocket]:
        """A real worker with these handlers behind the front; its control socket."""
        order = fence.probe()
        ours, theirs = ControlSocket.pair()
        control, worker_control = ControlSocket(ours, "the worker"), ControlSocket(theirs, "the supervisor")
        ends = socket.socketpair()
        channels = [Channel(end) for end in ends]
        doorbell = Doorbell.from_fds(os.dup(self._bells[1].fds[0]), os.dup(self._bells[1].fds[1]), order)
        worker = HttpWorker(self.front.options, app, ServiceView(channels[0]), doorbell, order)
        task = asyncio.create_task(worker.run(worker_control))
        try:
            self.make_lane(control)
            yield control
        finally:
            control.send(Close())
            async with asyncio.timeout(DEADLINE_S):
                assert await task == ""
            for closable in (control, worker_control):
                closable.close()
            for channel in channels:
                channel.close()
            doorbell.close()

    def kill_worker(self) -> None:
        assert self.worker is not None
        self.worker.close()
        self.worker = None
        self._control.send(HttpLaneLost("was killed by SIGKILL"))

    def close(self) -> None:
        self._control.send(Close())

    async def connect(self) -> Client:
        if isinstance(self._address, str):
            reader, writer = await asyncio.open_unix_connection(self._address)
        else:
            reader, writer = await asyncio.open_connection(*self._address)
        self._writers.append(writer)
        return Client(reader, writer)

    async def end_clients(self) -> None:
        for writer in self._writers:
            writer.close()
            try:
                await writer.wait_closed()
            except OSError:
                pass  # the front was quicker


class Client:
    """Speaks HTTP/1.1 just well enough, and as badly as the test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def get(self, path: str = "/", *headers: str) -> None:
        self.request("GET", path, b"", *headers)

    def request(self, method: str, path: str, body: bytes, *headers: str) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode() + body)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(DEADLINE_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(first.split()[1]), headers, body

    async def problem(self) -> tuple[int, str]:
        """Status and detail of an error."""
        status, headers, body = await self.answer()
        assert headers["content-type"] == "application/problem+json"
        document: dict[str, Any] = orjson.loads(body)
        assert document["status"] == status
        return status, document["detail"]

    async def end(self) -> bytes:
        """What still comes until the front closes."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


@asynccontextmanager
async def serving(options: HttpOptions, unix_path: str = "", *, fake: bool = True) -> AsyncIterator[HttpRig]:
    """A front with these options, at a port or a path. It is told to close at the end, and all is given back."""
    order = fence.probe()
    bells = [Doorbell.create(order), Doorbell.create(order)]
    ours, theirs = ControlSocket.pair()
    control, front_control = ControlSocket(ours, "the front"), ControlSocket(theirs, "the supervisor")
    family = socket.AF_UNIX if unix_path else socket.AF_INET
    listener = socket.create_server(unix_path or ("127.0.0.1", 0), family=family)
    front = Front(options, listener, Doorbell.from_fds(os.dup(bells[0].fds[0]), os.dup(bells[0].fds[1]), order), order)
    task = asyncio.create_task(front.run(front_control))
    rig = HttpRig(front, listener.getsockname(), control, bells)
    try:
        if fake:
            rig.start_worker()
        yield rig
    finally:
        await rig.end_clients()
        rig.close()
        async with asyncio.timeout(DEADLINE_S):
            await task
        if rig.worker is not None:
            rig.worker.close()
        front.close()
        for bell in bells:
            bell.close()
        for end in (control, front_control):
            end.close()


@asynccontextmanager
async def answering_records(
    options: HttpOptions, app: Handlers, records: list[tuple[int, Sequence[bytes | memoryview]]]
) -> AsyncIterator[asyncio.Task[str]]:
    """A real worker whose front has written these records, whatever they are; what its `run` returns."""
    order = fence.probe()
    bells = [Doorbell.create(order), Doorbell.create(order)]
    ours, theirs = ControlSocket.pair()
    control, worker_control = ControlSocket(ours, "the worker"), ControlSocket(theirs, "the supervisor")
    ends = [Channel(end) for end in socket.socketpair()]
    requests, answers = Segment.create(RING_SIZE), Segment.create(RING_SIZE)
    lane = HttpLane([os.dup(fd) for fd in (*bells[1].fds, requests.fileno(), answers.fileno())], order)
    task = asyncio.create_task(HttpWorker(options, app, ServiceView(ends[0]), bells[1], order).run(worker_control))
    try:
        lane.send(iter(records))
        lane.flush()
        control.send(HttpLaneMade(), [*bells[0].fds, answers.fileno(), requests.fileno()])
        yield task
    finally:
        control.send(Close())
        async with asyncio.timeout(DEADLINE_S):
            await task
        lane.close()
        for segment in (requests, answers):
            segment.close()
        for bell in bells:
            bell.close()
        for end in ends:
            end.close()
        for socket_end in (control, worker_control):
            socket_end.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what the front does without telling anybody."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - there is no event, and the front must not need one
            await asyncio.sleep(0.005)


def run_test(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a test's coroutine as the front runs: on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test())
