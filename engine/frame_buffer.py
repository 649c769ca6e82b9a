"""Cut one connection's byte stream into frames.

Between the ring (or socket) that delivers arbitrary slices of the stream and whoever serves its sessions; one buffer
per connection. The one invariant: what comes out depends only on the bytes, never on where the slices were cut, except
that a fragment's data may come in several pieces; and nothing is allocated for a size that the limits refuse.

Copies: a body is copied once, out of the slice (one of bytes that a slice cuts once more without the compiled core); a
fragment's data is not copied. The most that is held between two calls is one body of `frame_size_max` bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from . import limits
from .errors import LinkProtocolError
from .filler import Filler
from .frames import (
    FIXED_HEADER,
    FRAGMENT_BEGIN_HEADER,
    FRAME_TABLE,
    HEADER,
    LINK_SESSION,
    SPEC_OF,
    Buffer,
    Descriptor,
    Frame,
    check_contained_untrusted,
    check_length_untrusted,
    check_scope_untrusted,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# How `_split_whole` and the compiled core treat a descriptor; everything else takes the careful path.
_CAREFUL, _FIXED, _PLAIN, _WRITABLE = range(4)


def _hot_kinds() -> tuple[int, ...]:
    kinds = [_CAREFUL] * 256
    for spec in FRAME_TABLE:
        if spec.fixed_size is not None:
            kinds[spec.descriptor] = _FIXED
        elif spec.length_max < limits.FRAME_SIZE_MAX or spec.length_in_bits or spec.length_min:
            continue  # has limits of its own, which the careful path knows
        else:
            kinds[spec.descriptor] = _WRITABLE if spec.writable else _PLAIN
    for descriptor in (Descriptor.ARRAY, Descriptor.OBJECT):
        kinds[descriptor] = _WRITABLE  # their minimum is checked on the hot path
    return tuple(kinds)


KIND_OF: Final = _hot_kinds()
FIXED_SIZE_OF: Final = tuple((SPEC_OF[d].fixed_size or 0) if d in SPEC_OF else 0 for d in range(256))
DIVISOR_OF: Final = tuple(SPEC_OF[d].element_size if d in SPEC_OF else 1 for d in range(256))
MINIMUM_OF: Final = tuple(SPEC_OF[d].length_min if d in SPEC_OF else 0 for d in range(256))


START_PART: Final = 16
"""A body that a slice cut gets all its memory once this part of it is there: who announces has to send as well."""


class FrameBuffer:
    """Splits what `split` is fed; driven by the peer's bytes only.

    After an error the buffer is dead: every later call raises the same error. What came before the bad frame has come
    out, or lies in the caller's list if the same slice held it.
    """

    def __init__(self, frame_size_max: int = limits.FRAME_SIZE_MAX, peer: str = "") -> None:
        if not 16 <= frame_size_max <= limits.FRAME_SIZE_MAX:
            raise ValueError(f"frame_size_max {frame_size_max} is not between 16 and {limits.FRAME_SIZE_MAX}")
        self._frame_size_max = frame_size_max
        self._peer = peer
        # Bytes of a header that a slice cut; empty between frames.
        self._header = bytearray()
        # The frame whose body is still missing bytes, or None between frames.
        self._open: tuple[int, int, int] | None = None
        self._missing = 0
        # What is there of the open frame's body if a slice cut it: at first its start alone, so that an announcement
        # costs nothing, then all. Nothing for fragments, whose data passes through.
        self._start = bytearray()
        self._body: Filler | None = None
        self._error: LinkProtocolError | None = None

    @property
    def pending_size(self) -> int:
        """Bytes held back until more arrive."""
        return len(self._header) + self._held_size

    @property
    def _held_size(self) -> int:
        return len(self._start) if self._body is None else self._body.filled

    @property
    def is_between_frames(self) -> bool:
        """Whether the stream could end here without cutting a frame."""
        return self._open is None and not self._header

    def split(self, chunk: memoryview, frames: list[Frame] | None = None) -> list[Frame]:
        """Take the next slice of the stream and return every frame that it completes, in order.

        They are appended to `frames`, if it is given. A caller that gives a list finds in it, also after an error, what
        the slice held before the bad frame, and so depends on the bytes alone.

        Bodies are `bytes`, or `bytearray` for arrays and ring vectors (numpy gets writable memory). FRAGMENT_BEGIN
        comes as (session, FRAGMENT_BEGIN, contained length, one byte: contained descriptor); the data behind it, and
        the data of every FRAGMENT, comes as FRAGMENT entries whose bodies are views INTO `chunk`, to be used before
        its memory is.

        Raises:
            LinkProtocolError: the stream is not a sequence of legal frames; nothing more can be read from it.
        """
        if frames is None:
            frames = []
        self._guard(self._split_untrusted, chunk, frames)
        return frames

    def step(self, chunk: memoryview) -> tuple[list[Frame], int]:
        """Take the frame at hand, or what `chunk`, which is not empty, has of it; like `split` in everything else.

        For a caller that splits surely legal frames itself and meets another one. Returns the frames that came out
        (one, if any, but for a FRAGMENT_BEGIN and its data) and how many bytes of `chunk` they and a cut end took.
        """
        frames: list[Frame] = []
        return frames, self._guard(self._step_untrusted, chunk, frames)

    def lend_fragment(self) -> tuple[int, int] | None:
        """The session of an open FRAGMENT, and how much of its data is still to come; the buffer stands behind it then.

        For the same caller, which splits the data off itself. None: no fragment is open.
        """
        if self._open is None or self._open[1] != Descriptor.FRAGMENT:
            return None
        session, missing = self._open[0], self._missing
        self._open = None
        self._missing = 0
        return session, missing

    def lend_body(self) -> tuple[int, int, int, Filler] | None:
        """An open frame of which a good part is there: its session, descriptor and length, and its body, of as many
        bytes; the buffer stands behind it then.

        For the same caller, which takes what is still to come. None: there is no such frame, or it is a special one.
        """
        if self._open is None or self._body is None:
            return None
        session, descriptor, length = self._open
        if session == LINK_SESSION or KIND_OF[descriptor] not in (_PLAIN, _WRITABLE):
            return None
        body, self._body = self._body, None
        self._open = None
        self._missing = 0
        return session, descriptor, length, body

    def _guard(
        self, take: Callable[[memoryview, int, list[Frame]], int], chunk: memoryview, frames: list[Frame]
    ) -> int:
        if self._error is not None:
            raise type(self._error)(*self._error.args)
        try:
            return take(chunk, 0, frames)
        except LinkProtocolError as error:
            self._error = error
            self._open = None
            self._header = bytearray()
            self._start = bytearray()
            self._body = None
            raise

    # The hot path: whole frames without limits of their own.

    def _split_untrusted(self, chunk: memoryview, position: int, frames: list[Frame]) -> int:
        end = len(chunk)
        if position < end and (self._open is not None or self._header):
            position = self._step_untrusted(chunk, position, frames)
        while position < end:
            position = self._split_whole(chunk, position, frames)
            if position < end:
                position = self._step_untrusted(chunk, position, frames)
        return position

    def _split_whole(self, chunk: memoryview, position: int, frames: list[Frame]) -> int:
        """Append the legal frames from `position` on and return where they end.

        Stops in front of the first frame that is cut, that is not surely legal, or that needs more than slicing: the
        careful path takes that one. So no check here may accept what the careful path refuses; a test compares them.
        """
        # Hot: 3.2 M frames of 64 bytes per second in slices of 64 KiB on one core, 0.7 us for a slice of one frame.
        # Copying a window of the slice and slicing that made 4.3 M, but halved bodies of 1 to 64 KiB.
        unpack = HEADER.unpack_from
        append = frames.append
        kinds = KIND_OF
        body_max = self._frame_size_max
        size = len(chunk)
        last = size - 9
        while position <= last:
            session, descriptor, length = unpack(chunk, position)
            kind = kinds[descriptor]
            if kind == 2:  # _PLAIN
                body = position + 9
                end = body + length
                if end > size or length > body_max or session == LINK_SESSION:
                    break
                append((session, descriptor, length, bytes(chunk[body:end])))
            elif kind == 1:  # _FIXED
                body = position + 5
                length = FIXED_SIZE_OF[descriptor]
                end = body + length
                if end > size or session == LINK_SESSION:
                    break
                append((session, descriptor, length, bytes(chunk[body:end])))
            elif kind == 3:  # _WRITABLE
                body = position + 9
                end = body + length
                if (
                    end > size
                    or length > body_max
                    or session == LINK_SESSION
                    or length % DIVISOR_OF[descriptor]
                    or length < MINIMUM_OF[descriptor]
                ):
                    break
                append((session, descriptor, length, bytearray(chunk[body:end])))
            else:
                break
            position = end
        return position

    # The careful path: any frame, cut anywhere.

    def _step_untrusted(self, chunk: memoryview, position: int, frames: list[Frame]) -> int:
        """Advance the frame at hand by what `chunk` has from `position` on, and return the new position."""
        if self._open is None:
            position = self._take_header_untrusted(chunk, position, frames)
            if self._open is None:
                return position  # the header is still cut
        return self._take_body(chunk, position, frames)

    def _take_header_untrusted(self, chunk: memoryview, position: int, frames: list[Frame]) -> int:
        """Collect a header; when it is complete, check it and open its frame."""
        header = self._header
        needed = FIXED_HEADER.size  # from there on its bytes tell
        while len(header) < needed or len(header) < (needed := self._header_size_untrusted()):
            take = min(needed - len(header), len(chunk) - position)
            if not take:
                return position
            header += chunk[position : position + take]
            position += take
        self._open_frame_untrusted(needed, frames)
        header.clear()
        return position

    def _header_size_untrusted(self) -> int:
        """The size of the header at hand, of which session and descriptor are there."""
        descriptor = self._header[4]
        spec = SPEC_OF.get(descriptor)
        if spec is None:
            raise LinkProtocolError(self._peer, "unknown frame descriptor", f"{descriptor:#04x}")
        if spec.fixed_size is not None:
            return FIXED_HEADER.size
        return FRAGMENT_BEGIN_HEADER.size if descriptor == Descriptor.FRAGMENT_BEGIN else HEADER.size

    def _open_frame_untrusted(self, header_size: int, frames: list[Frame]) -> None:
        """Check the header at hand, which is complete, and open its frame."""
        header = self._header
        session, descriptor = FIXED_HEADER.unpack_from(header)
        length = HEADER.unpack_from(header)[2] if header_size >= HEADER.size else 0
        size = check_length_untrusted(self._peer, descriptor, length, self._frame_size_max)
        check_scope_untrusted(self._peer, session, descriptor)
        if descriptor == Descriptor.FRAGMENT_BEGIN:
            contained, contained_length = FRAGMENT_BEGIN_HEADER.unpack_from(header)[3:]
            check_contained_untrusted(self._peer, contained, contained_length)
            frames.append((session, Descriptor.FRAGMENT_BEGIN.value, contained_length, bytes((contained,))))
            # The rest of this frame is data like that of the fragments behind it.
            descriptor, size = Descriptor.FRAGMENT.value, size - 5
        elif header_size == FIXED_HEADER.size:
            length = size
        self._open = (session, descriptor, length)
        self._missing = size

    def _take_body(self, chunk: memoryview, position: int, frames: list[Frame]) -> int:
        """Take what `chunk` has of the open frame's body, and close the frame when it is complete."""
        assert self._open is not None
        session, descriptor, length = self._open
        take = min(self._missing, len(chunk) - position)
        end = position + take
        self._missing -= take
        if descriptor == Descriptor.FRAGMENT:
            if take:
                frames.append((session, descriptor, take, chunk[position:end]))
            if not self._missing:
                self._open = None
            return end
        is_writable = SPEC_OF[descriptor].writable
        if self._missing:
            self._hold(chunk[position:end], is_writable)
            return end
        body: Buffer
        if self._held_size:
            body = self._complete(chunk[position:end], is_writable)
        else:
            body = bytearray(chunk[position:end]) if is_writable else bytes(chunk[position:end])
        self._open = None
        frames.append((session, descriptor, length, body))
        return end

    def _hold(self, piece: memoryview, is_writable: bool) -> None:
        """Keep a piece of a body of which more is missing."""
        if self._body is not None:
            self._body.put(piece)
            return
        self._start += piece
        size = len(self._start) + self._missing
        if len(self._start) * START_PART >= size:
            self._body = Filler(size, is_writable)
            self._body.put(self._start)
            self._start = bytearray()

    def _complete(self, piece: memoryview, is_writable: bool) -> bytes | bytearray:
        """The body of which this is the last piece."""
        if self._body is None:
            self._start += piece
            body = self._start if is_writable else bytes(self._start)
            self._start = bytearray()
            return body
        self._body.put(piece)
        body = self._body.take()
        self._body = None
        return body
