"""One visit: a contender's parties are started, warmed up, measured in one play, and ended.

The rate is units x sessions / (last session's end - first session's start), over all parties. Counters of every process
of every party are read right before and right after that play, so they cover exactly its messages and little else.
What would make it lie: other load (`others_cores` says how much there was), and plays too short to be more than their
own beginning and end (`--seconds`).
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .party_set import Link, PartySet
from .processes import Usage, host_busy_s, pss_bytes, usage_of

if TYPE_CHECKING:
    from .party_set import Play
    from .workloads import Workload

WARM_UP_SHARE = 0.2
"""The first play that takes this share of the time wanted is believed when it says how many units fill that time. It
and the shorter ones before it are the warm-up."""

MEASURED_SHARE_MIN = 0.5
"""A play that turns out shorter than this share, as the warm-up was still slow, is played again, and longer."""

ATTEMPTS_MAX = 4

GROWTH_MAX = 8
"""From one warm-up play to the next: the first ones are slow, and say too little about the later ones."""

PLAY_TIMEOUT_S = 30.0
"""Beyond ten times what a play should take: whoever needs longer is stuck."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one visit found. Usage and PSS are per party, in their order."""

    units: int
    seconds: float
    rate: float
    """Units per second, summed over sessions; counted once for all parties."""
    ready_s: float
    """From the start of the first process until all parties were connected and had their sessions."""
    usage: tuple[Usage, ...]
    pss: tuple[int, ...]
    """Bytes, right after the play."""
    others_cores: float
    """Cores that were busy with something else during the play, stolen time included. Clock ticks: rough."""
    load: float
    """The host's load average before the visit."""
    latencies_ns: list[int] = field(repr=False)
    """Of the sampled sessions of all parties."""
    stream_mb_s: float | None = None
    """For BesideStream: what its slowest party received."""


def visit(contender: str, work: Workload, seconds: float, link: Link | None = None) -> Sample:
    """Measure a contender once.

    Raises:
        ContenderFailed.
    """
    load = os.getloadavg()[0]
    with PartySet(contender, work, link) as parties:
        units = units_for(warmed_up(parties, seconds), seconds)
        for attempt in range(ATTEMPTS_MAX):
            sample = measured_play(parties, units, seconds, load)
            if sample.seconds >= seconds * MEASURED_SHARE_MIN or attempt == ATTEMPTS_MAX - 1:
                break
            units = min(units * GROWTH_MAX, round(units * seconds / sample.seconds))
    return sample


def measured_play(parties: PartySet, units: int, seconds: float, load: float) -> Sample:
    """One play between two looks at the counters."""
    work, harness = parties.work, os.getpid()
    families = parties.families()
    before = [usage_of(family) for family in families]
    own_before, busy_before, began = usage_of([harness]), host_busy_s(), time.monotonic()
    play = parties.play(units, play_timeout_s(seconds))
    elapsed = time.monotonic() - began
    busy = host_busy_s() - busy_before
    own = usage_of([harness]) - own_before
    usage = tuple(usage_of(family) - past for family, past in zip(families, before, strict=True))
    others = max(0.0, busy - own.cpu_s - sum(party.cpu_s for party in usage)) / elapsed
    return Sample(
        units=play.units,
        seconds=play.seconds,
        rate=play.units * work.counted_sessions / play.seconds,
        ready_s=parties.ready_s,
        usage=usage,
        pss=tuple(pss_bytes(family) for family in families),
        others_cores=others,
        load=load,
        latencies_ns=[latency for party in play.latencies_ns for latency in latencies_of(party, work)],
        stream_mb_s=stream_mb_s(play, work),
    )


def warmed_up(parties: PartySet, seconds: float) -> Play:
    """Play shortly, then longer, until one play is long enough to tell the speed."""
    units = 1
    while True:
        play = parties.play(units, play_timeout_s(seconds))
        if units > 1 and play.seconds >= seconds * WARM_UP_SHARE:
            return play
        wanted = math.ceil(units_for(play, seconds) * WARM_UP_SHARE * 1.5)
        units = max(units + 1, min(units * GROWTH_MAX, wanted))


def units_for(play: Play, seconds: float) -> int:
    """How many units take `seconds`, at the speed of a play."""
    return max(1, round(play.units * seconds / play.seconds))


def play_timeout_s(seconds: float) -> float:
    """How long to wait for a play that should take `seconds`."""
    return PLAY_TIMEOUT_S + 10 * seconds


def latencies_of(party: list[list[int]], work: Workload) -> list[int]:
    """Of the sessions whose units are counted."""
    return [latency for session in party[: work.counted_sessions] for latency in session]


def stream_mb_s(play: Play, work: Workload) -> float | None:
    """What the stream beside the rounds reached at its slowest party, from the gaps between its messages' arrivals."""
    size = getattr(work, "stream_message_size", None)
    if size is None or not getattr(work, "stream_mb_s", 0):
        return None
    gaps = [party[1] for party in play.latencies_ns if len(party) > 1 and party[1]]
    return min((size * len(party) * 1e3 / sum(party) for party in gaps), default=0.0)
