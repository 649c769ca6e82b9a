"""The worker that answers HTTP requests: a child process with a loop of its own, started by the supervisor.

Between the front (two rings), the service (a channel) and the handlers: the service's routes and the user's. The one
invariant: every request that is taken gets one answer, or was cancelled; whatever a handler raises or returns becomes
an answer. `async def` handlers run on the loop, plain ones in a few threads, so that neither waits for the other.
Handlers' mistakes (and only those) are written to standard error with their trace; clients see a 500 without it.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import os
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

import orjson
import uvloop

from partywire.engine.child_process import begin_child
from partywire.engine.commands import Close, CommandError
from partywire.engine.control_socket import ControlClosed, ControlSocket, close_all
from partywire.engine.http_commands import AnswerHttp, HttpLaneMade
from partywire.engine.http_connection import PROBLEM_TYPE, problem
from partywire.engine.http_lane import RECORD_SIZE_MAX
from partywire.engine.http_pump import LanePump
from partywire.engine.http_records import (
    Answer,
    Cancel,
    HttpRecordError,
    Request,
    RequestAssembler,
    answer_records,
)
from partywire.shm import fence
from partywire.shm.doorbell import Doorbell
from partywire.shm.errors import ShmError

from .channel import Channel, ChannelClosed
from .http_handlers import JSON, Handlers, HttpError, HttpRequest, HttpResponse, parse_query
from .http_openapi import describe
from .logs import log_with
from .metrics import CONTENT_TYPE as METRICS_TYPE
from .metrics import FamilyMetrics
from .serve_messages import HandlersFailed, HandlersReady
from .serve_metrics import service_text
from .serve_routes import ServiceView, make_routes
from .stat_reader import PartyEnded, StatUnavailable
from .worker_main import hold_blas_to_one_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from partywire.engine.http_options import HttpOptions

    from .http_handlers import Route

log = logging.getLogger("partywire")

START_TIMEOUT_S: Final = 60.0

PROCESS: Final = "the HTTP worker"
"""In its log lines."""

THREADS: Final = 8
"""For plain handlers; more wait in a queue of at most the requests in flight."""

HeaderList = tuple[tuple[bytes, bytes], ...]


class HttpWorker:
    """Driven by its loop."""

    def __init__(
        self, options: HttpOptions, app: Handlers, view: ServiceView, doorbell: Doorbell, order: fence.Fence
    ) -> None:
        """The doorbell stays the caller's."""
        self._options = options
        self._app = app
        self._view = view
        self._pump = LanePump(doorbell, order, self._take_record, self._fail)
        self._fronts = 0  # that have been; an answer for an earlier one goes nowhere
        self._assembler = RequestAssembler(options.body_size_max)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._threads = ThreadPoolExecutor(THREADS, "partywire-handler")
        self._loop: asyncio.AbstractEventLoop
        self._over: asyncio.Event
        self._failure = ""

    async def run(self, control: ControlSocket) -> str:
        """Answer until the supervisor says Close, or is gone; returns why this process cannot go on, or nothing.

        Plain handlers that run still run on in their threads.
        """
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        channel = self._view.channel
        self._loop.add_reader(control.fileno(), self._take_commands, control)
        self._loop.add_reader(channel.fileno(), self._take_messages)
        self._pump.start(self._loop)
        try:
            channel.send(HandlersReady())
            await self._over.wait()
        finally:
            for fd in (control.fileno(), channel.fileno()):
                self._loop.remove_reader(fd)
            self._cancel_all()
            self._pump.stop()
            self._threads.shutdown(wait=False, cancel_futures=True)
        return self._failure

    def _fail(self, why: str) -> None:
        self._failure = why
        self._over.set()

    # The front.

    def _take_record(self, kind: int, payload: memoryview) -> None:
        message = self._assembler.take_untrusted(kind, payload)
        if isinstance(message, Cancel):
            task = self._tasks.pop(message.id, None)
            if task is not None:
                task.cancel()
        elif message is not None:
            if message.id in self._tasks or len(self._tasks) >= self._options.in_flight_max:
                raise HttpRecordError(f"request {message.id} beside {len(self._tasks)} others, or for the second time")
            self._tasks[message.id] = self._loop.create_task(self._answer(message, self._fronts))

    async def _answer(self, record: Request, front: int) -> None:
        try:
            status, headers, body = await self._respond(record)
        except Exception as error:
            log.exception("a handler for %s failed", record.method.decode())
            status, headers, body = problem_answer(HttpError(500, f"the handler failed: {type(error).__name__}"))
        except asyncio.CancelledError:
            if not self._is_wanted(record.id, front):
                raise
            log.error("a handler for %s was cancelled by itself", record.method.decode())
            status, headers, body = problem_answer(HttpError(500, "the handler failed: CancelledError"))
        if not self._is_wanted(record.id, front):
            return  # a handler that went on although it was cancelled
        del self._tasks[record.id]
        if len(body) > self._options.answer_size_max:
            what = f"the answer has {len(body)} bytes, at most {self._options.answer_size_max} are allowed"
            status, headers, body = problem_answer(HttpError(500, what))
        try:
            records = answer_records(Answer(record.id, status, headers, body), RECORD_SIZE_MAX)
        except ValueError as error:
            log.error("a handler for %s gave an answer that HTTP does not allow: %s", record.method.decode(), error)
            failed = problem_answer(HttpError(500, "the handler gave an answer that HTTP does not allow"))
            records = answer_records(Answer(record.id, *failed), RECORD_SIZE_MAX)
        self._pump.send(records)

    def _is_wanted(self, request_id: int, front: int) -> bool:
        """Whether the front that asked is there and waits for this answer. The next front's ids begin anew."""
        return front == self._fronts and request_id in self._tasks

    async def _respond(self, record: Request) -> tuple[int, HeaderList, bytes]:
        try:
            path, _, query = record.target.decode("ascii").partition("?")
            route, parts = self._app.find(record.method.decode("ascii"), path)
            headers = {name.decode("ascii"): value.decode("latin-1") for name, value in record.headers}
            request = HttpRequest(record.method.decode("ascii"), path, parse_query(query), headers, bytes(record.body))
            value = await self._call(route, route.bind(request, parts))
        except HttpError as error:
            return problem_answer(error)
        return answer_of(value, route.status)

    async def _call(self, route: Route, arguments: dict[str, Any]) -> Any:
        if inspect.iscoroutinefunction(route.function):
            return await route.function(**arguments)
        return await self._loop.run_in_executor(self._threads, call_plain, route.function, arguments)

    def _cancel_all(self) -> None:
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            task.cancel()

    # The supervisor and the service.

    def _take_commands(self, control: ControlSocket) -> None:
        try:
            while (received := control.try_receive()) is not None:
                message, fds = received
                if isinstance(message, HttpLaneMade) and len(fds) == 4:
                    self._cancel_all()
                    self._fronts += 1
                    self._assembler = RequestAssembler(self._options.body_size_max)
                    self._pump.open(fds)
                    continue
                close_all(fds)
                if isinstance(message, Close):
                    self._over.set()
        except ControlClosed:
            self._over.set()
        except (CommandError, ShmError) as error:
            self._fail(str(error))

    def _take_messages(self) -> None:
        try:
            for message in self._view.channel.poll():
                self._view.take(message)
            self._view.note_room()
        except ChannelClosed:
            self._over.set()  # the service is gone, and the supervisor with it


def call_plain(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """What a plain handler returns. No future can carry a StopIteration: it would be waited for in vain."""
    try:
        return function(**arguments)
    except StopIteration as error:
        raise RuntimeError("the handler raised StopIteration") from error


def problem_answer(error: HttpError) -> tuple[int, HeaderList, bytes]:
    """An error as status, headers and body."""
    headers = tuple((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in error.headers.items())
    return error.status, (PROBLEM_TYPE, *headers), problem(error.status, error.detail)


def answer_of(value: Any, status: int) -> tuple[int, HeaderList, bytes]:
    """What a handler returned, as status, headers and body.

    Raises:
        TypeError: JSON has no word for it.
    """
    response = value if isinstance(value, HttpResponse) else HttpResponse(value, status)
    body = response.body
    if isinstance(body, (bytes, bytearray, memoryview)):
        data, content_type = bytes(body), "application/octet-stream"
    elif isinstance(body, str):
        data, content_type = body.encode(), "text/plain; charset=utf-8"
    elif body is None:
        data, content_type = b"", ""
    else:
        data, content_type = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), JSON
    content_type = response.content_type or content_type
    headers = {name.lower(): text for name, text in response.headers.items()}
    if content_type:
        headers.setdefault("content-type", content_type)
    pairs = tuple((name.encode("latin-1"), text.encode("latin-1")) for name, text in headers.items())
    return response.status, pairs, data


def load_handlers(target: str) -> Handlers:
    """The user's "package.module:name".

    Raises:
        ValueError: there is no such module or name, or it is none of ours.
        Exception: whatever the module raises.
    """
    module_name, _, name = target.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a module beside the user, as with `partywire run package.module:Job`
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise
        raise ValueError(f"there is no module {module_name}") from error
    app = getattr(module, name, None)
    if not isinstance(app, Handlers):
        raise ValueError(f"{module_name} has no {name} that is a partywire Handlers")
    return app


def make_app(view: ServiceView, handlers: str, title: str) -> Handlers:
    """Everything that is answered: the service's routes, the user's, and the description of all of them.

    Raises:
        Exception: the user's handlers cannot be loaded, or answer what the service answers.
    """
    app = make_routes(view)
    metrics = FamilyMetrics(os.getppid())
    one_at_a_time = threading.Lock()

    @app.get("/metrics")
    def show_metrics() -> HttpResponse:
        """The figures of this party's processes and of its service as Prometheus text."""
        try:
            with one_at_a_time:
                return HttpResponse(metrics.text() + service_text(view), content_type=METRICS_TYPE)
        except (StatUnavailable, PartyEnded) as error:
            raise HttpError(503, f"there are no figures: {error}", {"retry-after": "1"}) from error

    @app.get("/openapi.json")
    async def show_description() -> dict[str, Any]:
        """This description."""
        return describe(app, title, package_version(), has_token=view.known.has_token)

    if handlers:
        app.include(load_handlers(handlers))
    return app


def package_version() -> str:
    """Of the description."""
    try:
        return version("partywire")
    except PackageNotFoundError:
        return "unknown"  # run from a source tree


def whose(view: ServiceView) -> str:
    """What a line of this process begins with: the party is known from the service's first message on."""
    return PROCESS if view.snapshot is None else f"{view.snapshot.party}: {PROCESS}"


def main() -> None:
    """The program of the worker."""
    control_fd = begin_child()
    fence.register()
    hold_blas_to_one_thread()
    control = ControlSocket.from_fd(control_fd, "the supervisor")
    try:
        message, fds = control.receive(START_TIMEOUT_S)
    except ControlClosed:
        return
    if not isinstance(message, AnswerHttp) or len(fds) != 3:
        close_all(fds)
        raise SystemExit(f"the HTTP worker ends: {type(message).__name__} instead of AnswerHttp")
    order = fence.probe()
    doorbell = Doorbell.from_fds(fds[0], fds[1], order)
    view = ServiceView(Channel(socket.socket(fileno=fds[2])))
    log_with(lambda: whose(view))
    try:
        app = make_app(view, message.handlers, "PartyWire service")
    except Exception as error:
        sentence = f"http.handlers {message.handlers}: {type(error).__name__}: {error}"
        view.channel.send(HandlersFailed(sentence))
        raise SystemExit(f"partywire: {whose(view)}: {sentence}") from error
    worker = HttpWorker(message.options, app, view, doorbell, order)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        failure = runner.run(worker.run(control))
    if failure:
        print(f"partywire: {whose(view)} ends: {failure}", file=sys.stderr)
    sys.stderr.flush()
    os._exit(1 if failure else 0)  # a thread inside a plain handler would be waited for otherwise


if __name__ == "__main__":
    main()
