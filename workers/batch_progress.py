"""How far a batch is, as whoever shows it is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far a batch is at this party, over all its workers. `rounds` counts messages received per peer; `retries` how
    often jobs had to be run again, which may have taken `jobs_done` back."""

    jobs_done: int
    jobs_total: int
    sessions: int
    rounds: int
    bytes_sent: int
    bytes_received: int
    is_start: bool = False
    retries: int = 0
