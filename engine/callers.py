"""Accepted connections of one link whose handshake is not done: a bounded number, most of it for who has proven itself.

Between the keeper of a link and whoever dials it. The gateway passes on what claims to be the peer's, which anybody may
claim, so a crowd of strangers must neither keep the peer out nor take the descriptors of the process. The one
invariant: at most as many are greeted as there are places, and nobody who has proven to be the peer makes room for a
stranger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .antechamber import Antechamber, origin_of

if TYPE_CHECKING:
    import asyncio

ACCEPTED_MAX: Final = 64
"""Accepted connections in a handshake at one time: four times what a link has. A routing tag is no secret, so anybody
may claim to be our peer; beyond this one that claimed it earlier is closed."""

ACCEPTED_MIN: Final = 24
"""The same where a process serves many links, whose descriptors are of one process: all connections of a link fit."""

ACCEPTED_PROCESS_MAX: Final = 128
"""The same over all links of a process; each costs two descriptors, of which there are 1,024 by default."""


class Callers:
    """The tasks that greet them. One that has to make room is cancelled, and closes its stream."""

    def __init__(self, links: int, peer_at_once: int) -> None:
        """`links` are served by this process; the peer may attach `peer_at_once` at once, all from one address."""
        places = max(ACCEPTED_MIN, min(ACCEPTED_MAX, ACCEPTED_PROCESS_MAX // links), peer_at_once)
        self._unproven: Antechamber[asyncio.Task[Any]] = Antechamber(places, max(places // 2, peer_at_once))
        self._proven: Antechamber[asyncio.Task[Any]] = Antechamber(places, places)  # no stranger moves them

    def enter(self, task: asyncio.Task[Any], address: str) -> None:
        """A connection from `address` is greeted by `task`, until that is done."""
        if (crowded_out := self._unproven.enter(task, origin_of(address))) is not None:
            crowded_out.cancel()
        task.add_done_callback(self._unproven.leave)
        task.add_done_callback(self._proven.leave)

    def prove(self, task: asyncio.Task[Any]) -> None:
        """Its other end has proven to be the peer."""
        self._unproven.leave(task)
        if (crowded_out := self._proven.enter(task, "")) is not None:
            crowded_out.cancel()
