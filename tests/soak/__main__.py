"""`make soak`: three real parties run random batches while their processes are killed and stopped at random.

    python -m tests.soak [--minutes 10] [--seed 1] [--workers 2] [--calm]

What is checked: every result of every batch, at every party; that no batch hangs; that memory and descriptors of what
lives all the time (openers and supervisors) stay flat; that nothing is left at the end. What can be killed is what the
party starts again: I/O processes, gateways, further workers. The exit code is 1 when a check failed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from tests.soak.jobs import PARTIES, expected, tasks_of
from tests.support.processes import children_of, is_gone, wait_until_gone

NAMES: Final = ("alice", "bob", "charlie")
BATCH_TIMEOUT_S: Final = 120.0
CALM_S: Final = (0.3, 3.0)
"""Between two disturbances, at random."""

STOP_S: Final = (0.05, 4.0)
"""How long a process is stopped: shorter and longer than the heartbeat time-out."""

RSS_GROWTH_KIB: Final = 24 * 1024
DESCRIPTOR_GROWTH: Final = 8
PROGRESS_S: Final = 10.0
MODULES: Final = {
    "partywire.engine.io_process": "I/O process",
    "partywire.engine.gateway": "gateway",
    "partywire.workers.worker_main": "worker",
}


class SoakFailed(Exception):
    """Raised when a check of the soak failed."""


class Member:
    """One party's program."""

    def __init__(self, index: int, listener: socket.socket, ports: list[int], seed: int, workers: int) -> None:
        numbers = (index, listener.fileno(), seed, workers)
        command = [sys.executable, "-m", "tests.soak.party", *map(str, numbers)]
        command += [f"{name}={port}" for name, port in zip(NAMES, ports, strict=True)]
        self.index = index
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[listener.fileno()]
        )
        self.supervisor = 0
        self.figures: dict[str, list[tuple[int, int]]] = {"opener": [], "supervisor": []}
        self._unread = b""

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def poll(self) -> dict[str, Any] | None:
        """What it said, if it said something."""
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        while b"\n" not in self._unread:
            if not select.select([fd], [], [], 0)[0]:
                return None
            data = os.read(fd, 1 << 20)
            if not data:
                raise SoakFailed(f"{NAMES[self.index]} ended with {self.process.wait(10)}")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        document: dict[str, Any] = json.loads(line)
        return document

    def victims(self) -> dict[int, str]:
        """What may be killed now: pid -> what it is."""
        found = {}
        try:
            for child in children_of(self.supervisor):
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                for module, what in MODULES.items():
                    if module.encode() in words:
                        found[child] = what
        except OSError:
            pass  # it ended meanwhile
        return found


class Soak:
    """All parties, and what is done to them."""

    def __init__(self, seed: int, workers: int, calm: bool) -> None:
        self._seed = seed
        self._calm = calm
        self._random = random.Random(seed)
        self._stopped: dict[int, float] = {}  # pid -> when it goes on
        self._disturb_at = time.monotonic() + 1.0
        self.disturbances: Counter[str] = Counter()
        self.batches = self.results = 0
        self.longest_s = 0.0
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in NAMES]
        ports = [listener.getsockname()[1] for listener in listeners]
        self.members = [Member(index, listener, ports, seed, workers) for index, listener in enumerate(listeners)]
        for listener in listeners:
            listener.close()

    def begin(self) -> None:
        for member, said in zip(self.members, self._answers(disturbed=False), strict=True):
            member.supervisor = said["supervisor"]

    def batch(self) -> None:
        """One batch at all parties, checked."""
        number = self.batches
        began = time.monotonic()
        for member in self.members:
            member.tell(str(number))
        tasks = tasks_of(self._seed, number)
        for member, said in zip(self.members, self._answers(disturbed=not self._calm), strict=True):
            if "error" in said:
                raise SoakFailed(f"batch {number} failed at {NAMES[member.index]}: {said['error']}")
            if said["results"] != [expected(task, member.index) for task in tasks]:
                raise SoakFailed(f"batch {number}: wrong results at {NAMES[member.index]}")
            for what, figures in member.figures.items():
                figures.append(tuple(said[what]))
        self.batches += 1
        self.results += PARTIES * len(tasks)
        self.longest_s = max(self.longest_s, time.monotonic() - began)

    def _answers(self, disturbed: bool) -> list[dict[str, Any]]:
        deadline = time.monotonic() + BATCH_TIMEOUT_S
        answers: dict[int, dict[str, Any]] = {}
        while len(answers) < PARTIES:
            if time.monotonic() > deadline:
                missing = [member.index for member in self.members if member.index not in answers]
                raise SoakFailed(f"batch {self.batches} hangs at {', '.join(NAMES[index] for index in missing)}")
            for member in self.members:
                if member.index not in answers and (said := member.poll()) is not None:
                    answers[member.index] = said
            if disturbed:
                self._disturb()
            time.sleep(0.005)
        return [answers[index] for index in range(PARTIES)]

    def _disturb(self) -> None:
        now = time.monotonic()
        for pid, at in list(self._stopped.items()):
            if now >= at:
                self._send(pid, signal.SIGCONT)
                del self._stopped[pid]
        if now < self._disturb_at:
            return
        self._disturb_at = now + self._random.uniform(*CALM_S)
        victims = self._random.choice(self.members).victims()
        if not victims:
            return
        pid, what = self._random.choice(sorted(victims.items()))
        if self._random.random() < 0.5:
            self.disturbances[f"{what} killed"] += self._send(pid, signal.SIGKILL)
        elif pid not in self._stopped:
            self.disturbances[f"{what} stopped"] += self._send(pid, signal.SIGSTOP)
            self._stopped[pid] = now + self._random.uniform(*STOP_S)

    @staticmethod
    def _send(pid: int, number: signal.Signals) -> bool:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        return True

    def growth(self) -> list[tuple[str, int, int]]:
        """(process, KiB, descriptors) by which the last quarter of all batches is above the second."""
        found = []
        for member in self.members:
            for what, figures in member.figures.items():
                quarter = max(1, len(figures) // 4)
                early, late = figures[quarter : 2 * quarter] or figures[:1], figures[-quarter:]
                kib, descriptors = (
                    int(statistics.median(f[k] for f in late) - statistics.median(f[k] for f in early)) for k in (0, 1)
                )
                found.append((f"{what} of {NAMES[member.index]}", kib, descriptors))
        return found

    def end(self) -> list[int]:
        """Ask everybody to end; returns the pids of all that must be gone."""
        for pid in self._stopped:
            self._send(pid, signal.SIGCONT)
        family = [pid for member in self.members for pid in (member.supervisor, *member.victims()) if pid]
        for member in self.members:
            assert member.process.stdin is not None
            member.process.stdin.close()
        for member in self.members:
            try:
                member.process.wait(30)
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()
            assert member.process.stdout is not None
            member.process.stdout.close()
        return family


def report(soak: Soak, began: float, problems: list[str]) -> None:
    soaked_s = time.monotonic() - began
    print(f"soaked for {soaked_s:.0f} s: {soak.batches} batches, {soak.results} results as they must be")
    print(f"longest batch: {soak.longest_s:.1f} s")
    disturbances = ", ".join(f"{count} x {what}" for what, count in sorted(soak.disturbances.items()))
    print(f"disturbances: {disturbances or 'none'}")
    for what, kib, descriptors in soak.growth() if soak.batches else ():
        print(f"{what}: {kib:+d} KiB resident, {descriptors:+d} descriptors from the second quarter to the last")
    for problem in problems:
        print(f"FAILED: {problem}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Random jobs and random deaths.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, help="compute processes of each party (default: 2)")
    parser.add_argument("--calm", action="store_true", help="disturb nobody")
    options = parser.parse_args()
    if not 0 < options.minutes <= 10_000:
        parser.error("--minutes must be between 0 and 10000")
    began = told_at = time.monotonic()
    problems: list[str] = []
    soak = Soak(options.seed, options.workers, options.calm)
    try:
        soak.begin()
        while time.monotonic() - began < 60 * options.minutes:
            soak.batch()
            if time.monotonic() - told_at >= PROGRESS_S:
                told_at = time.monotonic()
                total = sum(soak.disturbances.values())
                print(f"{told_at - began:.0f} s: {soak.batches} batches, {total} disturbances", file=sys.stderr)
        for what, kib, descriptors in soak.growth():
            if kib > RSS_GROWTH_KIB or descriptors > DESCRIPTOR_GROWTH:
                problems.append(f"the {what} grows: {kib:+d} KiB, {descriptors:+d} descriptors")
    except (SoakFailed, KeyboardInterrupt) as error:
        problems.append(str(error) or "interrupted")
    finally:
        family = soak.end()
    try:
        wait_until_gone(family)
    except AssertionError as error:
        problems.append(str(error))
        for pid in family:
            if not is_gone(pid):
                os.kill(pid, signal.SIGKILL)
    report(soak, began, problems)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
