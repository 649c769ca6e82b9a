"""Both handshakes: pairs of real machines, every way in which two ends can disagree, and hostile bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine import limits
from partywire.engine.errors import (
    FrameTooLarge,
    HandshakeRejected,
    LinkProtocolError,
    LocalProtocolError,
    RejectCode,
)
from partywire.engine.handshake import TRANSITIONS, Attach, Handshake, HandshakeState, Role
from partywire.engine.handshake_messages import (
    CAN_SUBSTREAMS,
    AttachRequest,
    Hello,
    MessageReader,
    MessageType,
    decode_reject_untrusted,
    encode_message,
    encode_reject,
)
from partywire.engine.pairing.meeting import Introduction, Meeting
from partywire.engine.preamble import ConnectionClass
from partywire.engine.probe import Probe

if TYPE_CHECKING:
    from collections.abc import Callable

ABC = ("alice", "bob", "charlie")
BOB = Hello("bob", "alice", b"b" * 32, epoch=3, party_set=ABC, workers=2, message_size_max=1000)
ALICE = Hello("alice", "bob", b"a" * 32, epoch=7, party_set=ABC, workers=3, message_size_max=2000)
PREAMBLE = b"p" * 32
SECRET = b"s" * 32


def pair(initiator: Hello = BOB, responder: Hello = ALICE) -> tuple[Handshake, Handshake]:
    return Handshake(Role.INITIATOR, initiator, PREAMBLE), Handshake(Role.RESPONDER, responder, PREAMBLE)


def attach_pair(**changes: object) -> tuple[Attach, Attach]:
    """The initiator's arguments may be changed to make the ends disagree."""
    ours = {"our_name": "bob", "peer": "alice", "epoch": 7, "secret": SECRET, "index": 4, "preamble": PREAMBLE}
    theirs = ours | {"our_name": "alice", "peer": "bob"}
    initiator = Attach(Role.INITIATOR, **(ours | changes))  # type: ignore[arg-type]
    return initiator, Attach(Role.RESPONDER, **theirs)  # type: ignore[arg-type]


Machine = Handshake | Attach | Probe | Meeting


def converse(initiator: Machine, responder: Machine, slice_size: int = 1 << 16) -> list[HandshakeRejected]:
    """Carry bytes both ways until both are silent; returns the rejections that were raised, the initiator's first."""
    raised: dict[Machine, HandshakeRejected] = {}
    ends: list[tuple[Machine, Machine]] = [(initiator, responder), (responder, initiator)]
    while moved := [(receiver, data) for sender, receiver in ends if (data := sender.data_to_send())]:
        for receiver, data in moved:
            for start in range(0, len(data), slice_size):
                if receiver.state is HandshakeState.FAILED:
                    break
                try:
                    receiver.receive_data(data[start : start + slice_size])
                except HandshakeRejected as error:
                    raised[receiver] = error
    return [raised[end] for end in (initiator, responder) if end in raised]


# The control connection.


@pytest.mark.parametrize("slice_size", [1, 2, 3, 7, 50, 1 << 16])
def test_both_ends_agree_however_the_bytes_are_cut(slice_size: int) -> None:
    bob, alice = pair()
    assert converse(bob, alice, slice_size) == []
    ours, theirs = bob.result, alice.result
    assert ours is not None
    assert theirs is not None
    assert (ours.peer, theirs.peer) == (ALICE, BOB)
    assert ours.epoch == theirs.epoch == 7
    assert ours.connections == theirs.connections == 6
    assert ours.message_size_max == theirs.message_size_max == 1000
    assert ours.secret == theirs.secret
    assert len(ours.secret) == 32
    assert bob.trailing_data == alice.trailing_data == b""


def test_a_link_stands_after_three_flights() -> None:
    bob, alice = pair()
    alice.receive_data(bob.data_to_send())
    bob.receive_data(alice.data_to_send())
    assert [end.result is not None for end in (bob, alice)] == [True, False]
    alice.receive_data(bob.data_to_send())
    assert [end.result is not None for end in (bob, alice)] == [True, True]
    assert alice.data_to_send() == b""


def test_the_responder_says_nothing_before_it_has_checked_a_hello() -> None:
    _, alice = pair()
    assert alice.data_to_send() == b""
    assert alice.state is HandshakeState.AWAITING_HELLO


def test_every_link_life_has_another_secret() -> None:
    secrets = set()
    variants = [(BOB, ALICE), (replace(BOB, nonce=b"c" * 32), ALICE), (BOB, replace(ALICE, nonce=b"d" * 32))]
    for initiator, responder in variants:
        bob, alice = pair(initiator, responder)
        converse(bob, alice)
        assert bob.result is not None
        secrets.add(bob.result.secret)
    assert len(secrets) == 3


def test_frames_behind_the_handshake_are_handed_on() -> None:
    bob, alice = pair()
    alice.receive_data(bob.data_to_send())
    bob.receive_data(alice.data_to_send())
    alice.receive_data(bob.data_to_send() + b"first frames")
    assert alice.trailing_data == b"first frames"
    assert alice.trailing_data == b""
    bob2, alice2 = pair()
    alice2.receive_data(bob2.data_to_send())
    bob2.receive_data(alice2.data_to_send() + b"early")
    assert bob2.trailing_data == b"early"


def test_no_trailing_data_before_the_end() -> None:
    bob, alice = pair()
    alice.receive_data(bob.data_to_send()[:10])
    assert alice.trailing_data == b""


def test_a_pairwise_link_needs_no_party_set() -> None:
    bob, alice = pair(replace(BOB, party_set=()), replace(ALICE, party_set=()))
    assert converse(bob, alice) == []
    assert bob.result is not None


@pytest.mark.parametrize(
    ("initiator", "responder", "code"),
    [
        (replace(BOB, version=2), ALICE, RejectCode.VERSION),
        (BOB, replace(ALICE, version=9), RejectCode.VERSION),
        (replace(BOB, name="alice"), ALICE, RejectCode.DUPLICATE_IDENTITY),
        (replace(BOB, name="mallory"), ALICE, RejectCode.UNKNOWN_PEER),
        (replace(BOB, name="charlie"), ALICE, RejectCode.WRONG_IDENTITY),
        (replace(BOB, peer="charlie"), ALICE, RejectCode.WRONG_IDENTITY),
        (BOB, replace(ALICE, name="charlie"), RejectCode.WRONG_IDENTITY),
        (replace(BOB, party_set=("alice", "bob")), ALICE, RejectCode.PARTY_SET),
        (replace(BOB, party_set=("bob", "alice", "charlie")), ALICE, RejectCode.PARTY_SET),
        (replace(BOB, party_set=()), ALICE, RejectCode.PARTY_SET),
        (BOB, replace(ALICE, party_set=()), RejectCode.PARTY_SET),
        (replace(BOB, parameter_digest=b"x" * 32), ALICE, RejectCode.PARAMETERS),
        (replace(BOB, workers=5), replace(ALICE, workers=4), RejectCode.PARAMETERS),
        (replace(BOB, nonce=ALICE.nonce), ALICE, RejectCode.PROTOCOL),
    ],
)
def test_a_disagreement_is_the_same_documented_error_at_both_ends(
    initiator: Hello, responder: Hello, code: RejectCode
) -> None:
    ends = pair(initiator, responder)
    at_initiator, at_responder = converse(*ends)
    assert at_initiator.code is at_responder.code is code
    assert at_initiator.detail == at_responder.detail
    assert {at_initiator.by_us, at_responder.by_us} == {True, False}
    assert [end.state for end in ends] == [HandshakeState.FAILED] * 2
    assert [end.result for end in ends] == [None, None]
    for end in ends:
        with pytest.raises(LocalProtocolError):
            end.receive_data(b"more")


def test_a_changed_byte_anywhere_is_never_accepted_by_both_ends() -> None:
    """Whatever a middle box changes: at least one end refuses, and no end accepts other values than the other."""
    hello = Handshake(Role.INITIATOR, BOB, PREAMBLE).data_to_send()
    for position in range(len(hello)):
        bob, alice = pair()
        changed = bytearray(bob.data_to_send())
        changed[position] ^= 1
        refused = 0
        try:
            alice.receive_data(changed)
            bob.receive_data(alice.data_to_send())
        except (HandshakeRejected, LinkProtocolError):
            refused = 1
        # A change in the length field leaves Alice waiting, until her owner's deadline.
        assert refused or alice.state is HandshakeState.AWAITING_HELLO
        assert bob.result is None


def test_a_preamble_that_was_changed_on_the_way_is_noticed() -> None:
    bob = Handshake(Role.INITIATOR, BOB, PREAMBLE)
    alice = Handshake(Role.RESPONDER, ALICE, b"q" * 32)
    at_initiator, at_responder = converse(bob, alice)
    assert at_initiator.code is at_responder.code is RejectCode.PROTOCOL
    assert "changed" in at_initiator.detail


def test_our_own_hello_sent_back_is_refused() -> None:
    bob, _ = pair()
    with pytest.raises(HandshakeRejected) as raised:
        bob.receive_data(bob.data_to_send())
    assert raised.value.code is RejectCode.DUPLICATE_IDENTITY


def test_the_owner_can_refuse_for_its_own_reasons() -> None:
    bob, alice = pair()
    with pytest.raises(HandshakeRejected) as ours:
        alice.reject(RejectCode.BUSY, "already greeting")
    assert ours.value.by_us
    with pytest.raises(HandshakeRejected) as theirs:
        bob.receive_data(alice.data_to_send())
    assert theirs.value.code is RejectCode.BUSY
    assert not theirs.value.by_us
    with pytest.raises(LocalProtocolError):
        alice.reject(RejectCode.BUSY, "twice")


# Messages out of place.


def machine_in(state: HandshakeState) -> Machine:
    bob, alice = pair()
    if state is HandshakeState.AWAITING_HELLO:
        return bob
    if state is HandshakeState.AWAITING_ATTACH:
        return attach_pair()[1]
    if state is HandshakeState.AWAITING_PROBE:
        return Probe(Role.RESPONDER, ALICE)
    if state is HandshakeState.AWAITING_PROBED:
        return Probe(Role.INITIATOR, BOB)
    if state is HandshakeState.AWAITING_INTRODUCE:
        return Meeting(Role.RESPONDER, "bob", answer=lambda theirs: replace(theirs, id=bytes(16)))
    if state is HandshakeState.AWAITING_INTRODUCED:
        return Meeting(Role.INITIATOR, "alice", Introduction(bytes(16), 1, True))
    alice.receive_data(bob.data_to_send())
    if state is HandshakeState.AWAITING_ACCEPT:
        return alice
    bob.receive_data(alice.data_to_send())
    if state is HandshakeState.FAILED:
        with pytest.raises(HandshakeRejected):
            alice.receive_data(encode_message(MessageType.REJECT, b"\x01"))
        return alice
    return bob


@pytest.mark.parametrize("state", HandshakeState)
@pytest.mark.parametrize("type_", MessageType)
def test_every_message_in_every_state_is_taken_or_named(state: HandshakeState, type_: MessageType) -> None:
    machine = machine_in(state)
    assert machine.state is state
    bodies = {
        MessageType.HELLO: ALICE.encode(),
        MessageType.ACCEPT: bytes(32),
        MessageType.REJECT: encode_reject(RejectCode.BUSY, "no"),
        MessageType.ATTACH: AttachRequest("bob", 7, bytes(32)).encode(),
        MessageType.PROBE: BOB.encode(),
        MessageType.PROBED: bytes(8) + ALICE.encode(),
        MessageType.INTRODUCE: Introduction(b"i" * 16, 0, True).encode(),
        MessageType.INTRODUCED: Introduction(b"i" * 16, 1, False).encode(),
    }
    message = encode_message(type_, bodies[type_])
    if state in (HandshakeState.DONE, HandshakeState.FAILED):
        with pytest.raises(LocalProtocolError) as refused:
            machine.receive_data(message)
        assert refused.value.state == state.value
        assert machine.state is state
    elif (state, type_) not in TRANSITIONS:
        with pytest.raises(LinkProtocolError, match=f"while {state.value}") as broken:
            machine.receive_data(message)
        assert broken.value.seen == type_.name
        assert machine.state is HandshakeState.FAILED
    elif type_ not in (MessageType.REJECT, MessageType.ACCEPT, MessageType.ATTACH):
        machine.receive_data(message)
        assert machine.state is TRANSITIONS[state, type_]
    else:  # REJECT, or a proof that is wrong
        with pytest.raises(HandshakeRejected):
            machine.receive_data(message)
        assert machine.state is HandshakeState.FAILED


@pytest.mark.parametrize(
    "wire",
    [
        b"\x00",
        b"\x09",
        b"GET / HTTP/1.1\r\n",
        encode_message(MessageType.HELLO, b""),
        encode_message(MessageType.HELLO, b"\x01"),
        encode_message(MessageType.REJECT, b""),
    ],
)
def test_bytes_that_are_no_handshake_are_refused_and_the_peer_is_told(wire: bytes) -> None:
    _, alice = pair()
    with pytest.raises(LinkProtocolError):
        alice.receive_data(wire)
    reader = MessageReader("alice")
    reader.receive_data(alice.data_to_send())
    message = reader.next_message_untrusted()
    assert message is not None
    assert message[0] is MessageType.REJECT
    assert decode_reject_untrusted(message[1], "alice")[0] is RejectCode.PROTOCOL


def test_an_oversized_message_is_refused_by_its_header() -> None:
    _, alice = pair()
    with pytest.raises(FrameTooLarge) as raised:
        alice.receive_data(bytes((MessageType.HELLO,)) + (limits.HANDSHAKE_SIZE_MAX + 1).to_bytes(2, "little"))
    assert raised.value.limit == limits.HANDSHAKE_SIZE_MAX


def test_the_largest_hello_fits_its_limit() -> None:
    names = tuple(f"{index:064}" for index in range(limits.PARTIES_MAX))
    assert len(Hello(names[0], names[1], bytes(32), party_set=names).encode()) == 800
    assert limits.HANDSHAKE_SIZE_MAX > 800


def test_an_end_of_stream_says_how_far_the_handshake_came() -> None:
    bob, alice = pair()
    hello = bob.data_to_send()
    alice.receive_data(hello[:20])
    with pytest.raises(LinkProtocolError, match="awaiting HELLO") as raised:
        alice.receive_eof()
    assert raised.value.seen == 20
    assert alice.state is HandshakeState.FAILED


def test_an_end_of_stream_after_the_handshake_is_not_its_matter() -> None:
    bob, alice = pair()
    converse(bob, alice)
    bob.receive_eof()
    assert bob.state is HandshakeState.DONE


# HELLO.


def test_a_hello_truncated_anywhere_is_refused() -> None:
    body = BOB.encode()
    assert Hello.decode_untrusted(body) == BOB
    for size in range(len(body)):
        with pytest.raises(LinkProtocolError, match="cut short"):
            Hello.decode_untrusted(body[:size])


def test_a_hello_with_trailing_bytes_is_refused() -> None:
    for extra in range(1, 4):
        with pytest.raises(LinkProtocolError, match="cut short"):
            Hello.decode_untrusted(BOB.encode() + bytes(extra))
    with pytest.raises(LinkProtocolError, match="behind the end"):
        Hello.decode_untrusted(BOB.encode() + b"\x01\0\0\0\0")
    with pytest.raises(LinkProtocolError, match="abilities"):
        Hello.decode_untrusted(BOB.encode() + bytes(4))


def test_abilities_stand_behind_everything_that_earlier_versions_know() -> None:
    able = replace(BOB, abilities=CAN_SUBSTREAMS | 1 << 31)
    assert able.encode() == BOB.encode() + b"\x01\0\0\x80"
    assert Hello.decode_untrusted(able.encode()) == able


@pytest.mark.parametrize(("initiator", "responder"), [(0, 1), (1, 0), (1, 1), (0, 0), (1, 1 << 31)])
def test_substreams_are_on_only_where_both_ends_have_them(initiator: int, responder: int) -> None:
    bob, alice = pair(replace(BOB, abilities=initiator), replace(ALICE, abilities=responder))
    assert not converse(bob, alice)
    assert bob.result is not None
    assert alice.result is not None
    assert bob.result.substreams is alice.result.substreams is ((initiator, responder) == (1, 1))


def test_the_version_is_read_without_the_rest() -> None:
    assert Hello.version_untrusted(b"\x02\x01whatever", "bob") == 0x0102
    with pytest.raises(LinkProtocolError):
        Hello.version_untrusted(b"\x02", "bob")


names = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, categories=["L", "N"]), min_size=1, max_size=20)
hellos = st.builds(
    Hello,
    names,
    names,
    st.binary(min_size=32, max_size=32),
    st.integers(1, 2**32 - 1),
    st.lists(names, unique=True, max_size=6).map(tuple),
    st.integers(1, limits.WORKERS_MAX),
    st.integers(1, 3_600_000),
    st.integers(1, 2**32 - 1),
    st.binary(min_size=32, max_size=32),
    st.integers(0, 0xFFFF),
    st.integers(0, 2**32 - 1),
)


@given(hellos)
def test_any_hello_round_trips(hello: Hello) -> None:
    assert Hello.decode_untrusted(hello.encode()) == hello


@given(hellos, st.data())
def test_a_hello_with_changed_bytes_decodes_or_is_a_protocol_error(hello: Hello, data: st.DataObject) -> None:
    body = bytearray(hello.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = Hello.decode_untrusted(bytes(body))
    except LinkProtocolError:
        return
    assert decoded.encode() == body


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda hello: replace(hello, name="a b"), "name"),
        (lambda hello: replace(hello, nonce=b"short"), "nonce"),
        (lambda hello: replace(hello, parameter_digest=b"short"), "digest"),
        (lambda hello: replace(hello, party_set=("a", "a")), "each once"),
        (lambda hello: replace(hello, epoch=0), "epoch"),
        (lambda hello: replace(hello, workers=65), "workers"),
        (lambda hello: replace(hello, heartbeat_interval_ms=0), "heartbeat"),
        (lambda hello: replace(hello, message_size_max=2**32), "message_size_max"),
    ],
)
def test_a_hello_out_of_its_bounds_is_a_mistake(change: Callable[[Hello], Hello], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        change(BOB)


def test_fields_out_of_bounds_on_the_wire_are_the_peers_fault() -> None:
    body = bytearray(BOB.encode())
    body[-50:-46] = bytes(4)  # the epoch: nonce 32 | epoch 4 | workers 2 | heartbeat 4 | size 8 | digest 32
    with pytest.raises(LinkProtocolError, match="epoch 0"):
        Hello.decode_untrusted(bytes(body))
    crowd = Hello("bob", "alice", bytes(32)).encode()
    place = 2 + 4 + 6
    with pytest.raises(LinkProtocolError, match="parties in a HELLO"):
        Hello.decode_untrusted(crowd[:place] + b"\x41" + crowd[place + 1 :])


def test_secrets_are_not_shown() -> None:
    bob, alice = pair()
    converse(bob, alice)
    assert bob.result is not None
    shown = repr(bob.result) + repr(BOB) + repr(AttachRequest("bob", 1, SECRET))
    assert "nonce" not in shown
    assert "secret" not in shown
    assert "token" not in shown


# REJECT.


def test_a_code_of_a_later_version_still_shows_its_sentence() -> None:
    assert decode_reject_untrusted(b"\xfetoo new", "bob") == (RejectCode.PROTOCOL, "too new")


def test_a_rejection_cannot_forge_a_log_line_or_be_long() -> None:
    assert decode_reject_untrusted(b"\x0aa\nb\x1b[0m", "bob")[1].isprintable()
    assert len(encode_reject(RejectCode.BUSY, "x" * 5000)) == 1 + limits.REASON_SIZE_MAX
    with pytest.raises(FrameTooLarge):
        decode_reject_untrusted(b"\x0a" + b"x" * (limits.REASON_SIZE_MAX + 1), "bob")


# Normal connections.


@pytest.mark.parametrize("slice_size", [1, 3, 1 << 16])
def test_a_connection_of_the_link_is_attached(slice_size: int) -> None:
    bob, alice = attach_pair()
    assert converse(bob, alice, slice_size) == []
    assert bob.result == alice.result
    assert bob.result is not None
    assert (bob.result.connection_class, bob.result.index) == (ConnectionClass.NORMAL, 4)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"our_name": "charlie"}, RejectCode.WRONG_IDENTITY),
        ({"epoch": 6}, RejectCode.EPOCH),
        ({"secret": b"t" * 32}, RejectCode.TOKEN),
        ({"index": 5}, RejectCode.TOKEN),
        ({"connection_class": ConnectionClass.BULK}, RejectCode.TOKEN),
        ({"preamble": b"q" * 32}, RejectCode.TOKEN),
    ],
)
def test_a_connection_that_does_not_belong_is_refused_at_both_ends(
    changes: dict[str, object], code: RejectCode
) -> None:
    bob, alice = attach_pair(**changes)
    at_initiator, at_responder = converse(bob, alice)
    assert at_initiator.code is at_responder.code is code
    assert (at_initiator.by_us, at_responder.by_us) == (False, True)
    assert bob.result is alice.result is None


def test_an_acceptor_without_the_secret_is_refused_by_the_dialler() -> None:
    bob, _ = attach_pair()
    with pytest.raises(HandshakeRejected) as raised:
        bob.receive_data(encode_message(MessageType.ACCEPT, bytes(32)))
    assert raised.value.by_us
    assert raised.value.code is RejectCode.TOKEN


def test_early_frames_behind_an_attach_are_handed_on() -> None:
    bob, alice = attach_pair()
    alice.receive_data(bob.data_to_send() + b"tail")
    assert alice.trailing_data == b"tail"


@pytest.mark.parametrize("cut", [0, 1, 4, 7])
def test_a_truncated_or_lengthened_attach_is_refused(cut: int) -> None:
    body = AttachRequest("bob", 7, bytes(32)).encode()
    with pytest.raises(LinkProtocolError, match="cut short"):
        AttachRequest.decode_untrusted(body[:cut])
    with pytest.raises(LinkProtocolError, match="behind the end"):
        AttachRequest.decode_untrusted(body + bytes(cut + 1))


@given(st.lists(st.binary(max_size=30), max_size=5))
def test_any_bytes_end_a_handshake_in_a_documented_way(slices: list[bytes]) -> None:
    machines: list[Machine] = [*pair(), *attach_pair()]
    for machine in machines:
        try:
            for piece in slices:
                machine.receive_data(piece)
        except (LinkProtocolError, HandshakeRejected):
            assert machine.state is HandshakeState.FAILED
