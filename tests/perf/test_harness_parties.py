"""Party processes: they play what they are told, say why when they cannot, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from partywire.perf import measure as measuring
from partywire.perf.matrix import Cell
from partywire.perf.measure import Plan, measure
from partywire.perf.party_process import Order, parameters_of
from partywire.perf.party_set import ContenderFailed, PartySet
from partywire.perf.processes import descendants, host_busy_s, kill_families, pss_bytes, usage_of
from partywire.perf.run import visit
from partywire.perf.workloads import WORKLOADS, BesideStream, IdleSeconds, PingPong, RingRounds

TIMEOUT_S = 30.0


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("name", WORKLOADS)
def test_an_order_carries_a_workload_whole(name: str) -> None:
    kinds = {"iris": {"sessions": 7}, "beside": {"size": 7}}
    work = WORKLOADS[name](**kinds.get(name, {"sessions": 3, "size": 7}))
    order = Order("partywire", name, parameters_of(work), 0, (), (), 0)
    assert order.work == work


@pytest.mark.parametrize("contender", ["partywire", "partywire-async"])
def test_our_parties_play_again_and_again(contender: str) -> None:
    with PartySet(contender, RingRounds(2, 64)) as parties:
        families = parties.families()
        for units in (1, 20):
            play = parties.play(units, TIMEOUT_S)
            assert [[len(session) for session in party] for party in play.latencies_ns] == [[units] * 2] * 3
            assert play.seconds > 0
    pids = [pid for family in families for pid in family]
    assert len(pids) > 3
    assert not [pid for pid in pids if is_running(pid)]


def test_a_visit_measures_all_processes_of_all_parties() -> None:
    sample = visit("partywire", PingPong(1, 64), 0.05)
    assert sample.rate == pytest.approx(sample.units / sample.seconds)
    assert len(sample.latencies_ns) == sample.units
    assert len(sample.usage) == len(sample.pss) == 2
    assert all(usage.cpu_s > 0 and usage.switches_voluntary > 0 for usage in sample.usage)
    assert all(size > 1 << 20 for size in sample.pss)
    assert sample.ready_s > 0


def test_a_contender_that_cannot_play_a_workload_says_why() -> None:
    with (
        pytest.raises(ContenderFailed, match="plain code has one thread") as failed,
        PartySet("partywire-sync", BesideStream()),
    ):
        pass
    assert not failed.value.is_offered


def kill_one_and_play(parties: PartySet) -> None:
    os.kill(parties.roots[1], signal.SIGKILL)
    parties.play(60, TIMEOUT_S)


def test_a_party_that_dies_ends_the_play_and_the_other_parties() -> None:
    with PartySet("uvloop", IdleSeconds(1)) as parties:
        roots = parties.roots
        with pytest.raises(ContenderFailed, match="party 1: ended by itself, signal 9") as failed:
            kill_one_and_play(parties)
    assert failed.value.is_offered
    assert not [pid for pid in roots if is_running(pid)]


def test_a_party_that_does_not_answer_in_time_is_ended() -> None:
    with PartySet("uvloop", IdleSeconds(1, parties=2)) as parties:
        roots = parties.roots
        with pytest.raises(ContenderFailed, match="no span of party 0, 1 within 0 s"):
            parties.play(60, 0.01)
    assert not [pid for pid in roots if is_running(pid)]


def test_a_family_is_found_and_killed_whole() -> None:
    read_fd, write_fd = os.pipe()
    root = os.posix_spawn(
        "/bin/sh", ["sh", "-c", "sleep 60 & echo; wait"], os.environ, setsid=True,
        file_actions=[(os.POSIX_SPAWN_DUP2, write_fd, 1)],
    )  # fmt: skip
    try:
        os.close(write_fd)
        assert os.read(read_fd, 1) == b"\n"
        family = descendants(root)
    finally:
        kill_families([root])
        os.waitpid(root, 0)
        os.close(read_fd)
    assert family[0] == root
    assert len(family) == 2


def test_what_processes_use_is_read_while_they_run() -> None:
    before, busy_before = usage_of([os.getpid()]), host_busy_s()
    deadline = time.process_time() + 0.05
    while time.process_time() < deadline:
        pass
    spent = usage_of([os.getpid()]) - before
    assert spent.cpu_s >= 0.04
    assert host_busy_s() >= busy_before
    assert pss_bytes([os.getpid()]) > 1 << 20
    assert usage_of([2**22]) == usage_of([])


def test_a_contender_whose_parties_do_not_meet_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def refuse(name: str, work: RingRounds, seconds: float, link: object) -> None:
        opened.append(work.sessions)
        failed = ContenderFailed("party 1: ConnectionRefusedError")
        failed.was_open = False
        raise failed

    monkeypatch.setattr(measuring, "visit", refuse)
    said: list[str] = []
    plan = Plan([Cell(RingRounds(1, 64)), Cell(RingRounds(8, 64))], ["uvloop"], 0.01, 2)
    rows = [row for found in measure(plan, said.append) for row in found]
    assert opened == [1]
    assert [row["error"] for row in rows] == ["party 1: ConnectionRefusedError"] * 2
    assert len(said) == 1


def test_what_was_measured_before_an_interruption_is_printed(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    with subprocess.Popen(
        [sys.executable, "-m", "partywire.perf", "ring", "--sessions", "1,2,3", "--contenders", "asyncio", "--seconds",
         "0.02", "--repeats", "1", "--json", rows],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        try:
            # The first cell is done; the last one may be as well by the time the signal arrives.
            assert any("[2/3, 1/1]" in line for line in process.stderr)
            process.send_signal(signal.SIGINT)
            process.stderr.read()
            assert process.wait(TIMEOUT_S) in (0, 130)
        finally:
            process.kill()
    assert b'"sessions":1' in rows.read_bytes().splitlines()[0]
