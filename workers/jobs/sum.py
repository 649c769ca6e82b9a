"""Job `sum`: what do all of us have together? Two to nine parties add up secret vectors; only the sum is opened.

Each party has a vector of integers: its own .npy file, or one made from a seed for a trial. All learn the elementwise
sum, and how long the vectors are. The protocol is in additive.py; numpy is imported only when data is loaded, so that
`--help` stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from partywire.engine import limits

from .errors import JobInputError, JobOptionError
from .job import Job, JobOption, JobReport, resolve_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from .additive import AnySession
    from .job import JobRunner

__all__ = ["SumJob"]

LENGTH_DEFAULT = 1000
LENGTH_MAX = 1_000_000
"""Numbers of one vector: the result is one line of JSON of at most 20 characters a number, which has to stay below what
a launcher takes."""

VALUE_MAX = 10**18
"""Nine such numbers still have a sum below 2^63, so that no sum wraps."""

CHUNK_DEFAULT = 65_536
"""Numbers of one job of the batch: half a MiB to every peer, and enough jobs of a long vector to hide one's rounds
behind another's words."""


class SumJob(Job):
    """An elementwise sum; made of one job that compares lengths and one for each chunk of the vectors."""

    name: ClassVar[str] = "sum"
    summary: ClassVar[str] = "add up secret vectors of two to nine parties; only the sum is opened"
    parties: ClassVar[int] = 3
    parties_range: ClassVar[range | None] = range(limits.PARTIES_MIN, limits.PARTIES_MAX + 1)
    options: ClassVar[tuple[JobOption, ...]] = (
        JobOption("values", "path", None, "Own vector: a 1-D .npy of integers up to 10^18 in size, either sign."),
        JobOption("length", "int", LENGTH_DEFAULT, "Numbers that a party without --values makes up."),
        JobOption("seed", "int", 1, "What they are made from; with it anybody can compute them.", shared=True),
        JobOption("chunk", "int", CHUNK_DEFAULT, "Numbers per session and step.", shared=True),
    )

    def __init__(self, party_index: int, options: Mapping[str, object]) -> None:
        super().__init__(party_index, options)
        _require_valid(self.values)
        if self.values["values"] is None:
            self._vector = made_up(self.values["seed"], party_index, self.values["length"])
        else:
            self._vector = load_vector(self.values["values"])

    def run(self, runner: JobRunner) -> JobReport:
        """Compare the lengths, then add. `checked` is set when every party made its vector up."""
        import numpy as np

        is_made_up = self.values["values"] is None
        [plan] = runner.map(meet, [(len(self._vector), is_made_up)])
        if isinstance(plan, JobInputError):
            raise plan
        parties, all_made_up = plan
        chunk = self.values["chunk"]
        starts = range(0, len(self._vector), chunk)
        opened = runner.map(add_chunk, [self._vector[start : start + chunk] for start in starts])
        total = np.concatenate(opened).tolist()
        result: dict[str, object] = {"sum": total, "length": len(total), "parties": parties}
        rows = [
            ("vectors added", f"{parties} of {len(total):,} numbers"),
            ("sum begins with", " ".join(map(str, total[:5])) + (" ..." if len(total) > 5 else "")),
        ]
        checked = None
        if all_made_up:
            checked = self.check({"seed": self.values["seed"], "length": len(total)}, result)
        return JobReport(result, checked, rows)

    @classmethod
    def check(cls, options: Mapping[str, object], result: Mapping[str, object]) -> bool:
        """Whether `result["sum"]` is the sum of what these options stand for at every party. A file given to all
        parties of a local run is the vector of each."""
        import numpy as np

        values = resolve_options(cls.options, options)
        _require_valid(values)
        parties = result.get("parties")
        if not isinstance(parties, int):
            return False
        if values["values"] is not None:
            vectors = [load_vector(values["values"])] * parties
        else:
            vectors = [made_up(values["seed"], index, values["length"]) for index in range(parties)]
        return result.get("sum") == np.sum(vectors, axis=0, dtype=np.int64).tolist()


def load_vector(path: str) -> NDArray[Any]:
    """A party's own vector as 64-bit integers.

    Raises:
        JobInputError: names the file and what is wrong with its shape or range, never a value.
    """
    import numpy as np

    from .npy_file import read_npy

    array = read_npy(path)
    if array.dtype.kind not in "iu":
        raise JobInputError(path, f"must hold integers, not {array.dtype}")
    if array.ndim != 1 or not 1 <= array.size <= LENGTH_MAX:
        raise JobInputError(
            path, f"must have one dimension with 1 to {LENGTH_MAX:,} numbers; its shape is {array.shape}"
        )
    if int(array.min()) < -VALUE_MAX or int(array.max()) > VALUE_MAX:
        raise JobInputError(path, "has numbers outside -10^18 to 10^18, of which nine could not be added up")
    return array.astype(np.int64)


def made_up(seed: int, party_index: int, length: int) -> NDArray[Any]:
    """The vector of a party that has none: the same for the same seed, party and length everywhere."""
    import numpy as np

    generator = np.random.Generator(np.random.Philox(key=[seed, party_index]))
    return generator.integers(-1000, 1001, length, dtype=np.int64)


async def meet(session: AnySession, mine: tuple[int, bool]) -> tuple[int, bool] | JobInputError:
    """Everybody tells how long its vector is and whether it was made up. 1 round.

    Returns the number of parties and whether all vectors were made up; or why they cannot be added, which every party
    finds alike, so it is no failure of one of them.
    """
    import numpy as np

    peers = [index for index in range(len(session.parties)) if index != session.party_index]
    for peer in peers:
        await session.send(peer, np.array(mine, np.uint64))
    told = {session.party_index: (int(mine[0]), int(mine[1]))}
    for peer in peers:
        length, is_made_up = (await session.recv(peer, out=np.empty(2, np.uint64))).tolist()
        told[peer] = (length, is_made_up)
    lengths = [told[index][0] for index in range(len(session.parties))]
    if len(set(lengths)) > 1:
        each = ", ".join(f"{name} has {length}" for name, length in zip(session.parties, lengths, strict=True))
        return JobInputError("the vectors", f"are not equally long: {each}")
    return len(lengths), all(is_made_up for _, is_made_up in told.values())


async def add_chunk(session: AnySession, mine: NDArray[Any]) -> NDArray[Any]:
    """The sum of every party's piece, as signed integers."""
    import numpy as np

    from .additive import open_sum

    total = await open_sum(session, mine.view(np.uint64))
    return total.view(np.int64)


def _require_valid(values: Mapping[str, Any]) -> None:
    bounds = (("length", 1, LENGTH_MAX), ("seed", 0, 2**63 - 1), ("chunk", 1, LENGTH_MAX))
    for name, least, most in bounds:
        if not least <= values[name] <= most:
            raise JobOptionError(name, f"must be {least} to {most}")
