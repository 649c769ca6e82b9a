"""The multiplexer over memory streams with real rings: partial sends, full rings, ends of every kind."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from partywire.engine import connection_pump, control_connection, records
from partywire.engine import multiplexer as multiplexer_module
from partywire.engine.frames import LINK_SESSION, Descriptor, encode_frame, encode_goodbye, encode_ping
from partywire.engine.link_events import LinkTimeouts
from partywire.engine.polling import Polling
from partywire.engine.redial import STEADY_S
from partywire.shm.counters import WORD_HEAD, WORD_TAIL
from tests.support.link_rig import LinkRig, Side

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class NoPolling(Polling):
    """Sleeps at once, so that what a test counts does not depend on the clock."""

    def look_again(self) -> bool:
        return False


@pytest.fixture
def make_rig() -> Iterator[Callable[..., LinkRig]]:
    rigs: list[LinkRig] = []

    def make(connections: int = 1, **how: object) -> LinkRig:
        rigs.append(LinkRig(connections, **how))  # type: ignore[arg-type]
        for side in (rigs[-1].alice, rigs[-1].bob):
            side.multiplexer._polling = NoPolling()
        return rigs[-1].up()

    yield make
    for rig in rigs:
        rig.close()


def pour(side: Side, data: bytes, lane: int = 0, step: int = 3000) -> Callable[[], None]:
    """An act that puts as much of `data` on a lane as there is room for, each time it is called."""
    position = 0

    def act() -> None:
        nonlocal position
        while position < len(data) and side.try_send(data[position : position + step], lane):
            position += step

    return act


def everything(*acts: Callable[[], object]) -> Callable[[], None]:
    def act() -> None:
        for one in acts:
            one()

    return act


@pytest.mark.parametrize("capacity", [1, 100, 4096, 1 << 20])
def test_bytes_arrive_whole_and_in_order_through_any_buffer(make_rig: Callable[..., LinkRig], capacity: int) -> None:
    rig = make_rig(capacity=capacity)
    data = random.Random(capacity).randbytes(3000 if capacity == 1 else 200_000)
    received = rig.bob.lanes[0].received
    rig.wait(lambda: len(received) >= len(data), everything(pour(rig.alice, data), rig.read_both))
    assert received == data


def test_both_directions_move_at_once_on_several_connections(make_rig: Callable[..., LinkRig]) -> None:
    rig = make_rig(3)
    rng = random.Random(7)
    data = {(side, lane): rng.randbytes(60_000) for side in ("alice", "bob") for lane in range(3)}
    acts = [pour(getattr(rig, side), part, lane) for (side, lane), part in data.items()]
    other = {"alice": rig.bob, "bob": rig.alice}
    rig.wait(
        lambda: all(len(other[side].lanes[lane].received) >= len(part) for (side, lane), part in data.items()),
        everything(*acts, rig.read_both),
    )
    for (side, lane), part in data.items():
        assert other[side].lanes[lane].received == part


def test_a_full_ring_stops_its_own_connection_and_no_other(make_rig: Callable[..., LinkRig]) -> None:
    rig = make_rig(2)
    flood = pour(rig.alice, bytes(300_000), 0)
    free = rig.bob.lanes[1]
    assert rig.alice.try_send(b"passes", 1)
    rig.wait(lambda: free.received == b"passes", everything(flood, free.read))
    for _ in range(20):
        flood()
        rig.turns(5)
    assert not rig.alice.lanes[0].tx.try_write([bytes(7000)], 7000, records.DATA)  # backpressure reached the sender
    rig.wait(lambda: len(rig.bob.lanes[0].received) == 300_000, everything(flood, rig.read_both))


def test_records_are_released_as_the_socket_takes_them(make_rig: Callable[..., LinkRig]) -> None:
    """A large record must not hold its room until its last byte is gone."""
    rig = make_rig(capacity=64)
    assert rig.alice.try_send(bytes(8000))
    before = rig.alice.lanes[0].tx.free_size
    rig.turns(5)
    assert before < rig.alice.lanes[0].tx.free_size < 16 * 1024


def test_control_messages_take_the_control_lane(make_rig: Callable[..., LinkRig]) -> None:
    rig = make_rig(capacity=50)
    sent = [b"{}" * (index + 1) for index in range(40)]
    for body in sent:
        assert rig.alice.control_lane.tx.try_write([body], len(body), records.CONTROL)
    rig.alice.control_lane.tx.publish()
    rig.wait(lambda: rig.bob.control_lane.control == sent, rig.read_both)


def test_more_control_than_the_lane_holds_is_kept_until_the_opener_reads(make_rig: Callable[..., LinkRig]) -> None:
    rig = make_rig(capacity=1 << 20)
    body = bytes(4000)
    sent = 0
    while sent < 20:
        if rig.alice.control_lane.tx.try_write([body], len(body), records.CONTROL):
            sent += 1
        rig.alice.control_lane.tx.publish()
        rig.turns(3)
    rig.wait(lambda: len(rig.bob.control_lane.control) == 20, rig.read_both)
    assert rig.bob.ended is None


def test_a_link_without_traffic_lives_on_heartbeats(make_rig: Callable[..., LinkRig]) -> None:
    rig = make_rig(timeouts=LinkTimeouts(heartbeat_interval_s=0.02, heartbeat_timeout_s=0.2))
    end = rig.loop.time() + 0.6
    rig.wait(lambda: rig.loop.time() > end)
    assert rig.alice.ended is None
    assert rig.bob.ended is None


@pytest.mark.parametrize("records_count", [1, 100])
def test_a_batch_costs_one_send_one_receive_and_one_bell_whatever_it_holds(
    make_rig: Callable[..., LinkRig], monkeypatch: pytest.MonkeyPatch, records_count: int
) -> None:
    rig = make_rig(capacity=1 << 20)
    rig.turns()
    calls: list[str] = []

    def count(owner: object, name: str, only: Callable[[object], bool] = lambda result: True) -> None:
        original = getattr(owner, name)

        def counted(*args: object) -> object:
            result = original(*args)
            if only(result):
                calls.append(name)
            return result

        monkeypatch.setattr(owner, name, counted)

    count(rig.alice.streams[0], "try_send")
    count(rig.bob.streams[0], "try_recv_into")
    count(rig.alice.multiplexer._doorbell, "drain")
    count(rig.alice.multiplexer._doorbell, "arm")
    count(rig.bob.pumps[0]._rx, "publish", bool)
    rig.bob._worker_doorbell.arm()
    worker = rig.alice.lanes[0]
    for _ in range(records_count):
        assert worker.tx.try_write([bytes(64)], 64, records.DATA)
    assert worker.tx.publish()  # it rang: the multiplexer slept
    rig.wait(lambda: not rig.bob.lanes[0].rx.is_empty())
    rig.turns()
    assert sorted(calls) == ["arm", "drain", "publish", "try_recv_into", "try_send"]


class EndlessPolling(Polling):
    """Never sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self.finds = 0

    def look_again(self) -> bool:
        return True

    def found(self) -> None:
        self.finds += 1


def test_a_polling_process_needs_no_bell_from_its_worker_nor_from_its_peer(make_rig: Callable[..., LinkRig]) -> None:
    rig = make_rig()
    rig.turns()
    polling = rig.alice.multiplexer._polling = EndlessPolling()
    sleeps = rig.alice._doorbell.sleeps
    assert rig.bob.try_send(b"wake up")
    rig.wait(lambda: rig.alice.lanes[0].received == b"wake up", rig.read_both)
    for turn in range(3):
        worker = rig.alice.lanes[0]
        assert worker.tx.try_write([b"answer"], 6, records.DATA)
        assert not worker.tx.publish(), "the bell was rung although the process looks"
        rig.wait(lambda size=6 * turn + 6: len(rig.bob.lanes[0].received) == size, rig.read_both)  # type: ignore[misc]
        finds = polling.finds
        assert rig.bob.try_send(b"more")
        rig.wait(lambda size=11 + 4 * turn: len(rig.alice.lanes[0].received) == size, rig.read_both)  # type: ignore[misc]
        assert polling.finds > finds
    assert rig.alice._doorbell.sleeps == sleeps
    rig.alice.multiplexer._polling = NoPolling()
    rig.turns()
    assert rig.alice._doorbell.sleeps > sleeps
    assert rig.alice.try_send(b"end")
    rig.wait(lambda: rig.bob.lanes[0].received.endswith(b"end"), rig.read_both)


def test_answers_that_a_peer_asks_for_and_does_not_read_are_bounded(
    make_rig: Callable[..., LinkRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_connection, "CONTROL_UNSENT_LIMIT", 2000)
    ping = encode_ping(1)
    rig = make_rig(capacity=50 * len(ping))  # so that no ping is cut
    rig.alice.control.on_readable(None)

    def ask() -> None:
        if not rig.bob.link.is_dead:
            rig.alice.control.try_send([ping] * 50)

    rig.wait(lambda: rig.bob.ended, everything(ask, rig.read_both))
    assert rig.bob.ended is not None
    assert "PINGs whose answers are not read" in rig.bob.ended[1]


def test_a_worker_that_never_pauses_keeps_no_other_waiting(make_rig: Callable[..., LinkRig]) -> None:
    """A socket that gets room again is given one turn's worth; the rest comes after others had their turn."""
    rig = make_rig(2, capacity=1 << 20)
    pump = rig.alice.pumps[0]
    served: list[bool] = []
    original = pump.serve_ring

    def serve_ring() -> bool:
        assert rig.alice.try_send(bytes(64))  # the worker is always ahead
        served.append(original())
        return served[-1]

    pump.serve_ring = serve_ring  # type: ignore[method-assign]
    rig.loop.call_soon(pump._send_more)
    rig.loop.call_soon(lambda: served.append(False))
    rig.turns(1)
    assert served[:2] == [True, False]
    pump.serve_ring = original  # type: ignore[method-assign]


def test_rings_are_served_once_per_turn_however_often_that_was_asked_for(
    make_rig: Callable[..., LinkRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_rig()
    rig.turns()
    passes: list[int] = []
    monkeypatch.setattr(rig.alice.multiplexer, "_serve_rings", lambda: passes.append(1))
    for _ in range(5):
        rig.loop.call_soon(rig.alice.multiplexer.pump_has_more, rig.alice.pumps[0])
    rig.turns()
    assert len(passes) == 1


def test_an_opener_that_takes_no_control_messages_loses_the_link_in_the_end(
    make_rig: Callable[..., LinkRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_connection, "CONTROL_PENDING_MAX", 10_000)
    rig = make_rig(capacity=1 << 20)
    rig.alice.control.try_send([encode_frame(LINK_SESSION, Descriptor.CONTROL, bytes(1000))] * 40)
    rig.wait(lambda: rig.bob.lanes[0].end, rig.bob.lanes[0].read)
    assert rig.bob.lanes[0].end is not None
    assert "alice broke the wire protocol: control messages that our program did not take" in rig.bob.lanes[0].end.cause
    rig.wait(lambda: rig.bob.ended, rig.bob.read)


# Closing.


def test_both_sides_say_goodbye_and_all_lanes_end_clean(make_rig: Callable[..., LinkRig]) -> None:
    rig = make_rig(2)
    assert rig.alice.try_send(b"last words")
    rig.alice.finish_all()
    rig.bob.finish_all()
    rig.wait(lambda: rig.alice.ended and rig.bob.ended, rig.read_both)
    assert rig.alice.ended == (True, "bob said goodbye")
    rig.read_both()
    assert rig.bob.lanes[0].received == b"last words" + encode_goodbye()
    for side in (rig.alice, rig.bob):
        assert [lane.end for lane in (*side.lanes, side.control_lane)] == [
            records.StreamEnd(True, f"{'bob' if side is rig.alice else 'alice'} said goodbye")
        ] * 3


def test_a_goodbye_is_answered_by_a_side_that_is_not_closing(make_rig: Callable[..., LinkRig]) -> None:
    rig = make_rig(2)
    data = bytes(100_000)
    flood = pour(rig.alice, data)
    rig.wait(lambda: len(rig.bob.lanes[0].received) == len(data), everything(flood, rig.read_both))
    rig.alice.finish_all()
    rig.wait(lambda: rig.alice.ended and rig.bob.ended, rig.read_both)
    assert rig.alice.ended == (True, "bob said goodbye")
    rig.bob.read()
    assert all(lane.end is not None and lane.end.clean for lane in rig.bob.lanes)


def test_everything_is_delivered_to_a_reader_that_comes_after_the_goodbye(make_rig: Callable[..., LinkRig]) -> None:
    rig = make_rig()
    data = random.Random(5).randbytes(60_000)
    flood = pour(rig.alice, data)
    # Ring, socket and ring hold less than that: bob has to read in between, and does so slowly.
    sent = [False]

    def act() -> None:
        flood()
        if not sent[0] and rig.alice.lanes[0].tx.free_size == 16 * 1024:
            rig.alice.finish_all()
            sent[0] = True
        rig.bob.lanes[0].read()

    rig.wait(lambda: rig.bob.lanes[0].end, act)
    assert rig.bob.lanes[0].received == data + encode_goodbye()
    assert rig.bob.lanes[0].end == records.StreamEnd(True, "alice said goodbye")


def test_what_a_worker_sends_to_a_peer_that_left_is_taken_and_thrown_away(make_rig: Callable[..., LinkRig]) -> None:
    rig = make_rig()
    rig.alice.finish_all()
    rig.wait(lambda: rig.alice.ended, lambda: rig.bob.try_send(bytes(5000)))
    assert rig.alice.ended == (True, "bob said goodbye")


def test_a_party_that_closes_does_not_wait_for_a_peer_that_reads_nothing(make_rig: Callable[..., LinkRig]) -> None:
    rig = make_rig(timeouts=LinkTimeouts(close_s=0.2))
    flood = pour(rig.alice, bytes(100_000))
    for _ in range(10):
        flood()
        rig.turns()
    rig.loop.call_soon(rig.alice.multiplexer.begin_close)
    rig.wait(lambda: rig.alice.ended)
    assert rig.alice.ended is not None
    assert not rig.alice.ended[0]
    assert "nothing moved for 0.2 s" in rig.alice.ended[1]
    rig.wait(lambda: rig.bob.lanes[0].end, rig.bob.read)
    assert rig.bob.lanes[0].end is not None
    assert not rig.bob.lanes[0].end.clean


def test_a_peer_that_broke_the_protocol_has_everything_and_is_not_waited_for_as_long(
    make_rig: Callable[..., LinkRig],
) -> None:
    """It reads only what the kernel holds by then, and never answers."""
    rig = make_rig(2, timeouts=LinkTimeouts(close_s=600.0, goodbye_grace_s=0.05), capacity=1 << 16)
    rig.bob.multiplexer._say_goodbye_when_due = lambda: None  # type: ignore[method-assign]
    assert rig.alice.try_send(b"what stood in the ring", 1)
    goodbye = encode_goodbye()
    for lane, last in enumerate((records.PEER_ERRED, None)):
        tx = rig.alice.lanes[lane].tx
        assert tx.try_write([goodbye], len(goodbye), records.DATA)
        assert tx.try_write([], 0, records.FINISH)
        assert last is None or tx.try_write([], 0, last)
        tx.publish()
    assert rig.alice.control_lane.tx.try_write([], 0, records.FINISH)
    rig.alice.control_lane.tx.publish()
    rig.wait(lambda: rig.alice.ended)
    assert rig.alice.ended == (False, "bob did not finish closing within 0.05 s")
    rig.wait(lambda: len(rig.bob.lanes[1].received) == len(b"what stood in the ring" + goodbye), rig.bob.read)
    assert rig.bob.lanes[0].received == goodbye


# Being lost.


def test_a_control_connection_that_ends_without_a_goodbye_loses_the_link(make_rig: Callable[..., LinkRig]) -> None:
    rig = make_rig(2)
    assert rig.alice.try_send(b"sent before")
    rig.turns(30)
    rig.alice.control.close()
    rig.wait(lambda: rig.bob.ended, rig.bob.read)
    rig.bob.read()
    assert rig.bob.ended == (False, "alice closed the control connection without a goodbye")
    assert rig.bob.lanes[0].received == b"sent before"
    assert all(lane.end is not None and not lane.end.clean for lane in rig.bob.lanes)


def test_a_data_connection_that_breaks_again_ends_its_lane_and_no_other(make_rig: Callable[..., LinkRig]) -> None:
    rig = make_rig(2)
    for side in (rig.alice, rig.bob):
        side.multiplexer._breakage._brittle = frozenset({0})
    rig.alice.streams[0].abort()
    rig.wait(lambda: rig.bob.lanes[0].end, rig.read_both)
    assert rig.bob.lanes[0].end is not None
    assert not rig.bob.lanes[0].end.clean
    assert rig.alice.try_send(b"x", 1)
    rig.wait(lambda: rig.bob.lanes[1].received == b"x", rig.read_both)
    rig.bob.finish_all()
    rig.alice.finish_all()
    rig.wait(lambda: rig.alice.ended and rig.bob.ended, rig.read_both)
    assert rig.bob.ended == (True, "alice said goodbye")


def test_what_a_peer_sent_before_it_left_is_received_although_sending_to_it_fails(
    make_rig: Callable[..., LinkRig],
) -> None:
    rig = make_rig(capacity=1 << 20)
    data = random.Random(6).randbytes(40_000)  # more than bob's ring takes
    rig.wait(lambda: rig.bob.pumps[0].wants_space, pour(rig.alice, data))
    rest = data[rig.bob.pumps[0].bytes_moved :]
    rig.wait(lambda: len(rig.alice.streams[0]._outgoing.buffer) >= len(rest), pour(rig.alice, b""))
    rig.alice.streams[0].close()
    assert rig.bob.try_send(b"too late")
    rig.turns()
    ends = [rig.bob.lanes[0].end]
    rig.wait(lambda: rig.bob.lanes[0].end, rig.bob.read)
    assert ends == [None]
    assert rig.bob.lanes[0].received == data
    assert rig.bob.lanes[0].end is not None
    assert not rig.bob.lanes[0].end.clean
    assert "connection 0 to alice broke: connection reset by peer" in rig.bob.lanes[0].end.cause
    rig.wait(lambda: rig.bob.ended, rig.bob.read)  # without any connection the link is of no use
    assert rig.bob.ended == (False, "connection 0 to alice broke: connection reset by peer")


def test_a_process_that_was_stopped_looks_at_what_came_before_it_counts_the_silence(
    make_rig: Callable[..., LinkRig],
) -> None:
    rig = make_rig(timeouts=LinkTimeouts(heartbeat_interval_s=0.1, heartbeat_timeout_s=0.4))
    rig.turns()
    rig.alice.control.try_send([encode_frame(LINK_SESSION, Descriptor.CONTROL, b"{}")])
    rig.bob.link._last_heard -= 10  # as if bob had not run for so long
    rig.bob.multiplexer._on_timer()
    rig.turns()
    assert rig.bob.ended is None


def test_a_deadline_that_passed_while_the_process_did_not_run_is_met_late(make_rig: Callable[..., LinkRig]) -> None:
    rig = make_rig(timeouts=LinkTimeouts(heartbeat_interval_s=0.1, heartbeat_timeout_s=10))
    rig.turns()
    pings = rig.bob.link._last_token
    rig.bob.link._next_ping -= 5
    rig.loop.call_soon(rig.bob.multiplexer.facts_came)
    rig.loop.call_soon(rig.bob.multiplexer.facts_came)  # before the timer fires
    rig.turns()
    assert rig.bob.link._last_token == pings + 1
    assert rig.bob.ended is None


def test_a_data_connection_that_ends_without_a_goodbye_loses_the_link_in_the_end(
    make_rig: Callable[..., LinkRig],
) -> None:
    rig = make_rig(timeouts=LinkTimeouts(goodbye_grace_s=0.05))
    rig.alice.streams[0].shutdown_write()
    rig.wait(lambda: rig.bob.ended, rig.read_both)
    assert rig.bob.ended == (False, "alice closed connection 0 without a goodbye")


def test_silence_loses_the_link(make_rig: Callable[..., LinkRig]) -> None:
    rig = make_rig(timeouts=LinkTimeouts(heartbeat_interval_s=0.02, heartbeat_timeout_s=0.1))
    rig.alice.control.on_readable(None)  # alice hears, says and answers nothing
    rig.alice.multiplexer._control.send = lambda: None  # type: ignore[method-assign]
    rig.wait(lambda: rig.bob.ended, rig.read_both)
    assert rig.bob.ended is not None
    assert "has been silent for" in rig.bob.ended[1]


@pytest.mark.parametrize(
    ("bytes_sent", "words"),
    [
        (b"\xff" * 64, "unknown frame descriptor"),
        (encode_frame(1, Descriptor.BYTES, b"x"), "frame of a session on the control connection"),
        (encode_frame(LINK_SESSION, Descriptor.PONG, bytes(8)), "PONG without a PING"),
    ],
)
def test_nonsense_on_the_control_connection_loses_the_link_with_its_name(
    make_rig: Callable[..., LinkRig], bytes_sent: bytes, words: str
) -> None:
    rig = make_rig()
    rig.alice.control.try_send([bytes_sent])
    rig.wait(lambda: rig.bob.ended, rig.read_both)
    assert rig.bob.ended is not None
    assert words in rig.bob.ended[1]
    rig.wait(lambda: rig.alice.ended, rig.read_both)


def test_a_worker_that_writes_nonsense_into_its_ring_ends_the_link(make_rig: Callable[..., LinkRig]) -> None:
    rig = make_rig()
    lane = rig.alice.lanes[0]
    lane.tx._segment.words[WORD_TAIL] = 12345  # off the grid
    lane.bell.ring()
    rig.wait(lambda: rig.alice.ended, rig.read_both)
    assert rig.alice.ended is not None
    assert "a ring of our own workers is broken" in rig.alice.ended[1]
    rig.read_both()
    assert lane.end is not None  # its other ring still tells


def test_what_stands_in_front_of_nonsense_on_the_control_connection_arrives(make_rig: Callable[..., LinkRig]) -> None:
    rig = make_rig()
    whole = encode_frame(LINK_SESSION, Descriptor.CONTROL, b"the last word")
    rig.alice.control.try_send([whole + bytes(64)])
    rig.wait(lambda: rig.bob.ended is not None, rig.read_both)
    rig.wait(lambda: rig.bob.control_lane.control == [b"the last word"], rig.read_both)


@pytest.mark.parametrize("which", ["data", "control"])
def test_a_worker_that_writes_nonsense_about_what_it_read_ends_the_link(
    make_rig: Callable[..., LinkRig], which: str
) -> None:
    rig = make_rig(2)
    lane = rig.bob.control_lane if which == "control" else rig.bob.lanes[0]
    writer = rig.bob._lanes[-1 if which == "control" else 0].rx
    while writer.try_write([bytes(32)], 32, records.DATA):
        pass  # now it has to look, for it knows of no room
    lane.rx._segment.words[WORD_HEAD] = 1 << 40  # beyond the tail
    if which == "control":
        rig.alice.control.try_send([encode_frame(LINK_SESSION, Descriptor.CONTROL, b"{}")])
    else:
        assert rig.alice.try_send(b"x")
    rig.wait(lambda: rig.bob.ended, rig.bob.lanes[1].read)
    assert rig.bob.ended is not None
    assert "a ring of our own workers is broken" in rig.bob.ended[1]
    assert rig.bob.lanes[1].end is not None


def test_a_dead_worker_leaves_what_it_had_published_and_a_broken_connection(make_rig: Callable[..., LinkRig]) -> None:
    rig = make_rig(2)
    rig.bob.multiplexer._breakage._brittle = frozenset({0})  # it did the same in the epoch before
    assert rig.alice.try_send(b"published", 0)
    assert rig.alice.try_send(b"alive", 1)
    rig.loop.call_soon(rig.alice.multiplexer.drop_worker, 0, 2)
    rig.wait(lambda: rig.bob.lanes[0].end and rig.bob.lanes[1].received, rig.bob.read)
    assert rig.bob.lanes[0].end is not None
    assert not rig.bob.lanes[0].end.clean
    assert rig.bob.lanes[1].received == b"alive"
    assert rig.bob.ended is None


def test_a_dead_worker_with_more_than_one_turn_can_send_breaks_its_connection_in_the_end(
    make_rig: Callable[..., LinkRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_pump, "SEND_SIZE", 1000)
    rig = make_rig(2, capacity=600)
    rig.bob.multiplexer._breakage._brittle = frozenset({0})  # it did the same in the epoch before
    count = 0
    while rig.alice.try_send(bytes(400)):
        count += 1
    rig.loop.call_soon(rig.alice.multiplexer.drop_worker, 0, 2)
    rig.turns()
    rig.alice.streams[0]._outgoing.capacity = 1 << 20  # from now on nothing blocks
    rig.wait(lambda: rig.bob.lanes[0].end, rig.bob.read)
    assert rig.bob.lanes[0].end is not None
    assert not rig.bob.lanes[0].end.clean
    assert len(rig.bob.lanes[0].received) <= 400 * count
    assert rig.bob.ended is None


@pytest.mark.parametrize("is_brittle", [False, True])
def test_a_connection_that_breaks_loses_the_link_at_both_ends_but_not_again_at_once(
    make_rig: Callable[..., LinkRig], is_brittle: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiplexer_module, "MEND_S", 0.2)
    rig = make_rig(2)
    sides = (rig.alice, rig.bob)
    for side in sides:
        assert side.multiplexer.broken_early == frozenset()
        side.multiplexer._breakage._brittle = frozenset({1} if is_brittle else {0})
    rig.alice.streams[1].abort()
    rig.wait(lambda: rig.bob.lanes[1].end, rig.read_both)
    assert rig.bob.multiplexer.broken_early == {1}
    if is_brittle:
        rig.turns(20)
        assert (rig.bob.ended, rig.bob.lanes[0].end) == (None, None)
        assert rig.bob.try_send(b"alive", 0)
        rig.wait(lambda: rig.alice.lanes[0].received, rig.read_both)
    rig.wait(lambda: rig.alice.ended and rig.bob.ended, rig.read_both)  # and then the link is made anew all the same
    assert rig.bob.ended is not None
    assert not rig.bob.ended[0]
    assert "connection 1 to alice broke" in rig.bob.ended[1]
    rig.read_both()
    assert all(lane.end is not None and not lane.end.clean for side in sides for lane in side.lanes)


def test_a_connection_that_breaks_again_after_a_while_loses_the_link(make_rig: Callable[..., LinkRig]) -> None:
    rig = make_rig(2)
    rig.bob.multiplexer._breakage._brittle = frozenset({1})
    rig.bob.multiplexer._breakage._up_at -= STEADY_S
    rig.alice.streams[1].abort()
    rig.wait(lambda: rig.alice.ended and rig.bob.ended, rig.read_both)
    assert rig.bob.multiplexer.broken_early == frozenset()


def test_a_dead_worker_that_had_finished_breaks_nothing(make_rig: Callable[..., LinkRig]) -> None:
    rig = make_rig(2)
    rig.alice.finish(0)
    rig.loop.call_soon(rig.alice.multiplexer.drop_worker, 0, 2)
    rig.alice.finish(1)
    assert rig.alice.control_lane.tx.try_write([], 0, records.FINISH)
    rig.alice.control_lane.tx.publish()
    rig.wait(lambda: rig.alice.ended and rig.bob.ended, rig.read_both)
    assert rig.alice.ended == (True, "bob said goodbye")


def test_stream_end_waits_for_room_in_a_full_ring(make_rig: Callable[..., LinkRig]) -> None:
    rig = make_rig()
    ring = rig.bob.pumps[0]._rx
    while ring.try_write([bytes(32)], 32, records.DATA):
        pass
    ring.publish()
    rig.alice.control.abort()
    rig.turns(50)
    assert rig.bob.ended is None
    rig.wait(lambda: rig.bob.ended, rig.bob.read)
    rig.bob.read()
    assert rig.bob.lanes[0].end is not None
    assert not rig.bob.lanes[0].end.clean


@pytest.mark.parametrize("is_broken", [False, True])
def test_the_end_of_a_stream_may_show_up_only_when_its_full_ring_is_given_up_for_the_goodbye(
    make_rig: Callable[..., LinkRig], is_broken: bool
) -> None:
    """What is found there loses the link, or says goodbye, before whoever looked there could."""
    rig = make_rig(2)
    ring = rig.bob.pumps[0]._rx
    while ring.try_write([bytes(32)], 32, records.DATA):
        pass
    ring.publish()
    rig.bob.pumps[0].receive()
    assert rig.bob.pumps[0].wants_space
    if is_broken:
        rig.alice.streams[0].abort()
    else:
        rig.alice.control.try_send([encode_frame(LINK_SESSION, Descriptor.GOODBYE, b"")])
        rig.wait(lambda: rig.bob.link.goodbye_received)
        rig.alice.streams[0].shutdown_write()
    rig.turns()
    rig.bob.finish_all()
    rig.wait(lambda: rig.bob.link.goodbye_sent or rig.bob.ended)
    assert rig.bob.link.goodbye_sent is not is_broken


def test_a_closing_party_does_not_wait_for_workers_to_read_the_end(make_rig: Callable[..., LinkRig]) -> None:
    rig = make_rig()
    ring = rig.bob.pumps[0]._rx
    while ring.try_write([bytes(32)], 32, records.DATA):
        pass
    ring.publish()
    rig.alice.control.abort()
    rig.turns(50)
    rig.loop.call_soon(rig.bob.multiplexer.begin_close)
    rig.wait(lambda: rig.bob.ended)
