"""Runs the blocks of shell commands of a page, as a reader would who types them, and reads what comes out."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

DEADLINE_S = 100.0


@dataclass(frozen=True)
class Said:
    """What a block of commands said, on both outputs together, and the exit code of its last command."""

    text: str
    code: int


class Running:
    """A block of commands in a shell of its own. `finish` ends all that it has started, whatever happens."""

    def __init__(self, script: str, folder: Path, first_on_path: Path | None = None) -> None:
        programs = [str(first_on_path or ""), str(Path(sys.executable).parent), os.environ["PATH"]]
        # A line is then written as a whole, and two parties do not write into each other's.
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
        self._process = subprocess.Popen(
            ["bash", "-c", script],
            cwd=folder,
            env={**environment, "PATH": os.pathsep.join(filter(None, programs))},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def finish(self) -> Said:
        try:
            text, _ = self._process.communicate(timeout=DEADLINE_S)
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.communicate()
        return Said(text, self._process.returncode)


def run(script: str, folder: Path, first_on_path: Path | None = None) -> Said:
    return Running(script, folder, first_on_path).finish()


def replaced(text: str, words: Mapping[str, str]) -> str:
    """All at once, so that what one word becomes is not replaced again."""
    return re.sub("|".join(map(re.escape, words)), lambda match: words[match[0]], text)


def missing_lines(expected: str, said: str) -> list[str]:
    """The lines of `expected` that are no part of a line that was said. Runs of spaces are equal; `...` is anything."""
    lines = [" ".join(line.split()) for line in said.splitlines()]

    def is_there(wanted: str) -> bool:
        pattern = ".*".join(re.escape(part.strip()) for part in wanted.split("..."))
        return any(re.search(pattern, line) for line in lines)

    return [line for line in expected.splitlines() if not is_there(" ".join(line.split()))]
