"""Messages between nodes: order, honest words about delivery, losses, bounds, layers, and peers that lie."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine.errors import FrameTooLarge, LinkProtocolError
from partywire.engine.messaging import wire
from partywire.engine.messaging.delivery import DeliveryState
from partywire.engine.messaging.errors import MessageNotDelivered
from partywire.engine.messaging.frames import FrameReader
from partywire.engine.messaging.messaging import Message, Messaging, MessagingLimits
from partywire.engine.messaging.wire import Frame, Kind
from tests.peers.peer_net import PeerNet, scenario, until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from partywire.engine.messaging.messaging import Layer, Next
    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter
    from tests.peers.peer_net import Node

ID = bytes(range(16))


async def messengers(
    net: PeerNet, inbound: Sequence[Layer] = (), **limits: float
) -> tuple[Node, Node, Messaging, Messaging]:
    """alice and bob, and what each of them sends and receives with; `inbound` are layers of bob's."""
    alice, bob = await net.pair()
    bounds = MessagingLimits(**limits)  # type: ignore[arg-type]
    return alice, bob, Messaging(alice.peers, limits=bounds), Messaging(bob.peers, inbound=inbound, limits=bounds)


@scenario
async def test_a_hundred_messages_each_way_arrive_in_order_and_are_acknowledged(net: PeerNet) -> None:
    alice, bob, from_alice, from_bob = await messengers(net)

    async def send(messaging: Messaging, other: Node) -> None:
        deliveries = [await messaging.send(other.peers.peer_id, b"%d" % index) for index in range(100)]
        for delivery in deliveries:
            await delivery.acknowledged()
            assert delivery.state is DeliveryState.ACKNOWLEDGED

    async def receive(messaging: Messaging, other: Node) -> None:
        messages = [await messaging.receive() for _ in range(100)]
        assert [message.body for message in messages] == [b"%d" % index for index in range(100)]
        assert {message.peer_id for message in messages} == {other.peers.peer_id}

    async with from_alice, from_bob, asyncio.TaskGroup() as group:
        for messaging, other in ((from_alice, bob), (from_bob, alice)):
            group.create_task(send(messaging, other))
            group.create_task(receive(messaging, other))
    assert (from_alice.counts.sent, from_bob.counts.received) == (100, 100)


@scenario
async def test_written_is_not_acknowledged(net: PeerNet) -> None:
    _, bob, from_alice, from_bob = await messengers(net, inbox_max=1)
    async with from_alice, from_bob:
        first, second, third = [await from_alice.send(bob.peers.peer_id, b"x") for _ in range(3)]
        assert first.state is DeliveryState.QUEUED
        await first.acknowledged()
        await third.written()
        assert second.state is DeliveryState.WRITTEN  # the inbox is full
        for _ in range(3):
            await from_bob.receive()
        await third.acknowledged()


@scenario
async def test_the_next_message_takes_the_substream_of_the_last_one_which_is_not_kept_for_long(net: PeerNet) -> None:
    _, bob, from_alice, from_bob = await messengers(net)
    async with from_alice, from_bob:
        for index in range(3):
            await (await from_alice.send(bob.peers.peer_id, b"x")).acknowledged()
            await from_bob.receive()
            if not index:
                negotiations = bob.peers.counters.negotiations
        assert bob.peers.counters.negotiations == negotiations
        await until(lambda: not (from_bob._serving or from_alice._outboxes))
        await (await from_alice.send(bob.peers.peer_id, b"x")).acknowledged()
        assert bob.peers.counters.negotiations == negotiations + 1


@scenario
async def test_a_peer_that_leaves_behind_the_last_message_costs_the_next_one_no_attempt(net: PeerNet) -> None:
    alice, bob, from_alice, from_bob = await messengers(net, attempts_max=1)
    async with from_alice, from_bob:
        for _ in range(3):
            await (await from_alice.send(bob.peers.peer_id, b"x")).acknowledged()
            await from_bob.receive()
            connection = bob.to(alice)
            assert connection is not None
            connection.abort("a test")  # type: ignore[attr-defined]
            await until(lambda: alice.to(bob) is None)


@scenario
async def test_closing_with_nothing_to_deliver_ends_the_kept_substream_in_order(net: PeerNet) -> None:
    alice, bob = await net.pair()
    ends: list[bytes] = []

    async def take_one(_: object, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        frame = await FrameReader(reader, 100, "alice").read_untrusted()
        assert frame is not None
        writer.writelines(wire.encode(Frame(Kind.TAKEN, frame.message_id)))
        ends.append(await reader.read(1))

    bob.peers.serve(wire.PROTOCOL, take_one)
    async with Messaging(alice.peers) as messaging:
        await (await messaging.send(bob.peers.peer_id, b"x")).acknowledged()
    await until(lambda: ends == [b""])


@scenario
async def test_a_message_to_an_unknown_peer_fails_at_once(net: PeerNet) -> None:
    alice, _, from_alice, _ = await messengers(net)
    stranger = await net.node("stranger", listen=None)
    delivery = await from_alice.send(stranger.peers.peer_id, b"x")
    with pytest.raises(MessageNotDelivered, match="was not delivered") as caught:
        await delivery.written()
    assert not caught.value.may_have_arrived
    assert delivery.state is DeliveryState.FAILED
    with pytest.raises(MessageNotDelivered):
        await delivery.acknowledged()
    assert not from_alice._outboxes
    assert alice.name == "alice"


@scenario
async def test_a_peer_without_messaging_refuses_all(net: PeerNet) -> None:
    alice, bob = await net.pair()
    async with Messaging(alice.peers) as messaging:
        deliveries = [await messaging.send(bob.peers.peer_id, b"x") for _ in range(20)]
        for delivery in deliveries:
            with pytest.raises(MessageNotDelivered, match="does not serve"):
                await delivery.acknowledged()


@scenario
async def test_what_was_not_acknowledged_comes_again_and_is_given_once(net: PeerNet) -> None:
    alice, bob, from_alice, from_bob = await messengers(net, inbox_max=4, attempts_max=100)

    async def cut() -> None:
        while from_bob.counts.received < 200:
            if (connection := bob.to(alice)) is not None:
                await connection.aclose()
            for _ in range(300):
                await asyncio.sleep(0)

    async with from_alice, from_bob:
        cutting = asyncio.create_task(cut())
        deliveries = [await from_alice.send(bob.peers.peer_id, b"%d" % index) for index in range(200)]
        bodies = [(await from_bob.receive()).body for _ in range(200)]
        assert bodies == [b"%d" % index for index in range(200)]
        await cutting
        for delivery in deliveries:
            await delivery.acknowledged()


@scenario
async def test_a_message_is_tried_so_often_and_then_fails(net: PeerNet) -> None:
    alice, bob = await net.pair()
    tried = 0

    async def hang_up(connection: object, *_: object) -> None:
        nonlocal tried
        tried += 1
        await connection.aclose()  # type: ignore[attr-defined]

    bob.peers.serve(wire.PROTOCOL, hang_up)
    async with Messaging(alice.peers, limits=MessagingLimits(attempts_max=3)) as messaging:
        delivery = await messaging.send(bob.peers.peer_id, b"x")
        with pytest.raises(MessageNotDelivered, match="may have arrived"):
            await delivery.acknowledged()
        assert tried == 3


@scenario
async def test_senders_wait_while_the_outbox_is_full(net: PeerNet) -> None:
    _, bob, from_alice, from_bob = await messengers(net, outbox_size_max=4096, inbox_max=1)
    async with from_alice, from_bob:
        sending = asyncio.create_task(_send_many(from_alice, bob, 50))
        for _ in range(200):
            await asyncio.sleep(0)
        outbox = from_alice._outboxes[bob.peers.peer_id]
        assert outbox._size <= 4096
        assert not sending.done()
        for _ in range(50):
            await from_bob.receive()
        await sending


async def _send_many(messaging: Messaging, other: Node, count: int) -> None:
    for _ in range(count):
        await messaging.send(other.peers.peer_id, bytes(1000))


@scenario
async def test_a_body_has_a_bound(net: PeerNet) -> None:
    _, bob, from_alice, from_bob = await messengers(net, body_size_max=100)
    async with from_alice, from_bob:
        with pytest.raises(ValueError, match="101 bytes, at most 100"):
            await from_alice.send(bob.peers.peer_id, bytes(101))
        await (await from_alice.send(bob.peers.peer_id, bytes(100))).acknowledged()


@scenario
async def test_layers_change_keep_and_refuse_messages(net: PeerNet) -> None:
    async def upper(message: Message, following: Next) -> None:
        await following(Message(message.peer_id, message.message_id, message.body.upper()))

    async def gate(message: Message, following: Next) -> None:
        if message.body == b"REFUSED":
            raise PermissionError
        if message.body != b"KEPT":
            await following(message)

    alice, bob, from_alice, from_bob = await messengers(net, inbound=(upper, gate))
    async with from_alice, from_bob:
        refused, kept, passed = [
            await from_alice.send(bob.peers.peer_id, body) for body in (b"refused", b"kept", b"passed")
        ]
        assert (await from_bob.receive()).body == b"PASSED"
        await passed.acknowledged()
        await kept.acknowledged()
        with pytest.raises(MessageNotDelivered, match="the peer refused it"):
            await refused.acknowledged()
    assert from_bob.counts.refused == 1
    assert alice.name == "alice"


@scenario
async def test_outbound_layers_are_asked_first(net: PeerNet) -> None:
    async def only_short(message: Message, following: Next) -> None:
        if len(message.body) < 5:
            await following(message)

    alice, bob = await net.pair()
    async with Messaging(alice.peers, outbound=(only_short,)) as from_alice, Messaging(bob.peers) as from_bob:
        await from_alice.send(bob.peers.peer_id, b"tiny")
        with pytest.raises(MessageNotDelivered, match="an outbound layer kept it"):
            await from_alice.send(bob.peers.peer_id, b"too long")
        assert (await from_bob.receive()).body == b"tiny"


@scenario
async def test_two_substreams_of_one_peer_are_one_too_many(net: PeerNet) -> None:
    alice, bob, _, from_bob = await messengers(net)
    connection = await alice.connect(bob)
    async with from_bob:
        _, reader, writer = await connection.open([wire.PROTOCOL])
        writer.writelines(wire.encode(Frame(Kind.MESSAGE, ID, b"x")))
        assert (await from_bob.receive()).body == b"x"
        _, second_reader, second_writer = await connection.open([wire.PROTOCOL])
        second_writer.write(b"x")
        with pytest.raises(Exception, match="reset substream"):
            await second_reader.read(1)
        assert len(await reader.readexactly(21)) == 21


@scenario
async def test_a_message_that_comes_twice_is_taken_twice_and_given_once(net: PeerNet) -> None:
    alice, bob, _, from_bob = await messengers(net)
    connection = await alice.connect(bob)
    async with from_bob:
        _, reader, writer = await connection.open([wire.PROTOCOL])
        for _ in range(2):
            writer.writelines(wire.encode(Frame(Kind.MESSAGE, ID, b"x")))
        taken = b"".join(wire.encode(Frame(Kind.TAKEN, ID)))
        assert await reader.readexactly(2 * len(taken)) == 2 * taken
        assert (from_bob.counts.received, from_bob.counts.repeated) == (1, 1)


@scenario
async def test_what_is_no_message_ends_the_substream_and_bans_the_peer(net: PeerNet) -> None:
    alice, bob, _, from_bob = await messengers(net, body_size_max=100)
    async with from_bob:
        for nonsense in (
            b"".join(wire.encode(Frame(Kind.TAKEN, ID))),
            b"\xff\xff\xff\xff",
            b"\x00\x00\x00\x01",
            b"\x00\x00\x00\x11\x09" + ID,
        ):
            connection = await alice.connect(bob)
            _, reader, writer = await connection.open([wire.PROTOCOL])
            writer.write(nonsense)
            with pytest.raises(Exception, match=r"reset substream|are over"):
                await reader.readexactly(1)
            await until(lambda: not from_bob._serving)
            await until(lambda: alice.to(bob) is None)
            assert bob.peers.unban(alice.peers.peer_id)


@scenario
async def test_an_acknowledgement_of_something_else_is_none(net: PeerNet) -> None:
    alice, bob = await net.pair()

    async def lie(_: object, reader: object, writer: object) -> None:
        await reader.read(1)  # type: ignore[attr-defined]
        writer.writelines(wire.encode(Frame(Kind.TAKEN, ID)))  # type: ignore[attr-defined]
        await asyncio.get_running_loop().create_future()

    bob.peers.serve(wire.PROTOCOL, lie)
    async with Messaging(alice.peers) as messaging:
        delivery = await messaging.send(bob.peers.peer_id, b"x")
        with pytest.raises(MessageNotDelivered, match="one of another message"):
            await delivery.acknowledged()


@scenario
async def test_closing_ends_senders_and_receivers(net: PeerNet) -> None:
    _, bob, from_alice, from_bob = await messengers(net, inbox_max=1)
    deliveries = [await from_alice.send(bob.peers.peer_id, b"x") for _ in range(3)]
    await deliveries[2].written()
    await from_alice.aclose()
    await from_alice.aclose()
    with pytest.raises(MessageNotDelivered, match="messaging was closed"):
        await deliveries[2].acknowledged()
    with pytest.raises(RuntimeError, match="messaging is closed"):
        await from_alice.send(bob.peers.peer_id, b"x")
    receiving = [asyncio.create_task(from_alice.receive()) for _ in range(2)]
    for task in receiving:
        with pytest.raises(RuntimeError, match="messaging is closed"):
            await task
    await from_bob.aclose()
    assert b"x" in [message.body async for message in from_bob]


@scenario
async def test_what_is_shown_of_messages_has_no_body(net: PeerNet) -> None:
    _, bob, from_alice, from_bob = await messengers(net)
    async with from_alice, from_bob:
        delivery = await from_alice.send(bob.peers.peer_id, b"a secret")
        message = await from_bob.receive()
        assert "secret" not in repr(message) + repr(delivery)


@given(st.sampled_from(Kind), st.binary(min_size=16, max_size=16), st.binary(max_size=50))
def test_frames_read_back(kind: Kind, message_id: bytes, body: bytes) -> None:
    frame = Frame(kind, message_id, body if kind is Kind.MESSAGE else b"")
    data = b"".join(wire.encode(frame))
    assert wire.decode_untrusted(data[4:], "bob") == frame


@given(st.binary(min_size=17, max_size=60))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    try:
        wire.decode_untrusted(data, "bob")
    except LinkProtocolError:
        pass


@pytest.mark.parametrize("length", [0, 16, 118, 2**32 - 1])
def test_lengths_are_checked_first(length: int) -> None:
    with pytest.raises(LinkProtocolError) as caught:
        wire.check_length_untrusted(length, 100, "bob")
    assert isinstance(caught.value, FrameTooLarge) == (length > 100)
