"""A fork begins as a program of its own would: with its control socket, its name, and nothing else of its parent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE_S = 60.0

PARENT = """
    import json, mmap, os, resource, signal, socket, sys
    from partywire.engine import program
    from partywire.engine.forked import fork_child

    class Noisy:
        def __del__(self):
            print("collected", flush=True)

    program.load(["partywire.engine.gateway"])
    held = [os.memfd_create("partywire-doorbell") for _ in range(20)]  # what a child must not have
    os.truncate(held[-1], mmap.PAGESIZE)
    page = mmap.mmap(held[-1], mmap.PAGESIZE)
    ours, theirs = socket.socketpair()
    os.set_inheritable(theirs.fileno(), True)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    garbage = Noisy()
    garbage.itself = garbage
    del garbage
    print("said once")
    {first}
    child = fork_child("some child", "some_program", theirs.fileno())
    theirs.close()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    told = json.loads(ours.makefile().readline())
    told["cause"] = child.wait(60)
    told["is_child"] = told.pop("parent") == os.getpid()
    child.end()
    print(json.dumps(told))
    sys.stdout.flush()
    os._exit(0)
"""

CHILD = """
    import gc, json, os, signal, socket, sys
    from partywire.engine.child_process import begin_child

    was_imported = "partywire.engine.gateway" in sys.modules

    def main():
        control = socket.socket(fileno=begin_child())
        gc.collect()
        listed = os.listdir("/proc/self/fd")  # with the descriptor of the listing itself, which is closed now
        told = {{
            "arguments": sys.argv[1:],
            "blocked": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            "descriptors": sorted(int(name) for name in listed if os.path.exists(f"/proc/self/fd/{{name}}")),
            "parent": os.getppid(),
            "shared": "memfd:partywire" in open("/proc/self/maps").read(),
            "shown": open("/proc/self/cmdline", errors="replace").read().rstrip("\\0").split("\\0")[-2:],
            "was_imported": was_imported,
        }}
        control.sendall(json.dumps(told).encode() + b"\\n")
        {last}
"""


def play(
    tmp_path: Path, last: str, first: str = "pass", word: str | bytes = "parent", redirection: str = ""
) -> tuple[dict[str, Any], str, str]:
    """What a child of a parent told of itself, what both printed before, and their complaints.

    The parent does `first` before it forks, the child `last` before it ends; `word` is among the parent's arguments.
    """
    (tmp_path / "parent.py").write_text(textwrap.dedent(PARENT).replace("{first}", first))
    (tmp_path / "some_program.py").write_text(textwrap.dedent(CHILD).format(last=last))
    shell = ("sh", "-c", f'exec "$0" "$@" {redirection}')
    arguments = [*shell, sys.executable, "parent.py", word, "partywire.engine.supervisor", "3"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    ended = subprocess.run(
        arguments,
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    *said, told = ended.stdout.splitlines()
    return json.loads(told), "\n".join(said), ended.stderr


def test_a_fork_has_its_control_socket_and_its_name_and_nothing_else_of_its_parent(tmp_path: Path) -> None:
    told, said, complaints = play(tmp_path, "pass")
    assert told == {
        "arguments": ["3"],
        "blocked": 0,
        "cause": "",
        "descriptors": [0, 1, 2, 3],
        "is_child": True,
        "shared": False,
        "shown": ["some_program", "3"],
        "was_imported": True,
    }
    assert said == "said once"  # and garbage of the parent is not collected by its child
    assert complaints == ""


@pytest.mark.parametrize(
    ("last", "cause", "complaint"),
    [
        ("raise ValueError(7)", "exited with code 1", "ValueError: 7"),
        ("raise SystemExit", "", ""),
        ("raise SystemExit(7)", "exited with code 7", ""),
        ("raise SystemExit('no more')", "exited with code 1", "no more"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL", ""),
    ],
)
def test_the_end_of_a_fork_is_that_of_a_program(tmp_path: Path, last: str, cause: str, complaint: str) -> None:
    told, said, complaints = play(tmp_path, last)
    assert told["cause"] == cause
    assert said == "said once"
    assert complaints.splitlines()[-1:] == [complaint][: len(complaint)]
    assert ("Traceback" in complaints) == ("Error" in complaint)


@pytest.mark.parametrize(
    ("first", "last"), [("pass", "sys.stderr.write('held')"), ("sys.stderr.write('held')", "pass")]
)
def test_a_fork_ends_though_nobody_takes_what_it_or_its_parent_says(tmp_path: Path, first: str, last: str) -> None:
    """Where a disk is full or a terminal closed, writing fails as late as at the end."""
    told, said, _ = play(tmp_path, last, first, redirection="2>/dev/full")
    assert told["cause"] == ""
    assert said == "said once"


def test_a_number_of_a_standard_stream_that_was_closed_is_nothing_of_the_parents(tmp_path: Path) -> None:
    told, _, _ = play(tmp_path, "open('found', 'w').write(os.readlink('/proc/self/fd/2'))", redirection="2>&-")
    assert told["cause"] == ""
    assert (tmp_path / "found").read_text() == os.devnull


def test_a_fork_has_no_descriptor_above_a_limit_that_was_lowered(tmp_path: Path) -> None:
    lower = "os.dup2(held[0], 300); resource.setrlimit(resource.RLIMIT_NOFILE, (200, 1000))"
    assert play(tmp_path, "pass", lower)[0]["descriptors"] == [0, 1, 2, 3]


def test_words_of_a_command_line_may_be_any_bytes(tmp_path: Path) -> None:
    told, _, complaints = play(tmp_path, "pass", word=b"\xff")
    assert told["shown"] == ["some_program", "3"]
    assert complaints == ""
