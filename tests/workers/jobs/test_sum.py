"""The job `sum` and additive sharing among two to nine parties, in one process; bad data give one sentence."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partywire.workers.jobs import JobInputError, JobOptionError
from partywire.workers.jobs.additive import expanded, open_sum, share_of_sum, sum_of_shares
from partywire.workers.jobs.sum import LENGTH_MAX, VALUE_MAX, SumJob, add_chunk, meet
from partywire.workers.local import NAMES
from partywire.workers.mpc.errors import ShareMismatch
from partywire.workers.mpc.prf import fresh_key
from partywire.workers.values import PrfKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from numpy.typing import NDArray


class Net:
    """What all sessions of a test share: a queue for each direction, and everything that was sent."""

    def __init__(self, parties: int) -> None:
        self.names = NAMES[:parties]
        self.queues: dict[tuple[int, int], asyncio.Queue[Any]] = defaultdict(asyncio.Queue)
        self.sent: dict[int, list[Any]] = defaultdict(list)

    def play(self, program: Callable[[Any, int], Awaitable[Any]]) -> list[Any]:
        """Run the program at every party, given its session and index."""

        async def together() -> list[Any]:
            return list(await asyncio.gather(*(program(Seat(self, index), index) for index in range(len(self.names)))))

        return asyncio.run(together())


class Seat:
    """One party's session."""

    def __init__(self, net: Net, party_index: int) -> None:
        self._net = net
        self.party_index = party_index
        self.parties = net.names

    async def send(self, peer: int, value: Any, /) -> None:
        assert peer != self.party_index
        value = value.copy() if isinstance(value, np.ndarray) else value
        self._net.sent[self.party_index].append(value)
        self._net.queues[self.party_index, peer].put_nowait(value)

    async def recv(self, peer: int, /, *, out: NDArray[Any] | None = None) -> Any:
        value = await self._net.queues[peer, self.party_index].get()
        if out is None:
            return value
        assert value.dtype == out.dtype
        assert value.shape == out.shape
        out[...] = value
        return out


class Runner:
    """BatchRunner for parties that meet in one batch after another."""

    def __init__(self, tables: asyncio.AbstractEventLoop, net: Net, index: int) -> None:
        self._loop = tables
        self._seat = Seat(net, index)

    def map(self, job: Any, inputs: Any, /) -> list[Any]:
        async def one_after_another() -> list[Any]:
            return [await job(self._seat, one) for one in inputs]

        return asyncio.run_coroutine_threadsafe(one_after_another(), self._loop).result(60)


def run(jobs: list[SumJob]) -> list[Any]:
    """The reports, or errors, of parties that run the job together."""

    async def together() -> list[Any]:
        net, loop = Net(len(jobs)), asyncio.get_running_loop()
        with ThreadPoolExecutor(len(jobs)) as threads:
            runs = [loop.run_in_executor(threads, job.run, Runner(loop, net, index)) for index, job in enumerate(jobs)]
            return list(await asyncio.gather(*runs, return_exceptions=True))

    return asyncio.run(together())


def saved(path: Path, array: Any) -> str:
    np.save(path, np.asarray(array))
    return str(path)


# Additive sharing.

words = st.integers(0, 2**64 - 1)


@settings(max_examples=40)
@given(st.integers(2, 9).flatmap(lambda m: st.lists(st.lists(words, min_size=3, max_size=3), min_size=m, max_size=m)))
def test_the_shares_of_any_number_of_parties_add_up_to_the_sum(secrets: list[list[int]]) -> None:
    vectors = [np.array(secret, np.uint64) for secret in secrets]
    keys = {(i, j): fresh_key() for i in range(len(vectors)) for j in range(len(vectors)) if i != j}
    shares = [
        share_of_sum(
            vector, [key for (i, _), key in keys.items() if i == me], [key for (_, j), key in keys.items() if j == me]
        )
        for me, vector in enumerate(vectors)
    ]
    assert sum_of_shares(shares).tolist() == [sum(column) % 2**64 for column in zip(*secrets, strict=True)]


@pytest.mark.parametrize("parties", [2, 3, 9])
def test_opening_takes_two_rounds_and_exactly_so_many_bytes(parties: int) -> None:
    net = Net(parties)
    vectors = np.arange(parties * 10, dtype=np.uint64).reshape(parties, 10)
    opened = net.play(lambda session, index: open_sum(session, vectors[index]))
    assert all(total.tolist() == vectors.sum(axis=0).tolist() for total in opened)
    for sent in net.sent.values():
        keys, told = sent[: parties - 1], sent[parties - 1 :]
        assert all(isinstance(key, PrfKey) for key in keys)
        assert len(set(map(bytes, keys))) == parties - 1
        assert [words.nbytes for words in told] == [8 * 10] * (parties - 1)


def test_a_party_that_is_shown_everything_but_one_pairs_seeds_sees_only_noise_of_either() -> None:
    """Of four, two put their views together: what the others tell is masked by the streams between those two."""
    net = Net(4)
    vectors = [np.zeros(50_000, np.uint64) for _ in range(4)]
    net.play(lambda session, index: open_sum(session, vectors[index]))
    honest, curious = (0, 1), (2, 3)
    left = []
    for party in honest:
        peers = [peer for peer in range(4) if peer != party]
        share = net.sent[party][3].copy()
        for peer in curious:
            share += expanded(net.sent[party][peers.index(peer)], share.shape)
            others = [other for other in range(4) if other != peer]
            share -= expanded(net.sent[peer][others.index(party)], share.shape)
        left.append(share)
    assert not (left[0] + left[1]).any()  # together: the sum of their vectors, which the result tells anyway
    counts = Counter(left[0].view(np.uint8).tolist())
    expected = 400_000 / 256
    chi_squared = sum((counts[byte] - expected) ** 2 / expected for byte in range(256))
    assert chi_squared < 400  # 255 degrees of freedom: beyond it once in 10^8 runs


def test_no_seed_serves_twice() -> None:
    seeds = []
    for _ in range(2):
        net = Net(3)
        net.play(lambda session, _: open_sum(session, np.zeros(2, np.uint64)))
        seeds += [bytes(key) for sent in net.sent.values() for key in sent[:2]]
    assert len(set(seeds)) == len(seeds) == 12


def test_a_peer_that_sends_no_seed_is_refused() -> None:
    async def play(session: Seat, index: int) -> Any:
        if index:
            return await session.send(0, b"16 bytes, no key")
        with pytest.raises(ShareMismatch, match="a sum cannot join a PrfKey and a message of type bytes"):
            await open_sum(session, np.zeros(1, np.uint64))

    Net(2).play(play)


# The job.


@pytest.mark.parametrize("parties", [2, 9])
def test_made_up_vectors_are_added_and_checked_by_every_party(parties: int) -> None:
    options = {"length": 1000, "seed": 7, "chunk": 300}
    reports = run([SumJob(index, options) for index in range(parties)])
    for report in reports:
        assert report == reports[0]
        assert report.checked is True
        assert report.result["parties"] == parties
        assert len(report.result["sum"]) == report.result["length"] == 1000
        assert orjson.loads(orjson.dumps(report.result)) == report.result
    assert SumJob.check(options, reports[0].result) is True
    wrong = {**reports[0].result, "sum": [1, *reports[0].result["sum"][1:]]}
    assert SumJob.check(options, wrong) is False
    assert SumJob.check(options, {"sum": reports[0].result["sum"]}) is False


def test_own_vectors_of_either_sign_and_any_integer_type_are_added_and_not_checked(tmp_path: Path) -> None:
    vectors = [
        saved(tmp_path / "a.npy", np.array([VALUE_MAX, -VALUE_MAX, 0], np.int64)),
        saved(tmp_path / "b.npy", np.array([VALUE_MAX, 0, 255], np.uint64)),
        saved(tmp_path / "c.npy", np.array([1, -128, 127], ">i2")),
    ]
    reports = run([SumJob(index, {"values": path}) for index, path in enumerate(vectors)])
    for report in reports:
        assert report.result["sum"] == [2 * VALUE_MAX + 1, -VALUE_MAX - 128, 382]
        assert report.checked is None


def test_nine_of_the_greatest_numbers_do_not_wrap(tmp_path: Path) -> None:
    path = saved(tmp_path / "v.npy", [VALUE_MAX, -VALUE_MAX])
    [total] = {tuple(report.result["sum"]) for report in run([SumJob(index, {"values": path}) for index in range(9)])}
    assert total == (9 * VALUE_MAX, -9 * VALUE_MAX)
    # The launcher of a local run gave this file to all nine.
    assert SumJob.check({"values": path}, {"sum": list(total), "parties": 9}) is True


def test_vectors_of_different_lengths_are_named_at_every_party() -> None:
    errors = run([SumJob(index, {"length": 3 + (index == 1)}) for index in range(3)])
    for error in errors:
        assert isinstance(error, JobInputError)
        assert str(error) == "the vectors: are not equally long: alice has 3, bob has 4, charlie has 3"


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        ([[1, 2]], "must have one dimension"),
        ([], "must hold integers"),
        (np.zeros(0, np.int64), "must have one dimension with 1 to 1,000,000 numbers"),
        (np.zeros(LENGTH_MAX + 1, np.int8), "must have one dimension with 1 to 1,000,000 numbers"),
        ([1.5], "must hold integers, not float64"),
        ([VALUE_MAX + 1], "numbers outside -10^18 to 10^18"),
        ([-VALUE_MAX - 1], "numbers outside -10^18 to 10^18"),
        (np.array([2**64 - 1], np.uint64), "numbers outside -10^18 to 10^18"),
    ],
)
def test_a_file_that_cannot_be_added_is_named_without_its_values(tmp_path: Path, array: Any, sentence: str) -> None:
    path = saved(tmp_path / "bad.npy", array)
    with pytest.raises(JobInputError) as caught:
        SumJob(0, {"values": path})
    assert str(caught.value).startswith(path)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [("length", (1, LENGTH_MAX), (0, LENGTH_MAX + 1)), ("seed", (0, 2**63 - 1), (-1, 2**63)), ("chunk", (1,), (0,))],
)
def test_both_ends_of_every_option(name: str, good: tuple[int, ...], bad: tuple[int, ...]) -> None:
    for value in good:
        SumJob(0, {name: value})
    for value in bad:
        with pytest.raises(JobOptionError, match=f"--{name} must be "):
            SumJob(0, {name: value})


def test_it_is_for_two_to_nine_parties() -> None:
    assert list(SumJob.counts()) == list(range(2, 10))
    SumJob(8, {"length": 1})
    with pytest.raises(ValueError, match="sum has parties 0 to 8, not 9"):
        SumJob(9, {"length": 1})


def test_a_peers_announcement_decides_nothing_but_the_length() -> None:
    """Whatever a peer claims of itself, a party that brought its own vector does not call the sum checked."""

    async def play(session: Seat, index: int) -> Any:
        return await meet(session, (3, index == 1))

    assert Net(2).play(play) == [(2, False), (2, False)]


def test_a_chunk_is_added_as_signed_numbers() -> None:
    pieces = [np.array([-5, 5]), np.array([3, -6])]
    opened = Net(2).play(lambda session, index: add_chunk(session, pieces[index]))
    assert [total.tolist() for total in opened] == [[-2, -1], [-2, -1]]
