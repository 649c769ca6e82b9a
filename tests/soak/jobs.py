"""The job of the soak, and what its result must be."""

from __future__ import annotations

import random
import zlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from partywire import Session

PARTIES = 3
TIMEOUT_S = 60.0


class Task(NamedTuple):
    """One input: everything else follows from it."""

    seed: int
    rounds: int
    size_max: int


def payload(task: Task, party: int, round_: int) -> bytes:
    """What a party sends in a round."""
    rng = random.Random(task.seed * 1009 + party * 31 + round_)
    return rng.randbytes(rng.randint(0, task.size_max))


async def exchange(session: Session, task: Task) -> int:
    """Round after round around the ring of parties; the sum of the checksums of what came."""
    task = Task(*task)
    total = 0
    for round_ in range(task.rounds):
        await session.send_next(payload(task, session.party_index, round_), timeout=TIMEOUT_S)
        total += zlib.crc32(await session.recv_prev(timeout=TIMEOUT_S))
    return total


def expected(task: Task, party: int) -> int:
    """The result at a party."""
    before = (party - 1) % PARTIES
    return sum(zlib.crc32(payload(task, before, round_)) for round_ in range(task.rounds))


def tasks_of(seed: int, batch: int) -> list[Task]:
    """The inputs of one batch, equal at all parties."""
    rng = random.Random(seed * 1_000_003 + batch)
    size_max = rng.choice((10, 1000, 50_000, 600_000))
    rounds_max = 3 if size_max > 100_000 else 60
    return [
        Task(rng.randrange(1 << 30), rng.randint(1, rounds_max), size_max)
        for _ in range(rng.randint(1, 8 if size_max > 100_000 else 120))
    ]
