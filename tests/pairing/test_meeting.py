"""Introductions without sockets: what two ends agree on, whatever they are told and however it is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine.errors import HandshakeRejected, LinkProtocolError, RejectCode
from partywire.engine.handshake import HandshakeState, Role
from partywire.engine.handshake_messages import MessageType, encode_message
from partywire.engine.pairing.meeting import INTRODUCTION_TAG, Introduction, Meeting, link_name, we_dial
from partywire.engine.topology import dials

ALICE = Introduction(b"a" * 16, 4001, True)
BOB = Introduction(b"b" * 16, 4002, True)

introductions = st.builds(Introduction, st.binary(min_size=16, max_size=16), st.integers(0, 65535), st.booleans())


def carry(introducer: Meeting, acceptor: Meeting, slice_size: int = 1 << 10) -> None:
    """Bytes both ways until both are silent."""
    for sender, receiver in ((introducer, acceptor), (acceptor, introducer)):
        data = sender.data_to_send()
        for start in range(0, len(data), slice_size):
            receiver.receive_data(data[start : start + slice_size])


def test_an_introduction_is_encoded_as_documented() -> None:
    introduction = Introduction(bytes(range(16)), 0x1234, True)
    assert introduction.encode() == bytes.fromhex("0100 000102030405060708090a0b0c0d0e0f 3412 01")
    assert INTRODUCTION_TAG.hex() == "537b52fb2ddd84cdf706ae951cd0aa1a"
    message = Meeting(Role.INITIATOR, "bob", introduction).data_to_send()
    assert message == b"\x07\x15\x00" + introduction.encode()


@pytest.mark.parametrize("slice_size", [1, 2, 100])
def test_both_ends_know_each_other_afterwards(slice_size: int) -> None:
    introducer, acceptor = Meeting(Role.INITIATOR, "bob", ALICE), Meeting(Role.RESPONDER, "?", answer=lambda _: BOB)
    carry(introducer, acceptor, slice_size)
    assert (introducer.result, acceptor.result) == (BOB, ALICE)


@given(introductions)
def test_what_is_encoded_decodes(introduction: Introduction) -> None:
    assert Introduction.decode_untrusted(introduction.encode()) == introduction


@given(introductions, introductions)
def test_exactly_one_end_dials_and_has_the_greater_name(ours: Introduction, theirs: Introduction) -> None:
    if ours.id == theirs.id:
        return
    we, they = we_dial(ours, theirs), we_dial(theirs, ours)
    assert we is not they
    assert dials(link_name(ours, we), link_name(theirs, they)) is we
    if ours.dials and theirs.port and not (theirs.dials and ours.port):
        assert we  # whoever cannot be dialled dials


def test_a_refusal_reaches_the_introducer_as_it_was_said() -> None:
    introducer = Meeting(Role.INITIATOR, "bob", ALICE)
    acceptor = Meeting(Role.RESPONDER, "?", answer=lambda _: (RejectCode.UNKNOWN_PEER, "nobody of that address"))
    with pytest.raises(HandshakeRejected):
        acceptor.receive_data(introducer.data_to_send())
    with pytest.raises(HandshakeRejected, match="nobody of that address") as refused:
        introducer.receive_data(acceptor.data_to_send())
    assert refused.value.code is RejectCode.UNKNOWN_PEER
    assert not refused.value.by_us
    assert introducer.result is acceptor.result is None


@pytest.mark.parametrize("role", Role)
def test_another_version_is_refused_whatever_its_size(role: Role) -> None:
    meeting = Meeting(role, "?", ALICE if role is Role.INITIATOR else None, lambda _: BOB)
    meeting.data_to_send()
    type_ = MessageType.INTRODUCED if role is Role.INITIATOR else MessageType.INTRODUCE
    with pytest.raises(HandshakeRejected) as refused:
        meeting.receive_data(encode_message(type_, b"\x02\x00more than we know of"))
    assert refused.value.code is RejectCode.VERSION


@pytest.mark.parametrize(
    ("role", "body"),
    [
        (Role.RESPONDER, b""),
        (Role.RESPONDER, b"\x01"),
        (Role.RESPONDER, ALICE.encode()[:-1]),
        (Role.RESPONDER, ALICE.encode() + b"\0"),
        (Role.RESPONDER, ALICE.encode()[:-1] + b"\x02"),
        (Role.RESPONDER, Introduction(b"a" * 16, 1, False).encode()),
        (Role.INITIATOR, Introduction(b"b" * 16, 0, True).encode()),
        (Role.INITIATOR, ALICE.encode()),
    ],
)
def test_what_nobody_can_say_of_itself_breaks_the_protocol(role: Role, body: bytes) -> None:
    meeting = Meeting(role, "?", ALICE if role is Role.INITIATOR else None, lambda _: BOB)
    type_ = MessageType.INTRODUCED if role is Role.INITIATOR else MessageType.INTRODUCE
    with pytest.raises(LinkProtocolError):
        meeting.receive_data(encode_message(type_, body))
    assert meeting.state is HandshakeState.FAILED


@pytest.mark.parametrize(("id_", "port"), [(b"", 1), (b"a" * 17, 1), (b"a" * 16, -1), (b"a" * 16, 65536)])
def test_an_introduction_that_could_not_be_encoded_is_a_mistake(id_: bytes, port: int) -> None:
    with pytest.raises(ValueError, match="introduction"):
        Introduction(id_, port, True)


def test_an_id_is_not_shown() -> None:
    assert "aaaa" not in repr(ALICE)
