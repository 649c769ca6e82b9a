"""The floors in C: each plays what it says, refuses what it does not, leaves nothing running. No figure is judged."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import orjson
import pytest

from partywire.perf.floors import FLOORS, FloorFailed, FloorUnsupported, machine_floors, programs, run_floor
from partywire.perf.processes import descendants
from partywire.perf.workloads import AllToAll, OneWay, PingPong, RingRounds

if TYPE_CHECKING:
    from pathlib import Path

    from partywire.perf.workloads import Workload

SHORT_S = 0.02
GRACE_S = 20.0

try:
    programs.find_compiler()
except FloorUnsupported as missing:
    pytest.skip(str(missing), allow_module_level=True)


@pytest.mark.parametrize("name", FLOORS)
@pytest.mark.parametrize("work", [RingRounds(8, 64), RingRounds(3, 100_000, parties=4)], ids=str)
def test_a_floor_plays_ring_rounds(name: str, work: RingRounds) -> None:
    result = run_floor(name, work, SHORT_S)
    assert result.units > 0
    assert result.rate == pytest.approx(result.units / result.elapsed_s)
    assert result.elapsed_s >= SHORT_S
    assert len(result.cpu_s_per_party) == work.parties
    assert sum(result.cpu_s_per_party) > 0
    assert result.latencies_ns
    assert min(result.latencies_ns) > 0


@pytest.mark.parametrize("name", ["c-epoll", "c-split", "c-split-spin"])
@pytest.mark.parametrize("work", [PingPong(2, 64), OneWay(4, 64), OneWay(1, 1024 * 1024)], ids=str)
def test_a_floor_plays_between_two_parties(name: str, work: Workload) -> None:
    result = run_floor(name, work, SHORT_S)
    assert result.rate > 0
    assert len(result.cpu_s_per_party) == 2
    assert bool(result.latencies_ns) == isinstance(work, PingPong)


@pytest.mark.parametrize("name", ["c-epoll", "c-split-small"])
def test_a_floor_takes_the_most_sessions_and_the_largest_messages(name: str) -> None:
    assert run_floor(name, RingRounds(1024, 64), SHORT_S).units > 0
    assert run_floor(name, RingRounds(5, 1024 * 1024), SHORT_S).units > 0


def test_rings_much_smaller_than_a_message_lose_no_wake_up() -> None:
    script = ["ring", "3", "4", "100000", str(SHORT_S), "0", "4"]  # rings of 4 KiB: every slice waits for room
    assert programs.run_program("split", script, SHORT_S)["units"]


@pytest.mark.parametrize(
    "work", [AllToAll(8, 64), RingRounds(1025, 64), RingRounds(1, 2 << 20), RingRounds(1, 64, 17)], ids=str
)
def test_a_floor_refuses_what_it_does_not_play(work: Workload) -> None:
    with pytest.raises(FloorUnsupported, match="plays"):
        run_floor("c-epoll", work, SHORT_S)


def test_the_machine_floors_are_all_there() -> None:
    figures = machine_floors(0.005, repeats=2)
    assert {figure.unit for figure in figures} == {"us", "B/s"}
    assert all(len(figure.samples) == 2 and min(figure.samples) > 0 for figure in figures)


# Building.


def test_without_a_compiler_there_are_no_floors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(FloorUnsupported, match="no C compiler"):
        run_floor("c-epoll", RingRounds(1, 64), SHORT_S)


def test_a_program_is_built_once_and_again_when_its_source_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiled: list[Path] = []

    def compile_to(target: Path, command: list[str]) -> None:
        target.touch()
        compiled.append(target)

    monkeypatch.setattr(programs, "compile_to", compile_to)
    first = programs.build("machine")
    assert first.parent == tmp_path / "partywire" / "floors"
    assert programs.build("machine") == first
    assert compiled == [first]
    monkeypatch.setattr(programs, "FLAGS", (*programs.FLAGS, "-g"))
    assert programs.build("machine") != first


def test_a_compiler_that_refuses_is_quoted_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(programs, "FLAGS", ("-fno-such-flag-anywhere",))
    with pytest.raises(FloorUnsupported, match="does not compile machine"):
        programs.build("machine")
    assert not list((tmp_path / "partywire" / "floors").iterdir())


def test_a_cache_that_cannot_be_made_is_replaced_for_this_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert programs.cache_folder() == programs.passing_folder()


# Ending.


def wait_for_end(pidfds: list[int]) -> bool:
    poller = select.poll()
    for pidfd in pidfds:
        poller.register(pidfd, select.POLLIN)
    end = time.monotonic() + GRACE_S
    living = len(pidfds)
    while living and (left := end - time.monotonic()) > 0:
        for pidfd, _ in poller.poll(left * 1000):
            poller.unregister(pidfd)
            living -= 1
    return living == 0


def start_split(seconds: str, deadline_s: str) -> tuple[subprocess.Popen[bytes], list[int]]:
    """A c-split run of two parties started by hand, and its four party processes once they are all there."""
    script = ["ring", "2", "1", "64", seconds, "0", "64", deadline_s, str(os.getpid())]
    floor = subprocess.Popen([str(programs.build("split")), *script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    end = time.monotonic() + GRACE_S
    while len(pids := descendants(floor.pid)) < 5 and time.monotonic() < end:
        os.sched_yield()
    return floor, pids[1:]


def test_a_floor_ends_itself_and_its_processes_at_its_deadline() -> None:
    floor, pids = start_split("60", "0.5")
    pidfds = [os.pidfd_open(pid) for pid in pids]
    try:
        _, said = floor.communicate(timeout=GRACE_S)
        assert floor.returncode == 1
        assert b"deadline" in said
        assert len(pidfds) == 4
        assert wait_for_end(pidfds)
    finally:
        floor.kill()
        floor.communicate()
        for pidfd in pidfds:
            os.close(pidfd)


def test_a_floor_says_which_of_its_processes_died() -> None:
    floor, pids = start_split("60", "30")
    try:
        os.kill(pids[0], signal.SIGKILL)
        _, said = floor.communicate(timeout=GRACE_S)
        assert floor.returncode == 1
        assert b"signal 9" in said or b"closed its connection" in said
    finally:
        floor.kill()
        floor.communicate()


def test_the_processes_of_a_floor_die_with_it() -> None:
    floor, pids = start_split("60", "30")
    pidfds = [os.pidfd_open(pid) for pid in pids]
    try:
        floor.kill()
        floor.communicate(timeout=GRACE_S)
        assert len(pidfds) == 4
        assert wait_for_end(pidfds)
    finally:
        floor.kill()
        floor.communicate()
        for pidfd in pidfds:
            os.close(pidfd)


def test_a_floor_that_fails_is_an_error_that_quotes_it() -> None:
    with pytest.raises(FloorFailed, match="there is no floor nonsense"):
        programs.run_program("machine", ["nonsense", "1", "1"], 0.1)


# The command.


def test_the_command_prints_json_lines() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "partywire.perf.floors", "--smoke", "--json"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    rows = [orjson.loads(line) for line in run.stdout.splitlines()]
    assert {row["name"].split(":")[0] for row in rows} >= set(FLOORS)
    assert all(min(row["samples"]) > 0 for row in rows)


def test_the_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    from partywire.perf.floors.__main__ import main

    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "--seconds" in capsys.readouterr().out
