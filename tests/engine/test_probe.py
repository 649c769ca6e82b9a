"""The probe as a pair of machines: what each end learns, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine.errors import HandshakeRejected, LinkProtocolError, LocalProtocolError, RejectCode
from partywire.engine.handshake import Handshake, HandshakeState, Role
from partywire.engine.handshake_messages import Hello, MessageType, encode_message
from partywire.engine.probe import Probe

ABC = ("alice", "bob", "charlie")
BOB = Hello("bob", "alice", b"b" * 32, party_set=ABC, workers=2)
ALICE = Hello("alice", "bob", b"a" * 32, party_set=ABC, workers=3)
CLOCK_MS = 1_234_567_890_123


def pair() -> tuple[Probe, Probe]:
    return Probe(Role.INITIATOR, BOB), Probe(Role.RESPONDER, ALICE, CLOCK_MS)


@pytest.mark.parametrize("slice_size", [1, 3, 10_000])
def test_one_question_and_one_answer_tell_both_ends_of_each_other(slice_size: int) -> None:
    prober, acceptor = pair()
    for sender, receiver in ((prober, acceptor), (acceptor, prober)):
        data = sender.data_to_send()
        for start in range(0, len(data), slice_size):
            receiver.receive_data(data[start : start + slice_size])
    assert prober.result is not None
    assert acceptor.result is not None
    assert (prober.result.peer, prober.result.clock_ms) == (ALICE, CLOCK_MS)
    assert acceptor.result.peer == BOB
    with pytest.raises(LocalProtocolError):
        acceptor.receive_data(b"more")


@pytest.mark.parametrize(
    ("theirs", "code"),
    [
        (replace(BOB, version=2), RejectCode.VERSION),
        (replace(BOB, name="eve"), RejectCode.UNKNOWN_PEER),
        (replace(BOB, peer="charlie"), RejectCode.WRONG_IDENTITY),
        (replace(BOB, party_set=(*ABC, "dora")), RejectCode.PARTY_SET),
        (replace(BOB, parameter_digest=b"x" * 32), RejectCode.PARAMETERS),
        (replace(BOB, workers=61), RejectCode.PARAMETERS),
    ],
)
def test_a_probe_is_refused_for_what_a_hello_would_be_refused_for(theirs: Hello, code: RejectCode) -> None:
    refusals = []
    for acceptor, type_ in (
        (Probe(Role.RESPONDER, ALICE), MessageType.PROBE),
        (Handshake(Role.RESPONDER, ALICE), MessageType.HELLO),
    ):
        with pytest.raises(HandshakeRejected) as refused:
            acceptor.receive_data(encode_message(type_, theirs.encode()))
        assert acceptor.state is HandshakeState.FAILED
        refusals.append((refused.value.code, refused.value.detail))
    assert refusals[0] == refusals[1]
    assert refusals[0][0] is code


def test_an_answer_of_somebody_else_or_cut_short_is_refused_by_the_prober() -> None:
    clock = CLOCK_MS.to_bytes(8, "little")
    for body in (clock[:7], clock, clock + ALICE.encode()[:-1], clock + ALICE.encode() + b"x"):
        with pytest.raises(LinkProtocolError):
            pair()[0].receive_data(encode_message(MessageType.PROBED, body))
    stranger = clock + replace(ALICE, name="charlie").encode()
    with pytest.raises(HandshakeRejected):
        pair()[0].receive_data(encode_message(MessageType.PROBED, stranger))


def test_an_end_of_stream_says_how_far_the_probe_came() -> None:
    with pytest.raises(LinkProtocolError, match="awaiting PROBED"):
        pair()[0].receive_eof()


@given(st.lists(st.binary(max_size=200), max_size=5), st.booleans())
def test_any_bytes_end_a_probe_in_a_documented_way(slices: list[bytes], is_prober: bool) -> None:
    machine = pair()[0 if is_prober else 1]
    try:
        for data in slices:
            machine.receive_data(data)
    except (LinkProtocolError, HandshakeRejected):
        assert machine.state is HandshakeState.FAILED
