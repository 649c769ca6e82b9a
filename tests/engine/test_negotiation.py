"""Both ends of a negotiation: every outcome byte by byte, and any bytes at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine.errors import LinkProtocolError, LocalProtocolError
from partywire.engine.negotiation import ROUNDS_MAX, Answerer, NegotiationFailed, Proposer, encode


def feed(end: Proposer | Answerer, data: bytes) -> bytes:
    """Give an end what it asks for. Returns what is not its business."""
    while data and (count := end.missing):
        end.receive_untrusted(data[:count])
        data = data[count:]
    return data


def play(proposer: Proposer, answerer: Answerer) -> list[bytes]:
    """Everything that is said, in turns, until both agree."""
    said: list[bytes] = []
    while True:
        for speaker, listener in ((proposer, answerer), (answerer, proposer)):
            if output := speaker.take_output():
                said.append(output)
                assert feed(listener, output) == b""
        if proposer.agreed is not None and answerer.agreed is not None:
            return said


def test_the_first_protocol_that_is_served_is_agreed_on() -> None:
    proposer, answerer = Proposer(["/a/2", "/a/1"]), Answerer({"/a/1"}.__contains__)
    said = play(proposer, answerer)
    assert proposer.agreed == answerer.agreed == "/a/1"
    assert said == [b"\x04\x00/a/2", b"\x00\x04", b"\x04\x00/a/1", b"\x04\x00/a/1"]


def test_a_known_protocol_is_not_asked_for_and_data_follows_at_once() -> None:
    proposer = Proposer(["/a/2", "/a/1"], is_known={"/a/1"}.__contains__)
    assert proposer.agreed == "/a/1"
    answerer = Answerer({"/a/1"}.__contains__)
    assert feed(answerer, proposer.take_output() + b"data") == b"data"
    assert answerer.agreed == "/a/1"
    assert answerer.take_output() == b""


def test_a_wrong_guess_fails_without_an_answer() -> None:
    proposer = Proposer(["/a"], is_known=lambda _: True, peer="bob")
    answerer = Answerer(lambda _: False, peer="alice")
    with pytest.raises(NegotiationFailed, match="we do not serve what alice proposed for a substream: /a"):
        feed(answerer, proposer.take_output())
    assert answerer.take_output() == b""


def test_the_last_of_five_may_be_the_right_one() -> None:
    names = [f"/{index}" for index in range(ROUNDS_MAX)]
    proposer, answerer = Proposer(names), Answerer({"/4"}.__contains__)
    assert len(play(proposer, answerer)) == 2 * ROUNDS_MAX
    assert proposer.agreed == "/4"


def test_a_proposer_with_nothing_left_says_so() -> None:
    proposer, answerer = Proposer(["/a", "/b"], peer="bob"), Answerer(lambda _: False, peer="alice")
    with pytest.raises(NegotiationFailed, match="bob does not serve what we proposed for a substream: /a, /b"):
        play(proposer, answerer)
    assert proposer.take_output() == b"\x00\x02"
    with pytest.raises(NegotiationFailed) as caught:
        feed(answerer, b"\x00\x02")
    assert caught.value.protocols == ("/a", "/b")


def test_an_answerer_ends_it_after_five_rounds() -> None:
    answerer = Answerer(lambda _: False)
    for _ in range(ROUNDS_MAX - 1):
        feed(answerer, b"\x01\x00x")
        assert answerer.take_output() == b"\x00\x04"
    with pytest.raises(NegotiationFailed):
        feed(answerer, b"\x01\x00x")
    assert answerer.take_output() == b"\x00\x06"
    proposer = Proposer([f"/{index}" for index in range(ROUNDS_MAX)])
    with pytest.raises(NegotiationFailed):
        feed(proposer, b"\x00\x06")


@pytest.mark.parametrize("protocols", [[], ["/x"] * (ROUNDS_MAX + 1)])
def test_a_proposer_proposes_one_to_five(protocols: list[str]) -> None:
    with pytest.raises(ValueError, match="between 1 and 5"):
        Proposer(protocols)


def test_ids_have_at_most_255_bytes() -> None:
    assert len(encode(0, "x" * 255)) == 257
    with pytest.raises(ValueError, match="256 bytes"):
        encode(0, "x" * 256)


@pytest.mark.parametrize("data", [b"\x00\x08", b"\x00\x04", b"\x01\x00\xff", b"\x00\x80"])
def test_no_proposal(data: bytes) -> None:
    with pytest.raises(LinkProtocolError):
        feed(Answerer(lambda _: True), data)


@pytest.mark.parametrize("data", [b"\x01\x00y", b"\x01\x04x", b"\x00\x01", b"\x00\x10", b"\x00\x00"])
def test_no_answer(data: bytes) -> None:
    with pytest.raises(LinkProtocolError):
        feed(Proposer(["x"]), data)


def test_no_end_takes_more_than_it_asked_for() -> None:
    answerer = Answerer(lambda _: True)
    with pytest.raises(LocalProtocolError):
        answerer.receive_untrusted(b"\x01\x00x")


@given(st.binary(max_size=2000), st.integers(1, 7))
def test_any_bytes_are_taken_or_refused_in_bounded_time(data: bytes, step: int) -> None:
    for end in (Answerer(lambda protocol: protocol == "x"), Proposer(["x", "y"])):
        rest = data
        try:
            while rest and end.missing:
                count = min(step, end.missing)
                end.receive_untrusted(rest[:count])
                rest = rest[count:]
                assert len(end.take_output()) <= 257
        except (LinkProtocolError, NegotiationFailed):
            pass
        assert len(data) - len(rest) <= ROUNDS_MAX * 257


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=ROUNDS_MAX, unique=True), st.data())
def test_both_ends_agree_or_both_fail(protocols: list[str], data: st.DataObject) -> None:
    served = data.draw(st.sets(st.sampled_from(protocols)))
    proposer, answerer = Proposer(protocols), Answerer(served.__contains__)
    expected = next((protocol for protocol in protocols if protocol in served), None)
    try:
        play(proposer, answerer)
    except NegotiationFailed:
        pass
    assert proposer.agreed == answerer.agreed == expected
