"""Splitting a stream into frames: independent of the cuts, bounded, and the same by both paths."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine import limits
from partywire.engine.errors import FrameTooLarge, LinkProtocolError
from partywire.engine.frame_buffer import FrameBuffer
from partywire.engine.frames import (
    HEADER,
    LINK_SESSION,
    Descriptor,
    Frame,
    encode_frame,
    encode_goodbye,
    fragment_begin_header,
    frame_header,
)
from tests.support.frame_streams import PlainFrame, plain, read_naively, split_at, streams

D = Descriptor

ONE_OF_EACH = b"".join(
    [
        encode_frame(1, D.BYTES, b"hello"),
        encode_frame(2, D.RING_64, bytes(range(8))),
        encode_frame(3, D.BIT_1),
        encode_frame(4, D.VEC_RING_16, bytes(range(10))),
        encode_frame(5, D.VEC_RING_BIT, b"\x55\x01", 9),
        encode_frame(6, D.ARRAY, b"\x00\x03\x00<u8" + bytes(8)),
        encode_frame(6, D.OBJECT, bytes(range(17))),
        fragment_begin_header(7, D.BYTES, 11, 4) + b"abcd",
        encode_frame(7, D.FRAGMENT, b"efg"),
        encode_frame(8, D.BYTES, b""),
        encode_frame(7, D.FRAGMENT, b"hijk"),
        encode_goodbye("end"),
    ]
)


def outcome(
    stream: bytes, cuts: list[int], frame_size_max: int = limits.FRAME_SIZE_MAX
) -> tuple[list[PlainFrame], str]:
    """What a stream splits into, and how it is refused, if it is."""
    buffer, frames, refusal = FrameBuffer(frame_size_max, "bob"), list[Frame](), ""
    try:
        for start, end in itertools.pairwise([0, *sorted(cuts), len(stream)]):
            buffer.split(memoryview(stream)[start:end], frames)
    except LinkProtocolError as error:
        refusal = str(error)
    return plain(frames), refusal


def test_every_split_in_two_gives_the_same_frames() -> None:
    expected = plain(read_naively(ONE_OF_EACH))
    assert len(expected) == 12
    for cut in range(len(ONE_OF_EACH) + 1):
        assert split_at(FrameBuffer(), ONE_OF_EACH, [cut]) == expected


def test_every_split_in_three_gives_the_same_frames() -> None:
    expected = plain(read_naively(ONE_OF_EACH))
    for first in range(0, len(ONE_OF_EACH), 3):
        for second in range(first, len(ONE_OF_EACH), 5):
            assert split_at(FrameBuffer(), ONE_OF_EACH, [first, second]) == expected


def test_a_truncated_stream_gives_the_frames_before_the_cut_and_keeps_the_rest() -> None:
    for size in range(len(ONE_OF_EACH)):
        buffer = FrameBuffer()
        frames = buffer.split(memoryview(ONE_OF_EACH[:size]))
        rest = buffer.split(memoryview(ONE_OF_EACH[size:]))
        assert plain([*frames, *rest]) == plain(read_naively(ONE_OF_EACH))
        assert buffer.is_between_frames
        assert buffer.pending_size == 0


@given(streams, st.data())
def test_any_stream_splits_as_a_naive_reader_reads_it(stream: bytes, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    assert split_at(FrameBuffer(), stream, cuts) == plain(read_naively(stream))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, LINK_SESSION]),
            st.one_of(st.sampled_from([int(descriptor) for descriptor in Descriptor]), st.integers(0, 255)),
            st.one_of(st.integers(0, 40), st.integers(0, 2**32 - 1)),
            st.binary(max_size=30),
        ),
        max_size=6,
    )
)
def test_the_hot_path_accepts_exactly_what_the_careful_path_accepts(parts: list[tuple[int, int, int, bytes]]) -> None:
    """Byte by byte only the careful path is taken. Legal or not, the frames and the error must be the same."""
    stream = b"".join(HEADER.pack(session, descriptor, length) + body for session, descriptor, length, body in parts)
    by_bytes = outcome(stream, list(range(1, len(stream))), 64)
    whole = outcome(stream, [], 64)
    assert whole == by_bytes


@given(st.binary(max_size=120), st.lists(st.integers(0, 120), max_size=4))
def test_any_bytes_are_frames_or_a_protocol_error(stream: bytes, cuts: list[int]) -> None:
    cuts = [cut for cut in cuts if cut <= len(stream)]
    assert outcome(stream, cuts) == outcome(stream, [])


@pytest.mark.parametrize(
    ("descriptor", "type_"),
    [
        (D.BYTES, bytes),
        (D.RING_32, bytes),
        (D.VEC_RING_BIT, bytes),
        (D.VEC_RING_16, bytearray),
        (D.VEC_RING_48, bytearray),
        (D.ARRAY, bytearray),
        (D.OBJECT, bytearray),
    ],
)
@pytest.mark.parametrize("cuts", [[], [12], [6, 11]])
def test_bodies_for_numpy_are_writable_however_they_arrive(
    descriptor: Descriptor, type_: type, cuts: list[int]
) -> None:
    body = bytes({D.RING_32: 4, D.OBJECT: 16}.get(descriptor, 12))
    wire = encode_frame(1, descriptor, body, 96 if descriptor == D.VEC_RING_BIT else None)
    buffer = FrameBuffer()
    frames = []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        frames += buffer.split(memoryview(wire)[start:end])
    assert [type(frame[3]) for frame in frames] == [type_]


def test_fragment_data_is_lent_from_the_slice_and_not_copied() -> None:
    chunk = bytearray(fragment_begin_header(1, D.BYTES, 20, 8) + b"........" + encode_frame(1, D.FRAGMENT, b"-" * 12))
    _, first, second = FrameBuffer().split(memoryview(chunk))
    chunk[14:22] = b"AAAAAAAA"
    assert bytes(first[3]) == b"AAAAAAAA"
    assert isinstance(second[3], memoryview)
    assert second[3].obj is chunk


def test_a_cut_fragment_comes_in_pieces_that_add_up() -> None:
    wire = frame_header(1, D.FRAGMENT, 10) + b"0123456789"
    buffer = FrameBuffer()
    pieces = [(n, bytes(body)) for cut in (0, 3) for _, _, n, body in buffer.split(memoryview(wire)[cut * 4 : 12])]
    assert pieces == [(3, b"012")]
    assert not buffer.is_between_frames
    assert buffer.pending_size == 0
    assert [(n, bytes(b)) for _, _, n, b in buffer.split(memoryview(wire)[12:])] == [(7, b"3456789")]
    assert buffer.is_between_frames


@pytest.mark.parametrize(
    "header",
    [
        HEADER.pack(1, D.BYTES, limits.FRAME_SIZE_MAX + 1),
        HEADER.pack(1, D.BYTES, 2**32 - 1),
        HEADER.pack(1, D.VEC_RING_64, 2**32 - 8),
        HEADER.pack(1, D.VEC_RING_BIT, 2**32 - 1),
        HEADER.pack(1, D.ARRAY, 2**32 - 1),
        HEADER.pack(1, D.OBJECT, 2**32 - 1),
        HEADER.pack(1, D.NETWORK_VEC, 2**32 - 1),
        HEADER.pack(1, D.FRAGMENT, 2**32 - 1),
        HEADER.pack(1, D.FRAGMENT_BEGIN, 2**32 - 1) + bytes((D.BYTES, 0, 0, 0, 0)),
        HEADER.pack(LINK_SESSION, D.CONTROL, limits.CONTROL_SIZE_MAX + 1),
        HEADER.pack(LINK_SESSION, D.GOODBYE, 2**31),
    ],
    ids=lambda header: f"{header[4]:#04x}-{int.from_bytes(header[5:9], 'little')}",
)
def test_an_oversize_frame_is_refused_before_anything_is_allocated_for_it(header: bytes) -> None:
    buffer = FrameBuffer(peer="bob")
    chunk = memoryview(header + bytes(64))
    tracemalloc.start()
    try:
        with pytest.raises(FrameTooLarge) as raised:
            buffer.split(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * 1024
    assert raised.value.peer == "bob"


def test_a_legal_announcement_alone_allocates_nothing() -> None:
    buffer = FrameBuffer()
    chunk = memoryview(frame_header(1, D.ARRAY, limits.FRAME_SIZE_MAX))
    tracemalloc.start()
    try:
        assert buffer.split(chunk) == []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * 1024
    assert buffer.pending_size == 0


@pytest.mark.parametrize("descriptor", [D.BYTES, D.ARRAY])
def test_the_rest_of_a_body_may_be_taken_by_whoever_asks_for_it(descriptor: D) -> None:
    body = bytes(range(256)) * 256
    wire = memoryview(frame_header(7, descriptor, len(body)) + body)
    buffer = FrameBuffer()
    assert buffer.step(wire[:100]) == ([], 100)
    assert buffer.lend_body() is None  # who announces has to send as well
    assert buffer.step(wire[100:10_000]) == ([], 9_900)
    lent = buffer.lend_body()
    assert lent is not None
    *frame, filler = lent
    assert frame == [7, descriptor, len(body)]
    assert (filler.filled, buffer.pending_size, buffer.is_between_frames) == (9_991, 0, True)
    filler.put(wire[10_000:])
    taken = filler.take()
    assert (type(taken), taken) == (bytes if descriptor == D.BYTES else bytearray, body)
    assert buffer.lend_body() is None
    assert buffer.split(memoryview(frame_header(7, D.BYTES, 3) + b"abc")) == [(7, D.BYTES, 3, b"abc")]


@pytest.mark.parametrize("wire", [frame_header(LINK_SESSION, D.CONTROL, 64), frame_header(1, D.VEC_RING_BIT, 8_000)])
def test_a_body_that_is_special_is_taken_with_care(wire: bytes) -> None:
    buffer = FrameBuffer()
    assert buffer.step(memoryview(wire + bytes(32)))[0] == []
    assert buffer.step(memoryview(bytes(31)))[0] == []
    assert buffer.pending_size == 63
    assert buffer.lend_body() is None


def test_a_body_as_large_as_the_limit_passes_and_one_byte_more_does_not() -> None:
    size_max = 100_000
    wire = encode_frame(1, D.BYTES, bytes(size_max))
    assert split_at(FrameBuffer(size_max), wire, [70_000]) == [(1, int(D.BYTES), size_max, bytes(size_max))]
    with pytest.raises(FrameTooLarge):
        FrameBuffer(size_max).split(memoryview(encode_frame(1, D.BYTES, bytes(size_max + 1))))


def test_a_small_limit_binds_small_frames_too() -> None:
    with pytest.raises(FrameTooLarge):
        FrameBuffer(64).split(memoryview(encode_frame(1, D.BYTES, bytes(65))))
    assert len(FrameBuffer(64).split(memoryview(encode_frame(1, D.BYTES, bytes(64)) * 9))) == 9


@pytest.mark.parametrize("cut", [5, 9, 14])
@pytest.mark.parametrize(
    "wire",
    [
        HEADER.pack(1, 0x7F, 0) + bytes(9),
        HEADER.pack(1, D.VEC_RING_32, 6) + bytes(9),
        HEADER.pack(LINK_SESSION, D.BYTES, 2) + bytes(9),
        HEADER.pack(LINK_SESSION, D.RING_64, 0) + bytes(9),
        HEADER.pack(LINK_SESSION, D.VEC_RING_16, 2) + bytes(9),
        HEADER.pack(1, D.PING, 8) + bytes(9),
        HEADER.pack(1, D.FRAGMENT, 0) + bytes(9),
        HEADER.pack(1, D.FRAGMENT_BEGIN, 4) + bytes(9),
        HEADER.pack(1, D.FRAGMENT_BEGIN, 5) + bytes((D.RING_16, 2, 0, 0, 0)) + bytes(4),
        HEADER.pack(1, D.FRAGMENT_BEGIN, 5) + bytes((D.FRAGMENT_BEGIN, 2, 0, 0, 0)) + bytes(4),
        HEADER.pack(1, D.FRAGMENT_BEGIN, 5) + bytes((D.VEC_RING_64, 9, 0, 0, 0)) + bytes(4),
        HEADER.pack(1, D.ARRAY, 2) + bytes(9),
        HEADER.pack(1, D.OBJECT, 15) + bytes(15),
    ],
    ids=lambda wire: wire[:14].hex(),
)
def test_an_illegal_frame_kills_the_buffer_for_good(wire: bytes, cut: int) -> None:
    buffer = FrameBuffer(peer="bob")

    def feed() -> None:
        buffer.split(memoryview(wire[:cut]))
        buffer.split(memoryview(wire[cut:]))

    with pytest.raises(LinkProtocolError) as first:
        feed()
    assert buffer.pending_size == 0
    with pytest.raises(type(first.value)) as second:
        buffer.split(memoryview(encode_frame(1, D.BYTES, b"fine")))
    assert second.value.args == first.value.args


@pytest.mark.parametrize("step", [1, 4, 9, 1000])
def test_what_stands_before_an_illegal_frame_comes_out_however_it_is_cut(step: int) -> None:
    good = [encode_frame(1, D.BYTES, b"first"), encode_frame(2, D.RING_32, b"2222"), encode_frame(3, D.BYTES, b"")]
    wire = b"".join(good) + b"\1\0\0\0\x7f" + good[0]
    buffer, frames = FrameBuffer(), list[Frame]()

    def feed() -> None:
        for start in range(0, len(wire), step):
            assert buffer.split(memoryview(wire)[start : start + step], frames) is frames

    with pytest.raises(LinkProtocolError, match="0x7f"):
        feed()
    assert plain(frames) == plain(read_naively(b"".join(good)))


def test_an_unknown_descriptor_is_seen_after_five_bytes() -> None:
    with pytest.raises(LinkProtocolError, match="0x7f"):
        FrameBuffer().split(memoryview(b"\x01\x00\x00\x00\x7f"))


@pytest.mark.parametrize("frame_size_max", [15, limits.FRAME_SIZE_MAX + 1])
def test_a_frame_size_below_a_fragment_header_or_above_the_tables_limit_is_a_mistake(frame_size_max: int) -> None:
    with pytest.raises(ValueError, match="frame_size_max"):
        FrameBuffer(frame_size_max)


def test_a_stream_of_large_and_small_frames_survives_slices_of_every_alignment() -> None:
    """Bodies around the size of a slice, in slices that cut them everywhere."""
    sizes = [0, 1, 16_370, 16_375, 16_376, 16_384, 3, 40_000, 5, 5, 5, 16_380]
    wire = b"".join(encode_frame(i, D.BYTES, bytes((i,)) * size) for i, size in enumerate(sizes)) * 2
    expected = plain(read_naively(wire))
    for step in (977, 16_384, 16_385, 65_536):
        assert split_at(FrameBuffer(), wire, range(step, len(wire), step)) == expected
