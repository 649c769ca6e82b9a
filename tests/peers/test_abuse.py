"""Peers that keep to nothing: what they can do to us is bounded, and has consequences for themselves alone."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest

from partywire.engine.allowance import Allowance
from partywire.engine.errors import LinkProtocolError
from partywire.engine.exchange import receive_some, send_all
from partywire.engine.multiaddr import Multiaddr
from partywire.engine.negotiation import OPTIMISTIC, TERMINATE, encode
from partywire.engine.noise import PrivateKey
from partywire.engine.peers import strangers
from partywire.engine.peers.claims import CLAIM_SIZE_MAX
from partywire.engine.peers.connection import SubstreamGate
from partywire.engine.peers.errors import PeerNotReached, PeerRefused, RefusalCode, UpgradeFailed
from partywire.engine.peers.events import InboundFailed, PeerBanned
from partywire.engine.peers.identity import NodeIdentity
from partywire.engine.peers.identity_exchange import IDENTITY_PROTOCOL, PUSH_PROTOCOL, IdentityMessage, IdentityReader
from partywire.engine.peers.introductions import read_message
from partywire.engine.peers.options import PeerOptions
from partywire.engine.peers.upgrade import secure_dialled
from partywire.engine.peers.wire import LIVENESS
from partywire.engine.substreams.connection import SubstreamConnection
from tests.peers.peer_net import (
    ECHO,
    MEMORY,
    TCP,
    Node,
    PeerNet,
    ask,
    caught_logs,
    next_event,
    options_of,
    scenario,
    until,
)

if TYPE_CHECKING:
    from partywire.engine.peers.contract import PeerConnection
    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter
    from partywire.engine.transport import Stream


class Stranger:
    """Speaks every layer by hand, up to the identity exchange, with whatever keys it likes."""

    def __init__(self, net: PeerNet, noise_key: PrivateKey) -> None:
        self.net = net
        self.noise_key = noise_key
        self.connection: SubstreamConnection

    async def secure(self, node: Node, **options: Any) -> None:
        stream = await self.net.router.dial(node.addresses[0], 5.0)
        secured, self.their_key = await secure_dialled(stream, "node", self.noise_key, options_of(**options), None)
        self.connection = SubstreamConnection(
            self.net.loop, secured, is_client=True, on_substream=SubstreamGate(), peer="node"
        )
        self.connection.start()

    async def say(self, data: bytes, protocol: str = IDENTITY_PROTOCOL) -> tuple[SubstreamReader, SubstreamWriter]:
        reader, writer = await self.connection.open()
        writer.write(encode(OPTIMISTIC | TERMINATE, protocol) + data)
        return reader, writer

    async def hear(self, reader: SubstreamReader) -> IdentityMessage:
        core = IdentityReader(self.their_key.raw, time.time, has_verdict=True, is_local=True, peer="node")
        return await read_message(reader, core)


def message_of(identity: NodeIdentity) -> bytes:
    return IdentityMessage(identity.sign(updated_at=int(time.time())), None).encode()


async def refused(net: PeerNet, node: Node, noise_key: PrivateKey, message: bytes) -> PeerRefused:
    """How a node refuses a message."""
    stranger = Stranger(net, noise_key)
    await stranger.secure(node)
    reader, _ = await stranger.say(message)
    with pytest.raises(PeerRefused) as caught:
        await stranger.hear(reader)
    await stranger.connection.closed
    return caught.value


async def read_to_the_end(stream: Stream) -> None:
    """Until the other end ends it in any way."""
    try:
        while await receive_some(stream):
            pass
    except OSError:
        pass


# Identity.


@scenario
async def test_a_claim_for_a_foreign_key_is_refused_and_its_owner_is_not_banned(net: PeerNet) -> None:
    alice, bob = await net.pair()
    events = alice.peers.events()
    mallory = PrivateKey.generate()
    refusal = await refused(net, alice, mallory, message_of(bob.identity))
    assert refusal.code is RefusalCode.IDENTITY
    assert "not the one that the connection was made with" in refusal.cause
    assert "we refused" in (await next_event(events, InboundFailed)).cause
    assert alice.book.claim_of(bob.peers.peer_id) is None
    assert (await bob.connect(alice)).peer_id == alice.peers.peer_id
    assert alice.peers.counters.bans == 0


@scenario
async def test_a_key_that_is_shown_and_not_held_is_found_out_by_ix(net: PeerNet) -> None:
    """Who holds another key than it shows cannot read the answer."""
    alice, bob = await net.pair(noise_pattern="IX", identity_timeout_s=0.5)
    events = alice.peers.events()
    half_known = PrivateKey.generate()
    half_known.public = bob.identity.noise_key.public  # type: ignore[misc]
    stranger = Stranger(net, half_known)
    with pytest.raises(UpgradeFailed):
        await stranger.secure(alice, noise_pattern="IX")
    await next_event(events, InboundFailed)
    assert alice.peers.connections == []
    assert alice.book.claim_of(bob.peers.peer_id) is None


@scenario
async def test_a_record_of_who_does_not_hold_the_key_that_it_showed_to_ix_ends_the_connection(net: PeerNet) -> None:
    """The responder of IX learns only from the first record whether the initiator holds its key."""
    alice, bob = await net.pair(noise_pattern="IX")
    events = alice.peers.events()
    stream = await net.router.dial(alice.addresses[0], 5.0)
    shown = PrivateKey.generate().public.raw + bob.identity.noise_key.public.raw
    await send_all(stream, b"\0" + b"\0\x40" + shown + b"\0\x20" + bytes(32))
    cause = (await next_event(events, InboundFailed)).cause
    assert "does not hold" in cause
    assert alice.peers.connections == []
    await read_to_the_end(stream)
    stream.close()


@pytest.mark.parametrize(
    "message",
    [
        (CLAIM_SIZE_MAX + 1).to_bytes(2, "big"),
        b"\0\0",
        b"\x00\x10" + bytes(16),
        message_of(NodeIdentity.generate())[:-2] + b"\xff\xff",
    ],
    ids=["oversized", "empty", "garbage", "another's"],
)
@scenario
async def test_what_is_no_identity_is_refused(net: PeerNet, message: bytes) -> None:
    alice = await net.node("alice")
    refusal = await refused(net, alice, PrivateKey.generate(), message)
    assert refusal.code is RefusalCode.IDENTITY
    await until(lambda: alice.peers.counters.inbound_failed == 1)
    await until(lambda: not alice.peers._acceptor._tasks)


@scenario
async def test_the_first_substream_must_be_the_identity(net: PeerNet) -> None:
    alice = await net.node("alice")
    alice.serve_echo()
    stranger = Stranger(net, PrivateKey.generate())
    await stranger.secure(alice)
    await stranger.say(b"x", ECHO)
    assert await stranger.connection.closed
    await until(lambda: alice.peers.counters.inbound_failed == 1)
    assert alice.peers.counters.negotiations == 0


@scenario
async def test_substreams_before_the_identity_are_bounded_and_served_by_nobody_before_it(net: PeerNet) -> None:
    alice = await net.node("alice")
    alice.serve_echo()
    identity = NodeIdentity.generate()
    stranger = Stranger(net, identity.noise_key)
    await stranger.secure(alice)
    message = message_of(identity)
    first, writer = await stranger.say(message[:50])
    early = [await stranger.say(b"x", ECHO) for _ in range(200)]
    for _ in range(50):
        await asyncio.sleep(0)
    assert alice.peers.counters.negotiations == 0
    writer.write(message[50:])
    assert (await stranger.hear(first)).claim.peer_id == alice.peers.peer_id
    await until(lambda: alice.peers.counters.negotiations >= 63)
    assert [await reader.read(1) for reader, _ in early[:63]] == [b"x"] * 63
    assert alice.peers.counters.negotiations <= 64
    stranger.connection.abort("enough")


@scenario
async def test_a_banned_peer_is_turned_away_by_its_noise_key_before_it_says_anything(net: PeerNet) -> None:
    alice, bob = await net.pair()
    await (await bob.connect(alice)).aclose()
    await alice.peers.ban(bob.peers.peer_id, "rude", 60.0)
    refusal = await refused(net, alice, bob.identity.noise_key, b"")
    assert refusal.code is RefusalCode.BANNED
    assert alice.peers.counters.banned_refused == 1


@scenario
async def test_a_peer_that_is_banned_hears_nothing_of_the_reason(net: PeerNet) -> None:
    alice, bob = await net.pair()
    await alice.peers.ban(bob.peers.peer_id, "we know what you did", 60.0)
    refusal = await refused(net, alice, bob.identity.noise_key, message_of(bob.identity))
    assert refusal.cause == "the peer is banned"


# Violations behind a proven identity.


async def stranger_with(net: PeerNet, node: Node) -> tuple[Stranger, NodeIdentity]:
    """A stranger that was accepted."""
    identity = NodeIdentity.generate()
    stranger = Stranger(net, identity.noise_key)
    await stranger.secure(node)
    reader, _ = await stranger.say(message_of(identity))
    await stranger.hear(reader)
    return stranger, identity


@pytest.mark.parametrize("how", ["negotiation flags", "yamux frames", "identity that changes", "handler"])
@scenario
async def test_who_breaks_a_protocol_behind_its_identity_is_banned_for_a_while(net: PeerNet, how: str) -> None:
    alice = await net.node("alice", violation_ban_s=7200.0)
    events = alice.peers.events()

    @alice.peers.protocol("/test/strict")
    async def strict(connection: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        raise LinkProtocolError(str(connection.peer_id), "a word", await reader.read(3))

    stranger, identity = await stranger_with(net, alice)
    if how == "negotiation flags":
        _, writer = await stranger.connection.open()
        writer.write(b"\x01\xf0x")
    elif how == "yamux frames":
        stranger.connection._unsent.append(memoryview(b"\xff" * 12))
        stranger.connection._flush()
    elif how == "identity that changes":
        other = NodeIdentity.generate()
        claim = other.sign(updated_at=int(time.time()) + 5)
        await stranger.say(IdentityMessage(claim, None).encode(), PUSH_PROTOCOL)
    else:
        await stranger.say(b"bad", "/test/strict")
    banned = await next_event(events, PeerBanned)
    assert banned.peer_id == identity.peer_id
    assert 7100 < banned.until - time.time() < 7300
    assert alice.book.ban_of(identity.peer_id) is not None
    await until(lambda: alice.peers.connections == [])
    assert alice.peers.counters.violations == 1


@scenario
async def test_a_handler_that_meets_the_violation_of_a_third_peer_bans_nobody_for_it(net: PeerNet) -> None:
    alice = await net.node("alice")

    @alice.peers.protocol("/test/proxy")
    async def proxy(connection: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        raise LinkProtocolError("another peer", "a word", "bad")

    stranger, identity = await stranger_with(net, alice)
    with caught_logs() as records:
        await stranger.say(b"", "/test/proxy")
        await until(lambda: alice.peers.counters.handlers_failed == 1)
    assert len(records) == 1
    assert alice.book.ban_of(identity.peer_id) is None
    stranger.connection.abort("enough")


@scenario
async def test_old_claims_change_nothing_and_only_one_change_is_taken_at_a_time(net: PeerNet) -> None:
    alice = await net.node("alice")
    stranger, identity = await stranger_with(net, alice)
    old = IdentityMessage(identity.sign(updated_at=1, features=9), None).encode()
    reader, _ = await stranger.say(old, PUSH_PROTOCOL)
    assert await reader.read() == b""
    assert alice.peers.connections[0].claim.features == 0
    more = [await stranger.say(old, PUSH_PROTOCOL) for _ in range(20)]
    await until(lambda: alice.peers.counters.negotiations == 21)
    refusals = await asyncio.gather(*(reader.read() for reader, _ in more), return_exceptions=True)
    assert sum(isinstance(refusal, Exception) for refusal in refusals) == 20
    assert alice.peers.counters.bans == 0
    stranger.connection.abort("enough")


# Before the identity.


@pytest.mark.parametrize("listen", [MEMORY, TCP])
@pytest.mark.parametrize("said", [b"", b"\0", b"\0" + b"\0\x20" + bytes(5)])
@scenario
async def test_half_open_handshakes_end_with_their_deadline(net: PeerNet, listen: str, said: bytes) -> None:
    deadline: dict[str, Any] = {"handshake_timeout_s" if said else "first_byte_timeout_s": 0.05}
    alice = await net.node("alice", listen=listen, **deadline)
    events = alice.peers.events()
    streams = [await net.router.dial(alice.addresses[0], 5.0) for _ in range(20)]
    for stream in streams:
        await send_all(stream, said)
    await until(lambda: alice.peers.counters.inbound == 20)
    for _ in range(20):
        cause = (await next_event(events, InboundFailed)).cause
        assert ("first byte" in cause) == (not said)
        assert "within" in cause
    await until(lambda: not alice.peers._acceptor._tasks)
    for stream in streams:
        stream.close()


@scenario
async def test_a_silent_identity_ends_with_its_deadline(net: PeerNet) -> None:
    alice = await net.node("alice", identity_timeout_s=0.05)
    stranger = Stranger(net, PrivateKey.generate())
    await stranger.secure(alice)
    assert await stranger.connection.closed
    await until(lambda: not alice.peers._acceptor._tasks)
    assert alice.peers.counters.inbound_failed == 1


@scenario
async def test_who_leaves_before_it_says_who_it_is_is_forgotten_at_once(net: PeerNet) -> None:
    alice = await net.node("alice")
    events = alice.peers.events()
    stranger = Stranger(net, PrivateKey.generate())
    await stranger.secure(alice)
    await stranger.connection.aclose()
    assert "ended the connection" in (await next_event(events, InboundFailed)).cause


@scenario
async def test_silent_streams_above_the_limit_are_closed_and_keep_nobody_out(net: PeerNet) -> None:
    alice, bob = await net.pair(inbound_upgrades_max=4, dial_attempts=1, first_byte_timeout_s=60)
    events = alice.peers.events()
    streams = [await net.router.dial(alice.addresses[0], 5.0) for _ in range(10)]
    await until(lambda: alice.peers.counters.inbound == 10)
    assert alice.peers.counters.inbound_refused == 6
    assert "when others came" in (await next_event(events, InboundFailed)).cause
    assert (await bob.connect(alice)).peer_id == alice.peers.peer_id
    assert alice.peers.counters.inbound_refused == 7
    for stream in streams[:6]:  # the first that came
        with pytest.raises(ConnectionResetError):
            await receive_some(stream)
    for stream in streams:
        stream.close()
    await until(lambda: not alice.peers._acceptor._tasks)


class StandingAllowance(Allowance):
    """For it no time passes, however long a test takes."""

    def take(self, now: float) -> bool:
        return super().take(0.0)


@pytest.mark.parametrize(("host", "other"), [("ip4/203.0.113.5", "ip4/203.0.113.6"), ("ip6/2001:db8::1", "ip6/::2")])
@scenario
async def test_one_host_takes_its_share_of_places_and_of_a_second(net: PeerNet, host: str, other: str) -> None:
    alice, bob = await net.pair(
        inbound_upgrades_max=10, inbound_share_max=3, inbound_rate_max=6, first_byte_timeout_s=60
    )
    ends = []

    async def come(source: str) -> Stream:
        listening = await net.router.listen(Multiaddr.parse(MEMORY), lambda stream, _: ends.append(stream))
        dialled = await net.router.dial(listening.address, 5.0)
        await until(lambda: bool(ends))
        alice.peers.accept(ends.pop(), Multiaddr.parse(f"/{source}/tcp/7"))
        listening.close()
        return dialled

    with mock.patch.object(strangers, "Allowance", StandingAllowance):
        streams = [await come(host) for _ in range(8)]
        assert alice.peers.counters.inbound_refused == 3 + 2  # above its share; above its rate
        for stream in streams[:3] + streams[6:]:
            with pytest.raises(ConnectionResetError):
                await receive_some(stream)
        streams += [await come(other) for _ in range(3)]
        assert alice.peers.counters.inbound_refused == 5
    assert len(alice.peers._acceptor._strangers) == 6
    assert (await bob.connect(alice)).peer_id == alice.peers.peer_id
    assert len(alice.peers._acceptor._strangers) == 6  # who is a peer is none any more
    for stream in streams:
        stream.close()


@pytest.mark.parametrize("said", [b"\x45", b"\xff", b"\0\xff\xff", b"\0\0\0", b"\0\0\x20" + bytes(32)])
@scenario
async def test_bytes_that_are_no_peer_are_turned_away(net: PeerNet, said: bytes) -> None:
    alice = await net.node("alice", listen=TCP)
    stream = await net.router.dial(alice.addresses[0], 5.0)
    await send_all(stream, said)
    await read_to_the_end(stream)
    stream.close()
    await until(lambda: alice.peers.counters.inbound_failed == 1)


@scenario
async def test_who_answers_a_dial_with_garbage_is_no_peer(net: PeerNet) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\0\x60" + bytes(96) + b"HTTP/1.1 200 OK")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        alice = await net.node("alice", dial_attempts=1)
        carol = NodeIdentity.generate().peer_id
        port = server.sockets[0].getsockname()[1]
        alice.book.add(carol, [Multiaddr.parse(f"/ip4/127.0.0.1/tcp/{port}")])
        with pytest.raises(PeerNotReached, match="Noise handshake"):
            await alice.peers.connect(carol)


# Liveness.


@scenario
async def test_a_liveness_echo_is_given_to_one_at_a_time_and_bounded(net: PeerNet) -> None:
    alice = await net.node("alice", listen=TCP, liveness_permits=1)
    first = await net.router.dial(alice.addresses[0], 5.0)
    await send_all(first, bytes((LIVENESS,)) + b"pingpong\n" * 10)
    got = b""
    while len(got) < 90:
        got += await receive_some(first)
    assert got == b"pingpong\n" * 10
    second = await net.router.dial(alice.addresses[0], 5.0)
    await send_all(second, bytes((LIVENESS,)) + b"pingpong\n")
    with pytest.raises(OSError, match=r"."):
        await receive_some(second)
    await send_all(first, b"x" * 51)
    await read_to_the_end(first)
    first.close()
    second.close()
    await until(lambda: not alice.peers._acceptor._tasks)
    assert alice.peers.counters.liveness_echoes == 1
    third = await net.router.dial(alice.addresses[0], 5.0)
    await send_all(third, bytes((LIVENESS,)) + b"free again\n")
    assert await receive_some(third) == b"free again\n"
    third.close()


@scenario
async def test_without_a_permit_there_is_no_echo(net: PeerNet) -> None:
    assert PeerOptions().liveness_permits == 0
    alice = await net.node("alice", listen=TCP)
    stream = await net.router.dial(alice.addresses[0], 5.0)
    await send_all(stream, bytes((LIVENESS,)) + b"pingpong\n")
    with pytest.raises(OSError, match=r"."):
        await receive_some(stream)
    stream.close()


@scenario
async def test_no_secret_and_no_peer_is_in_what_an_impostor_gets_to_see(net: PeerNet) -> None:
    """An impostor at a known address sees an ephemeral key and a refusal, and not whom we looked for."""
    alice, bob = await net.pair(dial_attempts=1)
    await (await alice.connect(bob)).aclose()
    await bob.peers.aclose()
    seen = bytearray()
    impostor = await net.node("impostor", listen=None)

    class Listening:
        """Notes what comes."""

        async def listen(self) -> None:
            def accept(stream: Any, of: Multiaddr) -> None:
                receive = stream.try_recv_into

                def note(view: memoryview) -> int | None:
                    count: int | None = receive(view)
                    seen.extend(view[: count or 0])
                    return count

                stream.try_recv_into = note
                impostor.peers.accept(stream, of)

            self.listening = await net.router.listen(bob.addresses[0], accept)

    listening = Listening()
    await listening.listen()
    with pytest.raises(PeerNotReached):
        await alice.connect(bob)
    await until(lambda: impostor.peers.counters.inbound_failed)
    listening.listening.close()
    assert len(seen) > 35
    for secret in (alice.identity.noise_key.public.raw, alice.identity.public_key, str(bob.peers.peer_id).encode()):
        assert secret not in bytes(seen)


@scenario
async def test_a_connection_survives_what_others_do_at_the_same_time(net: PeerNet) -> None:
    alice, bob = await net.pair(inbound_upgrades_max=8)
    bob.serve_echo()
    connection = await alice.connect(bob)
    streams = [await net.router.dial(bob.addresses[0], 5.0) for _ in range(50)]
    await until(lambda: bob.peers.counters.inbound == 51)
    for stream in streams:
        stream.close()
    await until(lambda: not bob.peers._acceptor._tasks)
    stranger, _ = await stranger_with(net, bob)
    _, writer = await stranger.connection.open()
    writer.write(b"\x01\xf0x")
    assert await ask(connection, bytes(100_000)) == bytes(100_000)
    assert await stranger.connection.closed
