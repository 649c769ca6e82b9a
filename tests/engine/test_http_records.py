"""Requests and answers as ring records: what goes in comes out, and nothing else is taken."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine.http_records import (
    ANSWER_HEAD,
    BODY,
    CANCEL,
    HEAD,
    HEADERS_MAX,
    ID,
    REQUEST_HEAD,
    Answer,
    AnswerAssembler,
    Cancel,
    HttpRecordError,
    Request,
    RequestAssembler,
    answer_records,
    cancel_record,
    request_records,
)

RECORD_SIZE_MAX = 512
BODY_SIZE_MAX = 4096

ids = st.integers(0, 2**64 - 1)
names = st.text("abcdefghijklmnopqrstuvwxyz-0123456789", min_size=1, max_size=12).map(str.encode)
values = st.text('abc XYZ 09\t=;"\xe4', max_size=20).map(lambda text: text.strip().encode("latin-1"))
headers = st.lists(st.tuples(names, values), max_size=5).map(tuple)
bodies = st.binary(max_size=1500)
targets = st.text("abc/%?=&019.-~", max_size=30).map(lambda text: b"/" + text.encode())
requests = st.builds(Request, ids, st.sampled_from([b"GET", b"POST", b"DELETE"]), targets, headers, bodies)
answers = st.builds(Answer, ids, st.integers(200, 599), headers, bodies)


Records = Iterable[tuple[int, Sequence[bytes | memoryview]]]


def written(records: Records) -> list[tuple[int, bytes]]:
    return [(kind, b"".join(parts)) for kind, parts in records]


@given(st.lists(requests, max_size=4))
def test_requests_come_out_as_they_went_in(sent: list[Request]) -> None:
    assembler = RequestAssembler(BODY_SIZE_MAX)
    taken: list[Request | Cancel | None] = []
    for request in sent:
        records = written(request_records(request, RECORD_SIZE_MAX))
        assert all(0 < len(payload) <= RECORD_SIZE_MAX for _, payload in records)
        taken += [assembler.take_untrusted(kind, memoryview(payload)) for kind, payload in records]
        [(kind, payload)] = written([cancel_record(request.id)])
        taken.append(assembler.take_untrusted(kind, memoryview(payload)))
    whole = [one for one in taken if one is not None]
    assert whole == [one for request in sent for one in (request, Cancel(request.id))]


@given(st.lists(answers, max_size=4))
def test_answers_come_out_as_they_went_in(sent: list[Answer]) -> None:
    assembler = AnswerAssembler(BODY_SIZE_MAX)
    taken = [
        assembler.take_untrusted(kind, memoryview(payload))
        for answer in sent
        for kind, payload in written(answer_records(answer, RECORD_SIZE_MAX))
    ]
    assert [answer for answer in taken if answer is not None] == sent


@given(st.lists(st.tuples(st.integers(0, 5), st.binary(max_size=80)), max_size=6))
def test_garbage_is_refused_and_nothing_else_happens(records: list[tuple[int, bytes]]) -> None:
    for assembler in (RequestAssembler(BODY_SIZE_MAX), AnswerAssembler(BODY_SIZE_MAX)):
        for kind, payload in records:
            try:
                assembler.take_untrusted(kind, memoryview(payload))
            except HttpRecordError:
                break


@given(requests, st.data())
def test_a_record_with_a_wrong_byte_or_end_is_refused_or_another_valid_message(
    request: Request, data: st.DataObject
) -> None:
    kind, payload = written(request_records(request, RECORD_SIZE_MAX))[0]
    position = data.draw(st.integers(0, len(payload) - 1))
    changed = bytearray(payload)
    changed[position] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(changed), payload[:position]):
        try:
            taken = RequestAssembler(BODY_SIZE_MAX).take_untrusted(kind, memoryview(damaged))
        except HttpRecordError:
            continue
        if isinstance(taken, Request):  # then it is one that the writer takes, too
            assert written(request_records(taken, RECORD_SIZE_MAX))


def test_a_body_of_the_greatest_size_is_taken_and_one_byte_more_is_refused_before_it_comes() -> None:
    for size, is_taken in ((BODY_SIZE_MAX, True), (BODY_SIZE_MAX + 1, False)):
        records = written(answer_records(Answer(1, 200, (), bytes(size)), RECORD_SIZE_MAX))
        assembler = AnswerAssembler(BODY_SIZE_MAX)
        if not is_taken:
            with pytest.raises(HttpRecordError, match="at most 4096"):
                assembler.take_untrusted(records[0][0], memoryview(records[0][1]))
            continue
        taken = [assembler.take_untrusted(kind, memoryview(payload)) for kind, payload in records]
        assert taken[-1] == Answer(1, 200, (), bytes(size))


def test_the_greatest_number_of_headers_is_taken_and_one_more_is_refused_at_both_ends() -> None:
    most = tuple((b"n", b"v") for _ in range(HEADERS_MAX))
    [record] = written(answer_records(Answer(1, 200, most), 2048))
    assert AnswerAssembler(0).take_untrusted(record[0], memoryview(record[1])) == Answer(1, 200, most)
    with pytest.raises(ValueError, match="headers"):
        answer_records(Answer(1, 200, (*most, (b"n", b"v"))), 2048)
    more = ANSWER_HEAD.pack(1, 0, 200, HEADERS_MAX + 1) + record[1][ANSWER_HEAD.size :]
    with pytest.raises(HttpRecordError, match="headers"):
        AnswerAssembler(0).take_untrusted(HEAD, memoryview(more))


def test_a_body_that_belongs_to_nothing_or_is_too_long_or_interrupted_is_refused() -> None:
    begun = REQUEST_HEAD.pack(7, 10, 1, 0, 3) + b"GET/" + b"12345"
    with pytest.raises(HttpRecordError, match="expected is none"):
        RequestAssembler(BODY_SIZE_MAX).take_untrusted(BODY, memoryview(ID.pack(7) + b"1"))
    for kind, payload, what in (
        (BODY, ID.pack(8) + b"67890", "expected is 7"),
        (BODY, ID.pack(7) + b"678901", "more than"),
        (BODY, ID.pack(7), "without a body"),
        (CANCEL, ID.pack(7), "inside the body"),
        (HEAD, begun, "inside the body"),
    ):
        assembler = RequestAssembler(BODY_SIZE_MAX)
        assert assembler.take_untrusted(HEAD, memoryview(begun)) is None
        with pytest.raises(HttpRecordError, match=what):
            assembler.take_untrusted(kind, memoryview(payload))


NOT_ALLOWED = [
    Answer(1, 199),
    Answer(1, 600),
    Answer(1, 200, ((b"Upper", b"v"),)),
    Answer(1, 200, ((b"a b", b"v"),)),
    Answer(1, 200, ((b"name", b"a\r\nset-cookie: b"),)),
    Answer(1, 200, ((b"name", b" v"),)),
    Answer(1, 200, ((b"name", bytes(70_000)),)),
    Answer(1, 200, tuple((b"name", b"v" * 60_000) for _ in range(3))),
]


def test_an_answer_that_http_does_not_allow_is_never_written() -> None:
    for answer in NOT_ALLOWED:
        with pytest.raises(ValueError):
            answer_records(answer, 256 * 1024)
