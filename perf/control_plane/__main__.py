"""Rounds beside a control plane: ring rounds of 64 bytes without one, beside an idle one, and beside a busy one.

Two rings of three parties stand on this host at the same time, one without and one with the table [node], and play in
turns; what does not play sleeps. A busy control plane carries 1,000 messages of 64 bytes and opens 100 substreams a
second, each with a byte there and back. "In openers" means from alice's opener to bob's over their link, served by both
openers, which play the rounds in the same event loop; "beside" from a node that is no party to handlers in alice's node
process.

The share of a load is the CPU time that all processes use for it while nobody plays, of all cores. Idle may cost 2 % of
the rounds, a busy control plane its share and 5 % more. The rounds of one session stand in one line, so they can use
one core at a time: a second row says what the load's share of one core would leave them. "Apart from the load" is what
it takes from whoever merely stands on the same cores: rounds of the ring without a control plane, while the other ring
plays nothing and carries the load for longer than they last.
What would make it lie: other load, and few repeats; a ratio moves by some percent from play to play.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import socket
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from partywire.perf.report import Figure, print_figures, warn_if_busy

from .load import MESSAGES_PER_S, OPENS_PER_S, Done
from .player import PARTIES, ROLES, Play, Played, run_party, run_stranger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection

SIZES: Final = (1, 64, 256)
WARM_UP_ROUNDS: Final = 20
READY_S: Final = 60.0
PLAY_S: Final = 120.0
IDLE_RATIO_MIN: Final = 0.98
BUSY_EXCESS_MAX: Final = 0.05
APART_LOAD: Final = 4.0
"""How much longer than the rounds beside it, when nobody disturbs these, a load lasts that others carry."""
CORES_SHOWN_MIN: Final = 1e-3
"""What uses less is left out."""
MODES: Final = ("absent", "idle", "in openers", "beside")


class PlayFailed(Exception):
    """Raised when a process of the measurement failed; the text says which."""


@dataclass(frozen=True, slots=True)
class Ring:
    """All parties, by their pipes; alice's id and port if they have a control plane."""

    pipes: list[Connection]
    peer_id: str
    port: int

    def play(self, play: Play) -> list[Played]:
        """At all parties. Raises PlayFailed."""
        self.begin(play)
        return self.end()

    def begin(self, play: Play) -> None:
        """At all parties; `end` waits for it."""
        for pipe in self.pipes:
            pipe.send(play)

    def end(self) -> list[Played]:
        """Of what was begun. Raises PlayFailed."""
        return [heard(pipe, PLAY_S) for pipe in self.pipes]


@dataclass(frozen=True, slots=True)
class Sample:
    """One play: rounds a second, CPU seconds a second by role of the whole ring, and of the load's sender, the load."""

    rounds_per_s: float
    cpu: dict[str, float]
    stranger_cpu: float
    done: Done

    @property
    def round_us(self) -> float:
        """CPU time of all parties for one round; moves less than a rate where others use the cores."""
        return sum(self.cpu.values()) / self.rounds_per_s * 1e6

    @property
    def total_cpu(self) -> float:
        """Cores that were used."""
        return sum(self.cpu.values()) + self.stranger_cpu


def heard(pipe: Connection, timeout_s: float) -> Any:
    """The next word of a process. Raises PlayFailed."""
    try:
        if pipe.poll(timeout_s):
            return pipe.recv()
    except EOFError:
        raise PlayFailed("a process has ended; what it said is above") from None
    raise PlayFailed(f"a process said nothing for {timeout_s:g} s")


@contextmanager
def running(target: Any, *arguments: object) -> Iterator[Connection]:
    """A process, and our end of its pipe; it is over behind the block."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(*arguments, theirs))
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        try:
            ours.send(None)
        except OSError:
            pass  # it has ended by itself
        process.join(10)
        process.kill()
        process.join()
        ours.close()


@contextmanager
def ring(folder: str, sizes: Sequence[int], count: int) -> Iterator[Ring]:
    """So many parties; with a control plane if there is a folder for their identities."""
    with ExitStack() as stack:
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in PARTIES[:count]]
        ports = [listener.getsockname()[1] for listener in listeners]
        pipes = []
        for index, listener in enumerate(listeners):
            pipes.append(stack.enter_context(running(run_party, index, listener, ports, folder, tuple(sizes))))
        for listener in listeners:
            listener.close()
        first, *_ = [heard(pipe, READY_S) for pipe in pipes]
        yield Ring(pipes, first, ports[0])


class Stage:
    """Both rings and the stranger, while they stand."""

    def __init__(self, without: Ring, with_: Ring, stranger: Connection) -> None:
        self._without = without
        self._with = with_
        self._stranger = stranger

    def play(self, mode: str, sessions: int, rounds: int, seconds: float = 0.0) -> Sample:
        """Raises PlayFailed."""
        parties = self._without if mode == "absent" else self._with
        self._begin_beside(mode)
        played = parties.play(Play(sessions, rounds, mode == "in openers", seconds))
        cpu_s, done = self._end_beside(mode) or (0.0, played[0].done)
        slowest = max(one.seconds for one in played)
        cpu = {role: sum(one.cpu_s[role] for one in played) / slowest for role in ROLES}
        return Sample(rounds * sessions / slowest, cpu, cpu_s / slowest, done)

    def play_apart(self, mode: str, sessions: int, rounds: int, load_s: float) -> float:
        """Rounds a second of the parties without a control plane, while the others carry the load for so long.

        Raises:
            PlayFailed: also if the load was over first.
        """
        self._begin_beside(mode)
        self._with.begin(Play(0, 0, mode == "in openers", load_s))
        slowest = max(one.seconds for one in self._without.play(Play(sessions, rounds, has_load=False)))
        self._with.end()
        self._end_beside(mode)
        if slowest > load_s:
            raise PlayFailed(f"rounds took {slowest:.1f} s, and the load {load_s:.1f} s; try again with more --seconds")
        return rounds * sessions / slowest

    def _begin_beside(self, mode: str) -> None:
        if mode == "beside":
            self._stranger.send(True)
            heard(self._stranger, READY_S)

    def _end_beside(self, mode: str) -> tuple[float, Done] | None:
        """CPU seconds and the load of the stranger, if it had one."""
        if mode != "beside":
            return None
        self._stranger.send(False)
        cpu_s, done = heard(self._stranger, READY_S)
        return cpu_s, done


def measure(stage: Stage, sizes: Sequence[int], repeats: int, seconds: float) -> list[Figure]:
    """Raises PlayFailed."""
    cores = os.cpu_count() or 1
    shares = {
        mode: [stage.play(mode, 0, 0, seconds).total_cpu / cores for _ in range(repeats)]
        for mode in ("idle", "in openers", "beside")
    }
    made = [
        Figure(f"share of {cores} cores, nobody plays: {mode}", "%", tuple(100 * share for share in samples))
        for mode, samples in shares.items()
    ]
    for size in sizes:
        made += _measure_size(stage, size, repeats, seconds, {mode: median(found) for mode, found in shares.items()})
        if size == 1:
            made += _measure_apart(stage, repeats, seconds)
    return made


def _measure_apart(stage: Stage, repeats: int, seconds: float) -> list[Figure]:
    rounds = max(1, int(stage.play("absent", 1, WARM_UP_ROUNDS).rounds_per_s * seconds))
    kept: dict[str, list[float]] = {mode: [] for mode in MODES[2:]}
    for _ in range(repeats):
        for mode, found in kept.items():
            alone = stage.play("absent", 1, rounds).rounds_per_s
            found.append(stage.play_apart(mode, 1, rounds, APART_LOAD * seconds) / alone)
    return [
        Figure(f"1 session apart from the load, {mode}: rounds kept", "x", tuple(found)) for mode, found in kept.items()
    ]


def _measure_size(stage: Stage, size: int, repeats: int, seconds: float, shares: dict[str, float]) -> list[Figure]:
    trial = stage.play("absent", size, WARM_UP_ROUNDS)
    rounds = max(1, int(trial.rounds_per_s / size * seconds))
    for mode in MODES:
        stage.play(mode, size, WARM_UP_ROUNDS)
    samples: dict[str, list[Sample]] = {mode: [] for mode in MODES}
    for turn in range(repeats):
        for step in range(len(MODES)):  # each mode comes behind each other one
            mode = MODES[(step + turn) % len(MODES)]
            samples[mode].append(stage.play(mode, size, rounds))
    what = f"{size} session{'s' if size > 1 else ''}"
    made = [
        Figure(f"{what}, {mode}", "rounds/s", tuple(one.rounds_per_s for one in found))
        for mode, found in samples.items()
    ]
    for mode in MODES[1:]:
        pairs = zip(samples[mode], samples["absent"], strict=True)
        kept = [one.rounds_per_s / absent.rounds_per_s for one, absent in pairs]
        least = IDLE_RATIO_MIN if mode == "idle" else 1 - shares[mode] - BUSY_EXCESS_MAX
        made.append(Figure(f"{what}, {mode}: rounds kept", "x", tuple(kept), least))
        if size == 1 and mode != "idle":
            of_one = 1 - shares[mode] * (os.cpu_count() or 1) - BUSY_EXCESS_MAX
            made.append(Figure(f"{what}, {mode}: rounds kept, share of one core", "x", tuple(kept), of_one))
    for mode, found in samples.items():
        round_us = tuple(one.round_us for one in found)
        made.append(Figure(f"{what}, {mode}: CPU of a round, all parties", "us", round_us, lower_is_better=True))
    for mode in MODES[2:]:
        made += _load_figures(f"{what}, {mode}", samples[mode])
    for mode, found in samples.items():
        for role in ROLES:
            cores = tuple(one.cpu[role] for one in found)
            if median(cores) >= CORES_SHOWN_MIN:
                made.append(Figure(f"{what}, {mode}: CPU of {role}", "cores", cores))
    return made


def _load_figures(what: str, samples: Sequence[Sample]) -> list[Figure]:
    """Whether the load was kept up."""
    messages = tuple(one.done.messages / one.done.seconds for one in samples)
    opens = tuple(one.done.opens / one.done.seconds for one in samples)
    return [
        Figure(f"{what}: messages sent", "/s", messages, 0.95 * MESSAGES_PER_S),
        Figure(f"{what}: substreams opened", "/s", opens, 0.95 * OPENS_PER_S),
    ]


def main() -> None:
    description = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m partywire.perf.control_plane", description=description)
    parser.add_argument("--repeats", type=int, default=15, help="turns (15)")
    parser.add_argument("--seconds", type=float, default=1.0, help="about, for each play (1)")
    parser.add_argument("--sessions", default=",".join(map(str, SIZES)), help=f"({','.join(map(str, SIZES))})")
    parser.add_argument("--json", action="store_true", help="JSON lines instead of a table")
    parser.add_argument("--smoke", action="store_true", help="tiny: does it run at all?")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sessions.split(",")]
    warn_if_busy()
    repeats, seconds = (1, 0.1) if options.smoke else (options.repeats, options.seconds)
    if options.smoke:
        sizes = sizes[:1]
    count = 2 if options.smoke else len(PARTIES)
    try:
        with (
            TemporaryDirectory() as folder,
            ring("", sizes, count) as without,
            ring(folder, sizes, count) as with_,
            running(run_stranger, with_.peer_id, with_.port) as stranger,
        ):
            heard(stranger, READY_S)
            figures = measure(Stage(without, with_, stranger), sizes, repeats, seconds)
    except PlayFailed as error:
        sys.exit(f"{parser.prog}: {error}")
    print_figures(figures, json=options.json)


if __name__ == "__main__":
    main()
