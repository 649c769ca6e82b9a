"""What is lost again and again leaves nothing behind in what lives on: no object, no descriptor, no segment."""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from partywire import BatchRunner
from partywire.engine import redial
from partywire.engine.commands import Lanes
from tests.faults.rig import Parties, play, until
from tests.support import keepers
from tests.support.processes import descriptor_count

if TYPE_CHECKING:
    from partywire.workers.session import Session
    from tests.support.keepers import Rig, Side

pytestmark = pytest.mark.timeout(120)

SETTLED, LOSSES = 3, 8
"""Losses after which everything that is made once is there, and all of them: fewer than an I/O process is restarted."""

EPOCHS, WINDOW = 80, 10
"""Of a link that is lost as soon as it is up. An attempt that is over may still be there at one moment and not at the
next, so what the last epochs always have is compared with the most that the first ones had at any time."""


def objects() -> Counter[str]:
    """Living objects of our own types. Deadlines that were taken back have a bound and a test of their own."""
    gc.collect()
    kinds = Counter(f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in gc.get_objects())
    return Counter(
        {kind: count for kind, count in kinds.items() if kind.startswith("partywire") and "Wait" not in kind}
    )


def segments(pid: int) -> int:
    """Shared memory that a process has mapped."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return sum("/dev/shm/partywire" in line or "memfd:" in line for line in maps)


def holdings(pids: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Descriptors and mapped segments of each."""
    return {role: (descriptor_count(pid), segments(pid)) for role, pid in pids.items()}


async def say_number(session: Session, number: int) -> int:
    await session.broadcast(b"%d" % number)
    return int(await session.recv(1 - session.party_index))


def test_lost_links_resets_and_batches_leave_openers_supervisors_and_gateways_as_they_were() -> None:
    async def lose(parties: Parties) -> None:
        """The dialler's I/O process dies in the middle of a session, which is reset; then a batch."""
        alice, bob = parties.parties
        sessions = await parties.sessions()
        waiting = asyncio.ensure_future(sessions[0].recv(1))
        links = (alice.worker.links[1], bob.worker.links[0])
        epochs = [link.epoch for link in links]
        os.kill(bob.pids["link 0"], 9)
        await asyncio.wait([waiting])
        assert waiting.exception() is not None
        await until(lambda: all(link.epoch > epoch and link.is_up for link, epoch in zip(links, epochs, strict=True)))
        await asyncio.gather(*(session.reset(timeout=None) for session in sessions))
        runners = [BatchRunner(party, 4) for party in parties.parties]
        results = await asyncio.gather(*(runner.amap(say_number, range(20)) for runner in runners))
        assert results == [list(range(20))] * 2
        for session in sessions:
            session.close()

    async def scenario() -> None:
        async with Parties(2) as parties:
            lasting = {
                f"{role} of {party.name}": party.pids[role]
                for party in parties.parties
                for role in ("supervisor", "gateway")
            } | {"openers": os.getpid(), "alice's link": parties.parties[0].pids["link 1"]}
            for loss in range(LOSSES):
                if loss == SETTLED:
                    objects_before, holdings_before = objects(), holdings(lasting)
                await lose(parties)
            assert objects() - objects_before == Counter()
            assert holdings(lasting) == holdings_before

    play(scenario())


def test_lost_epochs_leave_an_io_process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redial, "PAUSE_MIN_S", 0.001)
    monkeypatch.setattr(redial, "PAUSE_MAX_S", 0.002)

    def everything() -> Counter[str]:
        descriptors, mapped = holdings({"": os.getpid()})[""]
        return objects() + Counter(descriptors=descriptors, segments=mapped)

    def is_up(side: Side, epoch: int) -> bool:
        return side.keeper._standing is not None and side.heard(Lanes)[-1].epoch == epoch

    async def scenario(rig: Rig) -> None:
        sides = (rig.alice, rig.bob)
        for side in sides:
            side.takes_lanes = True
        keeping = await rig.up()
        early: Counter[str] = Counter()
        late: Counter[str] | None = None
        for epoch in range(1, EPOCHS + 1):
            await rig.wait(lambda epoch=epoch: all(is_up(side, epoch) for side in sides))  # type: ignore[misc]
            for side in sides:
                del side.told[:-1]
                assert len(side.keeper._untaken) <= 1
            if epoch <= 2 * WINDOW:
                early |= everything()
            elif epoch > EPOCHS - WINDOW:
                late = everything() if late is None else late & everything()
            if epoch == EPOCHS:
                break
            multiplexer = sides[epoch % 2].keeper._standing
            assert multiplexer is not None
            multiplexer.lose("flapping")
            for side in sides:
                side._stack.close()  # the worker drops the rings of the epoch
        assert late is not None
        assert late - early == Counter()
        for side in sides:
            side.keeper.begin_close()
        for task in keeping:
            task.cancel()
        await asyncio.wait(keeping)

    keepers.run(scenario)
