"""The book of jobs that a service keeps: what was asked for, how far it is, what came of it.

In the service, which writes it, and as a copy in the worker that answers HTTP. The one invariant: an entry only moves
along its states and never leaves a final one; beyond the bounds the oldest *final* entry goes, or its result.

    submitted -> queued -> preparing -> running -> done | failed
    submitted -> refused, and submitted or queued -> cancelled
    queued, preparing or running -> submitted, when the parties lost touch and have to agree on it anew
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Final

ENTRIES_MAX: Final = 256
"""Jobs that are remembered, those under way included."""

QUEUE_MAX: Final = 64
"""Jobs of one party's clients that have not ended."""

RESULTS_SIZE_MAX: Final = 64 * 1024 * 1024
"""Of the results that are kept; beyond it the oldest are forgotten (410)."""

SUBMITTED: Final = "submitted"  # here; the parties have not agreed on it yet
QUEUED: Final = "queued"  # every party takes it; its turn will come
PREPARING: Final = "preparing"  # every party loads its data
RUNNING: Final = "running"
DONE: Final = "done"
FAILED: Final = "failed"
REFUSED: Final = "refused"  # some party does not run it
CANCELLED: Final = "cancelled"

FINAL: Final = frozenset({DONE, FAILED, REFUSED, CANCELLED})
NEXT: Final[dict[str, frozenset[str]]] = {
    SUBMITTED: frozenset({QUEUED, REFUSED, CANCELLED, FAILED}),
    QUEUED: frozenset({PREPARING, CANCELLED, FAILED, SUBMITTED}),
    PREPARING: frozenset({RUNNING, FAILED, SUBMITTED}),
    RUNNING: frozenset({DONE, FAILED, SUBMITTED}),
}


@dataclass(frozen=True, slots=True)
class JobEntry:
    """One job. `options` are the shared ones, which all parties know; `party` is where it was submitted."""

    id: str
    job: str
    options: dict[str, Any]
    party: str
    state: str = SUBMITTED
    causes: dict[str, str] = field(default_factory=dict)
    """Party -> why it refused or failed."""
    progress: dict[str, int] = field(default_factory=dict)
    """What has been done, by this party's count."""
    checked: bool | None = None
    """Whether this party compared the result with a plaintext computation."""
    result_size: int | None = None
    """Bytes of the result as JSON, once there is one."""
    tries: int = 0
    """How often it has begun here: more than once when the parties lost touch while it ran."""

    @property
    def is_final(self) -> bool:
        return self.state in FINAL


class JobBook:
    """Entries in the order of their arrival, and the results of those that are done."""

    def __init__(self) -> None:
        self.entries: dict[str, JobEntry] = {}
        self.results: dict[str, bytes] = {}

    def put(self, entry: JobEntry) -> None:
        """Add an entry or move it on.

        Raises:
            ValueError: it does not follow from what is in the book.
        """
        known = self.entries.get(entry.id)
        if known is not None and known.state != entry.state and entry.state not in NEXT.get(known.state, ()):
            raise ValueError(f"job {entry.id} is {known.state} and cannot become {entry.state}")
        self.entries[entry.id] = entry
        while len(self.entries) > ENTRIES_MAX:
            oldest = next((one.id for one in self.entries.values() if one.is_final), None)
            if oldest is None:
                return
            del self.entries[oldest]
            self.results.pop(oldest, None)

    def change(self, job_id: str, **changes: Any) -> JobEntry:
        """Move an entry on, and return it. Raises like `put`; KeyError when it is not in the book."""
        entry = dataclasses.replace(self.entries[job_id], **changes)
        self.put(entry)
        return entry

    def put_result(self, job_id: str, result: bytes) -> None:
        """Keep a result, and forget the oldest ones beyond the bound."""
        if job_id not in self.entries:
            return
        self.results[job_id] = result
        while sum(map(len, self.results.values())) > RESULTS_SIZE_MAX and len(self.results) > 1:
            del self.results[next(iter(self.results))]

    def pending_of(self, party: str) -> int:
        """Jobs of one party's clients that have not ended."""
        return sum(entry.party == party and not entry.is_final for entry in self.entries.values())
