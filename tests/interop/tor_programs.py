"""Debian's tor and microsocks, installed where we may, started and ended; or a test is skipped and says why."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

INSTALL_TIMEOUT_S = 600
START_TIMEOUT_S = 30.0


def needs(package: str, *programs: str) -> None:
    """Install a package of Debian's if its programs are not there, or skip."""
    if all(shutil.which(program) for program in programs):
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        pytest.skip(f"needs {package}, which only root can install, on Debian")
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
        if done.returncode:
            pytest.skip(f"{' '.join(command[:2])} of {package} failed: {done.stderr.strip()[-300:]}")


@contextmanager
def running(*commands: Sequence[str | Path]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Programs that are ended with the block, the last one first."""
    with ExitStack() as stack:
        started = []
        for command in commands:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            stack.callback(end, process)
            started.append(process)
        yield started


def end(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """Kill it and wait for that."""
    process.kill()
    process.wait()


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until somebody listens there."""
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert process.poll() is None, f"{process.args!r} ended with {process.returncode}"
            assert time.monotonic() < give_up_at, f"{process.args!r} does not listen"
            time.sleep(0.02)
