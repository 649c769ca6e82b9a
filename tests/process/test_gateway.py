"""The gateway with every kind of caller: it waits for nobody, and routes by 32 bytes."""

from __future__ import annotations

import errno
import os
import socket
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from partywire.engine import gateway as gateway_module
from partywire.engine.antechamber import Antechamber
from partywire.engine.commands import Accepted, Refused, Serve
from partywire.engine.control_socket import ControlSocket
from partywire.engine.errors import HandshakeRejected, RejectCode
from partywire.engine.gateway import ACCEPT_PAUSE_S, PREAMBLE_TIMEOUT_S, Gateway, make_answers, make_routes
from partywire.engine.handshake import HandshakeState, Role
from partywire.engine.handshake_messages import Hello, MessageType
from partywire.engine.preamble import ConnectionClass, Preamble
from partywire.engine.probe import Probe
from partywire.engine.topology import PartySpec, PeerSpec, routing_tag
from tests.support.family import make_listener

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTY = PartySpec("alice", 0, tuple(PeerSpec(name, index, "::1", 1) for index, name in enumerate(("alice", "bob"))))
PREAMBLE = Preamble(ConnectionClass.NORMAL, 3, routing_tag("alice", "bob")).encode()


class GatewayRig:
    """A gateway with one route; `now` is the test's."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        listener = make_listener()
        self.address = listener.getsockname()
        ours, theirs = ControlSocket.pair()
        self.link = stack.enter_context(ControlSocket(theirs, "the gateway"))
        routes = make_routes(PARTY, [1], [ControlSocket(ours, "bob's I/O process")])
        self.gateway = Gateway([listener], routes, make_answers(Serve(PARTY, [1], workers=3)))
        stack.callback(self.gateway.close)

    def dial(self, data: bytes = b"") -> socket.socket:
        sock = self._stack.enter_context(socket.create_connection(self.address))
        sock.settimeout(10)
        if data:
            sock.sendall(data)
        return sock

    def routed(self) -> list[tuple[Accepted, socket.socket]]:
        found = []
        while (received := self.link.try_receive()) is not None:
            message, fds = received
            assert isinstance(message, Accepted)
            found.append((message, self._stack.enter_context(socket.socket(fileno=fds[0]))))
        return found


@pytest.fixture
def rig() -> Iterator[GatewayRig]:
    with ExitStack() as stack:
        yield GatewayRig(stack)


def test_a_preamble_is_routed_with_its_descriptor_and_nothing_behind_it_is_read(rig: GatewayRig) -> None:
    dialler = rig.dial(PREAMBLE + b"hello")
    rig.gateway.do_work(0.0)
    [(accepted, sock)] = rig.routed()
    assert accepted.preamble == PREAMBLE
    assert accepted.address.startswith("127.0.0.1:")
    sock.setblocking(True)
    assert sock.recv(100) == b"hello"
    sock.sendall(b"answer")
    assert dialler.recv(100) == b"answer"


def test_a_preamble_in_pieces_is_routed_once_it_is_whole(rig: GatewayRig) -> None:
    dialler = rig.dial()
    for index in range(len(PREAMBLE)):
        assert not rig.routed()
        dialler.sendall(PREAMBLE[index : index + 1])
        rig.gateway.do_work(0.0)
    assert len(rig.routed()) == 1


def test_silent_and_slow_callers_block_nobody_and_are_closed_in_time(rig: GatewayRig) -> None:
    silent, slow = rig.dial(), rig.dial(PREAMBLE[:10])
    rig.gateway.do_work(0.0)
    rig.dial(PREAMBLE)
    rig.gateway.do_work(1.0)
    assert len(rig.routed()) == 1
    assert rig.gateway.next_deadline() == PREAMBLE_TIMEOUT_S
    rig.gateway.do_work(PREAMBLE_TIMEOUT_S)
    assert rig.gateway.waiting_count == 0
    assert rig.gateway.refused == Refused(unknown=0, garbage=0, silent=2)
    assert silent.recv(1) == b""
    assert slow.recv(1) == b""


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", PREAMBLE[:8] + b"\xff" * 24, b"\x00"])
def test_garbage_is_closed_at_once_and_counted(rig: GatewayRig, data: bytes) -> None:
    dialler = rig.dial(data)
    rig.gateway.do_work(0.0)
    assert rig.gateway.refused == Refused(unknown=0, garbage=1, silent=0)
    assert rig.gateway.waiting_count == 0
    try:
        assert dialler.recv(1) == b""
    except ConnectionResetError:
        pass  # more had come than the gateway read


def test_an_unknown_routing_tag_is_closed_without_a_word_and_counted(rig: GatewayRig) -> None:
    dialler = rig.dial(Preamble(ConnectionClass.CONTROL, 0, routing_tag("alice", "charlie")).encode())
    rig.gateway.do_work(0.0)
    assert dialler.recv(1) == b""
    assert rig.gateway.refused == Refused(unknown=1, garbage=0, silent=0)
    assert not rig.routed()


# Probes.


def question(name: str = "bob", peer: str = "alice") -> tuple[bytes, Probe]:
    core = Probe(Role.INITIATOR, Hello(name, peer, b"q" * 32, party_set=("alice", "bob")))
    return Preamble(ConnectionClass.PROBE, 0, routing_tag(peer, name)).encode(), core


def answered(rig: GatewayRig, sock: socket.socket, core: Probe) -> None:
    """Everything that the gateway says, up to its end."""
    while core.state is HandshakeState.AWAITING_PROBED:
        rig.gateway.do_work(0.0)
        data = sock.recv(4096)
        assert data
        core.receive_data(data)
    assert sock.recv(1) == b""


@pytest.mark.parametrize("slice_size", [1, 7, 1000])
def test_a_probe_is_answered_and_reaches_no_io_process(rig: GatewayRig, slice_size: int) -> None:
    preamble, core = question()
    sock = rig.dial()
    wire = preamble + core.data_to_send()
    for start in range(0, len(wire), slice_size):
        sock.sendall(wire[start : start + slice_size])
        rig.gateway.do_work(0.0)
    answered(rig, sock, core)
    assert core.result is not None
    assert core.result.peer.name == "alice"
    assert core.result.peer.workers == 3
    assert abs(core.result.clock_ms / 1000 - time.time()) < 60
    assert not rig.routed()
    assert rig.gateway.waiting_count == 1  # until the prober has read it
    sock.close()
    rig.gateway.do_work(0.0)
    assert rig.gateway.waiting_count == 0
    assert rig.gateway.refused == Refused(0, 0, 0)


def test_a_prober_that_does_not_leave_is_closed_in_time_and_counts_as_nothing(rig: GatewayRig) -> None:
    preamble, core = question()
    sock = rig.dial(preamble + core.data_to_send())
    answered(rig, sock, core)
    rig.gateway.do_work(PREAMBLE_TIMEOUT_S)
    assert rig.gateway.waiting_count == 0
    assert rig.gateway.refused == Refused(0, 0, 0)
    again, core = question()
    talkative = rig.dial(again + core.data_to_send())
    answered(rig, talkative, core)
    talkative.sendall(b"more")
    rig.gateway.do_work(0.0)
    assert rig.gateway.waiting_count == 0


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"version": 2}, RejectCode.VERSION),
        ({"party_set": ("alice", "bob", "eve")}, RejectCode.PARTY_SET),
        ({"parameter_digest": b"x" * 32}, RejectCode.PARAMETERS),
        ({"workers": 64}, RejectCode.PARAMETERS),
    ],
)
def test_a_probe_that_does_not_fit_is_refused_as_a_hello_would_be(
    rig: GatewayRig, fields: dict[str, object], code: RejectCode
) -> None:
    preamble, _ = question()
    hello = replace(Hello("bob", "alice", b"q" * 32, party_set=("alice", "bob")), **fields)  # type: ignore[arg-type]
    core = Probe(Role.INITIATOR, hello)
    sock = rig.dial(preamble + core.data_to_send())
    with pytest.raises(HandshakeRejected) as rejected:
        answered(rig, sock, core)
    assert rejected.value.code is code


def test_a_probe_by_a_stranger_is_closed_without_a_word(rig: GatewayRig) -> None:
    for preamble, core in (question("eve"), question(peer="eve")):
        sock = rig.dial(preamble)
        rig.gateway.do_work(0.0)
        assert sock.recv(1) == b""
        assert core.result is None
    assert rig.gateway.refused == Refused(unknown=2, garbage=0, silent=0)


def test_a_probe_that_asks_nothing_or_nonsense_is_bounded(rig: GatewayRig) -> None:
    preamble, _ = question()
    silent = rig.dial(preamble)
    nonsense = rig.dial(preamble + b"GET / HTTP/1.1\r\n")
    huge = rig.dial(preamble + b"\x05\xff\xff")
    rig.gateway.do_work(0.0)
    for sock in (nonsense, huge):
        assert sock.recv(100).startswith(bytes((MessageType.REJECT,)))
    rig.gateway.do_work(PREAMBLE_TIMEOUT_S)
    assert silent.recv(1) == b""
    assert rig.gateway.refused == Refused(unknown=0, garbage=2, silent=1)
    assert rig.gateway.waiting_count == 0


def test_early_dials_are_parked_until_the_io_process_takes_them(rig: GatewayRig) -> None:
    for _ in range(20):
        rig.dial(PREAMBLE)
    rig.gateway.do_work(0.0)
    assert rig.gateway.waiting_count == 0
    assert len(rig.routed()) == 20


def test_a_crowd_of_silent_callers_costs_a_bounded_number_of_descriptors(rig: GatewayRig) -> None:
    rig.gateway._waiting = Antechamber(5, 5)
    crowd = [rig.dial() for _ in range(12)]
    rig.gateway.do_work(0.0)
    assert rig.gateway.waiting_count == 5
    assert crowd[0].recv(1) == b""  # the oldest went first
    rig.dial(PREAMBLE)
    rig.gateway.do_work(0.0)
    assert len(rig.routed()) == 1


def test_one_address_gets_a_quarter_of_the_places_and_takes_from_nobody_else(
    rig: GatewayRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.gateway._waiting = Antechamber(16, 4)
    origins = iter(["192.0.2.1", *["192.0.2.2"] * 10])
    monkeypatch.setattr(gateway_module, "origin_of", lambda _: next(origins))
    alone, *crowd = [rig.dial() for _ in range(11)]
    rig.gateway.do_work(0.0)
    assert rig.gateway.waiting_count == 5
    assert rig.gateway.refused == Refused(unknown=0, garbage=0, silent=0, crowded=6)
    assert crowd[5].recv(1) == b""
    alone.sendall(PREAMBLE)
    rig.gateway.do_work(1.0)
    assert len(rig.routed()) == 1


def test_a_number_that_was_taken_over_in_the_same_turn_is_another_caller(rig: GatewayRig) -> None:
    rig.gateway._waiting = Antechamber(2, 2)
    first, second = rig.dial(), rig.dial()
    rig.gateway.do_work(0.0)
    # In one turn: two more callers close the first two to make room, one of them gets the number of one that was
    # closed, and what the first two sent has become readable.
    third, fourth, fifth = rig.dial(), rig.dial(), rig.dial()
    first.sendall(PREAMBLE[:4])
    second.sendall(PREAMBLE[:4])
    rig.gateway.do_work(0.0)
    assert rig.gateway.waiting_count == 2
    fourth.sendall(PREAMBLE)
    fifth.sendall(PREAMBLE)
    rig.gateway.do_work(0.0)
    assert len(rig.routed()) == 2
    assert rig.gateway.refused == Refused(unknown=0, garbage=0, silent=0, crowded=3)
    third.close()


def test_nothing_is_accepted_for_a_moment_when_descriptors_run_out(rig: GatewayRig) -> None:
    class NoMore:
        """A listening socket in a process whose descriptors are all in use."""

        def accept(self) -> tuple[socket.socket, object]:
            raise OSError(errno.EMFILE, "Too many open files")

        def fileno(self) -> int:
            return listener.fileno()

    listeners = rig.gateway._listeners
    [listener] = listeners
    rig.gateway._listeners = {NoMore(): None}  # type: ignore[dict-item]
    rig.dial(PREAMBLE)
    rig.gateway.do_work(0.0)
    assert rig.gateway.next_deadline() == ACCEPT_PAUSE_S
    assert rig.gateway.do_work(0.0) == 0  # the dial is still there, and nobody spins over it
    rig.gateway._listeners = listeners
    rig.gateway.do_work(ACCEPT_PAUSE_S)
    assert len(rig.routed()) == 1


def test_a_dead_io_process_costs_its_diallers_and_nobody_else(rig: GatewayRig) -> None:
    rig.link.close()
    dialler = rig.dial(PREAMBLE)
    rig.gateway.do_work(0.0)
    assert dialler.recv(1) == b""
    assert rig.gateway.waiting_count == 0


def test_a_caller_that_goes_away_is_forgotten(rig: GatewayRig) -> None:
    rig.dial(PREAMBLE[:5]).close()
    for _ in range(3):
        rig.gateway.do_work(0.0)
    assert rig.gateway.waiting_count == 0


def test_descriptors_of_routed_connections_stay_with_the_io_process(rig: GatewayRig) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with rig.dial(PREAMBLE):
        rig.gateway.do_work(0.0)
        [(_, sock)] = rig.routed()
        sock.close()
    assert len(os.listdir("/proc/self/fd")) == before
