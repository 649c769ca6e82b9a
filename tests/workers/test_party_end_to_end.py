"""Whole parties with real processes: supervisor, gateway, I/O processes and this program as worker 0.

Each party runs in a process of its own (`python -m tests.workers.party_program SCENARIO INDEX ...`), as on separate
hosts; what it finds is printed as JSON.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

import pytest

from partywire.workers.blocking_party import BlockingParty
from partywire.workers.config import PartyConfig
from partywire.workers.errors import AddressUnavailable, ConnectFailed, SessionClosed
from partywire.workers.party import Party
from tests.workers.party_cast import Cast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from partywire.workers.session import Session

pytestmark = pytest.mark.slow


@pytest.fixture
def cast() -> Iterator[Cast]:
    with Cast() as cast:
        yield cast


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("form", ["blocking", "asynchronous"])
def test_all_parties_talk_to_all(cast: Cast, count: int, form: str) -> None:
    for index, answer in enumerate(cast.play(f"all_to_all_{form}", count)):
        assert answer == {"from": [name for k, name in enumerate(cast.names) if k != index]}


def test_every_value_and_size_arrives(cast: Cast) -> None:
    assert [answer["wrong"] for answer in cast.play("values", 3)] == [[], [], []]


def test_a_thousand_sessions_both_directions_at_once(cast: Cast) -> None:
    for answer in cast.play("thousand_sessions", 3):
        assert answer["sum"] == 1000 * 4
        assert answer["inbox"] == 0


def test_both_parties_send_100_mib_first(cast: Cast) -> None:
    assert [answer["ok"] for answer in cast.play("big_exchange", 2)] == [True, True]


def test_make_sessions_with_different_counts_names_both_at_every_party(cast: Cast) -> None:
    for answer in cast.play("different_counts", 3):
        assert answer["error"] == "SetupMismatch"
        assert "number of sessions" in answer["message"]


def test_different_steps_are_named_at_every_party(cast: Cast) -> None:
    answers = cast.play("different_steps", 2)
    assert [answer["error"] for answer in answers] == ["SetupMismatch", "SetupMismatch"]
    assert "bob is in barrier, we are in make_sessions" in answers[0]["message"]
    assert "alice is in make_sessions, we are in barrier" in answers[1]["message"]


def test_a_peer_that_does_not_come_to_a_step_is_named_and_the_others_are_told(cast: Cast) -> None:
    cast.start("absent_from_barrier", 3)
    alice, bob = cast.answer(0), cast.answer(1)
    assert alice["error"] == "RendezvousTimeout"
    assert "charlie" in alice["message"]
    assert bob["error"] == "SetupAborted"
    assert "charlie did not come to barrier" in bob["message"]
    cast.let_go(2)
    assert "error" not in cast.answer(2)
    cast.check_nothing_left()


def test_an_unknown_session_is_refused_across_parties(cast: Cast) -> None:
    answers = cast.play("unknown_session", 2)
    assert answers[0]["error"] == "PeerAborted"
    assert "bob has no session" in answers[0]["message"]


def test_a_closed_party_delivers_what_it_sent(cast: Cast) -> None:
    answers = cast.play("close_after_send", 2)
    assert answers[1] == {"received": 20 * 1024 * 1024, "then": "PeerClosed"}


def test_different_parameters_are_refused_at_both_parties(cast: Cast) -> None:
    for answer in cast.play("different_parameters", 2):
        assert answer["error"] == "ConnectFailed"
        assert answer["cause"] == "HandshakeRejected"
        assert "PARAMETERS" in answer["message"] or "parameter" in answer["message"]


def test_two_parties_of_one_name_are_refused(cast: Cast) -> None:
    """A third process plays bob too: the two keep their link, and the second bob hears why it gets none."""
    answer = cast.play_duplicate()
    assert answer["error"] == "ConnectFailed"
    assert answer["cause"] == "HandshakeRejected"


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_killing_a_whole_party_is_seen_by_the_others(cast: Cast, victim: int) -> None:
    cast.start("wait_for_ever", 3)
    cast.wait_until_ready()
    cast.kill_family(victim)
    for index, answer in cast.answers(skip={victim}).items():
        assert answer["error"] in ("PeerLost", "PeerAborted"), index
        assert cast.names[victim] in answer["message"]
    cast.check_nothing_left()


@pytest.mark.parametrize("role", ["supervisor", "gateway", "link 1"])
def test_killing_one_process_hangs_nobody(cast: Cast, role: str) -> None:
    cast.start("wait_for_ever", 2)
    pids = cast.wait_until_ready()[0]
    os.kill(pids[role], signal.SIGKILL)
    if role == "gateway":
        cast.end_wait()  # the links do not depend on it
        assert [answer.get("error") for answer in cast.answers().values()] == [None, None]
    else:
        for answer in cast.answers().values():
            assert answer["error"] in ("PeerLost", "PartyFailed", "PeerAborted")
    cast.check_nothing_left()


# In this process.


def config(**changes: Any) -> PartyConfig:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        free_port = nobody.getsockname()[1]
    values: dict[str, Any] = {
        "name": "alice",
        "parties": {"alice": ("127.0.0.1", 0), "bob": ("127.0.0.1", free_port)},
        "connect_s": 1.0,
    }
    return PartyConfig(**(values | changes))


def test_two_parties_in_one_loop_talk_and_close_in_any_order() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
            parties = {"alice": first.getsockname()[:2], "bob": second.getsockname()[:2]}
            alice = Party(PartyConfig(name="alice", parties=parties), first)
            bob = Party(PartyConfig(name="bob", parties=parties), second)
            await asyncio.gather(alice.open(), bob.open())
            try:
                [[ours], [theirs]] = await asyncio.gather(alice.make_sessions(1), bob.make_sessions(1))
                await ours.send("bob", b"hello")
                assert await theirs.recv("alice") == b"hello"
                stat = alice.stat()
                assert stat.sessions == 1
                assert stat.links[0].is_up
                assert stat.links[0].lanes[0].tx.records >= 1
                assert stat.as_dict()["links"][0]["lanes"][0]["rx"]["records"] >= 0
                assert alice.worker.link_life.totals().bytes_sent > 0
                with pytest.raises(RuntimeError, match="opened once"):
                    await alice.open()
            finally:
                await alice.close()
                await bob.close()
                await bob.close()

    asyncio.run(main())


def test_a_fork_of_an_open_party_can_neither_use_nor_end_it() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
            parties = {"alice": first.getsockname()[:2], "bob": second.getsockname()[:2]}
            alice = Party(PartyConfig(name="alice", parties=parties), first)
            bob = Party(PartyConfig(name="bob", parties=parties), second)
            await asyncio.gather(alice.open(), bob.open())
            try:
                [[ours], [theirs]] = await asyncio.gather(alice.make_sessions(1), bob.make_sessions(1))
                child = os.fork()
                if not child:
                    os._exit(_use_in_a_fork(alice, ours))
                _, status = await asyncio.to_thread(os.waitpid, child, 0)
                assert os.waitstatus_to_exitcode(status) == 0
                await ours.send("bob", b"hello")
                assert await theirs.recv("alice", timeout=20) == b"hello"
            finally:
                await asyncio.gather(alice.close(), bob.close())

    asyncio.run(main())


def _use_in_a_fork(party: Party, session: Session) -> int:
    try:
        session.send("bob", b"from the child").send(None)
    except SessionClosed as error:
        try:
            party.close().send(None)
        except StopIteration:
            return 0 if "fork" in str(error) else 1
    return 2


def test_a_party_is_not_opened_by_a_script_that_a_child_worker_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTYWIRE_WORKER", "1")
    with pytest.raises(RuntimeError, match="__name__ == '__main__'"):
        BlockingParty(config()).open()


def test_a_peer_that_is_not_there_is_named() -> None:
    party = BlockingParty(config())
    with pytest.raises(ConnectFailed, match="bob") as failed:
        party.open()
    assert [peer for peer, _ in failed.value.causes] == ["bob"]


def test_a_peer_that_is_not_there_is_named_in_asyncio() -> None:
    told: list[tuple[str, str]] = []

    async def main() -> None:
        parties = {"alice": ("127.0.0.1", 1), "zoe": ("127.0.0.1", 0)}
        async with Party(config(name="zoe", parties=parties), on_progress=lambda *said: told.append(said)):
            pass

    with pytest.raises(ConnectFailed, match="alice"):
        asyncio.run(main())
    assert told[0][0] == "alice"


def test_an_address_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        party = BlockingParty(config(parties={"alice": ("127.0.0.1", port), "bob": ("127.0.0.1", 1)}))
        with pytest.raises(AddressUnavailable, match=str(port)):
            party.open()


def test_a_party_that_is_not_open_says_so() -> None:
    party = BlockingParty(config())
    with pytest.raises(Exception, match="not open"):
        party.make_sessions(1)
    party.close()
