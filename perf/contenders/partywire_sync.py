"""Ours in plain code: `BlockingParty` and its blocking sessions, one after the other, as there is one thread."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from partywire import BlockingParty
from partywire.perf.contender import SAMPLED_SESSIONS, NotOffered
from partywire.perf.workloads import BesideStream, Stopwatch

from .partywire_config import party_config

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from typing import Any

    from partywire import BlockingSession
    from partywire.perf.contender import Place
    from partywire.perf.workloads import Workload


class PlainChannel:
    """A blocking session where a workload awaits: every call is over when it returns, so nothing is ever waited for."""

    __slots__ = ("_recv", "_send")

    def __init__(self, session: BlockingSession) -> None:
        self._send = session.send
        self._recv = session.recv

    async def send(self, peer: int, value: bytes, /) -> None:
        self._send(peer, value)

    async def recv(self, peer: int, /) -> bytes:
        message: bytes = self._recv(peer)
        return message


class SyncParty:
    """An open party and its sessions, which serve every play in turn."""

    def __init__(self, party: BlockingParty, work: Workload) -> None:
        self._party = party.index
        self._work = work
        self._channels = [PlainChannel(session) for session in party.make_sessions(work.sessions)]

    def play(self, units: int) -> list[list[int]]:
        latencies = []
        for number, channel in enumerate(self._channels):
            stopwatch = Stopwatch() if number < SAMPLED_SESSIONS else None
            run_through(self._work.play(channel, self._party, number, units, stopwatch))
            if stopwatch is not None:
                latencies.append(stopwatch.latencies_ns)
        return latencies


def run_through(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never has to wait."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise RuntimeError("a blocking session did not block")


@contextmanager
def open_party(place: Place, work: Workload) -> Iterator[SyncParty]:
    if work.name == BesideStream.name:
        raise NotOffered("a stream beside rounds needs two sessions at once, and plain code has one thread")
    with BlockingParty(party_config(place), listener=place.listener) as party:
        yield SyncParty(party, work)
