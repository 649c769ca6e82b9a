"""One handshake: what completes it, what each end learns, and everything that must make it fail."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from partywire.engine.errors import LocalProtocolError
from partywire.engine.noise import (
    PATTERNS,
    HandshakeState,
    NoiseHandshakeFailed,
    NoiseProtocol,
    PublicKey,
    RecordOpener,
    RecordSealer,
    Turn,
    UntrustedStaticKey,
)
from partywire.engine.noise.handshake import MESSAGE_SIZE_MAX
from tests.noise.noise_pair import ALICE, BOB, IX, KK, MALLORY, PROTOCOLS, XX, Ends, drive, open_all

if TYPE_CHECKING:
    from collections.abc import Callable

by_name = pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.pattern)

STAGES = [(protocol, stage) for protocol in PROTOCOLS for stage in range(len(PATTERNS[protocol.pattern].messages))]
by_stage = pytest.mark.parametrize(
    ("protocol", "stage"), STAGES, ids=[f"{protocol.pattern}-{stage + 1}" for protocol, stage in STAGES]
)


def at_stage(protocol: NoiseProtocol, stage: int) -> tuple[HandshakeState, HandshakeState]:
    """Who writes and who reads message number `stage` (from 0), both about to."""
    ends = Ends(protocol).run(stage)
    return (ends.bob, ends.alice) if stage % 2 else (ends.alice, ends.bob)


def assert_dead(handshake: HandshakeState) -> None:
    """Every call is refused, and goes on being refused."""
    calls: list[Callable[[], object]] = [
        handshake.write_message,
        lambda: handshake.read_message_untrusted(bytes(32)),
        lambda: handshake.verify_peer({ALICE.public, BOB.public}),
        handshake.split,
        lambda: handshake.handshake_hash,
    ]
    for call in calls + calls:
        with pytest.raises(LocalProtocolError, match="failed"):
            call()
    assert handshake.turn is Turn.FAILED


# What completes it.


@by_name
def test_both_ends_learn_the_other_key_and_the_same_hash(protocol: NoiseProtocol) -> None:
    ends = Ends(protocol).run()
    assert ends.alice.remote_static == BOB.public
    assert ends.bob.remote_static == ALICE.public
    assert ends.alice.handshake_hash == ends.bob.handshake_hash
    assert ends.alice.handshake_hash != Ends(protocol).run().alice.handshake_hash


@by_name
def test_what_one_end_seals_the_other_opens_both_ways(protocol: NoiseProtocol) -> None:
    ends = Ends(protocol).run()
    (alice_sends, alice_receives), (bob_sends, bob_receives) = ends.alice.split(), ends.bob.split()
    for sending, receiving in ((alice_sends, bob_receives), (bob_sends, alice_receives)):
        sealed, _ = RecordSealer(sending).seal([b"hello"])
        assert open_all(RecordOpener(receiving), [bytes(sealed)]) == b"hello"
    assert ends.alice.turn is ends.bob.turn is Turn.OVER


def test_messages_have_the_sizes_of_the_patterns() -> None:
    sizes: dict[str, list[int]] = {}
    for protocol in PROTOCOLS:
        ends = Ends(protocol)
        writer, reader = ends.alice, ends.bob
        sizes[protocol.pattern] = []
        while writer.turn is Turn.WRITE:
            message = writer.write_message()
            sizes[protocol.pattern].append(len(message))
            reader.read_message_untrusted(message)
            if reader.turn is Turn.VERIFY:
                reader.verify_peer({ALICE.public, BOB.public})
            writer, reader = reader, writer
    assert sizes == {"XX": [32, 96, 64], "IX": [64, 96], "KK": [48, 48]}


def test_static_keys_travel_in_the_clear_in_no_message_but_the_first_of_ix() -> None:
    for protocol in PROTOCOLS:
        for stage in range(len(PATTERNS[protocol.pattern].messages)):
            message = at_stage(protocol, stage)[0].write_message()
            is_clear = ALICE.public.raw in message or BOB.public.raw in message
            assert is_clear == (protocol is IX and stage == 0)


@by_stage
def test_a_payload_of_each_allowed_size_arrives(protocol: NoiseProtocol, stage: int) -> None:
    empty_size = len(at_stage(protocol, stage)[0].write_message())
    for size in (1, MESSAGE_SIZE_MAX - empty_size):
        writer, reader = at_stage(protocol, stage)
        message = writer.write_message(bytes(size))
        assert len(message) == empty_size + size
        assert reader.read_message_untrusted(message) == bytes(size)
    writer, reader = at_stage(protocol, stage)
    with pytest.raises(ValueError, match="65536 bytes"):
        writer.write_message(bytes(MESSAGE_SIZE_MAX - empty_size + 1))
    assert_dead(writer)


@by_name
def test_nothing_that_could_make_the_keys_again_outlives_the_split(protocol: NoiseProtocol) -> None:
    alice = Ends(protocol).run().alice
    alice.split()
    assert alice._ephemeral is None
    assert not alice._symmetric._chaining_key
    assert alice._symmetric._cipher is None


# Who is accepted.


@pytest.mark.parametrize(("protocol", "stage"), [(XX, 1), (XX, 2), (IX, 0), (IX, 1)])
def test_nothing_goes_on_before_the_decision_about_the_key(protocol: NoiseProtocol, stage: int) -> None:
    writer, reader = at_stage(protocol, stage)
    reader.read_message_untrusted(writer.write_message())
    assert reader.turn is Turn.VERIFY
    key = ALICE.public if stage % 2 == 0 else BOB.public
    assert reader.remote_static == key
    for call in (reader.write_message, reader.split, lambda: reader.read_message_untrusted(bytes(64))):
        with pytest.raises(LocalProtocolError, match="decision about the peer's key"):
            call()
    assert reader.verify_peer([MALLORY.public, key]) == key
    assert reader.turn is not Turn.VERIFY


@pytest.mark.parametrize(("protocol", "stage"), [(XX, 1), (XX, 2), (IX, 0), (IX, 1)])
@pytest.mark.parametrize("accepted", [(), (MALLORY.public,)])
def test_a_key_that_is_not_accepted_ends_the_handshake(
    protocol: NoiseProtocol, stage: int, accepted: tuple[PublicKey, ...]
) -> None:
    writer, reader = at_stage(protocol, stage)
    reader.read_message_untrusted(writer.write_message())
    with pytest.raises(UntrustedStaticKey) as caught:
        reader.verify_peer(accepted)
    assert caught.value.seen == str((BOB if stage % 2 else ALICE).public)
    assert_dead(reader)


def test_a_peer_key_is_given_exactly_when_the_pattern_needs_it() -> None:
    for is_initiator in (True, False):
        with pytest.raises(ValueError, match="needed"):
            HandshakeState(KK, is_initiator, ALICE)
        for protocol in (XX, IX):
            with pytest.raises(ValueError, match="learnt"):
                HandshakeState(protocol, is_initiator, ALICE, remote_static=BOB.public)


def test_with_known_keys_no_decision_is_asked_for() -> None:
    ends = Ends(KK).run()
    assert ends.alice.turn is Turn.SPLIT
    with pytest.raises(LocalProtocolError):
        ends.alice.verify_peer({BOB.public})
    assert ends.alice.turn is Turn.SPLIT


# What must make it fail.


def fails(initiator: HandshakeState, responder: HandshakeState) -> None:
    """The two ends do not come to an end together, and the one that found out is dead."""
    with pytest.raises(NoiseHandshakeFailed):
        drive(initiator, responder)
    dead = [end for end in (initiator, responder) if end.turn is Turn.FAILED]
    assert len(dead) == 1
    assert_dead(dead[0])


@by_name
def test_another_prologue_fails(protocol: NoiseProtocol) -> None:
    fails(Ends(protocol, b"one").alice, Ends(protocol, b"two").bob)


ALL = [NoiseProtocol(p, c, h) for p in PATTERNS for c in ("ChaChaPoly", "AESGCM") for h in ("BLAKE2s", "BLAKE2b")]


@pytest.mark.parametrize(
    ("ours", "theirs"), list(itertools.permutations(ALL[::3], 2)), ids=lambda protocol: protocol.name
)
def test_another_pattern_cipher_or_hash_fails(ours: NoiseProtocol, theirs: NoiseProtocol) -> None:
    fails(Ends(ours).alice, Ends(theirs).bob)


def test_another_known_key_fails_at_either_end() -> None:
    fails(HandshakeState(KK, True, ALICE, remote_static=MALLORY.public), Ends(KK, b"").bob)
    fails(Ends(KK, b"").alice, HandshakeState(KK, False, BOB, remote_static=MALLORY.public))
    fails(HandshakeState(KK, True, MALLORY, remote_static=BOB.public), Ends(KK, b"").bob)


@pytest.mark.parametrize("protocol", [XX, IX], ids=lambda protocol: protocol.pattern)
def test_a_key_that_is_only_claimed_fails(protocol: NoiseProtocol, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mallory says that she is Bob but does not have his private key."""
    mallory = HandshakeState(protocol, False, MALLORY)
    monkeypatch.setattr(MALLORY, "public", BOB.public, raising=True)
    fails(Ends(protocol, b"").alice, mallory)


def go_on_with(writer: HandshakeState, reader: HandshakeState, message: bytes) -> None:
    """Let the reader have that message, and then both ends go on."""
    reader.read_message_untrusted(message)
    if reader.turn is Turn.VERIFY:
        reader.verify_peer({ALICE.public, BOB.public})
    drive(reader, writer)


@by_stage
def test_changed_and_missing_bytes_are_refused(protocol: NoiseProtocol, stage: int) -> None:
    message = at_stage(protocol, stage)[0].write_message()
    for index in range(0, len(message), 5):
        writer, reader = at_stage(protocol, stage)
        message = writer.write_message()
        changed = message[:index] + bytes([message[index] ^ 1 << index % 8]) + message[index + 1 :]
        with pytest.raises((NoiseHandshakeFailed, UntrustedStaticKey)):
            go_on_with(writer, reader, changed)
        # The first messages of XX and IX are in the clear, so the lie may come out with the second one.
        assert reader.turn is Turn.FAILED or (protocol, stage) in ((XX, 0), (IX, 0))
    for size in range(0, len(message), 9):
        writer, reader = at_stage(protocol, stage)
        with pytest.raises(NoiseHandshakeFailed):
            reader.read_message_untrusted(writer.write_message()[:size])
        assert_dead(reader)


def test_the_shortest_and_the_longest_message_are_told_from_shorter_and_longer_ones() -> None:
    assert Ends(XX).bob.read_message_untrusted(ALICE.public.raw) == b""
    assert Ends(XX).bob.read_message_untrusted(ALICE.public.raw.ljust(MESSAGE_SIZE_MAX, b"x"))[-1:] == b"x"
    for size, what in ((31, "ends 1 bytes early"), (0, "ends 32 bytes early"), (MESSAGE_SIZE_MAX + 1, "65536")):
        bob = Ends(XX).bob
        with pytest.raises(NoiseHandshakeFailed, match=what):
            bob.read_message_untrusted(ALICE.public.raw.ljust(size, b"x")[:size])
        assert_dead(bob)


def test_a_message_of_another_handshake_is_refused() -> None:
    recorded = at_stage(XX, 1)[0].write_message()
    alice = at_stage(XX, 1)[1]
    with pytest.raises(NoiseHandshakeFailed, match="message 2"):
        alice.read_message_untrusted(recorded)
    assert_dead(alice)


@by_name
def test_a_message_that_comes_back_to_its_sender_is_refused(protocol: NoiseProtocol) -> None:
    alice = Ends(protocol).alice
    with pytest.raises(NoiseHandshakeFailed):
        alice.read_message_untrusted(alice.write_message())
    assert_dead(alice)


def test_an_ephemeral_key_of_low_order_is_refused_whoever_sends_it() -> None:
    bob = Ends(XX).bob
    bob.read_message_untrusted(bytes(32))
    with pytest.raises(NoiseHandshakeFailed, match="low order"):
        bob.write_message()
    assert_dead(bob)
    alice = at_stage(XX, 1)[1]
    with pytest.raises(NoiseHandshakeFailed, match="low order"):
        alice.read_message_untrusted(bytes(96))
    assert_dead(alice)


def test_a_static_key_of_low_order_is_refused() -> None:
    bob = Ends(IX).bob
    bob.read_message_untrusted(ALICE.public.raw + bytes(32))
    bob.verify_peer([PublicKey(bytes(32))])
    with pytest.raises(NoiseHandshakeFailed, match="low order"):
        bob.write_message()
    assert_dead(bob)


# Calls out of turn.


@by_name
def test_a_call_out_of_turn_is_our_bug_and_changes_nothing(protocol: NoiseProtocol) -> None:
    ends = Ends(protocol)
    for out_of_turn in (ends.bob.write_message, ends.bob.split, lambda: ends.alice.read_message_untrusted(bytes(99))):
        with pytest.raises(LocalProtocolError):
            out_of_turn()
    with pytest.raises(LocalProtocolError):
        _ = ends.alice.handshake_hash
    ends.run()
    ends.alice.split()
    for end, state in ((ends.alice, "over"), (ends.bob, "awaiting split")):
        for out_of_turn in (end.write_message, lambda end=end: end.read_message_untrusted(b"")):
            with pytest.raises(LocalProtocolError, match=state):
                out_of_turn()
    with pytest.raises(LocalProtocolError, match="over does not allow split"):
        ends.alice.split()
    assert ends.alice.handshake_hash == ends.bob.handshake_hash


# Anything at all. The one invariant: only NoiseHandshakeFailed or UntrustedStaticKey, and then the end is dead.


def meet(reader: HandshakeState, message: bytes) -> None:
    try:
        reader.read_message_untrusted(message)
        if reader.turn is Turn.VERIFY:
            reader.verify_peer({ALICE.public, BOB.public})
        if reader.turn is Turn.WRITE:
            reader.write_message()
    except (NoiseHandshakeFailed, UntrustedStaticKey):
        assert_dead(reader)


@by_stage
@settings(max_examples=25)
@given(message=st.binary(max_size=200))
@example(message=b"")
@example(message=bytes(200))
def test_random_bytes_in_any_stage_end_in_typed_errors(protocol: NoiseProtocol, stage: int, message: bytes) -> None:
    _, reader = at_stage(protocol, stage)
    meet(reader, message)
    # In XX the first message is a bare key, which any 32 bytes can be; everything else takes a key to make.
    if (protocol, stage) != (XX, 0):
        assert reader.turn is Turn.FAILED


@by_stage
@settings(max_examples=25)
@given(data=st.data())
def test_a_damaged_message_in_any_stage_ends_in_typed_errors(
    protocol: NoiseProtocol, stage: int, data: st.DataObject
) -> None:
    writer, reader = at_stage(protocol, stage)
    message = bytearray(writer.write_message())
    start = data.draw(st.integers(0, len(message) - 1))
    message[start : start + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=40))
    meet(reader, bytes(message))
