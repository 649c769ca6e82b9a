"""Noise channels joined in memory: every mode, wrong keys and settings, replays, and where streams end or break."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from partywire.engine.channel.link_security import NOISE_MODES, PROVING_MODES
from partywire.engine.channel.noise import NoiseChannel
from partywire.engine.errors import HandshakeRejected, LinkProtocolError, RejectCode
from partywire.engine.handshake import Role
from partywire.engine.handshake_messages import MessageReader, MessageType
from partywire.engine.noise import PrivateKey
from partywire.engine.preamble import ConnectionClass, Preamble, SecurityMode
from partywire.engine.topology import routing_tag
from tests.support.channels import carry, drained, open_all, shake

if TYPE_CHECKING:
    from collections.abc import Callable

ALICE, BOB, MALLORY = (PrivateKey.generate() for _ in range(3))
MODES = tuple(NOISE_MODES.values())
OF_EACH_PATTERN = (SecurityMode.NOISE_XX_CHACHA, SecurityMode.NOISE_IX_AES, SecurityMode.NOISE_KK_CHACHA)


def preamble(mode: SecurityMode, index: int = 0) -> bytes:
    return Preamble(ConnectionClass.NORMAL, index, routing_tag("alice", "bob"), mode).encode()


def dialler(
    mode: SecurityMode, key: PrivateKey = BOB, expects: PrivateKey = ALICE, index: int = 0, name: str = "bob"
) -> NoiseChannel:
    return NoiseChannel(mode, Role.INITIATOR, "alice", key, str(expects.public), preamble(mode, index), (name, "alice"))


def acceptor(
    mode: SecurityMode, key: PrivateKey = ALICE, expects: PrivateKey = BOB, index: int = 0, name: str = "alice"
) -> NoiseChannel:
    return NoiseChannel(mode, Role.RESPONDER, "bob", key, str(expects.public), preamble(mode, index), ("bob", name))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_every_mode_proves_both_ends_and_carries_bytes_both_ways(mode: SecurityMode, step: int) -> None:
    bob, alice = dialler(mode), acceptor(mode)
    assert (bob.result, alice.result) == (None, None)
    shake(bob, alice, step)
    assert (bob.result, alice.result) == (str(ALICE.public), str(BOB.public))
    large = bytes(range(256)) * 1000
    assert carry(bob, alice, [b"one", b"two", large, b"three"]) == b"onetwo" + large + b"three"
    assert carry(alice, bob, [b"back"]) == b"back"


@pytest.mark.parametrize("mode", OF_EACH_PATTERN)
def test_the_acceptor_refuses_another_key_and_the_dialler_hears_of_it(mode: SecurityMode) -> None:
    mallory, alice = dialler(mode, MALLORY), acceptor(mode)
    with pytest.raises(HandshakeRejected) as caught:
        shake(mallory, alice)
    assert (caught.value.by_us, caught.value.code, alice.result) == (True, RejectCode.CREDENTIALS, None)
    heard = refusal(mallory, alice.data_to_send())
    assert (heard.by_us, heard.code) == (False, RejectCode.CREDENTIALS)


@pytest.mark.parametrize("mode", OF_EACH_PATTERN)
def test_the_dialler_refuses_another_key_and_the_acceptor_hears_of_it(mode: SecurityMode) -> None:
    bob, mallory = dialler(mode), acceptor(mode, MALLORY)
    with pytest.raises(HandshakeRejected) as caught:
        shake(bob, mallory)
    who_refused, other = (mallory, bob) if mode is SecurityMode.NOISE_KK_CHACHA else (bob, mallory)
    assert (caught.value.by_us, caught.value.code, bob.result) == (True, RejectCode.CREDENTIALS, None)
    heard = refusal(other, who_refused.data_to_send())
    assert (heard.by_us, heard.code) == (False, RejectCode.CREDENTIALS)


def test_our_own_key_is_not_shown_to_a_responder_that_is_not_the_peer() -> None:
    bob, mallory = dialler(SecurityMode.NOISE_XX_AES), acceptor(SecurityMode.NOISE_XX_AES, MALLORY)
    mallory.receive_data(bob.data_to_send())
    with pytest.raises(HandshakeRejected):
        bob.receive_data(mallory.data_to_send())
    said = bob.data_to_send()
    assert said[0] == MessageType.REJECT  # and no third message, which would hold it
    with pytest.raises(HandshakeRejected, match="key shown for alice"):
        mallory.receive_data(said)


def refusal(channel: NoiseChannel, data: bytes) -> HandshakeRejected:
    """What the other end makes of these last words."""
    if channel.result is None:
        with pytest.raises(HandshakeRejected) as caught:
            channel.receive_data(data)
        return caught.value
    channel.feed(data)
    reader = MessageReader("peer")
    reader.receive_data(open_all(channel))
    message = reader.next_message_untrusted()
    assert message is not None
    assert message[0] is MessageType.REJECT
    return HandshakeRejected("peer", RejectCode(message[1][0]), message[1][1:].decode(), by_us=False)


@pytest.mark.parametrize("mode", OF_EACH_PATTERN)
@pytest.mark.parametrize(
    "other", [partial(acceptor, index=1), partial(acceptor, name="zoe")], ids=["connection", "identity"]
)
def test_both_ends_must_agree_on_preamble_and_names(mode: SecurityMode, other: partial[NoiseChannel]) -> None:
    bob, alice = dialler(mode), other(mode)
    with pytest.raises(HandshakeRejected, match="other settings or keys"):
        shake(bob, alice)
    assert None in (bob.result, alice.result)


def test_a_replayed_handshake_of_xx_fails_at_its_last_message() -> None:
    mode = SecurityMode.NOISE_XX_CHACHA
    bob, alice = dialler(mode), acceptor(mode)
    first = bob.data_to_send()
    alice.receive_data(first)
    bob.receive_data(alice.data_to_send())
    third = bob.data_to_send()
    alice.receive_data(third)
    assert alice.result is not None
    again = acceptor(mode)
    again.receive_data(first)
    with pytest.raises(HandshakeRejected):
        again.receive_data(third)
    assert again.result is None


@pytest.mark.parametrize("mode", MODES)
def test_a_replay_takes_a_place_among_the_proven_in_no_mode(mode: SecurityMode) -> None:
    """Who has one is disturbed by no stranger, so no stranger may get in."""
    first = dialler(mode).data_to_send()
    alice = acceptor(mode)
    alice.receive_data(first)
    assert (alice.result is None) == (mode in PROVING_MODES)


@pytest.mark.parametrize("mode", [SecurityMode.NOISE_IX_CHACHA, SecurityMode.NOISE_KK_AES])
def test_a_replayed_handshake_of_ix_or_kk_fails_at_its_first_record(mode: SecurityMode) -> None:
    bob, alice = dialler(mode), acceptor(mode)
    first = bob.data_to_send()
    alice.receive_data(first)
    bob.receive_data(alice.data_to_send())
    record = bytes(bob.seal([b"hello"], 100)[0])
    alice.feed(record)
    assert open_all(alice) == b"hello"
    again = acceptor(mode)
    again.receive_data(first)
    again.feed(record)
    with pytest.raises(HandshakeRejected, match="repeated an old handshake"):
        open_all(again)


@pytest.mark.parametrize("mode", OF_EACH_PATTERN)
@pytest.mark.parametrize("garbage", [b"\xff\xff", b"\x00\x30" + bytes(48), b"\x00\x00", b"\x00\xff" + bytes(255)])
def test_garbage_in_the_place_of_a_handshake_message_is_refused(mode: SecurityMode, garbage: bytes) -> None:
    for channel in (dialler(mode), acceptor(mode)):
        try:
            channel.receive_data(garbage)
        except (HandshakeRejected, LinkProtocolError):
            continue
        assert channel.result is None  # XX: 32 bytes of anything are a first message
    with pytest.raises(LinkProtocolError):
        dialler(mode).receive_eof()


def test_a_replayed_changed_or_reordered_record_ends_the_channel() -> None:
    spoils: list[Callable[[bytes, bytes], list[bytes]]] = [
        lambda one, two: [one, one],
        lambda one, two: [two],
        lambda one, two: [one[:-1] + bytes((one[-1] ^ 1,))],
        lambda one, two: [one, b"\x00\x01x"],
    ]
    for spoil in spoils:
        bob, alice = dialler(SecurityMode.NOISE_XX_AES), acceptor(SecurityMode.NOISE_XX_AES)
        shake(bob, alice)
        carry(bob, alice, [b"before"])
        one, two = (bytes(bob.seal([text], 100)[0]) for text in (b"one", b"two"))
        *good, bad = spoil(one, two)
        for record in good:
            alice.feed(record)
            assert open_all(alice) == b"one"
        alice.feed(bad)
        with pytest.raises(LinkProtocolError, match="record was refused"):
            open_all(alice)


def test_either_end_ends_its_direction_alone_and_a_cut_is_told_from_an_end() -> None:
    bob, alice = dialler(SecurityMode.NOISE_KK_CHACHA), acceptor(SecurityMode.NOISE_KK_CHACHA)
    shake(bob, alice)
    alice.feed(bytes(bob.seal([b"last"], 100)[0]) + bob.seal_end())
    assert drained(alice) == (b"last", True)
    alice.receive_end_of_file()
    assert carry(alice, bob, [b"still here"]) == b"still here"
    with pytest.raises(LinkProtocolError, match="cut off"):
        bob.receive_end_of_file()


def test_no_key_is_shown() -> None:
    channel = dialler(SecurityMode.NOISE_XX_AES)
    assert BOB.secret_bytes().hex() not in repr(vars(channel))
