"""HTTP/1.1 as one client speaks it: bytes in, requests out; answers in, bytes out. No sockets, no clock.

Around h11, which parses and frames. The one invariant: of one connection there is at most one request at a time, its
head and body within their limits, and every answer belongs to the oldest request without one. What is refused here
and not by h11: a request with both Content-Length and Transfer-Encoding, a chunked HTTP/1.0 request, a head with lines
that end without CR or go on in the next one, a target that is neither a path nor an absolute http URL (proxies and
origin servers read these differently; that is how requests are smuggled), everything that is too large, and a body in
so many chunks that reading it costs more than it holds.

States: IDLE nothing of the next request is here; HEAD a part of its head is; BODY its head is complete; WAITING it is
whole and has no answer yet; CLOSED nothing more is read. Driven by the client's bytes and by our answers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email.utils import formatdate
from enum import Enum
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import h11
import orjson

from .http_records import HEADERS_MAX, METHOD, NAME, TARGET, VALUE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .http_options import HttpOptions
    from .http_records import Headers

RETRY_AFTER_S: Final = 1
"""What a client is told that came while there was no room; requests are short."""

ABSOLUTE: Final = re.compile(rb"https?://[^/?#\s]*", re.IGNORECASE)

HEAD_END: Final = re.compile(rb"\n\r?\n")
ODD_LINE: Final = re.compile(rb"(?<!\r)\n|\n[ \t]")

CHUNKS_MAX: Final = 4096
CHUNK_SIZE_MEAN: Final = 256
"""A body may have CHUNKS_MAX chunks, and one more for every so many bytes. Each costs h11 some microseconds."""

PROBLEM_TYPE: Final = (b"content-type", b"application/problem+json")

OURS: Final = frozenset({b"connection", b"content-length", b"date", b"keep-alive", b"transfer-encoding", b"upgrade"})
"""Headers that frame the message or the connection; a handler's are left out."""

REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}


class Phase(Enum):
    """How far the present request is."""

    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    WAITING = "waiting"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class HeadReceived:
    """A head that may go on. `size` is the announced size of the body, None for a chunked one."""

    method: bytes
    target: bytes
    headers: Headers = field(repr=False)
    host: bytes
    size: int | None
    expects_continue: bool


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """The request is whole; its answer is due."""

    head: HeadReceived
    body: bytes | bytearray = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """What the client sent is none of ours to serve: answer with this, then close."""

    status: int
    detail: str
    headers: Headers = ()


def problem(status: int, detail: str) -> bytes:
    """The body of an error, as RFC 9457 has it."""
    return orjson.dumps({"type": "about:blank", "title": title_of(status), "status": status, "detail": detail})


def title_of(status: int) -> str:
    """The phrase of a status; a handler may use one that is not registered."""
    return REASONS.get(status, b"").decode() or "Error"


class HttpConnection:
    """One client's side of the talk. After Refused only `refuse` makes sense, and `receive` is over."""

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=options.head_size_max)
        self._head: HeadReceived | None = None  # of the request whose body is incomplete
        self._body = bytearray()
        self._chunks = 0  # of that body
        self._method = b""  # of the request that has no answer yet
        self.phase = Phase.IDLE

    # Receiving.

    def receive(self, data: bytes) -> None:
        """Bytes of the client; `next_event` says what they mean. Nothing after Refused or the end."""
        if self.phase is not Phase.CLOSED:
            self._h11.receive_data(data)

    def next_event(self) -> HeadReceived | RequestReceived | Refused | None:
        """What has been received; None when more bytes or an answer must come first."""
        if self.phase in (Phase.WAITING, Phase.CLOSED):
            return None
        try:
            return self._next_event_untrusted()
        except h11.RemoteProtocolError as error:
            self.phase = Phase.CLOSED
            status = error.error_status_hint
            # Behind a colon h11 quotes what it could not read, which may be a secret at the wrong place.
            return Refused(status, f"the request is not valid HTTP/1.1: {str(error).partition(':')[0]}")

    def _next_event_untrusted(self) -> HeadReceived | RequestReceived | Refused | None:
        if self.phase in (Phase.IDLE, Phase.HEAD) and self._has_odd_line():
            return self._refuse(400, "a line of the head does not end with CR and LF, or goes on in the next line")
        while True:
            event = self._h11.next_event()
            if isinstance(event, h11.Data):
                if len(self._body) + len(event.data) > self._options.body_size_max:
                    return self._refuse_body()
                self._body += event.data
                self._chunks += event.chunk_start
                if self._chunks > CHUNKS_MAX + len(self._body) // CHUNK_SIZE_MEAN:
                    return self._refuse(400, "the body of the request comes in too many small chunks")
            elif isinstance(event, h11.Request):
                return self._take_head_untrusted(event)
            elif isinstance(event, h11.EndOfMessage):
                assert self._head is not None
                head, self._head = self._head, None
                body, self._body = self._body, bytearray()
                self._chunks = 0
                self.phase = Phase.WAITING
                return RequestReceived(head, body)
            elif event is h11.NEED_DATA:
                if self.phase is Phase.IDLE and self._h11.trailing_data[0]:
                    self.phase = Phase.HEAD
                return None
            else:
                self.phase = Phase.CLOSED
                return None

    def _has_odd_line(self) -> bool:
        """Whether the head that is next, once it is whole, has a line that not everybody reads in the same way."""
        data = self._h11.trailing_data[0]
        end = HEAD_END.search(data)
        return end is not None and ODD_LINE.search(data, 0, end.end()) is not None

    def _take_head_untrusted(self, request: h11.Request) -> HeadReceived | Refused:
        self._method = request.method
        headers = tuple(request.headers)
        size = head_size(request.method, request.target, headers)
        if size > self._options.head_size_max or len(headers) > HEADERS_MAX:
            what = f"{size} bytes, at most {self._options.head_size_max} are"
            if len(headers) > HEADERS_MAX:
                what = f"{len(headers)} headers, at most {HEADERS_MAX} are"
            return self._refuse(431, f"the head of the request has {what} allowed")
        if request.http_version not in (b"1.0", b"1.1"):
            return self._refuse(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
        if not METHOD.match(request.method):
            return self._refuse(501, "the method is none that is known here")
        if not all(NAME.match(name) and VALUE.match(value) for name, value in headers):
            return self._refuse(400, "a header of the request has a name or a value that HTTP does not allow")
        target, host = split_target(request.target, headers)
        if not TARGET.match(target):
            return self._refuse(400, "the target of the request is not a path")
        length, chunked = None, False
        for name, value in headers:
            if name == b"content-length":
                length = int(value)
            elif name == b"transfer-encoding":
                chunked = True
        if chunked and length is not None:
            return self._refuse(400, "the request has both Content-Length and Transfer-Encoding")
        if chunked and request.http_version < b"1.1":
            return self._refuse(400, "an HTTP/1.0 request cannot be chunked")
        if length is not None and length > self._options.body_size_max:
            return self._refuse_body()
        expects = self._h11.they_are_waiting_for_100_continue
        announced = None if chunked else length or 0
        self.phase = Phase.BODY
        self._head = HeadReceived(request.method, target, headers, host, announced, expects)
        return self._head

    def _refuse(self, status: int, detail: str) -> Refused:
        self.phase = Phase.CLOSED
        return Refused(status, detail)

    def _refuse_body(self) -> Refused:
        return self._refuse(413, f"the body of a request has at most {self._options.body_size_max} bytes")

    @property
    def body_size(self) -> int:
        """Bytes of the body that have been received."""
        return len(self._body)

    @property
    def unread_size(self) -> int:
        """Bytes that wait for an answer to go before them (pipelined requests)."""
        return len(self._h11.trailing_data[0])

    # Sending.

    def go_on(self) -> bytes:
        """Tell a client that waits for it to send the body."""
        return self._send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))

    def answer(
        self, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes | bytearray, close: bool
    ) -> bytes:
        """The bytes of the answer to the request that waits. Afterwards `is_over` says whether to close.

        `close` ends the connection behind it. HEAD gets no body, but the size that GET would have.
        """
        fields = [(name, value) for name, value in headers if name not in OURS]
        fields.append((b"date", formatdate(usegmt=True).encode()))
        has_body = status not in (204, 304)
        if has_body:
            fields.append((b"content-length", b"%d" % len(body)))
        if close:
            fields.append((b"connection", b"close"))
        data = self._send(h11.Response(status_code=status, headers=fields, reason=REASONS.get(status, b"")))
        if has_body and body and self._method != b"HEAD":
            data += self._send(h11.Data(data=bytes(body)))
        data += self._send(h11.EndOfMessage())
        self._method = b""  # what may be refused next has none yet
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            self.phase = Phase.HEAD if self.unread_size else Phase.IDLE
        else:
            self.phase = Phase.CLOSED
        return data

    def refuse(self, status: int, detail: str, headers: Headers = ()) -> bytes:
        """The bytes of an error and of the end; empty when no answer is possible any more. Holds no body afterwards."""
        self._body = bytearray()
        if self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.phase = Phase.CLOSED
            return b""
        return self.answer(status, (PROBLEM_TYPE, *headers), problem(status, detail), close=True)

    @property
    def is_over(self) -> bool:
        """Whether nothing more is read or answered."""
        return self.phase is Phase.CLOSED

    @property
    def is_clean_end(self) -> bool:
        """Whether everything that the client sent has been read: no lingering is needed before the socket is closed."""
        return self._h11.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED) and not self.unread_size

    def _send(self, event: h11.Event) -> bytes:
        return self._h11.send(event) or b""


def head_size(method: bytes, target: bytes, headers: Headers) -> int:
    """Bytes of a head as it is customarily written: what `head_size_max` means, to the byte."""
    line = len(method) + len(target) + len(b"  HTTP/1.1\r\n")
    return line + sum(len(name) + len(value) + len(b": \r\n") for name, value in headers) + len(b"\r\n")


def split_target(target: bytes, headers: Headers) -> tuple[bytes, bytes]:
    """Path with query, and host, of a target that may be an absolute URL, whose host then counts (RFC 9112, 3.2.2)."""
    absolute = ABSOLUTE.match(target)
    if absolute is not None:
        path = target[absolute.end() :]
        host = absolute.group().partition(b"//")[2]
        return (path if path.startswith(b"/") else b"/" + path), host
    return target, next((value for name, value in headers if name == b"host"), b"")
