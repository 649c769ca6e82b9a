"""The workloads, defined once for every contender."""

from __future__ import annotations

from dataclasses import dataclass

# From the first party's start to the last party's end, in seconds of CLOCK_MONOTONIC, which is one clock for all
# processes of a host.
Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class RingRounds:
    """Every session at every party sends `size` bytes to the next party and waits for as many from the previous."""

    sessions: int
    size: int
    rounds: int

    @property
    def warm_up_rounds(self) -> int:
        return max(1, self.rounds // 10)
