"""An object on its way into a ring: its parts one after another, without joining them first.

Between `pack_object` and a lane. Copies: one, from each part straight into claimed ring space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from partywire.engine.frames import FRAGMENT_BEGIN_HEADER, HEADER, Descriptor, fragment_begin_header
from partywire.engine.records import DATA

from ..hot_pure import FRAGMENT_SIZE_MIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..lane import Lane

_OBJECT: Final = Descriptor.OBJECT.value


class PackedObject:
    """An object that is ready to be written: `parts` in this order, `nbytes` in all.

    The parts may be memory of whoever packed it, which must not change before they are written.
    """

    __slots__ = ("nbytes", "parts")

    def __init__(self, parts: list[bytes | memoryview], nbytes: int) -> None:
        self.parts = parts
        self.nbytes = nbytes

    def __repr__(self) -> str:
        return f"PackedObject(<{self.nbytes} bytes>)"

    def __len__(self) -> int:
        return self.nbytes

    def join(self) -> bytes:
        """All parts as one; a copy."""
        return b"".join(self.parts)

    def chunks(self, lane: Lane, session: int) -> Iterator[bool]:
        """Write the message frame by frame; as `Lane.chunks` does for values of one part."""
        size = self.nbytes
        rest = iter(self.parts)
        part = memoryview(b"")
        position = 0
        while position < size:
            claim = _claim(lane, session, size, position)
            if claim is None:
                yield False
                continue
            try:
                start = FRAGMENT_BEGIN_HEADER.size if position == 0 and size > lane.fragment_size else HEADER.size
                end = len(claim)
                position += end - start
                while start < end:
                    if not part:
                        part = memoryview(next(rest))
                    taken = min(len(part), end - start)
                    claim[start : start + taken] = part[:taken]
                    part = part[taken:]
                    start += taken
                claim.release()
                lane.writer.commit(end, DATA, lane.connection, lane.epoch)
                lane.writer.publish()
                lane.bytes_sent += end
            except BaseException:
                # An exception (Ctrl-C) came within the frame: an open claim would refuse everything after it.
                claim.release()
                if lane.writer.is_claimed:
                    lane.writer.abort()
                raise
            if position < size:
                yield True


def _claim(lane: Lane, session: int, size: int, position: int) -> memoryview | None:
    """Ring space for the next frame, with its header in it; None: there is no room now.

    Raises:
        ShmError: the ring failed.
    """
    left = size - position
    whole = size <= lane.fragment_size
    header_size = FRAGMENT_BEGIN_HEADER.size if not whole and position == 0 else HEADER.size
    room = min(left, lane.fragment_size)
    least = left if whole else min(room, FRAGMENT_SIZE_MIN)
    if not lane.write_gathered():
        return None
    claim = lane.writer.try_claim(header_size + room, header_size + least)
    if claim is None:
        return None
    room = len(claim) - header_size
    if whole:
        header = HEADER.pack(session, _OBJECT, size)
    elif position == 0:
        header = fragment_begin_header(session, _OBJECT, size, room)
    else:
        header = HEADER.pack(session, Descriptor.FRAGMENT, room)
    claim[:header_size] = header
    return claim
