"""The control codec of a link on a substream: what holds for a bare control connection holds for it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from partywire.engine.frames import LINK_SESSION, Descriptor, encode_frame
from partywire.engine.link_events import LinkTimeouts
from partywire.engine.negotiation import OPTIMISTIC, TERMINATE, encode
from partywire.engine.yamux.errors import SubstreamRefused, SubstreamReset, SubstreamSessionOver
from partywire.engine.yamux.frames import DATA, RST, SYN, WINDOW_SIZE, WINDOW_UPDATE, encode_header
from tests.link_substreams.divided_rig import DividedRig

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def rig_of(capacity: int = 4096, timeouts: LinkTimeouts | None = None) -> Iterator[DividedRig]:
    rig = DividedRig(capacity, timeouts)
    try:
        yield rig.up()
    finally:
        rig.close()


def say(rig: DividedRig, data: bytes) -> None:
    """Alice's opener says something on her control lane."""
    assert rig.alice.control_lane.tx.try_write([data], len(data), 2)
    rig.alice.control_lane.tx.publish()


def test_sessions_and_control_messages_pass_and_both_ends_end_clean() -> None:
    with rig_of() as rig:
        assert rig.alice.try_send(b"session")
        say(rig, b"{}")
        rig.wait(lambda: rig.bob.lanes[0].received == b"session" and rig.bob.control_lane.control, rig.read_both)
        assert rig.bob.control_lane.control == [b"{}"]
        rig.finish()
        assert rig.alice.ended == (True, "bob said goodbye")
        assert rig.bob.ended == (True, "alice said goodbye")
        assert rig.at_alice.connection.closed.result() == rig.at_bob.connection.closed.result() == ""


def test_what_other_substreams_have_to_send_arrives_before_the_end() -> None:
    with rig_of() as rig:
        (_, writer), (reader, answers) = rig.open()
        (back, _), sent = rig.open()[0], bytes(range(256)) * 900
        writer.write(sent)
        rig.at_bob.offered[-1][1].write(sent)
        heard = rig.loop.create_task(reader.readexactly(len(sent)))
        answered = rig.loop.create_task(back.readexactly(len(sent)))
        rig.finish()
        rig.wait(lambda: heard.done() and answered.done())
        assert heard.result() == answered.result() == sent
        assert rig.alice.ended == (True, "bob said goodbye")
        with pytest.raises(SubstreamSessionOver):
            rig.do(reader.read())
        with pytest.raises(SubstreamSessionOver):
            answers.write(b"late")


def test_a_goodbye_waits_only_so_long_for_who_reads_nothing() -> None:
    with rig_of(timeouts=LinkTimeouts(close_s=2.0)) as rig:
        (_, writer), _ = rig.open()
        writer.write(bytes(3 * WINDOW_SIZE))
        began = rig.loop.time()
        rig.finish()
        assert rig.loop.time() - began >= 1.0  # half the close timeout
        assert rig.alice.ended == (True, "bob said goodbye")
        with pytest.raises(SubstreamSessionOver):
            rig.do(writer.drain())


def test_behind_a_goodbye_no_substream_is_opened() -> None:
    with rig_of() as rig:
        (_, writer), _ = rig.open()
        writer.write(bytes(3 * WINDOW_SIZE))  # holds alice's end up
        rig.alice.finish_all()
        rig.wait(lambda: rig.alice.link.goodbye_sent and rig.bob.link.goodbye_received, rig.read_both)
        for end in (rig.at_alice, rig.at_bob):
            with pytest.raises(SubstreamRefused):
                rig.do(end.connection.open())
        assert rig.alice.ended is rig.bob.ended is None


def test_a_stalled_substream_delays_no_control_message() -> None:
    with rig_of() as rig:
        (_, writer), _ = rig.open()
        writer.write(bytes(4 * WINDOW_SIZE))  # nobody reads it
        rig.turns(200)
        say(rig, b"{}")
        rig.wait(lambda: rig.bob.control_lane.control, rig.read_both)


def test_control_frames_go_before_what_waits_on_other_substreams() -> None:
    with rig_of(capacity=1 << 20) as rig:
        ends = [rig.open() for _ in range(4)]
        rig.streams[1].on_readable(None)  # bob takes nothing for now
        for (_, writer), _ in ends:
            writer.write(bytes(WINDOW_SIZE))
        rig.at_alice.control.try_send([b"urgent"])
        rig.turns()
        sent = bytes(rig.streams[1]._incoming.buffer)
        assert sent.index(b"urgent") < 100_000  # one frame may be before it


def test_any_bytes_of_the_connection_are_a_sign_of_life() -> None:
    with rig_of() as rig:
        (_, writer), (reader, _) = rig.open()
        rig.turns()
        rig.alice.multiplexer._control.send = lambda: None  # type: ignore[method-assign]
        heard = rig.bob.link.last_heard
        rig.wait(lambda: rig.loop.time() > heard)
        writer.write(b"x")
        assert rig.do(reader.readexactly(1)) == b"x"
        assert rig.bob.link.last_heard > heard


def test_the_end_of_the_connection_is_the_end_of_the_control_connection() -> None:
    with rig_of() as rig:
        (reader, _), _ = rig.open()
        rig.streams[1].close()
        rig.wait(lambda: rig.alice.ended, rig.read_both)
        assert rig.alice.ended == (False, "bob closed the control connection without a goodbye")
        with pytest.raises(SubstreamSessionOver):
            rig.do(reader.read())


def test_a_break_of_the_connection_is_one_of_the_control_connection() -> None:
    with rig_of() as rig:
        rig.streams[1].abort()
        rig.wait(lambda: rig.alice.ended, rig.read_both)
        assert rig.alice.ended == (False, "the control connection to bob broke: connection reset by peer")


def test_when_the_link_is_lost_substreams_hear_why() -> None:
    with rig_of() as rig:
        (reader, _), (theirs, _) = rig.open()
        rig.alice.multiplexer.lose("worker 1 of alice died")
        with pytest.raises(SubstreamSessionOver, match="worker 1 of alice died"):
            rig.do(reader.read())
        with pytest.raises(SubstreamSessionOver):
            rig.do(theirs.read())
        rig.wait(lambda: rig.alice.ended and rig.bob.ended, rig.read_both)


@pytest.mark.parametrize(
    ("wire", "cause"),
    [
        (b"\xff" * 12, "version of yamux: 255"),
        (encode_header(DATA, 0, 1, WINDOW_SIZE + 1), "bytes on substream 1: 262145"),
        (encode_header(WINDOW_UPDATE, SYN, 3, 0) * 2, "id of a new substream: 3"),
        (encode_header(WINDOW_UPDATE, RST, 1, 0), "control substream: it was reset"),
        (encode_header(DATA, 0, 1, 12) + encode_frame(7, Descriptor.BYTES, b"abc"), "frame of a session"),
    ],
)
def test_a_violation_ends_the_link_with_its_cause(wire: bytes, cause: str) -> None:
    with rig_of(capacity=1 << 16) as rig:
        rig.streams[0].try_send([wire])
        rig.wait(lambda: rig.bob.ended, rig.read_both)
        assert rig.bob.ended is not None
        assert not rig.bob.ended[0]
        assert f"alice broke the wire protocol: {cause}" in rig.bob.ended[1]


@pytest.mark.parametrize(
    ("beginning", "cause"),
    [
        (encode(OPTIMISTIC | TERMINATE, "/app/thing/1"), "purpose of the first substream: another one"),
        (encode(8, "/partywire/control/1"), "flags of a negotiation: 8"),
        (encode(OPTIMISTIC | TERMINATE, "/partywire/control/1"), ""),
        (encode(0, "/partywire/control/1"), ""),
    ],
)
def test_the_first_substream_is_for_control(beginning: bytes, cause: str) -> None:
    """One that asks first, and waits for an answer, gets it."""
    rig = DividedRig(1 << 16, is_alice_missing=True)
    try:
        rig.up()
        dialler, frame = rig.streams[0], encode_frame(LINK_SESSION, Descriptor.CONTROL, b"{}")
        wire = beginning + (b"" if cause else frame)
        dialler.try_send([encode_header(DATA, SYN, 1, len(wire)) + wire])
        if cause:
            rig.wait(lambda: rig.bob.ended, rig.bob.read)
            assert rig.bob.ended is not None
            assert f"alice broke the wire protocol: {cause}" in rig.bob.ended[1]
        else:
            rig.wait(lambda: rig.bob.control_lane.control, rig.bob.read)
            answer = bytes(dialler._incoming.buffer)
            assert (beginning in answer) == (beginning[1] == 0)
    finally:
        rig.close()


def test_a_reset_substream_of_an_application_leaves_the_link_alone() -> None:
    with rig_of() as rig:
        (reader, _), (_, theirs) = rig.open()
        theirs.reset()
        with pytest.raises(SubstreamReset):
            rig.do(reader.read())
        say(rig, b"{}")
        rig.wait(lambda: rig.bob.control_lane.control, rig.read_both)
        rig.finish()
        assert rig.alice.ended == (True, "bob said goodbye")
