"""The rules that implementations of yamux agree on, one by one, and what must happen where they do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from partywire.engine.errors import LinkProtocolError
from partywire.engine.yamux.errors import (
    SubstreamClosed,
    SubstreamRefused,
    SubstreamReset,
    SubstreamSessionOver,
)
from partywire.engine.yamux.events import (
    Answered,
    GoingAway,
    Offered,
    Over,
    Readable,
    RoundTrip,
    SessionOver,
    WasReset,
    Writable,
)
from partywire.engine.yamux.frames import (
    ACK,
    DATA,
    DATA_SIZE_MAX,
    FIN,
    GO_AWAY,
    PING,
    RST,
    STREAM_ID_MAX,
    SYN,
    WINDOW_SIZE,
    WINDOW_UPDATE,
    encode_header,
)
from partywire.engine.yamux.limits import YamuxLimits
from partywire.engine.yamux.outgoing import UNHURRIED_S
from partywire.engine.yamux.session import YamuxSession
from tests.yamux.yamux_pair import Clock, Pair, frames_of, output_of

if TYPE_CHECKING:
    from partywire.engine.yamux.substream import Substream


def server(limits: YamuxLimits | None = None) -> YamuxSession:
    return YamuxSession(False, Clock(), "mallory", limits)


def ended(substream: Substream) -> tuple[bool, bool]:
    """Whether the peer's end has come, and whether everything before it was read."""
    return substream.is_ended_by_peer, substream.is_at_end


def refuse(session: YamuxSession, data: bytes) -> str:
    """The session ends over `data`, and tells the peer by GO_AWAY 1. Returns what it says."""
    with pytest.raises(LinkProtocolError) as caught:
        session.receive_untrusted(data)
    assert frames_of(output_of(session))[-1] == (GO_AWAY, 0, 0, 1)
    assert isinstance(session.take_events()[-1], SessionOver)
    with pytest.raises(SubstreamSessionOver):
        session.receive_untrusted(b"")
    with pytest.raises(SubstreamSessionOver):
        session.open()
    return str(caught.value)


# The session.


def test_rule_1_the_client_has_odd_ids_and_the_server_even_ones() -> None:
    pair = Pair()
    assert [pair.client.open().id for _ in range(3)] == [1, 3, 5]
    assert [pair.server.open().id for _ in range(3)] == [2, 4, 6]


def test_rule_1_ids_end() -> None:
    session = YamuxSession(True, Clock(), "bob")
    session._next_id = STREAM_ID_MAX
    assert session.open().id == STREAM_ID_MAX
    with pytest.raises(SubstreamRefused, match="all ids") as caught:
        session.open()
    assert caught.value.is_final


@pytest.mark.parametrize("header", [b"\x01" + bytes(11), b"\x00\x04" + bytes(10), b"\x00\xff" + bytes(10)])
def test_rule_2_an_unknown_version_or_type_ends_the_session(header: bytes) -> None:
    assert "mallory broke the wire protocol" in refuse(server(), header)


def test_rule_3_nothing_is_said_first_and_windows_are_256_kib() -> None:
    pair = Pair()
    assert not pair.client.has_something_to_send
    assert not pair.server.has_something_to_send
    ours = pair.client.open()
    assert ours.write(bytes(WINDOW_SIZE)) == WINDOW_SIZE
    assert sum(length for kind, _, _, length in frames_of(output_of(pair.client)) if kind == DATA) == WINDOW_SIZE
    assert ours.write(b"x") == 1
    assert output_of(pair.client) == b""


def test_rule_4_answers_are_bounded_by_not_reading_on() -> None:
    session = server(YamuxLimits(replies_max=1200))
    flood = encode_header(PING, SYN, 0, 7) * 100
    heard = []
    for pings in (flood, flood[:12]):
        session.receive_untrusted(pings)
        heard.append(session.may_receive)
    assert output_of(session) == encode_header(PING, ACK, 0, 7) * 101
    assert [*heard, session.may_receive] == [True, False, True]


# Opening.


def test_rule_5_data_travels_with_the_opening() -> None:
    pair = Pair()
    ours = pair.client.open()
    ours.write(b"hello")
    assert frames_of(output_of(pair.client)) == [(DATA, SYN, 1, 5)]


def test_rule_5_an_opening_may_bring_credit() -> None:
    session = server()
    (offered,) = session.receive_untrusted(encode_header(WINDOW_UPDATE, SYN, 1, 1000))
    assert isinstance(offered, Offered)
    assert offered.substream.send_window == WINDOW_SIZE + 1000


def test_rule_6_the_first_frame_back_answers() -> None:
    pair = Pair()
    ours = pair.client.open()
    ours.write(b"ping")
    _, events = pair.flow()
    offered = events[0]
    assert isinstance(offered, Offered)
    assert offered.substream.read(99) == b"ping"
    offered.substream.write(b"pong")
    data = output_of(pair.server)
    assert frames_of(data) == [(DATA, ACK, 1, 4)]
    assert pair.client.receive_untrusted(data) == [Answered(ours), Readable(ours)]
    assert ours.is_answered


def test_rule_6_openings_without_an_answer_are_bounded_and_end() -> None:
    pair = Pair(YamuxLimits(unanswered_max=2, answer_timeout_s=75.0))
    first = pair.client.open()
    pair.client.open()
    with pytest.raises(SubstreamRefused, match="2 wait for the peer's answer") as caught:
        pair.client.open()
    assert not caught.value.is_final
    output_of(pair.client)
    assert pair.client.deadline == pair.clock.now + 30  # the ping
    pair.clock.now += 75
    pair.client.tick()
    with pytest.raises(SubstreamReset, match="we reset substream 1 with bob: the peer did not answer"):
        first.read(1)
    assert pair.client.open().id == 5


@pytest.mark.parametrize("kind", [DATA, WINDOW_UPDATE])
@pytest.mark.parametrize("substream", [0, 2, STREAM_ID_MAX - 1])
def test_rule_7_an_opening_with_an_id_of_ours_or_none_ends_the_session(kind: int, substream: int) -> None:
    assert "id of a new substream" in refuse(server(), encode_header(kind, SYN, substream, 0))


def test_rule_7_a_known_id_is_not_opened_again() -> None:
    session = server()
    session.receive_untrusted(encode_header(DATA, SYN, 1, 0))
    assert "id of a new substream" in refuse(session, encode_header(DATA, SYN, 1, 0))


def test_rule_8_a_full_house_resets_what_comes_and_forgets_its_data() -> None:
    session = server(YamuxLimits(unaccepted_max=2))
    offered = session.receive_untrusted(b"".join(encode_header(WINDOW_UPDATE, SYN, i, 0) for i in (1, 3)))
    assert len(offered) == 2
    assert session.receive_untrusted(encode_header(DATA, SYN, 5, 3) + b"abc") == []
    assert frames_of(output_of(session)) == [(WINDOW_UPDATE, RST, 5, 0)]
    assert isinstance(offered[0], Offered)
    offered[0].substream.accept()
    assert len(session.receive_untrusted(encode_header(WINDOW_UPDATE, SYN, 7, 0))) == 1


def test_rule_8_the_peer_has_a_bounded_number_of_substreams_read_or_not() -> None:
    session = server(YamuxLimits(substreams_max=1))
    (offered, _) = session.receive_untrusted(encode_header(DATA, SYN | FIN, 1, 1) + b"x")
    assert isinstance(offered, Offered)
    offered.substream.close_write()  # both sides have ended, and a byte waits to be read
    output_of(session)
    assert session.receive_untrusted(encode_header(WINDOW_UPDATE, SYN, 3, 0)) == []
    assert offered.substream.read(9) == b"x"
    assert session.take_events() == [Over(offered.substream)]
    assert len(session.receive_untrusted(encode_header(WINDOW_UPDATE, SYN, 5, 0))) == 1


def test_rule_9_stray_answers_are_ignored() -> None:
    pair = Pair()
    ours, _ = pair.substreams()
    assert pair.client.receive_untrusted(encode_header(WINDOW_UPDATE, ACK, ours.id, 0)) == []
    assert pair.client.receive_untrusted(encode_header(WINDOW_UPDATE, ACK, 99, 0)) == []


# Flow control.


def test_rule_10_no_more_is_sent_than_the_window_and_a_frame_allow() -> None:
    pair = Pair()
    ours, theirs = pair.substreams()
    assert ours.write(bytes(WINDOW_SIZE)) == WINDOW_SIZE
    lengths = [length for kind, _, _, length in frames_of(output_of(pair.client)) if kind == DATA]
    assert sum(lengths) == WINDOW_SIZE
    assert max(lengths) == DATA_SIZE_MAX
    ours.write(b"more")
    assert output_of(pair.client) == b""
    assert pair.client.receive_untrusted(encode_header(WINDOW_UPDATE, 0, theirs.id, 3)) == []
    assert frames_of(output_of(pair.client)) == [(DATA, 0, 1, 3)]


def test_rule_10_more_than_the_window_ends_the_session_before_any_of_it_is_kept() -> None:
    session = server()
    session.receive_untrusted(encode_header(DATA, SYN, 1, 10) + bytes(10))
    assert "bytes on substream 1" in refuse(session, encode_header(DATA, 0, 1, WINDOW_SIZE - 9))


def test_rule_10_the_window_itself_is_allowed() -> None:
    session = server()
    offered, readable = session.receive_untrusted(encode_header(DATA, SYN, 1, WINDOW_SIZE) + bytes(WINDOW_SIZE))
    assert isinstance(offered, Offered)
    assert readable == Readable(offered.substream)
    assert offered.substream.readable == WINDOW_SIZE
    assert "bytes on substream 1" in refuse(session, encode_header(DATA, 0, 1, 1))


def test_rule_10_so_does_an_opening_above_it() -> None:
    assert "bytes on substream 1" in refuse(server(), encode_header(DATA, SYN, 1, WINDOW_SIZE + 1))


def test_rule_11_credit_is_for_what_was_read_when_half_the_window_is_due() -> None:
    pair = Pair()
    ours, theirs = pair.substreams()
    ours.write(bytes(WINDOW_SIZE))
    pair.server.receive_untrusted(output_of(pair.client))
    theirs.accept()
    output_of(pair.server)
    theirs.read(WINDOW_SIZE // 2 - 1)
    assert output_of(pair.server) == b""
    theirs.read(1)
    assert (WINDOW_UPDATE, 0, 1, WINDOW_SIZE // 2) in frames_of(output_of(pair.server))


def test_rule_11_credit_above_32_bits_ends_the_session() -> None:
    session = server()
    session.receive_untrusted(encode_header(WINDOW_UPDATE, SYN, 1, 2**32 - 1 - WINDOW_SIZE))
    assert "window of substream 1" in refuse(session, encode_header(WINDOW_UPDATE, 0, 1, 1))


def test_windows_grow_for_who_is_held_up_by_them_and_no_further_than_allowed() -> None:
    pair = Pair(YamuxLimits(window_size_max=1024 * 1024, growth_max=512 * 1024))
    ours, theirs = pair.substreams()
    pair.server.ping()
    pair.flow(round_trip=0.1)
    for _ in range(20):  # ten windows, each read in much less than two round trips
        ours.write(bytes(WINDOW_SIZE))
        pair.flow(round_trip=0.1)
        theirs.read(theirs.readable)
    pair.flow()
    assert theirs.window_size == WINDOW_SIZE + 512 * 1024
    assert ours.send_window <= theirs.window_size
    pair.clock.now += 1
    theirs.reset()
    assert pair.server._growth.size == 0


def test_windows_do_not_grow_for_who_sends_slowly() -> None:
    pair = Pair()
    ours, theirs = pair.substreams()
    pair.server.ping()
    pair.flow(round_trip=0.01)
    for _ in range(20):
        ours.write(bytes(WINDOW_SIZE // 4))
        pair.flow()
        pair.clock.now += 1.0
        theirs.read(theirs.readable)
    assert theirs.window_size == WINDOW_SIZE


def test_rule_12_the_end_rides_on_data_and_comes_behind_it() -> None:
    pair = Pair()
    ours = pair.client.open()
    ours.write(b"all")
    ours.close_write()
    data = output_of(pair.client)
    assert frames_of(data) == [(DATA, SYN | FIN, 1, 3)]
    (offered, _) = pair.server.receive_untrusted(data[:-1])
    assert isinstance(offered, Offered)
    assert ended(offered.substream) == (False, False)
    pair.server.receive_untrusted(data[-1:])
    assert ended(offered.substream) == (True, False)
    assert offered.substream.read(9) == b"all"
    assert ended(offered.substream) == (True, True)


# Ending.


def test_rule_13_each_side_ends_by_itself_and_then_the_substream_is_forgotten() -> None:
    pair = Pair()
    ours, theirs = pair.substreams()
    ours.close_write()
    ours.close_write()
    with pytest.raises(SubstreamClosed):
        ours.write(b"x")
    pair.flow()
    assert theirs.is_at_end
    theirs.write(b"still here")
    pair.flow()
    assert ours.read(99) == b"still here"
    theirs.close_write()
    pair.flow()
    assert ours.is_at_end
    assert not ours.is_open
    assert (pair.client.substreams, pair.server.substreams) == (0, 0)


@pytest.mark.parametrize("behind", [encode_header(WINDOW_UPDATE, FIN, 1, 0), encode_header(DATA, 0, 1, 1)])
def test_rule_13_nothing_comes_behind_the_end(behind: bytes) -> None:
    session = server()
    session.receive_untrusted(encode_header(WINDOW_UPDATE, SYN | FIN, 1, 0))
    assert "behind the end" in refuse(session, behind)


def test_rule_13_credit_may_come_behind_the_end() -> None:
    session = server()
    offered, _ = session.receive_untrusted(encode_header(WINDOW_UPDATE, SYN | FIN, 1, 0))
    session.receive_untrusted(encode_header(WINDOW_UPDATE, 0, 1, 5))
    assert isinstance(offered, Offered)
    assert offered.substream.send_window == WINDOW_SIZE + 5


def unhurried(pair: Pair) -> tuple[Substream, Substream]:
    """A substream that the client opened and ended; the server's answer to both is unhurried."""
    ours = pair.client.open()
    ours.close_write()
    _, events = pair.flow()
    (offered,) = [event for event in events if isinstance(event, Offered)]
    offered.substream.close_write(is_unhurried=True)
    return ours, offered.substream


def test_what_is_unhurried_goes_with_what_is_sent_next() -> None:
    pair = Pair()
    other, theirs = pair.substreams()
    ours, ended_by_us = unhurried(pair)
    assert not pair.server.has_something_to_send
    assert pair.server.take_output() == []
    theirs.write(b"x")
    sent = output_of(pair.server)
    assert {frame[2] for frame in frames_of(sent)} == {other.id, ours.id}
    assert (WINDOW_UPDATE, ACK | FIN, ended_by_us.id, 0) in frames_of(sent)
    pair.client.receive_untrusted(sent)
    assert ended(ours) == (True, True)
    assert pair.server.deadline > pair.clock.now + UNHURRIED_S
    assert output_of(pair.server) == b""


def test_what_is_unhurried_goes_by_itself_after_a_moment() -> None:
    pair = Pair()
    ours, _ = unhurried(pair)
    assert pair.server.deadline == pair.clock.now + UNHURRIED_S
    pair.server.tick()
    assert not pair.server.has_something_to_send
    pair.clock.now += UNHURRIED_S
    pair.server.tick()
    assert frames_of(output_of(pair.server)) == [(WINDOW_UPDATE, ACK | FIN, ours.id, 0)]


@pytest.mark.parametrize("leaving", ["client", "server"])
def test_nothing_is_unhurried_when_a_side_is_leaving(leaving: str) -> None:
    pair = Pair()
    other, theirs = pair.substreams()
    ours, _ = unhurried(pair)
    getattr(pair, leaving).go_away()
    pair.flow()
    assert ended(ours) == (True, True)
    other.close_write()
    pair.flow()
    theirs.close_write(is_unhurried=True)
    pair.flow()
    assert ended(other) == (True, True)


def test_a_substream_that_is_reset_has_nothing_unhurried_left() -> None:
    pair = Pair()
    ours, theirs = unhurried(pair)
    theirs.reset("it is over")
    assert frames_of(output_of(pair.server)) == [(WINDOW_UPDATE, RST, ours.id, 0)]


def test_rule_14_a_peer_that_never_ends_its_side_is_given_up() -> None:
    pair = Pair(YamuxLimits(half_closed_timeout_s=20.0))
    ours, theirs = pair.substreams()
    ours.close_write()
    pair.flow()
    assert pair.client.deadline == pair.clock.now + 20
    pair.clock.now += 20
    assert pair.client.tick() == [WasReset(ours), Over(ours)]
    assert WasReset(theirs) in pair.flow()[1]
    assert pair.client.substreams == 0


def test_rule_15_a_reset_is_an_error_at_both_ends_and_drops_what_was_unread() -> None:
    pair = Pair()
    ours, theirs = pair.substreams()
    ours.write(b"half of it")
    pair.flow()
    ours.reset("changed our mind")
    ours.reset()
    data = output_of(pair.client)
    assert frames_of(data) == [(WINDOW_UPDATE, RST, 1, 0)]
    assert pair.server.receive_untrusted(data) == [WasReset(theirs), Over(theirs)]
    with pytest.raises(SubstreamReset, match="alice reset substream 1"):
        theirs.read(99)
    with pytest.raises(SubstreamReset):
        theirs.write(b"x")
    with pytest.raises(SubstreamReset, match="we reset substream 1 with bob: changed our mind"):
        ours.read(1)
    assert pair.server.substreams == 0


def test_rule_15_late_frames_of_a_forgotten_substream_are_ignored() -> None:
    pair = Pair()
    ours, theirs = pair.substreams()
    theirs.write(b"on its way")
    ours.reset()
    output_of(pair.client)
    assert pair.client.take_events() == [Over(ours)]
    assert pair.client.receive_untrusted(output_of(pair.server)) == []
    assert output_of(pair.client) == b""


def test_rule_15_a_reset_in_the_middle_of_a_body_drops_the_rest() -> None:
    pair = Pair()
    ours, theirs = pair.substreams()
    theirs.write(b"0123456789")
    data = output_of(pair.server)
    pair.client.receive_untrusted(data[:-5])
    ours.reset()
    assert pair.client.receive_untrusted(data[-5:]) == [Over(ours)]
    assert ours.readable == 0


def test_rule_16_who_drops_a_substream_ends_it_or_resets_it() -> None:
    pair = Pair()
    ours, theirs = pair.substreams()
    theirs.abandon()
    assert frames_of(output_of(pair.server)) == [(WINDOW_UPDATE, RST, 1, 0)]
    pair = Pair()
    ours = pair.client.open()
    ours.write(b"unread")
    ours.close_write()
    offered = pair.flow()[1][0]
    assert isinstance(offered, Offered)
    offered.substream.abandon()
    assert frames_of(output_of(pair.server))[-1][:2] == (WINDOW_UPDATE, ACK | FIN)
    assert pair.server.substreams == 0


def test_a_substream_that_was_never_announced_is_dropped_without_a_word() -> None:
    pair = Pair()
    ours = pair.client.open()
    ours.write(b"x")
    ours.reset()
    assert output_of(pair.client) == b""
    assert pair.client.substreams == 0


# Pings and goodbyes.


def test_rule_17_pings_are_answered_while_substreams_are_stalled() -> None:
    pair = Pair()
    ours, _ = pair.substreams()
    ours.write(bytes(WINDOW_SIZE))
    pair.flow()
    ours.write(b"stalled")
    pair.server.ping()
    pair.clock.now += 0.0
    _, events = pair.flow(round_trip=0.25)
    (round_trip,) = [event for event in events if isinstance(event, RoundTrip)]
    assert round_trip.seconds == pytest.approx(0.25)
    assert pair.server.round_trip_s == round_trip.seconds


def test_rule_17_unknown_answers_are_ignored() -> None:
    assert server().receive_untrusted(encode_header(PING, ACK, 0, 12345)) == []


def test_rule_17_an_idle_session_pings_and_ends_without_an_answer() -> None:
    pair = Pair()
    ours, _ = pair.substreams()
    pair.clock.now = pair.client.deadline
    assert pair.client.tick() == []
    assert frames_of(output_of(pair.client)) == [(PING, SYN, 0, 0)]
    assert pair.client.deadline == pair.clock.now + 10
    pair.clock.now += 10
    (over,) = pair.client.tick()
    assert over == SessionOver("no answer to a ping within 10 s")
    with pytest.raises(SubstreamSessionOver, match="no answer to a ping"):
        ours.read(1)
    with pytest.raises(SubstreamSessionOver):
        ours.write(b"x")


@pytest.mark.parametrize("kind", [PING, GO_AWAY])
def test_pings_and_goodbyes_belong_to_no_substream(kind: int) -> None:
    assert "belongs to none" in refuse(server(), encode_header(kind, 0, 1, 0))


@pytest.mark.parametrize("kind", [DATA, WINDOW_UPDATE])
def test_data_and_credit_belong_to_one(kind: int) -> None:
    assert "belongs to one" in refuse(server(), encode_header(kind, 0, 0, 0))


def test_rule_18_behind_a_goodbye_nothing_is_opened_and_what_is_open_goes_on() -> None:
    pair = Pair()
    ours, theirs = pair.substreams()
    pair.server.go_away()
    pair.server.go_away()
    events, _ = pair.flow()
    assert events == [GoingAway()]
    with pytest.raises(SubstreamRefused, match="the peer said goodbye"):
        pair.client.open()
    with pytest.raises(SubstreamRefused, match="we said goodbye"):
        pair.server.open()
    ours.write(b"last words")
    pair.flow()
    assert theirs.read(99) == b"last words"


def test_rule_18_who_said_goodbye_resets_what_is_opened_behind_it() -> None:
    pair = Pair()
    pair.server.go_away()
    ours = pair.client.open()
    events, offered = pair.flow()
    assert WasReset(ours) in events
    assert offered == []


@pytest.mark.parametrize("code", [1, 2, 9])
def test_rule_18_any_other_code_ends_the_session(code: int) -> None:
    session = server()
    offered, *_ = session.receive_untrusted(encode_header(DATA, SYN, 1, 4) + b"read")
    (over,) = session.receive_untrusted(encode_header(GO_AWAY, 0, 0, code) + b"\xff" * 12)
    assert isinstance(over, SessionOver)
    assert isinstance(offered, Offered)
    assert offered.substream.read(9) == b"read"
    with pytest.raises(SubstreamSessionOver):
        offered.substream.read(9)


def test_rule_19_the_end_of_the_connection_fails_all_and_leaves_what_arrived() -> None:
    pair = Pair()
    ours, theirs = pair.substreams()
    other, ended = pair.substreams()
    ours.write(b"arrived")
    other.write(b"whole")
    other.close_write()
    pair.flow()
    assert pair.server.connection_ended("reset by peer") == [SessionOver("reset by peer")]
    assert pair.server.connection_ended("again") == []
    assert theirs.read(99) == b"arrived"
    with pytest.raises(SubstreamSessionOver, match="reset by peer"):
        theirs.read(99)
    assert ended.read(99) == b"whole"
    assert ended.read(99) == b""  # its end had come: nothing is missing
    assert pair.server.deadline == float("inf")
    assert pair.server.tick() == []


# What the session adds.


def test_a_writer_is_told_when_there_is_room_again() -> None:
    pair = Pair(YamuxLimits(send_size_max=1000))
    ours, theirs = pair.substreams()
    assert ours.write(bytes(1500)) == 1000
    assert ours.write(b"x") == 0
    events, _ = pair.flow()
    assert Writable(ours) in events
    assert theirs.readable == 1000


def test_what_a_writer_changes_afterwards_is_not_sent() -> None:
    pair = Pair()
    ours, theirs = pair.substreams()
    data = bytearray(b"first")
    ours.write(data)
    ours.write(memoryview(data)[:2])
    data[:] = b"later"
    pair.flow()
    assert theirs.read(99) == b"firstfi"


def test_small_writes_of_one_turn_travel_in_one_frame() -> None:
    pair = Pair()
    ours, _ = pair.substreams()
    for _ in range(100):
        ours.write(b"x" * 64)
    assert frames_of(output_of(pair.client)) == [(DATA, 0, 1, 6400)]


def test_a_large_substream_delays_a_small_one_by_one_frame() -> None:
    pair = Pair()
    large, _ = pair.substreams()
    small, _ = pair.substreams()
    large.write(bytes(WINDOW_SIZE))
    small.write(b"x")
    assert [frame[2] for frame in frames_of(output_of(pair.client))][:3] == [large.id, small.id, large.id]


def test_byte_by_byte_costs_about_its_bytes() -> None:
    session = server()
    (offered,) = session.receive_untrusted(encode_header(WINDOW_UPDATE, SYN, 1, 0))
    session.receive_untrusted((encode_header(DATA, 0, 1, 1) + b"x") * 50_000)
    assert isinstance(offered, Offered)
    assert len(offered.substream.received) < 10
    assert offered.substream.read(50_001) == b"x" * 50_000


@pytest.mark.parametrize("slices", [[20_000, 1, 511, 512, 513, 30_000], [100] * 300, [65_524, 12]])
@pytest.mark.parametrize("size", [1, 7, 511, 4096, 20_000, 100_000])
def test_slices_are_read_in_parts_while_more_of_them_come(slices: list[int], size: int) -> None:
    session = server()
    (offered,) = session.receive_untrusted(encode_header(WINDOW_UPDATE, SYN, 1, 0))
    assert isinstance(offered, Offered)
    substream = offered.substream
    sent = bytes(number % 251 for number in range(sum(slices)))
    position, read = 0, b""
    for length in slices:
        session.receive_untrusted(encode_header(DATA, 0, 1, length) + sent[position : position + length])
        position += length
        read += substream.read(size)
        assert substream.readable == position - len(read)
    while part := substream.read(size):
        assert len(part) == min(size, len(sent) - len(read))
        read += part
    assert read == sent


def test_reads_give_any_part() -> None:
    pair = Pair()
    ours, theirs = pair.substreams()
    parts = [b"a" * 600, b"b" * 700, b"c"]
    for part in parts:
        ours.write(part)
        pair.flow()
    whole = b"".join(parts)
    got = b""
    for size in (1, 598, 5, 600, 9999):
        got += theirs.read(size)
    assert got == whole
    assert theirs.read(1) == b""


def test_a_substream_does_not_show_what_it_holds() -> None:
    pair = Pair()
    ours, _ = pair.substreams()
    ours.write(b"secret")
    assert repr(ours) == "<Substream 1 with bob>"
