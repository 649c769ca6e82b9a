"""Bridges over the connections of a node: what an opener can ask for, and what becomes of substreams of peers."""

from __future__ import annotations

import asyncio
import math
import random
from typing import TYPE_CHECKING

import pytest

from partywire.engine.negotiation import NegotiationFailed
from partywire.engine.peers.claims import PeerClaim
from partywire.engine.peers.contract import Direction
from partywire.engine.peers.errors import PeerIsBanned, PeerNotKnown
from partywire.engine.substreams.frames import LENGTH
from partywire.engine.worker_bridge import bridge as bridge_module
from partywire.engine.worker_bridge import heads
from partywire.engine.worker_bridge import offers as offers_module
from partywire.engine.worker_bridge.splicing import Ends
from partywire.engine.worker_bridge.talk import read_head_untrusted, write_head
from partywire.engine.yamux.errors import SubstreamReset, SubstreamSessionOver
from tests.bridge.opener import bridged
from tests.peers.peer_net import ECHO, PeerNet, ask, scenario, until
from tests.support.ring_streams import ring_pair

if TYPE_CHECKING:
    from partywire.engine.peers.contract import PeerConnection
    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter

NOTHING = "/test/nothing/1"


async def everything(ends: Ends, data: bytes) -> bytes:
    """Have bytes echoed through a bridge."""
    ends.writer.write(data)
    await ends.writer.drain()
    ends.writer.write_eof()
    return await ends.reader.read()


async def take_and_echo(offer: heads.Offer, ends: Ends) -> None:
    await write_head(ends.writer, heads.Taken())
    while data := await ends.reader.read(50_000):
        ends.writer.write(data)
        await ends.writer.drain()
    ends.writer.write_eof()


@scenario
async def test_a_substream_to_a_peer_carries_bytes_both_ways_and_its_half_closes(net: PeerNet) -> None:
    alice, bob = await net.pair()
    bob.serve_echo()
    data = random.Random(1).randbytes(700_000)
    streams = ring_pair(net.loop, 64 * 1024)
    async with bridged(alice.peers, streams, lambda: alice.connect(bob)) as (_, opener):
        opened, ends = await opener.begin(heads.Open((NOTHING, ECHO), str(bob.id)))
        assert opened.protocol == ECHO
        echoed = asyncio.create_task(ends.reader.read())
        ends.writer.write(data)
        await ends.writer.drain()
        ends.writer.write_eof()
        assert await echoed == data
        assert opened.connection is not None
        assert opened.connection.direction == Direction.DIALLED.value
        claim = PeerClaim.decode_untrusted(opened.connection.claim, math.inf, is_local=True)
        assert claim.peer_id == bob.id
        # By the number of that connection, and by none where it is a link's.
        again, ends = await opener.begin(heads.Open((ECHO,), connection=opened.connection.number))
        assert again.connection is None
        assert await everything(ends, b"again") == b"again"
        _, ends = await opener.begin(heads.Open((ECHO,)))
        assert await everything(ends, b"once more") == b"once more"


@scenario
async def test_what_cannot_be_opened_fails_with_the_error_of_the_contract(net: PeerNet) -> None:
    alice, bob = await net.pair()
    async with bridged(alice.peers) as (bridge, opener):
        with pytest.raises(NegotiationFailed):
            await opener.begin(heads.Open((NOTHING,), str(bob.id)))
        with pytest.raises(PeerNotKnown):
            await opener.begin(heads.Open((ECHO,), "ab" * 13))
        with pytest.raises(ValueError, match="not the id"):
            await opener.begin(heads.Open((ECHO,), "bob"))
        with pytest.raises(ValueError, match="protocols"):
            await opener.begin(heads.Open((), str(bob.id)))
        with pytest.raises(ValueError, match="no peer is named"):
            await opener.begin(heads.Open((ECHO,)))
        with pytest.raises(SubstreamSessionOver, match="over"):
            await opener.begin(heads.Open((ECHO,), connection=77))
        await alice.peers.ban(bob.peers.peer_id, "rude", 60)
        with pytest.raises(PeerIsBanned, match="rude"):
            await opener.begin(heads.Open((ECHO,), str(bob.id)))
        assert not bridge.closed.done()


@scenario
async def test_connecting_pinging_banning_and_leaving_by_heads(net: PeerNet) -> None:
    alice, bob = await net.pair()
    async with bridged(alice.peers) as (_, opener):
        answer = await opener.ask(heads.Connect(str(bob.id)))
        assert isinstance(answer, heads.ConnectedTo)
        number = answer.connection.number
        assert isinstance(await opener.ask(heads.Ping(number)), heads.Done)
        assert await opener.ask(heads.Disconnect(number)) == heads.Done()
        await until(lambda: not alice.peers.connections)
        assert await opener.ask(heads.Disconnect(number)) == heads.Done()  # it is over already
        assert isinstance(await opener.ask(heads.Ping(number)), heads.Failed)
        assert await opener.ask(heads.Ban(str(bob.id), "rude", math.inf)) == heads.Done(1.0)
        assert await opener.ask(heads.Unban(str(bob.id))) == heads.Done(1.0)
        assert await opener.ask(heads.Unban(str(bob.id))) == heads.Done(0.0)
        assert isinstance(await opener.ask(heads.Ban(str(bob.id), "rude", 0.0)), heads.Failed)


@scenario
async def test_a_dial_is_given_up_with_the_substream_that_asked_for_it(net: PeerNet) -> None:
    alice, bob = await net.pair()
    dialled, cancelled = asyncio.Event(), asyncio.Event()

    async def connect(_: object) -> PeerConnection:
        dialled.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cancelled.set()
        raise AssertionError

    alice.peers.connect = connect  # type: ignore[assignment,method-assign]
    async with bridged(alice.peers) as (_, opener):
        _, writer = await opener.connection.open()
        await write_head(writer, heads.Connect(str(bob.id)))
        await dialled.wait()
        writer.reset("changed my mind")
        await cancelled.wait()


@scenario
async def test_a_peers_substream_is_offered_and_spliced(net: PeerNet) -> None:
    alice, bob = await net.pair()
    offers: list[heads.Offer] = []
    async with bridged(alice.peers) as (_, opener):

        async def note(offer: heads.Offer, ends: Ends) -> None:
            offers.append(offer)
            await take_and_echo(offer, ends)

        opener.on_offer = note
        attending = await opener.attend()
        assert attending == heads.Attending(str(alice.id), "bob")
        await opener.say(heads.Serve(ECHO))
        await until(lambda: ECHO in alice.peers.claim.protocols)
        connection = await bob.connect(alice)
        data = random.Random(2).randbytes(600_000)
        assert await ask(connection, data) == data
        assert offers[0].protocol == ECHO
        told = await opener.heard(heads.Connected)
        assert told.connection.number == offers[0].connection.number
        await opener.say(heads.Unserve(ECHO))
        await until(lambda: ECHO not in alice.peers.claim.protocols)


@scenario
async def test_what_is_written_behind_a_head_waits_for_no_answer_at_either_end(net: PeerNet) -> None:
    alice, bob = await net.pair()
    bob.serve_echo(NOTHING)
    async with bridged(alice.peers) as (_, opener):
        got: list[bytes] = []

        async def look_first(offer: heads.Offer, ends: Ends) -> None:
            got.append(await ends.reader.readexactly(1))
            await take_and_echo(offer, ends)

        opener.on_offer = look_first
        await opener.attend()
        await opener.say(heads.Serve(ECHO))
        await until(lambda: ECHO in alice.peers.claim.protocols)
        connection = await bob.connect(alice)
        assert await ask(connection, b"xyz") == b"yz"
        assert got == [b"x"]

        ends = Ends(*await opener.connection.open())
        ends.writer.write(heads.encode(heads.Open((NOTHING,), str(bob.id))) + b"behind it")
        ends.writer.write_eof()
        assert isinstance(await read_head_untrusted(ends.reader), heads.Opened)
        assert await ends.reader.read() == b"behind it"
        ends.writer.close()


@scenario
async def test_what_the_opener_refuses_does_not_answer_or_serves_twice(net: PeerNet) -> None:
    alice, bob = await net.pair()
    async with bridged(alice.peers, offer_timeout_s=0.01) as (_, opener):
        await opener.attend()
        for protocol in (ECHO, ECHO, "", NOTHING):
            await opener.say(heads.Serve(protocol))
        assert (await opener.heard(heads.ServeFailed)).protocol == ECHO
        assert (await opener.heard(heads.ServeFailed)).protocol == ""
        await until(lambda: NOTHING in alice.peers.claim.protocols)
        connection = await bob.connect(alice)
        with pytest.raises(SubstreamReset):
            await ask(connection, b"x")

        async def say_nothing(_: heads.Offer, ends: Ends) -> None:
            await ends.reader.read()

        opener.on_offer = say_nothing
        with pytest.raises(SubstreamReset):
            await ask(connection, b"x", NOTHING)


@scenario
async def test_more_offers_than_may_wait_are_refused_at_once(net: PeerNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offers_module, "OFFERS_MAX", 2)
    alice, bob = await net.pair()
    async with bridged(alice.peers) as (_, opener):
        waiting: list[Ends] = []

        async def wait(_: heads.Offer, ends: Ends) -> None:
            waiting.append(ends)

        opener.on_offer = wait
        await opener.attend()
        await opener.say(heads.Serve(ECHO))
        await until(lambda: ECHO in alice.peers.claim.protocols)
        connection = await bob.connect(alice)
        held = [await connection.open([ECHO]) for _ in range(2)]
        await until(lambda: len(waiting) == 2)
        with pytest.raises(SubstreamReset):
            await ask(connection, b"x")
        # One that gives up makes room.
        held[0][2].reset()
        with pytest.raises(SubstreamReset):
            await waiting[0].reader.read()
        _, reader, writer = await connection.open([ECHO])
        writer.write(b"x")
        await until(lambda: len(waiting) == 3)
        await write_head(waiting[2].writer, heads.Taken())
        waiting[2].writer.write(b"y")
        assert await reader.readexactly(1) == b"y"


@scenario
async def test_a_peers_reset_reaches_the_opener_with_its_cause_and_the_openers_the_peer(net: PeerNet) -> None:
    alice, bob = await net.pair()
    theirs: list[SubstreamWriter] = []
    broken = asyncio.Event()

    @bob.peers.protocol(ECHO)
    async def hold(_: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        theirs.append(writer)
        try:
            await reader.read()
        except SubstreamReset:
            broken.set()

    async with bridged(alice.peers) as (_, opener):
        await opener.attend()
        opened, ends = await opener.begin(heads.Open((ECHO,), str(bob.id)))
        await until(lambda: theirs)
        theirs[0].reset()
        with pytest.raises(SubstreamReset):
            await ends.reader.read()
        assert (await opener.heard(heads.Broken)).number == opened.number
        await broken.wait()
        broken.clear()
        _, ends = await opener.begin(heads.Open((ECHO,), str(bob.id)))
        await until(lambda: len(theirs) == 2)
        ends.writer.reset("enough")
        await broken.wait()
        # The peer goes: what is open breaks, and the opener hears why before.
        opened, ends = await opener.begin(heads.Open((ECHO,), str(bob.id)))
        await bob.peers.aclose()
        with pytest.raises(SubstreamReset):
            await ends.reader.read()
        told = [await opener.news.get() for _ in range(2)]  # in whichever order
        assert {type(head) for head in told} == {heads.Broken, heads.Disconnected}
        assert [head.number for head in told if isinstance(head, heads.Broken)] == [opened.number]


@scenario
async def test_a_reset_is_carried_over_although_the_opener_takes_nothing(net: PeerNet) -> None:
    alice, bob = await net.pair()
    theirs: list[SubstreamWriter] = []

    @bob.peers.protocol(ECHO)
    async def pour(_: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        theirs.append(writer)
        while True:
            writer.write(bytes(50_000))
            await writer.drain()

    async with bridged(alice.peers) as (_, opener):
        await opener.attend()
        _, ends = await opener.begin(heads.Open((ECHO,), str(bob.id)))
        await until(lambda: not ends.reader._substream.receive_window)
        theirs[0].reset()
        await until(lambda: ends.writer.failure)


@scenario
async def test_one_that_nobody_reads_stalls_no_other_and_is_held_within_bounds(net: PeerNet) -> None:
    alice, bob = await net.pair()
    bob.serve_echo()
    poured = 0

    @bob.peers.protocol("/test/pour/1")
    async def pour(_: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        nonlocal poured
        while True:
            writer.write(bytes(50_000))
            await writer.drain()
            poured += 50_000

    async with bridged(alice.peers, ring_pair(net.loop, 64 * 1024)) as (_, opener):
        stalled = [await opener.begin(heads.Open(("/test/pour/1",), str(bob.id))) for _ in range(3)]
        data = bytes(300_000)
        for _ in range(3):
            _, ends = await opener.begin(heads.Open((ECHO,), str(bob.id)))
            echoed = asyncio.create_task(ends.reader.read())
            ends.writer.write(data)
            await ends.writer.drain()
            ends.writer.write_eof()
            assert await echoed == data
        # Of each: two windows, two send buffers, what the copying task has and what the handler tries to write.
        assert 3 * 256 * 1024 < poured < 3 * (4 * 256 * 1024 + 64 * 1024 + 50_000)
        assert all(ends.reader._substream.received_size <= 256 * 1024 for _, ends in stalled)


@scenario
async def test_an_opener_that_listens_to_nothing_is_told_what_stands_and_how_much_it_missed(
    net: PeerNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge_module, "EVENTS_MAX", 2)
    alice, bob = await net.pair()
    async with bridged(alice.peers, ring_pair(net.loop, 16 * 1024)) as (_, opener):
        await opener.attend()
        assert await opener.heard(heads.Standing) == heads.Standing((), 0)
        for _ in range(4):  # in one turn, so that nobody can be told in between
            await alice.peers.ban(bob.peers.peer_id, "rude", 60)
        alice.peers.unban(bob.peers.peer_id)
        standing = await opener.heard(heads.Standing)
        assert standing.missed >= 1
        connection = await alice.connect(bob)
        told = await opener.heard(heads.Connected)
        assert told.is_news
        assert await opener.ask(heads.Ping(told.connection.number))
        await connection.aclose()
        assert (await opener.heard(heads.Disconnected)).connection == told.connection.number


@scenario
async def test_connections_that_stand_are_told_at_the_start_and_changes_of_claims_later(net: PeerNet) -> None:
    alice, bob = await net.pair()
    await alice.connect(bob)
    async with bridged(alice.peers) as (_, opener):
        await opener.attend()
        standing = await opener.heard(heads.Standing)
        told = await opener.heard(heads.Connected)
        assert standing.connections == (told.connection.number,)
        assert not told.is_news
        bob.serve_echo()
        updated = await opener.heard(heads.Updated)
        assert ECHO in PeerClaim.decode_untrusted(updated.claim, math.inf, is_local=True).protocols
        assert isinstance(await opener.ask(heads.Attend()), heads.Failed)  # there is one at a time


@scenario
async def test_what_a_peer_sent_before_it_left_is_read_to_its_end_and_a_write_says_that_it_has_left(
    net: PeerNet,
) -> None:
    alice, bob = await net.pair()
    data = random.Random(4).randbytes(400_000)  # more than may wait in any one place

    @bob.peers.protocol(ECHO)
    async def answer(_: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        writer.write_eof()
        await reader.read()

    async with bridged(alice.peers, ring_pair(net.loop, 64 * 1024)) as (bridge, opener):
        await opener.attend()
        opened = [await opener.begin(heads.Open((ECHO,), str(bob.id))) for _ in range(2)]
        connection = alice.to(bob)
        assert connection is not None
        # All of it is here, and nothing of it at the opener's readers, when the connection ends.
        held = connection._substreams._session._substreams.values()  # type: ignore[attr-defined]
        await until(lambda: sum(one.is_ended_by_peer for one in held) == 2)
        connection.abort("cut")  # type: ignore[attr-defined]
        for _, ends in opened:
            assert await ends.reader.read() == data
        assert {(await opener.heard(heads.Broken)).number for _ in opened} == {one.number for one, _ in opened}
        (_, reads), (_, writes) = opened
        writes.writer.write(b"anybody?")
        await until(lambda: writes.writer.failure)
        # And when the bridge is to finish, it has done so as soon as the opener has taken everything.
        reads.writer.close()
        await bridge.finish(20)
        assert await bridge.closed == ""


@scenario
async def test_the_end_of_the_opener_ends_everything_it_served_and_opened(net: PeerNet) -> None:
    alice, bob = await net.pair()
    bob.serve_echo()
    left, right = ring_pair(net.loop, 64 * 1024)
    async with bridged(alice.peers, (left, right)) as (bridge, opener):
        opener.on_offer = take_and_echo
        await opener.attend()
        await opener.say(heads.Serve(NOTHING))
        await until(lambda: NOTHING in alice.peers.claim.protocols)
        await opener.begin(heads.Open((ECHO,), str(bob.id)))
        connection = await bob.connect(alice)
        _, reader, writer = await connection.open([NOTHING])
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        left.abort("killed")
        with pytest.raises(SubstreamReset):
            await reader.read()
        assert await bridge.closed == "killed"
        assert NOTHING not in alice.peers.claim.protocols
        await until(lambda: not bridge._tasks)
        connection = alice.to(bob) or await alice.connect(bob)
        await until(lambda: connection.substreams == 0)  # type: ignore[attr-defined]


@scenario
async def test_the_end_of_the_bridge_is_heard_by_the_opener(net: PeerNet) -> None:
    alice, bob = await net.pair()
    bob.serve_echo()
    async with bridged(alice.peers, ring_pair(net.loop, 64 * 1024)) as (bridge, opener):
        await opener.attend()
        _, ends = await opener.begin(heads.Open((ECHO,), str(bob.id)))
        await bridge.aclose()
        with pytest.raises((SubstreamReset, SubstreamSessionOver)):
            await ends.reader.read()
        assert not bridge._tasks


@pytest.mark.parametrize(
    "said",
    [
        LENGTH.pack(0),
        LENGTH.pack(2**31) + b"x",
        LENGTH.pack(2) + b"{}",
        heads.encode(heads.Taken()),
        heads.encode(heads.Connect("x"))[:-1],
    ],
)
def test_an_opener_that_says_what_is_no_head_ends_its_bridge_with_a_sentence(said: bytes) -> None:
    async def hostile(net: PeerNet) -> None:
        alice, _ = await net.pair()
        async with bridged(alice.peers) as (bridge, opener):
            _, writer = await opener.connection.open()
            writer.write(said)
            writer.write_eof()
            assert "invalid head" in await bridge.closed

    async def main() -> None:
        async with asyncio.timeout(20), PeerNet() as net:
            await hostile(net)

    asyncio.run(main())


@scenario
async def test_a_wrong_answer_to_an_offer_ends_the_bridge(net: PeerNet) -> None:
    alice, bob = await net.pair()
    async with bridged(alice.peers) as (bridge, opener):

        async def answer_wrongly(_: heads.Offer, ends: Ends) -> None:
            await write_head(ends.writer, heads.Done())

        opener.on_offer = answer_wrongly
        await opener.attend()
        await opener.say(heads.Serve(ECHO))
        await until(lambda: ECHO in alice.peers.claim.protocols)
        connection = await bob.connect(alice)
        with pytest.raises(SubstreamReset):
            await ask(connection, b"x")
        assert "no answer to an offer" in await bridge.closed


@scenario
async def test_bans_are_told(net: PeerNet) -> None:
    alice, bob = await net.pair()
    async with bridged(alice.peers) as (_, opener):
        await opener.attend()
        events = alice.peers.events()
        await opener.ask(heads.Ban(str(bob.id), "rude", math.inf))
        assert await opener.heard(heads.Banned) == heads.Banned(str(bob.id), "rude", math.inf)
        with pytest.raises(PeerIsBanned):
            await alice.connect(bob)
        del events
