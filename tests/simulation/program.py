"""What the opener of a simulated party does: opens, uses sessions in several ways, closes. Like any user's program.

Between the plan and the party. The one invariant: every call ends, well or with a typed error, which the ledger gets;
an exception of any other type ends the run. Between two stages everybody waits for everybody by a gate that no network
can hold up, so that what one party does next is not taken for what a failure did.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np

from partywire.engine.errors import PartyWireError
from partywire.workers.batch import BatchRunner
from partywire.workers.errors import PeerClosed, SessionError

from .plan import Phase
from .world import Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from partywire.workers.peer_link import PeerLink
    from partywire.workers.session import Session

    from .family import Family
    from .ledger import Ledger
    from .plan import Plan


LIVES: Final = 3
"""Of a session that is reset."""

RESET_TIMEOUT_S: Final = 30.0
"""For a party that does not come: longer than any cable is out."""

RETRIES: Final = 4
"""Of a batch: above the number of faults in one run, since none takes more than one attempt."""


class Shared:
    """The ledger as an argument of jobs: further workers, which live in this interpreter, get the very same one."""

    everybody: ClassVar[dict[int, Shared]] = {}

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def __enter__(self) -> Self:
        self.everybody[id(self)] = self
        return self

    def __exit__(self, *_: object) -> None:
        del self.everybody[id(self)]

    def __reduce__(self) -> tuple[Any, ...]:
        return _shared, (id(self),)


def _shared(key: int) -> Shared | None:
    return Shared.everybody.get(key)  # None for a worker that comes to it when the batch is over


async def play(shared: Shared, sizes: list[int], session: Session, index: int) -> tuple[int, int]:
    """A job: everybody says one thing to everybody."""
    ledger, me = shared.ledger, session.party_index
    peers = [peer for peer in range(len(session.parties)) if peer != me]
    for peer in peers:
        await session.send(peer, ledger.compose(session.id, me, peer, sizes[(index + peer) % len(sizes)]))
    for peer in peers:
        ledger.take(session.id, peer, me, await session.recv(peer))
    return index, session.id


class Program:
    """One of each party. Stage 0 is the opening; then each phase is one; in the last one everybody closes."""

    def __init__(
        self, family: Family, plan: Plan, ledger: Ledger, on_change: Callable[[], object], stage: int = 0
    ) -> None:
        """`on_change` is called when a stage, or everything, is behind it. `stage`: where the others wait for it."""
        self.family = family
        self.stage = 0
        self.is_open = False
        self.is_over = False
        self.errors: list[PartyWireError] = []
        """Of common steps: opening, make_sessions."""
        self.failed_batches: list[PartyWireError] = []
        self._plan = plan
        self._ledger = ledger
        self._may_go_on: asyncio.Event
        self._on_change = on_change
        self._begins_at = stage
        self.task = family.loop.create_task(self._run())
        self.task.add_done_callback(lambda _: on_change())

    @property
    def index(self) -> int:
        return self.family.index

    def link_to(self, peer: int) -> PeerLink:
        """What our worker knows of the link to a peer."""
        return self.family.party.worker.links[peer]

    def _note(self, text: str) -> None:
        self.family.world.note(f"{self.family.name}: {text}")

    # The gate.

    def open_gate(self) -> None:
        """Everybody has come: go on."""
        self.family.loop.call_soon(self._may_go_on.set)

    async def _gate(self) -> None:
        self._may_go_on = asyncio.Event()
        self.stage += 1
        self._on_change()
        await self._may_go_on.wait()

    # The stages.

    async def _run(self) -> None:
        await asyncio.sleep(self._plan.starts_s[self.index])
        party = self.family.party
        try:
            await party.open()
            self.is_open = True
            self._note("is open")
        except PartyWireError as error:
            self._failed("open", error)
        self.stage = max(0, self._begins_at - 1)
        await self._gate()
        for phase in self._plan.phases[self.stage - 1 :]:
            if self.is_open and phase.kind == "batch":
                await self._run_batch(phase)
            elif self.is_open:
                await self._use(phase)
            await self._gate()
        if self._plan.farewell and self.is_open:
            await self._part()
        await asyncio.sleep(self._plan.closes_s[self.index])
        await party.close()
        self._note("is closed")
        self.is_over = True

    def _failed(self, what: str, error: PartyWireError) -> None:
        self.errors.append(error)
        self._note(f"{what} raised {type(error).__name__}: {error}")

    async def _use(self, phase: Phase) -> None:
        try:
            sessions = await self.family.party.make_sessions(phase.sessions, bulk=phase.is_bulk)
        except PartyWireError as error:
            self._failed("make_sessions", error)
            return
        self._note(f"has sessions {[session.id for session in sessions]} for {phase.kind}")
        tasks = [self.family.loop.create_task(self._session(session, phase)) for session in sessions]
        for task in tasks:
            await task

    async def _part(self) -> None:
        """Party 0 says something to everybody and closes behind it. The others hear all of it, then that it closed."""
        try:
            [session] = await self.family.party.make_sessions(1)
        except PartyWireError as error:
            self._note(f"has no last session: {error}")
            return
        phase = Phase("farewell", 1, self._plan.farewell, self._plan.phases[0].sizes)
        try:
            if self.index == 0:
                for peer in range(1, len(session.parties)):
                    await self._send_all(session, peer, phase)
                await self.family.party.close()
            else:
                await self._receive_all(session, 0, phase)
                await self._receive_end(session)
                self._ledger.done.add((session.id, self.index))
        except SessionError as error:
            self._note(f"did not hear the end: {error}")
            if not self._ledger.excuses:
                raise Violation(f"party {self.index} lost the last words of party 0: {error}") from error

    async def _receive_end(self, session: Session) -> None:
        try:
            value = await session.recv(0)
        except PeerClosed:
            return
        raise Violation(f"party {self.index}: {len(value)} bytes came behind the last words of party 0")

    async def _run_batch(self, phase: Phase) -> None:
        """All jobs, as often as it takes."""
        number = self.stage - 1
        runner = BatchRunner(self.family.party, phase.sessions, retries=RETRIES, retry_timeout_s=RESET_TIMEOUT_S)

        try:
            with Shared(self._ledger) as shared:
                results = await runner.amap(partial(play, shared, phase.sizes), range(4 * phase.messages))
        except PartyWireError as error:
            self.failed_batches.append(error)
            self._note(f"a batch raised {type(error).__name__}: {error}")
            return
        self._note(f"has the results {results}")
        self._ledger.take_results(number, self.index, results)

    async def _live(self, session: Session, phase: Phase) -> None:
        """One session, several lives: whoever is ready ends each of them for all, the last one excepted."""
        origin = session.origin
        for life in range(LIVES):
            try:
                if life:
                    await session.reset(timeout=RESET_TIMEOUT_S)
                await self._meet(session, phase)
            except PartyWireError as error:
                self._note(f"life {life} of session {origin} ended: {type(error).__name__}: {error}")
                if life == LIVES - 1:
                    self.errors.append(error)
                    return
        self._ledger.done.add((origin, self.index))
        session.close()

    async def _session(self, session: Session, phase: Phase) -> None:
        """All traffic of one session."""
        if phase.kind == "resets":
            await self._live(session, phase)
            return
        session.on_failure = lambda error: self._ledger.fail(session.id, self.index, error)
        peers = [peer for peer in range(len(session.parties)) if peer != self.index]
        parts: list[Coroutine[object, object, None]] = []
        if phase.kind == "stream":
            parts += [self._send_all(session, peer, phase) for peer in peers]
            parts += [self._receive_all(session, peer, phase) for peer in peers]
        elif phase.kind == "arrays":
            parts += [self._exchange_arrays(session, peer, phase) for peer in peers]
        else:
            parts.append(self._meet(session, phase))
        tasks = [self.family.loop.create_task(part) for part in parts]
        failed = False
        for task in tasks:
            try:
                await task
            except SessionError as error:
                self._ledger.fail(session.id, self.index, error)
                failed = True
        if not failed:
            for peer in peers:
                self._ledger.check_complete(session.id, self.index, peer)
            self._ledger.done.add((session.id, self.index))
            session.close()

    async def _send_all(self, session: Session, peer: int, phase: Phase) -> None:
        for number in range(phase.messages):
            size = phase.sizes[(number + peer + session.id) % len(phase.sizes)]
            await session.send(peer, self._ledger.compose(session.id, self.index, peer, size))

    async def _receive_all(self, session: Session, peer: int, phase: Phase) -> None:
        for _ in range(phase.messages):
            self._ledger.take(session.id, peer, self.index, await session.recv(peer))

    async def _meet(self, session: Session, phase: Phase) -> None:
        """Rounds in which everybody says one thing to everybody; each round a job, if the phase says so."""
        peers = [peer for peer in range(len(session.parties)) if peer != self.index]
        for number in range(phase.messages):
            size = phase.sizes[(number + session.id) % len(phase.sizes)]
            for peer in peers:
                await session.send(peer, self._ledger.compose(session.id, self.index, peer, size))
            for peer in peers:
                self._ledger.take(session.id, peer, self.index, await session.recv(peer))
            if phase.kind == "jobs":
                await session.end_job()

    async def _exchange_arrays(self, session: Session, peer: int, phase: Phase) -> None:
        """Into memory of our own, as they arrive."""
        for number in range(phase.messages):
            size = max(phase.sizes[(number + session.id) % len(phase.sizes)], 16)
            value = np.frombuffer(self._ledger.compose(session.id, self.index, peer, size), np.uint8)
            out = np.empty(size, np.uint8)
            await session.exchange(peer, value, out=out)
            self._ledger.take(session.id, peer, self.index, out.tobytes())
