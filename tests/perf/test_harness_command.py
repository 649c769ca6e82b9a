"""`partywire perf` on the command line: what it says of itself and of mistakes, and that nobody else pays for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from partywire.perf.contender import CONTENDERS
from partywire.perf.matrix import Cell
from partywire.perf.party_set import PartySet
from partywire.perf.syscalls import (
    SyscallsUnavailable,
    attach_perf,
    attach_strace,
    count_syscalls,
    end,
    parse_perf,
    parse_strace,
)
from partywire.perf.workloads import WORKLOADS, RingRounds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from partywire.perf.syscalls import Counter


def perf(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "partywire", "perf", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_help_names_every_workload_and_shows_examples() -> None:
    shown = perf("--help")
    assert shown.returncode == 0
    assert all(name in shown.stdout for name in WORKLOADS)
    assert "partywire perf ring --sessions 1,64" in shown.stdout


def test_the_list_has_every_contender() -> None:
    shown = perf("--list")
    assert shown.returncode == 0
    assert all(name in shown.stdout for name in CONTENDERS)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nothing",), "there is no workload nothing"),
        (("ring", "--contenders", "nobody"), "there is no contender nobody"),
        (("ring", "--sessions", "a,b"), "not a list of numbers"),
        (("ring", "--sessions", "0"), "at least one session"),
        (("ring", "--sizes", "4G"), "not a list of sizes"),
    ],
    ids=["workload", "contender", "sessions", "no-session", "sizes"],
)
def test_a_mistake_ends_in_one_sentence(arguments: tuple[str, ...], sentence: str) -> None:
    refused = perf(*arguments)
    assert refused.returncode == 2
    assert sentence in refused.stderr
    assert "Traceback" not in refused.stderr


def test_other_commands_do_not_import_the_measurements() -> None:
    program = "import sys, partywire.workers.cli; print(*(name for name in sys.modules if 'partywire.perf' in name))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert loaded.stdout.strip() == ""


def test_a_contender_that_is_not_installed_is_named_and_left_out() -> None:
    missing = [name for name, contender in CONTENDERS.items() if contender.missing()]
    if not missing:
        pytest.skip("every library is installed here")
    said = perf("ring", "--smoke", "--contenders", f"asyncio,{missing[0]}")
    assert said.returncode == 0
    assert f"not installed, left out: {missing[0]} (pip install 'partywire[perf]'" in said.stderr


# System calls.


def test_the_rest_of_what_perf_counts_is_other() -> None:
    text = "# started\n\n100;;raw_syscalls:sys_enter;1;;;\n60;;syscalls:sys_enter_read;1;;;\n<not counted>;;x;;\n"
    assert parse_perf(text) == {"read": 60, "other": 40}


def test_the_lines_of_strace_are_calls_and_names() -> None:
    text = "   calls syscall\n-------- --------\n      12 sendto\n       3 poll\n-------- ------\n      15 total\n"
    assert parse_strace(text) == {"sendto": 12, "poll": 3}


@pytest.mark.parametrize(("tool", "attach"), [("perf", attach_perf), ("strace", attach_strace)])
def test_a_tool_counts_what_a_process_calls(
    tmp_path: Path, tool: str, attach: Callable[[list[int], Path], Counter]
) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    with PartySet("asyncio", RingRounds(1, 64)) as parties:
        parties.play(10, 30)
        try:
            counter = attach(parties.roots, tmp_path / "counts")
        except SyscallsUnavailable as refusal:
            pytest.skip(str(refusal))
        try:
            parties.play(10, 60)
        finally:
            end(counter.process)
        counts = counter.parse((tmp_path / "counts").read_text())
    assert sum(counts.values()) >= 3 * 10 * 2


def test_a_tool_that_cannot_attach_says_why(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    ended = os.posix_spawn("/bin/true", ["true"], os.environ)
    os.waitpid(ended, 0)
    with pytest.raises(SyscallsUnavailable, match="strace: "):
        attach_strace([ended], tmp_path / "counts")


def test_system_calls_are_counted_per_message() -> None:
    try:
        found = count_syscalls("asyncio", Cell(RingRounds(1, 64)), 0.02)
    except SyscallsUnavailable as refusal:
        pytest.skip(str(refusal))
    # A message of its own costs at least a send, a receive and a wait; how many more is the library's business.
    assert 1 < sum(found.values()) < 100
