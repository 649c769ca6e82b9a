"""The rival: uvloop, with the same protocols, frames and tasks as on asyncio's own loop (frames.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import uvloop

from partywire.perf.frames import open_frame_party

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from partywire.perf.contender import OpenParty, Place
    from partywire.perf.workloads import Workload


def open_party(place: Place, work: Workload) -> AbstractContextManager[OpenParty]:
    return open_frame_party(place, work, uvloop.new_event_loop)
