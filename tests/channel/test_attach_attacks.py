"""Who knows everything of a link but has not proven to be the peer on the connection at hand: it is not attached.

Bob's place at a real family of processes is taken by a program of ours, that has bob's certificate for the connections
where the test says so. And what stands in the clear in front of a channel is changed on the way.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

from partywire.engine.channel.channel import END_OF_FILE
from partywire.engine.channel.maker import ChannelMaker
from partywire.engine.commands import LinkProgress
from partywire.engine.errors import HandshakeRejected, LinkProtocolError, PartyWireError, RejectCode
from partywire.engine.greeting import GreetingFailed, greet
from partywire.engine.guard import Guard
from partywire.engine.handshake import Attach, Handshake, Role
from partywire.engine.handshake_messages import Hello
from partywire.engine.link_options import LinkOptions
from partywire.engine.memory import memory_pair
from partywire.engine.preamble import PREAMBLE_SIZE, ConnectionClass, Preamble, SecurityMode
from partywire.engine.topology import routing_tag
from tests.support.certificates import issue, noise_links, tls_link
from tests.support.channels import open_all
from tests.support.family import Opener, make_listener, make_parties

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from partywire.engine.channel.channel import Channel
    from partywire.engine.channel.link_security import LinkSecurity
    from partywire.engine.handshake import HandshakeResult
    from partywire.engine.transport import Stream

PARTIES: Final = ("alice", "bob", "charlie")
DEADLINE_S: Final = 20.0


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LinkSecurity]:
    """What the link between alice and bob is secured by at each, and charlie's certificate of the same issuer."""
    folder = tmp_path_factory.mktemp("tls")
    ca = issue("ca", is_ca=True).write(folder, "ca")
    return {name: tls_link(issue(name, ca).write(folder, name), ca=ca) for name in PARTIES}


def preamble_of(class_: ConnectionClass, index: int, mode: SecurityMode) -> bytes:
    return Preamble(class_, index, routing_tag("alice", "bob"), mode).encode()


class Impostor:
    """One connection to alice, that says to be bob's."""

    def __init__(self, address: tuple[str, int], preamble: bytes, security: LinkSecurity | None) -> None:
        """Shakes hands with what `security` names, or not at all."""
        self._sock = socket.create_connection(address, timeout=DEADLINE_S)
        self._sock.sendall(preamble)
        self._channel: Channel | None = None
        if security is not None:
            self._channel = ChannelMaker("bob", "alice", security).make(Role.INITIATOR, preamble)
            while self._channel.result is None:
                self._sock.sendall(self._channel.data_to_send())
                self._channel.receive_data(self._next())
            self._sock.sendall(self._channel.data_to_send())

    def _next(self) -> bytes:
        if not (data := self._sock.recv(4096)):
            raise LinkProtocolError("alice", "it hung up", END_OF_FILE)
        return data

    def converse(self, core: Handshake | Attach) -> None:
        """Drive one handshake to its end.

        Raises:
            HandshakeRejected, LinkProtocolError, OSError: alice does not want it.
        """
        while True:
            if said := core.data_to_send():
                self._sock.sendall(said if self._channel is None else self._channel.seal([said], 1 << 16)[0])
            if core.result is not None:
                return
            if self._channel is None:
                core.receive_data(self._next())
            else:
                self._channel.feed(self._next())
                if opened := open_all(self._channel):
                    core.receive_data(opened)

    def close(self) -> None:
        self._sock.close()


def attach(result: HandshakeResult, preamble: bytes) -> Attach:
    return Attach(Role.INITIATOR, "bob", "alice", result.epoch, result.secret, 0, preamble=preamble)


def test_the_token_of_a_link_attaches_nobody_who_does_not_prove_to_be_the_peer(tls: dict[str, LinkSecurity]) -> None:
    with ExitStack() as stack:
        listeners = [stack.enter_context(make_listener()) for _ in PARTIES]
        party = make_parties(listeners, PARTIES)[0]
        options = LinkOptions(1 << 18, 1 << 16, connect_timeout_s=DEADLINE_S, security=(tls["alice"],) * 3)
        alice = Opener(party, listeners[0], options=options)
        stack.callback(alice.close)
        alice.wait(lambda: alice.message(LinkProgress))
        address = listeners[0].getsockname()

        def dial(class_: ConnectionClass, mode: SecurityMode, security: LinkSecurity | None) -> Impostor:
            impostor = Impostor(address, preamble_of(class_, 0, mode), security)
            stack.callback(impostor.close)
            return impostor

        control = preamble_of(ConnectionClass.CONTROL, 0, SecurityMode.TLS)
        hello = Hello("bob", "alice", os.urandom(32), party_set=PARTIES)
        for security, mode in ((tls["charlie"], SecurityMode.TLS), (None, SecurityMode.PLAINTEXT)):
            with pytest.raises((PartyWireError, OSError)):
                dial(ConnectionClass.CONTROL, mode, security).converse(Handshake(Role.INITIATOR, hello, control))
        greeting = Handshake(Role.INITIATOR, hello, control)
        dial(ConnectionClass.CONTROL, SecurityMode.TLS, tls["bob"]).converse(greeting)
        assert greeting.result is not None
        for security, mode in ((tls["charlie"], SecurityMode.TLS), (None, SecurityMode.PLAINTEXT)):
            core = attach(greeting.result, preamble_of(ConnectionClass.NORMAL, 0, mode))
            with pytest.raises((PartyWireError, OSError)):
                dial(ConnectionClass.NORMAL, mode, security).converse(core)
            assert core.result is None
        core = attach(greeting.result, preamble_of(ConnectionClass.NORMAL, 0, SecurityMode.TLS))
        dial(ConnectionClass.NORMAL, SecurityMode.TLS, tls["bob"]).converse(core)
        assert core.result is not None  # it was the proof that was missing, and nothing else
        alice.wait(lambda: 1 in alice.links)


async def receive_preamble(stream: Stream) -> bytes:
    """As the gateway does, not a byte more."""
    ready = asyncio.Event()
    stream.on_readable(ready.set)
    await ready.wait()
    stream.on_readable(None)
    room = memoryview(bytearray(PREAMBLE_SIZE))
    assert stream.try_recv_into(room) == PREAMBLE_SIZE
    return bytes(room)


CHANGES: Final[dict[str, Callable[[Preamble], Preamble]]] = {
    "mode": lambda seen: Preamble(seen.connection_class, seen.index, seen.routing_tag, SecurityMode.PLAINTEXT),
    "class": lambda seen: Preamble(ConnectionClass.BULK, seen.index, seen.routing_tag, seen.mode),
    "index": lambda seen: Preamble(seen.connection_class, seen.index + 1, seen.routing_tag, seen.mode),
    "routing tag": lambda seen: Preamble(seen.connection_class, seen.index, bytes(16), seen.mode),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["tls", "noise"])
def test_a_preamble_that_was_changed_on_the_way_leads_to_no_connection(
    tls: dict[str, LinkSecurity], tmp_path: Path, kind: str, change: str
) -> None:
    alice_has, bob_has = (tls["alice"], tls["bob"])
    if kind == "noise":
        alice_has, bob_has = noise_links(tmp_path, SecurityMode.NOISE_XX_CHACHA)
    secret = os.urandom(32)

    async def bob(below: Stream) -> None:
        loop = asyncio.get_running_loop()
        said = preamble_of(ConnectionClass.NORMAL, 0, bob_has.security_mode)
        stream, opening = await Guard(loop, "bob", "alice", bob_has).admit_dialled(below, said)
        await greet(stream, Attach(Role.INITIATOR, "bob", "alice", 1, secret, 0, preamble=said), "alice", opening)

    async def alice(below: Stream, heard: bytes) -> None:
        loop = asyncio.get_running_loop()
        stream = await Guard(loop, "alice", "bob", alice_has).admit_accepted(below, heard)
        await greet(stream, Attach(Role.RESPONDER, "alice", "bob", 1, secret, 0, preamble=heard), "bob")

    async def scenario() -> None:
        below = memory_pair(asyncio.get_running_loop(), 1 << 16)
        dialling = asyncio.ensure_future(bob(below[0]))
        said = await receive_preamble(below[1])
        decoded = Preamble.decode_untrusted(said)
        assert decoded is not None
        heard = CHANGES[change](decoded).encode()
        with pytest.raises((GreetingFailed, HandshakeRejected)) as caught:
            await asyncio.wait_for(alice(below[1], heard), DEADLINE_S)
        with pytest.raises((GreetingFailed, HandshakeRejected)):
            await asyncio.wait_for(dialling, DEADLINE_S)
        if kind == "tls" and change != "mode":  # behind the channel, which does not know it
            assert isinstance(caught.value, HandshakeRejected)
            assert caught.value.code is RejectCode.TOKEN

    asyncio.run(scenario())
