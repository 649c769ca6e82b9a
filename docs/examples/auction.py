"""A job of our own: sealed bids. Three bidders learn who wins each lot and at what price, and nothing else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from partywire.workers.jobs import Job, JobInputError, JobOption, JobReport, JobRunner
from partywire.workers.mpc import ArithmeticShare, Replicated3, least

BIDDERS = (0, 1, 2)
BID_MAX = (1 << 30) - 1
EXAMPLE_BIDS = ([300, 20, 7, 1000], [200, 40, 7, 999], [100, 30, 7, 0])


async def open_winners(session: Any, mine: list[int]) -> list[tuple[int, int]] | JobInputError:
    """The winner and the price of each lot, opened to all. `mine` are the bids of this party."""
    mpc = await Replicated3.setup(session)

    # Shapes are public, and must be equal everywhere before they decide what is sent.
    counts = [await mpc.announce(owner, [len(mine)] if mpc.party_index == owner else None, 1) for owner in BIDDERS]
    lots = [int(count[0]) for count in counts]
    if len(set(lots)) > 1:
        return JobInputError("the bids", f"are for {lots[0]}, {lots[1]} and {lots[2]} lots; agree on the lots first")

    bids = ArithmeticShare.stack(
        [await mpc.input(owner, mine if mpc.party_index == owner else None, (len(mine),)) for owner in BIDDERS]
    )
    bidders = mpc.public(np.broadcast_to(np.array(BIDDERS)[:, None], bids.shape))
    # The highest bid is the least of the negated ones. Two of them differ by less than 2^30: 31 bits with the sign.
    price, winner = await least(mpc, -bids, bidders.reshape(1, *bids.shape), bits=31)
    opened = await mpc.open(ArithmeticShare.stack([winner[0], -price]))
    return [(int(bidder), int(amount)) for bidder, amount in opened.T]


class AuctionJob(Job):
    """What `partywire run` needs to know: the options, where the bids come from, what is told of the result."""

    name: ClassVar[str] = "auction"
    summary: ClassVar[str] = "sealed bids of three bidders; only the winner and the price of each lot are opened"
    options: ClassVar[tuple[JobOption, ...]] = (
        JobOption("bids", "path", None, "This party's bids, one whole number per lot. [default: an example]"),
    )

    def __init__(self, party_index: int, options: Mapping[str, object]) -> None:
        super().__init__(party_index, options)
        path = self.values["bids"]
        self._bids = EXAMPLE_BIDS[party_index] if path is None else load_bids(path)

    def run(self, runner: JobRunner) -> JobReport:
        [outcome] = runner.map(open_winners, [self._bids])
        if isinstance(outcome, JobInputError):
            raise outcome
        rows = [(f"lot {lot}", f"bidder {winner} pays {price}") for lot, (winner, price) in enumerate(outcome, 1)]
        return JobReport({"winners": [w for w, _ in outcome], "prices": [p for _, p in outcome]}, rows=rows)

    @classmethod
    def check(cls, options: Mapping[str, object], result: Mapping[str, object]) -> bool | None:
        if options.get("bids") is not None:
            return None
        bids = np.array(EXAMPLE_BIDS)
        return result == {"winners": bids.argmax(axis=0).tolist(), "prices": bids.max(axis=0).tolist()}


def load_bids(path: str) -> list[int]:
    """Raises JobInputError, which names the file and no bid."""
    try:
        bids = [int(line) for line in Path(path).read_text().split()]
    except (OSError, ValueError):
        raise JobInputError(path, "cannot be read as whole numbers") from None
    if not bids or not all(0 <= bid <= BID_MAX for bid in bids):
        raise JobInputError(path, f"must hold at least one bid, each from 0 to {BID_MAX}")
    return bids
