"""The workloads themselves, played between channels in memory: every message sent is received, whatever the numbers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from partywire.perf.workloads import (
    WORKLOADS,
    AllToAll,
    BesideStream,
    IrisTrace,
    OneWay,
    PingPong,
    RingRounds,
    Stopwatch,
)

if TYPE_CHECKING:
    from partywire.perf.workloads import Workload

DEADLINE_S = 20.0


class MemoryNetwork:
    """Queues without bounds between all sessions; counts what is under way."""

    def __init__(self) -> None:
        self._queues: dict[tuple[int, int, int], asyncio.Queue[bytes]] = {}
        self.sent: dict[int, list[int]] = {}
        """Party -> sizes of the messages it sent."""
        self.under_way_max = 0
        """Bytes in the fullest queue at any time."""

    def queue(self, session: int, sender: int, receiver: int) -> asyncio.Queue[bytes]:
        return self._queues.setdefault((session, sender, receiver), asyncio.Queue())

    def put(self, session: int, sender: int, receiver: int, value: bytes) -> None:
        queue = self.queue(session, sender, receiver)
        queue.put_nowait(value)
        self.sent.setdefault(sender, []).append(len(value))
        self.under_way_max = max(self.under_way_max, queue.qsize() * len(value))

    @property
    def is_empty(self) -> bool:
        return all(queue.empty() for queue in self._queues.values())


class MemoryChannel:
    """One session at one party."""

    def __init__(self, network: MemoryNetwork, party: int, session: int) -> None:
        self._network = network
        self._party = party
        self._session = session

    async def send(self, peer: int, value: bytes, /) -> None:
        self._network.put(self._session, self._party, peer, value)
        await asyncio.sleep(0)

    async def recv(self, peer: int, /) -> bytes:
        return await self._network.queue(self._session, peer, self._party).get()


async def play_everywhere(work: Workload, units: int, network: MemoryNetwork) -> list[list[Stopwatch]]:
    """By party and session. Each party has a workload of its own, as it has a process of its own."""
    stopwatches = [[Stopwatch() for _ in range(work.sessions)] for _ in range(work.parties)]
    parts = [
        copy.play(MemoryChannel(network, party, session), party, session, units, stopwatches[party][session])
        for party, copy in enumerate(copies(work))
        for session in range(work.sessions)
    ]
    await asyncio.wait_for(asyncio.gather(*parts), DEADLINE_S)
    return stopwatches


def copies(work: Workload) -> list[Workload]:
    return [replace(work) for _ in range(work.parties)]  # type: ignore[type-var]


SMALL: list[Workload] = [
    RingRounds(3, 64), RingRounds(1, 7, parties=2), PingPong(2, 64), OneWay(2, 1000), AllToAll(2, 64), IrisTrace(4),
    BesideStream(stream_message_size=4096, stream_mb_s=10),
]  # fmt: skip


@pytest.mark.parametrize("work", SMALL, ids=lambda work: work.name)
@pytest.mark.parametrize("units", [0, 1, 5])
def test_whatever_is_sent_is_received(work: Workload, units: int) -> None:
    network = MemoryNetwork()
    asyncio.run(play_everywhere(work, units, network))
    assert network.is_empty


@pytest.mark.parametrize(
    "work", [work for work in SMALL if work.name not in ("oneway", "beside")], ids=lambda w: w.name
)
def test_a_unit_has_as_many_messages_and_bytes_as_it_says(work: Workload) -> None:
    network = MemoryNetwork()
    asyncio.run(play_everywhere(work, 3, network))
    sizes = [size for party in network.sent.values() for size in party]
    assert len(sizes) == 3 * work.sessions * work.messages_per_unit
    assert sum(sizes) == 3 * work.sessions * work.bytes_per_unit


@pytest.mark.parametrize("window", [1, 2, 3, 7])
def test_the_windows_of_a_stream_add_up_for_every_number_of_messages(window: int) -> None:
    size = OneWay.WINDOW_SIZE // window
    for units in [*range(4 * window + 2), 10 * window + 1]:
        network = MemoryNetwork()
        asyncio.run(play_everywhere(OneWay(1, size), units, network))
        assert network.is_empty, units
        assert len(network.sent.get(0, [])) == units
        assert len(network.sent.get(1, [])) == -(-units // window)
        assert network.under_way_max <= 2 * OneWay.WINDOW_SIZE


def test_each_round_has_one_latency() -> None:
    stopwatches = asyncio.run(play_everywhere(RingRounds(2, 64), 5, MemoryNetwork()))
    assert [[len(one.latencies_ns) for one in party] for party in stopwatches] == [[5, 5]] * 3


def test_the_chains_of_an_iris_job_go_round_without_waiting_for_themselves() -> None:
    """Sixteen sessions with each party in each role; a wrong role would leave three parties waiting for each other."""
    network = MemoryNetwork()
    asyncio.run(play_everywhere(IrisTrace(16), 4, network))
    assert network.is_empty


def test_a_stream_beside_rounds_ends_with_them_play_after_play() -> None:
    async def play_twice() -> list[list[list[Stopwatch]]]:
        work = BesideStream(stream_message_size=8192, stream_mb_s=20)
        parties = copies(work)
        network = MemoryNetwork()
        found = []
        for _ in range(2):
            stopwatches = [[Stopwatch(), Stopwatch()] for _ in parties]
            parts = [
                # The stream first: it may begin before the rounds do.
                parties[party].play(MemoryChannel(network, party, session), party, session, 2000, watches[session])
                for party, watches in enumerate(stopwatches)
                for session in (1, 0)
            ]
            await asyncio.wait_for(asyncio.gather(*parts), DEADLINE_S)
            assert network.is_empty
            found.append(stopwatches)
        return found

    for stopwatches in asyncio.run(play_twice()):
        assert all(len(rounds.latencies_ns) == 2000 for rounds, _ in stopwatches)
        assert all(stream.latencies_ns for _, stream in stopwatches)


def test_without_a_rate_there_is_no_stream() -> None:
    network = MemoryNetwork()
    asyncio.run(play_everywhere(BesideStream(stream_mb_s=0), 3, network))
    assert {size for party in network.sent.values() for size in party} == {64}


def test_a_workload_is_known_by_its_name() -> None:
    assert all(kind.name == name for name, kind in WORKLOADS.items())
