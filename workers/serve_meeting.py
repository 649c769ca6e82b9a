"""How a service finds its peers again: what it knows of the links, and how all parties agree on a session.

Between the party and the service. The one invariant: a session comes out only when every party has entered the same
step, so each party that runs on and each that was started again begins with what all remember.

The parties may be anywhere when one of them comes here: in a job, whose common steps are of another kind; on their way
out of one; or not started. Whoever is not here makes the step fail, at every party and at once if it is in another one;
so all of them come here in the end, and the step is tried again until they have.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from partywire.engine.errors import LinkProtocolError, PartyWireError, SetupAborted, SetupMismatch
from partywire.engine.restarts import STAYS_AWAY

from .batch import END
from .errors import PeerClosed, PeerLost, RendezvousTimeout
from .waiting import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .party import Party
    from .session import Session

SERVE: Final = "serve"
"""The kind of the common step."""

IN_A_JOB: Final = frozenset({"batch", END})
"""Kinds of steps in which the peers of a party that has just been started may be, and which it makes fail."""

PAUSE_S: Final = 0.05
PAUSE_MAX_S: Final = 1.0
"""Between two attempts: from the second on, doubled each time. An attempt costs a round trip, and a job that meets
failure after failure may make many fail."""


class ServiceFailed(PartyWireError):
    """Raised when a service cannot go on; the text is the whole sentence."""


class LinkWatch:
    """Which links are not up, and since when. Driven by the worker, whoever drives that: also while a job runs."""

    def __init__(self, party: Party, on_change: Callable[[], None]) -> None:
        """`on_change` is called when a link or a worker of ours has gone or come back; it may only note that."""
        self._worker = party.worker
        self._on_change = on_change
        self.away: dict[str, str] = {}
        """Peer, or worker of ours, that is not there -> why."""
        self.away_since = NEVER
        """When the first of those that are away went, on the worker's clock."""
        self._look()
        party.worker.on_notify = self._look

    def _look(self) -> None:
        away = {
            link.name: link.cause or ("it closed its party" if link.is_closed else "it is not connected")
            for link in self._worker.links.values()
            if not link.is_up
        }
        for index, died in self._worker.lost_workers.items():
            away[f"worker {index}"] = died.cause
        if away != self.away:
            self.away_since = NEVER if not away else min(self.away_since, self._worker.clock())
            self.away = away
            self._on_change()

    def raise_if_hopeless(self) -> None:
        """Raises ServiceFailed when a process of our own will not be started again."""
        for name, cause in self.away.items():
            if cause.endswith(STAYS_AWAY):
                raise ServiceFailed(f"{name}: {cause}; find out why, then start the service again")

    def cause(self) -> str:
        """Who is away and why, or nothing."""
        return "; ".join(f"{name} is away: {cause}" for name, cause in self.away.items())


class Meeting:
    """Finds the peers, the first time and after each loss."""

    def __init__(self, party: Party, links: LinkWatch, fields: Mapping[str, object], patience_s: float) -> None:
        """`fields` must be the same at all parties. `patience_s`: how long a link may be away before `give_up`."""
        self._party = party
        self._links = links
        self._fields = fields
        self._patience_s = patience_s
        self._was_held = False

    async def hold(
        self, give_up: Callable[[dict[str, str]], None], on_failure: Callable[[PartyWireError], None]
    ) -> Session:
        """A session with all peers, as soon as all are there. Waits as long as it takes.

        Args:
            give_up: called with a sentence for each who is away when one has been for too long; once for each time.
            on_failure: called with each failure that another attempt follows.

        Raises:
            SetupMismatch: at the first time, a peer was started with other settings, or as something else.
            ServiceFailed: a process of our own stays away.
            PartyFailed: our own processes are gone.
        """
        pause = 0.0
        while True:
            await self._until_whole(give_up)
            try:
                await self._party.rendezvous(SERVE, self._fields, equal=True)
                [session] = await self._party.make_sessions(1, timeout=self._party.config.connect_s)
                self._was_held = True
                return session
            except SetupMismatch as error:
                if not self._was_held and (error.field != "kind" or error.theirs not in IN_A_JOB):
                    raise
                on_failure(error)
            except (SetupAborted, RendezvousTimeout, PeerLost, PeerClosed, LinkProtocolError) as error:
                on_failure(error)
            await asyncio.sleep(pause)
            pause = min(PAUSE_MAX_S, 2 * pause or PAUSE_S)

    async def _until_whole(self, give_up: Callable[[dict[str, str]], None]) -> None:
        links = self._links

        def is_whole() -> bool:
            links.raise_if_hopeless()
            return not links.away

        while not is_whole():
            if await self._party.worker.until(is_whole, links.away_since + self._patience_s):
                return
            late = f"did not come back within {self._patience_s:g} s"
            give_up({name: f"{name} {late}: {cause}" for name, cause in links.away.items()})
            await self._party.worker.until(is_whole)
