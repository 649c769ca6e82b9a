"""What can be sent and how: bytes, ring elements and vectors, numpy arrays of any fixed dtype and shape.

Between the caller of `Session.send` and the caller of `Session.recv`. `encode` turns a value into (descriptor, length
field, head, body) and `decode` turns a received body back. The one invariant: `decode(encode(x))` equals x in type,
dtype, shape and content, and no bytes of a peer make `decode` do more than refuse: every size is compared with what
really arrived before anything is made from it.

Copies: encoding a value above SMALL_SIZE_MAX lends the caller's memory and copies nothing; decoding an array or a ring
vector of 16, 32 or 64 bits uses the received memory as it is.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from partywire.engine.errors import LinkProtocolError
from partywire.engine.frames import Descriptor, decode_network_vec_untrusted, encode_network_vec

from .array_meta import array_meta, byte_view, split_array_untrusted
from .numpy_text import check_text_untrusted
from .values import (
    Bit,
    NetworkVec,
    PrfCheck,
    PrfKey,
    Ring16,
    Ring32,
    Ring48,
    Ring64,
    RingElement,
    RingVector,
    StateChecksum,
    VecBit,
    VecRing16,
    VecRing32,
    VecRing48,
    VecRing64,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from partywire.engine.frames import Buffer

SMALL_SIZE_MAX: Final = 16 * 1024
"""Bodies up to this size are joined with others into one record, which copies them twice; joining 16 KiB costs about as
much as the claim and commit of a record of its own."""

Encoded: TypeAlias = "tuple[int, int, bytes, Buffer]"
"""(descriptor, length field, head, body): the message is head + body. A body up to SMALL_SIZE_MAX is immutable, a
larger one may be the caller's own memory."""


# Encoding.


def encode(value: object) -> Encoded:
    """How a value travels.

    Raises:
        TypeError: a type that cannot be sent, among them arrays of Python objects.
    """
    encoder = _ENCODERS.get(type(value))
    if encoder is not None:
        return encoder(value)
    for kind, candidate in _ENCODERS.items():
        if isinstance(value, kind):
            return candidate(value)
    if isinstance(value, np.generic):
        return _encode_array(np.asarray(value))
    raise TypeError(
        f"a {type(value).__name__} cannot be sent; send bytes, a numpy array, or a type of partywire such as Ring32"
    )


def _stable_bytes(array: NDArray[Any]) -> Buffer:
    """A copy of a small array's data, or a view of a large one's."""
    return array.tobytes() if array.nbytes <= SMALL_SIZE_MAX else byte_view(np.ascontiguousarray(array))


def _encode_array(array: NDArray[Any]) -> Encoded:
    if type(array) is not np.ndarray and isinstance(array, np.ma.MaskedArray):  # np.ma is imported when first named
        raise TypeError("the mask of a masked array cannot be sent; send its data and its mask as two arrays")
    meta = array_meta(array)
    body = _stable_bytes(array)
    return Descriptor.ARRAY.value, len(meta) + len(body), meta, body


def _encode_bytes(value: bytes) -> Encoded:
    return Descriptor.BYTES.value, len(value), b"", value


def _encode_buffer(value: bytearray | memoryview) -> Encoded:
    view = memoryview(value)
    if view.nbytes <= SMALL_SIZE_MAX:
        return Descriptor.BYTES.value, view.nbytes, b"", view.tobytes()
    if not view.c_contiguous:
        view = memoryview(view.tobytes())
    return Descriptor.BYTES.value, view.nbytes, b"", view.cast("B")


def _encode_element(value: RingElement) -> Encoded:
    size = value.bits >> 3
    return value.descriptor, size, b"", int(value).to_bytes(size, "little")


def _encode_bit(value: Bit) -> Encoded:
    return (Descriptor.BIT_1 if value else Descriptor.BIT_0).value, 0, b"", b""


def _encode_key(value: PrfKey) -> Encoded:
    return Descriptor.PRF_KEY.value, 16, b"", bytes(value)


def _encode_checksum(value: StateChecksum) -> Encoded:
    return Descriptor.STATE_CHECKSUM.value, 16, b"", struct.pack("<QQ", value.irises, value.graph)


def _encode_vector(value: RingVector) -> Encoded:
    body = _stable_bytes(value.values)
    return value.descriptor, len(body), b"", body


def _encode_vector48(value: VecRing48) -> Encoded:
    octets = np.ascontiguousarray(value.values).view(np.uint8).reshape(-1, 8)
    body = octets[:, :6].tobytes()
    return Descriptor.VEC_RING_48.value, len(body), b"", body


def _encode_bits(value: VecBit) -> Encoded:
    body = np.packbits(value.values, bitorder="little").tobytes()
    return Descriptor.VEC_RING_BIT.value, len(value), b"", body


def _encode_network_vec(value: NetworkVec) -> Encoded:
    elements = []
    for element in value:
        descriptor, length, head, body = encode(element)
        elements.append((descriptor, length, head + body if head else body))
    try:
        whole = encode_network_vec(elements)
    except ValueError as error:
        raise TypeError(str(error)) from error
    return Descriptor.NETWORK_VEC.value, len(whole), b"", whole


_ENCODERS: Final[dict[type, Callable[[Any], Encoded]]] = {
    bytes: _encode_bytes,
    np.ndarray: _encode_array,
    bytearray: _encode_buffer,
    memoryview: _encode_buffer,
    Bit: _encode_bit,
    Ring16: _encode_element,
    Ring32: _encode_element,
    Ring48: _encode_element,
    Ring64: _encode_element,
    PrfCheck: _encode_element,
    PrfKey: _encode_key,
    StateChecksum: _encode_checksum,
    VecRing16: _encode_vector,
    VecRing32: _encode_vector,
    VecRing64: _encode_vector,
    VecRing48: _encode_vector48,
    VecBit: _encode_bits,
    NetworkVec: _encode_network_vec,
}

WIRE_KINDS: Final = tuple(kind for kind in _ENCODERS if kind not in (bytes, bytearray, memoryview, np.ndarray))
"""The types of ours."""


# Decoding what a peer sent.


def is_wire_kind(descriptor: int) -> bool:
    """Whether messages of this descriptor are values of WIRE_KINDS."""
    return descriptor in _DECODERS and descriptor not in (Descriptor.BYTES, Descriptor.ARRAY)


def decode(descriptor: int, length: int, body: Buffer, peer: str = "") -> Any:
    """The value of a message whose frame has been checked.

    Raises:
        LinkProtocolError: the body is not what its descriptor says.
    """
    decoder = _DECODERS.get(descriptor)
    if decoder is None:
        raise LinkProtocolError(peer, "descriptor of a message", f"{descriptor:#04x}")
    return decoder(length, body, peer)


def _writable(body: Buffer) -> Buffer:
    """Memory that numpy may write to; the elements of a NetworkVec arrive as `bytes`."""
    return bytearray(body) if isinstance(body, bytes) else body


def _decode_array_untrusted(length: int, body: Buffer, peer: str) -> NDArray[Any]:
    dtype, shape, offset = split_array_untrusted(body, peer)
    array: NDArray[Any] = np.ndarray(shape, dtype, _writable(body), offset)
    check_text_untrusted(array, peer)
    return array


def _decode_bytes(length: int, body: Buffer, peer: str) -> bytes:
    return body if type(body) is bytes else bytes(body)


def _element_decoder(kind: type[RingElement]) -> Callable[[int, Buffer, str], RingElement]:
    return lambda length, body, peer: kind(int.from_bytes(body, "little"))


def _vector_decoder(kind: type[RingVector]) -> Callable[[int, Buffer, str], RingVector]:
    itemsize = kind.dtype.itemsize
    return lambda length, body, peer: kind(np.ndarray((len(body) // itemsize,), kind.dtype, _writable(body)))


def _decode_vector48(length: int, body: Buffer, peer: str) -> VecRing48:
    octets = np.zeros((len(body) // 6, 8), np.uint8)
    octets[:, :6] = np.ndarray((len(body) // 6, 6), np.uint8, body)
    return VecRing48(octets.view("<u8").reshape(-1))


def _decode_bits(length: int, body: Buffer, peer: str) -> VecBit:
    packed = np.ndarray((len(body),), np.uint8, body)
    return VecBit(np.unpackbits(packed, count=length, bitorder="little").view("?"))


def _decode_network_vec_untrusted(length: int, body: Buffer, peer: str) -> NetworkVec:
    elements: Iterable[tuple[int, int, bytes]] = decode_network_vec_untrusted(body, peer)
    return NetworkVec(decode(descriptor, inner, inner_body, peer) for descriptor, inner, inner_body in elements)


_DECODERS: Final[dict[int, Callable[[int, Buffer, str], Any]]] = {
    Descriptor.BYTES: _decode_bytes,
    Descriptor.ARRAY: _decode_array_untrusted,
    Descriptor.BIT_0: lambda length, body, peer: Bit(0),
    Descriptor.BIT_1: lambda length, body, peer: Bit(1),
    Descriptor.RING_16: _element_decoder(Ring16),
    Descriptor.RING_32: _element_decoder(Ring32),
    Descriptor.RING_48: _element_decoder(Ring48),
    Descriptor.RING_64: _element_decoder(Ring64),
    Descriptor.PRF_CHECK: _element_decoder(PrfCheck),
    Descriptor.PRF_KEY: lambda length, body, peer: PrfKey(bytes(body)),
    Descriptor.STATE_CHECKSUM: lambda length, body, peer: StateChecksum(*struct.unpack("<QQ", body)),
    Descriptor.VEC_RING_16: _vector_decoder(VecRing16),
    Descriptor.VEC_RING_32: _vector_decoder(VecRing32),
    Descriptor.VEC_RING_64: _vector_decoder(VecRing64),
    Descriptor.VEC_RING_48: _decode_vector48,
    Descriptor.VEC_RING_BIT: _decode_bits,
    Descriptor.NETWORK_VEC: _decode_network_vec_untrusted,
}
