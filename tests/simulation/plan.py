"""What one seed means: the sizes and speeds of a run, and what goes wrong in it.

Drawn from the world's chance before anything runs. Probabilities are themselves drawn for each run, so that some runs
are calm and some are full of one kind of trouble. Faults come at a step of a stage and not at a time: steps are dense
where something happens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

STEPS_PER_LINK: Final = 150
"""About what a link takes to come up, and what small traffic on it takes; faults come within it."""


class FaultKind(Enum):
    """What may happen. The first ones are harmless as long as they are short."""

    PAUSE = "a process is stopped for a moment"
    HICCUP = "a cable is out for a moment"
    KILL_GATEWAY = "a gateway is killed and started again"
    CUT = "a connection is reset"
    PARTITION = "a cable is out for long"
    DEAF = "a cable carries one direction only, for long"
    FREEZE = "a process is stopped for long"
    KILL_IO_PROCESS = "an I/O process is killed"
    KILL_PARTY = "a party is killed"
    KILL_WORKER = "a further worker is killed"


BENIGN: Final = (FaultKind.PAUSE, FaultKind.HICCUP, FaultKind.KILL_GATEWAY)
HARMFUL: Final = tuple(kind for kind in FaultKind if kind not in (*BENIGN, FaultKind.KILL_WORKER))


SUDDEN: Final = (FaultKind.CUT, FaultKind.KILL_IO_PROCESS, FaultKind.KILL_PARTY, FaultKind.KILL_WORKER)
"""What happens at once, and does not last."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that happens. `party`, `peer` and `choice` say where, as far as the kind asks."""

    stage: int
    step: int
    """Of the stage."""
    kind: FaultKind
    party: int
    peer: int
    choice: int
    duration_s: float


@dataclass(slots=True)
class Phase:
    """One use of the links: sessions are made, and traffic of a kind flows on them."""

    kind: str
    sessions: int
    messages: int
    sizes: list[int]
    is_bulk: bool = False
    """Whether its sessions are of the bulk class; those of a batch never are."""


@dataclass(slots=True)
class Plan:
    """Everything that is drawn in advance."""

    parties: int
    latency_s: tuple[float, float]
    slice_chance: float
    capacity: int
    ring_size: int
    heartbeat_s: float
    links_per_io_process: int
    workers: list[int]
    """Of each party."""
    preempt_chance: float
    poll_chance: float
    starts_s: list[float]
    phases: list[Phase]
    farewell: int
    """Messages that party 0 sends to everybody just before it closes; 0: nobody does."""
    closes_s: list[float]
    faults: list[Fault] = field(default_factory=list)

    @property
    def is_benign(self) -> bool:
        """Whether nothing happens that the engine does not have to survive without a word."""
        return all(fault.kind in BENIGN for fault in self.faults)


WORKERS_CHANCE: Final = 0.15
"""Of a run in which parties may have a further worker; half of its phases are batches, which alone use that."""

PHASES: Final = ("stream", "rounds", "jobs", "arrays", "resets", "batch")


def draw_plan(chance: random.Random) -> Plan:
    """The plan of a run."""
    parties = chance.choice((2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 4))
    latency_s = chance.uniform(1e-5, 1e-3)
    heartbeat_s = chance.uniform(1.5, 5.0)
    ring_size = chance.choice((4096, 16_384, 65_536))
    plan = Plan(
        parties=parties,
        latency_s=(latency_s, latency_s * chance.choice((1, 2, 20))),
        slice_chance=chance.choice((0.0, 0.1, 0.1, 0.7)),
        capacity=chance.choice((512, 4096, 4096, 65_536)),
        ring_size=ring_size,
        heartbeat_s=heartbeat_s,
        links_per_io_process=chance.choice((1, 1, parties - 1)),
        workers=[chance.choice((1, 2)) for _ in range(parties)] if chance.random() < WORKERS_CHANCE else [1] * parties,
        preempt_chance=chance.choice((0.0, 0.1, 0.5)),
        poll_chance=chance.choice((0.0, 0.0, 0.2)),
        starts_s=[chance.choice((0.0, 0.01, 1.0)) * chance.random() for _ in range(parties)],
        phases=[],
        farewell=chance.choice((0, 1, 4)),
        closes_s=[chance.choice((0.0, 0.01, 0.1)) * chance.random() for _ in range(parties)],
    )
    kinds = (*PHASES, *(len(PHASES) * ("batch",))) if max(plan.workers) > 1 else PHASES
    plan.phases = [_draw_phase(chance, ring_size, kinds) for _ in range(chance.choice((1, 1, 1, 2)))]
    plan.faults = _draw_faults(chance, plan)
    return plan


def _draw_phase(chance: random.Random, ring_size: int, kinds: Sequence[str]) -> Phase:
    largest = chance.choice((64, 64, 64, 64, 2000, ring_size))
    kind = chance.choice(kinds)
    messages = chance.randint(1, 2 if kind in ("resets", "batch") else 4)  # which use a session several times
    sizes = [int(largest ** chance.random()) for _ in range(8)]
    return Phase(kind, chance.choice((1, 1, 2, 3)), messages, sizes, kind != "batch" and sizes[0] % 3 == 0)


def _draw_faults(chance: random.Random, plan: Plan) -> list[Fault]:
    benign = chance.choice((0, 0, 1, 2))
    harmful = chance.choice((0, 0, 1, 1, 2))
    harms = (*HARMFUL, FaultKind.KILL_WORKER, FaultKind.KILL_WORKER) if max(plan.workers) > 1 else HARMFUL
    kinds = [chance.choice(BENIGN) for _ in range(benign)] + [chance.choice(harms) for _ in range(harmful)]
    links = plan.parties * (plan.parties - 1) // 2
    faults = []
    for kind in kinds:
        party = chance.randrange(plan.parties)
        peer = chance.choice([other for other in range(plan.parties) if other != party])
        # All harmless outages together must stay well below what a heartbeat forgives.
        brief_s = plan.heartbeat_s / 8 * chance.random()
        long_s = plan.heartbeat_s * chance.uniform(0.3, 3.0)
        duration_s = brief_s if kind in BENIGN else long_s
        stage = chance.choice((0, *(2 * list(range(1, len(plan.phases) + 2)))))
        step = int((STEPS_PER_LINK * links) ** chance.random())
        faults.append(Fault(stage, step, kind, party, peer, chance.randrange(1 << 16), duration_s))
    return sorted(faults, key=lambda fault: (fault.stage, fault.step))
