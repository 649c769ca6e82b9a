"""Where does a message's time go? `python -m partywire.perf.profile [--sessions N] [--size BYTES] [--json]`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import orjson

from partywire.workers.hot import IS_COMPILED

from ..matrix import parse_size, size_text
from ..party_set import ContenderFailed
from ..report import machine, print_table, warn_if_busy
from ..syscalls import SyscallsUnavailable
from . import running
from .balance import PER_MESSAGE, Line, cpu_lines, hop_lines, latency_lines, run_lines, wakeup_lines
from .instructions import InstructionsUnavailable, instructions_per_message
from .wakeups import OtherSideGone, bell_us, socket_us
from .walk import Walk, WalkStuck

if TYPE_CHECKING:
    from collections.abc import Sequence

LAPS = 400
WAKEUPS = 1000
WALK_SIZE_MAX = 64 << 20
"""Of all messages of a lap together; more laps than fit into that are not worth waiting for."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m partywire.perf.profile",
        description="Where a message's time goes: every hop, every wake-up, and what two real parties do beside it.",
    )
    parser.add_argument("--sessions", type=positive, default=64, help="sessions that play ping-pong at once (64)")
    parser.add_argument("--size", type=size, default=64, help="bytes of a message, such as 64 or 4K (64)")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long real parties play, each time (1)")
    parser.add_argument(
        "--instructions", action="store_true", help="count instructions of both cores too, with valgrind (a minute)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per figure")
    parser.add_argument("--smoke", action="store_true", help="tiny: does it run at all? The figures mean nothing")
    options = parser.parse_args(arguments)
    if not options.smoke:
        warn_if_busy()
    try:
        lines = profile(options.sessions, options.size, options.seconds, is_smoke=options.smoke)
    except (ContenderFailed, OtherSideGone, WalkStuck) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.instructions:
        lines += instruction_lines(options.sessions, options.size)
    if options.json:
        print_json(lines, options.sessions, options.size)
    else:
        print(f"{options.sessions} sessions, {size_text(options.size)}, {core_name()}; microseconds are medians\n")
        print_lines(lines)
    return 0


def profile(sessions: int, size: int, seconds: float, *, is_smoke: bool) -> list[Line]:
    """Everything, one after the other: nothing else of ours runs while something is timed.

    Raises:
        ContenderFailed, OtherSideGone, WalkStuck.
    """
    laps, wakeups = (4, 20) if is_smoke else (LAPS, WAKEUPS)
    seconds = 0.02 if is_smoke else seconds
    alone = walk(1, size, laps)
    together = alone if sessions == 1 else walk(sessions, size, laps)
    bells, sockets = bell_us(wakeups), socket_us(wakeups)
    run_alone = running.run(1, size, seconds)
    run_together = run_alone if sessions == 1 else running.run(sessions, size, seconds)
    try:
        calls = running.system_calls(sessions, size, seconds)
    except SyscallsUnavailable as reason:
        print(f"system calls are not counted: {reason}", file=sys.stderr)
        calls = None
    return [
        *hop_lines(together, "hop"),
        *([] if sessions == 1 else hop_lines(alone, "hop, 1 session")),
        *wakeup_lines(bells, sockets),
        *latency_lines(run_alone, alone, bells, sockets),
        *cpu_lines(run_together, together),
        *run_lines(run_together, calls),
    ]


def walk(sessions: int, size: int, laps: int) -> dict[str, tuple[float, ...]]:
    """Raises WalkStuck."""
    with Walk(sessions, size) as walked:
        return walked.measure(max(2, min(laps, WALK_SIZE_MAX // (sessions * size))))


def instruction_lines(sessions: int, size: int) -> list[Line]:
    """One line for each core that is there."""
    lines = []
    for core in ("compiled", "pure") if IS_COMPILED else ("pure",):
        print(f"counting instructions of the {core} core ...", file=sys.stderr, flush=True)
        try:
            value = instructions_per_message(sessions, size, core)
        except InstructionsUnavailable as reason:
            print(f"instructions are not counted: {reason}", file=sys.stderr)
            break
        lines.append(Line("instructions", f"{core} core", value, PER_MESSAGE, "all hops, user space, by callgrind"))
    return lines


def print_lines(lines: Sequence[Line]) -> None:
    rows, before = [], ""
    for line in lines:
        spread = "" if line.spread is None else f"{figure(line.spread[0])} .. {figure(line.spread[1])}"
        rows.append(
            (line.part if line.part != before else "", line.name, figure(line.value), line.unit, spread, line.note)
        )
        before = line.part
    print_table(("part", "what", "value", "", "10 % .. 90 %", ""), rows)


def print_json(lines: Sequence[Line], sessions: int, size: int) -> None:
    where = machine()
    for line in lines:
        row = asdict(line) | {"sessions": sessions, "size": size, "core": core_name(), "machine": where}
        print(orjson.dumps(row).decode(), flush=True)


def figure(value: float) -> str:
    """Three digits or thousandths."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def core_name() -> str:
    return "compiled core" if IS_COMPILED else "pure Python"


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
