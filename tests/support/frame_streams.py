"""Streams of frames for tests: strategies that draw them, and a naive reader to compare the frame buffer with.

The reader is written from docs/wire.md without the table of `engine.frames`, so that an error in the table is not
repeated here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from partywire.engine.frames import LINK_SESSION, Descriptor, encode_frame, fragment_begin_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from partywire.engine.frame_buffer import FrameBuffer
    from partywire.engine.frames import Buffer, Frame

FIXED_SIZES = {0x01: 16, 0x02: 0, 0x12: 0, 0x03: 2, 0x04: 4, 0x05: 8, 0x09: 16, 0x0B: 16, 0x0D: 6}
ELEMENT_SIZES = {0x06: 2, 0x07: 4, 0x08: 8, 0x0E: 6}

PlainFrame = tuple[int, int, int, bytes]


def read_naively(stream: bytes) -> Iterator[PlainFrame]:
    """Every frame of a stream that is legal and whole; fragments keep their frames."""
    position = 0
    while position < len(stream):
        session = int.from_bytes(stream[position : position + 4], "little")
        descriptor = stream[position + 4]
        position += 5
        if descriptor in FIXED_SIZES:
            length = size = FIXED_SIZES[descriptor]
        else:
            length = int.from_bytes(stream[position : position + 4], "little")
            size = -(-length // 8) if descriptor == 0x0F else length
            position += 4
        body = stream[position : position + size]
        assert len(body) == size
        position += size
        if descriptor == 0x82:
            yield session, 0x82, int.from_bytes(body[1:5], "little"), body[:1]
            if len(body) > 5:
                yield session, 0x83, len(body) - 5, body[5:]
        else:
            yield session, descriptor, length, body


def plain(frames: Iterable[Frame | PlainFrame]) -> list[PlainFrame]:
    """Frames with bodies as bytes and neighbouring fragment pieces of a session joined: what they mean."""
    joined: list[PlainFrame] = []
    for session, descriptor, length, body in frames:
        last = joined[-1] if joined else None
        if descriptor == 0x83 and last is not None and last[:2] == (session, 0x83):
            joined[-1] = (session, 0x83, last[2] + length, last[3] + bytes(body))
        else:
            joined.append((session, descriptor, length, bytes(body)))
    return joined


def split_at(buffer: FrameBuffer, stream: bytes, cuts: Iterable[int]) -> list[PlainFrame]:
    """Feed a stream cut at these positions. Bodies are copied before the next slice, as their lender demands."""
    frames: list[PlainFrame] = []
    start = 0
    for cut in [*sorted(cuts), len(stream)]:
        # A slice of its own, wiped afterwards: nothing but fragment data may still point into it.
        slice_ = bytearray(stream[start:cut])
        frames += [(s, d, n, bytes(body)) for s, d, n, body in buffer.split(memoryview(slice_))]
        slice_[:] = bytes(len(slice_))
        start = cut
    return plain(frames)


def encode(session: int, descriptor: int, body: Buffer) -> bytes:
    """A frame whose length is the size of its body, in bits for packed bits."""
    return encode_frame(session, descriptor, body, len(body) * 8 if descriptor == 0x0F else None)


session_ids = st.integers(0, LINK_SESSION - 1)


def _fixed(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


def _elements(descriptor: int) -> st.SearchStrategy[bytes]:
    size = ELEMENT_SIZES[descriptor]
    return st.integers(0, 60).flatmap(lambda count: _fixed(count * size))


def _session_frame() -> st.SearchStrategy[bytes]:
    kinds: list[st.SearchStrategy[bytes]] = [
        st.builds(encode, session_ids, st.just(descriptor), _fixed(size)) for descriptor, size in FIXED_SIZES.items()
    ]
    kinds += [
        st.builds(encode, session_ids, st.just(descriptor), _elements(descriptor)) for descriptor in ELEMENT_SIZES
    ]
    kinds += [
        st.builds(encode, session_ids, st.sampled_from([0x0A, 0x0C, 0x0F]), st.binary(max_size=300)),
        st.builds(encode, session_ids, st.just(Descriptor.ARRAY), st.binary(min_size=3, max_size=300)),
        st.builds(encode, session_ids, st.just(Descriptor.FRAGMENT), st.binary(min_size=1, max_size=300)),
        st.builds(encode, session_ids, st.just(Descriptor.RESET), st.binary(min_size=1, max_size=40)),
        st.builds(encode, session_ids, st.just(Descriptor.JOB_END), st.binary(min_size=9, max_size=40)),
        st.builds(
            lambda session, total, data: fragment_begin_header(session, Descriptor.BYTES, total, len(data)) + data,
            session_ids,
            st.integers(0, 2**32 - 1),
            st.binary(max_size=300),
        ),
    ]
    return st.one_of(kinds)


def _link_frame() -> st.SearchStrategy[bytes]:
    return st.one_of(
        st.builds(encode, st.just(LINK_SESSION), st.sampled_from([Descriptor.PING, Descriptor.PONG]), _fixed(8)),
        st.builds(encode, st.just(LINK_SESSION), st.just(Descriptor.GOODBYE), st.binary(max_size=40)),
        st.builds(encode, st.just(LINK_SESSION), st.just(Descriptor.CONTROL), st.binary(min_size=2, max_size=80)),
    )


frames_on_the_wire = st.one_of(_session_frame(), _session_frame(), _session_frame(), _link_frame())
streams = st.lists(frames_on_the_wire, max_size=12).map(b"".join)
