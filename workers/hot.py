"""The bases of the worker's classes: compiled where the core is there, plain Python otherwise.

Both are tested by the same tests. The types are checked against the plain ones, which are the specification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from partywire.engine import limits
from partywire.engine.frame_buffer import DIVISOR_OF, FIXED_SIZE_OF, KIND_OF, MINIMUM_OF
from partywire.engine.frames import Descriptor
from partywire.shm.compiled import core

IS_COMPILED: Final = core is not None

if TYPE_CHECKING or core is None:
    from .hot_pure import (
        LaneHot,
        MailboxHot,
        Queue,
        ReceiverHot,
        SessionHot,
        SlotHot,
        WaitHot,
        WorkerHot,
        all_idle,
        receive_all,
        run_slots,
        watch,
    )
else:
    LaneHot = core.LaneHot
    MailboxHot = core.MailboxHot
    Queue = core.Queue
    ReceiverHot = core.ReceiverHot
    SessionHot = core.SessionHot
    SlotHot = core.SlotHot
    WaitHot = core.WaitHot
    WorkerHot = core.WorkerHot
    all_idle = core.all_idle
    receive_all = core.receive_all
    run_slots = core.run_slots
    watch = core.watch
    core.set_frame_kinds(
        # Messages of sessions, and their fragments (4): what steers a session needs the Python half.
        bytes(
            4 if descriptor == Descriptor.FRAGMENT else kind if descriptor <= Descriptor.OBJECT else 0
            for descriptor, kind in enumerate(KIND_OF)
        ),
        bytes(FIXED_SIZE_OF),
        bytes(DIVISOR_OF),
        bytes(MINIMUM_OF),
        Descriptor.BYTES.value,
        limits.FRAME_SIZE_MAX,
    )

__all__ = [
    "IS_COMPILED", "LaneHot", "MailboxHot", "Queue", "ReceiverHot", "SessionHot", "SlotHot", "WaitHot", "WorkerHot",
    "all_idle", "receive_all", "run_slots", "watch",
]  # fmt: skip
