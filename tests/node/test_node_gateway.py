"""What the gateway of a party with a node does with first bytes: the node's, the links', and everybody else's."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from partywire.engine.commands import Accepted, CommandError, Refused, Serve
from partywire.engine.control_socket import ControlSocket
from partywire.engine.gateway import PREAMBLE_TIMEOUT_S, Gateway, make_gateway
from partywire.engine.peers.wire import LIVENESS
from partywire.engine.preamble import ConnectionClass, Preamble
from partywire.engine.topology import PartySpec, PeerSpec, routing_tag
from tests.support.family import make_listener

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTY = PartySpec("alice", 0, tuple(PeerSpec(name, index, "::1", 1) for index, name in enumerate(("alice", "bob"))))
PREAMBLE = Preamble(ConnectionClass.NORMAL, 3, routing_tag("alice", "bob")).encode()
NETWORK = 0x26


class Rig:
    """A gateway as a Serve asks for one, with one link and the node; `now` is the test's."""

    def __init__(self, stack: ExitStack, node_bytes: bytes = bytes((NETWORK, LIVENESS))) -> None:
        self._stack = stack
        listener = make_listener()
        self.address = listener.getsockname()
        fds = [listener.detach()]
        self.ends: list[ControlSocket] = []
        for _ in range(1 + bool(node_bytes)):
            ours, theirs = ControlSocket.pair()
            fds.append(ours.detach())
            self.ends.append(stack.enter_context(ControlSocket(theirs, "the gateway")))
        self.gateway: Gateway = make_gateway(Serve(PARTY, [1], node_bytes=node_bytes), fds)
        stack.callback(self.gateway.close)

    def dial(self, data: bytes = b"") -> socket.socket:
        sock = self._stack.enter_context(socket.create_connection(self.address))
        sock.settimeout(10)
        sock.sendall(data)
        return sock

    def taken(self, end: int) -> list[tuple[bytes, bytes]]:
        """What came by one of the ends: its preamble, and what can still be read of it."""
        found = []
        while (received := self.ends[end].try_receive()) is not None:
            message, fds = received
            assert isinstance(message, Accepted)
            assert message.address.startswith("127.0.0.1:")
            with socket.socket(fileno=fds[0]) as sock:
                found.append((message.preamble, sock.recv(100)))
        return found


@pytest.fixture
def rig() -> Iterator[Rig]:
    with ExitStack() as stack:
        yield Rig(stack)


@pytest.mark.parametrize("first", [NETWORK, LIVENESS])
def test_what_begins_like_the_nodes_is_handed_over_unread(rig: Rig, first: int) -> None:
    data = bytes((first,)) + b"and more"
    rig.dial(data)
    rig.gateway.do_work(0.0)
    assert (rig.taken(0), rig.taken(1)) == ([], [(b"", data)])
    assert rig.gateway.waiting_count == 0


@pytest.mark.parametrize("step", [1, 7, len(PREAMBLE)])
def test_links_are_told_apart_at_the_same_port(rig: Rig, step: int) -> None:
    dialler = rig.dial()
    rig.gateway.do_work(0.0)
    for at in range(0, len(PREAMBLE), step):
        assert rig.taken(0) == []
        dialler.sendall(PREAMBLE[at : at + step])
        if at + step >= len(PREAMBLE):
            dialler.sendall(b"behind it")
        rig.gateway.do_work(0.0)
    assert (rig.taken(0), rig.taken(1)) == ([(PREAMBLE, b"behind it")], [])


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"\x00\x00", PREAMBLE[:8] + b"\xff" * 24])
def test_any_other_beginning_is_refused_without_a_word(rig: Rig, data: bytes) -> None:
    dialler = rig.dial(data)
    rig.gateway.do_work(0.0)
    assert rig.gateway.refused == Refused(unknown=0, garbage=1, silent=0)
    assert rig.taken(1) == []
    try:
        assert dialler.recv(1) == b""
    except ConnectionResetError:
        pass  # more had come than the gateway read


def test_a_byte_of_the_node_behind_others_is_none_of_its() -> None:
    with ExitStack() as stack:
        rig = Rig(stack)
        rig.dial(PREAMBLE[:4] + bytes((NETWORK,)))
        rig.gateway.do_work(0.0)
        assert rig.taken(1) == []
        assert rig.gateway.refused.garbage == 1


def test_without_echoes_their_byte_is_garbage_and_without_a_node_both_are() -> None:
    for node_bytes, garbage in [(bytes((NETWORK,)), 1), (b"", 2)]:
        with ExitStack() as stack:
            rig = Rig(stack, node_bytes)
            rig.dial(bytes((LIVENESS,)))
            rig.dial(bytes((NETWORK,)))
            rig.gateway.do_work(0.0)
            assert rig.gateway.refused.garbage == garbage


def test_who_says_nothing_is_closed_in_time(rig: Rig) -> None:
    dialler = rig.dial()
    rig.gateway.do_work(0.0)
    rig.gateway.do_work(PREAMBLE_TIMEOUT_S - 0.001)
    assert rig.gateway.waiting_count == 1
    rig.gateway.do_work(PREAMBLE_TIMEOUT_S)
    assert dialler.recv(1) == b""
    assert rig.gateway.refused == Refused(unknown=0, garbage=0, silent=1)


def test_a_flood_for_a_node_that_takes_nothing_ends_in_the_kernel_and_harms_no_link(rig: Rig) -> None:
    """As while the node's process is started again: what it has no room for is closed, and dials again."""
    first = rig.dial(bytes((NETWORK,)))
    rig.gateway.do_work(0.0)
    closed = 0
    for _ in range(2000):
        with socket.create_connection(rig.address) as dialler:
            dialler.sendall(bytes((NETWORK,)))
            rig.gateway.do_work(0.0)
            dialler.setblocking(False)
            try:
                closed += dialler.recv(1) == b""
            except ConnectionResetError:
                closed += 1  # its byte was never read
            except BlockingIOError:
                pass
        if closed == 3:
            break
    assert closed == 3
    assert rig.gateway.waiting_count == 0
    rig.dial(PREAMBLE + b"x")
    rig.gateway.do_work(0.0)
    assert rig.taken(0) == [(PREAMBLE, b"x")]
    first.setblocking(False)
    with pytest.raises(BlockingIOError):
        first.recv(1)  # it waits for the node


def test_a_serve_needs_the_descriptor_of_the_node() -> None:
    ours, theirs = ControlSocket.pair()
    fds = [make_listener().detach(), ours.detach()]
    with theirs, pytest.raises(CommandError, match="2 descriptors"):
        make_gateway(Serve(PARTY, [1], node_bytes=b"\x00"), fds)
    for fd in fds:
        os.close(fd)
