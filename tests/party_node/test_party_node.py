"""party.node over real rings and the real bridge: the same substreams under each driver of a worker."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from partywire.engine.errors import LinkProtocolError
from partywire.engine.link_substreams.errors import NoControlPlane
from partywire.engine.messaging.messaging import Messaging
from partywire.engine.negotiation import NegotiationFailed
from partywire.engine.node_commands import NodeLane, NodeLost
from partywire.engine.peers.errors import ConnectionsClosed, PeerIsBanned, PeerNotKnown, PeerNotReached
from partywire.engine.peers.events import PeerBanned, PeerConnected, PeerDisconnected
from partywire.engine.peers.options import PeerOptions
from partywire.engine.rpc.client import RpcClient
from partywire.engine.rpc.service import RpcService
from partywire.engine.yamux.errors import SubstreamReset, SubstreamSessionOver
from partywire.workers.config import PartyConfig
from partywire.workers.errors import UnknownPeer
from partywire.workers.node.config import NodeConfig
from partywire.workers.party_node.errors import NeedsAsyncio, NoWayToPeer
from partywire.workers.party_node.node import PartyNode
from partywire.workers.scheduler import Scheduler
from partywire.workers.waiting import Wait
from tests.party_node.rig import ECHO, OURS, RING_SIZE, BridgeSide, Rig, blocking_rig, config_of, in_loop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from partywire.engine.peers.contract import PeerConnection, ProtocolHandler
    from partywire.engine.rpc.service import RpcCall
    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter

DATA = bytes(range(256)) * 2000


async def echoed(rig: Rig, data: bytes) -> bytes:
    """Everything that comes back, read while it is written."""
    reader, writer = await rig.node.open("bob", ECHO)
    got = bytearray()
    for start in range(0, len(data), 50_000):
        writer.write(data[start : start + 50_000])
        await writer.drain()
        got += await reader.read(100_000)
    writer.write_eof()
    got += await reader.read()
    writer.close()
    return bytes(got)


def test_substreams_in_an_asyncio_loop(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        assert await echoed(rig, DATA) == DATA
        assert await asyncio.gather(*(echoed(rig, DATA[:n]) for n in (0, 1, 999))) == [b"", DATA[:1], DATA[:999]]

    in_loop(tmp_path, scenario)


def test_substreams_in_a_blocking_call(tmp_path: Path) -> None:
    with blocking_rig(tmp_path) as rig:
        assert rig.block(echoed(rig, DATA)) == DATA


def test_substreams_under_the_scheduler_of_a_batch(tmp_path: Path) -> None:
    with blocking_rig(tmp_path) as rig, scheduling(rig) as scheduler:
        slots = [scheduler.spawn(echoed(rig, DATA[: 10**n])) for n in range(6)]
        scheduler.run()
        assert [slot.result for slot in slots] == [DATA[: 10**n] for n in range(6)]


# Handlers.


async def shout(connection: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
    """Answers each line, and tells whom."""
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.write(str(connection.peer_id).encode())


async def shouted(side: BridgeSide, data: bytes = b"one\ntwo\n") -> bytes:
    """What bob hears of alice's opener."""
    connection = await side.bob.peers.connect(side.alice.peers.peer_id)
    _, reader, writer = await connection.open([OURS])
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


def answer_of(rig: Rig) -> bytes:
    return b"ONE\nTWO\n" + str(rig.side.bob.peers.peer_id).encode()


def test_a_handler_in_an_asyncio_loop_may_use_asyncio(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        @rig.node.protocol(OURS)
        async def handler(connection: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
            async with asyncio.timeout(5):
                await asyncio.sleep(0)
            await shout(connection, reader, writer)

        await offered(rig)
        assert await rig.answer(shouted(rig.side)) == answer_of(rig)
        assert rig.node.counters["substreams_served"] == 1

    in_loop(tmp_path, scenario)


def test_a_handler_runs_while_a_call_waits(tmp_path: Path) -> None:
    with blocking_rig(tmp_path, link=False) as rig:
        rig.node.serve(OURS, shout)
        rig.link_up()
        rig.block(offered(rig))
        for _ in range(3):
            assert rig.block(rig.answer(shouted(rig.side))) == answer_of(rig)


def test_a_handler_runs_beside_a_batch(tmp_path: Path) -> None:
    with blocking_rig(tmp_path) as rig, scheduling(rig) as scheduler:
        rig.node.serve(OURS, shout)
        rig.block(offered(rig))
        job = scheduler.spawn(rig.answer(shouted(rig.side)))
        scheduler.run()
        assert job.result == answer_of(rig)


@pytest.mark.parametrize("is_batch", [False, True])
def test_much_more_than_a_ring_holds_reaches_a_handler_and_every_bell_rings(tmp_path: Path, is_batch: bool) -> None:
    data = DATA * 4

    async def send(side: BridgeSide) -> bytes:
        connection = await side.bob.peers.connect(side.alice.peers.peer_id)
        _, reader, writer = await connection.open([OURS])
        for start in range(0, len(data), 60_000):
            writer.write(data[start : start + 60_000])
            await writer.drain()
        writer.write_eof()
        return await reader.read()

    async def digest(_: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        hashed = hashlib.sha256()
        while piece := await reader.read(1 << 16):
            hashed.update(piece)
        writer.write(hashed.digest())

    with blocking_rig(tmp_path) as rig, scheduling(rig) as scheduler:
        rig.node.serve(OURS, digest)
        rig.block(offered(rig))
        expected = hashlib.sha256(data).digest()
        if is_batch:
            answers = [scheduler.spawn(rig.answer(send(rig.side))) for _ in range(2)]
            scheduler.run()
            assert [answer.result for answer in answers] == [expected] * 2
        else:
            assert rig.block(rig.answer(send(rig.side))) == expected


def test_a_handler_that_blocks_is_served_meanwhile(tmp_path: Path) -> None:
    """A plain call within a handler: the worker goes on, other handlers wait."""
    with blocking_rig(tmp_path) as rig, scheduling(rig) as scheduler:

        async def relay(_: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
            with rig.node.open_file("bob", ECHO) as file:
                file.write(await reader.read())
                file.write_eof()
                writer.write(file.read())

        rig.node.serve(OURS, relay)
        rig.block(offered(rig))
        answers = [scheduler.spawn(rig.answer(shouted(rig.side, data))) for data in (b"a", b"b")]
        scheduler.run()
        assert [answer.result for answer in answers] == [b"a", b"b"]


def test_a_handler_without_a_loop_is_told_what_it_may_await(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with blocking_rig(tmp_path) as rig:

        async def sleepy(_: PeerConnection, __: SubstreamReader, ___: SubstreamWriter) -> None:
            await asyncio.sleep(0)

        rig.node.serve(OURS, sleepy)
        rig.block(offered(rig))
        with pytest.raises(SubstreamReset):
            rig.block(rig.answer(shouted(rig.side)))
        assert "needs an asyncio loop" in caplog.text
        assert rig.node.counters["substreams_handlers_failed"] == 1


def test_a_handler_that_fails_harms_nobody_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(rig: Rig) -> None:
        @rig.node.protocol(OURS)
        async def handler(_: PeerConnection, reader: SubstreamReader, __: SubstreamWriter) -> None:
            if await reader.read(1) == b"!":
                raise LinkProtocolError("bob", "a line", "!")
            raise ZeroDivisionError("on purpose")

        await offered(rig)
        for data in (b"?", b"!"):
            with pytest.raises(SubstreamReset):
                await rig.answer(shouted(rig.side, data))
        assert "ZeroDivisionError: on purpose" in caplog.text
        assert "bob broke the protocol" in caplog.text
        await rig.until(lambda: not rig.node.connections)
        with pytest.raises(PeerIsBanned):
            await rig.answer(rig.side.connect())
        assert await rig.node.unban("bob")
        assert not await rig.node.unban("bob")

    in_loop(tmp_path, scenario)


def test_protocols_are_served_once_and_no_more_when_taken_back(tmp_path: Path) -> None:
    with blocking_rig(tmp_path) as rig:
        rig.node.protocol(OURS)(shout)
        with pytest.raises(ValueError, match="served already"):
            rig.node.serve(OURS, shout)
        with pytest.raises(ValueError, match="bytes"):
            rig.node.serve("x" * 256, shout)
        rig.block(offered(rig))
        rig.node.unserve(OURS)
        rig.serve_until(lambda: OURS not in rig.side.alice.peers.claim.protocols)
        with pytest.raises((NegotiationFailed, SubstreamReset)):
            rig.block(rig.answer(shouted(rig.side)))


# Messages, calls, events.


def test_messages_and_calls_between_an_opener_and_a_peer(tmp_path: Path) -> None:
    async def play_bob(side: BridgeSide) -> tuple[bytes, bytes]:
        async with (
            Messaging(side.bob.peers) as messages,
            RpcClient(side.bob.peers, side.alice.peers.peer_id, "/test/calls/1") as client,
        ):
            message = await messages.receive()
            await (await messages.send(message.peer_id, message.body + b" yourself")).acknowledged()
            return message.body, await client.call("double", b"ab", timeout=5.0)

    async def scenario(rig: Rig) -> None:
        service = RpcService("/test/calls/1")

        @service.method("double")
        async def double(_: RpcCall, payload: bytes) -> bytes:
            return payload * 2

        rig.node.rpc.add(service)
        await offered(rig, "/test/calls/1")
        bob = rig.side.begin(play_bob(rig.side))
        await rig.until(lambda: "/partywire/messaging/1" in rig.side.bob.peers.claim.protocols)
        delivery = await rig.node.messages.send("bob", b"hello")
        await delivery.acknowledged()
        message = await rig.node.messages.receive()
        assert (message.peer_id, message.body) == (rig.node.id_of("bob"), b"hello yourself")
        assert await asyncio.wrap_future(bob) == (b"hello", b"abab")
        counters = rig.node.counters
        assert (counters["messages_sent"], counters["messages_received"], counters["rpc_calls"]) == (1, 1, 1)
        async with rig.node.rpc.client("bob", "/test/calls/1") as client:
            with pytest.raises(NegotiationFailed):
                await client.call("double", b"")

    in_loop(tmp_path, scenario)


def test_what_happens_to_a_peer_is_told(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        events = rig.node.events()
        connection = await rig.node.connect("bob")
        assert connection is rig.node.connection_to(rig.node.id_of("bob")) is await rig.node.connect(connection.peer_id)
        assert (connection.public_key, connection.peer) == (rig.side.bob.identity.public_key, "bob")
        assert await rig.node.ping("bob") > 0
        await connection.aclose()
        assert connection.is_over
        assert not rig.node.connections
        assert await connection.closed == ""
        gone = await anext(events)
        assert isinstance(gone, PeerDisconnected)
        assert gone.peer_id == connection.peer_id
        assert not rig.node.connections
        with pytest.raises(SubstreamSessionOver):
            await connection.open([ECHO])
        assert (await rig.node.connect("bob")).number != connection.number
        assert isinstance(await anext(events), PeerConnected)
        assert await echoed(rig, b"again") == b"again"
        await rig.node.ban("bob", "rude", 60.0)
        seen = {type(await anext(events)) for _ in range(2)}
        assert seen == {PeerBanned, PeerDisconnected}
        with pytest.raises(PeerIsBanned, match="rude"):
            await rig.node.connect("bob")

    in_loop(tmp_path, scenario)


def test_what_needs_a_loop_says_so(tmp_path: Path) -> None:
    with blocking_rig(tmp_path) as rig:
        connection = rig.block(rig.node.connect("bob"))
        for ask in (lambda: rig.node.messages, lambda: rig.node.rpc, rig.node.events, lambda: connection.closed):
            with pytest.raises(NeedsAsyncio, match="async with Party"):
                ask()
        early = PartyNode(config_of(tmp_path))
        early.rpc.add(RpcService("/test/calls/1"))
        with pytest.raises(NeedsAsyncio, match="rpc"):
            early.check_loop(None)
        assert "messages_sent" not in rig.node.counters


# Ways to peers, and what becomes of them.


def test_a_link_that_is_lost_takes_its_substreams_with_it_and_comes_back(tmp_path: Path) -> None:
    with blocking_rig(tmp_path) as rig:
        reader, writer = rig.block(rig.node.open("bob", ECHO))
        writer.write(b"kept")
        assert rig.block(reader.peek()) == b"kept"
        rig.side.run(rig.side.lose_lane("the cable is cut"))
        rig.serve_until(lambda: not writer.is_open)
        assert rig.block(reader.read(10)) == b"kept"
        with pytest.raises(SubstreamSessionOver, match="with bob are over: the cable is cut") as caught:
            rig.block(reader.read(10))
        assert caught.value.peer == "bob"
        with pytest.raises(SubstreamSessionOver):
            writer.write(b"more")
        with pytest.raises(PeerNotReached, match="bob"):
            rig.block(rig.node.connect("bob", timeout=0.01))
        rig.link_up(epoch=2)
        assert rig.block(echoed(rig, b"back")) == b"back"


def test_a_party_that_came_up_just_now_is_asked_again_what_it_serves(tmp_path: Path) -> None:
    with blocking_rig(tmp_path) as rig:
        rig.node.grace_s = 20.0
        scheduler = Scheduler(rig.worker)
        opening = scheduler.spawn(rig.node.open("bob", OURS))
        scheduler.run(lambda: opening.wait is not None)
        rig.block(rig.worker.until(lambda: False, rig.worker.clock() + 0.01))
        rig.side.run(served(rig.side, OURS, shout))
        scheduler.run()
        scheduler.close()
        assert opening.error is None


def test_a_lane_whose_other_end_has_ended_before_it_was_taken_is_not_read(tmp_path: Path) -> None:
    with blocking_rig(tmp_path, link=False) as rig:
        fds = rig.side.run(rig.side.make_lane(rig._bell, 1, ""))
        rig.side.run(rig.side.lose_lane("it died at once"))
        rig.node.take_process_lane(NodeLane(1, str(rig.node.peer_id), []), fds)
        rig.serve_until(lambda: not rig.worker._receivers)
        with pytest.raises(NoWayToPeer):
            rig.block(rig.node.connect(rig.side.bob.peers.peer_id))


def test_a_link_that_is_not_up_is_waited_for(tmp_path: Path) -> None:
    with blocking_rig(tmp_path, link=False) as rig:
        with pytest.raises(PeerNotKnown):
            rig.node.id_of("bob")
        scheduler = Scheduler(rig.worker)
        opening = scheduler.spawn(rig.node.open("bob", ECHO))
        scheduler.run(lambda: opening.wait is not None)
        rig.link_up()
        scheduler.run()
        scheduler.close()
        assert opening.error is None


def test_a_peer_without_a_control_plane_is_told_of_at_once(tmp_path: Path) -> None:
    with blocking_rig(tmp_path, link=False) as rig:
        rig.link_up(substreams=False)
        with pytest.raises(NoControlPlane, match=r"bob has no \[node\] table"):
            rig.block(rig.node.open("bob", ECHO))
        iris = PartyConfig(
            name="alice",
            parties=rig.node._config.parties,
            compat={"bob": {"protocol": "iris"}},
            node=NodeConfig(identity="alice.key", connections=PeerOptions(network_byte=38)),
        )
        with patch.object(rig.node, "_config", iris), pytest.raises(NoControlPlane, match=r"compat\.bob"):
            rig.block(rig.node.open("bob", ECHO))
        with pytest.raises(UnknownPeer, match="charlie"):
            rig.block(rig.node.open("charlie", ECHO))


def test_who_is_no_party_goes_by_way_of_the_nodes_process(tmp_path: Path) -> None:
    with blocking_rig(tmp_path, link=False) as rig:
        bob = rig.side.bob.peers.peer_id
        with pytest.raises(NoWayToPeer, match="has not started"):
            rig.block(rig.node.connect(bob))
        rig.process_up()
        connection = rig.block(rig.node.connect(str(bob)))
        assert (connection.peer_id, connection.name) == (bob, "")
        reader, writer = rig.block(rig.node.open(bob, ECHO, timeout=5.0))
        writer.write(b"x")
        assert rig.block(reader.readexactly(1)) == b"x"
        with pytest.raises(PeerNotKnown):
            rig.block(rig.node.connect("ab" * 13))
        rig.node.lose_process(NodeLost("it was killed", True))
        with pytest.raises(SubstreamSessionOver, match="it was killed"):
            rig.block(reader.read(1))
        with pytest.raises(NoWayToPeer, match="it was killed"):
            rig.block(rig.node.connect(bob, timeout=0.01))  # the next one has not come in time
        rig.worker.set_timer(timer := Wait(rig.worker), rig.worker.clock() + 0.01)
        timer.waker = lambda: rig.process_up(epoch=2)
        assert rig.block(rig.node.connect(bob)).peer_id == bob
        rig.node.lose_process(NodeLost("it died too often", False))
        with pytest.raises(NoWayToPeer, match="too often"):
            rig.block(rig.node.connect(bob))


def test_a_substream_that_the_peer_refuses_or_resets_says_who_and_why(tmp_path: Path) -> None:
    with blocking_rig(tmp_path) as rig:
        with pytest.raises(NegotiationFailed, match="/test/none/1"):
            rig.block(rig.node.open("bob", "/test/none/1"))

        async def rude(_: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
            await reader.read(1)
            writer.reset()

        rig.side.run(served(rig.side, "/test/rude/1", rude))
        reader, writer = rig.block(rig.node.open("bob", "/test/rude/1"))
        writer.write(b"!")
        with pytest.raises(SubstreamReset, match="bob reset substream") as caught:
            rig.block(reader.read(1))
        assert (caught.value.peer, caught.value.by_us) == ("bob", False)
        assert caught.value.cause


def test_what_fails_of_a_substream_that_nothing_was_waited_for_is_said_by_its_first_read(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        connection = await rig.node.connect("bob")
        assert ECHO in connection.claim.protocols
        theirs = rig.side.run(rig.side.connect())
        rig.side.run(theirs.aclose())  # the opener, which is not served meanwhile, has not heard of it
        _, reader, writer = await connection.open([ECHO])
        writer.write(b"x")
        with pytest.raises(SubstreamSessionOver):
            await reader.read(1)
        with pytest.raises(SubstreamReset):
            writer.write(b"y")
        assert connection.is_over
        with pytest.raises(SubstreamSessionOver):
            await connection.open([ECHO])

    in_loop(tmp_path, scenario)


def test_at_the_end_handlers_are_cancelled_and_peers_hear_of_it(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        began = asyncio.Event()
        ends: list[str] = []

        @rig.node.protocol(OURS)
        async def handler(_: PeerConnection, reader: SubstreamReader, __: SubstreamWriter) -> None:
            began.set()
            try:
                await reader.read(1_000_000)
                await reader.read()
            except asyncio.CancelledError:
                ends.append("cancelled")
                raise

        await offered(rig)
        theirs = rig.side.begin(shouted_in_vain(rig.side))
        reader, _ = await rig.node.open("bob", ECHO)
        await began.wait()
        await rig.node.end(rig.worker.clock() + 5.0)
        assert ends == ["cancelled"]
        assert isinstance(await asyncio.wrap_future(theirs), SubstreamReset)
        with pytest.raises(SubstreamReset, match="the party closes"):
            await reader.read(1)
        with pytest.raises(ConnectionsClosed):
            await rig.node.connect("bob")

    in_loop(tmp_path, scenario)


def test_the_end_comes_as_soon_as_everybody_is_done(tmp_path: Path) -> None:
    with blocking_rig(tmp_path) as rig:
        rig.node.serve(OURS, shout)
        rig.block(offered(rig))
        for is_closed in (False, True):
            reader, writer = rig.block(rig.node.open("bob", ECHO))
            writer.write(b"x")
            assert rig.block(reader.readexactly(1)) == b"x"
            if is_closed:
                writer.close()
        assert rig.block(rig.answer(shouted(rig.side))) == answer_of(rig)
        rig.block(rig.node.end(math.inf))
        assert not rig.node.connections
        assert rig.worker.links[1].substreams is not None
        assert rig.worker.links[1].substreams.cause == ""


async def shouted_in_vain(side: BridgeSide) -> BaseException | None:
    connection = await side.bob.peers.connect(side.alice.peers.peer_id)
    _, reader, writer = await connection.open([OURS])
    writer.write(b"x")
    try:
        await reader.read()
    except SubstreamReset as error:
        return error
    return None


async def served(side: BridgeSide, protocol: str, handler: ProtocolHandler) -> None:
    side.bob.peers.serve(protocol, handler)


async def offered(rig: Rig, protocol: str = OURS) -> None:
    """Until peers of the bridge's process may open it."""
    await rig.until(lambda: protocol in rig.side.alice.peers.claim.protocols)


@contextmanager
def scheduling(rig: Rig) -> Iterator[Scheduler]:
    scheduler = Scheduler(rig.worker)
    try:
        yield scheduler
    finally:
        scheduler.close()


# Interruptions and forks.


def test_an_exception_in_the_midst_of_a_pass_costs_the_lane_and_nothing_else(tmp_path: Path) -> None:
    """As Ctrl-C does, wherever it comes."""
    with blocking_rig(tmp_path) as rig:
        reader, writer = rig.block(rig.node.open("bob", ECHO))
        lane = rig.worker.links[1].substreams
        assert lane is not None

        def interrupted() -> None:
            raise KeyboardInterrupt

        lane.substreams.turns.call_soon(interrupted)
        writer.write(b"x")
        asked: list[str] = []
        with patch.object(rig.worker.link_life, "ask_for_link", lambda link, cause: asked.append(link.name)):
            with pytest.raises(KeyboardInterrupt):
                rig.block(reader.read(1))
            with pytest.raises(SubstreamSessionOver, match="an exception interrupted the worker"):
                rig.block(reader.read(1))
        assert asked == ["bob"]
        rig.link_up(epoch=2)
        assert rig.block(echoed(rig, b"again")) == b"again"


def test_ctrl_c_in_a_handler_reaches_the_program_and_the_lane_goes_on(tmp_path: Path) -> None:
    with blocking_rig(tmp_path) as rig:

        async def interrupted(_: PeerConnection, __: SubstreamReader, ___: SubstreamWriter) -> None:
            raise KeyboardInterrupt

        rig.node.serve(OURS, interrupted)
        rig.block(offered(rig))
        answer = rig.side.begin(shouted(rig.side))
        with pytest.raises(KeyboardInterrupt):
            rig.serve_until(answer.done)
        rig.serve_until(answer.done)
        assert isinstance(answer.exception(), SubstreamReset)
        assert rig.block(echoed(rig, b"again")) == b"again"


def test_a_fork_has_no_part_in_substreams_and_the_parent_goes_on(tmp_path: Path) -> None:
    with blocking_rig(tmp_path) as rig:
        rig.process_up()
        reader, writer = rig.block(rig.node.open("bob", ECHO))
        held_up = threading.Event()
        rig.side.loop.call_soon_threadsafe(held_up.wait)
        writer.write(bytes(RING_SIZE))
        rig.worker.flush()
        assert rig.worker.stalled
        pid = os.fork()
        if not pid:
            try:
                rig.block(reader.read(1))
            except SubstreamSessionOver as error:
                link = rig.worker.links[1]
                lanes = [*link.lanes.values(), link.control, *(bridge.lane for bridge in rig.node._bridges())]
                is_left = all(lane is not None and lane.is_over for lane in lanes) and not rig.worker.stalled
                os._exit(0 if "is a fork" in error.cause and is_left else 1)
            finally:
                os._exit(2)
        held_up.set()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert rig.block(reader.readexactly(RING_SIZE)) == bytes(RING_SIZE)
        writer.close()
