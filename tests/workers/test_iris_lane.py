"""Sessions over lanes that speak iris-mpc's protocol: bytes out, bytes in, and what becomes of a session meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from partywire.engine.iris_options import IrisOptions
from partywire.workers.errors import (
    MessageTooLarge,
    PeerLost,
    SessionTimeout,
    UnexpectedMessage,
    UnsupportedByPeer,
)
from partywire.workers.mailbox import MESSAGE_OVERHEAD
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
)
from tests.workers.harness import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire.workers.session import Session

CONNECTIONS = 2
ALICE, BOB = 0, 1

# The examples that are written down: session, value, bytes with the session id.
VECTORS: list[tuple[int, Any, str]] = [
    (7, Bit(1), "07000000 12"),
    (7, Bit(0), "07000000 02"),
    (258, Ring16(777), "02010000 03 0903"),
    (0, Ring32(0xDEADBEEF), "00000000 04 efbeadde"),
    (0, Ring64(1), "00000000 05 0100000000000000"),
    (0, Ring48(0xABCD12345678), "00000000 0d 78563412cdab"),
    (1, PrfKey(bytes(range(16))), "01000000 01 000102030405060708090a0b0c0d0e0f"),
    (1, VecRing16([1, 2, 3]), "01000000 06 06000000 010002000300"),
    (1, VecRing32([]), "01000000 07 00000000"),
    (1, VecRing48([1, 2]), "01000000 0e 0c000000 010000000000 020000000000"),
    (2, StateChecksum(1, 2), "02000000 09 0100000000000000 0200000000000000"),
    (2, PrfCheck(1), "02000000 0b 01" + "00" * 15),
    (3, b"ok", "03000000 0c 02000000 6f6b"),
    (3, VecBit([1, 0, 1, 0, 1, 0, 1, 0, 1]), "03000000 0f 09000000 5501"),
    (4, NetworkVec([Ring16(0), Ring16(1)]), "04000000 0a 06000000 030000 030100"),
    (3, bytearray(b"ok"), "03000000 0c 02000000 6f6b"),
    (1, np.array([1, 2, 3], "<u2"), "01000000 06 06000000 010002000300"),
    (1, np.array([1], "<u4"), "01000000 07 04000000 01000000"),
    (1, np.array([], "<u8"), "01000000 08 00000000"),
    (3, np.array([True, False] * 4 + [True]), "03000000 0f 09000000 5501"),
    (258, np.uint16(777), "02010000 03 0903"),
    (7, np.bool_(True), "07000000 12"),
]


@pytest.fixture
def two() -> Iterator[Table]:
    with Table(2, iris=IrisOptions(CONNECTIONS)) as table:
        yield table


def outgoing(table: Table, session: int) -> bytes:
    """What alice's worker has put into the ring of the session's connection; the table moves no byte meanwhile."""
    table.workers[ALICE].flush()
    return b"".join(bytes(record.payload) for record in table.end_of(ALICE, BOB, session % CONNECTIONS).reader.poll())


async def nothing() -> None:
    pass


async def receive(session: Session, count: int, peer: str = "alice", timeout: float | None = None) -> list[Any]:
    return [await session.recv(peer, timeout=timeout) for _ in range(count)]


@pytest.mark.parametrize(("number", "value", "expected"), VECTORS, ids=[vector[2][:14] for vector in VECTORS])
def test_each_value_goes_out_as_the_bytes_that_are_written_down(
    two: Table, number: int, value: Any, expected: str
) -> None:
    [(ours, _)] = two.sessions(number)
    two.held.add((ALICE, BOB))
    two.ok(ours.send("bob", value), nothing())
    assert outgoing(two, number) == bytes.fromhex(expected)


def test_values_come_back_as_they_were_sent_and_arrays_as_ring_vectors(two: Table) -> None:
    sessions = {number: two.sessions(number)[0] for number in {vector[0] for vector in VECTORS}}
    for number, value, _ in VECTORS:
        ours, theirs = sessions[number]
        [_, [seen]] = two.ok(ours.send("bob", value), receive(theirs, 1))
        if isinstance(value, np.ndarray):
            assert isinstance(seen, VecBit if value.dtype == bool else (VecRing16, VecRing32, type(seen)))
            assert np.array_equal(seen.values, value)
        elif not isinstance(value, (np.generic, bytearray, NetworkVec)):
            assert type(seen) is type(value)
            assert seen == value or np.array_equal(seen.values, value.values)
    assert two.workers[BOB].inbox_size == 0


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((2, 2), "<u4"),
        np.zeros(3, "<i4"),
        np.zeros(3, "<f8"),
        np.zeros(3, ">u4"),
        np.zeros(3, [("a", "<u4")]),
        np.int64(1),
    ],
    ids=repr,
)
def test_what_the_protocol_has_no_word_for_is_refused_and_the_session_goes_on(two: Table, value: Any) -> None:
    [(ours, theirs)] = two.sessions(0)
    error, _ = two.run(ours.send("bob", value), nothing())
    assert isinstance(error, UnsupportedByPeer)
    assert "bob" in str(error)
    assert two.ok(ours.send("bob", b"after"), receive(theirs, 1))[1] == [b"after"]


def test_a_message_is_one_frame_however_large_and_others_keep_their_order() -> None:
    with Table(2, ring_size=1 << 16, iris=IrisOptions(1)) as two:
        pairs = [two.sessions(number)[0] for number in range(3)]
        large = np.arange(100_000, dtype="<u8")

        async def send() -> None:
            for at in range(3):
                await pairs[0][0].send("bob", b"before")
                await pairs[0][0].send("bob", large)
                await pairs[at][0].send("bob", bytes(300_000))
                await pairs[1][0].send("bob", Ring16(at))
                large[0] = at + 1  # what was sent is not touched by it

        async def take() -> list[Any]:
            first = await receive(pairs[0][1], 7)
            return [first, await receive(pairs[1][1], 4), await receive(pairs[2][1], 1)]

        _, (first, second, third) = two.ok(send(), take())
        arrays = [value.values for value in first if not isinstance(value, bytes)]
        assert [int(array[0]) for array in arrays] == [0, 1, 2]
        assert all(np.array_equal(array[1:], large[1:]) for array in arrays)
        assert [value if isinstance(value, bytes) else int(value) for value in second] == [0, bytes(300_000), 1, 2]
        assert third == [bytes(300_000)]
        assert two.workers[BOB].inbox_size == 0


def test_a_full_ring_holds_a_sender_up_and_its_deadline_passes_without_half_a_frame() -> None:
    with Table(2, ring_size=1 << 16, iris=IrisOptions(1)) as two:
        (ours, theirs), (other, theirs_too) = two.sessions(0, 1)
        two.held.add((ALICE, BOB))

        async def fill() -> None:
            await ours.send("bob", bytes(400_000))
            await other.send("bob", bytes(400_000), timeout=5)

        error, _ = two.run(fill(), nothing(), advance_s=1.0)
        assert isinstance(error, SessionTimeout)
        two.held.clear()
        assert two.ok(nothing(), receive(theirs, 1))[1] == [bytes(400_000)]
        [(again, theirs_again)] = two.sessions(2)
        assert two.ok(again.send("bob", b"whole"), receive(theirs_again, 1))[1] == [b"whole"]
        assert theirs_too.failure is None


def test_the_limit_of_messages_names_its_setting() -> None:
    with Table(2, message_size_max=1000, iris=IrisOptions(1)) as two:
        [(ours, theirs)] = two.sessions(0)
        error, _ = two.run(ours.send("bob", bytes(1001)), nothing())
        assert isinstance(error, MessageTooLarge)
        assert "limits.message_mib" in str(error)
        assert two.ok(ours.send("bob", bytes(1000)), receive(theirs, 1))[1] == [bytes(1000)]
        two.feed(BOB, ALICE, b"\0\0\0\0\x0c" + (1001).to_bytes(4, "little"))
        two.settle()
        assert isinstance(theirs.failure, PeerLost)
        assert "the limit is 1000" in str(theirs.failure)


def test_a_message_may_come_on_any_connection_of_the_link(two: Table) -> None:
    [(_, theirs)] = two.sessions(4)
    two.end_of(BOB, ALICE, 1).stream += bytes.fromhex("04000000 12")
    two.settle()
    assert two.ok(nothing(), receive(theirs, 1))[1] == [Bit(1)]


def test_what_comes_before_its_session_was_made_is_kept_and_what_comes_after_its_end_is_dropped(two: Table) -> None:
    bob = two.workers[BOB]
    two.feed(BOB, ALICE, bytes.fromhex("02000000 12 02000000 02"))
    two.settle()
    assert bob.counters.parked == 2
    bob.expect_sessions()
    bob.expect_sessions_end()
    [(_, theirs)] = two.sessions(2)
    assert two.ok(nothing(), receive(theirs, 2))[1] == [Bit(1), Bit(0)]
    theirs.close()
    two.feed(BOB, ALICE, bytes.fromhex("02000000 12"))
    two.settle()
    assert bob.counters.dropped_stale == 1
    assert bob.inbox_size == 0


def test_a_peer_that_floods_sessions_that_nobody_makes_is_given_up() -> None:
    with Table(2, inbox_size_max=10 * (MESSAGE_OVERHEAD + 100), iris=IrisOptions(1)) as two:
        [(_, theirs)] = two.sessions(0)
        frame = b"\x0c" + (100).to_bytes(4, "little") + bytes(100)
        two.feed(BOB, ALICE, b"".join(number.to_bytes(4, "little") + frame for number in range(1, 11)))
        two.settle()
        assert two.workers[BOB].links[ALICE].is_up
        two.feed(BOB, ALICE, (11).to_bytes(4, "little") + frame)
        two.settle()
        assert isinstance(theirs.failure, PeerLost)
        assert "limits.inbox_mib" in str(theirs.failure)
        assert two.workers[BOB].inbox_size == 0


def test_a_large_message_counts_as_inbox_from_its_header_on_and_is_refused_beside_others_that_fill_it() -> None:
    with Table(2, inbox_size_max=4 << 20, iris=IrisOptions(2)) as two:
        (_, even), (_, odd) = two.sessions(0, 1)
        bob = two.workers[BOB]
        size = 3 << 20
        two.feed(BOB, ALICE, b"\0\0\0\0\x0c" + size.to_bytes(4, "little") + bytes(1000))
        two.settle()
        assert bob.inbox_size == size
        two.feed(BOB, ALICE, bytes(size - 1000))
        two.settle()
        assert bob.inbox_size == size + MESSAGE_OVERHEAD
        two.end_of(BOB, ALICE, 1).stream += b"\1\0\0\0\x0c" + (2 << 20).to_bytes(4, "little")
        two.settle()
        for theirs in (even, odd):
            assert isinstance(theirs.failure, PeerLost)
            assert "limits.inbox_mib" in str(theirs.failure)
        assert bob.inbox_size == 0


HOSTILE = {
    "unknown": "00000000 7f",
    "ours": "00000000 84 01000000 01",
    "misfit": "00000000 07 03000000 000000",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_frame_loses_the_whole_link_and_asks_the_io_process_to_end_it(two: Table, data: str) -> None:
    (_, on_first), (_, on_second) = two.sessions(0, 1)
    two.feed(BOB, ALICE, bytes.fromhex("00000000 12" + data))
    two.settle()
    for theirs in (on_first, on_second):
        assert isinstance(theirs.failure, PeerLost)
    link = two.workers[BOB].links[ALICE]
    assert link.cause
    # Each tx ring, the control lane's too, has ended with FINISH, which reached the other side as an end of its stream.
    assert two.workers[ALICE].links[BOB].is_closed
    assert all(lane.is_over for lane in two.workers[ALICE].links[BOB].lanes.values())


def test_a_nested_vector_fails_its_session_only(two: Table) -> None:
    (_, bad), (_, good) = two.sessions(0, 2)
    inner = bytes.fromhex("0a 00000000")
    two.feed(BOB, ALICE, b"\0\0\0\0\x0a" + len(inner).to_bytes(4, "little") + inner + bytes.fromhex("02000000 12"))
    two.settle()
    error = two.run(nothing(), receive(bad, 1))[1]
    assert isinstance(error, PeerLost)
    assert "NETWORK_VEC" in str(error)
    assert isinstance(bad.failure, PeerLost)
    assert two.ok(nothing(), receive(good, 1))[1] == [Bit(1)]


def test_behind_the_peers_end_of_file_stands_what_it_sent_and_then_a_loss(two: Table) -> None:
    (_, on_first), (_, on_second) = two.sessions(0, 1)
    two.feed(BOB, ALICE, bytes.fromhex("00000000 12"))

    async def finish() -> None:
        await two.workers[ALICE].finish(two.clock.now + 5)

    two.ok(finish(), nothing())
    two.settle()
    assert two.ok(nothing(), receive(on_first, 1))[1] == [Bit(1)]
    for theirs in (on_first, on_second):
        error = two.run(nothing(), receive(theirs, 1))[1]
        assert isinstance(error, PeerLost)
        assert "no goodbye" in str(error)


def test_an_end_of_file_inside_a_message_is_a_loss_at_once(two: Table) -> None:
    [(_, theirs)] = two.sessions(0)
    two.feed(BOB, ALICE, bytes.fromhex("00000000 0c 05000000 6f6b"))

    async def finish() -> None:
        await two.workers[ALICE].finish(two.clock.now + 5)

    two.ok(finish(), nothing())
    two.settle()
    assert isinstance(theirs.failure, PeerLost)
    assert "inside a message" in str(theirs.failure)


def test_the_end_of_a_session_or_a_job_puts_nothing_on_the_wire(two: Table) -> None:
    first, second = two.sessions(0, 2)
    two.held.add((ALICE, BOB))
    error, _ = two.run(first[0].end_job(), nothing())
    assert isinstance(error, UnsupportedByPeer)
    assert first[0].failure is None
    second[0].abort("given up")
    two.settle()
    assert outgoing(two, 0) == b""
    assert second[1].failure is None


def test_a_ring_vector_is_no_array_for_out(two: Table) -> None:
    [(ours, theirs)] = two.sessions(0)
    out = np.zeros(3, "<u4")

    async def take() -> Any:
        return await theirs.recv("alice", out=out)

    _, error = two.run(ours.send("bob", np.ones(3, "<u4")), take())
    assert isinstance(error, UnexpectedMessage)
    assert np.array_equal(two.ok(nothing(), receive(theirs, 1))[1][0].values, np.ones(3, "<u4"))
