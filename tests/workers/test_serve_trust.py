"""What a party of a service takes from the one that orders: whatever that one says, nothing runs that was refused."""

from __future__ import annotations

import socket
from typing import Any, cast

import pytest

from partywire.engine.errors import LinkProtocolError
from partywire.workers.channel import Channel
from partywire.workers.serve_book import DONE, FAILED, PREPARING, QUEUE_MAX, QUEUED, REFUSED, RUNNING, JobBook, JobEntry
from partywire.workers.serve_channel import WorkerLine
from partywire.workers.serve_follower import Follower
from partywire.workers.serve_messages import SubmitJob
from partywire.workers.serve_trust import OrderTrust
from partywire.workers.serve_words import MAY_RUN, Ask, Close, Ended, Go, Message, Prepare, Queue, Settled, Vote

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
    with pytest.raises(LinkProtocolError):
        trust.takes_untrusted(Ended(JOB, ""))
    assert trust.takes_untrusted(Settled())
    for late in (Settled(), Ask(theirs.id, "digits", {}, "alice"), Close(over.id, FAILED, {}), Go(theirs.id)):
        with pytest.raises(LinkProtocolError):
            trust.takes_untrusted(late)


def follower_of(*entries: JobEntry) -> tuple[Follower, JobBook]:
    """Bob's, in a session that is settled."""
    book = JobBook()
    for entry in entries:
        book.put(entry)
    refuse = lambda job, options: ""  # noqa: E731
    follower = Follower("bob", PARTIES, book, 2, refuse=refuse, prepare=lambda entry: None, tell=lambda *_: None)
    return follower, book


@pytest.mark.parametrize("party", ["alice", "charlie"])
def test_a_job_under_the_id_of_another_one_is_refused_and_leaves_that_as_it_is(party: str) -> None:
    """The orderer need not know the other one, so it is not blamed for what a party submits."""
    over, mine = JobEntry(JOB, "digits", {}, "alice", DONE), JobEntry("f" * 16, "digits", {}, "bob")
    follower, book = follower_of(over, mine)
    follower.follow_untrusted(Settled())
    for entry in (over, mine):
        [vote] = follower.follow_untrusted(Ask(entry.id, "digits", {}, party))
        assert vote == Vote(entry.id, MAY_RUN, "bob knows another job of this id")
        with pytest.raises(LinkProtocolError):
            follower.follow_untrusted(Queue(entry.id))
        assert follower.follow_untrusted(Close(entry.id, REFUSED, {"bob": "no"})) == []
        assert book.entries[entry.id] == entry
    assert follower.follow_untrusted(Ask(mine.id, "digits", {}, "bob")) == [Vote(mine.id, MAY_RUN, "")]


def test_a_job_that_begins_again_is_the_one_that_was_agreed_on_and_not_too_often() -> None:
    theirs = JobEntry(JOB, "digits", {"probes": 3}, "alice", RUNNING, tries=2)
    often = JobEntry("f" * 16, "digits", {}, "alice", QUEUED, tries=3)
    follower, book = follower_of(theirs, often)
    [vote] = follower.follow_untrusted(Ask(JOB, "digits", {"probes": 4}, "alice"))
    assert isinstance(vote, Vote)
    assert "alice remembers other options" in vote.refusal
    [vote] = follower.follow_untrusted(Ask(often.id, "digits", {}, "alice"))
    assert isinstance(vote, Vote)
    assert vote.refusal == "it has begun 3 times at bob, and retries is 2"
    follower.follow_untrusted(Settled())
    for entry in (theirs, often):
        follower.follow_untrusted(Close(entry.id, REFUSED, {"bob": "no"}))
        assert book.entries[entry.id].state == REFUSED
        assert book.entries[entry.id].options == entry.options


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
