"""Jobs handed in one by one, as futures. Two parties run it: python executor.py CONFIG"""

import sys

import numpy as np

from partywire import BlockingParty, BlockingSession, JobFailed, Session
from partywire.workers.adapters.executor import PartyExecutor


async def mean(session: Session, column: np.ndarray) -> float:
    sums = await session.gather(np.array([column.sum(), column.size]))
    total, count = np.sum(sums, axis=0)
    return float(total / count)


def largest(session: BlockingSession, column: np.ndarray, *, limit: float) -> float:
    if column.max() > limit:
        raise ValueError("a value above the limit")
    return float(max(peak[0] for peak in session.gather(np.array([column.max()]))))


def main(party: BlockingParty) -> None:
    table = np.arange(12.0).reshape(3, 4) * (party.index + 1)  # each party has rows of its own
    with PartyExecutor(party) as executor:
        means = executor.map(mean, table.T)  # a job for each column; all run at the same time
        peak = executor.submit(largest, table[0], limit=100)
        refused = executor.submit(largest, table[2], limit=20)
        print(f"{party.name}: means {list(means)}, peak {peak.result()}")
        try:
            refused.result()
        except JobFailed as error:  # at every party, whoever's input it was; the other jobs are not concerned
            print(f"{party.name}: job {error.index} failed at {error.party}")


if __name__ == "__main__":
    with BlockingParty(sys.argv[1]) as party:
        main(party)
