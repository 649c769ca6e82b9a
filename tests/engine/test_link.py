"""The link machine: two of them joined by a pipe, and every rule that needs a lying peer or a clock."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from partywire.engine.errors import HandshakeRejected, LinkProtocolError, LocalProtocolError, RejectCode
from partywire.engine.handshake import HandshakeResult, Hello, Role
from partywire.engine.link import CONTROL, Link, LinkState
from partywire.engine.link_events import (
    GreetingTimedOut,
    LinkClosed,
    LinkEvent,
    LinkLost,
    LinkRejected,
    LinkTimeouts,
    LinkUp,
    PeerSaidGoodbye,
    PingDue,
)
from tests.support.link_pair import EOF, LinkPair

if TYPE_CHECKING:
    from collections.abc import Callable

TIMES = LinkTimeouts(
    connect_s=30, handshake_s=5, heartbeat_interval_s=1, heartbeat_timeout_s=5, close_s=4, goodbye_grace_s=1
)
BUSY = HandshakeRejected("bob", RejectCode.BUSY, "later", by_us=False)
FATAL = HandshakeRejected("bob", RejectCode.PARAMETERS, "differ", by_us=True)


def result(connections: int = 2, epoch: int = 1, peer: str = "bob") -> HandshakeResult:
    return HandshakeResult(Hello(peer, "alice", bytes(32)), epoch, connections, 1000, bytes(32))


def link_in(state: LinkState) -> Link:
    """Alice's end, with two connections, at time 10 at the latest."""
    link = Link("alice", "bob", 0.0, TIMES)
    if state is LinkState.AWAITING:
        return link
    if state is LinkState.REJECTED:
        link.rejected(FATAL)
        return link
    link.greeting_started(1.0)
    if state is LinkState.GREETING:
        return link
    link.greeted(2.0, result())
    if state is LinkState.ATTACHING:
        return link
    link.attached(3.0, 1)
    link.attached(3.0, 0)
    if state in (LinkState.CLOSING, LinkState.CLOSED):
        link.goodbye_said(4.0)
    if state in (LinkState.PEER_CLOSING, LinkState.CLOSED):
        link.goodbye_received_untrusted(4.0)
    if state is LinkState.CLOSED:
        for stream in (0, 1, CONTROL):
            link.stream_ended(5.0, stream)
    if state is LinkState.LOST:
        link.lost("the test said so")
    return link


def drained(link: Link) -> list[LinkEvent]:
    events = []
    while (event := link.next_event()) is not None:
        events.append(event)
    return events


# Two ends.


@pytest.mark.parametrize(
    ("workers", "connections"), [((1, 1), 1), ((1, 3), 3), ((2, 3), 6), ((4, 4), 4), ((16, 1), 16)]
)
def test_two_ends_come_up_with_the_same_connections(workers: tuple[int, int], connections: int) -> None:
    pair = LinkPair(TIMES, workers)
    pair.come_up()
    for end in pair.ends:
        assert end.link.connections == connections
        assert end.link.missing == ()
        assert end.events == [LinkUp()]
    assert pair.alice.secret == pair.bob.secret != b""
    assert (pair.alice.link.role, pair.bob.link.role) == (Role.RESPONDER, Role.INITIATOR)


def test_both_ends_live_in_the_later_epoch() -> None:
    pair = LinkPair(TIMES)
    pair.bob.epoch = 9
    pair.come_up()
    assert pair.alice.link.epoch == pair.bob.link.epoch == 9


def test_one_end_says_goodbye_and_both_close_cleanly() -> None:
    pair = LinkPair(TIMES, (2, 2))
    pair.come_up()
    pair.bob.say_goodbye()
    assert pair.bob.link.state is LinkState.CLOSING
    pair.pump()
    assert [end.link.state for end in pair.ends] == [LinkState.CLOSED] * 2
    assert pair.alice.events == [LinkUp(), PeerSaidGoodbye(), LinkClosed(clean=True)]
    assert pair.bob.events == [LinkUp(), PeerSaidGoodbye(), LinkClosed(clean=True)]


def test_a_link_closes_only_behind_the_ends_of_its_bulk_connections() -> None:
    link = link_in(LinkState.UP)
    assert link.refusal_of_bulk_untrusted(2) is None
    link.bulk_attached(2)
    assert link.refusal_of_bulk_untrusted(2) == (
        RejectCode.DUPLICATE_IDENTITY,
        "bulk connection 0 of the link is already attached",
    )
    link.goodbye_said(4.0)
    link.goodbye_received_untrusted(4.0)
    for stream in (0, 1, CONTROL):
        link.stream_ended(5.0, stream)
    before = link.state
    link.stream_ended(5.0, 2)
    assert (before, link.state) == (LinkState.CLOSING, LinkState.CLOSED)


@pytest.mark.parametrize("state", [state for state in LinkState if state is not LinkState.UP])
def test_bulk_connections_are_welcome_only_while_the_link_is_up(state: LinkState) -> None:
    link = link_in(state)
    assert link.refusal_of_bulk_untrusted(2) is not None


@pytest.mark.parametrize("number", [0, 1, 4, 65_535])
def test_a_bulk_connection_that_does_not_exist_is_refused(number: int) -> None:
    refusal = link_in(LinkState.UP).refusal_of_bulk_untrusted(number)
    assert refusal is not None
    assert refusal[0] is RejectCode.PROTOCOL


def test_a_bulk_connection_that_breaks_loses_the_link_by_its_name() -> None:
    link = link_in(LinkState.UP)
    link.bulk_attached(3)
    link.stream_failed(3, "reset")
    assert link.cause == "bulk connection 1 to bob broke: reset"


def test_both_ends_say_goodbye_at_once_and_close_cleanly() -> None:
    pair = LinkPair(TIMES, (2, 1))
    pair.come_up()
    for end in pair.ends:
        end.say_goodbye()
    pair.pump()
    assert [end.link.state for end in pair.ends] == [LinkState.CLOSED] * 2


def test_data_streams_may_end_before_the_goodbye_arrives() -> None:
    pair = LinkPair(TIMES, (3, 3))
    pair.come_up()
    pair.bob.say_goodbye()
    pair.pump(only=(0, 1, 2))
    assert pair.alice.link.state is LinkState.UP
    pair.alice.pass_time(0.9)
    pair.pump()
    assert [end.link.state for end in pair.ends] == [LinkState.CLOSED] * 2


def test_a_peer_that_does_not_answer_a_goodbye_is_left_behind_in_time() -> None:
    pair = LinkPair(TIMES)
    pair.come_up()
    pair.alice.answers_goodbye = False
    pair.bob.say_goodbye()
    pair.pump()
    assert pair.alice.link.state is LinkState.PEER_CLOSING
    assert pair.alice.link.next_deadline() is None
    assert pair.bob.link.next_deadline() == 4.0
    pair.bob.pass_time(4.0)
    assert pair.bob.link.state is LinkState.CLOSED
    last = pair.bob.events[-1]
    assert isinstance(last, LinkClosed)
    assert not last.clean
    assert "alice did not finish closing within 4 s" in last.cause


def test_heartbeats_keep_a_silent_link_up_and_measure_it() -> None:
    pair = LinkPair(TIMES)
    pair.come_up()
    for tenth in range(1, 200):
        pair.pass_time(tenth / 10)
    assert [end.link.state for end in pair.ends] == [LinkState.UP] * 2
    for end in pair.ends:
        tokens = [event.token for event in end.events if isinstance(event, PingDue)]
        assert tokens == list(range(1, 20))
        assert end.round_trips == [0.0] * 19


def test_a_peer_that_falls_silent_is_lost_after_the_timeout_and_not_before() -> None:
    pair = LinkPair(TIMES)
    pair.come_up()
    for second in range(1, 5):
        pair.alice.pass_time(float(second))
    assert pair.alice.link.state is LinkState.UP
    pair.alice.pass_time(5.0)
    assert pair.alice.link.is_dead
    assert pair.alice.events[-1] == LinkLost("bob has been silent for 5.0 s")
    assert pair.alice.link.next_deadline() is None


def test_a_process_that_was_stopped_sends_one_ping_and_not_a_burst() -> None:
    pair = LinkPair(TIMES)
    pair.come_up()
    pair.alice.pass_time(4.9)
    assert pair.alice.events == [LinkUp(), PingDue(1)]


@pytest.mark.parametrize("stream", [CONTROL, 0])
def test_an_end_without_a_goodbye_is_a_loss_at_once_or_after_the_grace(stream: int) -> None:
    pair = LinkPair(TIMES)
    pair.come_up()
    pair.alice.receive(stream, EOF)
    if stream != CONTROL:
        assert pair.alice.link.state is LinkState.UP
        assert pair.alice.link.next_deadline() == 1.0
        pair.alice.pass_time(1.0)
    assert pair.alice.link.state is LinkState.LOST
    assert "without a goodbye" in pair.alice.link.cause
    pair.pump()
    assert pair.bob.link.state is LinkState.LOST


def test_a_rejected_greeting_ends_both_ends_with_the_same_code() -> None:
    pair = LinkPair(TIMES, (5, 7))
    pair.greet()
    for end in pair.ends:
        assert end.link.state is LinkState.REJECTED
        assert end.link.error is not None
        assert end.link.error.code is RejectCode.PARAMETERS
        assert isinstance(end.events[-1], LinkRejected)
        assert "35 connections" in end.link.cause


# Coming up.


def test_a_greeting_that_takes_too_long_is_abandoned_and_another_one_awaited() -> None:
    link = link_in(LinkState.GREETING)
    assert link.next_deadline() == 6.0
    link.tick(5.9)
    assert drained(link) == []
    link.tick(6.0)
    assert drained(link) == [GreetingTimedOut()]
    assert link.state is LinkState.AWAITING
    link.greeting_started(7.0)
    link.check_invariants()


@pytest.mark.parametrize("state", [LinkState.AWAITING, LinkState.GREETING])
def test_a_link_that_does_not_come_up_in_time_is_lost_with_the_last_cause(state: LinkState) -> None:
    link = link_in(state)
    link.greeting_failed("connection refused")
    assert link.state is LinkState.AWAITING
    assert link.cause == "connection refused"
    link.tick(30.0)
    assert drained(link) == [LinkLost("no link to bob within 30 s; the last attempt: connection refused")]


def test_a_link_that_is_not_attached_in_time_says_what_is_missing() -> None:
    link = link_in(LinkState.ATTACHING)
    for second in range(3, 32):
        link.heard(float(second))
        link.tick(float(second))
    drained(link)
    link.tick(32.0)
    assert drained(link) == [LinkLost("no link to bob within 30 s (2 connections missing)")]


def test_a_transient_refusal_is_an_attempt_and_a_fatal_one_the_end() -> None:
    link = link_in(LinkState.GREETING)
    link.rejected(BUSY)
    assert link.state is LinkState.AWAITING
    assert "BUSY" in link.cause
    link.rejected(FATAL)
    assert link.is_dead
    assert drained(link) == [LinkRejected(FATAL)]


def test_any_refusal_while_attaching_is_the_end() -> None:
    link = link_in(LinkState.ATTACHING)
    link.rejected(BUSY)
    assert link.state is LinkState.REJECTED


def test_a_second_control_connection_is_refused_with_the_reason_of_the_state() -> None:
    codes = {state: (link_in(state).refusal_of_greeting() or (None, ""))[0] for state in LinkState}
    duplicate, over = RejectCode.DUPLICATE_IDENTITY, RejectCode.EPOCH
    assert codes == {
        LinkState.AWAITING: None,
        LinkState.GREETING: RejectCode.BUSY,
        LinkState.ATTACHING: RejectCode.BUSY,
        LinkState.UP: duplicate,
        LinkState.CLOSING: duplicate,
        LinkState.PEER_CLOSING: duplicate,
        LinkState.CLOSED: over,
        LinkState.LOST: over,
        LinkState.REJECTED: over,
    }


def test_a_normal_connection_is_refused_with_the_reason_of_the_state() -> None:
    def code(state: LinkState, index: int) -> RejectCode | None:
        return (link_in(state).refusal_of_attach_untrusted(index) or (None, ""))[0]

    assert code(LinkState.AWAITING, 0) is RejectCode.BUSY
    assert code(LinkState.GREETING, 0) is RejectCode.BUSY
    assert code(LinkState.ATTACHING, 1) is None
    assert code(LinkState.ATTACHING, 2) is RejectCode.PROTOCOL
    assert code(LinkState.ATTACHING, -1) is RejectCode.PROTOCOL
    assert code(LinkState.UP, 1) is RejectCode.DUPLICATE_IDENTITY
    assert code(LinkState.LOST, 1) is RejectCode.EPOCH


def test_a_connection_is_attached_once() -> None:
    link = link_in(LinkState.ATTACHING)
    link.attached(3.0, 1)
    assert link.missing == (0,)
    for index in (1, 2, -1):
        with pytest.raises(LocalProtocolError):
            link.attached(3.0, index)
    link.attached(3.0, 0)
    assert drained(link) == [LinkUp()]


def test_a_greeting_by_somebody_else_is_a_mistake_of_the_owner() -> None:
    with pytest.raises(ValueError, match="charlie"):
        link_in(LinkState.GREETING).greeted(2.0, result(peer="charlie"))


@pytest.mark.parametrize("stream", [CONTROL, 0])
def test_a_stream_that_ends_before_the_link_is_up_loses_it(stream: int) -> None:
    link = link_in(LinkState.ATTACHING)
    link.stream_ended(3.0, stream)
    assert link.state is LinkState.LOST
    assert "before the link was up" in link.cause


# Requests and facts in every state.

REQUESTS: dict[str, tuple[Callable[[Link], None], set[LinkState]]] = {
    "greeting_started": (lambda link: link.greeting_started(6.0), {LinkState.AWAITING}),
    "greeting_failed": (lambda link: link.greeting_failed("why"), {LinkState.AWAITING, LinkState.GREETING}),
    "rejected": (lambda link: link.rejected(FATAL), {LinkState.AWAITING, LinkState.GREETING, LinkState.ATTACHING}),
    "greeted": (lambda link: link.greeted(6.0, result()), {LinkState.GREETING}),
    "attached": (lambda link: link.attached(6.0, 0), {LinkState.ATTACHING}),
    "goodbye_said": (lambda link: link.goodbye_said(6.0), {LinkState.UP, LinkState.PEER_CLOSING}),
}


@pytest.mark.parametrize("state", LinkState)
@pytest.mark.parametrize("request_name", REQUESTS)
def test_every_request_in_every_state_is_obeyed_or_refused_by_name(state: LinkState, request_name: str) -> None:
    request, allowed = REQUESTS[request_name]
    link = link_in(state)
    assert link.state is state
    link.check_invariants()
    if state in allowed:
        request(link)
    else:
        with pytest.raises(LocalProtocolError) as raised:
            request(link)
        assert (raised.value.state, raised.value.event) == (state.value, request_name)
        assert link.state is state
    link.check_invariants()


FACTS: dict[str, Callable[[Link], object]] = {
    "heard": lambda link: link.heard(6.0),
    "tick": lambda link: link.tick(6.0),
    "much later": lambda link: link.tick(1000.0),
    "control ended": lambda link: link.stream_ended(6.0, CONTROL),
    "data ended": lambda link: link.stream_ended(6.0, 1),
    "data failed": lambda link: link.stream_failed(1, "reset"),
    "lost": lambda link: link.lost("why"),
    "goodbye": lambda link: link.goodbye_received_untrusted(6.0),
    "pong": lambda link: link.pong_received_untrusted(6.0, 77),
}


@pytest.mark.parametrize("state", LinkState)
@pytest.mark.parametrize("fact", FACTS)
def test_every_fact_in_every_state_keeps_the_invariants_and_the_dead_dead(state: LinkState, fact: str) -> None:
    link = link_in(state)
    dead = link.is_dead
    drained(link)
    with contextlib.suppress(LinkProtocolError):
        FACTS[fact](link)
    link.check_invariants()
    if dead:
        assert link.state is state
        assert drained(link) == []


def test_a_pong_must_answer_a_ping_and_answers_all_earlier_ones() -> None:
    link = link_in(LinkState.UP)
    for now in (4.0, 5.0, 6.0):
        link.heard(now)
        link.tick(now)
    assert [event for event in drained(link) if isinstance(event, PingDue)] == [PingDue(1), PingDue(2), PingDue(3)]
    assert link.pong_received_untrusted(6.5, 2) == 1.5
    for token in (1, 2, 4):
        with pytest.raises(LinkProtocolError, match="PONG"):
            link.pong_received_untrusted(6.5, token)
    assert link.pong_received_untrusted(6.5, 3) == 0.5


def test_a_peer_that_talks_and_answers_no_ping_is_lost_before_it_costs_much_memory() -> None:
    link = link_in(LinkState.UP)
    now = 4.0
    while not link.is_dead:
        link.heard(now)
        link.tick(now)
        link.check_invariants()
        now += 1.0
        assert now < 100
    assert drained(link)[-1] == LinkLost("bob has not answered the last 64 pings")


def test_a_second_goodbye_and_an_early_one_are_errors() -> None:
    link = link_in(LinkState.PEER_CLOSING)
    with pytest.raises(LinkProtocolError, match="second GOODBYE"):
        link.goodbye_received_untrusted(5.0)
    early = link_in(LinkState.ATTACHING)
    early.goodbye_received_untrusted(5.0)
    assert early.state is LinkState.LOST


def test_a_stream_that_breaks_behind_its_end_is_harmless_and_before_it_a_loss() -> None:
    link = link_in(LinkState.PEER_CLOSING)
    link.stream_ended(5.0, 0)
    link.stream_ended(5.0, 0)
    link.stream_failed(0, "connection reset")
    assert link.state is LinkState.PEER_CLOSING
    link.stream_failed(1, "connection reset")
    assert link.cause == "connection 1 to bob broke: connection reset"


def test_goodbyes_without_ends_do_not_close_the_link() -> None:
    link = link_in(LinkState.CLOSING)
    link.goodbye_received_untrusted(5.0)
    for stream in (1, CONTROL):
        link.stream_ended(5.0, stream)
        assert link.state is LinkState.CLOSING
    link.stream_ended(5.0, 0)
    assert link.state is LinkState.CLOSED
    assert link.goodbye_sent
    assert link.goodbye_received


@pytest.mark.parametrize(
    "times", [{"heartbeat_interval_s": 5.0}, {"heartbeat_interval_s": 0}, {"close_s": 0}, {"connect_s": -1}]
)
def test_times_that_make_no_sense_are_refused(times: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        LinkTimeouts(**times)


class LinkLife(RuleBasedStateMachine):
    """Any order of requests and facts: invariants hold, refusals are typed, the dead stay dead."""

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.link = Link("alice", "bob", self.now, TIMES)
        self.died = False

    def attempt(self, step: object) -> None:
        assert callable(step)
        try:
            step()
        except (LocalProtocolError, LinkProtocolError):
            return

    @rule(seconds=st.floats(0, 3))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.link.tick(self.now)

    @rule(name=st.sampled_from(["greeting_started", "goodbye_said"]))
    def ask(self, name: str) -> None:
        self.attempt(lambda: getattr(self.link, name)(self.now))

    @rule(connections=st.integers(1, 3))
    def greet(self, connections: int) -> None:
        self.attempt(lambda: self.link.greeted(self.now, result(connections)))

    @rule(index=st.integers(-1, 3))
    def attach(self, index: int) -> None:
        self.attempt(lambda: self.link.attached(self.now, index))

    @rule(number=st.integers(-1, 6))
    def attach_bulk(self, number: int) -> None:
        is_welcome = self.link.refusal_of_bulk_untrusted(number) is None
        before = self.link.streams
        self.attempt(lambda: self.link.bulk_attached(number))
        assert is_welcome <= (self.link.streams == before + 1)

    @precondition(lambda self: self.link.connections)
    @rule(data=st.data())
    def end_of_stream(self, data: st.DataObject) -> None:
        attached = [*range(self.link.connections), *self.link._attached]
        stream = data.draw(st.sampled_from([CONTROL, *attached]))
        self.link.stream_ended(self.now, stream)

    @rule(token=st.integers(0, 5))
    def pong(self, token: int) -> None:
        self.attempt(lambda: self.link.pong_received_untrusted(self.now, token))

    @rule()
    def goodbye(self) -> None:
        self.attempt(lambda: self.link.goodbye_received_untrusted(self.now))

    @rule()
    def noise(self) -> None:
        self.link.heard(self.now)

    @invariant()
    def holds(self) -> None:
        if not hasattr(self, "link"):
            return
        self.link.check_invariants()
        assert not self.died or self.link.is_dead
        self.died = self.link.is_dead
        deadline = self.link.next_deadline()
        assert deadline is None or deadline <= self.now + TIMES.connect_s


TestLinkLife = LinkLife.TestCase
