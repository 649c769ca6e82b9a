"""Common steps of whole parties that sit at a Table: what one party does when a step fails elsewhere, or is a lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from partywire.engine.control import Rendezvous, encode_control
from partywire.engine.errors import LinkProtocolError, SetupAborted
from partywire.engine.session_resets import RESET_IDS_FIRST
from partywire.engine.sessions import SessionProposal
from partywire.workers.blocking_party import BlockingParty
from partywire.workers.config import PartyConfig
from partywire.workers.errors import PeerAborted, PeerLost, RendezvousTimeout
from partywire.workers.party import Party
from tests.workers.harness import NAMES, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire.workers.session import Session

LAST_ID = RESET_IDS_FIRST - 1


@pytest.fixture
def three() -> Iterator[Table]:
    with Table(3) as table:
        yield table


def parties(table: Table) -> list[Party]:
    addresses = {name: f"127.0.0.1:{7001 + index}" for index, name in enumerate(NAMES)}
    seated = [Party(PartyConfig(name=name, parties=addresses)) for name in NAMES]
    for party, worker in zip(seated, table.workers, strict=True):
        party._worker = worker
        party._was_opened = True
        worker.on_control = party._take_control
    return seated


def make(table: Table, seated: list[Party], count: int = 1) -> list[list[Session]]:
    return table.ok(*(party.make_sessions(count) for party in seated))


def test_a_party_that_cannot_make_its_sessions_ends_those_of_the_others(
    three: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    seated = parties(three)
    make_session = three.workers[0].make_session

    def fail_at_the_second(session_id: int, *, is_bulk: bool) -> Session:
        if session_id == 1:
            raise PeerLost("bob", 1, 7, "connection reset by peer")
        return make_session(session_id, is_bulk=is_bulk)

    monkeypatch.setattr(three.workers[0], "make_session", fail_at_the_second)
    alice, bobs, charlies = three.run(*(party.make_sessions(3) for party in seated))
    assert isinstance(alice, PeerLost)
    assert not three.workers[0].table.live
    for sessions in (bobs, charlies):
        for session in sessions:
            assert isinstance(session.failure, PeerAborted)
            assert "connection reset" in str(session.failure)


def test_a_party_that_gives_a_step_up_after_others_have_left_it_ends_their_sessions(three: Table) -> None:
    seated = parties(three)
    three.held.add((1, 2))
    alice, bob, charlie = three.run(*(party.make_sessions(2, timeout=5.0) for party in seated), advance_s=0.5)
    assert isinstance(charlie, RendezvousTimeout)
    assert charlie.peers == ("bob",)
    for session in [*alice, *bob]:
        assert isinstance(session.failure, PeerAborted)
        assert "bob did not come to make_sessions" in str(session.failure)


def test_a_peer_cannot_make_ids_begin_again_by_saying_that_they_are_used_up(three: Table) -> None:
    seated = parties(three)
    first = make(three, seated)
    seated[0].agreement.next_id = LAST_ID
    _, bob, charlie = three.run(*(party.make_sessions(1) for party in seated))
    for error in (bob, charlie):
        assert isinstance(error, LinkProtocolError)
        assert error.peer == "alice"
    assert isinstance(first[1][0].failure, PeerLost)


def test_an_id_that_is_still_in_use_when_ids_begin_again_is_an_error_and_not_a_second_session(three: Table) -> None:
    seated = parties(three)
    [[kept], *_] = make(three, seated)
    for party in seated:
        party.agreement.next_id = LAST_ID
    for error in three.run(*(party.make_sessions(5) for party in seated)):
        assert isinstance(error, SetupAborted)
        assert "in use" in str(error)
    assert kept.failure is None


def test_an_impossible_proposal_ends_the_link_to_its_peer_and_the_step_everywhere(three: Table) -> None:
    seated = parties(three)
    for link in three.workers[0].links.values():
        assert link.control is not None
        fields = SessionProposal(1, 0).fields() if link.index == 2 else {"count": "x"}
        link.control.send(encode_control(Rendezvous(0, "make_sessions", fields)))
    _, bob, charlie = three.run(_nothing(), seated[1].make_sessions(1), seated[2].make_sessions(1))
    assert isinstance(bob, LinkProtocolError)
    assert three.workers[1].links[0].cause
    if isinstance(charlie, list):
        assert isinstance(charlie[0].failure, PeerAborted)
    else:
        assert isinstance(charlie, SetupAborted)


async def _nothing() -> Any:
    pass


def test_a_step_waits_for_another_of_its_own_party_within_its_timeout(three: Table) -> None:
    seated = parties(three)
    first = three.schedulers[0].spawn(seated[0].make_sessions(1))
    [second] = three.run(seated[0].make_sessions(1, timeout=2.0), advance_s=0.5)
    assert isinstance(second, RendezvousTimeout)
    assert not first.is_done
    three.schedulers[0].cancel("over")


@pytest.mark.parametrize(("raised", "level"), [(None, "WARNING"), (ValueError(), "INFO")])
def test_what_went_wrong_while_closing_is_no_warning_beside_an_error(
    raised: Exception | None, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    party = BlockingParty(PartyConfig(name="a", parties={"a": ("127.0.0.1", 1), "b": ("127.0.0.1", 2)}))
    party.asynchronous.processes.complaints = ["the link to b broke"]
    with caplog.at_level("INFO"):
        party.__exit__(None, raised, None)
        party.asynchronous._end()
    assert [record.levelname for record in caplog.records] == [level]
