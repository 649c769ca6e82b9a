"""The HTTP front with real sockets: every limit at both ends, and whatever a client or a worker may do to it."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import socket
import struct
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from partywire.engine.front_client import SMALL_ANSWER_SIZE
from partywire.engine.http_options import HttpOptions
from tests.support.http_rig import DEADLINE_S, Client, FakeWorker, HttpRig, run_test, serving, until

if TYPE_CHECKING:
    from partywire.engine.http_records import Request

LONG_S = 100.0
OPTIONS = HttpOptions(
    connections_max=4,
    in_flight_max=2,
    head_size_max=1024,
    body_size_max=300_000,
    answer_size_max=8 << 20,
    buffer_size_max=8 << 20,
    header_timeout_s=LONG_S,
    body_timeout_s=LONG_S,
    answer_timeout_s=LONG_S,
    send_timeout_s=LONG_S,
    idle_timeout_s=LONG_S,
)
SHORT_S = 0.15


def options(**changes: object) -> HttpOptions:
    return dataclasses.replace(OPTIONS, **changes)  # type: ignore[arg-type]


async def request_of(rig: HttpRig) -> Request:
    async with asyncio.timeout(DEADLINE_S):
        return await worker_of(rig).requests.get()


def worker_of(rig: HttpRig) -> FakeWorker:
    assert rig.worker is not None
    return rig.worker


async def exchange(rig: HttpRig, client: Client, path: str = "/") -> None:
    """One request and its answer, which must be its own."""
    client.get(path)
    request = await request_of(rig)
    assert request.target == path.encode()
    worker_of(rig).answer(request, body=path.encode())
    status, headers, body = await client.answer()
    assert (status, headers["x-id"], body) == (200, str(request.id), path.encode())


def test_requests_of_several_clients_get_their_own_answers_in_any_order() -> None:
    async def test() -> None:
        async with serving(OPTIONS) as rig:
            clients = [await rig.connect(), await rig.connect()]
            for round_ in range(3):  # keep-alive
                requests = []
                for index, client in enumerate(clients):
                    client.request("POST", f"/{index}?{round_}", bytes(300_000), "Authorization: Bearer x")
                    requests.append(await request_of(rig))
                    assert len(requests[-1].body) == 300_000
                    assert b"authorization" not in dict(requests[-1].headers)
                for request in reversed(requests):
                    worker_of(rig).answer(request, body=request.target)
                for index, client in enumerate(clients):
                    assert (await client.answer())[2] == f"/{index}?{round_}".encode()
            assert rig.front.held_size == 0

    run_test(test)


def test_pipelined_requests_are_answered_in_order_one_at_a_time() -> None:
    async def test() -> None:
        async with serving(OPTIONS) as rig:
            client = await rig.connect()
            for number in range(5):
                client.get(f"/{number}")
            for number in range(5):
                request = await request_of(rig)
                assert request.target == f"/{number}".encode()
                assert worker_of(rig).requests.empty()
                worker_of(rig).answer(request, body=request.target)
                assert (await client.answer())[2] == request.target

    run_test(test)


def test_the_bodies_of_a_request_and_an_answer_have_their_greatest_size_and_no_more() -> None:
    async def test() -> None:
        async with serving(OPTIONS) as rig:
            client = await rig.connect()
            client.request("PUT", "/", bytes(OPTIONS.body_size_max))
            request = await request_of(rig)
            assert len(request.body) == OPTIONS.body_size_max
            worker_of(rig).answer(request, body=bytes(OPTIONS.answer_size_max))
            assert len((await client.answer())[2]) == OPTIONS.answer_size_max
            client.request("PUT", "/", bytes(OPTIONS.body_size_max + 1))
            assert (await client.problem())[0] == 413
            assert await client.end() == b""
            assert worker_of(rig).requests.empty()

    run_test(test)


def test_a_client_that_waits_for_100_sends_its_body_after_it() -> None:
    async def test() -> None:
        async with serving(OPTIONS) as rig:
            client = await rig.connect()
            client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
            assert (await client.answer())[0] == 100
            client.send(b"hi")
            request = await request_of(rig)
            worker_of(rig).answer(request)
            assert (await client.answer())[0] == 200

    run_test(test)


def test_one_client_more_than_allowed_gets_503_and_a_place_once_another_has_left() -> None:
    async def test() -> None:
        async with serving(OPTIONS) as rig:
            clients = [await rig.connect() for _ in range(OPTIONS.connections_max)]
            for client in clients:
                await exchange(rig, client)
            late = await rig.connect()
            status, headers, _ = await late.answer()
            assert (status, headers["retry-after"]) == (503, "1")
            late.writer.close()
            clients[0].writer.close()
            await until(lambda: len(rig.front.clients) < OPTIONS.connections_max)
            await exchange(rig, await rig.connect())

    run_test(test)


def test_one_request_more_than_may_be_in_flight_gets_503_and_the_connection_lives() -> None:
    async def test() -> None:
        async with serving(OPTIONS) as rig:
            clients = [await rig.connect() for _ in range(3)]
            requests = []
            for client in clients[:2]:
                client.get()
                requests.append(await request_of(rig))
            clients[2].get()
            status, headers, _ = await clients[2].answer()
            assert (status, headers["retry-after"]) == (503, "1")
            refused = await rig.connect()
            refused.request("POST", "/", b"body")
            assert (await refused.problem())[0] == 503
            assert await refused.end() == b""  # its body was not waited for
            for request, client in zip(requests, clients, strict=False):
                worker_of(rig).answer(request)
                assert (await client.answer())[0] == 200
            await exchange(rig, clients[2])

    run_test(test)


def test_bodies_and_answers_that_do_not_fit_the_budget_get_503() -> None:
    async def test() -> None:
        async with serving(options(buffer_size_max=400_000, answer_size_max=400_001, in_flight_max=4)) as rig:
            first, second = await rig.connect(), await rig.connect()
            first.request("POST", "/", bytes(300_000))
            request = await request_of(rig)
            second.request("POST", "/", bytes(100_001))
            assert (await second.problem())[0] == 503
            worker_of(rig).answer(request, body=bytes(400_000))
            assert (await first.answer())[0] == 200
            first.get()
            worker_of(rig).answer(await request_of(rig), body=bytes(400_001))
            status, headers, body = await first.answer()
            assert (status, "retry-after" in headers, b"was carried out" in body) == (503, False, True)
            assert rig.front.held_size == 0

    run_test(test)


def test_a_small_answer_needs_nothing_of_a_budget_that_bodies_fill() -> None:
    async def test() -> None:
        async with serving(options(buffer_size_max=300_000)) as rig:
            asking, filling = await rig.connect(), await rig.connect()
            for size, status in ((SMALL_ANSWER_SIZE, 200), (SMALL_ANSWER_SIZE + 1, 503)):
                asking.get()
                request = await request_of(rig)
                if not rig.front.held_size:
                    filling.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000\r\n\r\n")
                    await until(lambda: rig.front.held_size == 300_000)
                worker_of(rig).answer(request, body=bytes(size))
                assert (await asking.answer())[0] == status
                assert rig.front.held_size == 300_000

    run_test(test)


def test_thousands_of_pipelined_requests_that_are_refused_at_once_are_not_answered_inside_each_other() -> None:
    async def test() -> None:
        async with serving(options(in_flight_max=1)) as rig:
            busy, many = await rig.connect(), await rig.connect()
            busy.get()
            await request_of(rig)
            count = 2 * sys.getrecursionlimit()
            many.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * count)
            for _ in range(count):
                assert (await many.answer())[0] == 503
            assert rig.front.may_begin is False
            assert len(rig.front.clients) == 2

    run_test(test)


@pytest.mark.parametrize("beginning", [b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_a_head_that_does_not_come_is_408_however_slowly_it_drips(beginning: bytes) -> None:
    async def test() -> None:
        async with serving(options(header_timeout_s=SHORT_S)) as rig:
            client = await rig.connect()
            drip = asyncio.create_task(dripping(client, beginning))
            assert (await client.problem())[0] == 408
            await client.end()
            drip.cancel()

    run_test(test)


async def dripping(client: Client, beginning: bytes) -> None:
    client.send(beginning)
    while True:
        client.send(b"x")
        await asyncio.sleep(SHORT_S / 10)


def test_a_body_that_does_not_come_is_408_and_holds_nothing() -> None:
    async def test() -> None:
        async with serving(options(body_timeout_s=SHORT_S)) as rig:
            client = await rig.connect()
            client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\nhal")
            assert (await client.problem())[0] == 408
            assert await client.end() == b""
            assert rig.front.held_size == 0
            assert worker_of(rig).requests.empty()

    run_test(test)


def test_a_client_that_says_nothing_or_nothing_more_is_closed_without_a_word() -> None:
    async def test() -> None:
        async with serving(options(header_timeout_s=SHORT_S, idle_timeout_s=SHORT_S)) as rig:
            silent, done = await rig.connect(), await rig.connect()
            await exchange(rig, done)
            assert await silent.end() == b""
            assert await done.end() == b""

    run_test(test)


def test_a_worker_that_does_not_answer_is_504_and_told_to_stop_and_its_late_answer_goes_nowhere() -> None:
    async def test() -> None:
        async with serving(options(answer_timeout_s=SHORT_S)) as rig:
            client = await rig.connect()
            client.get()
            request = await request_of(rig)
            assert (await client.problem())[0] == 504
            assert await worker_of(rig).cancelled.get() == request.id
            worker_of(rig).answer(request, body=b"late")
            await exchange(rig, client, "/next")

    run_test(test)


def test_a_client_that_leaves_is_forgotten_and_its_request_cancelled() -> None:
    async def test() -> None:
        async with serving(OPTIONS) as rig:
            for is_hard in (False, True):
                client = await rig.connect()
                client.get()
                request = await request_of(rig)
                if is_hard:
                    sock: socket.socket = client.writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.writer.close()
                async with asyncio.timeout(DEADLINE_S):
                    assert await worker_of(rig).cancelled.get() == request.id
                worker_of(rig).answer(request)
            await exchange(rig, await rig.connect())

    run_test(test)


def test_a_client_that_does_not_read_holds_no_worker_and_is_closed() -> None:
    async def test() -> None:
        async with serving(options(send_timeout_s=SHORT_S, buffer_size_max=9 << 20)) as rig:
            slow, quick = await rig.connect(), await rig.connect()
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
            slow.get()
            worker_of(rig).answer(await request_of(rig), body=bytes(8 << 20))
            await exchange(rig, quick)  # while the other one's answer stands before a full socket
            await until(lambda: len(rig.front.clients) == 1)
            assert rig.front.held_size == 0

    run_test(test)


def test_requests_survive_their_worker_as_502_and_the_next_worker_serves_the_same_connection() -> None:
    async def test() -> None:
        async with serving(OPTIONS) as rig:
            clients = [await rig.connect(), await rig.connect()]
            for client in clients:
                client.get()
                await request_of(rig)
            rig.kill_worker()
            for client in clients:
                status, detail = await client.problem()
                assert status == 502
                assert "was killed by SIGKILL" in detail
            clients[0].get()
            status, headers, _ = await clients[0].answer()
            assert (status, headers["retry-after"]) == (503, "1")
            rig.start_worker()
            for client in clients:
                await exchange(rig, client)

    run_test(test)


def test_a_token_is_asked_for_before_anything_is_read_or_passed_on() -> None:
    token = b"correct-horse-battery"

    async def test() -> None:
        async with serving(options(token_digest=hashlib.sha256(token).digest())) as rig:
            for headers in ([], ["Authorization: Bearer wrong"], ["Authorization: Basic eDp5"]):
                client = await rig.connect()
                client.request("POST", "/", b"x" * 1000, *headers)
                status, got, body = await client.answer()
                assert (status, got["www-authenticate"]) == (401, "Bearer")
                assert token not in body
                client.writer.close()
            client = await rig.connect()
            client.get("/", f"Authorization: bearer {token.decode()}")
            worker_of(rig).answer(await request_of(rig))
            assert (await client.answer())[0] == 200

    run_test(test)


def test_a_request_for_another_host_is_refused_unless_other_hosts_may_come() -> None:
    async def test() -> None:
        async with serving(OPTIONS) as rig:
            client = await rig.connect()
            client.send(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
            assert (await client.problem())[0] == 421
        async with serving(options(is_loopback=False)) as rig:
            client = await rig.connect()
            client.send(b"GET / HTTP/1.1\r\nHost: alice.example\r\n\r\n")
            worker_of(rig).answer(await request_of(rig))
            assert (await client.answer())[0] == 200

    run_test(test)


def test_a_unix_socket_is_served_alike() -> None:
    async def test() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with serving(OPTIONS, f"{folder}/s") as rig:
                client = await rig.connect()
                for number in range(2):
                    await exchange(rig, client, f"/{number}")

    run_test(test)


def test_a_party_that_serves_no_http_does_not_even_import_it() -> None:
    program = "import sys, partywire.engine.supervisor, partywire.workers.party; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    names = loaded.stdout.split()
    assert "partywire.engine.supervisor" in names
    assert not [name for name in names if "front" in name or name.split(".")[0] == "h11"]


def test_closing_answers_what_is_in_flight_and_takes_nothing_new() -> None:
    async def test() -> None:
        async with serving(OPTIONS) as rig:
            idle, busy = await rig.connect(), await rig.connect()
            await exchange(rig, idle)
            busy.get()
            request = await request_of(rig)
            rig.close()
            assert await idle.end() == b""
            with pytest.raises(OSError):
                await rig.connect()
            worker_of(rig).answer(request, body=b"last words")
            status, headers, body = await busy.answer()
            assert (status, headers["connection"], body) == (200, "close", b"last words")
            assert await busy.end() == b""

    run_test(test)
