"""The compiled poll of an I/O process: it moves bytes both ways, ends by itself, and leaves what is unusual whole."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from partywire.engine import records
from partywire.engine.pump_states import Incoming, Outgoing
from partywire.shm import RingReader, RingWriter, Segment, compiled, probe
from partywire.shm.counters import WORD_TAIL
from partywire.shm.errors import RingCorrupt
from tests.shm.test_compiled_pump import PumpRig

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(compiled.core is None, reason="the compiled core is not there, or not wanted")

QUIET_NS = 2_000_000
LONG_NS = 20_000_000_000


@pytest.fixture
def rig() -> Iterator[PumpRig]:
    made = PumpRig().start()
    yield made
    made.close()


@pytest.fixture
def control() -> Iterator[tuple[RingWriter, RingReader]]:
    fence = probe()
    segment = Segment.create(1 << 12)
    writer = RingWriter(Segment.attach(os.dup(segment.fileno())), fence, None)
    reader = RingReader(segment, fence, None)
    yield writer, reader
    writer.close()
    reader.close()


def pump(
    rig: PumpRig, control: tuple[RingWriter, RingReader], quiet_ns: int = QUIET_NS, total_ns: int = LONG_NS
) -> tuple[list[int], int, Any]:
    assert compiled.core is not None
    line = rig.pump.line
    assert line is not None
    result: tuple[list[int], int, Any] = compiled.core.pump_while_busy((line,), control[1], quiet_ns, total_ns)
    return result


def test_bytes_move_both_ways_in_one_call(rig: PumpRig, control: tuple[RingWriter, RingReader]) -> None:
    rig.write(b"to the peer", b", all of it")
    rig.peer.sendall(b"to the worker")
    moved, index, rest = pump(rig, control)
    assert (index, rest) == (-1, None)
    assert moved == [22 + 13]
    assert rig.peer.recv(100, socket.MSG_WAITALL | socket.MSG_DONTWAIT) == b"to the peer, all of it"
    assert b"".join(bytes(record.payload) for record in rig.worker_rx.poll()) == b"to the worker"


def test_without_anything_to_move_it_ends_when_it_was_quiet(
    rig: PumpRig, control: tuple[RingWriter, RingReader]
) -> None:
    start = time.monotonic_ns()
    assert pump(rig, control) == ([0], -1, None)
    assert time.monotonic_ns() - start >= QUIET_NS


def test_others_have_their_turn_after_a_while(rig: PumpRig, control: tuple[RingWriter, RingReader]) -> None:
    assert pump(rig, control, quiet_ns=LONG_NS, total_ns=QUIET_NS) == ([0], -1, None)


def test_a_control_message_ends_it_at_once(rig: PumpRig, control: tuple[RingWriter, RingReader]) -> None:
    assert control[0].try_write((b"x",), 1, records.CONTROL)
    control[0].publish()
    assert pump(rig, control, quiet_ns=LONG_NS) == ([0], -1, None)


def test_end_of_file_is_left_to_the_pump(rig: PumpRig, control: tuple[RingWriter, RingReader]) -> None:
    assert compiled.core is not None
    rig.peer.sendall(b"last words")
    rig.peer.shutdown(socket.SHUT_WR)
    moved, index, rest = pump(rig, control, quiet_ns=LONG_NS)
    assert (moved, index, rest) == ([10], 0, compiled.core.ENDED)
    rig.pump.meet(rest)
    assert rig.log.said == ["ended"]
    assert rig.pump.incoming is Incoming.ENDED
    assert rig.pump.line is None


def test_a_full_ring_is_left_to_the_pump(rig: PumpRig, control: tuple[RingWriter, RingReader]) -> None:
    assert compiled.core is not None
    rig.peer.sendall(bytes(1 << 18))
    moved, index, rest = pump(rig, control, quiet_ns=LONG_NS)
    assert (index, rest) == (0, compiled.core.FULL)
    assert 0 < moved[0] < 1 << 16
    rig.pump.meet(rest)
    assert rig.pump.wants_space
    assert rig.pump.line is None


def test_finish_is_left_to_the_pump_behind_the_last_byte(
    rig: PumpRig, control: tuple[RingWriter, RingReader]
) -> None:
    rig.write(b"the end")
    rig.write(b"", kind=records.FINISH)
    moved, index, rest = pump(rig, control, quiet_ns=LONG_NS)
    assert (moved, index) == ([0], 0)
    assert rest == (7, 0, True, [])
    rig.pump.meet(rest)
    assert rig.log.said == ["finished"]
    assert rig.pump.outgoing is Outgoing.FINISHED
    assert rig.peer.recv(100) == b"the end"


def test_a_peer_that_takes_nothing_is_left_to_the_pump(control: tuple[RingWriter, RingReader]) -> None:
    rig = PumpRig(capacity=1 << 20, buffer_size=64 * 1024).start()
    try:
        for _ in range(4):
            rig.write(bytes(200_000))
        _, index, rest = pump(rig, control, quiet_ns=LONG_NS)
        assert index == 0
        count, error, finish_seen, unsent = rest
        assert 0 < count < 800_000
        assert (error, finish_seen) == (0, False)
        assert count < count + sum(map(len, unsent)) <= 800_000
        rig.pump.meet(rest)
        assert rig.pump.line is None
        assert rig.read(800_000) == bytes(800_000)
    finally:
        rig.close()


def test_a_broken_ring_is_left_to_the_pump(rig: PumpRig, control: tuple[RingWriter, RingReader]) -> None:
    rig.worker_tx._segment.words[WORD_TAIL] = 12_345
    _, index, rest = pump(rig, control)
    assert index == 0
    assert isinstance(rest, RingCorrupt)
    rig.pump.meet(rest)
    assert rig.log.said[0].startswith("ring broke")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ((), None, 1, 1),
        ([], "control", 1, 1),
        (((),), "control", 1, 1),
        (((1, 2, 3, 4, 5, 6, 7),), "control", 1, 1),
        ((("line",) * 7,) * 65, "control", 1, 1),
    ],
)
def test_wrong_arguments_are_refused(control: tuple[RingWriter, RingReader], arguments: tuple[Any, ...]) -> None:
    assert compiled.core is not None
    given = tuple(control[1] if argument == "control" else argument for argument in arguments)
    with pytest.raises((TypeError, ValueError)):
        compiled.core.pump_while_busy(*given)


def test_a_worker_watches_until_something_comes(control: tuple[RingWriter, RingReader]) -> None:
    assert compiled.core is not None
    receiver = compiled.core.ReceiverHot(control[1])
    assert compiled.core.watch([receiver], 1000) is False
    assert control[0].try_write((b"x",), 1, records.CONTROL)
    control[0].publish()
    assert compiled.core.watch([receiver], LONG_NS) is True


@pytest.mark.parametrize(("bulk_count", "at_once"), [(1, 500), (0, 0)])
def test_a_normal_line_has_its_turn_again_behind_each_of_a_bulk_one(
    rig: PumpRig, control: tuple[RingWriter, RingReader], bulk_count: int, at_once: int
) -> None:
    """What the second line sends arrives at the first one: within the same round if the second is a bulk line."""
    assert compiled.core is not None
    bulk = PumpRig().start()
    ours, theirs = socket.socketpair()
    try:
        assert rig.pump.line is not None
        assert bulk.pump.line is not None
        (tx, rx, _, *rest), (bulk_tx, bulk_rx, _, *bulk_rest) = rig.pump.line, bulk.pump.line
        lines = (tx, rx, ours.fileno(), *rest), (bulk_tx, bulk_rx, theirs.fileno(), *bulk_rest)
        bulk.write(bytes(500))
        one_round_ns = -1
        moved, index = [0, 0], -1
        while not moved[1]:  # in a few rounds at the latest, as normal lines were in use a moment ago
            moved, index, _ = compiled.core.pump_while_busy(lines, control[1], QUIET_NS, one_round_ns, bulk_count)
        assert (moved, index) == ([at_once, 500], -1)
    finally:
        bulk.close()
        ours.close()
        theirs.close()


@pytest.mark.parametrize("bulk_count", [-1, 2])
def test_there_are_not_more_bulk_lines_than_lines(
    rig: PumpRig, control: tuple[RingWriter, RingReader], bulk_count: int
) -> None:
    assert compiled.core is not None
    with pytest.raises(TypeError):
        compiled.core.pump_while_busy((rig.pump.line,), control[1], QUIET_NS, LONG_NS, bulk_count)
