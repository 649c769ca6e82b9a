"""Frames of iris-mpc's protocol: every example that is written down, cut in every way, and what is refused."""

from __future__ import annotations

import pytest

from partywire.engine.errors import FrameTooLarge, LinkProtocolError
from partywire.engine.frames import Descriptor
from partywire.engine.iris_frame_buffer import IrisFrameBuffer

LIMIT = 3 << 20

CHECKSUM = "01000000000000000200000000000000"

# (bytes, session, descriptor, length field, body)
VECTORS = [
    ("07000000 12", 7, Descriptor.BIT_1, 0, ""),
    ("07000000 02", 7, Descriptor.BIT_0, 0, ""),
    ("02010000 03 0903", 258, Descriptor.RING_16, 2, "0903"),
    ("00000000 04 efbeadde", 0, Descriptor.RING_32, 4, "efbeadde"),
    ("00000000 05 0100000000000000", 0, Descriptor.RING_64, 8, "0100000000000000"),
    ("00000000 0d 78563412cdab", 0, Descriptor.RING_48, 6, "78563412cdab"),
    ("01000000 01 000102030405060708090a0b0c0d0e0f", 1, Descriptor.PRF_KEY, 16, "000102030405060708090a0b0c0d0e0f"),
    ("01000000 06 06000000 010002000300", 1, Descriptor.VEC_RING_16, 6, "010002000300"),
    ("01000000 07 00000000", 1, Descriptor.VEC_RING_32, 0, ""),
    ("01000000 08 08000000 0200000000000000", 1, Descriptor.VEC_RING_64, 8, "0200000000000000"),
    ("01000000 0e 0c000000 010000000000020000000000", 1, Descriptor.VEC_RING_48, 12, "010000000000020000000000"),
    ("02000000 09" + CHECKSUM, 2, Descriptor.STATE_CHECKSUM, 16, CHECKSUM),
    ("02000000 0b 01" + "00" * 15, 2, Descriptor.PRF_CHECK, 16, "01" + "00" * 15),
    ("03000000 0c 02000000 6f6b", 3, Descriptor.BYTES, 2, "6f6b"),
    ("03000000 0f 09000000 5501", 3, Descriptor.VEC_RING_BIT, 9, "5501"),
    ("04000000 0a 06000000 030000030100", 4, Descriptor.NETWORK_VEC, 6, "030000030100"),
    ("02000000 01 02" + "00" * 15, 2, Descriptor.PRF_KEY, 16, "02" + "00" * 15),
]  # fmt: skip


def split(data: bytes, size: int, limit: int = LIMIT) -> list[tuple[int, int, int, bytes]]:
    buffer = IrisFrameBuffer(limit, "bob")
    frames = [frame for at in range(0, len(data), size) for frame in buffer.split(memoryview(data[at : at + size]))]
    assert buffer.is_between_frames
    return [(session, descriptor, length, bytes(body)) for session, descriptor, length, body in frames]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector[0][:12])
def test_each_example_comes_out_whole_byte_by_byte_and_in_front_of_another(
    vector: tuple[str, int, Descriptor, int, str],
) -> None:
    data = bytes.fromhex(vector[0])
    expected = (vector[1], vector[2].value, vector[3], bytes.fromhex(vector[4]))
    assert split(data, len(data)) == [expected]
    assert split(data, 1) == [expected]
    assert split(data + data, len(data) + 3) == [expected, expected]


def test_all_examples_as_one_stream_do_not_depend_on_where_it_is_cut() -> None:
    data = b"".join(bytes.fromhex(vector[0]) for vector in VECTORS)
    whole = split(data, len(data))
    assert len(whole) == len(VECTORS)
    for size in (1, 2, 3, 5, 7, 11, 64):
        assert split(data, size) == whole


def test_a_message_above_one_frame_of_ours_is_one_frame_and_its_memory_is_writable_for_vectors() -> None:
    body = bytes(range(256)) * (LIMIT // 256)
    data = b"\x01\x00\x00\x00\x08" + LIMIT.to_bytes(4, "little") + body
    assert split(data, 100_000) == [(1, Descriptor.VEC_RING_64.value, LIMIT, body)]
    frames = IrisFrameBuffer(LIMIT).split(memoryview(data))
    assert isinstance(frames[0][3], bytearray)


def test_the_limit_holds_to_the_byte_and_nothing_is_taken_for_what_is_beyond() -> None:
    head = b"\x01\x00\x00\x00\x0c"
    assert len(split(head + (8).to_bytes(4, "little") + bytes(8), 3, limit=8)) == 1
    for announced in (9, 1 << 31, 0xFFFFFFFF):
        buffer = IrisFrameBuffer(8, "bob")
        with pytest.raises(FrameTooLarge, match="the limit is 8"):
            buffer.split(memoryview(head + announced.to_bytes(4, "little")))
        assert buffer.pending_size == 0
    bits = b"\x01\x00\x00\x00\x0f"
    assert len(split(bits + (64).to_bytes(4, "little") + bytes(8), 4, limit=8)) == 1
    with pytest.raises(FrameTooLarge):
        split(bits + (65).to_bytes(4, "little") + bytes(9), 4, limit=8)


def test_who_announces_much_and_sends_little_gets_no_memory_for_it() -> None:
    buffer = IrisFrameBuffer(1 << 30)
    buffer.split(memoryview(b"\x01\x00\x00\x00\x0c" + (1 << 30).to_bytes(4, "little") + bytes(100)))
    assert buffer.pending_size == 100
    assert not buffer.is_between_frames


@pytest.mark.parametrize(
    "data",
    [
        "01000000 00",
        "01000000 10",
        "01000000 7f",
        "01000000 80 03000000 000000",  # an array of ours
        "01000000 82 05000000 0c00000000",  # a fragment of ours
        "01000000 84 01000000 01",  # a reset of ours
        "ffffffff 85 00000000",  # a goodbye of ours
        "ffffffff 02",  # no session
        "01000000 06 01000000 00",
        "01000000 07 06000000 000000000000",
        "01000000 08 04000000 00000000",
        "01000000 0e 08000000 0000000000000000",
    ],
)
@pytest.mark.parametrize("size", [1, 1000])
def test_what_the_protocol_does_not_have_ends_the_stream_behind_what_stood_before(data: str, size: int) -> None:
    stream = bytes.fromhex("05000000 12" + data)
    buffer = IrisFrameBuffer(LIMIT, "bob")
    frames: list[tuple[int, int, int, bytes | bytearray | memoryview]] = []

    def feed() -> None:
        for at in range(0, len(stream), size):
            buffer.split(memoryview(stream[at : at + size]), frames)

    with pytest.raises(LinkProtocolError, match="bob"):
        feed()
    assert frames == [(5, Descriptor.BIT_1.value, 0, b"")]
    with pytest.raises(LinkProtocolError):
        buffer.split(memoryview(b"\x05"))
