"""HTTP requests and answers as records of a ring, between the front and the worker that answers. No I/O.

One message is a HEAD record with as much of its body as fits, followed by BODY records with the rest and by nothing
else; CANCEL stands between messages.

    HEAD of a request  id u64 | body size u32 | target length u16 | header count u16 | method length u8
                       | method | target
    HEAD of an answer  id u64 | body size u32 | status u16 | header count u16
    then of both       (name length u16 | value length u16 | name | value) for each header, then body
    BODY               id u64 | body
    CANCEL             id u64

The one invariant: `take` of what `request_records` or `answer_records` made gives an equal message back, and nothing
that these two cannot have made is taken: a record is checked field by field before its sizes are believed, because the
other process runs code of strangers (the front: their bytes; the worker: the user's handlers).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from .errors import PartyWireError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HEAD: Final = 1
BODY: Final = 2
CANCEL: Final = 3

HEADERS_MAX: Final = 128
"""Headers of one message: three times what browsers send. Bounds the work on one head beside its size."""

HEAD_SIZE_MAX: Final = 64 * 1024
"""Greatest head of either kind: more than any configured `head_size_max`, less than a record."""

METHOD = re.compile(rb"[A-Z]{1,16}\Z")
TARGET = re.compile(rb"/[\x21-\x7e]*\Z")
NAME = re.compile(rb"[a-z0-9!#$%&'*+.^_`|~-]{1,256}\Z")
VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?\Z")

REQUEST_HEAD: Final = struct.Struct("<QIHHB")
ANSWER_HEAD: Final = struct.Struct("<QIHH")
HEADER: Final = struct.Struct("<HH")
ID: Final = struct.Struct("<Q")

Headers = tuple[tuple[bytes, bytes], ...]


class HttpRecordError(PartyWireError):
    """Raised when a record on the ring between front and worker is none that the other side can have made."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"the ring between the HTTP front and its worker holds an invalid record: {self.what}"


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came, its body whole. Header names are in lower case. `id` is the front's, never reused."""

    id: int
    method: bytes
    target: bytes
    headers: Headers = field(default=(), repr=False)
    body: bytes | bytearray = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to the request `id`. What HTTP itself needs (content-length, date, connection) the front adds."""

    id: int
    status: int
    headers: Headers = field(default=(), repr=False)
    body: bytes | bytearray = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Cancel:
    """The client of request `id` is gone, or was answered already: its answer is wanted no more."""

    id: int


# Writing.


def request_records(request: Request, record_size_max: int) -> Iterator[tuple[int, Sequence[bytes | memoryview]]]:
    """The (kind, parts) of each record, none above `record_size_max` bytes. The body is lent, not copied.

    Raises:
        ValueError: something in the head may not stand there.
    """
    if not METHOD.match(request.method) or not TARGET.match(request.target):
        raise ValueError("a method or target that HTTP does not allow")
    head = REQUEST_HEAD.pack(
        request.id, len(request.body), len(request.target), len(request.headers), len(request.method)
    )
    parts = [head, request.method, request.target, *_encode_headers(request.headers)]
    return _records(request.id, b"".join(parts), request.body, record_size_max)


def answer_records(answer: Answer, record_size_max: int) -> Iterator[tuple[int, Sequence[bytes | memoryview]]]:
    """Like `request_records`. Raises ValueError likewise."""
    if not 200 <= answer.status <= 599:
        raise ValueError(f"{answer.status} is not the status of a final answer")
    head = ANSWER_HEAD.pack(answer.id, len(answer.body), answer.status, len(answer.headers))
    return _records(answer.id, b"".join([head, *_encode_headers(answer.headers)]), answer.body, record_size_max)


def cancel_record(request_id: int) -> tuple[int, Sequence[bytes | memoryview]]:
    """The (kind, parts) of a CANCEL."""
    return CANCEL, [ID.pack(request_id)]


def _encode_headers(headers: Headers) -> list[bytes]:
    if len(headers) > HEADERS_MAX:
        raise ValueError(f"{len(headers)} headers, at most {HEADERS_MAX} are allowed")
    parts: list[bytes] = []
    for name, value in headers:
        if not NAME.match(name) or not VALUE.match(value) or len(value) > HEAD_SIZE_MAX:
            raise ValueError(f"a header {name[:40]!r} that HTTP does not allow")
        parts += (HEADER.pack(len(name), len(value)), name, value)
    return parts


def _records(
    request_id: int, head: bytes, body: bytes | bytearray, record_size_max: int
) -> Iterator[tuple[int, Sequence[bytes | memoryview]]]:
    if len(head) > min(HEAD_SIZE_MAX, record_size_max):
        raise ValueError(f"a head of {len(head)} bytes, at most {min(HEAD_SIZE_MAX, record_size_max)} are allowed")
    return _cut(request_id, head, memoryview(body), record_size_max)


def _cut(
    request_id: int, head: bytes, body: memoryview, record_size_max: int
) -> Iterator[tuple[int, Sequence[bytes | memoryview]]]:
    position = record_size_max - len(head)
    yield HEAD, [head, body[:position]]
    piece = record_size_max - ID.size
    while position < len(body):
        yield BODY, [ID.pack(request_id), body[position : position + piece]]
        position += piece


# Reading.


class _Assembler:
    """Puts the records of one direction together; one message at a time, so one body is held at most."""

    def __init__(self, body_size_max: int) -> None:
        self.body_size_max = body_size_max
        self._id = -1  # of the message whose body is incomplete
        self._size = 0
        self._body = bytearray()

    def _begin(self, request_id: int, size: int, rest: memoryview) -> bool:
        """Whether the body is complete already."""
        if size > self.body_size_max:
            raise HttpRecordError(f"a body of {size} bytes, at most {self.body_size_max} are allowed")
        if len(rest) > size:
            raise HttpRecordError(f"{len(rest)} bytes of a body of {size}")
        self._body = bytearray(rest)
        self._size = size
        self._id = request_id if len(rest) < size else -1
        return len(rest) == size

    def _go_on_untrusted(self, payload: memoryview) -> bool:
        if len(payload) <= ID.size:
            raise HttpRecordError("a BODY record without a body")
        (request_id,) = ID.unpack_from(payload)
        if self._id < 0 or request_id != self._id:
            raise HttpRecordError(f"a BODY record of {request_id}, expected is {self._id if self._id >= 0 else 'none'}")
        if len(self._body) + len(payload) - ID.size > self._size:
            raise HttpRecordError(f"more than the {self._size} bytes that a body was to have")
        self._body += payload[ID.size :]
        if len(self._body) < self._size:
            return False
        self._id = -1
        return True

    def _refuse_between(self) -> None:
        if self._id >= 0:
            raise HttpRecordError(f"another record inside the body of {self._id}")


class RequestAssembler(_Assembler):
    """The worker's side."""

    def __init__(self, body_size_max: int) -> None:
        super().__init__(body_size_max)
        self._head = Request(0, b"", b"")

    def take_untrusted(self, kind: int, payload: memoryview) -> Request | Cancel | None:
        """The message that this record completes, if it does. The payload may be released afterwards.

        Raises:
            HttpRecordError: no front can have made this record.
        """
        if kind == BODY:
            if not self._go_on_untrusted(payload):
                return None
        elif kind == HEAD:
            self._refuse_between()
            if not self._take_head_untrusted(payload):
                return None
        elif kind == CANCEL and len(payload) == ID.size:
            self._refuse_between()
            return Cancel(ID.unpack(payload)[0])
        else:
            raise HttpRecordError(f"kind {kind} with {len(payload)} bytes in a worker's ring")
        head = self._head
        return Request(head.id, head.method, head.target, head.headers, self._body)

    def _take_head_untrusted(self, payload: memoryview) -> bool:
        if len(payload) < REQUEST_HEAD.size:
            raise HttpRecordError("a request head that ends early")
        request_id, size, target_size, count, method_size = REQUEST_HEAD.unpack_from(payload)
        position = REQUEST_HEAD.size + method_size
        method = bytes(payload[REQUEST_HEAD.size : position])
        target = bytes(payload[position : position + target_size])
        if len(method) != method_size or len(target) != target_size:
            raise HttpRecordError("a request head that ends early")
        if not METHOD.match(method) or not TARGET.match(target):
            raise HttpRecordError("a method or target that HTTP does not allow")
        headers, position = _decode_headers_untrusted(payload, position + target_size, count)
        self._head = Request(request_id, method, target, headers)
        return self._begin(request_id, size, payload[position:])


class AnswerAssembler(_Assembler):
    """The front's side."""

    def __init__(self, body_size_max: int) -> None:
        super().__init__(body_size_max)
        self._head = Answer(0, 200)

    def take_untrusted(self, kind: int, payload: memoryview) -> Answer | None:
        """Like RequestAssembler's.

        Raises:
            HttpRecordError: no worker of ours can have made this record.
        """
        if kind == BODY:
            if not self._go_on_untrusted(payload):
                return None
        elif kind == HEAD:
            self._refuse_between()
            if not self._take_head_untrusted(payload):
                return None
        else:
            raise HttpRecordError(f"kind {kind} with {len(payload)} bytes in the front's ring")
        head = self._head
        return Answer(head.id, head.status, head.headers, self._body)

    def _take_head_untrusted(self, payload: memoryview) -> bool:
        if len(payload) < ANSWER_HEAD.size:
            raise HttpRecordError("an answer head that ends early")
        request_id, size, status, count = ANSWER_HEAD.unpack_from(payload)
        if not 200 <= status <= 599:
            raise HttpRecordError(f"an answer with status {status}")
        headers, position = _decode_headers_untrusted(payload, ANSWER_HEAD.size, count)
        self._head = Answer(request_id, status, headers)
        return self._begin(request_id, size, payload[position:])


def _decode_headers_untrusted(payload: memoryview, position: int, count: int) -> tuple[Headers, int]:
    if count > HEADERS_MAX:
        raise HttpRecordError(f"{count} headers, at most {HEADERS_MAX} are allowed")
    headers = []
    for _ in range(count):
        if position + HEADER.size > len(payload):
            raise HttpRecordError("headers that end early")
        name_size, value_size = HEADER.unpack_from(payload, position)
        position += HEADER.size
        name = bytes(payload[position : position + name_size])
        value = bytes(payload[position + name_size : position + name_size + value_size])
        position += name_size + value_size
        if position > len(payload):
            raise HttpRecordError("headers that end early")
        if not NAME.match(name) or not VALUE.match(value):
            raise HttpRecordError("a header that HTTP does not allow")
        headers.append((name, value))
    if position > HEAD_SIZE_MAX:
        raise HttpRecordError(f"a head of {position} bytes, at most {HEAD_SIZE_MAX} are allowed")
    return tuple(headers), position
