"""`session.reset` at three parties in one process, over real rings: what is late is dropped, nobody goes on alone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from partywire.engine.session_resets import RESET_IDS_FIRST
from partywire.workers.config import PartyConfig
from partywire.workers.errors import PeerAborted, PeerClosed, PeerLost, RendezvousTimeout, SessionTimeout
from partywire.workers.party import Party
from partywire.workers.resets import SessionResets
from tests.workers.harness import NAMES, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire.workers.session import Session


@pytest.fixture
def three() -> Iterator[Table]:
    with Table(3) as table:
        yield table


def make(table: Table, count: int = 1) -> list[list[Session]]:
    addresses = {name: f"127.0.0.1:{7001 + index}" for index, name in enumerate(NAMES)}
    seated = [Party(PartyConfig(name=name, parties=addresses)) for name in NAMES]
    for party, worker in zip(seated, table.workers, strict=True):
        party._worker = worker
        party._was_opened = True
        worker.on_control = party._take_control
        worker.on_link_up = party._link_up
        worker.resets = SessionResets(worker, lambda: 1)
    return table.ok(*(party.make_sessions(count) for party in seated))


async def nothing() -> Any:
    pass


def reset_all(table: Table, sessions: list[Session]) -> None:
    table.ok(*(session.reset() for session in sessions))


def check_works(table: Table, sessions: list[Session]) -> None:
    """Every pair exchanges in both directions, and jobs end in lockstep from 0 again."""

    async def talk(session: Session) -> Any:
        values = await session.gather(f"{session.party_index}".encode())
        return values, await session.end_job()

    assert table.ok(*(talk(session) for session in sessions)) == [([b"0", b"1", b"2"], 0)] * 3
    assert [session.jobs_final for session in sessions] == [1, 1, 1]


def test_a_late_message_is_dropped_and_counted_and_never_taken_for_the_next_one(three: Table) -> None:
    alice, bob, charlie = (mine[0] for mine in make(three))
    three.held.add((1, 0))  # what bob sends to alice is under way for long
    _, sent, error = three.run(nothing(), bob.send(0, b"late"), charlie.recv(0, timeout=2.0), advance_s=0.5)
    assert sent is None
    timed_out = three.run(alice.recv(1, timeout=2.0), advance_s=0.5)[0]
    assert isinstance(error, SessionTimeout)
    assert isinstance(timed_out, PeerAborted | SessionTimeout)
    resets = [three.schedulers[at].spawn(session.reset()) for at, session in enumerate((alice, bob, charlie))]
    three.settle()
    assert not resets[0].is_done, "bob's word is behind his late message"
    three.held.clear()
    three.settle()
    assert [slot.error for slot in resets] == [None] * 3
    assert alice.id == bob.id == charlie.id >= RESET_IDS_FIRST
    assert three.workers[0].counters.dropped_stale == 1
    check_works(three, [alice, bob, charlie])


def test_a_message_that_is_later_than_the_reset_is_dropped_too(three: Table) -> None:
    alice, bob, charlie = (mine[0] for mine in make(three))
    three.ok(nothing(), bob.send(0, b"late"))
    reset_all(three, [alice, bob, charlie])
    old_id = alice.id
    reset_all(three, [alice, bob, charlie])
    assert alice.id != old_id
    stale = three.workers[0].counters.dropped_stale
    for number in (alice.origin, old_id):  # as if the network had kept it until now
        three.feed(0, 1, number.to_bytes(4, "little") + b"\x80" + (4).to_bytes(4, "little") + b"late")
    three.settle()
    assert three.workers[0].counters.dropped_stale == stale + 2
    check_works(three, [alice, bob, charlie])


def test_a_time_out_poisons_the_session_in_both_directions_until_it_is_reset(three: Table) -> None:
    sessions = [mine[0] for mine in make(three)]
    three.run(sessions[0].recv(1, timeout=1.0), advance_s=0.5)
    for session in sessions:
        for peer in {0, 1, 2} - {session.party_index}:
            for call in (session.send, session.recv):
                idle = [nothing() for _ in range(session.party_index)]
                error = three.run(*idle, call(peer, *([b"x"] if call == session.send else [])))[-1]
                assert isinstance(error, SessionTimeout | PeerAborted)
    reset_all(three, sessions)
    check_works(three, sessions)


def test_sessions_are_matched_by_what_they_were_and_not_by_the_order_of_calls(three: Table) -> None:
    made = make(three, 4)

    async def reset_in(order: list[int], sessions: list[Session]) -> None:
        for index in order:
            three.schedulers[sessions[0].party_index].spawn(sessions[index].reset())

    three.ok(*(reset_in(order, mine) for order, mine in zip(([0, 1, 2], [2, 1, 0], [1, 0, 2]), made, strict=True)))
    three.settle()
    for index in range(4):
        check_works(three, [mine[index] for mine in made])
    assert [mine[3].id for mine in made] == [3, 3, 3], "the others were left alone"
    assert len({mine[index].id for mine in made for index in range(4)}) == 4


def test_a_party_that_does_not_reset_is_named_and_met_by_a_later_call(three: Table) -> None:
    alice, bob, charlie = (mine[0] for mine in make(three))
    results = three.run(alice.reset(timeout=3.0), nothing(), charlie.reset(timeout=5.0), advance_s=0.5)
    assert isinstance(results[0], RendezvousTimeout)
    assert results[0].peers == ("bob",)
    assert "did not come to the reset of session 0 within 3 s" in str(results[0])
    assert isinstance(results[2], RendezvousTimeout)
    assert isinstance(bob.failure, PeerAborted), "bob's end was ended when the others left"
    with pytest.raises(PeerAborted):
        three.ok(nothing(), bob.send(0, b"x"))
    reset_all(three, [alice, bob, charlie])
    check_works(three, [alice, bob, charlie])


def test_who_finished_alone_because_another_gave_up_is_ended_and_met_again(three: Table) -> None:
    alice, bob, charlie = (mine[0] for mine in make(three))
    three.held.add((1, 2))  # charlie does not hear bob
    results = three.run(alice.reset(), bob.reset(), charlie.reset(timeout=2.0), advance_s=0.5)
    assert results[:2] == [None, None]
    assert isinstance(results[2], RendezvousTimeout)
    three.held.clear()
    three.settle()
    for session in (alice, bob):
        assert isinstance(session.failure, PeerAborted)
        assert "bob did not come" in str(session.failure)
    reset_all(three, [alice, bob, charlie])
    check_works(three, [alice, bob, charlie])


def test_a_reset_that_is_cancelled_leaves_the_session_as_it_was_and_tells_the_peers(three: Table) -> None:
    alice, bob, charlie = (mine[0] for mine in make(three))
    waiting = three.schedulers[0].spawn(alice.reset())
    three.settle()
    with pytest.raises(RuntimeError, match="already"):
        three.ok(alice.reset())
    three.schedulers[0].cancel("cancelled")
    assert isinstance(waiting.error, asyncio.CancelledError)
    assert three.workers[0].table._expectations == 0
    reset_all(three, [alice, bob, charlie])
    check_works(three, [alice, bob, charlie])


def test_a_session_that_works_ends_at_a_peer_that_still_uses_it(three: Table) -> None:
    alice, bob, charlie = (mine[0] for mine in make(three))
    waiting = three.schedulers[1].spawn(bob.recv(0))
    three.schedulers[0].spawn(alice.reset())
    three.settle()
    assert isinstance(waiting.error, PeerAborted)
    assert "alice resets it" in str(waiting.error)
    three.ok(nothing(), bob.reset(), charlie.reset())
    check_works(three, [alice, bob, charlie])


def test_a_peer_that_has_closed_its_party_ends_a_reset_at_once(three: Table) -> None:
    sessions = [mine[0] for mine in make(three)]
    three.run(sessions[0].recv(2, timeout=1.0), advance_s=0.5)
    three.ok(nothing(), nothing(), three.workers[2].finish(1e9))
    for error in three.run(sessions[0].reset(), sessions[1].reset()):
        assert isinstance(error, PeerClosed)
        assert error.peer == "charlie"


def test_a_lost_link_is_waited_for_within_the_timeout(three: Table) -> None:
    sessions = [mine[0] for mine in make(three)]
    three.cut(0, 1)
    three.settle()
    results = three.run(*(session.reset(timeout=4.0) for session in sessions), advance_s=0.5)
    assert isinstance(results[0], PeerLost)
    assert isinstance(results[1], PeerLost)
    assert results[2] is None, "charlie has heard both"
    assert isinstance(sessions[2].failure, PeerAborted), "and that they do not hear each other"


def test_half_of_a_large_message_does_not_reach_the_next_life(three: Table) -> None:
    alice, bob, charlie = (mine[0] for mine in make(three))
    big = np.arange(1 << 19)
    three.held.add((0, 1))
    sending = three.schedulers[0].spawn(alice.send(1, big, timeout=1.0))
    three.run(nothing(), bob.recv(0, out=np.empty_like(big), timeout=0.5), advance_s=0.5)
    three.held.clear()
    three.settle()
    assert sending.error is not None
    reset_all(three, [alice, bob, charlie])
    got = three.ok(alice.send(1, big[::2].copy()), bob.recv(0))[1]
    assert np.array_equal(got, big[::2])
    assert all(worker.inbox_size == 0 for worker in three.workers)


def test_sessions_of_a_batch_are_not_for_their_jobs_to_reset(three: Table) -> None:
    session = make(three)[0][0]
    session.reset_refusal = "it is one of a batch"
    with pytest.raises(RuntimeError, match="one of a batch"):
        three.ok(session.reset())
