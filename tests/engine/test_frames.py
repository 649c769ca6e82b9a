"""The frame table, what the encoder refuses, and what the decoders of bodies say to hostile ones."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywire.engine import limits
from partywire.engine.errors import FrameTooLarge, LinkProtocolError
from partywire.engine.frames import (
    FRAME_TABLE,
    LINK_SESSION,
    SPEC_OF,
    Descriptor,
    JobStatus,
    ResetCode,
    body_size,
    check_contained_untrusted,
    check_length_untrusted,
    check_scope_untrusted,
    decode_goodbye_untrusted,
    decode_job_end_untrusted,
    decode_network_vec_untrusted,
    decode_reset_untrusted,
    decode_token_untrusted,
    encode_frame,
    encode_job_end,
    encode_network_vec,
    encode_reset,
    fragment_begin_header,
    frame_header,
    printable_untrusted,
)
from tests.support.frame_streams import ELEMENT_SIZES, FIXED_SIZES

D = Descriptor


def test_the_table_has_every_descriptor_once() -> None:
    assert [spec.descriptor for spec in FRAME_TABLE] == list(dict.fromkeys(spec.descriptor for spec in FRAME_TABLE))
    assert set(SPEC_OF) == {int(descriptor) for descriptor in Descriptor}


def test_the_table_agrees_with_the_sizes_of_the_wire_description() -> None:
    for spec in FRAME_TABLE:
        assert spec.fixed_size == FIXED_SIZES.get(spec.descriptor)
        assert spec.element_size == ELEMENT_SIZES.get(spec.descriptor, 1)
        assert len(frame_header(1, spec.descriptor, 0)) == (9 if spec.fixed_size is None else 5)
        # Ours are always self-delimiting.
        assert spec.descriptor < 0x80 or spec.fixed_size is None
        # What is cut into fragments must have a length that can be announced.
        assert not spec.containable or spec.fixed_size is None


def test_body_size_counts_bits_only_for_packed_bits() -> None:
    assert [body_size(D.VEC_RING_BIT, bits) for bits in (0, 1, 8, 9, 1000)] == [0, 1, 1, 2, 125]
    assert body_size(D.BYTES, 9) == 9
    assert body_size(D.RING_64, 0) == 8


@pytest.mark.parametrize("descriptor", [0x00, 0x10, 0x11, 0x13, 0x7F, 0x91, 0xFF])
def test_an_unknown_descriptor_is_refused_everywhere(descriptor: int) -> None:
    with pytest.raises(ValueError, match="unknown descriptor"):
        body_size(descriptor, 0)
    with pytest.raises(ValueError, match="unknown descriptor"):
        encode_frame(1, descriptor)
    with pytest.raises(LinkProtocolError, match="unknown frame descriptor"):
        check_length_untrusted("bob", descriptor, 0)
    with pytest.raises(LinkProtocolError, match="cannot be cut"):
        check_contained_untrusted("bob", descriptor, 0)
    with pytest.raises(LinkProtocolError, match="inside a NETWORK_VEC"):
        decode_network_vec_untrusted(bytes((descriptor,)) + bytes(8))


@pytest.mark.parametrize(
    ("session", "descriptor", "body", "length", "message"),
    [
        (1, D.RING_64, bytes(7), None, "cannot have a body of 7"),
        (1, D.VEC_RING_32, bytes(6), None, "not a multiple of 4"),
        (1, D.VEC_RING_BIT, bytes(2), None, "needs its length in bits"),
        (1, D.VEC_RING_BIT, bytes(2), 17, "cannot have a body of 2"),
        (1, D.BYTES, bytes(2), 3, "cannot have a body of 2"),
        (1, D.PING, bytes(8), None, "does not belong to session 1"),
        (LINK_SESSION, D.BYTES, b"", None, "does not belong to session 4294967295"),
        (LINK_SESSION, D.PING, bytes(7), None, "not between 8 and 8"),
        (1, D.FRAGMENT, b"", None, "not between 1"),
        (1, D.BYTES, bytes(limits.FRAME_SIZE_MAX + 1), None, "not between 0 and"),
    ],
)
def test_the_encoder_refuses_what_no_frame_may_be(
    session: int, descriptor: Descriptor, body: bytes, length: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        encode_frame(session, descriptor, body, length)


def test_only_variable_session_values_can_be_cut_into_fragments() -> None:
    containable = {spec.descriptor for spec in FRAME_TABLE if spec.containable}
    assert containable == {
        D.VEC_RING_16, D.VEC_RING_32, D.VEC_RING_48, D.VEC_RING_64, D.VEC_RING_BIT, D.NETWORK_VEC, D.BYTES, D.ARRAY,
        D.OBJECT,
    }  # fmt: skip
    with pytest.raises(ValueError, match="cannot be cut"):
        fragment_begin_header(1, D.RING_16, 2)


@pytest.mark.parametrize(("descriptor", "size"), [*ELEMENT_SIZES.items()])
def test_a_vector_of_broken_elements_is_refused(descriptor: int, size: int) -> None:
    assert check_length_untrusted("bob", descriptor, 3 * size) == 3 * size
    with pytest.raises(LinkProtocolError, match="not a multiple"):
        check_length_untrusted("bob", descriptor, 3 * size + 1)
    with pytest.raises(LinkProtocolError, match="not a multiple"):
        check_contained_untrusted("bob", descriptor, 3 * size + 1)


def test_a_frame_above_the_limit_is_named_with_both_sizes() -> None:
    with pytest.raises(FrameTooLarge) as raised:
        check_length_untrusted("bob", D.BYTES, 101, body_size_max=100)
    assert (raised.value.peer, raised.value.seen, raised.value.limit) == ("bob", 101, 100)
    with pytest.raises(FrameTooLarge):
        check_length_untrusted("bob", D.RESET, 2 + limits.REASON_SIZE_MAX)
    with pytest.raises(FrameTooLarge):
        check_length_untrusted("bob", D.CONTROL, limits.CONTROL_SIZE_MAX + 1)


def test_packed_bits_are_limited_by_bytes_not_bits() -> None:
    assert check_length_untrusted("bob", D.VEC_RING_BIT, 800, body_size_max=100) == 100
    with pytest.raises(FrameTooLarge):
        check_length_untrusted("bob", D.VEC_RING_BIT, 801, body_size_max=100)


@pytest.mark.parametrize(
    ("descriptor", "length"), [(D.PING, 7), (D.FRAGMENT, 0), (D.FRAGMENT_BEGIN, 4), (D.RESET, 0), (D.JOB_END, 8)]
)
def test_a_frame_too_small_for_its_fields_is_refused(descriptor: Descriptor, length: int) -> None:
    with pytest.raises(LinkProtocolError, match="too small"):
        check_length_untrusted("bob", descriptor, length)


def test_scopes_are_kept_apart() -> None:
    for spec in FRAME_TABLE:
        check_scope_untrusted("bob", LINK_SESSION if spec.link_scope else 5, spec.descriptor)
        with pytest.raises(LinkProtocolError, match="belongs to"):
            check_scope_untrusted("bob", 5 if spec.link_scope else LINK_SESSION, spec.descriptor)


def test_a_fragmented_message_may_be_as_large_as_its_length_field() -> None:
    assert check_contained_untrusted("bob", D.BYTES, 2**32 - 1) == 2**32 - 1
    assert check_contained_untrusted("bob", D.VEC_RING_BIT, 2**32 - 1) == 2**29
    with pytest.raises(LinkProtocolError, match="too small"):
        check_contained_untrusted("bob", D.ARRAY, 2)


@pytest.mark.parametrize(
    "descriptor",
    [D.NETWORK_VEC, D.PRF_KEY, D.STATE_CHECKSUM, D.PRF_CHECK, D.ARRAY, D.FRAGMENT, D.RESET, D.PING, D.CONTROL],
)
def test_a_network_vec_holds_no_vectors_of_values_and_no_keys(descriptor: Descriptor) -> None:
    with pytest.raises(LinkProtocolError, match="inside a NETWORK_VEC"):
        decode_network_vec_untrusted(bytes((descriptor,)) + bytes(30))
    with pytest.raises(ValueError, match="cannot hold"):
        encode_network_vec([(descriptor, 0, b"")])


def test_nested_network_vecs_are_refused_at_the_first_level() -> None:
    body = b""
    for _ in range(3):
        body = bytes((D.NETWORK_VEC,)) + len(body).to_bytes(4, "little") + body
    with pytest.raises(LinkProtocolError, match="inside a NETWORK_VEC"):
        decode_network_vec_untrusted(body)


def test_an_inner_length_past_the_end_is_refused() -> None:
    inner = bytes((D.BYTES,)) + (2**32 - 1).to_bytes(4, "little") + b"abc"
    with pytest.raises(LinkProtocolError, match="passes its end"):
        decode_network_vec_untrusted(inner)


@pytest.mark.parametrize("size", range(1, 5))
def test_a_network_vec_that_ends_inside_a_length_is_refused(size: int) -> None:
    with pytest.raises(LinkProtocolError, match="inside a length"):
        decode_network_vec_untrusted((bytes((D.BYTES,)) + bytes(4))[:size])


def test_a_network_vec_truncated_anywhere_is_whole_elements_or_an_error() -> None:
    elements = [(int(D.RING_16), 2, b"ab"), (int(D.BYTES), 3, b"xyz"), (int(D.BIT_1), 0, b"")]
    body = encode_network_vec(elements)
    borders = {0: 0, 3: 1, 11: 2, 12: 3}
    for size in range(len(body) + 1):
        if size in borders:
            assert decode_network_vec_untrusted(memoryview(body)[:size]) == elements[: borders[size]]
        else:
            with pytest.raises(LinkProtocolError):
                decode_network_vec_untrusted(body[:size])


def test_elements_of_a_network_vec_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "NETWORK_VEC_ELEMENTS_MAX", 3)
    three = [(int(D.BIT_1), 0, b"")] * 3
    assert decode_network_vec_untrusted(encode_network_vec(three)) == three
    with pytest.raises(ValueError, match="at most 3"):
        encode_network_vec(three * 2)
    with pytest.raises(LinkProtocolError, match="more than 3"):
        decode_network_vec_untrusted(bytes((D.BIT_1,)) * 4)


def test_the_encoder_of_a_network_vec_refuses_a_body_of_the_wrong_size() -> None:
    with pytest.raises(ValueError, match="cannot have a body"):
        encode_network_vec([(D.RING_64, 8, bytes(7))])


@given(st.binary(max_size=200))
def test_any_bytes_are_a_network_vec_or_a_protocol_error(body: bytes) -> None:
    try:
        elements = decode_network_vec_untrusted(body, "bob")
    except LinkProtocolError:
        return
    assert encode_network_vec(elements) == body


@given(st.binary(max_size=40))
def test_any_bytes_are_a_body_of_ours_or_a_protocol_error(body: bytes) -> None:
    for decode in (decode_reset_untrusted, decode_job_end_untrusted, decode_token_untrusted):
        with contextlib.suppress(LinkProtocolError):
            decode(body, "bob")
    assert decode_goodbye_untrusted(body).isprintable()


@pytest.mark.parametrize(
    ("decode", "body"),
    [
        (decode_reset_untrusted, b""),
        (decode_reset_untrusted, b"\xee"),
        (decode_job_end_untrusted, bytes(8)),
        (decode_job_end_untrusted, bytes(8) + b"\xee"),
        (decode_token_untrusted, bytes(7)),
        (decode_token_untrusted, bytes(9)),
    ],
)
def test_a_malformed_body_of_ours_is_a_protocol_error(decode: object, body: bytes) -> None:
    assert callable(decode)
    with pytest.raises(LinkProtocolError):
        decode(body)


def test_a_long_reason_is_cut_at_a_character_and_not_refused() -> None:
    reset = encode_reset(1, ResetCode.ABORTED, "ß" * 2000)
    assert decode_reset_untrusted(reset[9:])[1] == "ß" * ((limits.REASON_SIZE_MAX - 3) // 2) + "..."
    status = decode_job_end_untrusted(encode_job_end(1, 1, JobStatus.FAILED, "x" * 5000)[9:])[2]
    assert status.endswith("...")
    assert len(status) == limits.REASON_SIZE_MAX


def test_a_reason_cannot_forge_a_log_line() -> None:
    shown = printable_untrusted(b"ok\n2026 ERROR \x1b[31mfake\xff")
    assert shown.isprintable()
    assert "ok" in shown
    assert "fake" in shown
