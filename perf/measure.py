"""The whole measurement: every contender visits every cell several times, and they take turns.

Between the command (command.py) and single visits (run.py). Contenders take turns so that what changes on the machine
meanwhile, such as its clock or somebody else's work, meets all of them. A contender that fails has a row that says so,
and does not end the measurement.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .contender import CONTENDERS
from .party_set import ContenderFailed
from .rows import compare, failed_row, floor_row, measured_row
from .run import visit
from .syscalls import SyscallsUnavailable, count_syscalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .floors import FloorResult
    from .matrix import Cell
    from .rows import Row
    from .run import Sample

FLOOR_NAMES = ("c-epoll", "c-split")

USUAL_RIVALS = ("uvloop", "uvloop-joined", "pyzmq", "mpi")
"""The fastest ones; the others are never near them."""

OTHERS_CORES_MAX = 0.1
"""More of a core than this in use by somebody else during a play makes the play doubtful."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure."""

    cells: Sequence[Cell]
    contenders: Sequence[str]
    """Names, of floors too, in the order in which they take turns."""
    seconds: float
    repeats: int
    with_syscalls: bool = False


@dataclass(slots=True)
class Found:
    """What is known of one contender in one cell by now."""

    samples: list[Sample] = field(default_factory=list)
    floors: list[FloorResult] = field(default_factory=list)
    error: str | None = None
    is_offered: bool = True
    is_hopeless: bool = False
    """Its parties did not meet, which takes half a minute to find out, and is not tried in further cells."""
    syscalls: dict[str, float] | None = None


def measure(plan: Plan, say: Callable[[str], None]) -> Iterator[list[Row]]:
    """The rows of each cell, as soon as it is done."""
    hopeless: dict[str, Found] = {}
    for number, cell in enumerate(plan.cells, 1):
        found = {name: hopeless.get(name) or Found() for name in plan.contenders}
        for turn in range(1, plan.repeats + 1):
            for name, state in found.items():
                if state.error is None:
                    take_turn(cell, name, plan, state)
                    say(f"[{number}/{len(plan.cells)}, {turn}/{plan.repeats}] {cell}: {name} {outcome(cell, state)}")
        hopeless = {name: state for name, state in found.items() if state.is_hopeless}
        if plan.with_syscalls:
            for name, state in found.items():
                if state.samples:
                    say(f"[{number}/{len(plan.cells)}] {cell}: {name}, counting system calls")
                    state.syscalls = syscalls_or_none(cell, name, plan.seconds, say)
        rows = [row_of(cell, name, state) for name, state in found.items()]
        compare(rows)
        yield rows


def take_turn(cell: Cell, name: str, plan: Plan, state: Found) -> None:
    """One visit of one contender; what it found, or why not, is added to `state`."""
    try:
        if name in FLOOR_NAMES:
            from .floors import FloorUnsupported, run_floor

            try:
                state.floors.append(run_floor(name, cell.work, plan.seconds))
            except FloorUnsupported as reason:
                state.error, state.is_offered = str(reason), False
        else:
            state.samples.append(visit(name, cell.work, plan.seconds, cell.link))
    except ContenderFailed as failed:
        state.error, state.is_offered = str(failed), failed.is_offered
        state.is_hopeless = failed.is_offered and not failed.was_open
    except Exception as error:
        state.error = f"{type(error).__name__}: {error}"


def outcome(cell: Cell, state: Found) -> str:
    """The last visit in a few words, for whoever watches."""
    if state.error is not None:
        return f"- {state.error}"
    last = state.samples[-1].rate if state.samples else state.floors[-1].rate
    return f"{last:,.0f} {cell.work.unit}s/s"


def row_of(cell: Cell, name: str, state: Found) -> Row:
    """A contender that failed once has no figures: those of its better moments would not be comparable."""
    is_floor = name in FLOOR_NAMES
    if state.error is not None:
        return failed_row(cell, name, state.error, is_offered=state.is_offered, is_floor=is_floor)
    if is_floor:
        return floor_row(cell, name, state.floors)
    return measured_row(cell, name, state.samples, state.syscalls)


def syscalls_or_none(cell: Cell, name: str, seconds: float, say: Callable[[str], None]) -> dict[str, float] | None:
    """System calls per message, by name."""
    try:
        return count_syscalls(name, cell, seconds)
    except (ContenderFailed, SyscallsUnavailable) as reason:
        say(f"no system calls of {name}: {reason}")
        return None


def chosen(text: str) -> list[str]:
    """The contenders that `--contenders` names, in the order of the tables.

    Raises:
        ValueError: one of the names is unknown; says which there are.
    """
    ours = [name for name, contender in CONTENDERS.items() if contender.is_ours]
    rivals = [name for name, contender in CONTENDERS.items() if not contender.is_ours]
    floors = list(FLOOR_NAMES) if shutil.which("cc") else []
    groups = {
        "usual": [ours[0], *USUAL_RIVALS, *floors],
        "ours": ours,
        "rivals": rivals,
        "floors": floors,
        "all": [*ours, *rivals, *floors],
    }
    names: set[str] = set()
    for word in filter(None, (part.strip() for part in text.split(","))):
        if word not in groups and word not in CONTENDERS and word not in FLOOR_NAMES:
            known = ", ".join([*groups, *CONTENDERS, *FLOOR_NAMES])
            raise ValueError(f"there is no contender {word}; there are {known}")
        names.update(groups.get(word, [word]))
    return [name for name in (*CONTENDERS, *FLOOR_NAMES) if name in names]


def present(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Those that can run here, and those whose libraries are not installed."""
    missing = [name for name in names if name in CONTENDERS and CONTENDERS[name].missing()]
    return [name for name in names if name not in missing], missing
