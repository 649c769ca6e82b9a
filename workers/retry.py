"""Whether a batch is over, runs again or has failed: every party decides alike, from what all parties have said.

Between the batch runner and what the openers of all parties tell each other at the end of an attempt. No I/O and no
clock. The one invariant: a result is kept exactly when every party holds one of the same attempt; all others are
discarded everywhere, and their jobs are what the next attempt runs, in the same order at every party.

Why no result can be of two attempts: nobody gets results of an attempt that some party has not entered, and whoever
enters one has discarded before what the parties did not agree to keep.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from partywire.engine.errors import LinkProtocolError, SetupAborted, SetupMismatch
from partywire.engine.frames import printable_untrusted

from .errors import PeerClosed, PeerLost, SessionClosed, SessionDesync, SessionError, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

RETRIES_DEFAULT: Final = 2
"""How often a batch runs again what did not become final. Arbitrary: enough for a process that dies while the batch
already recovers from another failure; a fault that stays is told after the third time."""

RETRIES_MAX: Final = 1000

RETRY_TIMEOUT_S: Final = 30.0
"""How long the others are waited for between two attempts: a restarted process or a link that is dialled again needs
one or two seconds, a machine that swaps or a network that converges some more."""

CHUNK_SIZE: Final = 24 * 1024
"""Bytes of which one announcement tells which jobs are final: in base64 half of what a control message may have."""

CAUSE_LENGTH_MAX: Final = 300
"""Characters of a failure's cause that the other parties are told."""

NOT_BEGUN: Final = -1
"""In the place of a session id."""

_NOT_RETRIED: Final = (SessionDesync, PeerClosed, SessionClosed)


def is_transient(error: BaseException | None) -> bool:
    """Whether the same job may well succeed when it runs again.

    True for what happens to a job: a lost link, a session time-out, a full inbox, a peer that gave up, a dead worker,
    and whatever the job itself raised because of one of these. False for what a job does: any other exception, parties
    out of step, a session that it closed or aborted itself; and for a peer that left with a goodbye.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, WorkerDied):
            return True
        if isinstance(error, SessionError):
            return not isinstance(error, _NOT_RETRIED)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def is_loss(error: BaseException) -> bool:
    """Whether it says that a link or a party is gone, and not what a job did. Others may only have heard that somebody
    gave up, which says neither."""
    return isinstance(error, PeerLost | PeerClosed | SetupAborted)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a party stands in a batch as it begins an attempt: which it is, and how many jobs are left to run.

    `batch` names one that has begun, by the first session id that it had; NOT_BEGUN before. `left` names the last one
    that the party was in before, since it was started.
    """

    attempt: int
    jobs: int
    batch: int = NOT_BEGUN
    left: int = NOT_BEGUN

    def fields(self) -> dict[str, object]:
        """The standing as fields of a rendezvous."""
        return {"attempt": self.attempt, "jobs to run": self.jobs, "begun as": self.batch, "left": self.left}

    @classmethod
    def from_fields_untrusted(cls, fields: Mapping[str, object], peer: str) -> Standing:
        """A peer's standing; other fields are left to the caller.

        Raises:
            LinkProtocolError: a field is missing or not of its type.
        """
        match fields:
            case {"attempt": int(attempt), "jobs to run": int(jobs), "begun as": int(batch), "left": int(left)}:
                return cls(max(1, min(attempt, RETRIES_MAX + 1)), max(0, jobs), batch, left)
            case _:
                raise LinkProtocolError(peer, "standing in a batch without its fields, but", len(fields))


class BeginAnew(Exception):
    """Raised at every party when one that was started again lacks what the others hold of a batch: all discard that
    and run every job again. `peer` is that one, or follows it; `attempt` the greatest in which any of them is."""

    def __init__(self, peer: str, attempt: int) -> None:
        super().__init__(peer, attempt)
        self.peer = peer
        self.attempt = attempt


def common_batch(round_: int, our_name: str, said: Mapping[str, Standing]) -> int:
    """The batch that all are in, NOT_BEGUN if it is to begin.

    Nothing else tells two batches of the same job apart, whose inputs must never meet: one party may have left a batch
    that another one, which missed the last word of a third, is still in.

    Raises:
        SetupMismatch: they are not in the same; at every party.
    """
    begun = {standing.batch for standing in said.values()} - {NOT_BEGUN}
    if len(begun) <= 1 and not any(standing.left in begun for standing in said.values()):
        return begun.pop() if begun else NOT_BEGUN
    ours = said[our_name].batch
    peer = next((name for name, one in said.items() if one.batch != ours), our_name)
    raise SetupMismatch(round_, "batch that has begun", ours, said[peer].batch, peer)


def common_attempt(said: Mapping[str, Standing], total: int) -> int:
    """Which attempt at a batch of `total` jobs begins; the same at every party that calls it with what all said.

    Raises:
        BeginAnew: they do not hold the same results.
    """
    attempt = max(standing.attempt for standing in said.values())
    # In step; or all hold nothing, and whoever is behind was started again.
    in_step = len({(standing.attempt, standing.jobs) for standing in said.values()}) == 1
    if in_step or all(standing.jobs == total for standing in said.values()):
        return attempt
    least = min(said, key=lambda name: (-said[name].jobs, said[name].attempt, name))
    raise BeginAnew(least, attempt)


@dataclass(frozen=True, slots=True)
class AttemptReport:
    """What failed in an attempt, as one party saw it; without a `cause` nothing did.

    `index` is the input of the first job that failed, -1 for a failure outside the jobs. `is_ours`: it began at the
    party that says so. `is_transient`: nothing that this party saw speaks against another attempt. `is_loss`: it saw
    that a link or a party was lost.
    """

    index: int = -1
    cause: str = ""
    is_ours: bool = False
    is_transient: bool = True
    is_loss: bool = False

    def fields(self) -> dict[str, object]:
        """The report as fields of a rendezvous."""
        return {
            "index": self.index,
            "cause": self.cause[:CAUSE_LENGTH_MAX],
            "is_ours": self.is_ours,
            "is_transient": self.is_transient,
            "is_loss": self.is_loss,
        }

    @classmethod
    def from_fields_untrusted(cls, fields: Mapping[str, object], peer: str) -> AttemptReport:
        """A peer's report; other fields are left to the caller.

        Raises:
            LinkProtocolError: a field is missing or not of its type.
        """
        match fields:
            case {
                "index": int(index),
                "cause": str(cause),
                "is_ours": bool(ours),
                "is_transient": bool(transient),
                "is_loss": bool(loss),
            }:
                text = printable_untrusted(cause[:CAUSE_LENGTH_MAX].encode("utf-8", "replace"))
                return cls(max(-1, index), text, ours, transient, loss)
            case _:
                raise LinkProtocolError(peer, "report of an attempt without its fields, but", len(fields))


class Verdict(Enum):
    """What all parties do next."""

    DONE = "done"  # every result is in hand at every party
    AGAIN = "again"  # the jobs without a kept result run once more
    FAILED = "failed"  # the batch ends with the first failure


def decide(said: Mapping[str, AttemptReport], is_complete: bool, attempt: int, retries: int) -> Verdict:
    """The same at every party that calls it with what all parties said. Attempts are counted from 1."""
    if is_complete:
        return Verdict.DONE
    if attempt > retries or any(report.cause and not report.is_transient for report in said.values()):
        return Verdict.FAILED
    return Verdict.AGAIN


def first_failure(said: Mapping[str, AttemptReport], order: Sequence[str]) -> tuple[int, str, str] | None:
    """(job, party, cause) that all parties name: of the failures that began somewhere the one of the lowest job.

    None: nobody says that it began there, so each party has to do with what it saw itself.
    """
    began = [
        (report.index, order.index(name), report.cause)
        for name, report in said.items()
        if report.is_ours and report.cause
    ]
    if not began:
        return None
    index, party, cause = min(began)
    return index if index >= 0 else lowest_job(said), order[party], cause


def was_lost(said: Mapping[str, AttemptReport]) -> bool:
    """Whether a loss ended the attempt: nothing began anywhere, and somebody saw one."""
    failed = [report for report in said.values() if report.cause]
    return not any(report.is_ours for report in failed) and any(report.is_loss for report in failed)


def lowest_job(said: Mapping[str, AttemptReport]) -> int:
    """The first job that anybody noticed to fail; for a failure that began outside the jobs."""
    return min((report.index for report in said.values() if report.cause and report.index >= 0), default=0)


class Ledger:
    """The results of one party. Driven by the runner: `put` while an attempt runs, `settle` at its end.

    A *position* is a job's place in the present attempt: its input is `pending[position]`.
    """

    def __init__(self, count: int) -> None:
        self.results: list[Any] = [None] * count
        # Inputs whose results are not kept yet, in order; the same at every party.
        self.pending: Sequence[int] = range(count)
        # How many of them have a result here.
        self.done = 0
        self._bits = bytearray((count + 7) // 8)

    @property
    def is_full(self) -> bool:
        """Whether we hold every result."""
        return self.done == len(self.pending)

    @property
    def kept(self) -> int:
        """How many results all parties have agreed to keep."""
        return len(self.results) - len(self.pending)

    def put(self, position: int, value: Any) -> None:
        """A job of the present attempt is final: every party has reported it."""
        self.results[self.pending[position]] = value
        self._bits[position >> 3] |= 1 << (position & 7)
        self.done += 1

    def chunks(self) -> Iterator[str]:
        """Which jobs of the attempt have a result here, as text for as many announcements as it takes; at least one."""
        for start in range(0, max(1, len(self._bits)), CHUNK_SIZE):
            yield base64.b64encode(self._bits[start : start + CHUNK_SIZE]).decode()

    def restart(self) -> None:
        """Discard every result."""
        count = len(self.results)
        self.results[:] = [None] * count
        self.pending = range(count)
        self.done = 0
        self._bits = bytearray((count + 7) // 8)

    def settle(self, theirs: Iterable[bytes]) -> bool:
        """Keep what every party holds and discard the rest, given each peer's whole bitmap. True: nothing is left."""
        kept = int.from_bytes(self._bits, "little")
        for bits in theirs:
            kept &= int.from_bytes(bits, "little")
        bitmap = kept.to_bytes(len(self._bits), "little")
        left = [
            index for position, index in enumerate(self.pending) if not bitmap[position >> 3] >> (position & 7) & 1
        ]
        for index in left:
            self.results[index] = None
        self.pending = left
        self.done = 0
        self._bits = bytearray((len(left) + 7) // 8)
        return not left

    def take_chunk_untrusted(self, text: object, number: int, peer: str) -> bytes:
        """A peer's announcement of the given number as bytes.

        Raises:
            LinkProtocolError: it is not base64 of as many bytes as ours.
        """
        size = min(CHUNK_SIZE, len(self._bits) - number * CHUNK_SIZE)
        try:
            bits = base64.b64decode(text if isinstance(text, str) else "", validate=True)
        except (binascii.Error, ValueError):
            bits = b""
        if len(bits) != size:
            raise LinkProtocolError(peer, "bytes of the final jobs of an attempt", len(bits), size)
        return bits
