"""The rival with one idea more: uvloop with frames and tasks, the small frames of each turn of the loop in one write.

The loop does not do this by itself, but few lines do (frames.py, `joins_writes`), and with many sessions they save most
of the system calls. Whoever has measured a uvloop program of this shape writes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import uvloop

from partywire.perf.frames import open_frame_party

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from partywire.perf.contender import OpenParty, Place
    from partywire.perf.workloads import Workload


def open_party(place: Place, work: Workload) -> AbstractContextManager[OpenParty]:
    return open_frame_party(place, work, uvloop.new_event_loop, joins_writes=True)
