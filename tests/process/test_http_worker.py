"""The worker that answers, behind a real front: what handlers may do, and what clients see of it."""

from __future__ import annotations

import asyncio
import threading

import orjson

from partywire.engine.http_options import HttpOptions
from partywire.workers.http_handlers import Handlers, HttpError, HttpRequest, HttpResponse
from tests.support.http_rig import DEADLINE_S, run_test, serving, until

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
