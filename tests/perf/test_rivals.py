"""The rivals lose, change and reorder nothing, play every shape of workload, and end in good order."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from partywire.perf.contender import CONTENDERS
from partywire.perf.party_set import PartySet
from partywire.perf.workloads import OneWay, RingRounds, Workload

RIVALS = [contender.name for contender in CONTENDERS.values() if not contender.is_ours]
TIMEOUT_S = 30.0
MIB = 1 << 20


@pytest.fixture(params=RIVALS)
def rival(request: pytest.FixtureRequest) -> str:
    """Each rival that can be had here."""
    name: str = request.param
    missing = CONTENDERS[name].missing()
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")
    return name


def test_every_message_arrives_whole_and_in_order_at_whom_it_was_sent_to(rival: str) -> None:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = ",".join(str(listener.getsockname()[1]) for listener in listeners)
    parties: list[subprocess.Popen[str]] = []
    try:
        for index, listener in enumerate(listeners):
            parties.append(
                subprocess.Popen(
                    [
                        sys.executable, str(Path(__file__).with_name("rival_party.py")),
                        rival, str(index), ports, str(listener.fileno()),
                    ],
                    pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT, text=True,
                )
            )  # fmt: skip
            listener.close()
        outputs = [party.communicate(timeout=TIMEOUT_S)[0] for party in parties]
    finally:
        for party in parties:
            party.kill()
            party.communicate()
    assert [party.returncode for party in parties] == [0] * 3, "\n".join(outputs)
    assert [output.splitlines()[-1:] for output in outputs] == [["played"]] * 3


@pytest.mark.parametrize("work", [RingRounds(5, 64), OneWay(2, MIB)], ids=["ring", "one-way"])
def test_the_rivals_play_again_and_again(rival: str, work: Workload) -> None:
    with PartySet(rival, work) as parties:
        for units in (1, 9):
            play = parties.play(units, TIMEOUT_S)
            sampled = min(4, work.sessions) * (work.name == "ring")
            counts = [len(session) for party in play.latencies_ns for session in party if session]
            assert counts == [units] * (sampled * work.parties)
            assert play.seconds > 0
