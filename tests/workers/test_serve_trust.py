"""What a party of a service takes from the one that orders: whatever that one says, nothing runs that was refused."""

from __future__ import annotations

import socket
from typing import Any, cast

import pytest

from partywire.engine.errors import LinkProtocolError
from partywire.workers.channel import Channel
from partywire.workers.serve_book import DONE, FAILED, PREPARING, QUEUE_MAX, QUEUED, RUNNING, JobBook, JobEntry
from partywire.workers.serve_channel import WorkerLine
from partywire.workers.serve_messages import SubmitJob
from partywire.workers.serve_trust import OrderTrust
from partywire.workers.serve_words import Ask, Close, Ended, Go, Message, Prepare, Queue, Settled

PARTIES = ("alice", "bob", "charlie")
JOB = "0123456789abcdef"


def trust_of(*entries: JobEntry, settled: bool = True) -> tuple[OrderTrust, JobBook]:
    """Bob's."""
    book = JobBook()
    for entry in entries:
        book.put(entry)
    trust = OrderTrust("bob", PARTIES, book)
    if settled:
        assert trust.takes_untrusted(Settled())
    return trust, book


def entry_of(ask: Ask) -> JobEntry:
    return JobEntry(ask.id, ask.job, ask.options, ask.party)


ASK = Ask(JOB, "digits", {"probes": 3}, "alice")


def test_a_job_that_all_agree_on_goes_through_its_states_once() -> None:
    trust, book = trust_of()
    trust.takes_untrusted(ASK)
    book.put(entry_of(ASK))
    trust.agree(JOB)
    steps: list[tuple[Message, str]] = [(Queue(JOB), QUEUED), (Prepare(JOB), PREPARING), (Go(JOB), RUNNING)]
    for message, state in steps:
        trust.takes_untrusted(message)
        book.change(JOB, state=state)
        if state == PREPARING:
            trust.get_ready(JOB)
        with pytest.raises(LinkProtocolError):
            trust.takes_untrusted(message)
    trust.takes_untrusted(Close(JOB, DONE, {}))
    book.change(JOB, state=DONE)
    with pytest.raises(LinkProtocolError):
        trust.takes_untrusted(Close(JOB, FAILED, {}))


def test_no_word_of_the_orderer_runs_a_job_that_was_refused_here() -> None:
    trust, book = trust_of()
    trust.takes_untrusted(Ask(JOB, "digits", {"gallery": "/etc/passwd"}, "alice"))
    book.put(entry_of(ASK))
    with pytest.raises(LinkProtocolError, match="refused"):
        trust.takes_untrusted(Queue(JOB))
    trust.agree(JOB)
    book.change(JOB, state=QUEUED)
    trust.takes_untrusted(Prepare(JOB))
    book.change(JOB, state=PREPARING)
    with pytest.raises(LinkProtocolError, match="data could not be loaded"):
        trust.takes_untrusted(Go(JOB))
    trust.begin()
    with pytest.raises(LinkProtocolError):
        trust.takes_untrusted(Go(JOB))


@pytest.mark.parametrize(
    "ask",
    [
        Ask(JOB, "digits", {"probes": 4}, "bob"),  # not what our client wanted
        Ask(JOB, "iris", {"probes": 3}, "bob"),
        Ask(JOB, "digits", {"probes": 3}, "alice"),  # our client's id
        Ask("f" * 16, "digits", {"probes": 3}, "bob"),  # nobody here asked for it
        Ask("f" * 16, "digits", {"probes": 3}, "dave"),
    ],
)
def test_a_job_of_our_own_clients_is_asked_for_once_and_as_it_was_submitted(ask: Ask) -> None:
    trust, _ = trust_of(JobEntry(JOB, "digits", {"probes": 3}, "bob"))
    with pytest.raises(LinkProtocolError):
        trust.takes_untrusted(ask)
    own = Ask(JOB, "digits", {"probes": 3}, "bob")
    trust.takes_untrusted(own)
    with pytest.raises(LinkProtocolError):
        trust.takes_untrusted(own)


def test_a_new_session_begins_with_what_was_known_and_only_with_that() -> None:
    mine, theirs = JobEntry(JOB, "digits", {}, "bob", RUNNING), JobEntry("f" * 16, "digits", {}, "alice", QUEUED)
    over = JobEntry("e" * 16, "digits", {}, "alice", DONE)
    trust, _ = trust_of(mine, theirs, over, settled=False)
    for early in (Queue(JOB), Prepare(JOB), Go(JOB)):
        with pytest.raises(LinkProtocolError, match="Settled before it"):
            trust.takes_untrusted(early)
    assert not trust.takes_untrusted(Close("d" * 16, DONE, {}))  # of which another party knows
    assert not trust.takes_untrusted(Close(over.id, FAILED, {}))
    assert trust.takes_untrusted(Close(JOB, FAILED, {}))
    for entry in (mine, theirs):
        again = Ask(entry.id, entry.job, entry.options, entry.party)
        assert trust.takes_untrusted(again)
        with pytest.raises(LinkProtocolError, match="asked for twice"):
            trust.takes_untrusted(again)
    for wrong in (Ask(over.id, "digits", {}, "alice"), Ended(JOB, "")):
        with pytest.raises(LinkProtocolError):
            trust.takes_untrusted(wrong)
    assert trust.takes_untrusted(Settled())
    for late in (Settled(), Ask(theirs.id, "digits", {}, "alice"), Close(over.id, FAILED, {})):
        with pytest.raises(LinkProtocolError):
            trust.takes_untrusted(late)


def test_an_orderer_cannot_fill_the_book() -> None:
    trust, book = trust_of()
    for number in range(QUEUE_MAX + 1):
        ask = Ask(f"{number:016x}", "digits", {}, "charlie")
        trust.takes_untrusted(ask)
        book.put(entry_of(ask))
    with pytest.raises(LinkProtocolError):
        trust.takes_untrusted(Ask("f" * 16, "digits", {}, "charlie"))
    trust.takes_untrusted(Ask("f" * 16, "digits", {}, "alice"))


class _Watcher:
    """The part of a party that a line uses."""

    def __init__(self) -> None:
        self.worker = self
        self.watched: dict[int, Any] = {}

    def watch(self, fd: int, take: Any) -> None:
        self.watched[fd] = take

    def unwatch(self, fd: int) -> None:
        del self.watched[fd]


@pytest.mark.parametrize("size", [10, 4 << 20])
def test_what_a_worker_said_before_it_died_is_heard_though_more_was_to_be_told_to_it(size: int) -> None:
    ours, theirs = socket.socketpair()
    watcher, heard = _Watcher(), cast("list[object]", [])
    line = WorkerLine(cast("Any", watcher), heard.append)
    line.replace(ours)
    line.tell(bytes(size))  # held in part when it is large
    worker = Channel(theirs)
    wanted = [SubmitJob(f"{number:016x}", "digits", {}) for number in range(3)]
    for message in wanted:
        worker.send(message)
    worker.close()
    line.tell("to nobody")
    [hear] = watcher.watched.values()
    ours, theirs = socket.socketpair()
    line.replace(ours)
    assert heard == wanted
    line.close()
    assert not watcher.watched
    hear()  # an event that was under way
    with theirs:
        assert theirs.recv(1) == b""
