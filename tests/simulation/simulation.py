"""One run: the world of one seed, what goes wrong in it, and the judgement.

What is promised, and checked of every run:

- a receiver gets what its peer sent, in order, each once, or its session fails with a typed error (`ledger`);
- a session fails only if a link of it was harmed, `PeerLost` names a peer whose link was, and other links stay up;
- a session that fails somewhere fails everywhere, or was done there, within the time that the heartbeat allows;
- every call ends within a ceiling of time and of steps, closing too; no exception but typed ones, none in a callback;
- a batch has every result, in its place and of one attempt, alike at all parties; it fails only when a party died;
- a session that is reset gets nothing of its former lives;
- without harm everything succeeds, and every link ends clean at both ends;
- nobody sleeps while there is something for it in a ring;
- what a party holds stays within its bounds, and is nothing at the end.
"""

from __future__ import annotations

import contextlib
import os
import random
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final
from unittest import mock

from partywire.engine import control_connection, multiplexer, polling_in_core
from partywire.engine import keeper as keeper_module
from partywire.engine.commands import LinkEnded
from partywire.shm import fence, segment
from partywire.workers import batch_attempt, child_worker
from partywire.workers import worker as worker_module
from partywire.workers.config import PartyConfig
from partywire.workers.errors import PeerLost
from partywire.workers.link_life import BrokenLane
from partywire.workers.scheduler import Scheduler

from . import chatter
from .family import Family, SimDoorbell, SimGateway
from .ledger import Ledger
from .network import Network
from .plan import SUDDEN, Fault, FaultKind, draw_plan
from .program import Program
from .world import MASK, Violation, World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

NAMES: Final = ("alice", "bob", "charlie", "dave")

OPEN_S: Final = 60.0
TRAFFIC_S: Final = 400.0
RECOVER_S: Final = 30.0
RECONNECT_S: Final = 5.0
"""How long a common step waits for a link that was lost."""
CLOSE_S: Final = 40.0
STEPS_MAX: Final = 150_000
"""Of one stage. A long run takes some ten thousands."""

CHECK_INTERVAL: Final = 64
"""Steps between two looks at what everybody holds."""

GATEWAY_AWAY_S: Final = 0.05

MESSAGE_S: Final = 1.0
"""What the news of a failure may take where nothing holds it up."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a run was, for whoever counts."""

    seed: int
    fingerprint: int
    steps: int
    seconds: float
    harmed: int
    failures: int
    messages: int
    trace: list[str]


class SimPolling:
    """Whether a process looks again before it sleeps: chance, instead of a real clock."""

    world: World
    chance: float

    def look_again(self) -> bool:
        return self.chance > 0 and self.world.random.random() < self.chance

    def found(self) -> None:
        pass


def _anonymous_memory(size: int) -> int:
    """What a ring lies in: the same to both its ends, and made in a third of the time of a block in /dev/shm."""
    fd = os.memfd_create("partywire-simulated", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    return fd


class Simulation:
    """The run of one seed."""

    def __init__(
        self,
        seed: int,
        *,
        is_tracing: bool = False,
        plant: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
        substreams: bool = False,
    ) -> None:
        """`plant`: a context in which the engine has a bug. `substreams`: whether control connections carry them, and
        others than that of the control codec are busy (`chatter`)."""
        self.world = world = World(seed, is_tracing=is_tracing)
        self.plan = draw_plan(world.random)
        self._plant = plant
        self._has_substreams = substreams
        world.preempt_chance = self.plan.preempt_chance
        world.on_pause = self._check_sleepers
        self.network = Network(world, self.plan.capacity, self.plan.latency_s, self.plan.slice_chance)
        self.ledger = Ledger(world)
        self.harmed = self.ledger.excuses
        self.families: list[Family] = []  # of each party the one that lives, or lived last
        self._all_families: list[Family] = []
        self._killed: list[int] = []  # parties that are to be started again
        self._mended_at = 0.0  # when the last cable is
        self._failures = 0  # before the present stage
        self._was_harmed = False  # before the present stage
        self.programs: list[Program] = []
        self._outages_s = 0.0
        self._has_died = False  # a party did, in the present stage or for good
        self._faults = list(self.plan.faults)
        self._next_check = self._next_look = 0
        self._stage = self._stage_began = 0
        self._has_changed = False  # whether the end of a stage may have come

    # Running.

    def run(self) -> Report:
        """Run it to its end.

        Raises:
            Violation: a promise was broken. What was made is given back in any case.
        """
        with self._surroundings():
            try:
                self._start()
                limits_s = [OPEN_S, *(TRAFFIC_S for _ in self.plan.phases)]
                for stage, limit_s in enumerate(limits_s, 1):
                    self._run_stage(lambda stage=stage: self._has_reached(stage), limit_s)  # type: ignore[misc]
                    self._check_stage()
                    self._recover(stage)
                    for program in self._living():
                        program.open_gate()
                    self._stage = stage
                self._run_stage(lambda: all(program.is_over for program in self._living()), CLOSE_S)
                self._run_stage(self._is_quiet, CLOSE_S)
                self._check_end()
            except Violation as violation:
                raise Violation(f"seed {self.world.seed}: {violation}") from violation
            finally:
                self._tear_down()
        world = self.world
        received = self.ledger.messages + sum(self.ledger.received.values())
        return Report(
            world.seed,
            world.fingerprint,
            world.steps,
            world.now - 1000.0,
            len(self.harmed) + self._was_harmed,
            self._failures + len(self.ledger.failures),
            received,
            world.trace,
        )

    def _recover(self, stage: int) -> None:
        """What was killed is started again, cables are mended, and then all links come up again by themselves."""
        self._faults = [fault for fault in self._faults if fault.stage >= stage]
        killed, self._killed = self._killed, []
        for index in killed:
            self._start_party(index, stage)
        if killed:
            self._run_stage(lambda: self._has_reached(stage), OPEN_S)
        if self.harmed:
            self._was_harmed = True
            self._failures += len(self.ledger.failures)
            self.ledger.forget()
            settled_at = max(self.world.now, self._mended_at) + self.plan.heartbeat_s + MESSAGE_S
            self.world.run_until(lambda: False, settled_at, STEPS_MAX)  # losses are noticed by then
        self._run_stage(self._is_linked, RECOVER_S)
        # From here on all that fails needs a new reason, or a party that is gone for good.
        present = {program.index for program in self._living() if program.is_open}
        for pair in [pair for pair in self.harmed if pair <= present]:
            del self.harmed[pair]
        for party in range(self.plan.parties):
            for peer in range(self.plan.parties):
                if peer != party and party not in present:
                    self.harmed.setdefault(frozenset((party, peer)), self.world.now)
        for program in self.programs:
            program.errors.clear()
            program.failed_batches.clear()
        self._has_died = len(present) < self.plan.parties
        self._outages_s = 0.0

    def _is_linked(self) -> bool:
        """Whether all parties that are there have their links, at both ends in the same epoch."""
        self._has_changed = True  # nobody tells when this comes true
        present = [program for program in self._living() if program.is_open]
        for program in present:
            for other in present:
                if other is not program:
                    ours = program.link_to(other.index)
                    if not ours.is_up or ours.epoch != other.link_to(program.index).epoch:
                        return False
        return True

    @contextlib.contextmanager
    def _surroundings(self) -> Iterator[None]:
        """Whatever the engine takes from the machine and would be another thing in the next run."""
        world = self.world
        polling = type("Polling", (SimPolling,), {"world": world, "chance": self.plan.poll_chance})
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.object(SimDoorbell, "world", world, create=True))
            stack.enter_context(mock.patch.object(keeper_module, "Doorbell", SimDoorbell))
            stack.enter_context(mock.patch.object(multiplexer, "Polling", polling))
            stack.enter_context(mock.patch.object(polling_in_core, "core", None))  # it looks at a clock of its own
            stack.enter_context(mock.patch.object(worker_module, "Polling", polling))
            for module in (batch_attempt, child_worker):
                stack.enter_context(mock.patch.object(module, "Scheduler", partial(Scheduler, pass_time_ns=MASK)))
            stack.enter_context(mock.patch.object(random, "uniform", world.random.uniform))  # jitter
            stack.enter_context(mock.patch.object(segment, "create_unnamed", _anonymous_memory))
            stack.enter_context(self._plant())
            yield

    def _start(self) -> None:
        fence.register()
        for index in range(self.plan.parties):
            self._start_party(index)

    def _start_party(self, index: int, stage: int = 0) -> None:
        """Start a party; again, if the others are further than the beginning."""
        names = NAMES[: self.plan.parties]
        config = PartyConfig(
            name=names[index],
            parties={name: ("127.0.0.1", port) for port, name in enumerate(names, 1)},
            heartbeat_s=self.plan.heartbeat_s,
            links_per_io_process=self.plan.links_per_io_process,
            workers=self.plan.workers[index],
            reconnect_s=RECONNECT_S,
            inbox_mib=1,
        )
        sizes = {"ring_size": self.plan.ring_size, "bulk_ring_size": max(self.plan.ring_size, 16_384)}
        options = sizes | {"control_ring_size": 16_384}
        if self._has_substreams:
            options |= chatter.options_of(index, self.world.seed)
        family = Family(self.world, self.network, config, options, self._change, len(self._all_families))
        program = Program(family, self.plan, self.ledger, self._change, stage)
        self._all_families.append(family)
        self.families[index : index + 1] = [family]
        self.programs[index : index + 1] = [program]

    def _run_stage(self, condition: Callable[[], bool], limit_s: float) -> None:
        self._has_changed = True
        self._stage_began = self._next_look = self.world.steps

        def is_done() -> bool:
            if self.world.steps >= self._next_look:
                self._look()
            if not self._has_changed:
                return False
            self._has_changed = False
            self._check_programs()
            return condition()

        if not self.world.run_until(is_done, self.world.now + limit_s, STEPS_MAX):
            where = ", ".join(
                f"{program.family.name} in stage {program.stage}" for program in self._living() if not program.is_over
            )
            raise Violation(f"no progress within {limit_s:g} s and {STEPS_MAX} steps: {where}")

    def _change(self) -> None:
        """A program came to its next stage, or ended, or a process did."""
        self._has_changed = True

    def _look(self) -> None:
        """Between two steps: faults that are due, bounds."""
        steps = self.world.steps
        due = (self._stage, steps - self._stage_began)
        while self._faults and (self._faults[0].stage, self._faults[0].step) <= due:
            self._strike(self._faults.pop(0))
            self._has_changed = True
        if steps >= self._next_check:
            self._next_check = steps + CHECK_INTERVAL
            self._check_bounds()
        coming = [fault.step + self._stage_began for fault in self._faults[:1] if fault.stage == self._stage]
        self._next_look = min([self._next_check, *coming])

    def _check_programs(self) -> None:
        for program in self._living():
            if program.task.done() and (error := program.task.exception()) is not None:
                if isinstance(error, Violation):
                    raise error
                raise Violation(f"{program.family.name}: an error without a type of ours: {error!r}") from error

    @property
    def _last_stage(self) -> int:
        """In which everybody closes."""
        return len(self.plan.phases) + 1

    def _living(self) -> list[Program]:
        return [program for program in self.programs if not program.family.is_dead]

    def _has_reached(self, stage: int) -> bool:
        return all(program.stage >= stage for program in self._living())

    def _is_quiet(self) -> bool:
        """Whether every process of every party has ended."""
        return all(family.supervisor.has_ended for family in self.families)

    def _tear_down(self) -> None:
        for family in self._all_families:
            family.kill()
        for family in self._all_families:
            family.tear_down()

    # What goes wrong.

    def _strike(self, fault: Fault) -> None:
        family, world, network = self.families[fault.party], self.world, self.network
        if family.is_dead:
            return
        struck: list[int] | None = []  # peers whose link it harms; None: it did not happen
        ends = ((fault.party, fault.peer), (fault.peer, fault.party))
        match fault.kind:
            case FaultKind.PAUSE | FaultKind.FREEZE:
                struck = self._stop(family, fault)
            case FaultKind.HICCUP | FaultKind.PARTITION | FaultKind.DEAF:
                for source, target in ends[: 1 if fault.kind is FaultKind.DEAF else 2]:
                    network.cut(source, target)
                    world.after(fault.duration_s, network.heal, source, target)
                struck = [] if fault.kind is FaultKind.HICCUP else [fault.peer]
            case FaultKind.CUT:
                streams = network.between(*ends[0])
                if streams:
                    streams[fault.choice % len(streams)].take_reset()
                struck = [fault.peer] if streams else None
            case FaultKind.KILL_IO_PROCESS:
                process = family.supervisor.serving(fault.peer)
                struck = None if process is None else process.peers
                if process is not None:
                    process.kill()
                    family.supervisor.on_io_process_end(process, "was killed by signal 9 (SIGKILL)")
            case FaultKind.KILL_PARTY:
                struck = [peer for peer in range(self.plan.parties) if peer != fault.party]
                family.kill()
                self._has_died = True
                if fault.choice % 3:
                    self._killed.append(fault.party)
            case FaultKind.KILL_WORKER:
                child = family.supervisor.child(1)
                struck = None if child is None else [peer for peer in range(self.plan.parties) if peer != fault.party]
                if child is not None:
                    family.supervisor.kill_child(child)
            case FaultKind.KILL_GATEWAY:
                family.gateway.kill()
                world.after(GATEWAY_AWAY_S, self._restart_gateway, family)
        if struck is None:
            return
        world.note(f"FAULT {fault.kind.value}: {fault}")
        if fault.duration_s and fault.kind not in SUDDEN:
            self._outages_s += fault.duration_s
            self._mended_at = max(self._mended_at, world.now + fault.duration_s)
        for peer in struck:
            self.harmed.setdefault(frozenset((fault.party, peer)), world.now)

    def _stop(self, family: Family, fault: Fault) -> list[int]:
        """SIGSTOP, and SIGCONT later. An opener that is stopped harms nobody, however long it takes, until it has to
        take leave in time."""
        processes = [(family.loop, []), *((process.loop, process.peers) for process in family.supervisor.io_processes)]
        loop, peers = processes[fault.choice % len(processes)]
        self.world.stop(loop, fault.duration_s)
        if fault.kind is FaultKind.PAUSE:
            return []
        is_late = self._stage == self._last_stage and fault.duration_s > family.options.close_timeout_s / 2
        if loop is family.loop and is_late:
            return [peer for peer in range(self.plan.parties) if peer != fault.party]
        return peers

    def _restart_gateway(self, family: Family) -> None:
        if not family.is_dead and not family.supervisor.is_over and family.gateway.loop.is_dead:
            family.gateway = SimGateway(family)

    # Judging.

    def _check_bounds(self) -> None:
        for family in self.families:
            if family.is_dead:
                continue
            for loop, worker in family.workers:
                if not 0 <= worker.inbox_size <= worker.inbox_size_max + worker.message_size_max:
                    raise Violation(f"{loop.name} holds {worker.inbox_size} bytes in its inbox")
            for process in family.supervisor.io_processes:
                for keeper in process.keepers.values():
                    mux = keeper._attempt.multiplexer if keeper._attempt is not None else None
                    if mux is not None and mux._control.unsent_size > control_connection.CONTROL_UNSENT_LIMIT:
                        raise Violation(f"{process.loop.name} holds {mux._control.unsent_size} bytes for its peer")
                    if mux is not None and mux._lane.pending_size > control_connection.CONTROL_PENDING_MAX:
                        raise Violation(f"{process.loop.name} holds {mux._lane.pending_size} bytes for its opener")

    def _check_sleepers(self) -> None:
        """Everybody waits: for nothing that is there already."""
        now = self.world.now
        for family in self.families:
            if family.is_dead or family.party._worker is None:
                continue
            for loop, worker in family.workers if not family.supervisor.is_closing else family.workers[:1]:
                for receiver in worker._receivers if loop.stopped_until <= now else ():
                    if isinstance(receiver, BrokenLane) or not (receiver.is_over or receiver.reader.is_empty()):
                        raise Violation(f"{loop.name} sleeps although its peer has sent something")
            for process in family.supervisor.io_processes:
                if process.loop.is_dead or process.loop.stopped_until > now:
                    continue
                for keeper in process.keepers.values():
                    mux = keeper._standing
                    if mux is not None and not mux._is_over and any(pump.has_work for pump in mux._served):
                        raise Violation(f"{process.loop.name} sleeps although its worker has sent something")

    def _check_stage(self) -> None:
        """Everybody has come to the next gate."""
        living = self._living()
        if not self.harmed:
            for program in living:
                for error in program.errors:
                    raise Violation(f"{program.family.name} failed although nothing was wrong: {error}") from error
        if not self._has_died and all(program.is_open for program in living):
            for program in living:
                for error in program.failed_batches:
                    raise Violation(f"{program.family.name}: a batch that could run again failed: {error}") from error
        for (session, party), failure in self.ledger.failures.items():
            if not self.harmed:
                raise Violation(f"session {session} failed at party {party} without a reason: {failure.error}")
            if isinstance(failure.error, PeerLost):
                peer = self.families[party].party.names.index(failure.error.peer)
                if frozenset((party, peer)) not in self.harmed:
                    raise Violation(f"session {session}: party {party} lost {peer}, whose link is well")
        self._check_failures_reach_all({program.index for program in living})
        for program in living:
            self._check_links_stay(program)

    def _check_failures_reach_all(self, living: set[int]) -> None:
        ledger = self.ledger
        for session in sorted({session for session, _ in ledger.failures}):
            times = [failure.at for (other, party), failure in ledger.failures.items() if other == session]
            for party in living:
                program = self.programs[party]
                is_told = bool({(session, party)} & (ledger.failures.keys() | ledger.done) or program.errors)
                if program.is_open and not is_told:
                    raise Violation(f"session {session} failed elsewhere, and party {party} never heard of it")
            limit_s = self.plan.heartbeat_s + MESSAGE_S + 20 * self.plan.latency_s[1] + self._outages_s
            if max(times) - min(times) > limit_s:
                raise Violation(f"session {session}: the failure took {max(times) - min(times):.3f} s to reach all")

    def _check_links_stay(self, program: Program) -> None:
        worker = program.family.worker
        if worker is None or not program.is_open:
            return
        for link in worker.links.values():
            other = self.programs[link.index]
            if other.is_open and frozenset((program.index, link.index)) not in self.harmed and not link.is_up:
                names = f"{program.family.name} lost its link to {link.name}"
                raise Violation(f"{names}, which nothing harmed: {link.cause}")

    def _check_end(self) -> None:
        for program in self._living():
            family = program.family
            if family.worker is not None and family.worker.inbox_size:
                raise Violation(f"{family.name} counts {family.worker.inbox_size} bytes in an inbox that is gone")
            for peer, ended in family.supervisor.ended.items():
                is_well = program.is_open and self.programs[peer].is_open
                is_well = is_well and frozenset((program.index, peer)) not in self.harmed
                if is_well and not (isinstance(ended, LinkEnded) and ended.clean):
                    raise Violation(f"the link of {family.name} to {peer} did not end clean: {ended}")
        if not (self.harmed or self._was_harmed):
            self._check_everything_done()

    def _check_everything_done(self) -> None:
        ledger = self.ledger
        ends = sum(phase.sessions if phase.kind != "batch" else 1 for phase in self.plan.phases) * self.plan.parties
        ends += self.plan.parties - 1 if self.plan.farewell else 0
        if len(ledger.done) != ends:
            raise Violation(f"{len(ledger.done)} ends of sessions are done, not {ends}")
        for family in self.families:
            if len(family.supervisor.ended) != self.plan.parties - 1:
                raise Violation(f"{family.name} was told of {len(family.supervisor.ended)} links that ended")


def simulate(seed: int, *, is_tracing: bool = False) -> Report:
    """Run one seed.

    Raises:
        Violation: a promise was broken; its text names the seed.
    """
    return Simulation(seed, is_tracing=is_tracing).run()
