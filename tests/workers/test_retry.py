"""What parties decide at the end of an attempt, without processes: alike everywhere, and no result of two attempts."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partywire.engine.errors import LinkProtocolError, SetupAborted, SetupMismatch
from partywire.workers import retry
from partywire.workers.errors import (
    InboxOverflow,
    PeerAborted,
    PeerClosed,
    PeerLost,
    SessionClosed,
    SessionDesync,
    SessionTimeout,
    WorkerDied,
)
from partywire.workers.retry import (
    NOT_BEGUN,
    AttemptReport,
    BeginAnew,
    Ledger,
    Standing,
    Verdict,
    common_attempt,
    common_batch,
    decide,
    first_failure,
    is_loss,
    is_transient,
    was_lost,
)

NAMES = ("alice", "bob", "charlie", "dora")
LOST = AttemptReport(3, "lost", is_ours=False, is_transient=True)


def bitmap(ledger: Ledger) -> bytes:
    return b"".join(
        ledger.take_chunk_untrusted(text, number, "somebody") for number, text in enumerate(ledger.chunks())
    )


class Party:
    """One party's side of a batch: a result is (job, attempt's session block), which no other attempt has."""

    def __init__(self, jobs: int) -> None:
        self.ledger = Ledger(jobs)
        self.attempt = 1
        self.batch = NOT_BEGUN

    def run(self, block: int, reach: list[int], sessions: int) -> None:
        """Jobs of one session end in order; `reach[s]` of session s become final here."""
        pending = len(self.ledger.pending)
        for session in range(min(sessions, pending)):
            for position in list(range(session, pending, sessions))[: reach[session]]:
                self.ledger.put(position, (self.ledger.pending[position], block))


def meet(parties: list[Party], jobs: int) -> int:
    """All parties begin an attempt together; which, as each of them finds alone."""
    while True:
        said = {
            name: Standing(party.attempt, len(party.ledger.pending), party.batch)
            for name, party in zip(NAMES, parties, strict=False)
        }
        found: list[int | tuple[str, int]] = []
        begun = {common_batch(0, name, said) for name in said}
        assert len(begun) == 1
        for party in parties:
            party.batch = max(*begun, 7)
            try:
                found.append(common_attempt(dict(reversed(said.items())) if found else said, jobs))
            except BeginAnew as anew:
                found.append((anew.peer, anew.attempt))
                party.ledger.restart()
                party.attempt = anew.attempt + 1
        assert found == found[:1] * len(parties)
        if isinstance(found[0], int):
            return found[0]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_result_is_lost_doubled_reordered_or_of_two_attempts_and_all_parties_agree(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 4))
    jobs = data.draw(st.integers(1, 40))
    sessions = data.draw(st.integers(1, 6))
    parties = [Party(jobs) for _ in range(count)]
    for round_ in range(1, 60):
        if round_ < 9 and data.draw(st.integers(0, 4)) == 4:
            parties[data.draw(st.integers(0, count - 1))] = Party(jobs)  # started again
        attempt = meet(parties, jobs)
        pending = {tuple(party.ledger.pending) for party in parties}
        assert len(pending) == 1, "everywhere the same jobs run again"
        per_session = [len(range(s, len(parties[0].ledger.pending), sessions)) for s in range(sessions)]
        # How far each party's knowledge of final jobs got before the failure: any prefix of each session, anywhere.
        is_good = round_ > 8 or data.draw(st.booleans())
        for party in parties:
            reach = [n if is_good else data.draw(st.integers(0, n)) for n in per_session]
            party.attempt = attempt + 1
            party.run(round_, reach, sessions)
        said = {
            name: AttemptReport() if party.ledger.is_full else LOST for name, party in zip(NAMES, parties, strict=False)
        }
        bitmaps = [bitmap(party.ledger) for party in parties]
        complete = [
            party.ledger.settle(bits for at, bits in enumerate(bitmaps) if at != index)
            for index, party in enumerate(parties)
        ]
        verdicts = {decide(said, is_complete, attempt, 100) for is_complete in complete}
        assert len(verdicts) == 1
        kept = [{index for index in range(jobs) if party.ledger.results[index] is not None} for party in parties]
        assert all(mine == kept[0] for mine in kept)
        assert kept[0] == set(range(jobs)) - set(parties[0].ledger.pending)
        if verdicts == {Verdict.DONE}:
            break
        assert verdicts == {Verdict.AGAIN}
    else:
        pytest.fail("good attempts end a batch")
    results = [party.ledger.results for party in parties]
    assert [index for index, _ in results[0]] == list(range(jobs))
    assert all(mine == results[0] for mine in results), "the results of a job are of one attempt at all parties"


@pytest.mark.parametrize(
    ("begun", "left", "batch"),
    [
        ((7, 7, 7), 3, 7),
        ((NOT_BEGUN, 7, 7), NOT_BEGUN, 7),  # started again
        ((NOT_BEGUN, 7, 7), 3, 7),  # did not hear that the first attempt was agreed on
        ((NOT_BEGUN, NOT_BEGUN, NOT_BEGUN), 7, NOT_BEGUN),
        ((NOT_BEGUN, NOT_BEGUN, 7), 7, None),  # has left it
        ((8, 7, 7), 7, None),
        ((8, 7, 7), NOT_BEGUN, None),
    ],
)
def test_two_batches_never_meet(begun: tuple[int, int, int], left: int, batch: int | None) -> None:
    said = {name: Standing(2, 4, one, left if name == "alice" else 1) for name, one in zip(NAMES, begun, strict=False)}
    for name in said:
        if batch is not None:
            assert common_batch(3, name, said) == batch
        else:
            with pytest.raises(SetupMismatch, match="batch that has begun"):
                common_batch(3, name, said)


@given(
    st.dictionaries(
        st.sampled_from(NAMES),
        st.builds(AttemptReport, st.integers(-1, 9), st.sampled_from(["", "why"]), st.booleans(), st.booleans()),
        min_size=2,
    )
)
def test_a_verdict_and_the_failure_named_do_not_depend_on_who_decides(said: dict[str, AttemptReport]) -> None:
    turned = deque(said.items())
    turned.rotate(1)
    assert decide(said, False, 1, 1) is decide(dict(turned), False, 1, 1)
    assert first_failure(said, NAMES) == first_failure(dict(turned), NAMES)


@pytest.mark.parametrize(
    ("attempt", "transient", "verdict"),
    [(1, True, Verdict.AGAIN), (2, True, Verdict.AGAIN), (3, True, Verdict.FAILED), (1, False, Verdict.FAILED)],
)
def test_transient_failures_run_again_up_to_the_limit(attempt: int, transient: bool, verdict: Verdict) -> None:
    said = {"alice": AttemptReport(), "bob": AttemptReport(3, "why", True, transient), "charlie": LOST}
    assert decide(said, False, attempt, 2) is verdict
    assert decide(said, True, attempt, 2) is Verdict.DONE


def test_all_name_the_lowest_job_whose_failure_began_somewhere() -> None:
    said = {"alice": AttemptReport(1, "heard of it"), "bob": AttemptReport(7, "late", True)}
    assert first_failure(said, NAMES) == (7, "bob", "late")
    said["charlie"] = AttemptReport(2, "early", True)
    assert first_failure(said, NAMES) == (2, "charlie", "early")
    said["dora"] = AttemptReport(-1, "WorkerDied", True)
    assert first_failure(said, NAMES) == (1, "dora", "WorkerDied"), "outside the jobs: the first that anybody noticed"
    assert first_failure({"alice": LOST, "bob": LOST}, NAMES) is None


def test_a_loss_is_to_blame_where_somebody_saw_it_and_no_job_failed_of_itself() -> None:
    saw, told = AttemptReport(3, "bob is gone", is_loss=True), AttemptReport(5, "alice gave up")
    assert was_lost({"alice": saw, "charlie": told})
    assert was_lost({"alice": saw, "charlie": told, "dora": AttemptReport()})
    assert not was_lost({"alice": AttemptReport(3, "bob is slow"), "charlie": told})
    assert not was_lost({"alice": saw, "charlie": told, "dora": AttemptReport(-1, "WorkerDied", True)})


@pytest.mark.parametrize(
    ("error", "loss"),
    [
        (PeerLost("bob", 1, 1, "reset"), True),
        (PeerClosed("bob", 1, 1), True),
        (SetupAborted(3, "bob", "it was interrupted"), True),
        (PeerAborted("bob", 1, "session 1 lost charlie"), False),
        (SessionTimeout(1, "bob", 1.0, "waiting"), False),
        (ValueError("a mistake"), False),
    ],
)
def test_a_loss_is_what_was_seen_and_not_what_was_told(error: Exception, loss: bool) -> None:
    assert is_loss(error) is loss


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    try:
        try:
            if cause is not None:
                raise cause
        finally:
            raise error
    except Exception as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (PeerLost("bob", 1, 1, "reset"), True),
        (SessionTimeout(1, "bob", 1.0, "waiting"), True),
        (InboxOverflow(1, "bob", 9, 8, "limits.inbox_mib"), True),
        (PeerAborted("bob", 1, "why"), True),
        (WorkerDied("alice", 1, "SIGKILL"), True),
        (PeerClosed("bob", 1, 1), False),
        (SessionClosed(1, "given up here"), False),
        (SessionDesync(1, "bob", 0, "a message too many"), False),
        (LinkProtocolError("bob", "a value that is none", 3), False),
        (ValueError("a mistake"), False),
        (TimeoutError(), False),
        (raised(ValueError("because of it"), PeerLost("bob", 1, 1, "reset")), True),
        (raised(ValueError("because of it"), KeyError("a mistake")), False),
    ],
)
def test_what_happens_to_a_job_is_retried_and_what_it_does_is_not(error: Exception, transient: bool) -> None:
    assert is_transient(error) is transient


def test_a_report_survives_its_fields_and_a_peers_words_are_bounded_and_printable() -> None:
    report = AttemptReport(3, "why\x1b[31m" + "x" * 999, True, False)
    heard = AttemptReport.from_fields_untrusted(report.fields() | {"final": "more"}, "bob")
    assert (heard.index, heard.is_ours, heard.is_transient) == (3, True, False)
    assert len(heard.cause) == retry.CAUSE_LENGTH_MAX
    assert heard.cause.isprintable()
    for wrong in ({"index": "3"}, {"cause": 1}, {"is_ours": 1}, {"is_transient": None}, {"is_loss": 0}):
        with pytest.raises(LinkProtocolError):
            AttemptReport.from_fields_untrusted(report.fields() | wrong, "bob")
    with pytest.raises(LinkProtocolError):
        AttemptReport.from_fields_untrusted({}, "bob")


@pytest.mark.parametrize("jobs", [0, 1, 8, 8 * retry.CHUNK_SIZE, 8 * retry.CHUNK_SIZE + 1])
def test_final_jobs_are_told_in_as_many_pieces_as_control_messages_have_room_for(jobs: int) -> None:
    ledger = Ledger(jobs)
    for position in range(0, jobs, 3):
        ledger.put(position, position)
    chunks = list(ledger.chunks())
    assert len(chunks) == max(1, -(-jobs // (8 * retry.CHUNK_SIZE)))
    assert ledger.settle([bitmap(ledger)]) is (jobs in (0, 1))
    assert ledger.results == [at if at % 3 == 0 else None for at in range(jobs)]
    assert list(ledger.pending) == [at for at in range(jobs) if at % 3]


@pytest.mark.parametrize("text", [None, 7, "", "!!!!", "AAAA", "AA"])
def test_a_bitmap_of_another_size_or_kind_is_a_peers_fault(text: object) -> None:
    with pytest.raises(LinkProtocolError):
        Ledger(9).take_chunk_untrusted(text, 0, "bob")
