"""Errors of the engine: sentences made of fields, which survive the way between processes."""

from __future__ import annotations

import pickle

import pytest

from partywire.engine import errors
from partywire.engine.errors import (
    FrameTooLarge,
    HandshakeRejected,
    LinkProtocolError,
    LocalProtocolError,
    PartyWireError,
    RejectCode,
    SetupAborted,
    SetupMismatch,
)

EXAMPLES: list[PartyWireError] = [
    LocalProtocolError("link", "up", "greeted"),
    LinkProtocolError("bob", "frame descriptor", "0x7f"),
    LinkProtocolError("", "preamble version", 2, 1),
    FrameTooLarge("bob", "a BYTES frame", 2**32 - 1, 1024),
    HandshakeRejected("bob", RejectCode.VERSION, "alice speaks 1, bob 2", by_us=True),
    HandshakeRejected("", RejectCode.BUSY, "later", by_us=False),
    SetupMismatch(3, "kind", "make_sessions", "barrier", "alice"),
    SetupMismatch(3, "number of sessions", 4, 5, "alice"),
    SetupAborted(3, "alice", "out of memory"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_keeps_type_fields_and_sentence_when_pickled(error: PartyWireError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_is_one_line_that_begins_with_who_or_what(error: PartyWireError) -> None:
    assert str(error).isprintable()
    assert len(str(error)) > 20


def test_the_examples_are_every_error_and_all_are_listed() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, PartyWireError) and value is not PartyWireError
    }
    assert defined == {type(error).__name__ for error in EXAMPLES}
    assert defined | {"PartyWireError", "RejectCode"} == set(errors.__all__)


def test_a_mismatch_says_who_is_where() -> None:
    assert str(EXAMPLES[6]).startswith("alice is in barrier, we are in make_sessions")
    assert str(EXAMPLES[7]).startswith("number of sessions is 5 at alice but 4 here")


def test_a_rejection_says_who_refused_whom_and_what_to_do() -> None:
    assert str(EXAMPLES[4]).startswith("we refused bob (VERSION): ")
    assert str(EXAMPLES[5]).startswith("a stranger refused us (BUSY): ")
    for code in RejectCode:
        assert str(HandshakeRejected("bob", code, "why", by_us=True)).count(". ") == 1


def test_only_a_refusal_that_may_pass_is_transient() -> None:
    transient = {code for code in RejectCode if HandshakeRejected("bob", code, "", by_us=True).is_transient}
    assert transient == {RejectCode.BUSY, RejectCode.EPOCH}
