"""What an idle party costs: processor time, wake-ups, memory.

Three connected parties, whose sessions wait for a message.

Processor time and context switches are those of every process of a party over some seconds, at the party that used
most of them. Memory of a session is the difference between many sessions and one, over the sessions; memory of a party
(two links, one worker, one session) is the proportional set size of all its processes.
What would make it lie: nothing much; others' load changes neither counts nor memory.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

from partywire.perf.party_set import PartySet
from partywire.perf.processes import pss_bytes, usage_of
from partywire.perf.report import Figure, print_figures
from partywire.perf.workloads import IdleSeconds

CONTENDER = "partywire-async"
"""Keeps its sessions between plays."""

SESSIONS = 1024
"""Enough for the few pages that differ between any two runs not to matter."""

SETTLE_S = 1
"""After connecting, until heartbeats are all that happens."""

CPU_MAX_PERCENT = 1.0
SESSION_MAX_KIB = 6.0
PARTY_MAX_MIB = 150.0


@dataclass(frozen=True, slots=True)
class Idle:
    """One set of parties, looked at for a while."""

    cpu_percent: float
    switches_per_s: float
    pss: float
    """Bytes of a party, on average."""


def look(sessions: int, seconds: int, settle_s: int) -> Idle:
    """Raises ContenderFailed."""
    with PartySet(CONTENDER, IdleSeconds(sessions)) as parties:
        parties.play(settle_s, settle_s + 30)
        families = parties.families()
        before, began = [usage_of(family) for family in families], time.monotonic()
        parties.play(seconds, seconds + 30)
        elapsed = time.monotonic() - began
        used = [usage_of(family) - past for family, past in zip(families, before, strict=True)]
        return Idle(
            max(usage.cpu_s for usage in used) / elapsed * 100,
            max(usage.switches_voluntary + usage.switches_involuntary for usage in used) / elapsed,
            sum(pss_bytes(family) for family in families) / len(families),
        )


def measure(seconds: int, sessions: int, repeats: int, settle_s: int) -> list[Figure]:
    few = [look(1, seconds, settle_s) for _ in range(repeats)]
    many = [look(1 + sessions, 1, settle_s) for _ in range(repeats)]
    per_session = tuple((more.pss - less.pss) / sessions / 1024 for less, more in zip(few, many, strict=True))
    return [
        Figure("idle: CPU of a party", "%", tuple(one.cpu_percent for one in few), CPU_MAX_PERCENT, True),
        Figure("idle: context switches of a party", "/s", tuple(one.switches_per_s for one in few), None, True),
        Figure(f"memory of one of {sessions} idle sessions", "KiB", per_session, SESSION_MAX_KIB, True),
        Figure(
            "memory of a party, 2 links, 1 worker", "MiB", tuple(one.pss / 2**20 for one in few), PARTY_MAX_MIB, True
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m partywire.perf.idle", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="sets of parties, each twice (3)")
    parser.add_argument("--seconds", type=int, default=5, help="how long to look at one (5)")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    parser.add_argument("--smoke", action="store_true", help="tiny: does it run at all?")
    options = parser.parse_args()
    seconds, repeats, settle_s = (1, 1, 0) if options.smoke else (options.seconds, options.repeats, SETTLE_S)
    print_figures(measure(seconds, SESSIONS, repeats, settle_s), json=options.json)


if __name__ == "__main__":
    main()
