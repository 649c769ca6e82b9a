"""Everything that shared memory can do wrong, as types.

    ShmError
    ├── SegmentError      a segment or doorbell page cannot be made, or is not one of ours
    ├── RingCorrupt       the other side of a ring wrote something that its protocol does not allow
    ├── RecordTooLarge    a record that this ring could never hold
    ├── RingClosed        a ring, segment or doorbell was used after its close()
    └── UnsoundOrdering   this machine or this pair of processes cannot order memory as the rings need

Full, empty and not-yet are results of the ring's methods, never exceptions. Every class keeps fields; the sentence is
made when somebody asks for it. No error carries payload.
"""

from __future__ import annotations


class ShmError(Exception):
    """Raised when shared memory cannot do its part; the root of this folder's errors."""


class SegmentError(ShmError):
    """Raised when a segment cannot be created, or when a descriptor is not a whole segment of this layout."""

    def __init__(self, what: str, seen: object = None, allowed: object = None, advice: str = "") -> None:
        super().__init__(what, seen, allowed, advice)
        self.what = what
        self.seen = seen
        self.allowed = allowed
        self.advice = advice

    def __str__(self) -> str:
        sentence = self.what
        if self.seen is not None:
            sentence += f": {self.seen}"
        if self.allowed is not None:
            sentence += f", allowed is {self.allowed}"
        return f"{sentence}; {self.advice}" if self.advice else sentence


class RingCorrupt(ShmError):
    """Raised when the other side of a ring stored a value outside its protocol; that ring is dead from then on."""

    def __init__(self, ring: int, field: str, seen: int, allowed: str) -> None:
        super().__init__(ring, field, seen, allowed)
        self.ring = ring
        self.field = field
        self.seen = seen
        self.allowed = allowed

    def __str__(self) -> str:
        return (
            f"ring {self.ring:#x} is corrupt: {self.field} is {self.seen}, allowed is {self.allowed}; "
            f"the process at the other end must be replaced together with the ring"
        )


class RecordTooLarge(ShmError):
    """Raised when a record exceeds half of its ring and would therefore never find room."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"a record of {self.size} bytes does not fit this ring, whose largest is {self.limit}; split it"


class RingClosed(ShmError):
    """Raised when a ring, segment or doorbell is used after its close()."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} is closed"


class UnsoundOrdering(ShmError):
    """Raised when no back end can order memory here, or when the two sides of a ring use different ones."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what, advice)
        self.what = what
        self.advice = advice

    def __str__(self) -> str:
        return f"shared memory cannot be ordered: {self.what}; {self.advice}"
