"""HTTP/1.1 as one client speaks it: limits at both ends, what is refused, and who may say what when."""

from __future__ import annotations

import dataclasses

import orjson
import pytest

from partywire.engine.front_client import names_this_host
from partywire.engine.http_connection import (
    CHUNK_SIZE_MEAN,
    CHUNKS_MAX,
    HeadReceived,
    HttpConnection,
    Phase,
    Refused,
    RequestReceived,
    head_size,
    problem,
)
from partywire.engine.http_options import HttpOptions

OPTIONS = HttpOptions(head_size_max=400, body_size_max=100)
GET = b"GET /a?b=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED += b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrailer: t\r\n\r\n"

Event = HeadReceived | RequestReceived | Refused


def events_of(http: HttpConnection) -> list[Event]:
    events = []
    while (event := http.next_event()) is not None:
        events.append(event)
        if isinstance(event, Refused):
            break
    return events


def refused(data: bytes, options: HttpOptions = OPTIONS) -> Refused:
    http = HttpConnection(options)
    http.receive(data)
    event = events_of(http)[-1]
    assert isinstance(event, Refused)
    answer = http.refuse(event.status, event.detail)
    assert answer.startswith(b"HTTP/1.1 %d " % event.status)
    assert b"connection: close" in answer.lower()
    assert orjson.loads(answer.partition(b"\r\n\r\n")[2])["status"] == event.status
    assert http.is_over
    return event


@pytest.mark.parametrize(("data", "body"), [(GET, b""), (POST, b"hello"), (CHUNKED, b"hello")])
def test_a_request_arrives_whole_however_its_bytes_are_cut(data: bytes, body: bytes) -> None:
    for step in (1, 3, 10_000):
        arrive(data, body, step)


def arrive(data: bytes, body: bytes, step: int) -> None:
    http = HttpConnection(OPTIONS)
    events: list[Event] = []
    for start in range(0, len(data), step):
        http.receive(data[start : start + step])
        events += events_of(http)
    head, request = events
    assert isinstance(head, HeadReceived)
    assert isinstance(request, RequestReceived)
    assert (request.head, bytes(request.body)) == (head, body)
    assert http.phase is Phase.WAITING


def test_pipelined_requests_come_one_by_one_each_after_the_answer_before() -> None:
    http = HttpConnection(OPTIONS)
    http.receive(GET + POST + GET[:10])
    assert [type(event) for event in events_of(http)] == [HeadReceived, RequestReceived]
    assert events_of(http) == []
    assert b"content-length: 2\r\n" in http.answer(200, [], b"ok", close=False)
    assert http.phase is Phase.HEAD
    events = events_of(http)
    assert isinstance(events[1], RequestReceived)
    assert events[1].body == b"hello"
    http.answer(204, [], b"", close=False)
    assert events_of(http) == []
    http.receive(GET[10:])
    assert [type(event) for event in events_of(http)] == [HeadReceived, RequestReceived]
    assert b"connection: close" in http.answer(200, [], b"", close=True)
    assert http.is_over
    assert http.is_clean_end


def padded(size: int) -> bytes:
    """A request whose head has exactly `size` bytes."""
    start = b"GET / HTTP/1.1\r\nHost: h\r\nX: "
    return start + b"x" * (size - len(start) - 4) + b"\r\n\r\n"


def test_a_head_of_the_greatest_size_is_taken_and_one_byte_more_is_431() -> None:
    assert head_size(b"GET", b"/", ((b"host", b"h"), (b"x", b"y"))) == len(b"GET / HTTP/1.1\r\nHost: h\r\nX: y\r\n\r\n")
    http = HttpConnection(OPTIONS)
    http.receive(padded(400))
    assert [type(event) for event in events_of(http)] == [HeadReceived, RequestReceived]
    assert refused(padded(401)).status == 431
    assert refused(padded(1000)[:-4]).status == 431  # without an end
    assert refused(b"GET /" + b"a" * 1000).status == 431


def test_a_body_of_the_greatest_size_is_taken_and_one_byte_more_is_413() -> None:
    head = b"POST / HTTP/1.1\r\nHost: h\r\n"
    for size, is_taken in ((100, True), (101, False)):
        announced = head + b"Content-Length: %d\r\n\r\n" % size
        chunked = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size + bytes(size) + b"\r\n0\r\n\r\n"
        for data in (announced + bytes(size), chunked):
            if is_taken:
                http = HttpConnection(OPTIONS)
                http.receive(data)
                assert isinstance(events_of(http)[-1], RequestReceived)
            else:
                assert refused(data).status == 413
    assert refused(head + b"Content-Length: 101\r\n\r\n").status == 413  # before a byte of it came


DIFFERENTLY_READ = [
    (b"\r\n\r\n\r\n\x00", 400),
    (b"hello\r\n\r\n", 400),
    (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
    (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    (b"GET a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    (b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    (b"CONNECT a:1 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    (b"brew / HTTP/1.1\r\nHost: h\r\n\r\n", 501),
    (b"GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400),
    (b"GET / HTTP/1.1\nHost: h\n\n", 400),
    (b"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: h\r\n\n", 400),
    (b"GET / HTTP/1.1\r\nHost: h\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: h\r\n X: folded\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: h\r\nX: y\r\n\tfolded\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: h\r\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: h\r\nA: \x01\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
    (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 6\r\n\r\nhello", 400),
    (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\nhello", 400),
    (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -5\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
    (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
    (b"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: h\r\n" + b"".join(b"H%d: v\r\n" % n for n in range(128)) + b"\r\n", 431),
]


def test_what_two_servers_could_read_differently_is_refused() -> None:
    options = dataclasses.replace(OPTIONS, head_size_max=4000)
    assert [(data, refused(data, options).status) for data, _ in DIFFERENTLY_READ] == DIFFERENTLY_READ


@pytest.mark.parametrize("odd", [b"GET / HTTP/1.1\nHost: h\r\n\r\n", b"GET / HTTP/1.1\r\nHost: h\r\n x\r\n\r\n"])
def test_an_odd_line_is_refused_however_the_bytes_are_cut_and_behind_other_requests(odd: bytes) -> None:
    for step in (1, 3, 10_000):
        http = HttpConnection(OPTIONS)
        events: list[Event] = []
        data = POST + GET + odd
        for start in range(0, len(data), step):
            http.receive(data[start : start + step])
            while event := http.next_event():
                events.append(event)
                if isinstance(event, RequestReceived):
                    http.answer(200, [], b"", close=False)
        assert [type(event) for event in events] == [*([HeadReceived, RequestReceived] * 2), Refused]
        assert isinstance(events[-1], Refused)
        assert "CR and LF" in events[-1].detail


def test_bare_line_feeds_of_a_body_are_its_own() -> None:
    http = HttpConnection(OPTIONS)
    http.receive(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\n\n\n b\n\n\tc" + GET)
    assert [type(event) for event in events_of(http)] == [HeadReceived, RequestReceived]
    http.answer(200, [], b"", close=False)
    assert [type(event) for event in events_of(http)] == [HeadReceived, RequestReceived]


def test_a_body_has_a_fixed_number_of_small_chunks_and_more_of_larger_ones() -> None:
    options = dataclasses.replace(OPTIONS, body_size_max=1 << 24)
    head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    few = CHUNKS_MAX + CHUNKS_MAX // (CHUNK_SIZE_MEAN - 1)  # of one byte each: the body itself allows some more
    large = b"%x\r\n%b\r\n" % (CHUNK_SIZE_MEAN, bytes(CHUNK_SIZE_MEAN))
    for chunks in (b"1\r\nx\r\n" * few, large * (2 * CHUNKS_MAX)):
        http = HttpConnection(options)
        http.receive((head + chunks + b"0\r\n\r\n") * 2)  # the second request is counted anew
        for _ in range(2):
            assert isinstance(events_of(http)[-1], RequestReceived)
            http.answer(200, [], b"", close=False)
    event = refused(head + b"1\r\nx\r\n" * (few + 1), options)
    assert (event.status, "small chunks" in event.detail) == (400, True)


def test_a_refused_body_is_not_held_while_the_client_is_heard_out() -> None:
    http = HttpConnection(OPTIONS)
    http.receive(POST[:-1])
    events_of(http)
    assert http.body_size == 4
    http.refuse(408, "late")
    assert http.body_size == 0


@pytest.mark.parametrize(("status", "title"), [(404, "Not Found"), (299, "Error"), (599, "Error")])
def test_every_status_of_an_error_has_a_title(status: int, title: str) -> None:
    assert orjson.loads(problem(status, "why"))["title"] == title


def test_an_error_never_quotes_what_could_be_a_secret() -> None:
    event = refused(b"GET / HTTP/1.1\r\nHost: h\r\nAuthorization Bearer s3cret\r\n\r\n")
    assert "s3cret" not in event.detail


def test_a_client_that_waits_for_100_is_told_to_go_on_or_why_not() -> None:
    head = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    http = HttpConnection(OPTIONS)
    http.receive(head)
    [event] = events_of(http)
    assert isinstance(event, HeadReceived)
    assert event.expects_continue
    assert http.go_on() == b"HTTP/1.1 100 Continue\r\n\r\n"
    http.receive(b"hello")
    assert isinstance(events_of(http)[0], RequestReceived)
    http = HttpConnection(OPTIONS)
    http.receive(head)
    events_of(http)
    assert http.refuse(401, "no").startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert http.is_over
    assert not http.is_clean_end  # the body may be on its way


def test_head_gets_the_size_and_no_body() -> None:
    http = HttpConnection(OPTIONS)
    http.receive(GET.replace(b"GET", b"HEAD") + GET)
    events_of(http)
    answer = http.answer(
        200, [(b"x", b"y"), (b"content-length", b"99"), (b"transfer-encoding", b"chunked")], b"12345", False
    )
    assert answer.endswith(b"content-length: 5\r\n\r\n")
    assert b"transfer-encoding" not in answer
    events_of(http)
    assert http.answer(200, [], b"12345", False).endswith(b"\r\n\r\n12345")


def test_http_1_0_and_a_close_header_end_the_connection_behind_the_answer() -> None:
    for data in (b"GET / HTTP/1.0\r\n\r\n", GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")):
        http = HttpConnection(OPTIONS)
        http.receive(data)
        events_of(http)
        http.answer(200, [], b"ok", close=False)
        assert http.is_over


def test_an_upgrade_is_not_taken_up() -> None:
    http = HttpConnection(OPTIONS)
    http.receive(GET.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n") + GET)
    assert isinstance(events_of(http)[-1], RequestReceived)
    http.answer(200, [], b"ok", close=False)
    assert isinstance(events_of(http)[-1], RequestReceived)


def test_an_absolute_target_says_which_host_is_meant() -> None:
    http = HttpConnection(OPTIONS)
    http.receive(GET.replace(b"/a?b=1", b"http://evil.example:80/x?y"))
    head = events_of(http)[0]
    assert isinstance(head, HeadReceived)
    assert (head.target, head.host) == (b"/x?y", b"evil.example:80")


HOSTS = [
    (b"localhost", True),
    (b"localhost:8080", True),
    (b"LOCALHOST.:1", True),
    (b"alice.localhost:1", True),
    (b"127.0.0.1:8080", True),
    (b"127.9.9.9", True),
    (b"[::1]:8080", True),
    (b"[::1]", True),
    (b"", False),
    (b"evil.example", False),
    (b"localhost.evil.example:8080", False),
    (b"10.0.0.1:8080", False),
    (b"127.0.0.1.evil.example", False),
    (b"[::2]:1", False),
]


def test_only_names_of_this_host_are_served_on_the_loopback() -> None:
    assert [(host, names_this_host(host)) for host, _ in HOSTS] == HOSTS
