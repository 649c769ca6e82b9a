"""Children start, are watched, end, and are reaped, whatever ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING

import pytest

from partywire.engine.child_process import PROGRAM, ChildProcess, describe_status
from partywire.engine.control_socket import ControlClosed, ControlSocket
from partywire.engine.supervisor_handle import spawn_supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEADLINE_S = 30.0


@pytest.fixture
def child() -> Iterator[ChildProcess]:
    """A supervisor without a Start, as any child would do."""
    ours, theirs = ControlSocket.pair()
    with ours, theirs:
        child = ChildProcess.start("supervisor", "partywire.engine.supervisor", theirs.fileno())
        theirs.close()
        yield child
        child.end()


@pytest.mark.parametrize(
    ("last", "code", "said"),
    [("", 0, ""), ("raise ValueError(7)", 1, "ValueError: 7"), ("raise SystemExit('no')", 1, "no")],
)
def test_a_program_of_the_engine_looks_for_garbage_after_its_imports_and_ends_without_ado(
    last: str, code: int, said: str, tmp_path: Path
) -> None:
    program = f"""
        import atexit, gc, sys
        assert not gc.isenabled()
        def main():
            assert gc.isenabled() and gc.get_freeze_count() > 1000
            atexit.register(print, "the end")
            sys.stdout.write(f"{{sys.argv[1:]}}")
            {last}
        """
    (tmp_path / "some_program.py").write_text(textwrap.dedent(program))
    ended = subprocess.run(
        [sys.executable, "-m", PROGRAM, "some_program", "3"],
        cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (code, "['3']" + "the end\n" * code)
    assert said in ended.stderr
    assert bool(said) == bool(ended.stderr)


def test_a_killed_child_is_reaped_with_its_cause(child: ChildProcess) -> None:
    assert child.try_reap() is None
    child.kill(signal.SIGTERM)
    assert child.wait(DEADLINE_S) == "was killed by SIGTERM"
    assert child.try_reap() == "was killed by SIGTERM"
    child.kill()  # harmless: the number may belong to somebody else by now
    assert child.end() == "was killed by SIGTERM"


def test_waiting_has_a_deadline(child: ChildProcess) -> None:
    assert child.wait(0.01) is None


def test_a_child_that_other_code_reaped_is_known_to_have_ended(child: ChildProcess) -> None:
    child.kill()
    os.waitpid(child.pid, 0)
    assert "taken by other code" in child.end()


def test_a_supervisor_ends_when_its_opener_hangs_up() -> None:
    handle = spawn_supervisor()
    pid = handle.process.pid
    assert os.getsid(pid) in (pid, os.getsid(0))  # its own session, once it is past exec
    assert handle.end(DEADLINE_S) == ""
    assert handle.end() == ""
    with pytest.raises(ControlClosed):
        handle.control.receive(1)


def test_a_supervisor_outlives_the_thread_that_opened_the_party() -> None:
    handles = []
    thread = threading.Thread(target=lambda: handles.append(spawn_supervisor()))
    thread.start()
    thread.join()
    time.sleep(0.3)  # long enough for a death signal of the thread; its absence cannot be waited for
    assert handles[0].process.try_reap() is None
    assert handles[0].end(DEADLINE_S) == ""


def test_ctrl_c_does_not_reach_a_child(child: ChildProcess) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not _ignores_sigint(child.pid):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    child.kill(signal.SIGINT)
    assert child.wait(0.2) is None


def _ignores_sigint(pid: int) -> bool:
    with open(f"/proc/{pid}/status") as status:
        ignored = next(int(line.split()[1], 16) for line in status if line.startswith("SigIgn"))
    return bool(ignored >> (signal.SIGINT - 1) & 1)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, ""),
        (3 << 8, "exited with code 3"),
        (signal.SIGSEGV.value, "was killed by SIGSEGV"),
        (35, "was killed by signal 35"),
    ],
)
def test_a_status_is_put_in_words(status: int, words: str) -> None:
    assert describe_status(status) == words
