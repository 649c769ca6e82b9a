"""The rival: asyncio as it comes, protocols with length-prefixed frames, a task for each session (frames.py)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from partywire.perf.frames import open_frame_party

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from partywire.perf.contender import OpenParty, Place
    from partywire.perf.workloads import Workload


def open_party(place: Place, work: Workload) -> AbstractContextManager[OpenParty]:
    return open_frame_party(place, work, asyncio.new_event_loop)
