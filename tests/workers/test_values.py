"""Values: the iris test vectors, arrays of arbitrary dtypes, and bytes that no encoder wrote."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partywire.engine.errors import LinkProtocolError
from partywire.engine.frames import Descriptor, frame_header
from partywire.workers import errors
from partywire.workers.array_meta import array_meta
from partywire.workers.value_codec import decode, encode
from partywire.workers.values import (
    Bit,
    NetworkVec,
    PrfCheck,
    PrfKey,
    Ring16,
    Ring32,
    Ring48,
    Ring64,
    StateChecksum,
    VecBit,
    VecRing16,
    VecRing32,
    VecRing48,
    VecRing64,
)

IRIS = [
    (7, Bit(1), "07 00 00 00 12"),
    (7, Bit(0), "07 00 00 00 02"),
    (258, Ring16(777), "02 01 00 00 03 09 03"),
    (0, Ring32(0xDEADBEEF), "00 00 00 00 04 ef be ad de"),
    (0, Ring64(1), "00 00 00 00 05 01 00 00 00 00 00 00 00"),
    (0, Ring48(0xABCD12345678), "00 00 00 00 0d 78 56 34 12 cd ab"),
    (1, PrfKey(bytes(range(16))), "01 00 00 00 01 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f"),
    (1, VecRing16([1, 2, 3]), "01 00 00 00 06 06 00 00 00 01 00 02 00 03 00"),
    (1, VecRing32([]), "01 00 00 00 07 00 00 00 00"),
    (1, VecRing48([1, 2]), "01 00 00 00 0e 0c 00 00 00 01 00 00 00 00 00 02 00 00 00 00 00"),
    (2, StateChecksum(1, 2), "02 00 00 00 09 01 00 00 00 00 00 00 00 02 00 00 00 00 00 00 00"),
    (2, PrfCheck(1), "02 00 00 00 0b 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"),
    (3, b"ok", "03 00 00 00 0c 02 00 00 00 6f 6b"),
    (3, VecBit([1, 0, 1, 0, 1, 0, 1, 0, 1]), "03 00 00 00 0f 09 00 00 00 55 01"),
    (4, NetworkVec([Ring16(0), Ring16(1)]), "04 00 00 00 0a 06 00 00 00 03 00 00 03 01 00"),
]


def whole(session: int, value: object) -> bytes:
    descriptor, length, head, body = encode(value)
    return frame_header(session, descriptor, length) + head + body


def back(value: object) -> Any:
    descriptor, length, head, body = encode(value)
    return decode(descriptor, length, bytearray(head + body))


@pytest.mark.parametrize(("session", "value", "expected"), IRIS, ids=lambda item: type(item).__name__)
def test_iris_values_have_their_bytes(session: int, value: object, expected: str) -> None:
    assert whole(session, value) == bytes.fromhex(expected)
    assert back(value) == value
    assert type(back(value)) is type(value)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
def test_packed_bits_round_trip(count: int) -> None:
    bits = VecBit(np.arange(count) % 3 == 0)
    assert back(bits) == bits
    assert len(encode(bits)[3]) == (count + 7) // 8


@pytest.mark.parametrize(
    ("kind", "value"),
    [(Bit, 2), (Bit, -1), (Ring16, 2**16), (Ring32, 2**32), (Ring48, 2**48), (Ring64, -1), (PrfCheck, 2**128)],
)
def test_elements_hold_what_their_width_allows(kind: type, value: int) -> None:
    with pytest.raises(ValueError, match="holds 0 to"):
        kind(value)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (VecRing16, [2**16]),
        (VecRing16, [-1]),
        (VecRing32, [0.5]),
        (VecRing32, [[1]]),
        (VecRing48, [2**48]),
        (VecBit, [2]),
        (VecRing64, np.array([-1])),
    ],
)
def test_vectors_refuse_what_would_change(kind: Any, values: Any) -> None:
    with pytest.raises((ValueError, OverflowError)):
        kind(values)


def test_a_vector_of_the_right_dtype_is_kept_as_it_is() -> None:
    array = np.arange(3, dtype=np.uint32)
    assert VecRing32(array).values is array


def test_keys_are_hidden_and_compared() -> None:
    key = PrfKey(b"0123456789abcdef")
    assert "0123" not in repr(key)
    assert key == PrfKey(bytes(key))
    assert key != PrfKey(bytes(16))
    assert hash(key) == hash(PrfKey(bytes(key)))
    with pytest.raises(ValueError, match="16 bytes"):
        PrfKey(b"short")
    with pytest.raises(ValueError, match="64 bits"):
        StateChecksum(2**64, 0)


def test_reprs_show_no_elements() -> None:
    assert repr(VecRing32([1234])) == "VecRing32(<1 elements>)"
    assert repr(Ring32(7)) == str(Ring32(7)) == "Ring32(<hidden>)"


def test_the_data_of_an_array_begins_at_a_multiple_of_16() -> None:
    for shape in [(), (1,), (2, 3), (1, 2, 3, 4)]:
        for kind in ("u1", "<f8", "S7"):
            array = np.zeros(shape, kind)
            assert len(array_meta(array)) % 16 == 0
            assert back(array).flags.aligned


FIELDS = np.dtype([("a", "<i4"), ("b", "<f8", (2, 2)), ("c", [("x", "u1"), ("y", "S3")])])
ALIGNED = np.dtype([("a", "i1"), ("b", "i8")], align=True)


@pytest.mark.parametrize(
    "dtype", ["?", "<i8", ">u2", "<f2", "<c16", "S5", "U3", "V7", "<M8[25ns]", "<m8[s]", FIELDS, ALIGNED]
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 5), (2, 3)])
def test_fixed_dtypes_round_trip(dtype: Any, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    array = np.zeros(count, dtype)
    if dtype.kind in "bif":
        array[:] = rng.integers(0, 2, count)
    array = array.reshape(shape)
    received = back(array)
    assert received.dtype == array.dtype
    assert received.shape == array.shape
    assert received.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "array",
    [
        np.array([None]),
        np.zeros(2, [("a", object)]),
        np.zeros(2, "V0"),
        np.zeros(2, np.dtype({"names": ["a", "b"], "formats": ["<u4", "<u4"], "offsets": [0, 2]})),
        np.zeros(2, [(("title", "a"), "<u4")]),
    ],
)
def test_dtypes_that_cannot_be_described_are_refused(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(TypeError):
        encode(array)


@settings(max_examples=300)
@given(st.binary(max_size=80))
def test_any_bytes_as_an_array_are_decoded_or_refused(body: bytes) -> None:
    try:
        array = decode(Descriptor.ARRAY, len(body), bytearray(body), "bob")
    except LinkProtocolError:
        return
    assert array.nbytes <= len(body)
    assert not array.dtype.hasobject


@settings(max_examples=300)
@given(st.text(max_size=60), st.lists(st.integers(0, 3), max_size=3))
def test_any_dtype_text_is_decoded_or_refused(text: str, shape: list[int]) -> None:
    encoded = text.encode("utf-8", "replace")
    body = bytes((len(shape),)) + len(encoded).to_bytes(2, "little") + encoded
    body += b"".join(extent.to_bytes(8, "little") for extent in shape)
    try:
        decode(Descriptor.ARRAY, len(body), bytearray(body))
    except LinkProtocolError:
        pass


@pytest.mark.parametrize(
    "text",
    [
        b"|O8", b"O", b"object", b"<u4,<u4", b"(2,)<u4", b"<q", b"u4", b"<M8[ns", b"<V99999999999", b"[]", b"[1]",
        b'[["a"]]', b'[["a","|O8"]]', b'[["a","<u4",[0]]]', b'[["a","<u4",[-1]]]', b'[["a","<u4",["x"]]]',
        b'[["a","<u4"],["a","<u4"]]', b'[[["t","a"],"<u4"]]', b'[["a","<u4",[65536,65536]]]', b'{"names":["a"]}',
        b'[["a",[["b",[["c",[["d",[["e","<u4"]]]]]]]]]]',
    ],
)  # fmt: skip
def test_texts_that_numpy_might_take_for_more_are_refused(text: bytes) -> None:
    body = b"\x00" + len(text).to_bytes(2, "little") + text + bytes(8)
    with pytest.raises(LinkProtocolError):
        decode(Descriptor.ARRAY, len(body), bytearray(body))


@pytest.mark.parametrize("dtype", ["<U2", ">U2", [("name", "<U2"), ("age", "<i4")]])
def test_text_with_what_is_no_character_is_refused(dtype: Any) -> None:
    array = np.zeros(3, dtype)
    assert back(array).dtype == array.dtype
    array.view(np.uint8)[:] = 0x7F
    descriptor, length, head, body = encode(array)
    with pytest.raises(LinkProtocolError, match="no character"):
        decode(descriptor, length, bytearray(b"".join((head, body))))


def test_an_unknown_message_is_refused() -> None:
    with pytest.raises(LinkProtocolError, match="descriptor"):
        decode(0x77, 0, b"")


def test_the_caches_of_descriptions_are_bounded() -> None:
    from partywire.workers import array_meta as module

    for number in range(module.META_CACHE_SIZE + 10):
        back(np.zeros((1, number + 1), np.uint8))
    assert len(module._META_OF) <= module.META_CACHE_SIZE
    assert len(module._SHAPE_OF) <= module.META_CACHE_SIZE


# Errors live with values here: both cross process borders.


@pytest.mark.parametrize(
    "error",
    [
        errors.ConfigError("alice.toml", (("name", "is missing"),)),
        errors.AddressUnavailable("alice", "alice cannot listen"),
        errors.ConnectFailed("alice", (("bob", "refused"),), 3.0),
        errors.PartyFailed("alice", "x"),
        errors.WorkerDied("alice", 1, "signal 9"),
        errors.PeerLost("bob", 3, 1, "reset"),
        errors.PeerLost("bob", None, 1, "reset"),
        errors.PeerClosed("bob", 3, 1),
        errors.PeerClosed("bob", None, 1),
        errors.PeerAborted("bob", 3, ""),
        errors.SessionTimeout(3, "bob", 2.0, "waiting for"),
        errors.SessionDesync(3, "bob", 1, "x"),
        errors.SessionClosed(3, "closed here"),
        errors.InboxOverflow(3, "bob", 11, 10, "limits.inbox_mib"),
        errors.RendezvousTimeout("barrier", ("bob", "charlie"), 1.0),
        errors.MessageTooLarge(3, "bob", 5, 4, "limits.message_mib"),
        errors.UnexpectedMessage(3, "bob", "is not an array"),
        errors.UnknownPeer("dora", ("bob",)),
        errors.JobFailed(3, "bob", "x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_pickling_and_say_a_sentence(error: errors.PartyWireError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert len(str(error)) > 10 or type(error) is errors.AddressUnavailable
    if isinstance(error, errors.SessionError):
        assert str(error.again()) == str(error)


def test_the_public_names_are_all_there() -> None:
    import partywire

    for name in set(partywire.__all__) - {"BatchRunner"}:
        assert getattr(partywire, name).__name__ == name
    assert set(dir(partywire)) >= set(partywire.__all__)
    with pytest.raises(AttributeError):
        partywire.nothing  # noqa: B018
