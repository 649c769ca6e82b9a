"""Each kind of process of a party is killed, stopped and woken again, or ends, in the middle of a job with traffic.

What a party can live without, it lives without; everything else is a typed error at every party, in time, and nothing
stays behind. (Child workers: tests/workers/test_batch.py. Interrupts of the command: tests/cli/test_failures.py.)
"""

from __future__ import annotations

import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from partywire import BlockingParty
from partywire.workers.errors import PartyFailed, PeerAborted, PeerLost
from partywire.workers.local import make_local_parties
from tests.faults.rig import DEADLINE_S, Parties, errors, play, stop, until
from tests.support.processes import wait_until_gone
from tests.workers.party_cast import Cast

if TYPE_CHECKING:
    from partywire import Party

pytestmark = pytest.mark.timeout(120)

SOON_S = 10.0
"""Much longer than the second that a lost link may take to be told, and much shorter than the jobs' own time-outs."""


def is_listening(address: tuple[str, int]) -> bool:
    """Whether a gateway serves the address: it ends a connection that does not begin like PartyWire."""
    with socket.create_connection(address, timeout=DEADLINE_S) as stranger:
        stranger.sendall(b"?")
        try:
            return stranger.recv(1) == b""
        except ConnectionResetError:
            return True


def test_what_a_running_job_does_not_need_may_die_or_stop_meanwhile() -> None:
    async def scenario() -> None:
        async with Parties(3) as parties:
            talks = await parties.talk()
            [alice, *_] = parties.parties
            for role, stopped in (("supervisor", True), ("gateway", True), ("link 1", True), ("gateway", False)):
                pid = alice.pids[role]
                os.kill(pid, signal.SIGSTOP if stopped else signal.SIGKILL)
                if role != "link 1":
                    await parties.go_on(talks)  # nobody notices
                if stopped:
                    os.kill(pid, signal.SIGCONT)
                else:
                    wait_until_gone([pid])
                await parties.go_on(talks)
                assert is_listening(parties.addresses[0])
            pids = parties.all_pids()
            await stop(talks)
        wait_until_gone(pids)

    play(scenario())


def test_the_end_of_an_io_process_is_a_typed_error_at_every_party() -> None:
    async def scenario() -> None:
        async with Parties(3) as parties:
            talks = await parties.talk()
            began = time.monotonic()
            os.kill(parties.parties[0].pids["link 1"], signal.SIGKILL)
            alice, bob, charlie = await errors(talks)
            assert max(talk.ended_at for talk in talks) - began < SOON_S
            assert isinstance(alice, PeerLost)
            assert (alice.peer, alice.session) == ("bob", talks[0]._session.id)
            assert "killed by SIGKILL" in alice.cause
            assert isinstance(bob, (PeerLost, PeerAborted))
            assert bob.peer in ("alice", "charlie")
            assert isinstance(charlie, PeerAborted)
            assert charlie.peer in ("alice", "bob")
            await stop(await parties.talk(again=True))
            pids = parties.all_pids()
        wait_until_gone(pids)

    play(scenario())


@pytest.mark.parametrize("is_driven_by_a_loop", [True, False])
def test_the_pids_are_those_of_now_at_once(is_driven_by_a_loop: bool) -> None:
    """Nothing else is called between the death of a process and the look, and no loop has its turn."""

    def check(party: Party | BlockingParty) -> None:
        for role in ("gateway", "link 1"):
            before = party.pids
            os.kill(before[role], signal.SIGKILL)
            deadline = time.monotonic() + DEADLINE_S
            while (now := party.pids)[role] == before[role]:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            assert {other for other in now if now[other] != before[other]} == {role}
            os.kill(now[role], 0)

    async def scenario() -> None:
        async with Parties(2) as parties:
            check(parties.parties[0])

    if is_driven_by_a_loop:
        play(scenario())
        return
    with make_local_parties(2) as local, ThreadPoolExecutor(1) as beside:
        alice, bob = map(BlockingParty, local.configs, local.listeners)
        opening = beside.submit(bob.open)
        with alice:
            opening.result()
            check(alice)
            beside.submit(bob.close).result()


def test_the_end_of_a_supervisor_is_a_typed_error_at_every_party() -> None:
    async def scenario() -> None:
        async with Parties(2) as parties:
            talks = await parties.talk()
            began = time.monotonic()
            own = list(parties.parties[0].pids.values())
            os.kill(parties.parties[0].pids["supervisor"], signal.SIGTERM)
            alice, bob = await errors(talks)
            assert max(talk.ended_at for talk in talks) - began < SOON_S
            assert isinstance(alice, (PartyFailed, PeerLost))
            assert isinstance(bob, (PeerLost, PeerAborted))
            assert bob.peer == "alice"
            with pytest.raises(PartyFailed):
                await parties.parties[0].make_sessions(1, timeout=1)
            wait_until_gone(own)
            pids = parties.all_pids()
        wait_until_gone(pids)

    play(scenario())


def test_an_io_process_that_is_stopped_for_long_is_found_by_the_silence() -> None:
    heartbeat_s = 0.6

    async def scenario() -> None:
        async with Parties(2, heartbeat_s=heartbeat_s) as parties:
            alice, bob = talks = await parties.talk()
            pid = parties.parties[0].pids["link 1"]
            os.kill(pid, signal.SIGSTOP)
            try:
                began = time.monotonic()
                await until(bob.task.done)
                assert heartbeat_s / 2 < bob.ended_at - began < SOON_S
                assert isinstance(bob.error, PeerLost)
                assert bob.error.peer == "alice"
                assert not alice.task.done()  # its own process says nothing; no more can be known
            finally:
                os.kill(pid, signal.SIGCONT)
            await errors(talks)
            assert isinstance(alice.error, (PeerLost, PeerAborted))
            await stop(await parties.talk(again=True))
            pids = parties.all_pids()
        wait_until_gone(pids)

    play(scenario())


def test_an_io_process_that_is_stopped_for_good_is_replaced() -> None:
    async def scenario() -> None:
        async with Parties(2, heartbeat_s=0.6) as parties:
            alice, _ = talks = await parties.talk()
            pid = parties.parties[0].pids["link 1"]
            os.kill(pid, signal.SIGSTOP)
            await errors(talks)
            assert isinstance(alice.error, PeerLost)
            assert "did not answer for a while (was it stopped?), and was killed" in str(alice.error)
            await stop(await parties.talk(again=True))
            assert parties.parties[0].pids["link 1"] != pid
            pids = [pid, *parties.all_pids()]
        wait_until_gone(pids)

    play(scenario())


def test_a_whole_party_that_stops_is_named_by_the_others_and_finds_out_when_it_wakes() -> None:
    """Every process of charlie at once. (Killed: tests/workers/test_party_end_to_end.py.)"""
    with Cast("tests.faults.talker") as cast:
        cast.start("0.6", 3)
        pids = cast.wait_until_ready()
        family = [cast._members[2].process.pid, *pids[2].values()]
        began = time.monotonic()
        try:
            for pid in family:
                os.kill(pid, signal.SIGSTOP)
            for index in (0, 1):
                answer = cast.answer(index)
                assert answer["error"] in ("PeerLost", "PeerAborted")
                assert "charlie" in answer["message"]
                assert answer["session"] is not None
                assert answer["at"] - began < SOON_S
        finally:
            for pid in family:
                os.kill(pid, signal.SIGCONT)
        assert cast.answer(2)["error"] in ("PeerLost", "PeerAborted", "PeerClosed")
        for member in cast._members:
            member.process.wait(DEADLINE_S)
        wait_until_gone([pid for family_pids in pids for pid in family_pids.values()])
