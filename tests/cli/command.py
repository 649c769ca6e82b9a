"""Runs the command as a user does, in processes of their own, and reads what they said."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from partywire.workers.cli import run
from partywire.workers.config import PartyConfig, write_config
from tests.support.reserved_ports import reserved_ports

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pytest

FOLDER = Path(__file__).parent
DEADLINE_S = 100.0
NAMES = ("alice", "bob", "charlie")


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """Standard output of a command with --json: exactly one object."""
        document: dict[str, Any] = orjson.loads(self.out)
        return document

    @property
    def sentence(self) -> str:
        """The one thing that was said on stderr; anything else there fails the test."""
        assert "Traceback" not in self.err
        lines = [line for line in self.err.splitlines() if not is_progress(line)]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("partywire: ")
        return lines[0].removeprefix("partywire: ")


def is_progress(line: str) -> bool:
    """Lines that say how far a run is; they come on a busy machine only."""
    return any(
        word in line for word in (": starting ", ": connecting: ", ": making sessions", ": computing", " jobs  ")
    )


def start(*arguments: str, cwd: Path = FOLDER, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "partywire", *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def finish(process: subprocess.Popen[str]) -> Outcome:
    try:
        out, err = process.communicate(timeout=DEADLINE_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    return Outcome(process.returncode, out, err)


def command(*arguments: str, cwd: Path = FOLDER, **environment: str) -> Outcome:
    return finish(start(*arguments, cwd=cwd, **environment))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, cwd: Path = FOLDER) -> Outcome:
    """What `command` gives for a line that is refused before anything is started, without a process of its own."""
    with staying_in(cwd):
        code = run(arguments)
    out, err = capsys.readouterr()
    return Outcome(code, out, err)


@contextmanager
def staying_in(cwd: Path) -> Iterator[None]:
    """`cwd` as the current folder; it and the path of modules are as before afterwards."""
    before, path = Path.cwd(), list(sys.path)
    os.chdir(cwd)
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:] = path


def commands(argument_lists: Sequence[Sequence[str]]) -> list[Outcome]:
    """Several at once, as at several hosts."""
    return [finish(process) for process in [start(*arguments) for arguments in argument_lists]]


held_ports = ExitStack()
"""Ports of the running test, until it ends (conftest.py)."""


def free_addresses(count: int) -> list[tuple[str, int]]:
    """Loopback addresses that nobody else is given while the test runs."""
    return [("127.0.0.1", port) for port in held_ports.enter_context(reserved_ports(count))]


def write_configs(folder: Path, **settings: Any) -> list[str]:
    """Configuration files of three parties on this host."""
    parties = dict(zip(NAMES, free_addresses(3), strict=True))
    paths = []
    for name in NAMES:
        path = folder / f"{name}.toml"
        path.write_text(write_config(PartyConfig(name=name, parties=parties, **settings)))
        paths.append(str(path))
    return paths
