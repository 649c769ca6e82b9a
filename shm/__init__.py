"""Shared memory between the processes of one party: segments, rings, doorbells, and the memory ordering under them.

Knows bytes and records, nothing of sessions, peers or sockets, and imports only the standard library. Start reading
in ring.py.
"""

from .counters import RingStat, read_stat
from .doorbell import Bell, Doorbell, create_doorbell
from .errors import RecordTooLarge, RingClosed, RingCorrupt, SegmentError, ShmError, UnsoundOrdering
from .fence import Fence, probe, register
from .record import KIND_MAX, Record
from .ring import RingReader, RingWriter
from .segment import Segment, sweep

__all__ = [
    "register",
    "probe",
    "Fence",
    "Segment",
    "sweep",
    "RingWriter",
    "RingReader",
    "Record",
    "KIND_MAX",
    "Doorbell",
    "Bell",
    "create_doorbell",
    "RingStat",
    "read_stat",
    "ShmError",
    "SegmentError",
    "RingCorrupt",
    "RecordTooLarge",
    "RingClosed",
    "UnsoundOrdering",
]
