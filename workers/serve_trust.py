"""What a party of a service believes of the one that orders the jobs: only what an honest orderer can say. No I/O.

Between the session with the orderer (`serve_words`) and what the follower does at its word. The one invariant: nothing
that this party has refused on this session is queued, prepared or run here, whatever the orderer says; a job that our
own clients submitted is run as they submitted it or not at all; and what is final stays as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from partywire.engine.errors import LinkProtocolError

from .serve_book import NEXT, PREPARING, QUEUE_MAX, QUEUED, RUNNING
from .serve_words import Ask, Close, Go, Message, Prepare, Queue, Settled

if TYPE_CHECKING:
    from .serve_book import JobBook

_STATE_OF: Final[dict[type[Message], str]] = {Queue: QUEUED, Prepare: PREPARING, Go: RUNNING}


class OrderTrust:
    """Knows which jobs this party has voted for, and that its data for them are loaded."""

    def __init__(self, name: str, parties: tuple[str, ...], book: JobBook) -> None:
        """Reads `book`; the service writes it."""
        self._name = name
        self._parties = parties
        self._book = book
        self._asked: set[str] = set()  # and not closed
        self._agreed: set[str] = set()
        self._ready: set[str] = set()
        self._foreign: set[str] = set()  # asked for under the id of a job that this party knows as another one
        self.is_settled = False
        """Whether the orderer has dealt with what all parties remembered when the session began."""

    def agree(self, job_id: str) -> None:
        """We have said that the job may run here."""
        self._agreed.add(job_id)

    def get_ready(self, job_id: str) -> None:
        """We have said that our data are loaded."""
        self._ready.add(job_id)

    def begin(self) -> None:
        """A session is over: whatever was said in it counts no more."""
        self.is_settled = False
        self._asked.clear()
        self._agreed.clear()
        self._ready.clear()
        self._foreign.clear()

    def is_foreign(self, job_id: str) -> bool:
        """Whether what was asked for is not the job that this party knows by its id. It must be refused."""
        return job_id in self._foreign

    def takes_untrusted(self, message: Message) -> bool:
        """Whether there is anything to do for what the orderer says. There is nothing for the end of a foreign job; nor
        for that of a job which this party does not know, or knows to have ended, before all is settled.

        Raises:
            LinkProtocolError: it may not say this now.
        """
        if isinstance(message, Ask):
            self._check_ask_untrusted(message)
        elif isinstance(message, Settled):
            if self.is_settled:
                self._refuse("order of a service", "Settled", "that it is")
            self.is_settled = True
        elif not isinstance(message, (Queue, Prepare, Go, Close)):
            self._refuse("service message", type(message).__name__, "one of the orderer")
        elif isinstance(message, Close) and message.id in self._foreign:
            self._foreign.discard(message.id)
            self._asked.discard(message.id)
            return False
        elif self.is_settled:
            self._check_order_untrusted(message)
        elif not isinstance(message, Close):
            self._refuse("order of a service", type(message).__name__, "Settled before it")
        else:
            entry = self._book.entries.get(message.id)
            return entry is not None and not entry.is_final
        return True

    def _check_order_untrusted(self, message: Queue | Prepare | Go | Close) -> None:
        entry = self._book.entries.get(message.id)
        state = message.state if isinstance(message, Close) else _STATE_OF[type(message)]
        if entry is None or state not in NEXT.get(entry.state, ()):
            self._refuse("order of a service", type(message).__name__, entry.state if entry else "no job")
        if isinstance(message, (Queue, Prepare)) and message.id not in self._agreed:
            self._refuse("order of a service", type(message).__name__, "that the job is refused")
        if isinstance(message, Go) and message.id not in self._ready:
            self._refuse("order of a service", "Go", "that our data could not be loaded")
        if isinstance(message, Close):
            for ids in (self._asked, self._agreed, self._ready):
                ids.discard(message.id)

    def _check_ask_untrusted(self, ask: Ask) -> None:
        entry = self._book.entries.get(ask.id)
        if ask.party not in self._parties:
            self._refuse("party of a job", ask.party[:80], "a party")
        if ask.id in self._asked:
            self._refuse("job asked for twice", ask.id, "a fresh id")
        if entry is None:
            if ask.party == self._name:
                self._refuse("job of our own clients", ask.id, "one that they submitted")
            if self._book.pending_of(ask.party) > QUEUE_MAX:
                self._refuse("jobs that have not ended", QUEUE_MAX + 2, QUEUE_MAX + 1)
        elif ask.party == self._name:
            if entry.is_final or (entry.job, entry.options, entry.party) != (ask.job, ask.options, ask.party):
                self._refuse("job of our own clients", ask.id, "one as they submitted it")
        elif entry.is_final or self.is_settled:
            # Its party gives it the id of another job. The orderer need not know that one; so it is no fault of its.
            self._foreign.add(ask.id)
        elif (entry.job, entry.party) != (ask.job, ask.party):
            self._refuse("job that this party knows", ask.id, "one as it was submitted")
        self._asked.add(ask.id)

    def _refuse(self, what: str, found: object, expected: object) -> None:
        raise LinkProtocolError(self._parties[0], what, found, expected)
