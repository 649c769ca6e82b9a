"""A worker that dies after it was made ready for a batch, and before all parties have agreed to run it."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from partywire import BatchRunner
from tests.workers.test_recovery import Table, echo_pid, run

pytestmark = pytest.mark.timeout(60)


def test_the_batch_runs_again_with_the_worker_that_takes_its_place() -> None:
    async def scenario(table: Table) -> None:
        alice, bob = table.parties
        batch: asyncio.Task[list[Any]] = asyncio.ensure_future(BatchRunner(alice, sessions=2).amap(echo_pid, range(8)))
        await table.until(lambda: 0 in bob._rounds.book._theirs["alice"])  # alice waits for bob, with everything ready
        old = table.kill(0, "worker 1")
        await table.until(lambda: table.epoch(0, 1) == table.epoch(1, 0) == 2)
        theirs = BatchRunner(bob, sessions=2).amap(echo_pid, range(8))
        results: list[list[tuple[int, int]]] = await asyncio.gather(batch, theirs)
        assert {pid for pid, _ in results[0]} == {os.getpid(), alice.pids["worker 1"]}
        assert old != alice.pids["worker 1"]

    run(2, scenario, workers=2)
