"""Sessions of two and three workers that are joined through real rings, without I/O processes."""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from partywire.engine.frames import (
    Descriptor,
    ResetCode,
    encode_frame,
    encode_reset,
    fragment_begin_header,
    frame_header,
)
from partywire.shm.counters import WORD_HEAD, WORD_TAIL
from partywire.shm.errors import ShmError
from partywire.workers.array_meta import array_meta
from partywire.workers.errors import (
    InboxOverflow,
    MessageTooLarge,
    PeerAborted,
    PeerClosed,
    PeerLost,
    SessionClosed,
    SessionError,
    SessionTimeout,
    UnexpectedMessage,
    UnknownPeer,
)
from partywire.workers.values import (
    Bit,
    NetworkVec,
    PrfCheck,
    PrfKey,
    Ring16,
    Ring32,
    Ring48,
    Ring64,
    StateChecksum,
    VecBit,
    VecRing16,
    VecRing32,
    VecRing48,
    VecRing64,
)
from partywire.workers.waiting import run_blocking
from tests.workers.harness import Stuck, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire.workers.session import Session

MIB = 1 << 20

VALUES: list[Any] = [
    b"",
    b"x",
    bytes(range(256)) * 3,
    Bit(0),
    Bit(1),
    Ring16(777),
    Ring32(0xDEADBEEF),
    Ring48(0xABCD12345678),
    Ring64(2**64 - 1),
    PrfKey(bytes(range(16))),
    PrfCheck(2**127 + 1),
    StateChecksum(1, 2**63),
    VecRing16([1, 2, 3]),
    VecRing32([]),
    VecRing48([1, 2**47]),
    VecRing64(np.arange(1000)),
    VecBit([True, False, True] * 111),
    NetworkVec([Ring16(0), VecRing32([1, 2]), b"ok", Bit(1), VecBit([0, 1, 1])]),
]

ARRAYS: list[np.ndarray[Any, Any]] = [
    np.arange(5),
    np.array(2.5),
    np.zeros((0, 3), np.uint8),
    np.arange(24, dtype=">i2").reshape(2, 3, 4),
    np.arange(30, dtype=np.float32).reshape(5, 6).T,
    np.array(["2020-01-01", "1999-12-31"], "M8[D]"),
    np.zeros(3, [("share", "<u8", (2,)), ("tag", "S4"), ("inner", [("x", "?"), ("y", "<f2")])]),
    np.arange(500_000, dtype=np.uint64)[::2],
    np.ones((3, 1_000_000), np.complex64),
]


@pytest.fixture
def two() -> Iterator[Table]:
    with Table(2) as table:
        yield table


@pytest.fixture
def three() -> Iterator[Table]:
    with Table(3) as table:
        yield table


async def nothing() -> None:
    """A worker that only serves."""


# Values.


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_every_value_arrives_with_its_type(two: Table, value: Any) -> None:
    [(ours, theirs)] = two.sessions(0)
    _, received = two.ok(ours.send("bob", value), theirs.recv("alice"))
    assert type(received) is type(value)
    assert received == value


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype.kind}{array.shape}")
def test_every_array_arrives_with_dtype_shape_and_content(two: Table, array: np.ndarray[Any, Any]) -> None:
    [(ours, theirs)] = two.sessions(0)
    _, received = two.ok(ours.send("bob", array), theirs.recv("alice"))
    assert received.dtype == array.dtype
    assert received.shape == array.shape
    assert received.tobytes() == array.tobytes()
    assert received.flags.writeable


@pytest.mark.parametrize("size", [1, 2, 15, 16 * 1024, 16 * 1024 + 1, 256 * 1024, 256 * 1024 + 1, MIB, 16 * MIB])
@pytest.mark.parametrize("kind", [bytes, bytearray, np.ndarray])
def test_messages_of_every_size_arrive_whole(two: Table, size: int, kind: type) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    value: Any = data if kind is np.ndarray else kind(data.tobytes())
    [(ours, theirs)] = two.sessions(3)
    _, received = two.ok(ours.send(1, value), theirs.recv(0))
    assert bytes(received) == data.tobytes()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("slice_max", [1, 3, 10, 1000])
def test_frames_survive_any_slicing(seed: int, slice_max: int) -> None:
    with Table(2, seed=seed, slice_max=slice_max, ring_size=1 << 16) as table:
        [(ours, theirs)] = table.sessions(0)
        values: list[Any] = [b"a", Ring32(7), np.arange(300), b"b" * 5000, VecRing16([1]), np.arange(9000, dtype="u1")]

        async def send_all() -> None:
            for value in values:
                await ours.send(1, value)

        async def receive_all() -> list[Any]:
            return [await theirs.recv(0) for _ in values]

        received = table.ok(send_all(), receive_all())[1]
        for value, got in zip(values, received, strict=True):
            assert np.array_equal(value, got) if isinstance(value, np.ndarray) else value == got


def test_numpy_scalars_arrive_as_arrays_without_dimensions(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    received = two.ok(ours.send(1, np.uint16(9)), theirs.recv(0))[1]
    assert received.shape == ()
    assert received == 9


@pytest.mark.parametrize("value", [5, "text", None, [1], np.array([object()], object), NetworkVec([NetworkVec()])])
def test_what_cannot_be_sent_is_refused_and_the_session_goes_on(two: Table, value: object) -> None:
    [(ours, theirs)] = two.sessions(0)
    assert isinstance(two.run(ours.send(1, value))[0], TypeError)
    assert two.ok(ours.send(1, b"next"), theirs.recv(0))[1] == b"next"


def test_the_callers_buffer_may_change_as_soon_as_send_returns(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    small, large = np.zeros(4, np.uint8), np.zeros(3 * MIB, np.uint8)

    async def send() -> None:
        for buffer in (small, large):
            await ours.send(1, buffer)
            buffer[:] = 255

    async def receive() -> list[Any]:
        return [await theirs.recv(0), await theirs.recv(0)]

    for received in two.ok(send(), receive())[1]:
        assert not received.any()


# Receiving in place.


@pytest.mark.parametrize("size", [3, 100_000, 3_000_000])
@pytest.mark.parametrize("waits", [True, False], ids=["receiver-first", "sender-first"])
def test_an_array_is_received_in_place(two: Table, size: int, waits: bool) -> None:
    [(ours, theirs)] = two.sessions(0)
    sent = np.arange(size, dtype=np.uint32)
    out = np.zeros_like(sent)
    if waits:
        received = two.ok(ours.send(1, sent), theirs.recv(0, out=out))[1]
    else:
        two.ok(ours.send(1, sent))
        received = two.ok(nothing(), theirs.recv(0, out=out))[1]
    assert received is out
    assert np.array_equal(out, sent)
    assert two.workers[1].inbox_size == 0


def test_a_large_array_is_written_straight_into_the_waiting_receivers_memory(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    out = np.zeros(MIB, np.uint64)
    slot = two.schedulers[1].spawn(theirs.recv(0, out=out))
    two.settle()
    peak = 0

    async def send() -> None:
        await ours.send(1, np.ones(MIB, np.uint64))

    sender = two.schedulers[0].spawn(send())
    while not (sender.is_done and slot.is_done):
        two.turn()
        peak = max(peak, two.workers[1].inbox_size)
    assert peak == 0
    assert out.all()


def test_a_noncontiguous_out_is_filled(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    out = np.zeros((4, 6), np.int32)[::2, ::3]
    two.ok(ours.send(1, np.arange(4, dtype=np.int32).reshape(2, 2)), theirs.recv(0, out=out))
    assert out.tolist() == [[0, 1], [2, 3]]


def test_bytes_are_received_into_a_bytearray(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    out = bytearray(4)
    assert two.ok(ours.send(1, b"abcd"), theirs.recv(0, out=out))[1] is out
    assert out == b"abcd"


@pytest.mark.parametrize("size", [10, 500_000])
@pytest.mark.parametrize(
    "wrong", [lambda n: np.zeros(n, np.int64), lambda n: np.zeros((n, 1), np.uint64), lambda n: np.zeros(n + 1, "u8")]
)
@pytest.mark.parametrize("waits", [True, False], ids=["receiver-first", "sender-first"])
def test_a_wrong_out_is_refused_and_the_message_kept(two: Table, size: int, wrong: Any, waits: bool) -> None:
    [(ours, theirs)] = two.sessions(0)
    sent = np.arange(size, dtype=np.uint64)
    if waits:
        error = two.run(ours.send(1, sent), theirs.recv(0, out=wrong(size)))[1]
    else:
        two.ok(ours.send(1, sent))
        error = two.run(nothing(), theirs.recv(0, out=wrong(size)))[1]
    assert isinstance(error, UnexpectedMessage)
    assert error.peer == "alice"
    received = two.ok(nothing(), theirs.recv(0))[1]
    assert np.array_equal(received, sent)
    assert two.workers[1].inbox_size == 0


def test_a_ring_element_does_not_fit_an_array(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    error = two.run(ours.send(1, Ring32(1)), theirs.recv(0, out=np.zeros(1, "u4")))[1]
    assert isinstance(error, UnexpectedMessage)
    assert two.ok(nothing(), theirs.recv(0))[1] == Ring32(1)


def test_giving_up_a_receive_in_place_keeps_the_half_that_arrived(two: Table) -> None:
    """The rest goes into a buffer of the mailbox; the message is whole for the next receive."""
    [(ours, theirs)] = two.sessions(0)
    sent = np.arange(MIB, dtype=np.uint64)
    slot = two.schedulers[1].spawn(theirs.recv(0, out=np.zeros_like(sent)))
    sender = two.schedulers[0].spawn(ours.send(1, sent))
    mailbox = theirs._mailboxes[0]
    while mailbox.assembly is None:
        two.turn()
    assert slot.wait is not None
    slot.wait.waker = None
    slot.coroutine.close()
    two.schedulers[1]._slots.discard(slot)
    two.settle()
    assert sender.is_done
    assert np.array_equal(two.ok(nothing(), theirs.recv(0))[1], sent)
    assert two.workers[1].inbox_size == 0


def test_cancelling_a_receive_in_place_after_the_message_is_whole_keeps_it(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    sent = np.arange(MIB, dtype=np.uint64)
    slot = two.schedulers[1].spawn(theirs.recv(0, out=np.zeros_like(sent)))
    two.settle()
    sender = two.schedulers[0].spawn(ours.send(1, sent))
    mailbox = theirs._mailboxes[0]
    while not mailbox.queue:
        two.workers[0].service()
        two.schedulers[0].do_work()
        two.move()
        two.workers[1].service()
    slot.coroutine.close()
    slot.is_done = True
    two.schedulers[1]._slots.discard(slot)
    two.settle()
    assert sender.is_done
    assert np.array_equal(two.ok(nothing(), theirs.recv(0))[1], sent)
    assert two.workers[1].inbox_size == 0


def test_a_message_inside_another_one_leaves_the_receivers_memory_alone(two: Table) -> None:
    """No sender of ours does this; a peer that does must not write into memory after the call has returned."""
    [(_, theirs)] = two.sessions(0)
    out = np.zeros(MIB, np.uint8)
    slot = two.schedulers[1].spawn(theirs.recv(0, out=out))
    two.settle()
    meta = array_meta(out)
    two.feed(1, 0, fragment_begin_header(0, Descriptor.ARRAY, len(meta) + MIB, len(meta)) + meta)
    two.feed(1, 0, encode_frame(0, Descriptor.BYTES, b"between"))
    two.settle()
    assert isinstance(slot.error, UnexpectedMessage)
    for _ in range(4):
        two.feed(1, 0, encode_frame(0, Descriptor.FRAGMENT, b"\xff" * (MIB // 4)))
    two.settle()
    assert not out.any()
    assert two.ok(nothing(), theirs.recv(0))[1] == b"between"
    assert two.ok(nothing(), theirs.recv(0))[1].all()
    assert two.workers[1].inbox_size == 0


# Order and directions.


@pytest.mark.parametrize("seed", range(8))
def test_random_traffic_keeps_every_order_and_loses_nothing(seed: int) -> None:
    rng = random.Random(seed)
    with Table(3, seed=seed, ring_size=1 << rng.randint(16, 20), slice_max=1 << rng.randint(4, 18)) as table:
        made = table.sessions(*range(4))
        sizes = (0, 1, 64, 5000, 17_000, 70_000, 300_000)
        plan = {
            (number, sender, receiver): [rng.choice(sizes) for _ in range(rng.randint(1, 12))]
            for number in range(4)
            for sender in range(3)
            for receiver in range(3)
            if sender != receiver
        }

        async def send(session: Session, receiver: int, messages: list[int]) -> None:
            for order, size in enumerate(messages):
                await session.send(receiver, bytes([order]) * size if order % 2 else np.full(size, order, np.uint8))

        async def receive(session: Session, sender: int, messages: list[int]) -> None:
            for order, size in enumerate(messages):
                got = await session.recv(sender)
                assert len(got) == size
                assert bytes(got) == bytes([order]) * size

        slots = []
        for (number, sender, receiver), messages in plan.items():
            slots.append(table.schedulers[sender].spawn(send(made[number][sender], receiver, messages)))
            slots.append(table.schedulers[receiver].spawn(receive(made[number][receiver], sender, messages)))
        table.settle()
        assert [slot.error for slot in slots if slot.error is not None or not slot.is_done] == []
        assert [worker.inbox_size for worker in table.workers] == [0, 0, 0]


def test_messages_of_a_session_keep_their_order_whatever_their_sizes(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    sizes = [1, 300_000, 2, 20_000, 0, 900_000, 5, 5]

    async def send() -> None:
        for number, size in enumerate(sizes):
            await ours.send(1, bytes([number]) * size)

    async def receive() -> list[bytes]:
        return [await theirs.recv(0) for _ in sizes]

    assert [len(message) for message in two.ok(send(), receive())[1]] == sizes


def test_sessions_do_not_mix(three: Table) -> None:
    made = three.sessions(*range(50))

    async def talk(party: int) -> None:
        for sessions in reversed(made):
            await sessions[party].broadcast(f"{sessions[party].id} of {party}".encode())
        for sessions in made:
            got = await sessions[party].recv_all()
            for peer, message in enumerate(got):
                assert message == (None if peer == party else f"{sessions[party].id} of {peer}".encode())

    three.ok(talk(0), talk(1), talk(2))


def test_ring_neighbours_are_next_and_previous(three: Table) -> None:
    [sessions] = three.sessions(0)

    async def talk(session: Session) -> tuple[bytes, bytes]:
        name = session.parties[session.party_index].encode()
        await session.send_next(name)
        await session.send_prev(name)
        return await session.recv_prev(), await session.recv_next()

    assert three.ok(*map(talk, sessions)) == [(b"charlie", b"bob"), (b"alice", b"charlie"), (b"bob", b"alice")]


def test_gather_and_exchange_return_everybodys_values(three: Table) -> None:
    [sessions] = three.sessions(0)

    async def talk(session: Session) -> list[Any]:
        gathered = await session.gather(Ring32(session.party_index))
        if session.party_index < 2:
            assert await session.exchange(1 - session.party_index, b"%d" % session.party_index) == b"%d" % (
                1 - session.party_index
            )
        return gathered

    assert three.ok(*map(talk, sessions)) == [[0, 1, 2]] * 3


def test_both_parties_may_send_100_mib_first_and_receive_afterwards() -> None:
    with Table(2, slice_max=1 << 18, ring_size=4 * MIB) as table:
        [sessions] = table.sessions(0)
        payload = np.arange(100 * MIB // 8, dtype=np.uint64)

        async def talk(session: Session) -> bool:
            received = await session.exchange(1 - session.party_index, payload)
            return np.array_equal(received, payload)

        assert table.ok(*map(talk, sessions)) == [True, True]


def test_a_large_message_does_not_stop_other_sessions(two: Table) -> None:
    [large, small] = two.sessions(0, 1)
    two.held.add((0, 1))
    slot = two.schedulers[0].spawn(large[0].send(1, bytes(8 * MIB)))
    two.settle()
    assert not slot.is_done
    two.held.clear()
    done = two.schedulers[1].spawn(large[1].recv(0))
    assert two.ok(small[0].send(1, b"hello"), small[1].recv(0))[1] == b"hello"
    two.settle()
    assert len(done.result) == 8 * MIB


def test_what_others_send_goes_between_two_fragments_of_a_large_message(two: Table) -> None:
    [large, small] = two.sessions(0, 1)
    sending = two.schedulers[0].spawn(large[0].send(1, bytes(3 * MIB // 4)))  # fits the ring at once
    two.schedulers[0].spawn(small[0].send(1, b"hello"))
    two.schedulers[0].do_work()
    two.workers[0].flush()
    assert not sending.is_done
    assert two.ok(nothing(), small[1].recv(0))[1] == b"hello"
    assert two.ok(nothing(), large[1].recv(0))[1] == bytes(3 * MIB // 4)


def test_blocked_senders_go_on_in_turn(two: Table) -> None:
    made = two.sessions(*range(6))
    two.held.add((0, 1))
    senders = [two.schedulers[0].spawn(sessions[0].send(1, bytes([k]) * MIB)) for k, sessions in enumerate(made)]
    small = two.schedulers[0].spawn(made[0][0].send(1, b"behind"))
    two.settle()
    assert not any(slot.is_done for slot in [*senders, small])
    two.held.clear()

    async def receive_all() -> None:
        for k, sessions in enumerate(made):
            assert await sessions[1].recv(0) == bytes([k]) * MIB
        assert await made[0][1].recv(0) == b"behind"

    two.ok(nothing(), receive_all())
    assert all(slot.is_done and slot.error is None for slot in senders)


def test_what_is_there_already_is_received_without_yielding(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    two.ok(ours.send(1, b"there"))
    two.workers[1].driving = True
    try:
        with pytest.raises(StopIteration) as stopped:
            theirs.recv(0).send(None)
    finally:
        two.workers[1].driving = False
    assert stopped.value.value == b"there"


def test_everything_of_a_pass_is_one_record_and_one_publication(two: Table) -> None:
    made = two.sessions(*range(100))
    two.held.add((0, 1))

    async def send_all() -> None:
        for sessions in made:
            await sessions[0].send(1, bytes(64))

    two.ok(send_all())
    [lane] = two.workers[0].links[1].lanes.values()
    assert lane.writer.stat().records == 1


# Misuse.


@pytest.mark.parametrize("peer", ["dora", "alice", 0, 2, -1, None])
def test_an_unknown_peer_is_refused_and_the_known_are_named(two: Table, peer: Any) -> None:
    [(ours, _)] = two.sessions(0)
    for error in two.run(ours.send(peer, b"")) + two.run(ours.recv(peer)):
        assert isinstance(error, UnknownPeer)
        assert error.known == ("bob",)


def test_two_receives_of_one_peer_at_once_are_refused(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    first = two.schedulers[1].spawn(theirs.recv(0))
    two.settle()
    assert isinstance(two.run(nothing(), theirs.recv(0))[1], RuntimeError)
    two.ok(ours.send(1, b"x"))
    two.settle()
    assert first.result == b"x"


def test_a_message_above_the_limit_is_refused_and_nothing_sent() -> None:
    with Table(2, message_size_max=MIB) as table:
        [(ours, theirs)] = table.sessions(0)
        error = table.run(ours.send(1, bytes(MIB + 1)))[0]
        assert isinstance(error, MessageTooLarge)
        assert "limits.message_mib" in str(error)
        assert len(table.ok(ours.send(1, bytes(MIB)), theirs.recv(0))[1]) == MIB


# Deadlines.


def test_a_receive_times_out_and_the_session_is_over_for_everybody(three: Table) -> None:
    [sessions] = three.sessions(0)

    async def late(session: Session) -> None:
        await session.recv("alice", timeout=2.0)

    async def waits_for_late(session: Session) -> None:
        await session.recv("bob")

    errors = three.run(nothing(), late(sessions[1]), waits_for_late(sessions[2]), advance_s=0.5)
    assert isinstance(errors[1], SessionTimeout)
    assert (errors[1].session, errors[1].peer, errors[1].seconds) == (0, "alice", 2.0)
    assert isinstance(errors[2], PeerAborted)
    assert errors[2].peer == "bob"
    assert isinstance(sessions[0].failure, PeerAborted)


def test_after_a_timeout_every_call_says_so(two: Table) -> None:
    [(_ours, theirs)] = two.sessions(0)
    two.run(nothing(), theirs.recv(0, timeout=1.0), advance_s=0.3)
    for call in (theirs.recv(0), theirs.send(0, b"x"), theirs.broadcast(b"x"), theirs.end_job()):
        assert isinstance(two.run(nothing(), call)[1], SessionTimeout)


def test_a_late_message_is_dropped_and_counted(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    two.held.add((0, 1))
    two.ok(ours.send(1, b"late"))
    two.run(nothing(), theirs.recv(0, timeout=1.0), advance_s=0.3)
    two.held.clear()
    two.settle()
    assert two.workers[1].counters.dropped_stale == 1
    [(again_ours, again_theirs)] = two.sessions(1)
    assert two.ok(again_ours.send(1, b"new"), again_theirs.recv(0))[1] == b"new"


def test_a_message_in_time_leaves_no_deadline_behind(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    for _ in range(100):
        two.ok(ours.send(1, b"x"), theirs.recv(0, timeout=5.0))
    assert len(two.workers[1]._timers.entries) <= 1
    two.clock.now += 100
    two.settle()
    assert two.ok(ours.send(1, b"y"), theirs.recv(0, timeout=5.0))[1] == b"y"


def test_a_blocked_send_times_out(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    two.held.add((0, 1))
    error = two.run(ours.send(1, bytes(16 * MIB), timeout=3.0), advance_s=0.5)[0]
    assert isinstance(error, SessionTimeout)
    two.held.clear()
    two.settle()
    assert isinstance(theirs.failure, PeerAborted)
    [(more_ours, more_theirs)] = two.sessions(5)
    assert two.ok(more_ours.send(1, b"fine"), more_theirs.recv(0))[1] == b"fine"


# Ending.


def test_abort_reaches_every_peer_with_its_reason(three: Table) -> None:
    [sessions] = three.sessions(0)
    waiting = three.schedulers[2].spawn(sessions[2].recv("bob"))
    three.settle()
    sessions[0].abort("wrong answer")
    three.settle()
    assert isinstance(waiting.error, PeerAborted)
    assert (waiting.error.peer, waiting.error.reason) == ("alice", "wrong answer")
    assert isinstance(three.run(sessions[0].recv(1))[0], SessionClosed)


def test_close_delivers_what_was_sent(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    two.ok(ours.send(1, b"last words"))
    ours.close()
    assert two.ok(nothing(), theirs.recv(0))[1] == b"last words"


def test_a_clean_goodbye_lets_the_peer_receive_first(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    two.ok(ours.send(1, b"one"), theirs.send(0, b"unseen"))

    async def leave() -> None:
        await two.workers[0].finish(two.clock.now + 1)

    two.ok(leave())
    two.settle()

    async def receive() -> list[Any]:
        got: list[Any] = [await theirs.recv(0)]
        try:
            await theirs.recv(0)
        except SessionError as error:
            got.append(error)
        return got

    first, error = two.ok(nothing(), receive())[1]
    assert first == b"one"
    assert isinstance(error, PeerClosed)
    assert (error.peer, error.epoch) == ("alice", 7)
    assert isinstance(two.run(nothing(), theirs.send(0, b"x"))[1], PeerClosed)


def test_what_a_peer_sent_and_left_before_we_made_the_session_can_be_received(two: Table) -> None:
    two.workers[1].expect_sessions()
    ours = two.workers[0].make_session(0)

    async def send_and_leave() -> None:
        await ours.send(1, b"last words")
        await two.workers[0].finish(two.clock.now + 1)

    two.ok(send_and_leave())
    two.settle()
    theirs = two.workers[1].make_session(0)
    two.workers[1].expect_sessions_end()
    assert two.ok(nothing(), theirs.recv(0))[1] == b"last words"
    assert isinstance(two.run(nothing(), theirs.recv(0))[1], PeerClosed)


def test_a_lost_link_fails_the_session_at_every_party(three: Table) -> None:
    [sessions] = three.sessions(0)
    slots = [three.schedulers[0].spawn(sessions[0].recv(1)), three.schedulers[2].spawn(sessions[2].recv(1))]
    three.settle()
    three.cut(0, 1)
    three.settle()
    assert isinstance(slots[0].error, PeerLost)
    assert (slots[0].error.peer, slots[0].error.epoch, slots[0].error.cause) == ("bob", 7, "connection reset by peer")
    assert isinstance(slots[1].error, PeerAborted)
    assert "lost" in slots[1].error.reason


def test_a_lost_link_wakes_blocked_senders(two: Table) -> None:
    [(ours, _)] = two.sessions(0)
    two.held.add((0, 1))
    slot = two.schedulers[0].spawn(ours.send(1, bytes(16 * MIB)))
    two.settle()
    two.cut(0, 1)
    two.settle()
    assert isinstance(slot.error, PeerLost)


@pytest.mark.parametrize("direction", ["tx", "rx"])
def test_a_corrupt_ring_is_the_loss_of_its_lane(two: Table, direction: str) -> None:
    [(ours, _)] = two.sessions(0)
    end = two.end_of(0, 1)
    slot = two.schedulers[0].spawn(ours.recv(1))
    two.settle()
    if direction == "rx":
        end.writer._words[WORD_TAIL] = 12_345
    else:
        end.reader._words[WORD_HEAD] = 1 << 50
        two.schedulers[0].spawn(ours.send(1, bytes(3 * MIB)))
        two.held |= {(0, 1), (1, 0)}
    with contextlib.suppress(ShmError):  # the stand-in for the I/O process meets the same ring
        two.settle()
    two.workers[0].service()
    two.schedulers[0].do_work()
    assert isinstance(slot.error, PeerLost)
    assert "ring" in slot.error.cause
    two.workers[0].sleep = lambda deadline=0.0: None  # type: ignore[method-assign]
    assert run_blocking(two.workers[0], two.workers[0].finish(two.clock.now + 1))


def test_other_peers_links_stay_up(three: Table) -> None:
    three.cut(0, 1)
    three.settle()
    assert not three.workers[0].links[1].is_up
    assert three.workers[0].links[2].is_up
    with pytest.raises(PeerLost):
        three.workers[0].make_session(3)


def test_the_end_of_our_own_supervisor_fails_everything(two: Table) -> None:
    [(ours, _)] = two.sessions(0)
    slot = two.schedulers[0].spawn(ours.recv(1))
    two.settle()
    two.workers[0].fail("its supervisor is gone")
    two.settle()
    assert isinstance(slot.error, PeerLost)
    assert "supervisor" in str(slot.error)


def test_an_interrupted_receive_loses_the_lane_and_not_silently_a_message(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    two.ok(ours.send(1, b"lost"))
    [lane] = two.workers[1].links[0].lanes.values()
    ours_again = two.schedulers[0].spawn(ours.send(1, b"lost too"))
    two.workers[0].service()
    two.schedulers[0].do_work()
    two.workers[0].flush()
    two.move()
    lane.mailboxes[theirs.id].waker = interrupt
    with pytest.raises(KeyboardInterrupt):
        two.workers[1].service()
    two.settle()
    assert ours_again.is_done
    assert isinstance(theirs.failure, PeerLost)
    assert "interrupted" in theirs.failure.cause


# Ids.


def test_an_unknown_session_is_refused_with_a_reset(two: Table) -> None:
    ours = two.workers[0].make_session(4)
    slot = two.schedulers[0].spawn(ours.recv(1))
    two.ok(ours.send(1, b"anybody?"))
    two.settle()
    assert isinstance(slot.error, PeerAborted)
    assert slot.error.reason == "bob has no session 4"
    assert two.workers[1].counters.dropped_unknown == 1


def test_a_flood_for_one_unknown_session_gets_one_reset(two: Table) -> None:
    two.feed(1, 0, encode_frame(9, Descriptor.BYTES, b"x") * 1000)
    two.settle()
    assert two.workers[1].counters.dropped_unknown == 1000
    [lane] = two.workers[1].links[0].lanes.values()
    assert lane.bytes_sent < 100


def test_every_peer_that_sends_to_an_unknown_session_is_told(three: Table) -> None:
    sessions = [three.workers[sender].make_session(9) for sender in (0, 2)]
    three.ok(sessions[0].send(1, b"x"), nothing(), sessions[1].send(1, b"x"))
    assert [type(session.failure) for session in sessions] == [PeerAborted, PeerAborted]
    assert all("bob has no session 9" in str(session.failure) for session in sessions)


def test_a_reset_for_an_unknown_session_is_never_answered(two: Table) -> None:
    two.feed(1, 0, encode_reset(9, ResetCode.ABORTED, "why"))
    two.settle()
    [lane] = two.workers[1].links[0].lanes.values()
    assert lane.bytes_sent == 0


def test_frames_of_a_session_that_is_being_agreed_on_are_parked(two: Table) -> None:
    two.workers[1].expect_sessions()
    ours = two.workers[0].make_session(0)
    large = np.arange(MIB, dtype=np.uint32)

    async def send() -> None:
        await ours.send(1, b"early")
        await ours.send(1, large)

    two.ok(send())
    assert two.workers[1].counters.parked > 1
    assert two.workers[1].inbox_size > large.nbytes
    theirs = two.workers[1].make_session(0)
    two.workers[1].expect_sessions_end()

    async def receive() -> list[Any]:
        return [await theirs.recv(0), await theirs.recv(0)]

    early, array = two.ok(nothing(), receive())[1]
    assert early == b"early"
    assert np.array_equal(array, large)
    assert two.workers[1].inbox_size == 0


@pytest.mark.parametrize("seed", range(8))
def test_a_parked_array_that_records_cut_is_whole(seed: int) -> None:
    with Table(2, seed=seed, slice_max=100) as table:
        table.workers[1].expect_sessions()
        ours = table.workers[0].make_session(0)
        sent = np.arange(100, dtype=np.uint8)
        table.ok(ours.send(1, sent))
        theirs = table.workers[1].make_session(0)
        table.workers[1].expect_sessions_end()
        [_, array] = table.ok(nothing(), theirs.recv(0))
        assert np.array_equal(array, sent)
        assert table.workers[1].inbox_size == 0


def test_parked_messages_of_a_peer_that_has_left_are_received_to_the_last(two: Table) -> None:
    two.workers[1].expect_sessions()
    ours = two.workers[0].make_session(0)
    large = np.arange(MIB, dtype=np.uint32)

    async def send() -> None:
        for _ in range(2):
            await ours.send(1, large)
        await ours.send(1, b"last")
        await two.workers[0].finish(two.clock.now + 1.0)

    two.ok(send())
    theirs = two.workers[1].make_session(0)
    two.workers[1].expect_sessions_end()

    async def receive() -> list[Any]:
        return [await theirs.recv(0) for _ in range(3)]

    first, second, last = two.ok(nothing(), receive())[1]
    assert np.array_equal(first, large)
    assert np.array_equal(second, large)
    assert last == b"last"
    assert isinstance(two.run(nothing(), theirs.recv(0))[1], PeerClosed)


def test_parked_frames_of_a_session_that_is_never_made_are_refused(two: Table) -> None:
    two.workers[1].expect_sessions()
    ours = two.workers[0].make_session(0)
    two.ok(ours.send(1, b"early"))
    two.workers[1].expect_sessions_end()
    two.settle()
    assert isinstance(ours.failure, PeerAborted)
    assert two.workers[1].inbox_size == 0


def test_parked_frames_stay_within_the_inbox_budget() -> None:
    with Table(2, inbox_size_max=MIB) as table:
        table.workers[1].expect_sessions()
        ours = table.workers[0].make_session(0)

        async def send() -> None:
            for _ in range(40):
                await ours.send(1, bytes(64 * 1024))

        table.run(send())
        assert table.workers[1].inbox_size <= MIB


def test_sessions_of_other_connections_belong_to_other_workers() -> None:
    with Table(2, workers=(2, 3, 1)) as table:
        link = table.workers[0].links[1]
        assert link.connection_count == 6
        assert sorted(link.lanes) == [0, 2, 4]
        with pytest.raises(ValueError, match="another worker"):
            table.workers[0].make_session(1)
        [(ours, theirs)] = table.sessions(6)
        assert table.ok(ours.send(1, b"x"), theirs.recv(0))[1] == b"x"


def test_an_id_in_use_is_refused(two: Table) -> None:
    two.sessions(0)
    with pytest.raises(ValueError, match="in use"):
        two.workers[0].make_session(0)


# The inbox.


def test_an_inbox_that_overflows_fails_the_session_at_both_ends() -> None:
    with Table(2, inbox_size_max=2 * MIB) as table:
        [(ours, theirs), (other, other_theirs)] = table.sessions(0, 1)

        async def flood() -> None:
            while True:
                await ours.send(1, bytes(8 * 1024))

        error = table.run(flood())[0]
        assert isinstance(error, PeerAborted)
        assert "limits.inbox_mib" in error.reason
        assert isinstance(theirs.failure, InboxOverflow)
        assert table.workers[1].inbox_size == 0
        assert table.ok(other.send(1, b"alive"), other_theirs.recv(0))[1] == b"alive"


def test_a_message_that_cannot_fit_the_inbox_is_refused_before_it_is_allocated() -> None:
    with Table(2, inbox_size_max=2 * MIB) as table:
        [(ours, theirs)] = table.sessions(0)
        error = table.run(ours.send(1, bytes(64 * MIB)), theirs.recv(0))
        assert isinstance(error[1], InboxOverflow)
        assert isinstance(ours.failure, PeerAborted)


def test_closing_a_session_gives_its_share_of_the_inbox_back(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    two.ok(ours.send(1, bytes(1000)))
    assert two.workers[1].inbox_size > 1000
    theirs.close()
    assert two.workers[1].inbox_size == 0


# Hostile peers.


@pytest.mark.parametrize(
    "frames",
    [
        frame_header(0, Descriptor.FRAGMENT, 3) + b"abc",
        fragment_begin_header(0, Descriptor.BYTES, 10) + fragment_begin_header(0, Descriptor.BYTES, 10),
        fragment_begin_header(0, Descriptor.BYTES, 2) + frame_header(0, Descriptor.FRAGMENT, 3) + b"abc",
        b"\0\0\0\0\x7f" + bytes(4),
        frame_header(0, Descriptor.BYTES, 2**31),
        encode_frame(0, Descriptor.JOB_END, bytes(8) + b"\x07"),
        encode_frame(0, Descriptor.JOB_END, b"\x05" + bytes(8)),
        encode_frame(0, Descriptor.RESET, b"\xff"),
        encode_frame(0xFFFFFFFF, Descriptor.PING, bytes(8)),
    ],
)
def test_a_peer_that_breaks_the_protocol_is_lost_and_told(frames: bytes) -> None:
    with Table(2) as table:
        [(ours, theirs)] = table.sessions(0)
        table.feed(1, 0, frames)
        table.settle()
        assert isinstance(theirs.failure, PeerLost)
        assert not table.workers[1].links[0].is_up
        assert isinstance(ours.failure, PeerAborted)


def test_a_session_on_a_connection_that_is_not_its_own_is_a_protocol_error() -> None:
    with Table(2, workers=(1, 2, 1)) as table:
        table.feed(0, 1, encode_frame(1, Descriptor.BYTES, b"x"))
        table.settle()
        assert "not its own" in table.workers[0].links[1].lanes[0].cause


@pytest.mark.parametrize(
    "body",
    [
        b"\x00\x05\x00",
        b"\x21\x00\x00" + bytes(8 * 33),
        b"\x01\x03\x00|O8" + (1).to_bytes(8, "little") + bytes(8),
        b"\x01\x03\x00<u4" + (2**62).to_bytes(8, "little"),
        b"\x01\x03\x00<u4" + (2).to_bytes(8, "little") + bytes(4),
        b"\x02\x03\x00<u4" + bytes(8) + (2**63).to_bytes(8, "little"),
        b"\x00\x09\x00[[[[[[[[[" + bytes(8),
    ],
)
def test_a_hostile_array_fails_its_session_only(two: Table, body: bytes) -> None:
    [(_, theirs), (other, other_theirs)] = two.sessions(0, 1)
    two.feed(1, 0, encode_frame(0, Descriptor.ARRAY, body))
    error = two.run(nothing(), theirs.recv(0))[1]
    assert isinstance(error, PeerLost)
    assert type(error.__cause__).__name__ == "LinkProtocolError"
    assert isinstance(theirs.failure, PeerLost)
    assert two.ok(other.send(1, b"alive"), other_theirs.recv(0))[1] == b"alive"


# Plain code.


def test_blocking_sessions_send_and_receive(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    two.serve_blocking(0)

    async def echo() -> None:
        for _ in range(3):
            await theirs.send(0, await theirs.recv(0))

    two.schedulers[1].spawn(echo())
    session = ours.blocking
    session.send(1, b"one")
    assert session.recv("bob") == b"one"
    assert session.exchange(1, np.arange(4)).tolist() == [0, 1, 2, 3]
    session.send_next(b"x" * MIB)
    out = bytearray(MIB)
    assert session.recv_prev(out=out) is out
    assert session.asynchronous is ours
    assert ours.blocking is session
    assert (session.id, session.party_index, session.parties) == (0, 0, ("alice", "bob"))
    assert "alice" in repr(session)


def test_a_blocking_send_is_published_when_it_returns(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    ours.blocking.send(1, b"now")
    two.move()
    two.workers[1].service()
    assert theirs._mailboxes[0].queue


def test_a_blocking_receive_that_nobody_answers_does_not_end_by_itself(two: Table) -> None:
    [(ours, _)] = two.sessions(0)
    two.serve_blocking(0)
    with pytest.raises(Stuck):
        ours.blocking.recv(1)
