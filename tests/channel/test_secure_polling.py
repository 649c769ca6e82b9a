"""Looking for what secured connections have, before a process sleeps: what is found, by whom, and what ends a look."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from partywire.engine import records
from partywire.engine.channel.maker import ChannelMaker
from partywire.engine.connection_pump import ConnectionPump
from partywire.engine.handshake import Role
from partywire.engine.preamble import PREAMBLE_SIZE, SecurityMode
from partywire.engine.secure_stream import SecureStream
from partywire.shm import RingReader, RingWriter, Segment, compiled, probe
from partywire.shm.counters import WORD_TAIL
from tests.shm.test_compiled_pump import PumpRig
from tests.support.certificates import noise_links
from tests.support.channels import open_all, shake

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from partywire.engine.channel.channel import Channel

pytestmark = pytest.mark.skipif(compiled.core is None, reason="the compiled core is not there, or not wanted")

QUIET_NS = 2_000_000
LONG_NS = 20_000_000_000


class SecuredRig(PumpRig):
    """A pump whose stream is bob's end of a channel; `channel` is alice's, for whoever has the peer's socket."""

    def __init__(self, folder: Path, buffer_size: int = 0) -> None:
        super().__init__(buffer_size=buffer_size)
        alice, bob = noise_links(folder, SecurityMode.NOISE_XX_CHACHA)
        preamble = bytes(PREAMBLE_SIZE)
        ours = ChannelMaker("bob", "alice", bob).make(Role.INITIATOR, preamble)
        self.channel: Channel = ChannelMaker("alice", "bob", alice).make(Role.RESPONDER, preamble)
        shake(ours, self.channel)
        self.secured = SecureStream(self.stream, ours, self.loop)
        rx = self.pump._rx
        self.pump = ConnectionPump(self.log, self.secured, self.tx, rx, 5, 9)

    def say(self, data: bytes) -> None:
        """The peer sends."""
        self.peer.sendall(self.channel.seal([data], 1 << 16)[0])

    def heard(self) -> bytes:
        """What the peer has got."""
        self.channel.feed(self.peer.recv(1 << 18))
        return open_all(self.channel)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[SecuredRig]:
    made = SecuredRig(tmp_path)
    made.start()
    yield made
    made.close()


@pytest.fixture
def control() -> Iterator[tuple[RingWriter, RingReader]]:
    fence = probe()
    segment = Segment.create(1 << 12)
    writer = RingWriter(Segment.attach(os.dup(segment.fileno())), fence, None)
    reader = RingReader(segment, fence, None)
    yield writer, reader
    writer.close()
    reader.close()


def look(rig: SecuredRig, control: tuple[RingWriter, RingReader], first: int = 0, quiet_ns: int = LONG_NS) -> int:
    assert compiled.core is not None
    place: int = compiled.core.look_around((rig.pump.source,), first, control[1], quiet_ns)
    return place


def test_a_ring_and_a_socket_are_seen_and_moved_by_their_pump(
    rig: SecuredRig, control: tuple[RingWriter, RingReader]
) -> None:
    rig.write(b"to the peer")
    assert look(rig, control) == 0
    assert rig.pump.serve_ring()
    assert rig.heard() == b"to the peer"
    rig.say(b"to the worker")
    assert look(rig, control) == 1
    rig.pump.receive()
    assert b"".join(bytes(record.payload) for record in rig.worker_rx.poll()) == b"to the worker"
    assert look(rig, control, quiet_ns=QUIET_NS) == -1


def test_one_that_always_has_something_does_not_hide_the_other(
    rig: SecuredRig, control: tuple[RingWriter, RingReader]
) -> None:
    rig.write(b"to the peer")
    rig.say(b"to the worker")
    assert [look(rig, control, first) for first in (0, 1, 2, 3)] == [0, 1, 0, 1]


def test_a_look_in_vain_ends_in_time_and_a_control_message_ends_it_at_once(
    rig: SecuredRig, control: tuple[RingWriter, RingReader]
) -> None:
    started = time.monotonic_ns()
    assert look(rig, control, quiet_ns=QUIET_NS) == -1
    assert time.monotonic_ns() - started >= QUIET_NS
    assert control[0].try_write((b"x",), 1, records.CONTROL)
    control[0].publish()
    assert look(rig, control) == -1


def test_an_end_is_left_to_the_pump_and_nothing_holds_the_ring(
    rig: SecuredRig, control: tuple[RingWriter, RingReader]
) -> None:
    rig.peer.shutdown(socket.SHUT_WR)
    assert look(rig, control) == 1
    rig.pump.receive()
    assert "cut off" in rig.log.said[0]
    assert rig.pump.source is None


def test_a_broken_ring_counts_as_one_that_has_something(
    rig: SecuredRig, control: tuple[RingWriter, RingReader]
) -> None:
    rig.worker_tx._segment.words[WORD_TAIL] = 12_345
    assert look(rig, control) == 0


def test_what_was_received_and_not_opened_is_no_matter_of_a_look(rig: SecuredRig) -> None:
    """Nothing of it shows on the socket; the loop's next turn calls the reader."""
    rig.say(b"0123456789")
    room = memoryview(bytearray(4))
    while rig.secured.try_recv_into(room) is None:
        pass
    assert rig.pump.source is None
    while rig.secured.try_recv_into(room):
        pass
    assert rig.pump.source is not None


def test_a_peer_that_takes_nothing_is_no_matter_of_a_look(tmp_path: Path) -> None:
    rig = SecuredRig(tmp_path, buffer_size=64 * 1024)
    rig.start()
    try:
        while rig.pump.source is not None:
            rig.write(bytes(30_000))
            rig.pump.serve_ring()
    finally:
        rig.close()


def test_a_plaintext_connection_is_no_source(rig: SecuredRig) -> None:
    plain = PumpRig().start()
    try:
        assert plain.pump.line is not None
        assert plain.pump.source is None
        assert rig.pump.line is None
    finally:
        plain.close()


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ((), -1, "control", 1),
        ((), 0, None, 1),
        ([], 0, "control", 1),
        (((),), 0, "control", 1),
        ((("control",),), 0, "control", 1),
        ((("control", "x"),), 0, "control", 1),
        (((None, 1),), 0, "control", 1),
        (((),) * 65, 0, "control", 1),
    ],
)
def test_wrong_arguments_are_refused(control: tuple[RingWriter, RingReader], arguments: tuple[Any, ...]) -> None:
    assert compiled.core is not None

    def filled(argument: Any) -> Any:
        if isinstance(argument, tuple):
            return tuple(filled(part) for part in argument)
        return control[1] if argument == "control" else argument

    with pytest.raises((TypeError, ValueError)):
        compiled.core.look_around(*(filled(argument) for argument in arguments))
