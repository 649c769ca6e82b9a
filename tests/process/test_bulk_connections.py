"""Bulk connections between two keepers in this process: who dials, what is refused, what a failure leaves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from partywire.engine import bulk_connections
from partywire.engine.attempt import Lane
from partywire.engine.bulk_commands import BulkFailed, BulkLane, OpenBulk
from partywire.engine.commands import Lanes, LinkEnded
from partywire.engine.pairing.pair_keeper import PairKeeper
from partywire.shm.errors import SegmentError
from tests.support.keepers import Rig, run

if TYPE_CHECKING:
    from tests.support.keepers import Side

BULK = 1
"""The only bulk connection of a link with one worker at each end."""


def ask(side: Side, *connections: int, epoch: int = 1) -> None:
    peer = side.keeper._peer.index
    side.keeper.open_bulk(OpenBulk(peer, epoch, list(connections or (BULK,))))


def ask_both(rig: Rig) -> None:
    ask(rig.alice)
    ask(rig.bob)


def lanes_of(rig: Rig) -> list[list[Any]]:
    return [side.heard(BulkLane) for side in (rig.alice, rig.bob)]


async def closed(rig: Rig, keeping: list[asyncio.Future[None]]) -> None:
    for task in keeping:
        task.cancel()
    await asyncio.wait(keeping)


def test_the_dialler_makes_one_connection_however_often_both_ask() -> None:
    async def scenario(rig: Rig) -> None:
        keeping = await rig.up()
        ask(rig.alice)  # who waits to be dialled
        for _ in range(3):
            ask(rig.bob)
        await rig.wait(lambda: all(lanes_of(rig)))
        ask(rig.bob)
        await asyncio.sleep(0.05)
        message = BulkLane(0, 1, 1, BULK, rig.options.message_size_max)
        assert lanes_of(rig)[0] == [message]
        assert [lane.connection for lane in lanes_of(rig)[1]] == [BULK]
        await closed(rig, keeping)

    run(scenario)


def test_who_is_dialled_reserves_nothing_before_its_own_opener_asks() -> None:
    async def scenario(rig: Rig) -> None:
        keeping = await rig.up()
        keeper, tasks = rig.alice.keeper, len(rig.alice.keeper._tasks)
        ask(rig.bob)
        await rig.wait(lambda: len(keeper._tasks) > tasks)
        await asyncio.sleep(0.05)
        assert keeper._attempt is not None
        assert not keeper._attempt.bulk_lanes
        assert not any(lanes_of(rig))
        ask(rig.alice)
        await rig.wait(lambda: all(lanes_of(rig)))
        await closed(rig, keeping)

    run(scenario)


def test_what_cannot_be_is_not_dialled() -> None:
    async def scenario(rig: Rig) -> None:
        keeping = await rig.up()
        ask(rig.bob, 0, 2, 3)  # a normal one, and those behind the last
        ask(rig.bob, BULK, epoch=2)
        tasks = len(rig.bob.keeper._tasks)
        await asyncio.sleep(0.05)
        assert len(rig.bob.keeper._tasks) == tasks
        assert lanes_of(rig) == [[], []]
        await closed(rig, keeping)

    run(scenario)


@pytest.mark.parametrize("failing", ["alice", "bob"])
def test_a_party_without_memory_for_it_says_so_and_the_link_stands(
    failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(rig: Rig) -> None:
        keeping = await rig.up()
        side = rig.alice if failing == "alice" else rig.bob

        def make(*given: Any) -> Lane:
            if given[-1] is side._bell:
                raise SegmentError("/dev/shm is full")
            return Lane(*given)

        monkeypatch.setattr(bulk_connections, "Lane", make)
        ask_both(rig)
        await rig.wait(lambda: side.heard(BulkFailed))
        assert side.heard(BulkFailed)[0].cause.startswith("bulk connection 0 cannot be made: ")
        monkeypatch.undo()
        ask_both(rig)  # there is memory again
        await rig.wait(lambda: all(lanes_of(rig)))
        assert not rig.alice.heard(LinkEnded) + rig.bob.heard(LinkEnded)
        await closed(rig, keeping)

    run(scenario)


def test_a_bulk_connection_that_breaks_loses_the_link_and_the_next_one_begins_without() -> None:
    async def scenario(rig: Rig) -> None:
        keeping = await rig.up()
        ask_both(rig)
        await rig.wait(lambda: all(lanes_of(rig)))
        assert rig.alice.keeper._attempt is not None
        assert rig.alice.keeper._attempt.multiplexer is not None
        rig.alice.keeper._attempt.multiplexer._pumps[BULK]._stream.abort()
        rig.alice.takes_lanes = rig.bob.takes_lanes = True
        await rig.wait(lambda: rig.bob.heard(LinkEnded))
        assert "bulk connection 0" in rig.bob.heard(LinkEnded)[0].cause
        await rig.wait(lambda: len(rig.bob.heard(Lanes)) == 2)
        assert rig.bob.heard(Lanes)[1].connections == [0]
        await closed(rig, keeping)

    run(scenario)


def test_a_pool_takes_no_bulk_connection() -> None:
    assert not PairKeeper.has_bulk
