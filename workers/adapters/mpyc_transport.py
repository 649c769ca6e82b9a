"""One party of MPyC on our engine: a Party with one session, and a link for each peer.

Between MPyC's runtime, which starts and ends it, and `Party`. The one invariant: from `open` on every way out, a
program that just ends included, closes the party, and no failure of a peer leaves the program waiting: it ends with an
error that names the peer.

Messages that have to wait for room are sent by coroutines of a Scheduler, which runs inside the worker's passes while
there are any.
"""

from __future__ import annotations

import atexit
import logging
import sys
from typing import TYPE_CHECKING, Any, Final

from partywire.engine.errors import LinkProtocolError, PartyWireError

from ..errors import PartyFailed, describe_to_peers
from ..party import Party
from ..scheduler import Scheduler
from ..waiting import run_blocking
from .mpyc_link import MpycLink

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from ..config import PartyConfig
    from ..scheduler import Slot
    from ..session import Session
    from ..worker import Worker

log = logging.getLogger("partywire.mpyc")
log.addHandler(logging.NullHandler())


PATIENCE_S: Final = 5.0
"""When a party that is still alone says whom it waits for."""


class MpycTransport:
    """Everything between `Runtime.start` and the end. Driven by the runtime, in one thread and one event loop."""

    def __init__(
        self,
        config: PartyConfig,
        loop: asyncio.AbstractEventLoop,
        *,
        is_shutting_down: Callable[[], bool],
        on_closed: Callable[[int], object],
        on_failure: Callable[[], bool],
    ) -> None:
        """Starts nothing yet.

        Args:
            config: of a party whose index among the parties is MPyC's pid.
            loop: MPyC's.
            is_shutting_down: whether MPyC has begun its orderly end.
            on_closed: called with each peer's pid when the party has been closed in that end.
            on_failure: called once, when the program cannot go on; `failure` has the reason. Returns whether it ends
                the program, so that nothing in it need be told any more.
        """
        self.loop = loop
        self._is_shutting_down = is_shutting_down
        self._on_closed = on_closed
        self._on_failure = on_failure
        self._missing: dict[str, str] = {}  # peer -> why it is not connected yet
        self._party = Party(config, on_progress=self._missing.__setitem__)
        self.links: dict[int, MpycLink] = {}
        # Set while it is open.
        self._session: Session | None = None
        self._worker: Worker | None = None
        self._scheduler: Scheduler | None = None
        # Counts when payloads came, all that came together as one; what is sent between two is an answer.
        self.turn = 0
        # Bytes of all payloads that nobody has asked for yet.
        self.early_size = 0
        self.early_size_max = config.inbox_mib << 20
        # Why the program cannot go on.
        self.failure: PartyWireError | None = None
        self._is_ending = False
        self._closing: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def session(self) -> Session:
        """The session that carries all messages of MPyC."""
        assert self._session is not None
        return self._session

    # Opening.

    async def open(self) -> None:
        """Connect with all peers. Raises like `Party.open` and `Party.make_sessions`."""
        atexit.register(self.end, "its program ended without mpc.shutdown()")
        try:
            telling = self.loop.call_later(PATIENCE_S, self._tell_missing)
            try:
                await self._party.open()
            finally:
                telling.cancel()
            (session,) = await self._party.make_sessions(1)
        except BaseException:
            self._is_closed = True
            atexit.unregister(self.end)
            await self._party.close()
            raise
        self.attach(self._party.worker, session, Scheduler(self._party.worker))

    def attach(self, worker: Worker, session: Session, scheduler: Scheduler) -> None:
        """Use this session; the scheduler, which runs inside the worker's passes, is ours."""
        self._worker, self._session, self._scheduler = worker, session, scheduler
        ours = session.party_index
        self.links = {pid: MpycLink(self, pid) for pid in range(len(session.parties)) if pid != ours}

    def _tell_missing(self) -> None:
        for peer, cause in self._missing.items():
            if not self._party.worker.link_of(peer).is_up:
                log.warning("still waiting for %s: %s", peer, cause)

    async def exchange(self, keys: dict[int, bytes], expected: dict[int, int]) -> dict[int, bytes]:
        """Send each peer its keys and receive the peers'; `expected` has the size of what each sends.

        Raises:
            LinkProtocolError: a peer sent something else.
            SessionError: a peer is gone.
        """
        received: dict[int, bytes] = {}
        for pid in self.links:
            await self.session.send(pid, keys[pid])
        for pid, link in self.links.items():
            message = await self.session.recv(pid)
            if not isinstance(message, bytes) or len(message) != expected[pid]:
                size = len(message) if isinstance(message, bytes) else type(message).__name__
                raise LinkProtocolError(link.peer, "PRSS keys of another size", size, expected[pid])
            received[pid] = message
        return received

    def begin(self) -> None:
        """From now on payloads are taken in as they come."""
        for link in self.links.values():
            link.take_arrivals()

    # What the links need.

    def try_complete(self, operation: Coroutine[Any, Any, Any], on_done: Callable[[Slot], object]) -> bool:
        """Run an operation of the session. True: it is complete. False: it goes on by itself, and calls back.

        Raises whatever it raises at once.
        """
        worker, scheduler = self._worker, self._scheduler
        if worker is None or scheduler is None or self._is_closed:
            operation.close()
            raise self.failure or PartyFailed(self._party.name, "it is not open")
        driving = worker.driving
        worker.driving = True
        try:
            operation.send(None)
        except StopIteration:
            return True
        finally:
            worker.driving = driving
        scheduler.spawn(operation, self.session, on_done)  # resumed once too often, which a wait does not mind
        if self._send_slowly not in worker.agents:
            worker.agents.append(self._send_slowly)
        self._schedule()
        return False

    def _send_slowly(self) -> int:
        """What has to wait for room, as a part of the worker's passes for as long as there is any."""
        assert self._scheduler is not None
        assert self._worker is not None
        work = self._scheduler.do_work()
        if self._scheduler.is_idle:
            self._worker.agents.remove(self._send_slowly)
        return work

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Serve the worker, in this thread, until a condition holds or the session is over."""
        worker = self._worker
        assert worker is not None
        try:
            while not condition() and self.session.failure is None and worker.failure is None:
                if not worker.step():
                    worker.rest()
        finally:
            self._schedule()

    def notify(self) -> None:
        """A link has sent all that it had."""
        if self._closing is not None and self._worker is not None:
            self._worker.notify()

    def _schedule(self) -> None:
        if self._worker is not None and self._worker.loop_driver is not None:
            self._worker.loop_driver.schedule()

    # Failing.

    def has_failed(self, link: MpycLink, error: BaseException | None) -> None:
        """Nothing more comes from a peer. After its goodbye that matters only if something is still missing."""
        self._note(link, error)
        if self._is_closed or self._closing is not None:
            return
        if not link.has_said_goodbye or link.is_expected:
            self._fail(link)
        elif self._is_shutting_down() and all(other.has_said_goodbye for other in self.links.values()):
            self._close_soon()

    def give_up(self, link: MpycLink, error: BaseException) -> None:
        """Something cannot be sent to a peer."""
        self._note(link, error)
        if not self._is_closed:
            self._fail(link)

    def _note(self, link: MpycLink, error: BaseException | None) -> None:
        if not isinstance(error, PartyWireError):
            error = PartyFailed(self._party.name, f"its MPyC adapter failed: {error!r}")
        if link.failure is None:
            link.failure = error

    def need(self, link: MpycLink, error: PartyWireError) -> None:
        """The program wants something of a peer that is gone.

        Raises:
            PartyWireError: why it cannot go on; not if it is being ended, which MPyC's tasks need not hear.
        """
        self._note(link, error)
        failure = self._fail(link)
        if not self._is_ending:
            raise failure

    def _fail(self, link: MpycLink) -> PartyWireError:
        """The program needs a peer that is gone, so it cannot go on. Returns why."""
        if self.failure is None:
            assert self._worker is not None
            assert link.failure is not None
            own = self._worker.failure
            self.failure = PartyFailed(*own.args) if own is not None else link.failure
            self.session.abort(describe_to_peers(self.failure))
            self._is_ending = self._on_failure()
        return self.failure

    def fail_expected(self) -> None:
        """Let everybody who waits for a payload have the failure."""
        assert self.failure is not None
        for link in self.links.values():
            link.fail_expected(self.failure)

    # Ending.

    def close_connection(self) -> None:
        """MPyC closes the connection with some peer: at the end of its shutdown, or because the program has failed.

        In a shutdown every party has everything by now, so all links are closed at once, by a task; `on_closed` tells
        of its end. A program that has failed does not wait for anything any more: the peers are told, and the party is
        closed before this returns.
        """
        if self._is_shutting_down():
            self._close_soon()
        else:
            error = sys.exception()
            self.end("its program failed" if error is None else f"its program ended with {type(error).__name__}")

    def _close_soon(self) -> None:
        if self._closing is None and not self._is_closed:
            self._closing = self.loop.create_task(self._close())

    async def _close(self) -> None:
        # What a peer is slow to take waits here, and is still needed there.
        try:
            await self._party.worker.until(lambda: not any(link.is_sending for link in self.links.values()))
        except PartyFailed as error:
            log.warning("%s", error)  # the program has its results; what is left is to close
        await self._party.close()
        self._has_closed()
        for pid in self.links:
            self._on_closed(pid)

    def end(self, reason: str) -> None:
        """Close the party at once, with a reason for peers that are not done. May follow anything, and come again."""
        if self._is_closed:
            return
        self._has_closed()
        self._is_ending = False
        try:
            worker = self._party.worker
        except PartyFailed:
            return
        if worker.is_of_parent:
            return  # in a fork the party is its parent's
        if self._session is not None:
            self._session.abort(reason)
        run_blocking(worker, self._party.close())

    def _has_closed(self) -> None:
        self._is_closed = True
        atexit.unregister(self.end)
