"""Substreams between connected peers: which protocol they are for, and who serves them how."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from partywire.engine.negotiation import NegotiationFailed
from partywire.engine.peers.errors import (
    NegotiationTimedOut,
)
from partywire.engine.yamux.errors import SubstreamReset
from tests.peers.peer_net import ECHO, PeerNet, ask, caught_logs, echo, scenario, until

if TYPE_CHECKING:
    from partywire.engine.peers.contract import PeerConnection
    from partywire.engine.substreams.streams import SubstreamReader, SubstreamWriter


@scenario
async def test_the_fifth_of_five_protocols_is_agreed_on_and_none_of_five_is_a_failure(net: PeerNet) -> None:
    alice, bob = await net.pair()
    connection = await alice.connect(bob)
    bob.peers._own.handlers["/test/5"] = echo  # served, and never told: so it is asked for
    names = [f"/test/{index}" for index in range(1, 6)]
    agreed, reader, writer = await connection.open(names)
    assert agreed == "/test/5"
    writer.write(b"x")
    assert await reader.readexactly(1) == b"x"
    writer.close()
    with pytest.raises(NegotiationFailed) as caught:
        await connection.open([*names[:4], "/test/6"])
    assert caught.value.protocols == (*names[:4], "/test/6")
    with pytest.raises(ValueError, match="6 protocols"):
        await connection.open([*names, "/test/6"])
    with pytest.raises(ValueError, match="0 protocols"):
        await connection.open([])
    await until(lambda: bob.peers.counters.negotiations_failed == 1)
    assert not connection.closed.done()


@scenario
async def test_a_protocol_that_was_told_and_is_served_no_more_ends_in_a_reset(net: PeerNet) -> None:
    alice, bob = await net.pair()
    bob.serve_echo()
    connection = await alice.connect(bob)
    del bob.peers._own.handlers[ECHO]  # before alice can hear of it
    _, reader, writer = await connection.open([ECHO])
    writer.write(b"x")
    with pytest.raises(SubstreamReset):
        await reader.read(1)
    assert bob.peers.counters.negotiations_failed == 1


@scenario
async def test_both_ends_open_substreams_of_protocols_of_the_other(net: PeerNet) -> None:
    """Reference: peer_to_peer_custom_protocols."""
    alice, bob = await net.pair()
    alice.serve_echo("/test/alice")

    @bob.peers.protocol("/test/bob")
    async def greet(connection: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        writer.write(b"hello " + connection.claim.user_agent.encode())

    to_bob = await alice.connect(bob)
    to_alice = await bob.connect(alice)
    assert await ask(to_alice, b"back", "/test/alice") == b"back"
    assert await ask(to_bob, b"", "/test/bob") == b"hello test alice"


@scenario
async def test_a_slow_handler_and_a_silent_negotiation_hold_up_nobody(net: PeerNet) -> None:
    alice, bob = await net.pair()
    bob.serve_echo()
    stop = asyncio.Event()

    @bob.peers.protocol("/test/slow")
    async def slow(connection: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        await stop.wait()

    connection = await alice.connect(bob)
    slow_ones = [await connection.open(["/test/slow"]) for _ in range(50)]
    silent = [await connection._substreams.open() for _ in range(20)]  # type: ignore[attr-defined]
    assert await ask(connection, bytes(300_000)) == bytes(300_000)
    stop.set()
    for _, reader, writer in slow_ones:
        assert await reader.read() == b""
        writer.close()
    for _, writer in silent:
        writer.reset()


@scenario
async def test_a_peer_that_never_answers_a_proposal_is_a_time_out(net: PeerNet) -> None:
    alice, bob = await net.pair(negotiation_timeout_s=0.05)
    connection = await alice.connect(bob)
    theirs = bob.to(alice)
    theirs._begin = lambda reader, writer: None  # type: ignore[union-attr]
    theirs._substreams._on_substream._serve = lambda reader, writer: None  # type: ignore[union-attr]
    with pytest.raises(NegotiationTimedOut, match=r"within 0\.05 s"):
        await connection.open(["/test/unheard"])
    assert not connection.closed.done()


@scenario
async def test_negotiations_above_the_limit_wait_for_their_turn(net: PeerNet) -> None:
    alice, bob = await net.pair(negotiations_max=4)
    bob.serve_echo()
    connection = await alice.connect(bob)
    silent = [await connection._substreams.open() for _ in range(4)]  # type: ignore[attr-defined]
    await until(lambda: bob.peers.counters.negotiations == 4)
    waiting = [asyncio.create_task(ask(connection, b"my turn")) for _ in range(10)]
    await until(lambda: bob.peers.counters.negotiations == 14)
    assert not any(task.done() for task in waiting)
    silent[0][1].reset()
    assert await asyncio.gather(*waiting) == [b"my turn"] * 10
    assert bob.peers.counters.negotiations_failed == 1


@scenario
async def test_a_flood_of_silent_negotiations_is_reset_and_ends_with_their_time(net: PeerNet) -> None:
    alice, bob = await net.pair(negotiations_max=4, negotiation_timeout_s=0.1)
    bob.serve_echo()
    connection = await alice.connect(bob)
    silent = [await connection._substreams.open() for _ in range(200)]  # type: ignore[attr-defined]
    await until(lambda: bob.peers.counters.negotiations_failed == 200)
    for reader, _ in silent:
        with pytest.raises(SubstreamReset):
            await reader.read(1)
    assert await ask(connection, b"free again") == b"free again"


@scenario
async def test_a_handler_that_raises_is_told_to_the_log_and_the_peer_and_nobody_else(net: PeerNet) -> None:
    alice, bob = await net.pair()
    bob.serve_echo()

    @bob.peers.protocol("/test/broken")
    async def broken(connection: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        raise ZeroDivisionError("the secret is forty-two")

    with caught_logs() as records:
        connection = await alice.connect(bob)
        _, reader, _ = await connection.open(["/test/broken"])
        with pytest.raises(SubstreamReset) as caught:
            await reader.read(1)
    assert "forty-two" not in str(caught.value)
    (record,) = records
    assert record.getMessage() == f"the handler of /test/broken failed for peer {alice.peers.peer_id}"
    assert bob.peers.counters.handlers_failed == 1
    assert await ask(connection, b"x") == b"x"


@scenario
async def test_what_a_peer_sent_before_it_left_is_still_read_by_its_handler(net: PeerNet) -> None:
    alice, bob = await net.pair()
    got: asyncio.Future[bytes] = net.loop.create_future()
    go_on = asyncio.Event()

    @bob.peers.protocol("/test/last")
    async def last(connection: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        await connection.closed
        await go_on.wait()
        got.set_result(await reader.read(100))

    connection = await alice.connect(bob)
    _, _, writer = await connection.open(["/test/last"])
    writer.write(b"last words")
    await until(lambda: bob.peers.counters.negotiations == 1)
    await connection.aclose()
    await until(lambda: not bob.peers.connections)
    go_on.set()
    assert await got == b"last words"


@scenario
async def test_handlers_end_with_the_node_also_those_that_close_their_own_connection(net: PeerNet) -> None:
    alice, bob = await net.pair()
    seen: list[str] = []

    @bob.peers.protocol("/test/closes")
    async def closes(connection: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        await connection.aclose()
        seen.append("closed")

    @bob.peers.protocol("/test/waits")
    async def waits(connection: PeerConnection, reader: SubstreamReader, writer: SubstreamWriter) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("cancelled")

    connection = await alice.connect(bob)
    await connection.open(["/test/waits"])
    await connection.open(["/test/closes"])
    await connection.closed
    await until(lambda: sorted(seen) == ["cancelled", "closed"])
    connection = await alice.connect(bob)
    await connection.open(["/test/waits"])
    await until(lambda: bob.peers.counters.negotiations == 3)
    await bob.peers.aclose()
    assert seen.count("cancelled") == 2


@scenario
async def test_a_protocol_is_served_once_and_ids_have_bounds(net: PeerNet) -> None:
    node = await net.node("alice")
    node.peers.serve("/test/1", echo)
    for protocol in ("/test/1", "", "x" * 256, "/partywire/identity/1", "/partywire/identity/push/1", "a\nb"):
        with pytest.raises(ValueError, match=r"protocol id|served already"):
            node.peers.serve(protocol, echo)
    node.peers.serve("x" * 255, echo)
    for protocol in ("/test/2", "/partywire/identity/push/1"):
        with pytest.raises(ValueError, match="is not served"):
            node.peers.unserve(protocol)
    node.peers.unserve("/test/1")
    for index in range(62):
        node.peers.serve(f"/many/{index}", echo)
    with pytest.raises(ValueError, match="more cannot be"):
        node.peers.serve("/one/more", echo)
    assert len(node.peers.claim.protocols) == 64
