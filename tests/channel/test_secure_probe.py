"""The gateway's end of a probe of a secured link: answered to the peer alone, and over after anything else."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from partywire.engine.channel.maker import ChannelMaker
from partywire.engine.errors import HandshakeRejected, LinkProtocolError
from partywire.engine.gateway import SECURED_PROBES_PER_S, Gateway
from partywire.engine.handshake import HandshakeState, Role
from partywire.engine.handshake_messages import Hello
from partywire.engine.preamble import ConnectionClass, Preamble, SecurityMode
from partywire.engine.probe import Probe
from partywire.engine.secure_probe import RefusedProbe, SecureProbe
from partywire.engine.topology import routing_tag
from tests.support.certificates import noise_links
from tests.support.channels import open_all
from tests.support.family import make_listener

if TYPE_CHECKING:
    from pathlib import Path

    from partywire.engine.channel.channel import Channel

OPENING = bytes(32)


@pytest.fixture
def ends(tmp_path: Path) -> tuple[Channel, SecureProbe]:
    """The prober's channel, and the answer to it."""
    alice, bob = noise_links(tmp_path, SecurityMode.NOISE_XX_AES)
    channel = ChannelMaker("alice", "bob", alice).make(Role.RESPONDER, OPENING)
    probe = Probe(Role.RESPONDER, Hello("alice", "bob", bytes(32)), clock_ms=7)
    return ChannelMaker("bob", "alice", bob).make(Role.INITIATOR, OPENING), SecureProbe(channel, probe)


def shaken(bob: Channel, answer: SecureProbe) -> None:
    answer.receive_data(bob.data_to_send())
    bob.receive_data(answer.data_to_send())
    assert answer.data_to_send() == b""


@pytest.mark.parametrize("step", [1, 1 << 20])
def test_the_question_is_answered_inside_the_channel_and_then_it_is_over(
    ends: tuple[Channel, SecureProbe], step: int
) -> None:
    bob, answer = ends
    shaken(bob, answer)
    question = Probe(Role.INITIATOR, Hello("bob", "alice", b"\x01" * 32))
    data = bob.data_to_send() + bytes(bob.seal([question.data_to_send()], 8192)[0])
    for start in range(0, len(data), step):
        assert answer.data_to_send() == b""
        answer.receive_data(data[start : start + step])
    assert answer.state is HandshakeState.DONE
    bob.feed(answer.data_to_send())
    question.receive_data(open_all(bob))
    assert question.result is not None
    assert question.result.clock_ms == 7
    bob.receive_end_of_file()  # its end was sealed behind the answer


def test_a_refusal_is_sealed_too(ends: tuple[Channel, SecureProbe]) -> None:
    bob, answer = ends
    shaken(bob, answer)
    question = Probe(Role.INITIATOR, Hello("bob", "alice", b"\x01" * 32, parameter_digest=b"x" * 32))
    with pytest.raises(HandshakeRejected):
        answer.receive_data(bob.data_to_send() + bytes(bob.seal([question.data_to_send()], 8192)[0]))
    assert answer.state is HandshakeState.FAILED
    said = answer.data_to_send()
    assert b"parameters" not in said
    bob.feed(said)
    with pytest.raises(HandshakeRejected, match="different parameters"):
        question.receive_data(open_all(bob))


@pytest.mark.parametrize("stage", ["first", "second", "records", "question"])
def test_garbage_at_any_stage_ends_it(ends: tuple[Channel, SecureProbe], stage: str) -> None:
    bob, answer = ends
    garbage = b"\xff\xff" + bytes(70_000)
    if stage != "first":
        shaken(bob, answer)
    if stage in ("records", "question"):
        answer.receive_data(bob.data_to_send())
        if stage == "question":
            garbage = bytes(bob.seal([b"\xff" * 100], 8192)[0])
    with pytest.raises((HandshakeRejected, LinkProtocolError)):
        answer.receive_data(garbage)
    assert answer.state is HandshakeState.FAILED


def test_a_flood_of_probes_costs_a_bounded_number_of_handshakes_a_second() -> None:
    """Whoever knows the names of two parties can ask for them."""
    begun = 0

    def answer(preamble: Preamble, received: bytes) -> RefusedProbe:
        nonlocal begun
        begun += 1
        return RefusedProbe("busy enough")

    tag = routing_tag("alice", "bob")
    probes = {mode: Preamble(ConnectionClass.PROBE, 0, tag, mode).encode() for mode in SecurityMode}
    with ExitStack() as stack:
        listener = make_listener()
        gateway = Gateway([listener], {}, {tag: answer})
        stack.callback(gateway.close)

        def ask(mode: SecurityMode, count: int, now: float) -> None:
            for _ in range(count):
                sock = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=10))
                sock.sendall(probes[mode])
            while gateway.do_work(now):
                pass

        ask(SecurityMode.TLS, SECURED_PROBES_PER_S + 5, 1.0)
        assert begun == SECURED_PROBES_PER_S
        assert gateway.refused.crowded == 5
        ask(SecurityMode.PLAINTEXT, 5, 1.0)  # which cost next to nothing
        assert begun == SECURED_PROBES_PER_S + 5
        ask(SecurityMode.NOISE_XX_AES, 5, 1.0 + 3 / SECURED_PROBES_PER_S)
        assert begun == SECURED_PROBES_PER_S + 8
