"""One party of a service as it follows the orderer: what it answers, and what its job book says. No I/O.

Between the messages of the orderer (serve_words.py) and the job book. The one invariant: a result is shown once the
orderer has said that every party has one of the same run; else it is thrown away before the job may run again here.

Driven by the service: `follow_untrusted` with what the orderer says, `end` when a job has run, `lose` when the session
is gone, and `recall` first thing on another one.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from partywire.engine.errors import SetupAborted, SetupMismatch

from .errors import JobFailed, describe, describe_to_peers
from .retry import is_transient
from .serve_book import DONE, ENTRIES_MAX, FAILED, NEXT, PREPARING, QUEUED, RUNNING, SUBMITTED, JobEntry
from .serve_trust import OrderTrust
from .serve_words import (
    BROKEN,
    ENDED,
    IS_READY,
    MAY_RUN,
    OPEN,
    Ask,
    Close,
    Ended,
    Go,
    Message,
    Prepare,
    Queue,
    Recall,
    Recalled,
    Vote,
    sentence,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .serve_book import JobBook

DONE_KEPT: Final = 2
"""Jobs of which this party says that they are done even if its book has forgotten them. Of one at most some party may
not have heard: the next one does not begin before all have."""

log = logging.getLogger("partywire")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job failed here: for our own clients, for the peers, and whether another run may go well."""

    ours: str = field(repr=False)
    told: str
    may_run_again: bool = False

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """What an exception out of a job means."""
        return cls(sentence(describe(error)), sentence(describe_to_peers(error)), is_out_of_step(error))


def is_out_of_step(error: BaseException | None) -> bool:
    """Whether a job failed because another party was not in it, but in another common step or on its way out of one:
    one that was started again, or that did not hear the word to begin."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, SetupAborted) or _is_elsewhere(error):
            return True
        if isinstance(error, JobFailed) and is_transient(error.__cause__):
            # A loss that would have passed, had all parties come to the end of the batch.
            return _is_elsewhere(error.__context__)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def _is_elsewhere(error: BaseException | None) -> bool:
    """Whether a common step failed because a peer is in another one, or has left it for another party that is."""
    if isinstance(error, SetupAborted):
        return error.is_skipped
    return isinstance(error, SetupMismatch) and error.field == "kind"


class Follower:
    """Writes the book. One for the whole life of a service, over all its sessions."""

    def __init__(
        self,
        name: str,
        parties: tuple[str, ...],
        book: JobBook,
        retries: int,
        *,
        refuse: Callable[[str, Mapping[str, Any]], str],
        prepare: Callable[[JobEntry], Any],
        tell: Callable[[JobEntry, bytes | None], None],
    ) -> None:
        """Args:
        refuse: why a job with these options may not run here, or nothing.
        prepare: loads our data for a job; what it returns is what `take_prepared` gives. It may raise anything.
        tell: is called with each entry that has changed, and with its result when that is there.
        """
        self._name = name
        self._book = book
        self._retries = retries
        self._refuse = refuse
        self._load = prepare
        self._tell = tell
        self._trust = OrderTrust(name, parties, book)
        self._prepared: dict[str, Any] = {}
        self._results: dict[str, tuple[bool | None, bytes]] = {}  # of runs that ended well here, until all have
        self._failures: dict[str, Failure] = {}  # of runs that failed here, until all know
        self._told: OrderedDict[str, str] = OrderedDict()  # what peers were told of jobs whose cause says more here
        self._done: deque[JobEntry] = deque(maxlen=DONE_KEPT)
        self.going = ""
        """The job that is to be run now; taken by `take_prepared`."""

    @property
    def is_settled(self) -> bool:
        """Whether the orderer has dealt with what all parties remember."""
        return self._trust.is_settled

    # What the orderer says.

    def follow_untrusted(self, message: Message) -> list[Message]:
        """Do what the orderer says; what to answer.

        Raises:
            LinkProtocolError: no honest orderer says this now.
        """
        if not self._trust.takes_untrusted(message):
            return []
        match message:
            case Ask():
                return [Vote(message.id, MAY_RUN, self._consider(message))]
            case Queue(id=job_id):
                self.change(job_id, state=QUEUED)
            case Prepare(id=job_id):
                self.change(job_id, state=PREPARING)
                refusal = self._prepare(job_id)
                if not refusal:
                    self._trust.get_ready(job_id)
                return [Vote(job_id, IS_READY, refusal)]
            case Go(id=job_id):
                self.change(job_id, state=RUNNING, tries=self._book.entries[job_id].tries + 1)
                self.going = job_id
            case Close(id=job_id, state=state, causes=causes):
                self._close(job_id, state, causes)
        return []

    def _consider(self, ask: Ask) -> str:
        """Note a job that is asked for, the first time or anew; why it may not run here, or nothing."""
        if self._trust.is_foreign(ask.id):
            return f"{self._name} knows another job of this id"
        entry = self._book.entries.get(ask.id)
        if entry is None:
            entry = JobEntry(ask.id, ask.job, ask.options, ask.party)
            self.put(entry)
        elif entry.state != SUBMITTED:
            self._forget(ask.id)
            entry = self.change(ask.id, state=SUBMITTED, progress={})
        if entry.options != ask.options:
            refusal = f"{ask.party} remembers other options of it than {self._name}"
        elif entry.tries > self._retries:
            refusal = f"it has begun {entry.tries} times at {self._name}, and retries is {self._retries}"
        else:
            refusal = self._refuse(ask.job, ask.options)
        if not refusal:
            self._trust.agree(ask.id)
        return refusal

    def _prepare(self, job_id: str) -> str:
        """Load our data; why it cannot be done, or nothing."""
        try:
            self._prepared[job_id] = self._load(self._book.entries[job_id])
        except Exception as error:
            log.warning("%s: job %s cannot be prepared: %s", self._name, job_id, describe(error))
            return sentence(describe_to_peers(error))
        return ""

    def _close(self, job_id: str, state: str, causes: dict[str, str]) -> None:
        entry = self._book.entries[job_id]
        result = self._results.get(job_id)
        failure = self._failures.get(job_id)
        self._forget(job_id)
        if state == DONE and result is not None and entry.state == RUNNING:
            checked, data = result
            self._book.put_result(job_id, data)
            entry = self._book.change(job_id, state=DONE, checked=checked, result_size=len(data))
            self._done.append(entry)
            self._tell(entry, data)
            return
        if state == DONE:
            state, causes = FAILED, {self._name: f"{self._name} was told that it is done, and has no result of it"}
        if failure is not None:
            causes = self._with_own(job_id, causes, failure)
        if state not in NEXT[entry.state]:
            self.change(job_id, state=SUBMITTED)  # other parties have been asked anew, in a session that was lost
        self.change(job_id, state=state, causes=causes)

    def _with_own(self, job_id: str, causes: dict[str, str], failure: Failure) -> dict[str, str]:
        """Our own words say more to our own clients than what the peers are told, now and by later recalls."""
        self._told[job_id] = failure.told
        while len(self._told) > ENTRIES_MAX:
            self._told.popitem(last=False)
        return causes | {self._name: failure.ours}

    def _forget(self, job_id: str) -> None:
        """Whatever came of a run of this job."""
        self._prepared.pop(job_id, None)
        self._results.pop(job_id, None)
        self._failures.pop(job_id, None)

    # Running.

    def take_prepared(self) -> tuple[str, Any]:
        """The job that is to be run now and what was prepared for it. `end` must follow."""
        job_id, self.going = self.going, ""
        return job_id, self._prepared.pop(job_id)

    def end(self, job_id: str, outcome: tuple[bool | None, bytes] | Failure) -> Ended:
        """A job has run here: its check and its result as JSON, or why it failed. What to tell the orderer, if the
        session is still the one that brought the word to run it."""
        if isinstance(outcome, Failure):
            self._failures[job_id] = outcome
            return Ended(job_id, outcome.told)
        self._results[job_id] = outcome
        return Ended(job_id, "")

    # Sessions that end, and begin.

    def lose(self, told: Iterable[Message]) -> None:
        """The session is lost. `told` is what the orderer has said and was not followed: of that only the ends of jobs
        count, which other parties may have shown to their clients. Jobs that failed here for good are over.

        Raises:
            LinkProtocolError: no honest orderer says this.
        """
        self.going = ""
        try:
            for message in told:
                if isinstance(message, Close) and message.id in self._book.entries:
                    self.follow_untrusted(message)
        finally:
            self._trust.begin()
            self._prepared.clear()
            for job_id, failure in list(self._failures.items()):
                if not failure.may_run_again or not self._retries:
                    self._fail(job_id, {})

    def recall(self) -> list[Message]:
        """What to tell the orderer first on a new session."""
        entries = {entry.id: entry for entry in self._done} | self._book.entries
        return [*map(self._recall, entries.values()), Recalled()]

    def _recall(self, entry: JobEntry) -> Recall:
        options, word, causes = {}, entry.state, entry.causes
        if entry.is_final:
            if entry.id in self._told:
                causes = causes | {self._name: self._told[entry.id]}
        else:
            failure = self._failures.get(entry.id)
            word = ENDED if entry.id in self._results else BROKEN if failure is not None else OPEN
            causes = {self._name: failure.told} if failure is not None else {}
            options = entry.options if entry.party == self._name else {}
        return Recall(entry.id, entry.job, options, entry.party, word, causes, entry.tries)

    # Ends without the orderer.

    def give_up(self, causes: dict[str, str]) -> None:
        """Fail all jobs that have not ended well here: no party can have shown a result of them, and none will."""
        for entry in list(self._book.entries.values()):
            if not entry.is_final and entry.id not in self._results:
                self._fail(entry.id, causes)

    def fail_all(self, causes: dict[str, str]) -> None:
        """Fail all jobs that are not final: this party ends."""
        for entry in list(self._book.entries.values()):
            if not entry.is_final:
                self._fail(entry.id, causes)

    def _fail(self, job_id: str, causes: dict[str, str]) -> None:
        failure = self._failures.get(job_id)
        self._forget(job_id)
        self.change(job_id, state=FAILED, causes=causes if failure is None else self._with_own(job_id, causes, failure))

    # The book.

    def put(self, entry: JobEntry) -> None:
        """A new entry."""
        self._book.put(entry)
        self._tell(entry, None)

    def change(self, job_id: str, **changes: Any) -> JobEntry:
        """Move an entry on. Raises like JobBook.change."""
        entry = self._book.change(job_id, **changes)
        self._tell(entry, None)
        return entry
