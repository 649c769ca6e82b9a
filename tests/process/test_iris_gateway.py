"""The gateway with callers that speak iris-mpc's protocol beside those that speak ours, on one port or their own."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from partywire.engine.commands import Accepted, Refused, Serve
from partywire.engine.control_socket import ControlSocket
from partywire.engine.gateway import PREAMBLE_TIMEOUT_S, Gateway, make_gateway
from partywire.engine.iris_options import IrisOptions
from partywire.engine.preamble import ConnectionClass, Preamble
from partywire.engine.topology import PartySpec, PeerSpec, routing_tag
from tests.support.family import make_listener

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTY = PartySpec(
    "alice",
    0,
    (
        PeerSpec("alice", 0, "::1", 1),
        PeerSpec("bob", 1, "::1", 2, IrisOptions(2)),
        PeerSpec("charlie", 2, "::1", 3),
        PeerSpec("dora", 3, "::1", 4, IrisOptions(2, tls=True, listen="[::1]:5")),
    ),
)
ID = b"\0\0\0\x01"
BOB = b"\0\0\0\x03bob"


class Rig:
    """A gateway with routes for bob, who speaks iris, charlie, who does not, and dora, who speaks it by TLS at her own
    port; `now` is the test's."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        listener, own = make_listener(), make_listener()
        self.address = listener.getsockname()
        self.own_address = own.getsockname()
        self.links: dict[str, ControlSocket] = {}
        fds = [listener.detach(), own.detach()]
        for name in ("bob", "charlie", "dora"):
            end, theirs = ControlSocket.pair()
            fds.append(end.detach())
            self.links[name] = stack.enter_context(ControlSocket(theirs, "the gateway"))
        self.gateway: Gateway = make_gateway(Serve(PARTY, [1, 2, 3], peer_listeners=[3]), fds)
        stack.callback(self.gateway.close)

    def dial(self, data: bytes = b"", *, own: bool = False) -> socket.socket:
        sock = self._stack.enter_context(socket.create_connection(self.own_address if own else self.address))
        sock.settimeout(10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # pieces arrive as they are sent
        if data:
            sock.sendall(data)
        return sock

    def routed(self, name: str) -> list[tuple[bytes, socket.socket]]:
        found = []
        while (received := self.links[name].try_receive()) is not None:
            message, fds = received
            assert isinstance(message, Accepted)
            found.append((message.preamble, self._stack.enter_context(socket.socket(fileno=fds[0]))))
        return found


@pytest.fixture
def rig() -> Iterator[Rig]:
    with ExitStack() as stack:
        yield Rig(stack)


def test_an_introduction_is_answered_and_routed_by_name_and_nothing_behind_it_is_read(rig: Rig) -> None:
    dialler = rig.dial(ID)
    rig.gateway.do_work(0.0)
    assert dialler.recv(100) == ID
    for piece in (BOB[:2], BOB[2:4], BOB[4:]):
        assert not rig.routed("bob")
        dialler.sendall(piece)
        rig.gateway.do_work(0.0)
    [(introduction, sock)] = rig.routed("bob")
    assert introduction == ID + BOB
    assert not rig.routed("charlie")
    sock.sendall(b"2ok")
    assert dialler.recv(100) == b"2ok"
    assert rig.gateway.waiting_count == 0


def test_both_protocols_come_by_one_port(rig: Rig) -> None:
    preamble = Preamble(ConnectionClass.CONTROL, 0, routing_tag("alice", "charlie")).encode()
    rig.dial(preamble)
    rig.dial(ID + BOB)
    rig.gateway.do_work(0.0)
    rig.gateway.do_work(0.0)
    assert len(rig.routed("bob")) == len(rig.routed("charlie")) == 1


@pytest.mark.parametrize(
    ("data", "refused"),
    [
        (ID + b"\0\0\0\x07charlie", Refused(1, 0, 0)),  # speaks our protocol, says our configuration
        (ID + b"\0\0\0\x05alice", Refused(1, 0, 0)),
        (ID + b"\0\0\0\x07mallory", Refused(1, 0, 0)),
        (ID + b"\0\0\0\0", Refused(0, 1, 0)),
        (ID + b"\xff\xff\xff\xff", Refused(0, 1, 0)),
        (ID + b"\0\0\0\x02\xff\xfe", Refused(0, 1, 0)),
        (ID + BOB + b"early", Refused(0, 1, 0)),
        (ID + b"\0\0\0\x04dora", Refused(1, 0, 0)),  # must prove her name, at another port
        (Preamble(ConnectionClass.CONTROL, 0, routing_tag("alice", "dora")).encode(), Refused(1, 0, 0)),
        (Preamble(ConnectionClass.CONTROL, 0, routing_tag("alice", "bob")).encode(), Refused(1, 0, 0)),
        (Preamble(ConnectionClass.PROBE, 0, routing_tag("alice", "bob")).encode(), Refused(1, 0, 0)),
    ],
)
def test_whoever_is_not_a_peer_of_that_protocol_is_closed_on_and_counted(
    rig: Rig, data: bytes, refused: Refused
) -> None:
    dialler = rig.dial(data)
    rig.gateway.do_work(0.0)
    rig.gateway.do_work(0.0)
    assert rig.gateway.refused == refused
    assert rig.gateway.waiting_count == 0
    try:
        assert dialler.recv(100) in (b"", ID)
    except ConnectionResetError:
        pass  # bytes were left unread
    assert not rig.routed("bob")
    assert not rig.routed("charlie")


@pytest.mark.parametrize("data", [ID[:1], ID, ID + BOB[:2], ID + BOB[:-1]])
def test_a_caller_that_stops_in_the_middle_has_as_long_as_any_other(rig: Rig, data: bytes) -> None:
    dialler = rig.dial(data)
    rig.gateway.do_work(0.0)
    rig.gateway.do_work(PREAMBLE_TIMEOUT_S - 0.1)
    assert rig.gateway.waiting_count == 1
    rig.gateway.do_work(PREAMBLE_TIMEOUT_S)
    assert rig.gateway.refused == Refused(unknown=0, garbage=0, silent=1)
    assert dialler.recv(100) in (ID, b"")


def test_what_comes_by_a_peers_own_port_is_handed_over_unread_once_it_begins_like_tls(rig: Rig) -> None:
    dialler = rig.dial(own=True)
    rig.gateway.do_work(0.0)
    assert not rig.routed("dora")
    dialler.sendall(b"\x16\x03")
    rig.gateway.do_work(0.0)
    [(beginning, sock)] = rig.routed("dora")
    assert beginning == b""
    assert sock.recv(100) == b"\x16\x03"
    assert rig.gateway.waiting_count == 0


@pytest.mark.parametrize(
    "data", [ID + b"\0\0\0\x04dora", Preamble(ConnectionClass.CONTROL, 0, routing_tag("alice", "dora")).encode()]
)
def test_a_peers_own_port_takes_nothing_but_tls(rig: Rig, data: bytes) -> None:
    rig.dial(data, own=True)
    rig.gateway.do_work(0.0)
    rig.gateway.do_work(0.0)
    assert rig.gateway.refused == Refused(0, 1, 0)
    assert not rig.routed("dora")


def test_who_says_nothing_at_a_peers_own_port_has_as_long_as_elsewhere(rig: Rig) -> None:
    dialler = rig.dial(own=True)
    rig.gateway.do_work(0.0)
    rig.gateway.do_work(PREAMBLE_TIMEOUT_S)
    assert rig.gateway.refused == Refused(0, 0, 1)
    assert dialler.recv(1) == b""
