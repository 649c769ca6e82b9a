"""The profile adds up: every hop is timed, every wake-up is one, counters belong to the right process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import orjson
import pytest

from partywire.perf.processes import Usage
from partywire.perf.profile.balance import cpu_lines, hop_lines, hop_sum, latency_lines, run_lines
from partywire.perf.profile.instructions import InstructionsUnavailable, count, instructions_per_message
from partywire.perf.profile.running import IO, OTHERS, RECEIVED, SENT, WORKER, Rings, RingUse, Run, by_role
from partywire.perf.profile.wakeups import OtherSideGone, bell_us, measured, socket_us
from partywire.perf.profile.walk import HOPS, Walk
from partywire.shm import RingWriter, Segment, probe, register

ROOT = Path(__file__).resolve().parents[2]
LAPS = 3


@pytest.mark.parametrize(
    ("sessions", "size"),
    [(1, 64), (16, 64), (3, 1), (2, 300_000), pytest.param(24, 1 << 18, id="more than a ring and a socket hold")],
)
def test_messages_pass_every_hop(sessions: int, size: int) -> None:
    with Walk(sessions, size) as walk:
        hops = walk.measure(LAPS)
    assert tuple(hops) == HOPS
    assert all(len(samples) == LAPS for samples in hops.values())
    assert all(value >= 0 for samples in hops.values() for value in samples)
    assert hop_sum(hops) > 0


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_valgrind_counts_what_laps_more_cost() -> None:
    assert count(2, 64, 2, "compiled") > 10_000_000  # most of it Python's start


def test_without_valgrind_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InstructionsUnavailable, match="not installed"):
        instructions_per_message(1, 64, "pure")


def test_a_wakeup_is_measured_as_often_as_asked_for() -> None:
    bells = bell_us(30)
    assert len(bells) == 30
    assert min(bells) > 0
    assert len(socket_us(30)) == 30  # a receiver may be awake before the sender's call returns


def test_a_silent_other_side_is_an_error_and_not_a_hang() -> None:
    class Dead:
        def call(self) -> int:
            return 0

        def sleep(self) -> int:
            raise OtherSideGone("nobody there")

    with pytest.raises(OtherSideGone):
        measured("bell", Dead(), 1, ())  # type: ignore[arg-type]


def test_processes_are_told_apart_by_their_module() -> None:
    roles = by_role([os.getpid()])
    assert roles == {WORKER: [], IO: [], OTHERS: [os.getpid()]}


def test_figures_of_rings_are_read_from_outside() -> None:
    register()
    fence = probe()
    with ExitStack() as stack:
        segment = Segment.create(1 << 16)
        writer = stack.enter_context(closing(RingWriter(segment, fence, None)))
        rings = stack.enter_context(Rings([os.getpid()]))
        before = rings.use()
        for _ in range(3):
            assert writer.try_write((b"12345",), 5, 1)
        writer.publish()
        after = rings.use()
    assert after[SENT].records - before[SENT].records == 3
    assert after[SENT].bytes > before[SENT].bytes
    assert after[RECEIVED] == before[RECEIVED]


def run_of(messages: int, worker: Usage, io: Usage, sent: int, received: int) -> Run:
    rings = {SENT: RingUse(messages, 64, sent, 0, 0), RECEIVED: RingUse(messages, 64, received, 0, 0)}
    usage = {WORKER: worker, IO: io, OTHERS: Usage()}
    return Run(messages, 1.0, usage, rings, (100.0, 200.0, 300.0))


def test_what_is_left_unexplained_is_the_difference() -> None:
    hops = dict.fromkeys(HOPS, (1.0, 2.0, 3.0))
    run = run_of(10, Usage(200e-6, 0, 10, 0), Usage(100e-6, 0, 20, 0), sent=10, received=10)
    lines = {(line.part, line.name): line for line in latency_lines(run, hops, (5.0,), (7.0,))}
    part = "one way, 1 session"
    assert lines[part, "hops"].value == 12
    assert lines[part, "wake-ups by bells"].value == 10  # one of the worker's, one of the I/O process's
    assert lines[part, "wake-ups by sockets"].value == 7  # the I/O process's other one
    assert lines[part, "measured"].value == 100
    assert lines[part, "unexplained"].value == 100 - 12 - 10 - 7
    cpu = {(line.part, line.name): line.value for line in cpu_lines(run, hops)}
    assert cpu["CPU of a message, worker", "unexplained"] == pytest.approx(20 - 8)
    assert cpu["CPU of a message, I/O process", "unexplained"] == pytest.approx(10 - 4)


def test_counts_are_for_each_message() -> None:
    run = run_of(100, Usage(0, 0, 5, 2), Usage(), sent=1, received=0)
    calls = {WORKER: {"poll": 0.5, "rare": 0.0001}}
    lines = {(line.part, line.name): line.value for line in run_lines(run, calls)}
    assert lines[WORKER, "wake-ups"] == 0.05
    assert lines[WORKER, "preemptions"] == 0.02
    assert lines[WORKER, "system call poll"] == 0.5
    assert (WORKER, "system call rare") not in lines
    assert lines[f"rings, {SENT}", "bells"] == 0.01
    assert lines[f"rings, {SENT}", "batch"] == 1


def test_every_hop_has_a_line_with_its_place() -> None:
    lines = list(hop_lines(dict.fromkeys(HOPS, tuple(map(float, range(1, 21)))), "hop"))
    assert [line.name for line in lines] == [*HOPS, "all hops"]
    assert lines[0].spread == (3.0, 18.0)
    assert all(line.note for line in lines)


@pytest.mark.slow
def test_the_command_prints_json_lines() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "partywire.perf.profile", "--sessions", "2", "--smoke", "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    rows = [orjson.loads(line) for line in run.stdout.splitlines()]
    parts = {row["part"] for row in rows}
    assert {"hop", "hop, 1 session", "wake-up", "one way, 1 session", WORKER, IO} <= parts
    assert all(row["machine"]["commit"] and row["sessions"] == 2 for row in rows)


@pytest.mark.parametrize("arguments", [["--sessions", "0"], ["--size", "x"]])
def test_nonsense_is_refused_in_a_sentence(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "partywire.perf.profile", *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 2
    assert "error: argument" in run.stderr
