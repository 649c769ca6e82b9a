"""Sessions of the bulk class: what parties agree on, where their frames go, and whole parties with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from partywire import NoBulkConnection, Party, PartyConfig, PeerLost, SetupAborted, SetupMismatch, UnsupportedByPeer
from partywire.engine.bulk_commands import BulkFailed, BulkLane, OpenBulk
from partywire.engine.commands import LinkLost
from partywire.engine.frames import Descriptor, encode_frame
from partywire.engine.iris_options import IrisOptions
from partywire.workers.bulk import open_bulk
from partywire.workers.lane import BULK_SLICE_SIZE
from tests.support.reserved_ports import reserved_ports
from tests.workers.harness import NAMES, Table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from partywire.workers.session import Session

TIMEOUT_S = 30.0
BULK = 1
"""The only bulk connection of a link with one worker at each end."""


@pytest.fixture
def two() -> Iterator[Table]:
    with Table(2) as table:
        yield table


def test_a_session_of_each_class_with_the_same_peer_keeps_its_order(two: Table) -> None:
    two.add_bulk()
    normal = [worker.make_session(0) for worker in two.workers]
    bulk = [worker.make_session(1, is_bulk=True) for worker in two.workers]

    async def talk(small: Session, large: Session, peer: int) -> list[bytes]:
        for number in range(5):
            await large.send(peer, bytes([number]) * 300_000)
            await small.send(peer, bytes([number]))
        return [await small.recv(peer) for _ in range(5)] + [await large.recv(peer) for _ in range(5)]

    for heard in two.ok(talk(normal[0], bulk[0], 1), talk(normal[1], bulk[1], 0)):
        assert heard == [bytes([n]) for n in range(5)] + [bytes([n]) * 300_000 for n in range(5)]
    lane = two.workers[0].links[1].lanes[BULK]
    assert (lane.messages_received, lane.is_bulk) == (5, True)


def test_a_worker_takes_a_slice_of_a_bulk_lane_and_then_looks_at_the_others(two: Table) -> None:
    two.add_bulk()
    two.workers[0].make_session(1, is_bulk=True)
    two.end_of(0, 1, BULK).stream += encode_frame(1, Descriptor.BYTES, bytes(1000)) * (4 * BULK_SLICE_SIZE // 1000)
    two.slice_max = 10_000
    two.move()
    lanes = two.workers[0].links[1].lanes
    lanes[BULK].receive()
    assert BULK_SLICE_SIZE <= lanes[BULK].bytes_received < BULK_SLICE_SIZE + 10_000
    receivers: list[Any] = two.workers[0]._receivers
    assert receivers.index(lanes[0]) < receivers.index(lanes[BULK]) == len(receivers) - 1


@pytest.mark.parametrize(("is_bulk", "connection"), [(True, 0), (False, BULK)])
def test_what_comes_early_on_a_connection_of_the_wrong_class_is_refused(
    two: Table, is_bulk: bool, connection: int
) -> None:
    two.add_bulk()
    two.workers[0].expect_sessions()
    two.feed(0, 1, encode_frame(0, Descriptor.BYTES, b"early"), connection)
    two.settle()
    assert two.workers[0].counters.parked == 1
    session = two.workers[0].make_session(0, is_bulk=is_bulk)
    two.workers[0].expect_sessions_end()
    assert not session._peers[0].queue
    assert two.workers[0].inbox_size == 0


def test_without_a_bulk_connection_there_is_no_bulk_session(two: Table) -> None:
    with pytest.raises(PeerLost, match="bulk connection"):
        two.workers[0].make_session(0, is_bulk=True)


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (BulkFailed(1, 7, "no room"), NoBulkConnection),
        (BulkFailed(1, 6, "of the epoch before"), NoBulkConnection),  # by the deadline
        (LinkLost(1, "gone"), PeerLost),
        (None, NoBulkConnection),
    ],
)
def test_who_waits_for_a_bulk_connection_hears_why_there_is_none(
    two: Table, event: BulkFailed | LinkLost | None, error: type[Exception]
) -> None:
    worker = two.workers[0]
    asked: list[object] = []

    def ask(message: object) -> None:
        asked.append(message)
        if event is not None:
            worker.commands.take(event, [])

    worker.commands.ask = ask  # type: ignore[method-assign]
    [outcome] = two.run(open_bulk(worker, [0, 1, 2], worker.clock() + 5.0), advance_s=1.0)
    assert isinstance(outcome, error)
    assert ("no room" in str(outcome)) == (event == BulkFailed(1, 7, "no room"))
    assert asked == [OpenBulk(1, 7, [BULK])]


def test_a_bulk_lane_of_an_epoch_that_is_over_is_given_back(two: Table) -> None:
    read, write = os.pipe()
    two.workers[0].commands.take(BulkLane(0, 1, 6, BULK, 1 << 20), [read, write])
    assert list(two.workers[0].links[1].lanes) == [0]
    for fd in (read, write):
        with pytest.raises(OSError, match="descriptor"):
            os.fstat(fd)


def test_there_is_no_bulk_session_with_a_peer_of_the_iris_protocol() -> None:
    with Table(2, iris=IrisOptions()) as table:
        party = Party(PartyConfig(name="alice", parties={name: f"127.0.0.1:{1 + k}" for k, name in enumerate(NAMES)}))
        party._worker = table.workers[0]
        [error] = table.run(party.make_sessions(1, bulk=True))
    assert isinstance(error, UnsupportedByPeer)


async def exchange(session: Session, size: int) -> None:
    """With the other one, both directions at once."""
    peer = 1 - session.party_index
    await session.send(peer, bytes([session.party_index]) * size, timeout=TIMEOUT_S)
    assert await session.recv(peer, timeout=TIMEOUT_S) == bytes([peer]) * size


def test_bulk_sessions_of_whole_parties() -> None:
    """Made, reset, lost with an I/O process and made again; a party that wants another class; goodbye."""

    async def everybody() -> None:
        async with AsyncExitStack() as stack:
            names = NAMES[:2]
            ports = stack.enter_context(reserved_ports(2))
            addresses = {name: f"127.0.0.1:{port}" for name, port in zip(names, ports, strict=True)}
            parties = [Party(PartyConfig(name=name, parties=addresses)) for name in names]
            await asyncio.gather(*(stack.enter_async_context(party) for party in parties))

            async def make(*classes: bool) -> list[Any]:
                calls = (
                    party.make_sessions(1, bulk=bulk, timeout=TIMEOUT_S)
                    for party, bulk in zip(parties, classes, strict=True)
                )
                return await asyncio.gather(*calls, return_exceptions=True)

            bulk, normal = await make(True, True), await make(False, False)
            await asyncio.gather(*(exchange(session, 3_000_000) for [session] in bulk))
            await asyncio.gather(*(exchange(session, 3) for [session] in normal))
            assert [session._peers[0].lane.connection for [session] in (*bulk, *normal)] == [BULK, BULK, 0, 0]
            assert [lane.connection for lane in parties[0].stat().links[0].lanes] == [0, BULK]
            for error in await make(True, False):
                assert isinstance(error, SetupMismatch)
                assert error.field == "class of sessions"

            os.kill(parties[0].pids["link 1"], signal.SIGKILL)
            for [session] in bulk:
                with pytest.raises(PeerLost):
                    await session.recv(1 - session.party_index, timeout=TIMEOUT_S)
            again = await make(True, True)
            while any(isinstance(made, (PeerLost, SetupAborted)) for made in again):
                again = await make(True, True)  # one end had not heard of the loss
            await asyncio.gather(*(exchange(session, 300_000) for [session] in again))
            await asyncio.gather(*(session.reset(timeout=TIMEOUT_S) for [session] in bulk))
            await asyncio.gather(*(exchange(session, 3) for [session] in bulk))
            assert all(session.is_bulk for [session] in bulk)
            await asyncio.gather(*(party.close() for party in parties))

    asyncio.run(everybody())
