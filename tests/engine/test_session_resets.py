"""Resets of sessions without sockets: any order, any loss of a party's patience, one id for each round of a session."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partywire.engine.errors import LinkProtocolError
from partywire.engine.frames import LINK_SESSION
from partywire.engine.session_resets import (
    HEARD_MAX,
    NUMBERS_AHEAD_MAX,
    RESET_IDS_FIRST,
    NumbersUsedUp,
    ResetBook,
    ResetSession,
    fresh_id,
)

NAMES = ("alice", "bob", "charlie")
STRIDE = 4


class Parties:
    """Three books joined by pipes that a seed empties in any order."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.books = [
            ResetBook(index, 3, {name: at for at, name in enumerate(NAMES) if at != index}) for index in range(3)
        ]
        pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
        self.pipes: dict[tuple[int, int], list[ResetSession]] = {pair: [] for pair in pairs}
        self.rounds: list[dict[int, int]] = [{}, {}, {}]  # party -> origin -> the round it finished or left
        self.ids: list[dict[int, int]] = [{}, {}, {}]  # party -> origin -> its present id, while it lives
        self.waiting: list[set[int]] = [set(), set(), set()]
        self.members: dict[tuple[int, int], int] = {}  # (origin, round) -> id
        self.given: dict[int, tuple[int, int]] = {}  # id -> (origin, round)

    def say(self, party: int, message: ResetSession) -> None:
        for peer in range(3):
            if peer != party:
                self.pipes[party, peer].append(message)

    def begin(self, party: int, origin: int) -> None:
        if origin not in self.waiting[party]:
            self.ids[party].pop(origin, None)
            self.waiting[party].add(origin)
            self.say(party, self.books[party].begin(origin, self.rounds[party].get(origin, 0), STRIDE))
            self.look(party)

    def give_up(self, party: int, origin: int) -> None:
        if origin in self.waiting[party]:
            self.waiting[party].remove(origin)
            left = self.books[party].withdraw(origin, "too late")
            self.rounds[party][origin] = left.round
            self.say(party, left)

    def deliver(self, pair: tuple[int, int]) -> None:
        sender, receiver = pair
        message = self.pipes[pair].pop(0)
        followed = self.books[receiver].theirs(NAMES[sender], message, STRIDE)
        if followed is not None:
            self.say(receiver, followed)
        if message.round + bool(message.reason) > self.rounds[receiver].get(message.session, 0):
            self.ids[receiver].pop(message.session, None)  # the peer has left our life of it
        self.look(receiver)

    def look(self, party: int) -> None:
        for origin in tuple(self.waiting[party]):
            outcome = self.books[party].outcome(origin, STRIDE)
            if outcome is None:
                continue
            round_, session = outcome
            self.waiting[party].remove(origin)
            self.rounds[party][origin] = round_
            self.ids[party][origin] = session
            assert self.members.setdefault((origin, round_), session) == session, "two ids for one round"
            assert self.given.setdefault(session, (origin, round_)) == (origin, round_), "an id was given twice"
        self.books[party].check_invariants()

    def step(self) -> bool:
        full = [pair for pair, messages in self.pipes.items() if messages]
        if full:
            self.deliver(self.random.choice(full))
        return bool(full)


ACTS = st.tuples(st.sampled_from(["begin", "give up", "step"]), st.integers(0, 2), st.integers(0, 3))


@given(st.integers(0, 10**9), st.lists(ACTS, max_size=60))
@settings(max_examples=120, deadline=None)
def test_whoever_gave_up_and_however_often_all_meet_once_all_ask(
    seed: int, acts: list[tuple[str, int, int]]
) -> None:
    parties = Parties(seed)
    for what, party, session in acts:
        origin = session * STRIDE
        if what == "begin":
            parties.begin(party, origin)
        elif what == "give up":
            parties.give_up(party, origin)
        else:
            parties.step()
    for _ in range(4):  # everybody wants every session, and asks again for those that ended under it
        for origin in (0, STRIDE, 2 * STRIDE, 3 * STRIDE):
            for party in parties.random.sample(range(3), 3):
                if origin not in parties.ids[party]:
                    parties.begin(party, origin)
        while parties.step():
            pass
    assert not any(parties.waiting)
    assert parties.ids[0] == parties.ids[1] == parties.ids[2]
    assert len(parties.ids[0]) == 4
    assert all(session >= RESET_IDS_FIRST and session % STRIDE == 0 for session in parties.ids[0].values())


def test_sessions_that_are_reset_at_once_in_different_orders_get_different_ids() -> None:
    parties = Parties(1)
    for party, order in enumerate(((0, 4, 8), (8, 4, 0), (4, 0, 8))):
        for origin in order:
            parties.begin(party, origin)
    while parties.step():
        pass
    assert parties.ids[0] == parties.ids[1] == parties.ids[2]
    assert len(set(parties.ids[0].values())) == 3


def test_what_was_announced_in_an_earlier_epoch_of_a_link_is_said_again_or_void() -> None:
    alice = ResetBook(0, 2, {"bob": 1})
    bob = ResetBook(1, 2, {"alice": 0})
    alice.theirs("bob", bob.begin(8, 0, 1), 1)
    assert alice.link_was_made("bob") == []
    ours = alice.begin(8, 0, 1)
    assert alice.missing(8) == ("bob",)
    assert alice.link_was_made("bob") == [ours]
    for message in bob.link_was_made("alice"):
        alice.theirs("bob", message, 1)
    bob.theirs("alice", ours, 1)
    outcome = alice.outcome(8, 1)
    assert outcome is not None
    assert outcome == bob.outcome(8, 1)


def test_a_number_of_another_party_or_far_ahead_is_a_peers_fault() -> None:
    book = ResetBook(0, 3, {"bob": 1, "charlie": 2})
    book.theirs("bob", ResetSession(0, 1, 3 * 5000 + 1), 1)  # a restarted party has seen none yet
    with pytest.raises(LinkProtocolError, match="another party"):
        book.theirs("bob", ResetSession(0, 1, 3 * 5000 + 2), 1)
    limit = 3 * (5000 + NUMBERS_AHEAD_MAX)
    book.theirs("charlie", ResetSession(0, 1, limit + 2), 1)
    with pytest.raises(LinkProtocolError, match="too far ahead"):
        book.theirs("bob", ResetSession(0, 1, limit + 3 * (NUMBERS_AHEAD_MAX + 1) + 1), 1)


def test_what_peers_announce_of_sessions_unknown_here_is_bounded() -> None:
    book = ResetBook(0, 2, {"bob": 1})
    for origin in range(HEARD_MAX + 1):
        book.theirs("bob", ResetSession(origin, 1, 1), 1)
    book.check_invariants()
    book.begin(0, 0, 1)
    book.begin(HEARD_MAX, 0, 1)
    assert book.missing(0) == ("bob",)
    assert book.missing(HEARD_MAX) == ()


def test_ids_end_before_those_that_are_no_sessions() -> None:
    last = (LINK_SESSION - RESET_IDS_FIRST) // 16 - 1
    assert fresh_id(last, 16) + 16 <= LINK_SESSION < fresh_id(last + 1, 16) + 16
    book = ResetBook(0, 2, {"bob": 1})
    book.theirs("bob", ResetSession(0, 1, last | 1), 16)
    with pytest.raises(NumbersUsedUp):
        book.begin(16, 0, 16)


@pytest.mark.parametrize(
    "change",
    [{"session": LINK_SESSION}, {"session": "1"}, {"number": -1}, {"number": 2**30}, {"reason": None}, {"more": 1}],
)
def test_a_message_survives_its_document_and_is_bounded(change: dict[str, object]) -> None:
    document = ResetSession(7, 3, 12, "why\x07").document()
    heard = ResetSession(7, 3, 12, "why\N{REPLACEMENT CHARACTER}")
    assert ResetSession.from_document_untrusted(document, "bob") == heard
    with pytest.raises(LinkProtocolError):
        ResetSession.from_document_untrusted(document | change, "bob")
    with pytest.raises(LinkProtocolError):
        ResetSession.from_document_untrusted({"type": "reset session", "round": 1}, "bob")
