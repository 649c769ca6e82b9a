"""A party that is opened where the machine gives too little: one typed error, and nothing left behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from partywire.engine.child_process import ChildProcess
from partywire.engine.commands import LinkFailed
from partywire.engine.shortage import descriptor_need
from partywire.workers.blocking_party import BlockingParty
from partywire.workers.errors import PartyFailed
from partywire.workers.exit_code import ExitCode, code_of, sentence_of
from partywire.workers.local import make_local_parties
from partywire.workers.opening import Opening
from partywire.workers.peer_link import PeerLink

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)

IN_USE = 5
"""By PROGRAM when it counts: standard streams, and two that it counts by."""

PROGRAM = """
import asyncio, gc, json, os, resource, subprocess, sys
from partywire import BlockingParty, Party, load_config
import partywire.workers.processes, partywire.engine.channel.errors

path, form, first, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
config = load_config(path)
asyncio.run(asyncio.sleep(0))  # imports what a loop needs

def left():
    mine = f"/proc/{os.getpid()}"
    with open(f"{mine}/task/{os.getpid()}/children") as children:
        return len(os.listdir(f"{mine}/fd")), children.read()

async def in_loop():
    async with Party(config) as party:
        await party.barrier()

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
for more in range(first, last + 1):
    before = left()
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[0] + more, hard))
    said = {"raised": ""}
    try:
        if form == "asyncio":
            asyncio.run(in_loop())
        else:
            with BlockingParty(config) as party:
                party.barrier()
    except Exception as error:
        cause = error.__cause__
        said = {"raised": type(error).__name__, "errno": getattr(cause, "errno", None), "sentence": str(error)}
        del error, cause
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.collect()
    print(json.dumps({"limit": before[0] + more, "is_clean": left() == before, **said}), flush=True)
"""


def write_pair(folder: Path, workers: int) -> tuple[Path, Path]:
    """The configurations of two parties on this host whose addresses are free."""
    from partywire.workers.config import write_config

    with make_local_parties(2, workers) as parties:
        paths = [folder / f"{config.name}.toml" for config in parties.configs]
        for config, path in zip(parties.configs, paths, strict=True):
            path.write_text(write_config(config))
    return paths[0], paths[1]


def limits_from(path: Path, form: str, first: int, last: int, folder: Path) -> list[dict[str, Any]]:
    """What opening comes to at each limit of `first` to `last` descriptors beyond those that are open."""
    command = [sys.executable, "-c", PROGRAM, str(path), form, str(first), str(last)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100, cwd=folder)
    assert done.stderr == ""
    return [orjson.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("form", ["plain", "asyncio"])
@pytest.mark.parametrize("workers", [1, 2])
def test_every_limit_of_open_files_that_is_too_low_is_the_same_error(tmp_path: Path, workers: int, form: str) -> None:
    ours, _ = write_pair(tmp_path, workers)
    need = descriptor_need(1, workers)
    of_loop = 3 if form == "asyncio" else 0
    most = max(need.io_process, need.supervisor) - IN_USE
    outcomes = limits_from(ours, form, of_loop + 1, most - 1, tmp_path)
    assert len(outcomes) > 15
    for outcome in outcomes:
        assert outcome["raised"] == "PartyFailed", outcome
        assert outcome["errno"] == errno.EMFILE
        assert outcome["is_clean"], outcome
        limit, count = outcome["limit"], f"1 link and {workers} worker{'s' * (workers > 1)}"
        assert "party alice failed: its processes cannot be started: too many open files" in outcome["sentence"]
        assert f"a party with {count} needs up to {need.io_process} descriptors" in outcome["sentence"]
        assert f"(`ulimit -n`, now {limit})" in outcome["sentence"]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_limit_of_open_files_that_is_not_refused_is_enough(tmp_path: Path, workers: int) -> None:
    ours, theirs = write_pair(tmp_path, workers)
    program = "import sys, partywire\nwith partywire.BlockingParty(sys.argv[1]) as party: party.barrier()"
    need = descriptor_need(1, workers)
    with subprocess.Popen([sys.executable, "-c", program, str(theirs)]) as peer:
        try:
            enough = max(need.io_process, need.supervisor) - IN_USE
            [outcome] = limits_from(ours, "plain", enough, enough, tmp_path)
            assert outcome["raised"] == "", outcome
            assert peer.wait(60) == 0
        finally:
            peer.kill()


def test_a_host_without_room_for_a_process_is_a_failed_party(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object, **__: object) -> ChildProcess:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(ChildProcess, "start", start)
    before = len(os.listdir("/proc/self/fd"))
    with make_local_parties(2) as parties:
        party = BlockingParty(parties.configs[0])
        with pytest.raises(PartyFailed, match=r"resource temporarily unavailable; .*`ulimit -u`") as caught:
            party.open()
    assert isinstance(caught.value.__cause__, OSError)
    assert code_of(caught.value) is ExitCode.JOB
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_thread_that_cannot_be_started_is_a_failed_party(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with make_local_parties(2) as parties:
        party = BlockingParty(parties.configs[0], parties.listeners[0], on_event=lambda event: None)
        monkeypatch.setattr("threading.Thread.start", start)
        with pytest.raises(PartyFailed, match=r"no thread can be started for on_event; .*`ulimit -u`"):
            party.open()


def test_the_command_says_a_shortage_in_a_sentence() -> None:
    error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    assert sentence_of(error).startswith(
        "this host does not give the command what it needs: too many open files; raise"
    )
    assert sentence_of(OSError(errno.EACCES, "Permission denied")) == "PermissionError: [Errno 13] Permission denied"


@pytest.mark.parametrize("form", ["run", "config"])
@pytest.mark.parametrize("limit", [8, 16, 24])
def test_a_run_with_few_descriptors_ends_in_one_sentence(tmp_path: Path, limit: int, form: str) -> None:
    from partywire.workers.config import write_config

    arguments = ["run", "sum", "--local", "3", "--quiet"]
    if form == "config":
        with make_local_parties(3) as parties:
            path = tmp_path / "alice.toml"
            path.write_text(write_config(parties.configs[0]))
        arguments = ["run", "sum", "--config", str(path), "--quiet"]
    program = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2); "
        "os.execv(sys.executable, [sys.executable, '-m', 'partywire', *sys.argv[2:]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(limit), *arguments], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == ExitCode.JOB, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert "too many open files" in done.stderr
    assert f"`ulimit -n`, now {limit})" in done.stderr


@pytest.mark.parametrize(("code", "is_late"), [("TIMEOUT", True), ("LOCAL", False), ("PARAMETERS", False)])
def test_only_a_link_that_time_ran_out_for_is_said_to_be_late(code: str, is_late: bool) -> None:
    opening = Opening("alice", 30.0)
    opening.failed[1] = LinkFailed(1, code, "no room in /dev/shm")
    error = opening.error([PeerLink(1, "bob", None)])
    assert ("within 30 s" in str(error)) is is_late
    assert "bob: no room in /dev/shm" in str(error)
