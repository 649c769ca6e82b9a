"""The worker that answers, behind a real front: what handlers may do, and what clients see of it."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson
import pytest

from partywire.engine.http_lane import RECORD_SIZE_MAX
from partywire.engine.http_options import HttpOptions
from partywire.engine.http_records import Request, request_records
from partywire.workers.channel import Channel
from partywire.workers.http_handlers import Handlers, HttpError, HttpRequest, HttpResponse
from partywire.workers.jobs import JobOption
from partywire.workers.serve_messages import Health, Snapshot
from partywire.workers.serve_routes import JobSubmission, ServiceView, make_routes
from tests.support.http_rig import DEADLINE_S, answering_records, run_test, serving, until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from partywire.workers.serve_messages import SubmitJob

OPTIONS = HttpOptions(answer_size_max=1 << 20, buffer_size_max=8 << 20)


def test_answers_have_their_status_headers_and_greatest_size_and_no_more() -> None:
    app = Handlers()

    @app.get("/bytes/{size}")
    async def some(size: int) -> bytes:
        return bytes(size)

    @app.put("/echo", status=201)
    def echo(body: bytes, request: HttpRequest) -> HttpResponse:
        return HttpResponse(body, 299, {"X-Seen": request.headers["x-sent"]}, "image/png")

    @app.get("/split")
    def split() -> HttpResponse:
        return HttpResponse("x", headers={"X-Bad": "a\r\nSet-Cookie: b"})

    @app.get("/teapot")
    async def teapot() -> None:
        raise HttpError(418, "short and stout", {"X-Spout": "here"})

    async def test() -> None:
        async with serving(OPTIONS, fake=False) as rig, rig.answering(app):
            client = await rig.connect()
            for size, status in ((OPTIONS.answer_size_max, 200), (OPTIONS.answer_size_max + 1, 500)):
                client.get(f"/bytes/{size}")
                assert (await client.answer())[0] == status
            client.request("PUT", "/echo", b"\x00\xff" * 100_000, "X-Sent: it")
            status, headers, body = await client.answer()
            assert (status, headers["x-seen"], headers["content-type"]) == (299, "it", "image/png")
            assert body == b"\x00\xff" * 100_000
            client.get("/split")
            status, headers, _ = await client.answer()
            assert (status, "set-cookie" in headers) == (500, False)
            client.get("/teapot")
            status, headers, body = await client.answer()
            assert (status, headers["x-spout"], orjson.loads(body)["detail"]) == (418, "here", "short and stout")

    run_test(test)


def test_whatever_a_handler_raises_becomes_an_answer() -> None:
    app = Handlers()

    @app.get("/cancels-itself")
    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    @app.get("/raises-cancelled")
    def raises_cancelled() -> None:
        raise asyncio.CancelledError

    @app.get("/stops")
    def stops() -> int:
        return next(iter([]))

    @app.get("/fails")
    async def fails() -> None:
        raise KeyError("a secret")

    @app.get("/status")
    async def status() -> None:
        raise HttpError(599, "of its own")

    async def test() -> None:
        async with serving(OPTIONS, fake=False) as rig, rig.answering(app):
            client = await rig.connect()
            said = {}
            for path in ("/cancels-itself", "/raises-cancelled", "/stops", "/fails"):
                client.get(path)
                said[path] = await client.problem()
            assert said == {
                "/cancels-itself": (500, "the handler failed: CancelledError"),
                "/raises-cancelled": (500, "the handler failed: CancelledError"),
                "/stops": (500, "the handler failed: RuntimeError"),
                "/fails": (500, "the handler failed: KeyError"),
            }
            client.get("/status")
            assert await client.problem() == (599, "of its own")

    run_test(test)


def test_a_handler_that_goes_on_although_it_was_cancelled_answers_nobody() -> None:
    app = Handlers()
    seen: asyncio.Queue[str] = asyncio.Queue()

    @app.get("/stubborn")
    async def stubborn() -> str:
        seen.put_nowait("began")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.put_nowait("went on")
        return "stubborn"

    @app.get("/")
    async def root() -> str:
        return "still here"

    async def test() -> None:
        async with serving(OPTIONS, fake=False) as rig, rig.answering(app):
            client, other = await rig.connect(), await rig.connect()
            client.get("/stubborn")
            async with asyncio.timeout(DEADLINE_S):
                assert await seen.get() == "began"
                client.writer.close()
                assert await seen.get() == "went on"
            other.get("/")
            assert (await other.answer())[2] == b"still here"

    run_test(test)


def request_record(number: int, method: bytes = b"GET") -> tuple[int, Sequence[bytes | memoryview]]:
    [record] = request_records(Request(number, method, b"/wait"), RECORD_SIZE_MAX)
    return record


@pytest.mark.parametrize(
    ("records", "says"),
    [
        ([request_record(7), request_record(7)], "request 7 beside 1 others, or for the second time"),
        ([request_record(number) for number in range(3)], "request 2 beside 2 others"),
        ([(99, [b""])], "kind 99"),
    ],
)
def test_a_front_that_asks_twice_or_too_often_is_not_believed(
    records: list[tuple[int, Sequence[bytes | memoryview]]], says: str
) -> None:
    app = Handlers()

    @app.get("/wait")
    async def wait() -> None:
        await asyncio.Event().wait()

    options = dataclasses.replace(OPTIONS, in_flight_max=2)

    async def test() -> None:
        async with answering_records(options, app, records) as worker, asyncio.timeout(DEADLINE_S):
            assert says in await worker

    run_test(test)


@dataclass
class Chain:
    child: Chain | None = None


def test_a_body_that_is_nested_too_deep_is_refused_and_the_next_request_served() -> None:
    app = Handlers()

    @app.post("/chain")
    async def chain(body: Chain) -> bool:
        return body.child is None

    async def test() -> None:
        async with serving(OPTIONS, fake=False) as rig, rig.answering(app):
            client = await rig.connect()
            for body, status in ((b'{"child":' * 900 + b"null" + b"}" * 900, 400), (b"{}", 200)):
                client.request("POST", "/chain", body, "Content-Type: application/json")
                assert (await client.answer())[0] == status

    run_test(test)


class Submitting:
    """The service's routes with a channel whose other end the test reads, or does not."""

    def __init__(self) -> None:
        near, far = socket.socketpair()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.channel, self.service = Channel(near), Channel(far)
        self.view = ServiceView(self.channel)
        options = (JobOption("text", "text", "", "any text", shared=True),)
        health = Health("serving", "", {})
        self.view.take(Snapshot("alice", ("alice",), {"job": options}, [], {}, health, has_token=False))
        route, _ = make_routes(self.view).find("POST", "/jobs")
        self._function = route.function

    async def submit(self, size: int) -> HttpResponse:
        response: HttpResponse = await self._function(JobSubmission("job", {"text": "x" * size}))
        return response

    def poll(self) -> None:
        """What the worker does when its channel is ready."""
        assert self.channel.poll() == []
        self.view.note_room()

    def close(self) -> None:
        self.channel.close()
        self.service.close()


def test_202_is_said_once_the_submission_lies_in_the_service_s_socket() -> None:
    async def test() -> None:
        submitting = Submitting()
        try:
            response = await submitting.submit(10)  # it fits: nothing is waited for
            [message] = submitting.service.poll()
            assert (response.status, response.body["id"]) == (202, message.id)
            large = asyncio.create_task(submitting.submit(60_000))
            await asyncio.sleep(0)
            submitting.poll()
            await asyncio.sleep(0)
            assert not submitting.channel.is_flushed
            assert not large.done()
            assert len(submitting.view.book.entries) == 2  # submitted, whatever the client hears
            with pytest.raises(HttpError) as caught:
                await submitting.submit(10)
            assert (caught.value.status, caught.value.headers) == (503, {"retry-after": "1"})
            assert len(submitting.view.book.entries) == 2
            messages: list[SubmitJob] = []
            while not messages:
                messages += submitting.service.poll()
                submitting.poll()
            response = await large
            assert (response.status, response.body["id"]) == (202, messages[0].id)
        finally:
            submitting.close()

    run_test(test)


def test_a_client_that_leaves_while_its_submission_waits_has_submitted() -> None:
    async def test() -> None:
        submitting = Submitting()
        try:
            large = asyncio.create_task(submitting.submit(60_000))
            await asyncio.sleep(0)
            large.cancel()
            with pytest.raises(asyncio.CancelledError):
                await large
            messages: list[SubmitJob] = []
            while not messages:
                messages += submitting.service.poll()
                submitting.poll()
            assert [message.id for message in messages] == list(submitting.view.book.entries)
        finally:
            submitting.close()

    run_test(test)


def test_a_client_that_leaves_cancels_its_handler() -> None:
    app = Handlers()
    seen: asyncio.Queue[str] = asyncio.Queue()

    @app.get("/wait")
    async def wait() -> None:
        seen.put_nowait("began")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.put_nowait("cancelled")
            raise

    @app.get("/")
    async def root() -> str:
        return "still here"

    async def test() -> None:
        async with serving(OPTIONS, fake=False) as rig, rig.answering(app):
            client = await rig.connect()
            client.get("/wait")
            async with asyncio.timeout(DEADLINE_S):
                assert await seen.get() == "began"
                client.writer.close()
                assert await seen.get() == "cancelled"
            other = await rig.connect()
            other.get("/")
            assert (await other.answer())[2] == b"still here"

    run_test(test)


def test_a_plain_handler_that_blocks_delays_nobody() -> None:
    app = Handlers()
    release = threading.Event()

    @app.get("/blocked")
    def blocked() -> str:
        release.wait(DEADLINE_S)
        return "done"

    @app.get("/plain")
    def plain() -> str:
        return "plain"

    @app.get("/async")
    async def quick() -> str:
        return "async"

    async def test() -> None:
        async with serving(OPTIONS, fake=False) as rig, rig.answering(app):
            slow, other = await rig.connect(), await rig.connect()
            slow.get("/blocked")
            for path in ("plain", "async"):
                other.get(f"/{path}")
                assert (await other.answer())[2] == path.encode()
            release.set()
            assert (await slow.answer())[2] == b"done"

    run_test(test)


def test_a_new_front_gets_no_answer_that_an_earlier_one_asked_for() -> None:
    app = Handlers()
    began = asyncio.Event()
    ended: list[str] = []

    @app.get("/wait")
    async def wait() -> str:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("old")
        return "old"

    @app.get("/")
    async def root() -> str:
        return "new"

    async def test() -> None:
        async with serving(OPTIONS, fake=False) as rig, rig.answering(app) as worker:
            client, other = await rig.connect(), await rig.connect()
            client.get("/wait")
            await began.wait()
            rig.make_lane(worker)
            assert (await client.problem())[0] == 502
            other.get("/")
            assert (await other.answer())[2] == b"new"
            await until(lambda: ended == ["old"])

    run_test(test)
