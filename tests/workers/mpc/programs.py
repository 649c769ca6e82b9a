"""Three-party programs for the tests of this folder: share plaintexts, do something, open, and return what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from partywire.workers.mpc import ArithmeticShare, BinaryShare, Replicated3
from tests.support.local_sessions import LocalSession, run_parties

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from numpy.typing import NDArray

    Share = ArithmeticShare | BinaryShare
    Operation = Callable[[Replicated3, Sequence[Any]], Awaitable[Share]]


@dataclass
class Outcome:
    """What the parties opened, and the cost of the operation alone at each party."""

    opened: NDArray[Any]
    rounds: int
    bytes_sent: list[int]


def compute(operation: Operation, *plaintexts: NDArray[Any]) -> Outcome:
    """Share each plaintext (of parties 0, 1, 2 in turn), run the operation, open its result to all."""

    async def program(session: LocalSession) -> tuple[NDArray[Any], int, int]:
        mpc = await Replicated3.setup(session)
        shares = [await share(mpc, index % 3, plain) for index, plain in enumerate(plaintexts)]
        rounds, size = mpc.rounds, mpc.bytes_sent
        result = await operation(mpc, shares)
        rounds, size = mpc.rounds - rounds, mpc.bytes_sent - size
        opened = await (mpc.open(result) if isinstance(result, ArithmeticShare) else mpc.open_bits(result))
        return opened, rounds, size

    outcomes, sessions = run_parties(program)
    for opened, rounds, _ in outcomes:
        np.testing.assert_array_equal(opened, outcomes[0][0])
        assert rounds == outcomes[0][1]
    assert all(session.sent for session in sessions)
    return Outcome(outcomes[0][0], outcomes[0][1], [size for _, _, size in outcomes])


async def share(mpc: Replicated3, owner: int, plain: NDArray[Any]) -> Any:
    mine = plain if mpc.party_index == owner else None
    if plain.dtype == np.bool_:
        return await mpc.input_bits(owner, mine, plain.shape)
    return await mpc.input(owner, mine, plain.shape, plain.dtype)
