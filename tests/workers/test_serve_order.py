"""How the parties of a service agree on jobs: in any interleaving the same order, and a final state for each."""

from __future__ import annotations

import itertools
import os
from collections import defaultdict, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partywire.engine import limits
from partywire.engine.errors import LinkProtocolError
from partywire.workers.serve_book import (
    CANCELLED,
    DONE,
    ENTRIES_MAX,
    FAILED,
    FINAL,
    NEXT,
    QUEUE_MAX,
    QUEUED,
    REFUSED,
    RESULTS_SIZE_MAX,
    SUBMITTED,
    JobBook,
    JobEntry,
)
from partywire.workers.serve_order import RECALLS_MAX, Orderer
from partywire.workers.serve_words import (
    BROKEN,
    CAUSE_LENGTH_MAX,
    ENDED,
    IS_READY,
    MAY_RUN,
    MESSAGE_SIZE_MAX,
    NAME_LENGTH_MAX,
    OPEN,
    SUBMISSION_SIZE_MAX,
    TRIES_MAX,
    Ask,
    Cancel,
    Close,
    Ended,
    Go,
    Message,
    Prepare,
    Queue,
    Recall,
    Recalled,
    Settled,
    Submit,
    Vote,
    decode_untrusted,
    encode,
    sentence,
)

PARTIES = ("alice", "bob", "charlie")


def job_id(number: int) -> str:
    return f"{number:016x}"


def orderer_of(parties: tuple[str, ...] = PARTIES, retries: int = 2, **recalled: list[Recall]) -> Orderer:
    """One that has heard what everybody remembers: these jobs, and nothing else."""
    orderer, told = Orderer(parties, retries), []
    for party in parties:
        for message in (*recalled.get(party, ()), Recalled()):
            told += orderer.take_untrusted(party, message)
    assert isinstance(told[-1], Settled)
    return orderer


class Follower:
    """A party that does as it is told; what it refuses, cannot prepare and fails at is drawn beforehand."""

    def __init__(self, name: str, bad: dict[str, str]) -> None:
        self.name = name
        self.bad = bad  # job -> the question that this party answers with no
        self.ran: list[str] = []
        self.closed: dict[str, Close] = {}

    def follow(self, message: Message) -> list[Message]:
        assert isinstance(message, (Ask, Queue, Prepare, Go, Close))
        bad = self.bad.get(message.id, "")
        match message:
            case Ask(id=one):
                return [Vote(one, MAY_RUN, "not here" if bad == MAY_RUN else "")]
            case Prepare(id=one):
                return [Vote(one, IS_READY, "no data" if bad == IS_READY else "")]
            case Go(id=one):
                self.ran.append(one)
                return [Ended(one, "broke" if bad == "run" else "")]
            case Close(id=one):
                assert one not in self.closed
                self.closed[one] = message
        return []


@settings(max_examples=60)
@given(st.data())
def test_all_parties_run_the_same_jobs_in_the_same_order_and_each_job_ends(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 6))
    jobs = [job_id(number) for number in range(count)]
    bad = st.dictionaries(st.sampled_from(jobs), st.sampled_from([MAY_RUN, IS_READY, "run"]), max_size=2)
    followers = {name: Follower(name, data.draw(bad)) for name in PARTIES}
    orderer = orderer_of()
    to_orderer: dict[str, deque[Message]] = defaultdict(deque)
    to_party: dict[str, deque[Message]] = defaultdict(deque)
    wishes: deque[tuple[str, Message]] = deque()
    for one in jobs:
        party = data.draw(st.sampled_from(PARTIES))
        wishes.append((party, Submit(one, "sum", {})))
        if data.draw(st.booleans()):
            wishes.append((party, Cancel(one)))
    while True:
        choices: list[tuple[str, str]] = [("out", party) for party, queue in to_orderer.items() if queue]
        choices += [("in", party) for party, queue in to_party.items() if queue]
        choices += [("wish", "")] if wishes else []
        if not choices:
            break
        what, party = data.draw(st.sampled_from(choices))
        if what == "wish":
            party, wish = wishes.popleft()
            to_orderer[party].append(wish)
        elif what == "in":
            message = decode_untrusted(encode(to_party[party].popleft()), "alice")
            to_orderer[party] += followers[party].follow(message)
        else:
            message = decode_untrusted(encode(to_orderer[party].popleft()), party)
            for told in orderer.take_untrusted(party, message):
                for name in PARTIES:
                    to_party[name].append(told)
    first = followers["alice"]
    for other in followers.values():
        assert other.ran == first.ran
        assert other.closed == first.closed
    assert set(first.closed) == set(jobs)
    for one, closed in first.closed.items():
        refusing = {name for name, follower in followers.items() if follower.bad.get(one)}
        if closed.state == CANCELLED:
            assert one not in first.ran
        elif any(follower.bad.get(one) == MAY_RUN for follower in followers.values()):
            assert closed.state == REFUSED
            assert set(closed.causes) <= refusing
            assert one not in first.ran
        else:
            assert closed.state == (FAILED if refusing else DONE)
            assert (one in first.ran) is not any(f.bad.get(one) == IS_READY for f in followers.values())


def test_a_queue_has_its_greatest_length_per_party_and_no_more() -> None:
    orderer = orderer_of()
    for number in range(QUEUE_MAX + 1):  # the one that a client is told of has been counted by its own party
        assert orderer.take_untrusted("bob", Submit(job_id(number), "sum", {}))
    assert orderer.take_untrusted("alice", Submit(job_id(500), "sum", {}))
    with pytest.raises(LinkProtocolError):
        orderer.take_untrusted("bob", Submit(job_id(501), "sum", {}))


DISHONEST: list[tuple[list[Message], Message]] = [
    ([], Ended(job_id(1), "")),
    ([], Ask(job_id(1), "sum", {}, "bob")),
    ([Submit(job_id(1), "sum", {})], Submit(job_id(1), "sum", {})),
    ([Submit(job_id(1), "sum", {})], Vote(job_id(1), IS_READY, "")),
    ([Submit(job_id(1), "sum", {})], Ended(job_id(1), "")),
    ([Submit(job_id(1), "sum", {}), Vote(job_id(1), MAY_RUN, "")], Vote(job_id(1), MAY_RUN, "")),
]


def test_what_no_honest_party_says_is_the_fault_of_that_party() -> None:
    for before, message in DISHONEST:
        orderer = orderer_of()
        for one in before:
            orderer.take_untrusted("bob", one)
        with pytest.raises(LinkProtocolError) as caught:
            orderer.take_untrusted("bob", message)
        assert caught.value.peer == "bob"


@pytest.mark.parametrize("message", [Submit(job_id(1), "sum", {}), Cancel(job_id(1)), Settled()])
def test_nothing_is_said_before_all_have_said_what_they_remember(message: Message) -> None:
    orderer = Orderer(PARTIES, 2)
    assert orderer.take_untrusted("bob", Recalled()) == []
    for party in ("alice", "bob"):
        with pytest.raises(LinkProtocolError):
            orderer.take_untrusted(party, message)
    with pytest.raises(LinkProtocolError):
        orderer.take_untrusted("bob", Recalled())


def own(number: int, party: str = "bob", word: str = OPEN, **options: int) -> Recall:
    return Recall(job_id(number), "sum", dict(options), party, word, {}, 0)


@pytest.mark.parametrize(
    "recalls",
    [
        [own(1), own(1)],
        [own(1, "dave")],
        [own(1, "charlie", size=1)],
        [own(1, word=DONE, size=1)],
        [own(number) for number in range(QUEUE_MAX + 2)],
        [own(number, word=DONE) for number in range(RECALLS_MAX + 1)],
    ],
    ids=["twice", "of nobody", "options of others", "options of a final one", "too many", "far too many"],
)
def test_what_no_honest_party_remembers_is_its_fault(recalls: list[Recall]) -> None:
    orderer = Orderer(PARTIES, 2)
    for recall in recalls[:-1]:
        assert orderer.take_untrusted("bob", recall) == []
    with pytest.raises(LinkProtocolError) as caught:
        orderer.take_untrusted("bob", recalls[-1])
    assert caught.value.peer == "bob"


def test_as_many_jobs_as_a_book_can_hold_are_remembered() -> None:
    recalls = [own(number) for number in range(QUEUE_MAX + 1)]
    recalls += [own(number, word=DONE) for number in range(1000, 1000 + RECALLS_MAX - len(recalls))]
    orderer_of(bob=recalls)


MESSAGES: list[Message] = [
    Submit(job_id(1), "digits", {"probes": 5, "rate": 0.5, "name": "x"}),
    Cancel(job_id(2)),
    Vote(job_id(3), MAY_RUN, "no"),
    Ended(job_id(4), "it broke"),
    Ask(job_id(5), "digits", {}, "bob"),
    Queue(job_id(6)),
    Prepare(job_id(7)),
    Go(job_id(8)),
    Close(job_id(9), REFUSED, {"bob": "not here"}),
    Recall(job_id(10), "digits", {"probes": 5}, "bob", OPEN, {}, 0),
    Recall(job_id(11), "digits", {}, "alice", ENDED, {}, TRIES_MAX),
    Recalled(),
    Settled(),
]


def test_messages_survive_the_wire() -> None:
    assert [decode_untrusted(encode(message), "bob") for message in MESSAGES] == MESSAGES


@given(st.sampled_from(MESSAGES), st.data())
def test_damaged_messages_are_refused_or_valid(message: Message, data: st.DataObject) -> None:
    raw = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_untrusted(bytes(raw[: data.draw(st.integers(0, len(raw)))]), "bob")
    except LinkProtocolError:
        return
    assert encode(decoded)


HOSTILE = [
    b"", b"[]", b"null", b'{"type":"Go"}', b'{"type":"Go","id":"../../etc"}', b'{"type":"Go","id":7}',
    b'{"type":"Go","id":"0000000000000001","more":1}', b'{"type":"Party","id":"0000000000000001"}',
    b'{"type":"Vote","id":"0000000000000001","question":"why","refusal":""}',
    b'{"type":"Submit","id":"0000000000000001","job":"","options":{}}',
    b'{"type":"Submit","id":"0000000000000001","job":"a","options":{"a":[1]}}',
    b'{"type":"Close","id":"0000000000000001","state":"running","causes":{}}',
    b'{"type":"Close","id":"0000000000000001","state":"done","causes":{"a":1}}',
    b'{"type":"Settled","id":"0000000000000001"}',
    b'{"type":"Recall","id":"0000000000000001","job":"a","options":{},"party":"a","word":"gone","causes":{},"tries":0}',
    b'{"type":"Recall","id":"0000000000000001","job":"a","options":{},"party":"a","word":"open","causes":{},"tries":-1}',
    b'{"type":"Recall","id":"0000000000000001","job":"a","options":{},"party":"a","word":"open","causes":{},"tries":true}',
]  # fmt: skip


def test_hostile_messages_are_refused() -> None:
    for raw in HOSTILE:
        with pytest.raises(LinkProtocolError):
            decode_untrusted(raw, "bob")


def test_a_message_has_its_greatest_size_and_no_more() -> None:
    room = SUBMISSION_SIZE_MAX - len(encode(Submit(job_id(1), "a", {"x": ""})))
    largest = Submit(job_id(1), "a", {"x": "y" * room})
    assert decode_untrusted(encode(largest), "bob") == largest
    with pytest.raises(ValueError, match="at most"):
        encode(Submit(job_id(1), "a", {"x": "y" * (room + 1)}))
    with pytest.raises(LinkProtocolError):
        decode_untrusted(encode(largest) + b" ", "bob")
    name = "\x00" * NAME_LENGTH_MAX  # six bytes each
    for told in orderer_of((name,)).take_untrusted(name, largest):
        assert len(encode(told)) <= MESSAGE_SIZE_MAX
    causes = {name: "\x00" * CAUSE_LENGTH_MAX}
    recall = Recall(largest.id, largest.job, largest.options, name, BROKEN, causes, TRIES_MAX)
    assert decode_untrusted(encode(recall), "bob") == recall


def test_a_cause_with_a_name_of_other_bytes_can_be_told() -> None:
    cause = sentence("cannot read " + os.fsdecode(b"data-\xff") + ": " + "x" * 2000)
    assert len(cause) == CAUSE_LENGTH_MAX
    vote = Vote(job_id(1), IS_READY, cause)
    assert decode_untrusted(encode(vote), "bob") == vote


def test_the_causes_of_all_parties_fit_one_message_however_they_are_written() -> None:
    for character in "\x00\xe4\u20ac\U0001f600":
        causes = {f"party{number}": character * CAUSE_LENGTH_MAX for number in range(limits.PARTIES_MAX)}
        closed = Close(job_id(1), FAILED, causes)
        assert decode_untrusted(encode(closed), "alice") == closed


# The book.


def entry(number: int, state: str = SUBMITTED) -> JobEntry:
    return JobEntry(job_id(number), "sum", {}, "bob", state)


def test_a_job_moves_along_its_states_only() -> None:
    states = {*NEXT, *FINAL}
    for state, following in itertools.permutations(states, 2):
        book = JobBook()
        book.put(entry(1, state))
        if following in NEXT.get(state, ()):
            assert book.change(job_id(1), state=following).state == following
        else:
            with pytest.raises(ValueError, match="cannot become"):
                book.change(job_id(1), state=following)


def test_a_full_book_forgets_the_oldest_job_that_has_ended() -> None:
    book = JobBook()
    book.put(entry(0, QUEUED))
    for number in range(1, ENTRIES_MAX):
        book.put(entry(number, DONE))
    assert len(book.entries) == ENTRIES_MAX
    book.put(entry(1000))
    assert len(book.entries) == ENTRIES_MAX
    assert job_id(0) in book.entries
    assert job_id(1) not in book.entries


def test_results_beyond_their_bound_are_forgotten_the_oldest_first() -> None:
    book = JobBook()
    half = bytes(RESULTS_SIZE_MAX // 2)
    for number in range(3):
        book.put(entry(number, DONE))
        book.put_result(job_id(number), half)
        assert len(book.results) == min(number + 1, 2)
    assert job_id(0) not in book.results
    assert job_id(0) in book.entries
