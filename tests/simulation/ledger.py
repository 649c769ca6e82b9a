"""What was sent and what was received, known to nobody in the simulation but to its judge.

Between the programs of all parties. The one invariant: a receiver gets exactly the messages that its peer sent it on
this session, in order, each once; whoever is told otherwise raises Violation and names message and route.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from .world import Violation

if TYPE_CHECKING:
    from partywire.workers.errors import SessionError

    from .world import World

HEADER: Final = struct.Struct("<IBBHI")
"""Session, sender, receiver, number, size of the whole."""

FILLER: Final = random.Random(1).randbytes(1 << 17)

Route = tuple[int, int, int]
"""Session, sender, receiver."""


def message_of(session: int, sender: int, receiver: int, number: int, size: int) -> bytes:
    """The one message that stands here; not below the size of its header."""
    size = max(size, HEADER.size)
    begin = (session * 31 + sender * 7 + receiver * 3 + number * 1009) % 4096
    return HEADER.pack(session, sender, receiver, number, size) + FILLER[begin : begin + size - HEADER.size]


@dataclass
class Failure:
    """One session's end at one party."""

    at: float
    error: SessionError


@dataclass
class Ledger:
    """Driven by the programs."""

    world: World
    messages: int = 0
    """Received on sessions that are forgotten."""
    sent: dict[Route, int] = field(default_factory=dict)
    received: dict[Route, int] = field(default_factory=dict)
    failures: dict[tuple[int, int], Failure] = field(default_factory=dict)
    """(session, party) -> why it ended there, if it did not end well."""
    excuses: dict[frozenset[int], float] = field(default_factory=dict)
    """Pairs of parties whose link was harmed -> when at first. Without any, nothing may fail."""
    done: set[tuple[int, int]] = field(default_factory=set)
    """(session, party) whose program came to its end; of a batch (-1 - number of its phase, party)."""
    results: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Number of a phase -> the results of its batch, as the first party got them: (job, session that it ran on)."""

    def compose(self, session: int, sender: int, receiver: int, size: int) -> bytes:
        """The next message on this route, which is about to be sent."""
        route = (session, sender, receiver)
        number = self.sent.get(route, 0)
        self.sent[route] = number + 1
        return message_of(session, sender, receiver, number, size)

    def take(self, session: int, sender: int, receiver: int, value: bytes | bytearray) -> None:
        """A message was received.

        Raises:
            Violation: it is not the one that had to come.
        """
        route = (session, sender, receiver)
        number = self.received.get(route, 0)
        self.received[route] = number + 1
        expected = "nothing was sent"
        if number < self.sent.get(route, 0):
            if len(value) >= HEADER.size and value == message_of(*route, number, len(value)):
                self.world.mix(len(value))
                return
            expected = f"message {number} had to come"
        raise Violation(f"session {session}, {sender} -> {receiver}: {expected}, {_describe(route, number, value)}")

    def take_results(self, phase: int, party: int, results: list[tuple[int, int]]) -> None:
        """A batch ended well at a party.

        Raises:
            Violation: a result is lost, doubled, in another place, or of another attempt than at another party.
        """
        jobs = [job for job, _ in results]
        if jobs != list(range(len(jobs))):
            raise Violation(f"phase {phase}: party {party} has results of the jobs {jobs}")
        if self.results.setdefault(phase, results) != results:
            raise Violation(f"phase {phase}: party {party} has other results than another one: {results}")
        self.done.add((-1 - phase, party))

    def forget(self) -> None:
        """Nobody uses the sessions any more: a party that was started anew may give an id away that only its former
        life had used."""
        self.messages += sum(self.received.values())
        for record in (self.sent, self.received, self.failures, self.done, self.results):
            record.clear()

    def fail(self, session: int, party: int, error: SessionError) -> None:
        """A session failed at a party."""
        if (session, party) not in self.failures and (session, party) not in self.done:
            self.failures[session, party] = Failure(self.world.now, error)
            self.world.note(f"party {party}: session {session} failed: {error}")

    def check_complete(self, session: int, party: int, peer: int) -> None:
        """Everything that the peer sent was received here.

        Raises:
            Violation: something was lost.
        """
        sent, received = (counts.get((session, peer, party), 0) for counts in (self.sent, self.received))
        if sent != received:
            raise Violation(f"session {session}, {peer} -> {party}: {sent} messages were sent, {received} received")


def _describe(route: Route, number: int, value: bytes | bytearray) -> str:
    if len(value) < HEADER.size:
        return f"{len(value)} bytes came"
    session, sender, receiver, found, size = HEADER.unpack_from(value)
    if value != message_of(session, sender, receiver, found, len(value)) or size != len(value):
        return f"{len(value)} bytes came that nobody sent"
    if (session, sender, receiver) != route:
        return f"a message of session {session}, {sender} -> {receiver} came"
    return f"number {found} came, {'again' if found < number else 'too early'}"
