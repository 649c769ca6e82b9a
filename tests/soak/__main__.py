"""`make soak`: three real parties run random batches while their processes are killed and stopped at random.

    python -m tests.soak [--minutes 10] [--seed 1] [--workers 2] [--calm]

Killed is everything: what a party starts again by itself (I/O processes, gateways, further workers), and openers and
supervisors, with which the whole party dies; the soak then starts its program again, which rejoins the others in the
middle of their batch. Connections between two of the parties are reset. Alice's opener and supervisor alone live
through it all, so that there is something to see flat.

What is checked: every result of every batch, at every party; that no batch hangs; that a batch fails nowhere, unless a
party died whole in it, and then with a typed error, and goes well when all run it once more; that memory and
descriptors of what lives long stay flat (`growth`); that nothing is left at the end. The exit code is 1 when a check
failed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import sys
import time
from collections import Counter
from typing import Any, Final

from tests.faults.proxy import FaultProxy
from tests.soak.growth import growth
from tests.soak.jobs import PARTIES, expected, tasks_of
from tests.soak.member import NAMES, OPENER, SUPERVISOR, Member, SoakFailed
from tests.support.processes import is_gone, wait_until_gone

BATCH_TIMEOUT_S: Final = 120.0
CALM_S: Final = (0.3, 3.0)
"""Between two disturbances, at random."""

STOP_S: Final = (0.05, 4.0)
"""How long a process is stopped: shorter and longer than the heartbeat time-out."""

DOOM_CHANCE: Final = 0.1
CUT_CHANCE: Final = 0.1
MORTALS: Final = (1, 2)
"""The parties that die whole."""

AHEAD_S: Final = 3.0
"""How long parties that have answered wait for one that died, before they are told to begin the batch again."""

END_TIMEOUT_S: Final = 30.0
PROGRESS_S: Final = 10.0


class Soak:
    """All parties, and what is done to them."""

    def __init__(self, seed: int, workers: int, calm: bool) -> None:
        self._seed = seed
        self._calm = calm
        self._random = random.Random(seed)
        self._stopped: dict[int, float] = {}  # pid -> when it goes on
        self._disturb_at = time.monotonic() + 1.0
        self._next_order = 0
        self._has_died = False  # a party did whole, since the order was given
        self.disturbances: Counter[str] = Counter()
        self.repeated: Counter[str] = Counter()  # why batches had to be run once more
        self.batches = self.results = 0
        self.longest_s = 0.0
        self._listeners = [socket.create_server(("127.0.0.1", 0)) for _ in NAMES]
        addresses = dict(zip(NAMES, (listener.getsockname() for listener in self._listeners), strict=True))
        self._proxy = FaultProxy(addresses["alice"])  # bob's way to her
        self._proxy.__enter__()
        self.members = [
            Member(index, listener, addresses | ({"alice": self._proxy.address} if index == 1 else {}), seed, workers)
            for index, listener in enumerate(self._listeners)
        ]

    def begin(self) -> None:
        deadline = time.monotonic() + BATCH_TIMEOUT_S
        while not all(member.supervisor for member in self.members):
            if time.monotonic() > deadline:
                raise SoakFailed("the parties do not come up")
            for member in self.members:
                member.poll()
            time.sleep(0.005)

    def batch(self) -> None:
        """One batch at all parties, checked; once more if a party that died whole was missed at its very end."""
        number = self.batches
        began = time.monotonic()
        tasks = tasks_of(self._seed, number)
        wrong = [[expected(task, member.index) for task in tasks] for member in self.members]
        while True:
            answers = self._run(number, began)
            for member, said in zip(self.members, answers, strict=True):
                if said.get("results", wrong[member.index]) != wrong[member.index]:
                    raise SoakFailed(f"batch {number}: wrong results at {member.name}")
            errors = {
                member.name: said["error"]
                for member, said in zip(self.members, answers, strict=True)
                if "error" in said
            }
            if not errors and len({said["order"] for said in answers}) == 1:
                break
            if not self._has_died:
                raise SoakFailed(f"batch {number} failed: {errors}")
            self.repeated[", ".join(sorted({error.split(":")[0] for error in errors.values()})) or "one was ahead"] += 1
        self.batches += 1
        self.results += PARTIES * len(tasks)
        self.longest_s = max(self.longest_s, time.monotonic() - began)

    def _run(self, number: int, began: float) -> list[dict[str, Any]]:
        """Give all parties the same order; returns the last answer of each."""
        order = self._order()
        self._has_died = False
        for member in self.members:
            member.tell(number, order)
        answers: dict[int, dict[str, Any]] = {}
        moved_at = time.monotonic()
        while len(answers) < PARTIES:
            if time.monotonic() > began + BATCH_TIMEOUT_S:
                missing = [member.name for member in self.members if member.index not in answers]
                raise SoakFailed(f"batch {number} hangs at {', '.join(missing)}")
            for member in self.members:
                try:
                    if (said := member.poll()) is not None:
                        answers[member.index] = said
                        moved_at = time.monotonic()
                except EOFError:
                    self._has_died = True
                    member.process.wait()
                    member.start()
                    member.tell(number, order)
                    answers.pop(member.index, None)
                    moved_at = time.monotonic()
            if self._has_died and answers and time.monotonic() > moved_at + AHEAD_S:
                # They have all results, or an error, and a party that has neither waits for them.
                moved_at = time.monotonic()
                order = self._order()
                for index in answers:
                    self.members[index].tell(number, order)
                answers.clear()
            if not self._calm:
                self._disturb()
            time.sleep(0.005)
        return [answers[index] for index in range(PARTIES)]

    def _order(self) -> int:
        self._next_order += 1
        return self._next_order - 1

    def _disturb(self) -> None:
        now = time.monotonic()
        for pid, at in list(self._stopped.items()):
            if now >= at:
                self._send(pid, signal.SIGCONT)
                del self._stopped[pid]
        if now < self._disturb_at:
            return
        self._disturb_at = now + self._random.uniform(*CALM_S)
        kind = self._random.random()
        if kind < DOOM_CHANCE:
            what = self._random.choice((OPENER, SUPERVISOR))
            self.disturbances[f"{what} killed"] += self.members[self._random.choice(MORTALS)].doom(what)
            return
        if kind < DOOM_CHANCE + CUT_CHANCE:
            self._proxy.cut()
            self.disturbances["link reset"] += 1
            return
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

    def flatness(self) -> list[tuple[str, int, int, bool]]:
        """(process, KiB, descriptors, whether that is flat) of every life that was long enough to tell."""
        found = []
        for member in self.members:
            for what, lives in member.figures.items():
                for life, figures in enumerate(lives, 1):
                    if (grown := growth(figures)) is not None:
                        whose = f"{what} of {member.name}" + (f", life {life}" if len(lives) > 1 else "")
                        found.append((f"{whose}, {len(figures)} batches", *grown, grown.is_flat))
        return found

    def end(self) -> list[int]:
        """Ask everybody to end; returns the pids of all that must be gone."""
        for pid in self._stopped:
            self._send(pid, signal.SIGCONT)
        deadline = time.monotonic() + END_TIMEOUT_S
        for member in self.members:
            assert member.process.stdin is not None
            member.family += member.victims()
        for member in self.members:
            member.end(deadline)
        self._proxy.__exit__(None, None, None)
        for listener in self._listeners:
            listener.close()
        return sorted({pid for member in self.members for pid in member.family})


def report(soak: Soak, began: float, problems: list[str]) -> None:
    soaked_s = time.monotonic() - began
    print(f"soaked for {soaked_s:.0f} s: {soak.batches} batches, {soak.results} results as they must be")
    print(f"longest batch: {soak.longest_s:.1f} s")
    disturbances = ", ".join(f"{count} x {what}" for what, count in sorted(soak.disturbances.items()))
    print(f"disturbances: {disturbances or 'none'}")
    lives = ", ".join(f"{member.name} {member.lives}" for member in soak.members)
    repeated = ", ".join(f"{count} x {why}" for why, count in sorted(soak.repeated.items()))
    print(f"lives: {lives}; batches that were ordered once more: {repeated or 'none'}")
    for what, kib, descriptors, is_flat in soak.flatness():
        flat = "flat" if is_flat else "NOT FLAT"
        print(f"{what}: {kib:+d} KiB, {descriptors:+d} descriptors in the second half: {flat}")
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
        problems += [
            f"the {what} grows: {kib:+d} KiB, {descriptors:+d} descriptors"
            for what, kib, descriptors, is_flat in soak.flatness()
            if not is_flat
        ]
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
