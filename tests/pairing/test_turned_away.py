"""What a pool remembers of callers that it turned away."""

from __future__ import annotations

from partywire.engine.pairing.turned_away import ENTRIES_MAX, TurnedAway


def test_a_caller_is_counted_and_forgotten_when_it_turns_out_to_be_a_peer() -> None:
    away = TurnedAway()
    assert away.words_at(None) == ""
    away.note("key", "wrong certificate", "10.0.0.1")
    assert away.words_at(None) == "a caller was turned away once: wrong certificate"
    away.note("key", "wrong certificate again", "10.0.0.2")
    assert away.words_at(frozenset(("10.0.0.2",))) == "a caller was turned away 2 times: wrong certificate again"
    assert away.words_at(frozenset(("10.0.0.1",))) == ""
    away.forget("key")
    away.forget("never heard of")
    assert away.words_at(None) == ""


def test_of_a_crowd_the_latest_are_remembered() -> None:
    away = TurnedAway()
    for number in range(ENTRIES_MAX):
        away.note(str(number), f"<{number}>", "here")
    away.note("0", "<0>", "here")  # it was here last
    away.note("one more", "<new>", "here")
    words = away.words_at(None)
    assert "<1>" not in words
    assert all(f"<{number}>" in words for number in (0, *range(2, ENTRIES_MAX)))
    assert "2 times: <0>" in words
    assert "<new>" in words
