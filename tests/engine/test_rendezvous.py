"""Rounds in which all parties meet, with real books exchanging real messages."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine import limits
from partywire.engine.control import Abort, Rendezvous, Resume, decode_control_untrusted, encode_control
from partywire.engine.errors import LinkProtocolError, LocalProtocolError, SetupAborted, SetupMismatch
from partywire.engine.rendezvous import RESUME_AHEAD_MAX, RendezvousBook, Resumption, check_fields_equal

NAMES = ("alice", "bob", "charlie")


def books() -> dict[str, RendezvousBook]:
    return {name: RendezvousBook(name, [peer for peer in NAMES if peer != name]) for name in NAMES}


def announce(parties: dict[str, RendezvousBook], who: str, kind: str, fields: dict[str, object]) -> None:
    """Enter the next round at `who` and deliver the announcement to everybody, through its bytes."""
    message = parties[who].our(parties[who].next_round, kind, fields)
    for peer, book in parties.items():
        if peer != who:
            heard = decode_control_untrusted(encode_control(message), who)
            assert isinstance(heard, Rendezvous)
            book.theirs(who, heard)
            book.check_invariants()


@given(st.permutations(NAMES))
def test_everybody_gets_the_fields_of_everybody_else_in_any_order(order: list[str]) -> None:
    parties = books()
    for count, who in enumerate(order, 1):
        announce(parties, who, "barrier", {"from": who})
        if count < 3:
            assert parties[who].outcome(0) is None
    for name, book in parties.items():
        assert book.outcome(0) == {peer: {"from": peer} for peer in NAMES if peer != name}
        book.check_invariants()


def test_an_outcome_is_given_once_and_closes_the_round() -> None:
    parties = books()
    for who in NAMES:
        announce(parties, who, "barrier", {})
    assert parties["alice"].outcome(0) is not None
    with pytest.raises(LocalProtocolError, match="outcome of round 0"):
        parties["alice"].outcome(0)


def test_a_party_alone_needs_nobody() -> None:
    book = RendezvousBook("alice", [])
    book.our(0, "barrier", {})
    assert book.outcome(0) == {}


@pytest.mark.parametrize("kinds", sorted(set(itertools.permutations(["barrier", "barrier", "make_sessions"]))))
def test_different_intentions_are_an_error_at_every_party_naming_both(kinds: tuple[str, str, str]) -> None:
    parties = books()
    for who, kind in zip(NAMES, kinds, strict=True):
        announce(parties, who, kind, {})
    for who, kind in zip(NAMES, kinds, strict=True):
        with pytest.raises(SetupMismatch) as raised:
            parties[who].outcome(0)
        assert raised.value.ours == kind
        assert raised.value.theirs != kind
        assert f"{raised.value.peer} is in {raised.value.theirs}, we are in {kind}" in str(raised.value)
        parties[who].check_invariants()


def test_a_mismatch_is_known_before_the_last_party_has_come() -> None:
    parties = books()
    announce(parties, "alice", "barrier", {})
    announce(parties, "bob", "batch", {})
    with pytest.raises(SetupMismatch):
        parties["alice"].outcome(0)


def test_rounds_run_at_the_same_time_and_end_in_any_order() -> None:
    parties = books()
    for _ in range(3):
        for who in NAMES[:2]:
            announce(parties, who, "barrier", {"round": parties[who].next_round})
    assert parties["alice"].missing(1) == ("charlie",)
    for _ in range(3):
        announce(parties, "charlie", "barrier", {})
    for round_ in (2, 0, 1):
        outcome = parties["alice"].outcome(round_)
        assert outcome is not None
        assert outcome["bob"] == {"round": round_}
    assert parties["alice"].missing(0) == ("bob", "charlie")


def test_an_abort_reaches_everybody_who_is_in_the_round_or_comes_later() -> None:
    parties = books()
    announce(parties, "bob", "barrier", {})
    announce(parties, "alice", "barrier", {})
    abort = parties["alice"].abort(0, "out of memory")
    for peer in ("bob", "charlie"):
        heard = decode_control_untrusted(encode_control(abort))
        assert isinstance(heard, Abort)
        parties[peer].theirs("alice", heard)
    with pytest.raises(SetupAborted, match="alice gave up round 0: out of memory") as raised:
        parties["bob"].outcome(0)
    announce(parties, "charlie", "barrier", {})
    with pytest.raises(SetupAborted) as raised:
        parties["charlie"].outcome(0)
    assert (raised.value.peer, raised.value.reason) == ("alice", "out of memory")
    for book in parties.values():
        book.check_invariants()


def test_what_comes_for_a_round_that_is_over_is_ignored() -> None:
    parties = books()
    for who in NAMES:
        announce(parties, who, "barrier", {})
    parties["alice"].outcome(0)
    parties["alice"].theirs("bob", Abort(0, "late"))
    parties["alice"].theirs("bob", Rendezvous(0, "barrier", {}))
    parties["alice"].check_invariants()


def test_a_round_is_announced_once_by_each_peer_but_may_be_said_again() -> None:
    book = books()["alice"]
    book.theirs("bob", Rendezvous(0, "batch", {"n": [1, 2]}))
    book.theirs("bob", Rendezvous(0, "batch", {"n": [1, 2]}))
    for other in (Rendezvous(0, "batch", {"n": [1, 3]}), Rendezvous(0, "barrier", {"n": [1, 2]})):
        with pytest.raises(LinkProtocolError, match="twice"):
            book.theirs("bob", other)


def test_a_peer_may_be_ahead_by_a_bounded_number_of_rounds() -> None:
    book = books()["alice"]
    for round_ in range(limits.RENDEZVOUS_AHEAD_MAX):
        book.theirs("bob", Rendezvous(round_, "barrier", {}))
        book.check_invariants()
    for message in (Rendezvous(limits.RENDEZVOUS_AHEAD_MAX, "barrier", {}), Abort(2**53 - 1, "")):
        with pytest.raises(LinkProtocolError, match="too far ahead"):
            book.theirs("bob", message)
    book.our(0, "barrier", {})
    book.theirs("bob", Rendezvous(limits.RENDEZVOUS_AHEAD_MAX, "barrier", {}))
    book.check_invariants()


def test_rounds_are_entered_one_after_another() -> None:
    book = books()["alice"]
    with pytest.raises(LocalProtocolError, match="entering round 1"):
        book.our(1, "barrier", {})
    book.our(0, "barrier", {})
    with pytest.raises(LocalProtocolError, match="entering round 0"):
        book.our(0, "barrier", {})
    with pytest.raises(LocalProtocolError, match="outcome of round 1"):
        book.outcome(1)
    with pytest.raises(LocalProtocolError, match="closing round 1"):
        book.abort(1, "never entered")


@pytest.mark.parametrize("peers", [["alice"], ["bob", "bob"]])
def test_two_parties_with_one_name_are_a_mistake(peers: list[str]) -> None:
    with pytest.raises(ValueError, match="own name"):
        RendezvousBook("alice", peers)
    assert RendezvousBook("alice", ["bob"]).peers == ("bob",)


def test_fields_that_must_be_equal_are_compared_as_the_others_see_them() -> None:
    ours: dict[str, object] = {"job": "digits", "shape": (1, 2), "own": 1}
    outcome: dict[str, dict[str, object]] = {
        "bob": {"job": "digits", "shape": [1, 2], "own": 2},
        "charlie": {"job": "other", "shape": [1, 2]},
    }
    check_fields_equal(0, ours, outcome, ["shape"])
    with pytest.raises(SetupMismatch) as raised:
        check_fields_equal(4, ours, outcome, ["shape", "job"])
    error = raised.value
    assert (error.round, error.field, error.ours, error.theirs, error.peer) == (4, "job", "digits", "other", "charlie")
    with pytest.raises(SetupMismatch):
        check_fields_equal(4, ours, {"bob": {}}, ["own"])


# Links that are made anew, and parties that are started anew.


def named_books() -> dict[str, RendezvousBook]:
    return {name: RendezvousBook(name, [peer for peer in NAMES if peer != name], f"first {name}") for name in NAMES}


def meet_again(parties: dict[str, RendezvousBook], *pair: str) -> dict[str, Resumption]:
    """A new epoch of the link between two: both say where they stand before they hear of the other."""
    said = {name: parties[name].resume(other) for name, other in (pair, pair[::-1])}
    heard = {}
    for name, other in (pair, pair[::-1]):
        message = decode_control_untrusted(encode_control(said[other]), other)
        assert isinstance(message, Resume)
        heard[name] = parties[name].resumed(other, message)
        parties[name].check_invariants()
    return heard


def test_a_party_that_was_started_anew_comes_to_the_round_of_those_that_ran_on() -> None:
    parties = named_books()
    for book in parties.values():
        for round_ in range(100):
            book.our(round_, "barrier", {})
            book.abort(round_, "")
    for pair in (("alice", "bob"), ("bob", "charlie"), ("alice", "charlie")):
        meet_again(parties, *pair)
    parties["bob"] = RendezvousBook("bob", ["alice", "charlie"], "second bob")
    assert meet_again(parties, "alice", "bob")["bob"] == Resumption(is_same_life=True, has_skipped=True)
    assert meet_again(parties, "charlie", "bob")["bob"] == Resumption(is_same_life=True, has_skipped=False)
    for who in NAMES:
        assert parties[who].next_round == 100
        announce(parties, who, "barrier", {})
    assert all(book.outcome(100) is not None for book in parties.values())


def test_it_comes_to_the_round_in_which_the_others_wait_for_it() -> None:
    parties = named_books()
    for pair in (("alice", "bob"), ("bob", "charlie"), ("alice", "charlie")):
        meet_again(parties, *pair)
    announce(parties, "alice", "barrier", {})
    announce(parties, "charlie", "barrier", {})
    parties["bob"] = RendezvousBook("bob", ["alice", "charlie"], "second bob")
    for peer in ("alice", "charlie"):
        meet_again(parties, peer, "bob")
        assert parties[peer].is_open(0)
        parties["bob"].theirs(peer, Rendezvous(0, "barrier", {}))  # so it is told once more
    announce(parties, "bob", "barrier", {})
    assert all(book.outcome(0) is not None for book in parties.values())


def test_what_a_former_life_announced_is_void_and_what_the_same_life_announced_holds() -> None:
    for life, missing in (("first bob", ()), ("second bob", ("bob",))):
        book = RendezvousBook("alice", ["bob"], "first alice")
        book.resumed("bob", Resume(0, "first bob"))
        book.our(0, "barrier", {})
        book.theirs("bob", Rendezvous(0, "barrier", {}))
        assert book.resumed("bob", Resume(0, life)).is_same_life == (not missing)
        assert book.missing(0) == missing
        book.check_invariants()


def test_a_round_that_a_peer_has_left_is_over_unless_it_says_its_word_again() -> None:
    for said in ((), (0,)):
        book = RendezvousBook("alice", ["bob"], "first alice")
        book.resumed("bob", Resume(0, "first bob"))
        book.our(0, "barrier", {})
        assert book.resume("bob", [0]) == Resume(0, "first alice", (0,))
        assert book.resumed("bob", Resume(1, "first bob", said)) == Resumption(is_same_life=True, has_skipped=False)
        if said:
            assert book.outcome(0) is None
            book.theirs("bob", Rendezvous(0, "barrier", {}))
            assert book.outcome(0) == {"bob": {}}
        else:
            with pytest.raises(SetupAborted, match="bob goes on at round 1") as raised:
                book.outcome(0)
            assert raised.value.is_skipped


def test_a_round_that_nobody_can_have_come_to_is_a_lie() -> None:
    book = RendezvousBook("alice", ["bob"])
    assert book.resumed("bob", Resume(2**50, "bob")).has_skipped  # we have just begun, and cannot know
    assert book.resumed("bob", Resume(2**50 + RESUME_AHEAD_MAX, "bob")).has_skipped
    with pytest.raises(LinkProtocolError, match="too far ahead"):
        book.resumed("bob", Resume(2**50 + 2 * RESUME_AHEAD_MAX + 1, "bob"))
