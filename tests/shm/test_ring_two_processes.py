"""Two real processes on one ring: every record once and in order, and no wake-up lost."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from typing import Any

import pytest

from partywire.shm import RingStat, Segment, compiled, create_doorbell
from partywire.shm.fence import OVERRIDE_VARIABLE
from tests.shm.implementations import implementation

TIMEOUT_S = 110
SEED = 20_240
AUTO = ("auto", "auto")
# Both sides and the fence they share; a fence of the compiled core cannot be named where one side has none.
CORES = [
    (("pure", "pure"), ""),
    (("compiled", "compiled"), ""),
    (("compiled", "compiled"), "membarrier"),
    (("pure", "compiled"), "membarrier"),
    (("compiled", "pure"), "membarrier"),
]


def run_two(
    tasks: tuple[str, str], count: int, size_max: int, capacity: int, fence: str = "", cores: tuple[str, str] = AUTO
) -> tuple[list[dict[str, Any]], RingStat, RingStat]:
    """Both processes' figures, and those of the ring from the first to the second and back."""
    there, back = Segment.create(capacity), Segment.create(capacity)
    bells = [create_doorbell(), create_doorbell()]
    environment = {**os.environ, OVERRIDE_VARIABLE: fence} if fence else dict(os.environ)
    processes = []
    for number, task in enumerate(tasks):
        tx, rx = (there, back) if number == 0 else (back, there)
        fds = (tx.fileno(), rx.fileno(), *bells[number], *bells[1 - number])
        command = [sys.executable, "-m", "tests.shm.hammer", task, *map(str, (count, size_max, SEED, *fds))]
        core = {compiled.VARIABLE: cores[number]}
        processes.append(
            subprocess.Popen(command, pass_fds=fds, env=environment | core, stdout=subprocess.PIPE, text=True)
        )
    try:
        outputs = [process.communicate(timeout=TIMEOUT_S)[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], f"seed {SEED}"
        return [json.loads(output) for output in outputs], there.stat(), back.stat()
    finally:
        for process in processes:
            process.kill()
            process.communicate()
        for pair in bells:
            for fd in pair:
                os.close(fd)
        there.close()
        back.close()


@pytest.mark.slow
def test_a_million_records_of_all_sizes_arrive_once_and_in_order() -> None:
    _, there, _ = run_two(("produce", "consume"), 1_000_000, 1024, 64 << 10)
    assert there.records == there.records_released == 1_000_000
    assert there.depth == there.bad_records == 0
    assert there.full_events > 0, "the ring was full at times"
    assert there.bells > 0, "the consumer slept at times"
    assert (there.producer_state, there.consumer_state) == ("closed", "closed")


@pytest.fixture(params=CORES, ids=lambda param: "-".join(filter(None, [*param[0], param[1]])))
def setting(request: pytest.FixtureRequest) -> tuple[str, tuple[str, str]]:
    """A fence, and the implementations of both sides."""
    cores, fence = request.param
    for core in cores:
        implementation(core)
    return fence, cores


@pytest.mark.parametrize(("capacity", "count"), [(128, 20_000), (256, 30_000), (4096, 60_000), (1 << 20, 20_000)])
def test_rings_of_every_size_keep_all_records(capacity: int, count: int, setting: tuple[str, tuple[str, str]]) -> None:
    size_max = min(capacity // 2 - 32, 64_000)
    _, there, _ = run_two(("produce", "consume"), count, size_max, capacity, *setting)
    assert there.records_released == count


@pytest.mark.skipif(platform.machine() != "x86_64", reason="this back end is sound on x86-64 only")
def test_the_weaker_back_end_keeps_all_records_too() -> None:
    figures, there, _ = run_two(("produce", "consume"), 60_000, 200, 4096, "sched_yield")
    assert [process["fence"] for process in figures] == ["sched_yield", "sched_yield"]
    assert there.records_released == 60_000


@pytest.mark.parametrize("cores", [("pure", "pure"), ("compiled", "compiled")], ids=["pure", "compiled"])
@pytest.mark.skipif(platform.machine() != "x86_64", reason="sound on x86-64 only")
def test_no_wake_up_is_lost_through_the_weaker_back_end(cores: tuple[str, str]) -> None:
    implementation(cores[0])
    # Giving the CPU away often is what the other side was waiting for, so sleeps may be few.
    figures, _, _ = run_two(("ping", "pong"), 10_000, 8, 4096, "sched_yield", cores)
    assert [process["timeouts_with_data"] for process in figures] == [0, 0]


def test_no_wake_up_is_lost_when_both_sides_sleep_for_every_record(setting: tuple[str, tuple[str, str]]) -> None:
    count = 20_000
    figures, there, back = run_two(("ping", "pong"), count, 8, 4096, *setting)
    assert [process["timeouts_with_data"] for process in figures] == [0, 0]
    assert sum(process["sleeps"] for process in figures) >= 1000
    assert there.bells <= figures[1]["sleeps"] + count, "at most one bell a record"
    assert there.records == back.records == count


def test_no_wake_up_for_space_is_lost_when_every_record_has_to_wait_for_room(
    setting: tuple[str, tuple[str, str]],
) -> None:
    """The producer sleeps without a net here: one lost bell would end it with an error."""
    figures, there, _ = run_two(("starve", "eat"), 20_000, 0, 256, *setting)
    assert figures[0]["sleeps"] > 0
    assert figures[1]["timeouts_with_data"] == 0
    assert there.records_released == 20_000
    assert there.full_events > 0


def test_a_control_word_is_never_seen_torn_or_as_a_zero_that_nobody_stored() -> None:
    segment = Segment.create(128)
    program = """
import sys
from partywire.shm import Segment
words = Segment.attach(int(sys.argv[1])).words
one, other = 0x1111_2222_3333_4444, 0xAAAA_BBBB_CCCC_DDDD
words[100] = one
print("started", flush=True)
while not words[101]:
    for _ in range(1000):
        words[100] = other
        words[100] = one
"""
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(segment.fileno())], pass_fds=(segment.fileno(),), stdout=subprocess.PIPE
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"started\n"
        words = segment.words
        seen = {words[100] for _ in range(400_000)}
        words[101] = 1
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    finally:
        writer.kill()
        writer.communicate()
        segment.close()
    assert seen <= {0x1111_2222_3333_4444, 0xAAAA_BBBB_CCCC_DDDD}
