"""Two sessions under random schedules: however all is cut and interleaved, bytes arrive in order and within bounds."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from partywire.engine.errors import LinkProtocolError
from partywire.engine.yamux.errors import SubstreamRefused, SubstreamReset
from partywire.engine.yamux.events import Offered
from partywire.engine.yamux.frames import WINDOW_SIZE, encode_header
from partywire.engine.yamux.limits import YamuxLimits
from partywire.engine.yamux.session import YamuxSession
from tests.yamux.yamux_pair import Clock

if TYPE_CHECKING:
    from partywire.engine.yamux.substream import Substream

LIMITS = YamuxLimits(substreams_max=20, unaccepted_max=5, unanswered_max=8, send_size_max=100_000, growth_max=300_000)


class End:
    """One session, its wire, and for each substream what was written and what was read."""

    def __init__(self, is_client: bool, clock: Clock) -> None:
        self.session = YamuxSession(is_client, clock, "bob" if is_client else "alice", LIMITS)
        self.wire = bytearray()
        self.substreams: dict[int, Substream] = {}
        self.written: dict[int, bytearray] = {}
        self.read: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.waiting: list[Substream] = []

    def take(self, substream: Substream) -> None:
        self.substreams[substream.id] = substream
        self.written[substream.id] = bytearray()
        self.read[substream.id] = bytearray()


def step(rng: random.Random, end: End, other: End, clock: Clock) -> None:
    """One thing that a user, the network or the clock does."""
    session = end.session
    substream = rng.choice(list(end.substreams.values())) if end.substreams else None
    act = rng.randrange(10)
    try:
        if act == 0:
            end.take(session.open())
        elif act == 1 and end.waiting:
            offered = end.waiting.pop(rng.randrange(len(end.waiting)))
            end.take(offered)
            offered.accept()
        elif act in (2, 3) and substream is not None and substream.id not in end.ended:
            data = rng.randbytes(rng.choice((1, 64, 1000, 70_000, 200_000)))
            end.written[substream.id] += data[: substream.write(data)]
        elif act == 4 and substream is not None and rng.random() < 0.3:
            substream.close_write()
            end.ended.add(substream.id)
        elif act == 5 and substream is not None and rng.random() < 0.1:
            substream.reset("the model says so")
        elif act == 6 and substream is not None:
            end.read[substream.id] += substream.read(rng.choice((1, 100, 10**6)))
        elif act == 7:
            clock.now += rng.choice((0.0, 0.001, 0.1))
            session.tick()
        else:
            end.wire += b"".join(session.take_output(rng.choice((1, 5000, 10**6))))
            size = rng.randint(0, len(end.wire))
            data = bytes(end.wire[:size])
            del end.wire[:size]
            for event in other.session.receive_untrusted(data):
                if isinstance(event, Offered):
                    other.waiting.append(event.substream)
    except (SubstreamReset, SubstreamRefused):
        pass


def check(end: End, other: End) -> None:
    for substream_id, read in end.read.items():
        sent = other.written.get(substream_id, bytearray())
        assert sent.startswith(read)
        substream = end.substreams[substream_id]
        if substream.is_at_end and not substream.is_reset and substream_id in other.ended:
            assert read == sent
        if not substream.is_reset and substream.is_open and not substream.is_ended_by_peer:
            unread = substream.readable
            if end.session._body_of is substream:
                unread += end.session._body_left
            assert substream.receive_window + unread + substream.uncredited == substream.window_size
            assert substream.window_size <= LIMITS.window_size_max
    assert end.session._growth.size <= LIMITS.growth_max
    assert end.session.substreams <= 2 * LIMITS.substreams_max + LIMITS.unanswered_max


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_bytes_arrive_in_order_once_and_within_bounds(seed: int) -> None:
    rng = random.Random(seed)
    clock = Clock()
    ends = (End(True, clock), End(False, clock))
    for _ in range(rng.choice((20, 150, 400))):
        index = rng.randrange(2)
        step(rng, ends[index], ends[1 - index], clock)
        check(ends[index], ends[1 - index])
        check(ends[1 - index], ends[index])
    # Everything that is still open comes to its end.
    for end in ends:
        for substream in [*end.substreams.values(), *end.waiting]:
            if substream.id not in end.substreams:
                end.take(substream)
            if not substream.is_reset and substream.id not in end.ended:
                substream.close_write()
                end.ended.add(substream.id)
    for _ in range(2000):
        for index, end in enumerate(ends):
            other = ends[1 - index]
            end.wire += b"".join(end.session.take_output())
            for event in other.session.receive_untrusted(end.wire):
                if isinstance(event, Offered):
                    other.take(event.substream)
                    if event.substream.is_reset:
                        continue  # by what came behind its opening
                    event.substream.close_write()
                    other.ended.add(event.substream.id)
            end.wire.clear()
            for substream in end.substreams.values():
                if not substream.is_reset:
                    end.read[substream.id] += substream.read(10**9)
        if not any(end.session.substreams or end.session.has_something_to_send for end in ends):
            break
    for end, other in (ends, ends[::-1]):
        check(end, other)
        assert end.session.substreams == 0
        assert end.session._growth.size == 0
        for substream in end.substreams.values():
            assert substream.is_reset or substream.is_at_end


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(1, 60), max_size=8))
def test_any_bytes_end_the_session_with_its_own_error_or_are_taken(data: bytes, cuts: list[int]) -> None:
    session = YamuxSession(False, Clock(), "mallory", LIMITS)
    position = 0
    try:
        for cut in [*cuts, len(data)]:
            if session.cause:
                break
            session.receive_untrusted(data[position : position + cut])
            position += cut
    except LinkProtocolError:
        assert session.cause
    assert sum(len(part) for part in session.take_output(10**9)) <= len(data) + 12


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.integers(0, 15), st.integers(0, 7), st.sampled_from((0, 1, 5, 100, WINDOW_SIZE))
        ),
        max_size=30,
    )
)
def test_any_frames_keep_memory_bounded(frames: list[tuple[int, int, int, int]]) -> None:
    session = YamuxSession(False, Clock(), "mallory", LIMITS)
    held: list[Substream] = []
    try:
        for kind, flags, substream, length in frames:
            body = bytes(length) if kind == 0 else b""
            events = session.receive_untrusted(encode_header(kind, flags, substream, length) + body)
            held += [event.substream for event in events if isinstance(event, Offered)]
            if session.cause:
                break
    except LinkProtocolError:
        assert session.cause
    assert sum(substream.readable for substream in held) <= LIMITS.substreams_max * WINDOW_SIZE
    for one in held:
        assert one.readable <= WINDOW_SIZE
