"""What goes wrong around a session: interruptions, lost turns, books that must balance, values that stay hidden."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from partywire.engine.errors import LinkProtocolError
from partywire.engine.frames import Descriptor, JobStatus, encode_frame, encode_job_end, fragment_begin_header
from partywire.engine.records import STREAM_END, StreamEnd, encode_stream_end
from partywire.workers.array_meta import array_meta
from partywire.workers.errors import (
    InboxOverflow,
    PartyFailed,
    PeerAborted,
    PeerLost,
    SessionClosed,
    SessionTimeout,
    UnknownPeer,
)
from partywire.workers.mailbox import MESSAGE_OVERHEAD
from partywire.workers.scheduler import Scheduler
from partywire.workers.value_codec import encode
from partywire.workers.values import NetworkVec
from partywire.workers.waiting import Wait
from tests.workers.harness import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20


@pytest.fixture
def two() -> Iterator[Table]:
    with Table(2) as table:
        yield table


# What is whole and no value.


@pytest.mark.parametrize("into", [False, True], ids=["a new array", "our array"])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"\x21\x03\x00|u1" + bytes(300), r"dimensions of an array: 33, allowed is 32"),
        (b"\x01\x03\x00|O8" + bytes(8), r"dtype of an array, bytes of text: 3"),
        (array_meta(np.zeros(4, np.uint8)) + b"abc", r"bytes of an array's data: 3, allowed is 4"),
    ],
)
def test_a_malformed_array_says_whose_it_is_and_ends_its_session_only(
    two: Table, body: bytes, words: str, into: bool
) -> None:
    [(ours, theirs), (other, peers_other)] = two.sessions(0, 1)
    two.feed(0, 1, encode_frame(0, Descriptor.ARRAY, body))
    two.ok(peers_other.send(0, b"as before"))
    out = np.zeros(4, np.uint8) if into else None
    [error] = two.run(ours.recv(1, out=out))
    assert isinstance(error, PeerLost)
    assert (error.peer, error.session, error.epoch) == ("bob", 0, 7)
    assert isinstance(error.__cause__, LinkProtocolError)
    sentence = rf"session 0 lost bob \(link epoch 7\): a message of bob is malformed \({words}\); check that both"
    assert re.match(sentence, str(error))
    assert "The link is closed" not in str(error)
    # Every later call here says the same, the peer hears of it, and other sessions of the link go on.
    [again] = two.run(ours.send(1, b"later"))
    assert isinstance(again, PeerLost)
    assert again.args == error.args
    [told] = two.run(theirs.recv(0))
    assert isinstance(told, PeerAborted)
    assert "malformed" in told.reason
    assert two.ok(other.recv(1)) == [b"as before"]


# What came right before a loss.


@pytest.mark.parametrize("together", [True, False], ids=["in one pass", "in two"])
def test_who_waits_has_the_last_message_of_a_peer_that_died_behind_it(two: Table, together: bool) -> None:
    [(ours, _)] = two.sessions(0)

    async def listen() -> list[object]:
        heard: list[object] = []
        try:
            while True:
                heard.append(await ours.recv(1))
        except PeerLost as error:
            heard.append(error.cause)
        return heard

    slot = two.schedulers[0].spawn(listen())
    two.settle()
    end = two.end_of(0, 1)
    end.stream += encode_frame(0, Descriptor.BYTES, b"first") + encode_frame(0, Descriptor.BYTES, b"last")
    if not together:
        two.turn()
    end.records.append((STREAM_END, encode_stream_end(StreamEnd(False, "killed"))))
    two.settle()
    assert slot.result == [b"first", b"last", "killed"]
    assert two.workers[0].inbox_size == 0


def test_no_session_is_made_on_a_lane_whose_end_was_found(two: Table) -> None:
    two.sessions(0)
    two.end_of(0, 1).records.append((STREAM_END, encode_stream_end(StreamEnd(False, "killed"))))
    two.move()
    worker = two.workers[0]
    assert worker.service()
    assert not worker.may_sleep()
    with pytest.raises(PeerLost, match="killed"):
        worker.make_session(1)
    two.settle()
    assert worker.may_sleep()


# The inbox's books.


def test_a_protocol_error_behind_good_messages_leaves_the_inbox_balanced(two: Table) -> None:
    [(_, theirs)] = two.sessions(0)
    good = encode_frame(0, Descriptor.BYTES, b"x" * 1000) * 5
    two.feed(1, 0, good + encode_frame(0, Descriptor.FRAGMENT, b"stray"))
    two.settle()
    assert isinstance(theirs.failure, PeerLost)
    assert two.workers[1].inbox_size == 0


def test_ends_of_jobs_that_a_peer_is_ahead_count_as_inbox() -> None:
    with Table(2, inbox_size_max=100_000) as two:
        [(_, theirs)] = two.sessions(0)
        two.feed(1, 0, b"".join(encode_job_end(0, job, JobStatus.DONE, "") for job in range(10)))
        two.settle()
        counted = two.workers[1].inbox_size
        assert counted >= 10
        two.ok(_nothing(), theirs.end_job())
        assert two.workers[1].inbox_size == counted * 9 // 10
        two.feed(1, 0, b"".join(encode_job_end(0, job, JobStatus.DONE, "") for job in range(10, 5000)))
        two.settle()
        assert isinstance(theirs.failure, InboxOverflow)
        assert two.workers[1].inbox_size == 0


async def _nothing() -> None:
    pass


COST = 500 + MESSAGE_OVERHEAD


def test_the_session_whose_message_passes_the_budget_fails_and_nobody_else() -> None:
    """Ten sessions' messages in one record: each that does not fit fails alone, before the next one is looked at."""
    with Table(2, inbox_size_max=3 * COST + 100) as two:
        worker = two.workers[1]
        peaks = {}
        for session, _ in [(theirs, ours) for ours, theirs in two.sessions(*range(10))]:
            session.on_failure = lambda _, number=session.id: peaks.update({number: worker.inbox_size})
        two.feed(1, 0, b"".join(encode_frame(number, Descriptor.BYTES, bytes(500)) for number in range(10)))
        two.settle()
        assert set(worker.table.live) == {0, 1, 2}
        assert worker.inbox_size == 3 * COST
        assert peaks == dict.fromkeys(range(3, 10), 3 * COST)  # given back already


def test_a_message_may_pass_the_budget_by_its_own_size_only() -> None:
    with Table(2, inbox_size_max=1000) as two:
        [(_, theirs)] = two.sessions(0)
        worker = two.workers[1]
        seen = []
        overflow = worker.overflow
        worker.overflow = lambda mailbox: (seen.append(worker.inbox_size), overflow(mailbox))  # type: ignore
        two.feed(1, 0, encode_frame(0, Descriptor.BYTES, bytes(500)) * 50)
        two.settle()
        assert seen == [2 * COST]
        assert isinstance(theirs.failure, InboxOverflow)
        assert worker.inbox_size == 0


@pytest.mark.parametrize("behind", [6, 1 << 20], ids=["late", "unknown"])
def test_a_frame_of_no_session_behind_it_hides_no_overflow(behind: int) -> None:
    with Table(2, inbox_size_max=1000) as two:
        [(_, theirs), (_, other)] = two.sessions(0, 6)
        other.close()
        stream = encode_frame(0, Descriptor.BYTES, bytes(500)) * 2 + encode_frame(behind, Descriptor.BYTES, b"x")
        two.feed(1, 0, stream)
        two.settle()
        assert isinstance(theirs.failure, InboxOverflow)


def test_frames_that_are_kept_for_a_session_count_behind_those_of_the_same_slice() -> None:
    with Table(2, inbox_size_max=1000) as two:
        two.sessions(0)
        worker = two.workers[1]
        worker.expect_sessions()
        stream = encode_frame(0, Descriptor.BYTES, bytes(500)) + encode_frame(5, Descriptor.BYTES, bytes(500))
        two.feed(1, 0, stream)
        two.settle()
        assert worker.counters.parked == 0
        assert worker.inbox_size == COST
        worker.expect_sessions_end()


def test_an_array_that_is_not_what_its_receiver_waits_for_counts_at_once() -> None:
    """It was to lie in the receiver's own memory, which is not counted."""
    wanted, sent = np.zeros(1000, np.int32), np.zeros(1000, np.float32)
    with Table(2, inbox_size_max=6000) as two:
        receivers = [two.schedulers[1].spawn(theirs.recv(0, out=wanted.copy())) for _, theirs in two.sessions(0, 1)]
        two.schedulers[1].do_work()
        body = array_meta(sent) + sent.tobytes()
        for number in range(2):
            two.feed(1, 0, fragment_begin_header(number, Descriptor.ARRAY, len(body), 100) + body[:100])
            two.settle()
        assert set(two.workers[1].table.live) == {0}
        assert isinstance(receivers[1].error, InboxOverflow)
        two.schedulers[1].cancel("over")


# Turns in line for a full ring.


def test_a_sender_that_leaves_at_its_turn_passes_the_turn_on(two: Table) -> None:
    """Its deadline passes in the very moment in which it is woken; whoever stands behind it must not wait for ever."""
    [first, second, third] = two.sessions(0, 1, 2)
    two.held.add((0, 1))
    blocked = two.schedulers[0].spawn(first[0].send(1, bytes(4 * MIB)))
    two.settle()
    behind_it = two.schedulers[0].spawn(first[0].send(1, b"of the same session", timeout=1.0))
    two.turn()
    small = two.schedulers[0].spawn(second[0].send(1, bytes(100)))
    other = two.schedulers[0].spawn(third[0].send(1, bytes(MIB)))
    two.turn()
    two.clock.now += 2.0
    two.held.clear()
    receiver = two.schedulers[1].spawn(third[1].recv(0))
    two.settle()
    assert isinstance(behind_it.error, SessionTimeout)
    assert blocked.is_done
    assert small.is_done
    assert other.is_done
    assert receiver.is_done


def test_the_end_of_a_job_that_stood_in_line_lets_the_next_in_line_go_on(two: Table) -> None:
    [first, second] = two.sessions(0, 1)
    [lane] = two.workers[0].links[1].lanes.values()
    two.held.add((0, 1))
    filler = two.schedulers[0].spawn(_flood(first[0]))
    two.settle()
    assert not filler.is_done
    ends = two.schedulers[0].spawn(second[0].end_job())
    two.turn()
    behind = two.schedulers[0].spawn(second[0].send(1, bytes(100)))
    two.turn()
    assert lane.waiters
    assert [ends.is_done, behind.is_done] == [False, False]
    assert filler.wait is not None
    filler.wait.waker = None  # it never comes to its turn
    two.held.clear()
    two.settle()
    assert [ends.is_done, behind.is_done] == [True, True]
    two.schedulers[0].cancel("over")


async def _flood(session: Any) -> None:
    while True:
        await session.send(1, bytes(16_000))


def test_a_turn_that_a_busy_coroutine_cannot_take_does_not_stop_a_blocking_send(two: Table) -> None:
    """A synchronous job sends while a coroutine of the same worker stands before it in line and cannot run."""
    [first, second] = two.sessions(0, 1)
    two.held.add((0, 1))
    waiting = two.schedulers[0].spawn(first[0].send(1, bytes(4 * MIB)))
    two.settle()
    assert not waiting.is_done
    two.held.clear()
    worker = two.workers[0]
    idle = 0

    def sleep(deadline: float = 0.0) -> None:
        nonlocal idle
        worker.flush()
        moved = two.workers[1].service() + two.move()
        idle = 0 if moved else idle + 1
        assert idle < 100, "stuck"

    worker.sleep = sleep  # type: ignore[method-assign]
    second[0].blocking.send(1, bytes(2 * MIB))
    two.settle()
    assert waiting.is_done


# Interruptions.


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("chunk", [1, 2])
def test_an_interrupted_large_send_leaves_a_working_lane_and_no_half_message(
    two: Table, monkeypatch: pytest.MonkeyPatch, chunk: int, when: str
) -> None:
    [(ours, theirs), (other, other_end)] = two.sessions(0, 1)
    [lane] = two.workers[0].links[1].lanes.values()
    write_chunk = lane.write_chunk
    count = 0

    def interrupt(*args: Any) -> int:
        nonlocal count
        count += 1
        if count == chunk and when == "before":
            raise KeyboardInterrupt
        taken = write_chunk(*args)
        if count == chunk:
            raise KeyboardInterrupt
        return taken

    monkeypatch.setattr(lane, "write_chunk", interrupt)
    with pytest.raises(KeyboardInterrupt):
        two.ok(ours.send(1, bytes(MIB // 2 + 1)))
    monkeypatch.undo()
    assert isinstance(ours.failure, SessionClosed)
    two.settle()
    assert theirs.failure is not None
    two.ok(other.send(1, b"goes on"))
    assert two.ok(_nothing(), other_end.recv(0))[1] == b"goes on"


def test_an_interrupted_control_lane_loses_the_link_and_not_silently_a_message(two: Table) -> None:
    link = two.workers[1].links[0]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    two.workers[1].on_control = interrupt
    assert two.workers[0].links[1].control is not None
    two.workers[0].links[1].control.send(b"{}")
    two.move()
    two.move()
    with pytest.raises(KeyboardInterrupt):
        two.workers[1].service()
    two.workers[1].on_control = None
    two.settle()
    assert "interrupted" in link.cause


# Two calls at once.


def test_a_second_receive_does_not_take_what_lies_in_the_memory_of_the_first(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    array = np.arange(100_000, dtype=np.uint32)
    out = np.zeros_like(array)
    first = two.schedulers[1].spawn(theirs.recv(0, out=out))
    two.settle()
    two.schedulers[0].spawn(ours.send(1, array))
    while not theirs._peers[0].queue:
        two.workers[0].service()
        two.schedulers[0].do_work()
        two.workers[0].flush()
        two.move()
        two.workers[1].service()  # its scheduler does not run: the first receive is woken and has not gone on
    stolen = theirs.recv(0)
    with pytest.raises(RuntimeError, match="two calls"):
        stolen.send(None)
    two.settle()
    assert first.result is out
    assert np.array_equal(out, array)


def test_a_woken_wait_does_not_forget_who_came_after_it(two: Table) -> None:
    wait = Wait(two.workers[0])

    async def main() -> None:
        loop = asyncio.get_running_loop()
        two.workers[0].loop_driver = type("Driver", (), {"loop": loop, "detach": lambda self: None})()
        try:
            first = asyncio.ensure_future(_stand(wait))
            await asyncio.sleep(0)
            wait.wake()
            second = _stand(wait)
            future = second.send(None)  # begins to wait before the first one has gone on
            await first
            wait.wake()
            assert future.done()
            second.close()
        finally:
            two.workers[0].loop_driver = None

    asyncio.run(main())


async def _stand(wait: Wait) -> Any:
    await wait


def test_two_threads_at_once_are_refused(two: Table) -> None:
    [(ours, _), (other, _)] = two.sessions(0, 1)
    worker = two.workers[0]
    caught: list[BaseException] = []

    def in_another_thread() -> None:
        try:
            other.blocking.send(1, b"x")
        except BaseException as error:
            caught.append(error)

    def sleep(deadline: float = 0.0) -> None:
        if not caught:
            thread = threading.Thread(target=in_another_thread)
            thread.start()
            thread.join()
        ours.abort("enough")

    worker.sleep = sleep  # type: ignore[method-assign]
    with pytest.raises(SessionClosed):
        ours.blocking.recv(1)
    [error] = caught
    assert isinstance(error, RuntimeError)
    assert "two threads" in str(error)


def test_closing_a_worker_wakes_whoever_waits_for_a_common_step(two: Table) -> None:
    slot = two.schedulers[0].spawn(two.workers[0].until(lambda: False))
    two.settle()
    for lane in two.workers[0].links[1].lanes.values():
        two.workers[0].link_life.end_lane(lane)
    two.settle()
    assert not slot.is_done
    two.workers[0].close()
    two.schedulers[0].do_work()
    assert isinstance(slot.error, PartyFailed)


def test_a_scheduler_is_not_run_inside_a_running_loop(two: Table) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="run_async"):
            Scheduler(two.workers[0]).run()
        await asyncio.sleep(0)  # the loop still knows that it runs

    asyncio.run(main())


# Forks.


def test_a_forked_child_cannot_disturb_the_rings(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    two.ok(ours.send(1, b"before"))
    child = os.fork()
    if not child:
        status = 1
        try:
            ours.blocking.send(1, b"from the child")
        except SessionClosed as error:
            status = 0 if "fork" in str(error) else 2
        try:
            two.workers[0].close()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert two.ok(_nothing(), theirs.recv(0))[1] == b"before"
    two.ok(ours.send(1, b"after"))
    assert two.ok(_nothing(), theirs.recv(0))[1] == b"after"


# Deadlines.


def test_the_timeout_of_a_call_of_several_steps_is_for_all_of_them() -> None:
    with Table(3) as three:
        [(ours, theirs, _)] = three.sessions(0)

        async def late() -> None:
            wait = Wait(three.workers[1])
            three.workers[1].set_timer(wait, three.clock() + 3.0)
            await wait
            await theirs.send(0, b"late but in time")

        before = three.clock.now
        results = three.run(ours.recv_all(timeout=4.0), late(), _nothing(), advance_s=0.5)
        assert isinstance(results[0], SessionTimeout)
        assert results[0].seconds == 4.0
        assert type(results[0].seconds) is float
        assert three.clock.now - before < 6.0


def test_a_timeout_of_zero_takes_what_has_arrived(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    two.workers[0].flush()
    lane_send = ours.send(1, b"there")
    with pytest.raises(StopIteration):
        lane_send.send(None)
    two.workers[0].flush()
    two.move()
    two.move()
    two.serve_blocking(1)
    assert theirs.blocking.recv(0, timeout=0) == b"there"


def test_an_out_that_cannot_be_received_into_leaves_no_deadline_behind(two: Table) -> None:
    [(_, theirs)] = two.sessions(0)
    with pytest.raises(TypeError):
        two.ok(_nothing(), theirs.recv(0, out=np.empty(3, object), timeout=5.0))
    assert theirs._peers[0].deadline == float("inf")


# Values.


@pytest.mark.parametrize("peer", [b"a secret share", np.arange(3), ["a secret share"], 7, "x" * 500])
@pytest.mark.parametrize("call", ["send", "recv"])
def test_a_value_in_the_place_of_a_peer_is_never_shown(two: Table, peer: Any, call: str) -> None:
    [(ours, _)] = two.sessions(0)
    coroutine = ours.send(peer, b"1") if call == "send" else ours.recv(peer)
    with pytest.raises(UnknownPeer) as caught:
        two.ok(coroutine)
    assert "secret" not in str(caught.value) + repr(caught.value)
    assert len(str(caught.value)) < 200
    assert "bob" in str(caught.value)


def test_a_vector_of_values_hides_them() -> None:
    assert "secret" not in repr(NetworkVec([b"secret"]))


def test_a_masked_array_is_refused_because_its_mask_would_be_lost() -> None:
    with pytest.raises(TypeError, match="mask"):
        encode(np.ma.masked_array([1, 2, 3], mask=[False, True, False]))
