"""Bytes that must never change: the published iris vectors, and one of each of our own frames (docs/wire.md)."""

from __future__ import annotations

import pytest

from partywire.engine.frame_buffer import FrameBuffer
from partywire.engine.frames import (
    LINK_SESSION,
    Descriptor,
    JobStatus,
    ResetCode,
    decode_goodbye_untrusted,
    decode_job_end_untrusted,
    decode_network_vec_untrusted,
    decode_reset_untrusted,
    decode_token_untrusted,
    encode_frame,
    encode_goodbye,
    encode_job_end,
    encode_network_vec,
    encode_ping,
    encode_pong,
    encode_reset,
    fragment_begin_header,
    frame_header,
)
from tests.support.frame_streams import plain, split_at

D = Descriptor


def u16s(*values: int) -> bytes:
    return b"".join(value.to_bytes(2, "little") for value in values)


def u48s(*values: int) -> bytes:
    return b"".join(value.to_bytes(6, "little") for value in values)


IRIS_VECTORS = [
    # name, session, descriptor, length field, body, the bytes of the whole frame
    ("Bit(1)", 7, D.BIT_1, 0, b"", "07 00 00 00 12"),
    ("Bit(0)", 7, D.BIT_0, 0, b"", "07 00 00 00 02"),
    ("RingElement16(777)", 258, D.RING_16, 2, u16s(777), "02 01 00 00 03 09 03"),
    ("RingElement32(0xDEADBEEF)", 0, D.RING_32, 4, 0xDEADBEEF.to_bytes(4, "little"), "00 00 00 00 04 ef be ad de"),
    ("RingElement64(1)", 0, D.RING_64, 8, (1).to_bytes(8, "little"), "00 00 00 00 05 01 00 00 00 00 00 00 00"),
    ("RingElement48(0xABCD12345678)", 0, D.RING_48, 6, u48s(0xABCD12345678), "00 00 00 00 0d 78 56 34 12 cd ab"),
    (
        "PrfKey(00..0f)", 1, D.PRF_KEY, 16, bytes(range(16)),
        "01 00 00 00 01 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f",
    ),
    ("VecRing16([1,2,3])", 1, D.VEC_RING_16, 6, u16s(1, 2, 3), "01 00 00 00 06 06 00 00 00 01 00 02 00 03 00"),
    ("VecRing32([])", 1, D.VEC_RING_32, 0, b"", "01 00 00 00 07 00 00 00 00"),
    (
        "VecRing48([1,2])", 1, D.VEC_RING_48, 12, u48s(1, 2),
        "01 00 00 00 0e 0c 00 00 00 01 00 00 00 00 00 02 00 00 00 00 00",
    ),
    (
        "StateChecksum(1,2)", 2, D.STATE_CHECKSUM, 16, (1).to_bytes(8, "little") + (2).to_bytes(8, "little"),
        "02 00 00 00 09 01 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00",
    ),
    ("PrfCheck(1)", 2, D.PRF_CHECK, 16, (1).to_bytes(16, "little"), "02 00 00 00 0b 01" + " 00" * 15),
    ('Bytes("ok")', 3, D.BYTES, 2, b"ok", "03 00 00 00 0c 02 00 00 00 6f 6b"),
    ("VecRingBit(101010101)", 3, D.VEC_RING_BIT, 9, b"\x55\x01", "03 00 00 00 0f 09 00 00 00 55 01"),
    (
        "NetworkVec([R16(0),R16(1)])", 4, D.NETWORK_VEC, 6, b"\x03\x00\x00\x03\x01\x00",
        "04 00 00 00 0a 06 00 00 00 03 00 00 03 01 00",
    ),
    ("validation probe for index 2", 2, D.PRF_KEY, 16, (2).to_bytes(16, "little"), "02 00 00 00 01 02" + " 00" * 15),
    # Further ones, worked out by hand from the same description.
    ("VecRing64([1])", 5, D.VEC_RING_64, 8, (1).to_bytes(8, "little"), "05 00 00 00 08 08 00 00 00 01" + " 00" * 7),
    ("VecRingBit()", 5, D.VEC_RING_BIT, 0, b"", "05 00 00 00 0f 00 00 00 00"),
    ("control channel token", 7, D.BYTES, 2, b"ok", "07 00 00 00 0c 02 00 00 00 6f 6b"),
]  # fmt: skip

OUR_VECTORS = [
    # name, session, descriptor, length field, body as it is split, encoded, the bytes of the whole frame
    (
        "array of uint16 [1, 2]", 9, D.ARRAY, 18, b"\x01\x03\x00<u2" + (2).to_bytes(8, "little") + u16s(1, 2),
        encode_frame(9, D.ARRAY, b"\x01\x03\x00<u2" + (2).to_bytes(8, "little") + u16s(1, 2)),
        "09 00 00 00 80 12 00 00 00 01 03 00 3c 75 32 02 00 00 00 00 00 00 00 01 00 02 00",
    ),
    (
        "begin of 300,000 bytes without data", 9, D.FRAGMENT_BEGIN, 300_000, b"\x0c",
        fragment_begin_header(9, D.BYTES, 300_000),
        "09 00 00 00 82 05 00 00 00 0c e0 93 04 00",
    ),
    (
        "fragment of three bytes", 9, D.FRAGMENT, 3, b"abc", frame_header(9, D.FRAGMENT, 3) + b"abc",
        "09 00 00 00 83 03 00 00 00 61 62 63",
    ),
    (
        "reset", 9, D.RESET, 3, b"\x01no", encode_reset(9, ResetCode.ABORTED, "no"),
        "09 00 00 00 84 03 00 00 00 01 6e 6f",
    ),
    ("goodbye", LINK_SESSION, D.GOODBYE, 0, b"", encode_goodbye(), "ff ff ff ff 85 00 00 00 00"),
    (
        "goodbye with a reason", LINK_SESSION, D.GOODBYE, 4, b"done", encode_goodbye("done"),
        "ff ff ff ff 85 04 00 00 00 64 6f 6e 65",
    ),
    (
        "ping", LINK_SESSION, D.PING, 8, (258).to_bytes(8, "little"), encode_ping(258),
        "ff ff ff ff 86 08 00 00 00 02 01 00 00 00 00 00 00",
    ),
    (
        "pong", LINK_SESSION, D.PONG, 8, (258).to_bytes(8, "little"), encode_pong(258),
        "ff ff ff ff 87 08 00 00 00 02 01 00 00 00 00 00 00",
    ),
    (
        "job end", 9, D.JOB_END, 12, (5).to_bytes(8, "little") + b"\x01bad",
        encode_job_end(9, 5, JobStatus.FAILED, "bad"),
        "09 00 00 00 88 0c 00 00 00 05 00 00 00 00 00 00 00 01 62 61 64",
    ),
    (
        "control", LINK_SESSION, D.CONTROL, 2, b"{}", encode_frame(LINK_SESSION, D.CONTROL, b"{}"),
        "ff ff ff ff 90 02 00 00 00 7b 7d",
    ),
]  # fmt: skip

EVERY_EXAMPLE = [
    *((v[0], bytes.fromhex(v[5]), (v[1], int(v[2]), v[3], v[4])) for v in IRIS_VECTORS),
    *((v[0], bytes.fromhex(v[6]), (v[1], int(v[2]), v[3], v[4])) for v in OUR_VECTORS),
]
each_example = pytest.mark.parametrize(
    ("wire", "frame"), [example[1:] for example in EVERY_EXAMPLE], ids=[example[0] for example in EVERY_EXAMPLE]
)


@pytest.mark.parametrize("vector", IRIS_VECTORS, ids=lambda vector: str(vector[0]))
def test_an_iris_value_is_encoded_as_published(vector: tuple[str, int, Descriptor, int, bytes, str]) -> None:
    _, session, descriptor, length, body, expected = vector
    bits = length if descriptor == D.VEC_RING_BIT else None
    assert encode_frame(session, descriptor, body, bits) == bytes.fromhex(expected)
    assert frame_header(session, descriptor, length) + body == bytes.fromhex(expected)


@pytest.mark.parametrize("vector", OUR_VECTORS, ids=lambda vector: str(vector[0]))
def test_a_frame_of_ours_is_encoded_as_documented(
    vector: tuple[str, int, Descriptor, int, bytes, bytes, str],
) -> None:
    assert vector[5] == bytes.fromhex(vector[6])


@each_example
def test_a_golden_frame_is_split_whole_byte_by_byte_and_with_a_tail(
    wire: bytes, frame: tuple[int, int, int, bytes]
) -> None:
    assert plain(FrameBuffer().split(memoryview(wire))) == [frame]
    assert split_at(FrameBuffer(), wire, range(1, len(wire))) == [frame]
    buffer = FrameBuffer()
    assert plain(buffer.split(memoryview(wire + b"\x07\x00"))) == [frame]
    assert buffer.pending_size == 2


@each_example
def test_a_truncated_golden_frame_yields_nothing_yet(
    wire: bytes, frame: tuple[int, int, int, bytes]
) -> None:
    for size in range(len(wire)):
        buffer = FrameBuffer()
        frames = buffer.split(memoryview(wire[:size]))
        # Fragment data passes through as it comes; everything else waits for its end.
        assert all(descriptor in (D.FRAGMENT, D.FRAGMENT_BEGIN) for _, descriptor, _, _ in frames)
        assert buffer.is_between_frames == (size == 0)
        rest = buffer.split(memoryview(wire[size:]))
        assert plain([*frames, *rest]) == [frame]
        assert buffer.is_between_frames


def test_a_network_vec_round_trips_every_kind_that_it_may_hold() -> None:
    elements = [
        (int(D.BIT_0), 0, b""),
        (int(D.BIT_1), 0, b""),
        (int(D.RING_16), 2, u16s(777)),
        (int(D.RING_32), 4, bytes(4)),
        (int(D.RING_48), 6, u48s(1)),
        (int(D.RING_64), 8, bytes(8)),
        (int(D.VEC_RING_16), 4, u16s(1, 2)),
        (int(D.VEC_RING_32), 0, b""),
        (int(D.VEC_RING_48), 6, u48s(2)),
        (int(D.VEC_RING_64), 8, bytes(8)),
        (int(D.VEC_RING_BIT), 9, b"\x55\x01"),
        (int(D.BYTES), 2, b"ok"),
    ]
    assert decode_network_vec_untrusted(encode_network_vec(elements)) == elements


def test_bodies_of_our_frames_decode_to_what_was_encoded() -> None:
    assert decode_reset_untrusted(encode_reset(1, ResetCode.OVERFLOW, "zu groß")[9:]) == (ResetCode.OVERFLOW, "zu groß")
    assert decode_job_end_untrusted(encode_job_end(1, 2**63, JobStatus.DONE)[9:]) == (2**63, JobStatus.DONE, "")
    assert decode_goodbye_untrusted(encode_goodbye("bye")[9:]) == "bye"
    assert decode_token_untrusted(encode_ping(2**64 - 1)[9:]) == 2**64 - 1
