"""What is called in the middle of a pass may close the party or raise (Ctrl-C): nothing is lost, doubled or touched
after it is gone."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import pytest

from partywire.engine.frames import Descriptor, JobStatus, ResetCode, encode_frame, encode_job_end, encode_reset
from partywire.engine.records import CONTROL, DATA, STREAM_END, StreamEnd, encode_stream_end
from partywire.workers import waiting
from partywire.workers.errors import PeerLost, SessionClosed
from partywire.workers.hot import IS_COMPILED, all_idle, receive_all
from partywire.workers.values import Ring32
from partywire.workers.waiting import Wait
from tests.workers.harness import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from partywire.workers.lane import Lane
    from partywire.workers.worker import Worker

EPOCH = 7  # the default of Table


class Interrupted(BaseException):
    """What a Ctrl-C handler raises."""


@pytest.fixture
def two() -> Iterator[Table]:
    with Table(2) as table:
        yield table


def lane_of(worker: Worker) -> Lane:
    """The lane under test. Not a fixture: whoever holds a lane keeps its rings mapped."""
    return worker.links[1].lanes[0]


def write(two: Table, payload: bytes, kind: int = DATA) -> None:
    writer = two.end_of(0, 1).writer
    assert writer.try_write((payload,), len(payload), kind, 0, EPOCH)
    writer.publish()


def message(session: int, body: bytes = b"body") -> bytes:
    return encode_frame(session, Descriptor.BYTES, body)


def once_then(first: Callable[..., Any], then: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is `first` at its first call and `then` afterwards."""
    calls: list[None] = []

    def call(*args: Any) -> Any:
        calls.append(None)
        return first(*args) if len(calls) == 1 else then(*args)

    return call


def interrupt(*_: object) -> None:
    raise Interrupted


# Closing inside.


@pytest.mark.parametrize("records", [1, 3])
@pytest.mark.parametrize("what", ["message", "job's end", "reset", "end of the stream"])
def test_a_callback_inside_a_receive_may_close_the_party(two: Table, what: str, records: int) -> None:
    worker = two.workers[0]
    lane = lane_of(worker)
    [(ours, _), (other, _)] = two.sessions(0, 1)
    closing: Callable[..., None] = lambda *_: worker.close()  # noqa: E731
    first = message(0)
    if what == "message":
        ours._peers[0].waker = closing
    elif what == "job's end":
        ours.on_final = closing
        two.schedulers[0].spawn(_end_job(ours))
        two.schedulers[0].do_work()
        first = encode_job_end(0, 0, JobStatus.DONE, "")
    elif what == "reset":
        ours.on_failure = closing
        first = encode_reset(0, ResetCode.ABORTED, "enough")
    else:
        other._peers[0].waker = closing
        write(two, encode_stream_end(StreamEnd(True, "")), STREAM_END)
    for _ in range(records):
        write(two, first + message(1) * 1000)
    receive_all([lane])
    assert lane.is_over
    assert worker.failure is not None
    assert lane.messages_received <= 1
    assert worker.inbox_size == 0
    assert isinstance(other.failure, (SessionClosed, PeerLost))


async def _end_job(session: Any) -> None:
    await session.end_job()


def test_a_callback_of_the_control_lane_may_close_the_party(two: Table) -> None:
    worker = two.workers[0]
    control = worker.links[1].control
    assert control is not None
    worker.on_control = lambda *_: worker.close()
    writer = two.end_of(0, 1, -1).writer
    for _ in range(3):
        assert writer.try_write((b"x",), 1, CONTROL, 0, EPOCH)
    writer.publish()
    assert receive_all([control]) > 0
    assert control.is_over


# Exceptions.


def test_a_failed_flush_forgets_no_lane() -> None:
    with Table(3) as three:
        [(ours, *others)] = three.sessions(0)
        worker = three.workers[0]
        lanes = [worker.links[1].lanes[0], worker.links[2].lanes[0]]
        for lane in lanes:
            lane.flush = once_then(interrupt, type(lane).flush.__get__(lane))  # type: ignore[method-assign]
        three.schedulers[0].spawn(ours.broadcast(b"to everybody"))
        three.schedulers[0].do_work()
        for _ in lanes:
            with pytest.raises(Interrupted):
                worker.flush()
        three.settle()
        for session in others:
            assert list(session._peers[0].queue) == [b"to everybody"]


@pytest.mark.parametrize("value", [b"first", Ring32(1)], ids=["hot", "encoded"])
def test_a_send_that_cannot_tell_the_worker_keeps_nothing_back(two: Table, value: object) -> None:
    worker = two.workers[0]
    [(ours, theirs)] = two.sessions(0)
    worker.add_dirty = once_then(interrupt, worker.add_dirty)  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        ours.send(1, value).send(None)
    two.ok(ours.send(1, b"second"))
    assert list(theirs._peers[0].queue) == [b"second"]


def test_a_send_that_is_interrupted_behind_gathering_is_sent_whole(two: Table) -> None:
    lane = lane_of(two.workers[0])
    [(ours, theirs)] = two.sessions(0)
    really = lane.gather

    def gather(parts: Any) -> None:
        really(parts)
        raise Interrupted

    lane.gather = gather
    with pytest.raises(Interrupted):
        ours.send(1, Ring32(1)).send(None)
    lane.gather = really
    two.ok(ours.send(1, b"second"))
    assert two.ok(_nothing(), theirs.recv(0)) == [None, Ring32(1)]
    assert list(theirs._peers[0].queue) == [b"second"]
    assert lane.parts_size == 0


async def _nothing() -> None:
    pass


@pytest.mark.skipif(IS_COMPILED, reason="the compiled core writes and forgets in one step")
def test_frames_are_not_written_twice_after_an_interrupted_write(two: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = two.workers[0]
    lane = lane_of(worker)
    [(ours, theirs)] = two.sessions(0)
    really = lane.writer.try_write

    def try_write(*args: Any) -> bool:
        assert really(*args)
        raise Interrupted

    two.schedulers[0].spawn(ours.send(1, b"once"))
    two.schedulers[0].do_work()
    monkeypatch.setattr(lane.writer, "try_write", try_write)
    with pytest.raises(Interrupted):
        worker.flush()
    monkeypatch.undo()
    worker.flush()
    assert isinstance(ours.failure, PeerLost)
    assert "interrupted the worker while it wrote" in ours.failure.cause
    two.settle()
    assert list(theirs._peers[0].queue).count(b"once") <= 1


@pytest.mark.skipif(IS_COMPILED, reason="nothing is called amid a pass of the compiled core")
def test_a_write_that_was_interrupted_before_it_wrote_is_done_again(
    two: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = two.workers[0]
    [(ours, theirs)] = two.sessions(0)
    two.schedulers[0].spawn(ours.send(1, b"once"))
    two.schedulers[0].do_work()
    monkeypatch.setattr(lane_of(worker).writer, "try_write", interrupt)
    with pytest.raises(Interrupted):
        worker.flush()
    monkeypatch.undo()
    two.ok(ours.send(1, b"second"))
    two.settle()
    assert list(theirs._peers[0].queue) == [b"once", b"second"]
    assert ours.failure is None
    assert lane_of(worker).bytes_sent == len(message(0, b"once") + message(0, b"second"))


@pytest.mark.skipif(IS_COMPILED, reason="nothing is called amid a pass of the compiled core")
def test_a_receive_that_was_interrupted_before_it_took_anything_loses_nothing(
    two: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = two.workers[0]
    lane = lane_of(worker)
    [(ours, _)] = two.sessions(0)
    write(two, message(0))
    for name in ("_observe", "_words"):  # called or looked at in the middle of a poll
        monkeypatch.setattr(lane.reader, name, Interrupting())
        with pytest.raises(Interrupted):
            worker.service()
        monkeypatch.undo()
    worker.service()
    assert list(ours._peers[0].queue) == [b"body"]
    assert ours.failure is None
    assert not lane.is_urgent


class Interrupting:
    """Stands for what is interrupted when it is used."""

    def __call__(self) -> None:
        raise Interrupted

    def __getitem__(self, _: object) -> None:
        raise Interrupted


def test_what_gathered_beyond_a_record_is_written_in_several(two: Table) -> None:
    lane = lane_of(two.workers[0])
    [(ours, theirs)] = two.sessions(0)
    parts = [message(0, b"%d" % number + bytes(16_000)) for number in range(100)]
    assert sum(map(len, parts)) > lane.writer.record_size_max
    lane.gather(parts)
    lane.mark_dirty()
    two.settle()
    arrived: Any = theirs._peers[0].queue
    assert [zlib.crc32(entry) for entry in arrived] == [zlib.crc32(part[9:]) for part in parts]
    assert lane.bytes_sent == sum(map(len, parts))
    assert ours.failure is None


def test_an_interrupted_control_lane_stays_urgent_when_it_is_written_to(two: Table) -> None:
    worker = two.workers[0]
    control = worker.links[1].control
    assert control is not None
    worker.on_control = interrupt
    writer = two.end_of(0, 1, -1).writer
    assert writer.try_write((b"x",), 1, CONTROL, 0, EPOCH)
    writer.publish()
    with pytest.raises(Interrupted):
        worker.service()
    control.send(b"an answer")
    assert control.is_urgent
    worker.service()
    assert "interrupted" in worker.links[1].cause


def test_a_control_message_is_not_written_twice(two: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = two.workers[0]
    control = worker.links[1].control
    assert control is not None
    really = control._writer.try_write

    def try_write(*args: Any) -> bool:
        assert really(*args)
        raise Interrupted

    monkeypatch.setattr(control._writer, "try_write", try_write)
    with pytest.raises(Interrupted):
        control.send(b"once")
    monkeypatch.undo()
    control.send(b"another")
    worker.service()
    assert len(two.end_of(0, 1, -1).reader.poll()) == 1
    two.end_of(0, 1, -1).reader.release_all()
    assert "interrupted the worker while it wrote" in worker.links[1].cause


def test_an_interruption_inside_a_poll_is_not_taken_for_a_broken_ring(
    two: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = two.workers[0]
    lane = lane_of(worker)
    monkeypatch.setattr(lane.reader, "_refuse_tail", interrupt)
    two.sessions(0)
    lane.reader._words[32] = 5  # WORD_TAIL: no multiple of anything
    with pytest.raises(Interrupted):
        worker.service()
    assert not lane.is_over
    assert lane.is_urgent == IS_COMPILED  # plain Python knows that nothing was taken yet


@pytest.mark.parametrize("look", [receive_all, all_idle], ids=["receive_all", "all_idle"])
def test_an_interruption_inside_a_look_is_not_swallowed(
    two: Table, monkeypatch: pytest.MonkeyPatch, look: Callable[[list[Any]], object]
) -> None:
    worker = two.workers[0]
    lane = lane_of(worker)
    worker.link_life.lose_lane(lane, "for this test")
    lane.reader.close()
    refuse = once_then(interrupt, lane.reader._refuse_dead)
    monkeypatch.setattr(lane.reader, "_refuse_dead", refuse)
    with pytest.raises(Interrupted):
        look([lane])


def test_a_receiver_that_counts_nonsense_ends_the_pass_at_once() -> None:
    class Receiver:
        def __init__(self, result: object) -> None:
            self.result = result
            self.calls = 0

        def receive(self) -> object:
            self.calls += 1
            return self.result

    receivers = [Receiver(1), Receiver("two"), Receiver(3)]
    with pytest.raises(TypeError):
        receive_all(receivers)
    assert [receiver.calls for receiver in receivers] == [1, 1, 0]


# Plain calls.


def test_what_was_received_is_handed_over_without_a_call_in_between(two: Table) -> None:
    worker = two.workers[0]
    [(ours, _)] = two.sessions(0)
    write(two, message(0, b"first") + message(0, b"second"))
    worker.service()
    worker.leave = worker.flush = interrupt  # type: ignore[method-assign, assignment]
    assert ours.blocking.recv(1) == b"first"
    assert ours.blocking.recv(1, timeout=1.0) == b"second"
    del worker.leave, worker.flush


def test_an_interrupted_call_leaves_what_it_sent_to_the_next(two: Table) -> None:
    worker = two.workers[0]
    [(ours, theirs)] = two.sessions(0)
    worker.leave = interrupt  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        ours.blocking.send(1, b"first")
    del worker.leave
    assert not worker.driving
    ours.blocking.send(1, b"second")
    two.settle()
    assert list(theirs._peers[0].queue) == [b"first", b"second"]


@pytest.mark.parametrize("where", ["at its beginning", "at its end"])
def test_an_interrupted_call_does_not_seem_to_go_on(two: Table, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    worker = two.workers[0]
    [(ours, theirs)] = two.sessions(0)
    two.ok(ours.send(1, b"sent before"))

    async def operation() -> None:
        try:
            await Wait(worker)
        finally:
            interrupt()

    if where == "at its beginning":
        monkeypatch.setattr(waiting, "_Flag", interrupt)
    else:
        monkeypatch.setattr(worker, "rest", interrupt)
        worker.add_dirty(lane_of(worker))
    with pytest.raises(Interrupted):
        waiting.run_blocking(worker, operation())
    assert (worker.driving, worker.driving_thread) == (False, 0)
    if where == "at its end":
        assert not worker._dirty  # published all the same
    monkeypatch.undo()
    two.settle()
    assert list(theirs._peers[0].queue) == [b"sent before"]


# Records of a broken I/O process.


@pytest.mark.parametrize("garbage", [b"\xff not JSON", b"[]", b""])
def test_a_garbage_end_of_a_stream_loses_the_lane(two: Table, garbage: bytes) -> None:
    worker = two.workers[0]
    lane = lane_of(worker)
    [(ours, _)] = two.sessions(0)
    write(two, garbage, STREAM_END)
    worker.service()
    worker.service()  # behind the turn of whoever has got what came before
    assert "end of the stream that is none" in lane.cause
    assert isinstance(ours.failure, PeerLost)


@pytest.mark.parametrize("garbage", [b"\xff not JSON", b"[]", b""])
def test_a_garbage_end_of_the_control_stream_loses_the_link(two: Table, garbage: bytes) -> None:
    worker = two.workers[0]
    writer = two.end_of(0, 1, -1).writer
    assert writer.try_write((garbage,), len(garbage), STREAM_END, 0, EPOCH)
    writer.publish()
    worker.service()
    assert "end of the stream that is none" in worker.links[1].cause


# A bad frame.


def test_what_stands_before_a_bad_frame_in_one_record_is_delivered(two: Table) -> None:
    worker = two.workers[0]
    lane = lane_of(worker)
    [(ours, _)] = two.sessions(0)
    final: list[int] = []
    ours.on_final = final.append
    two.schedulers[0].spawn(_end_job(ours))
    two.schedulers[0].do_work()
    record = encode_job_end(0, 0, JobStatus.DONE, "") + message(0) * 3 + b"\0\0\0\0\x7f" + message(0)
    write(two, record)
    worker.service()
    assert final == [0]
    assert lane.messages_received == 3
    assert lane.bytes_received == len(record)
    assert isinstance(ours.failure, PeerLost)
    assert "0x7f" in ours.failure.cause
    assert worker.inbox_size == 0
