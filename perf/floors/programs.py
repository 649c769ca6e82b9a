"""Builds the C programs of the floors and runs them.

Programs are kept in the user's cache, named after everything they were built from, so that a changed source is never
measured with an old program. A program ends itself at its deadline and when its parent dies; nothing has to be watched.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import orjson

SOURCES: Final = {
    "epoll": ("epoll.c", "play.c", "stage.c", "process.c", "tcp.c"),
    "split": ("split.c", "ring.c", "play.c", "stage.c", "process.c", "tcp.c"),
    "machine": ("machine.c", "process.c", "tcp.c"),
}
"""Program -> what it is made of."""

FOLDER: Final = Path(__file__).resolve().parent
FLAGS: Final = ("-std=gnu11", "-O2", "-Wall", "-Wextra")
COMPILERS: Final = ("cc", "gcc", "clang")

COMPILE_TIMEOUT_S: Final = 60.0

START_MAX_S: Final = 20.0
"""A floor that has not started, or not ended, within so long beyond what it was asked for ends itself."""

KILL_AFTER_S: Final = 5.0
"""So long after a program's own deadline it is killed; only a program stopped by a signal gets there."""


class FloorUnsupported(Exception):
    """Raised when a floor cannot be had here: no C compiler, no such workload, not a Linux that it needs."""


class FloorFailed(Exception):
    """Raised when a floor ran and ended without a figure; the text is what it said."""


def find_compiler() -> str:
    """The C compiler, `CC` of the environment first."""
    for name in (os.environ.get("CC", ""), *COMPILERS):
        path = shutil.which(name) if name else None
        if path:
            return path
    raise FloorUnsupported(f"there is no C compiler here ({', '.join(COMPILERS)}): install one, or do without floors")


def cache_folder() -> Path:
    """Where programs are kept: below the user's cache, or for this process only where that cannot be written."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    folder = (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "partywire" / "floors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return passing_folder()
    return folder if os.access(folder, os.W_OK | os.X_OK) else passing_folder()


@functools.cache
def passing_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="partywire-floors-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def build(program: str) -> Path:
    """The path of a compiled program.

    Raises:
        FloorUnsupported: there is no compiler, or it refuses the sources.
    """
    compiler = find_compiler()
    names = SOURCES[program]
    digest = hashlib.sha256(repr((compiler, FLAGS, names, os.uname().machine)).encode())
    for path in sorted((*(FOLDER / name for name in names), *FOLDER.glob("*.h"))):
        digest.update(path.read_bytes())
    target = cache_folder() / f"{program}-{digest.hexdigest()[:16]}"
    if not target.exists():
        compile_to(target, [compiler, *FLAGS, *(str(FOLDER / name) for name in names)])
    return target


def compile_to(target: Path, command: list[str]) -> None:
    """Compile beside the target and move the result there, so that nobody ever starts half a program."""
    handle, unfinished = tempfile.mkstemp(prefix=f"{target.name}-", dir=target.parent)
    os.close(handle)
    try:
        run = subprocess.run(
            [*command, "-o", unfinished], capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S, check=False
        )
        if run.returncode != 0:
            said = next((line for line in run.stderr.splitlines() if "error" in line), run.stderr.strip()[:200])
            raise FloorUnsupported(f"{command[0]} does not compile {target.name}: {said}")
        os.chmod(unfinished, 0o755)
        os.replace(unfinished, target)
    except subprocess.TimeoutExpired as error:
        raise FloorUnsupported(f"{command[0]} did not end within {COMPILE_TIMEOUT_S:g} s") from error
    finally:
        Path(unfinished).unlink(missing_ok=True)


def run_program(
    program: str, arguments: list[str], seconds: float, start_max_s: float = START_MAX_S
) -> dict[str, object]:
    """Run a program to its end and return what it printed. `seconds` is how long it measures.

    Raises:
        FloorUnsupported: it cannot be built or started.
        FloorFailed: it ended without a figure, at its deadline at the latest.
    """
    path = build(program)
    deadline_s = 2 * seconds + start_max_s
    command = [str(path), *arguments, f"{deadline_s:.3f}", str(os.getpid())]
    try:
        run = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=deadline_s + KILL_AFTER_S, check=False
        )
    except OSError as error:
        raise FloorUnsupported(f"{path} cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise FloorFailed(f"the floor {program} did not end at its deadline of {deadline_s:g} s") from error
    if run.returncode != 0:
        raise FloorFailed(f"the floor {program} ended without a figure: {run.stderr.decode(errors='replace').strip()}")
    printed: dict[str, object] = orjson.loads(run.stdout)
    return printed
