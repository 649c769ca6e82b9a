"""What can be sent: bytes, ring elements and vectors of the iris protocol, numpy arrays of any fixed dtype and shape.

Between the caller of `Session.send` and the caller of `Session.recv`. `encode` turns a value into (descriptor, length
field, head, body) and `decode` turns a received body back. The one invariant: `decode(encode(x))` equals x in type,
dtype, shape and content, and no bytes of a peer make `decode` do more than refuse: every size is compared with what
really arrived before anything is made from it.

Copies: encoding a value above SMALL_SIZE_MAX lends the caller's memory and copies nothing; decoding an array or a ring
vector of 16, 32 or 64 bits uses the received memory as it is.
"""

from __future__ import annotations

import hmac
import math
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

import numpy as np
import orjson

from partywire.engine.errors import LinkProtocolError
from partywire.engine.frames import Descriptor, decode_network_vec_untrusted, encode_network_vec

from .numpy_text import check_text_untrusted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import ArrayLike, NDArray

    from partywire.engine.frames import Buffer

__all__ = [
    "Bit",
    "NetworkVec",
    "PrfCheck",
    "PrfKey",
    "Ring16",
    "Ring32",
    "Ring48",
    "Ring64",
    "StateChecksum",
    "Value",
    "VecBit",
    "VecRing16",
    "VecRing32",
    "VecRing48",
    "VecRing64",
    "array_meta",
    "decode",
    "encode",
]

SMALL_SIZE_MAX: Final = 16 * 1024
"""Bodies up to this size are joined with others into one record, which copies them twice; joining 16 KiB costs about as
much as the claim and commit of a record of its own."""

NDIM_MAX: Final = 32
"""What every numpy since 1.26 can hold."""

DTYPE_TEXT_SIZE_MAX: Final = 4 * 1024
"""A structured dtype of some hundred fields."""

FIELDS_MAX: Final = 256
DTYPE_DEPTH_MAX: Final = 4
META_CACHE_SIZE: Final = 1024
"""Kinds of arrays (dtype and shape) whose description is kept ready; the cache starts anew when it is full."""

_ALIGNMENT: Final = 16
"""The description before an array's data is padded to it, so that received arrays are aligned for every dtype."""

Encoded: TypeAlias = "tuple[int, int, bytes, Buffer]"
"""(descriptor, length field, head, body): the message is head + body. A body up to SMALL_SIZE_MAX is immutable, a
larger one may be the caller's own memory."""


# Ring elements and keys.


class _Element(int):
    """An unsigned number of fixed width; arithmetic gives plain ints."""

    bits: ClassVar[int]
    descriptor: ClassVar[int]

    def __new__(cls, value: int) -> _Element:
        if not 0 <= value < 1 << cls.bits:
            raise ValueError(f"{cls.__name__} holds 0 to 2**{cls.bits} - 1")
        return super().__new__(cls, value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<hidden>)"  # it may be a share; int() shows it


class Bit(_Element):
    """One bit."""

    bits = 1
    descriptor = Descriptor.BIT_0


class Ring16(_Element):
    """An element of Z_2^16."""

    bits = 16
    descriptor = Descriptor.RING_16


class Ring32(_Element):
    """An element of Z_2^32."""

    bits = 32
    descriptor = Descriptor.RING_32


class Ring48(_Element):
    """An element of Z_2^48; 6 bytes on the wire."""

    bits = 48
    descriptor = Descriptor.RING_48


class Ring64(_Element):
    """An element of Z_2^64."""

    bits = 64
    descriptor = Descriptor.RING_64


class PrfCheck(_Element):
    """A 128-bit number with which parties check that they use the same keys."""

    bits = 128
    descriptor = Descriptor.PRF_CHECK


class PrfKey:
    """A 16-byte seed of a pseudo-random function. Its repr hides it; comparing takes the same time for every key."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != 16:
            raise ValueError(f"a PrfKey has 16 bytes, not {len(key)}")
        self._key = bytes(key)

    def __bytes__(self) -> bytes:
        return self._key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PrfKey) and hmac.compare_digest(self._key, other._key)

    def __hash__(self) -> int:
        return hash((PrfKey, self._key))

    def __repr__(self) -> str:
        return "PrfKey(<hidden>)"


@dataclass(frozen=True, slots=True)
class StateChecksum:
    """Two 64-bit checksums, as the iris protocol compares them."""

    irises: int
    graph: int

    def __post_init__(self) -> None:
        if not (0 <= self.irises < 1 << 64 and 0 <= self.graph < 1 << 64):
            raise ValueError("both checksums are numbers of 64 bits")


# Ring vectors.


class _Vector:
    """A one-dimensional array of ring elements, in `values`."""

    __slots__ = ("values",)
    __hash__ = None  # type: ignore[assignment]
    dtype: ClassVar[np.dtype[Any]]
    descriptor: ClassVar[int]

    def __init__(self, values: ArrayLike) -> None:
        """Keeps an array of the right dtype as it is; anything else is converted if no value changes.

        Raises:
            ValueError: not one-dimensional, or a value does not fit.
        """
        array = np.asarray(values)
        if array.ndim != 1:
            raise ValueError(f"{type(self).__name__} is one-dimensional, not of shape {array.shape}")
        if array.dtype != self.dtype:
            converted = array.astype(self.dtype)
            if (array.dtype.kind not in "iub" and array.size) or not np.array_equal(converted, array):
                raise ValueError(f"{type(self).__name__} cannot hold these values of dtype {array.dtype}")
            array = converted
        self.values: NDArray[Any] = array

    def __len__(self) -> int:
        return len(self.values)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and np.array_equal(self.values, other.values)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<{len(self.values)} elements>)"


class VecRing16(_Vector):
    """Elements of Z_2^16 as a numpy array of uint16."""

    __slots__ = ()
    dtype = np.dtype("<u2")
    descriptor = Descriptor.VEC_RING_16


class VecRing32(_Vector):
    """Elements of Z_2^32 as a numpy array of uint32."""

    __slots__ = ()
    dtype = np.dtype("<u4")
    descriptor = Descriptor.VEC_RING_32


class VecRing64(_Vector):
    """Elements of Z_2^64 as a numpy array of uint64."""

    __slots__ = ()
    dtype = np.dtype("<u8")
    descriptor = Descriptor.VEC_RING_64


class VecRing48(_Vector):
    """Elements of Z_2^48 as a numpy array of uint64; 6 bytes each on the wire, so encoding and decoding copy."""

    __slots__ = ()
    dtype = np.dtype("<u8")
    descriptor = Descriptor.VEC_RING_48

    def __init__(self, values: ArrayLike) -> None:
        super().__init__(values)
        if self.values.size and int(self.values.max()) >> 48:
            raise ValueError("VecRing48 holds values below 2**48")


class VecBit(_Vector):
    """Bits as a numpy array of bool; eight per byte on the wire, so encoding and decoding copy."""

    __slots__ = ()
    dtype = np.dtype("?")
    descriptor = Descriptor.VEC_RING_BIT


class NetworkVec(list[Any]):
    """A list of ring elements, ring vectors and bytes, sent as one message. It cannot hold another NetworkVec."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"NetworkVec(<{len(self)} values>)"


Value: TypeAlias = (
    "bytes | bytearray | memoryview | _Element | PrfKey | StateChecksum | _Vector | NetworkVec"
    " | NDArray[Any] | np.generic[Any]"
)


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


def array_meta(array: NDArray[Any]) -> bytes:
    """The bytes in front of an array's data: ndim u8, text size u16, dtype text, shape u64 each.

    The text is padded with spaces so that the data begins at a multiple of 16 bytes.
    """
    key = (array.dtype, array.shape)
    meta = _META_OF.get(key)
    if meta is None:
        text = _dtype_text(array.dtype)
        size = 3 + len(text) + 8 * array.ndim
        text += b" " * (-size % _ALIGNMENT)
        if len(text) > DTYPE_TEXT_SIZE_MAX:
            raise TypeError(f"the dtype of an array needs {len(text)} bytes, at most {DTYPE_TEXT_SIZE_MAX} are allowed")
        if array.ndim > NDIM_MAX:
            raise TypeError(f"an array of {array.ndim} dimensions cannot be sent, at most {NDIM_MAX} are allowed")
        meta = struct.pack(f"<BH{len(text)}s{array.ndim}Q", array.ndim, len(text), text, *array.shape)
        if len(_META_OF) >= META_CACHE_SIZE:
            _META_OF.clear()
        _META_OF[key] = meta
    return meta


_META_OF: dict[tuple[np.dtype[Any], tuple[int, ...]], bytes] = {}


def _dtype_text(dtype: np.dtype[Any]) -> bytes:
    if dtype.hasobject:
        raise TypeError("an array of Python objects cannot be sent; give it a fixed dtype")
    if not dtype.itemsize:
        raise TypeError(f"an array of dtype {dtype} has elements of no size and cannot be sent")
    if dtype.names is None:
        text = dtype.str.encode("ascii")
    else:
        try:
            text = orjson.dumps(dtype.descr)
        except (ValueError, TypeError) as error:
            raise TypeError(f"dtype {dtype} cannot be described: {error}") from error
    try:
        if dtype_untrusted(text) == dtype:
            return text
    except LinkProtocolError as error:
        raise TypeError(f"dtype {dtype} cannot be sent: {error.what}") from error
    raise TypeError(f"dtype {dtype} cannot be described exactly; overlapping fields and titles are not sent")


def byte_view(array: NDArray[Any]) -> memoryview:
    """The memory of a C-contiguous array of any dtype; writable if the array is."""
    if not array.size:
        return memoryview(b"")
    return array.reshape(-1).view(np.uint8).data


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


def _encode_element(value: _Element) -> Encoded:
    size = value.bits >> 3
    return value.descriptor, size, b"", int(value).to_bytes(size, "little")


def _encode_bit(value: Bit) -> Encoded:
    return (Descriptor.BIT_1 if value else Descriptor.BIT_0).value, 0, b"", b""


def _encode_key(value: PrfKey) -> Encoded:
    return Descriptor.PRF_KEY.value, 16, b"", bytes(value)


def _encode_checksum(value: StateChecksum) -> Encoded:
    return Descriptor.STATE_CHECKSUM.value, 16, b"", struct.pack("<QQ", value.irises, value.graph)


def _encode_vector(value: _Vector) -> Encoded:
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


def split_array_untrusted(body: Buffer, peer: str = "") -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """dtype, shape and the offset of the data of an ARRAY; the data is exactly what remains of the body.

    Raises:
        LinkProtocolError: the description is cut, unknown, or of another size than the data.
    """
    if len(body) < 3:
        raise LinkProtocolError(peer, "size of an array's description", len(body), ">= 3")
    offset = 3 + int.from_bytes(body[1:3], "little") + 8 * body[0]
    known = _SHAPE_OF.get(bytes(body[:offset]))
    if known is None:
        known = _parse_meta_untrusted(bytes(body[: min(offset, 3 + DTYPE_TEXT_SIZE_MAX + 8 * NDIM_MAX)]), offset, peer)
    dtype, shape, size = known
    if size != len(body) - offset:
        raise LinkProtocolError(peer, "bytes of an array's data", len(body) - offset, size)
    return dtype, shape, offset


_SHAPE_OF: dict[bytes, tuple[np.dtype[Any], tuple[int, ...], int]] = {}


def parse_array_meta_untrusted(meta: bytes, peer: str = "") -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """dtype, shape and size of the data of what `array_meta` wrote, with nothing behind it.

    Raises:
        LinkProtocolError: the description is cut, unknown, or longer than it says.
    """
    known = _SHAPE_OF.get(meta)
    if known is None:
        offset = 3 + int.from_bytes(meta[1:3], "little") + 8 * meta[0] if len(meta) >= 3 else 0
        if offset != len(meta) or not meta:
            raise LinkProtocolError(peer, "size of an array's description", len(meta))
        known = _parse_meta_untrusted(meta, offset, peer)
    return known


def _parse_meta_untrusted(meta: bytes, offset: int, peer: str) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    ndim, text_size = meta[0], int.from_bytes(meta[1:3], "little")
    if ndim > NDIM_MAX:
        raise LinkProtocolError(peer, "dimensions of an array", ndim, NDIM_MAX)
    if text_size > DTYPE_TEXT_SIZE_MAX:
        raise LinkProtocolError(peer, "bytes of an array's dtype", text_size, DTYPE_TEXT_SIZE_MAX)
    if len(meta) < offset:
        raise LinkProtocolError(peer, "array ends inside its description, bytes", len(meta), offset)
    dtype = dtype_untrusted(meta[3 : 3 + text_size], peer)
    shape: tuple[int, ...] = struct.unpack_from(f"<{ndim}Q", meta, 3 + text_size)
    # Zeros are left out, because numpy refuses shapes whose other sizes alone are too large.
    if math.prod(extent for extent in shape if extent) * dtype.itemsize >= 1 << 63:
        raise LinkProtocolError(peer, "shape of an array is beyond any memory, dimensions", ndim)
    known = (dtype, shape, math.prod(shape) * dtype.itemsize)
    if len(_SHAPE_OF) >= META_CACHE_SIZE:
        _SHAPE_OF.clear()
    _SHAPE_OF[meta] = known
    return known


_FORMAT = re.compile(r"[<>|=](?:[biufcSUV]\d{1,9}|[mM]8(?:\[\d{0,9}[a-zA-Z]{1,7}\])?)")


def dtype_untrusted(text: bytes, peer: str = "") -> np.dtype[Any]:
    """The dtype that a text describes; never one with Python objects.

    Raises:
        LinkProtocolError: not a text that `array_meta` could have written.
    """
    stripped = text.rstrip(b" ")
    try:
        description: Any
        if stripped.startswith(b"["):
            fields_left = [FIELDS_MAX]
            description = _checked_fields(orjson.loads(stripped), DTYPE_DEPTH_MAX, fields_left)
        else:
            description = _checked_format(stripped.decode("ascii"))
        dtype = np.lib.format.descr_to_dtype(description)
    except (ValueError, TypeError, KeyError, OverflowError, MemoryError, SyntaxError) as error:
        raise LinkProtocolError(peer, "dtype of an array, bytes of text", len(text)) from error
    if dtype.hasobject or not dtype.itemsize or dtype.subdtype is not None:
        raise LinkProtocolError(peer, "dtype of an array has no fixed size or holds objects, bytes of text", len(text))
    return dtype


def _checked_format(text: object) -> str:
    if not isinstance(text, str) or not _FORMAT.fullmatch(text):
        raise ValueError("not a plain dtype")
    return text


def _checked_fields(document: object, depth: int, fields_left: list[int]) -> list[tuple[object, ...]]:
    """A list of fields in the form of `dtype.descr`, with nothing in it that numpy could take for something else."""
    if not isinstance(document, list) or not document or not depth:
        raise ValueError("not a list of fields")
    fields: list[tuple[object, ...]] = []
    for entry in document:
        fields_left[0] -= 1
        if not isinstance(entry, list) or len(entry) not in (2, 3) or fields_left[0] < 0:
            raise ValueError("not a field")
        name, kind, *shape = entry
        if not isinstance(name, str):
            raise ValueError("a field without a name")
        checked = _checked_fields(kind, depth - 1, fields_left) if isinstance(kind, list) else _checked_format(kind)
        if not shape:
            fields.append((name, checked))
            continue
        extents = shape[0]
        if not isinstance(extents, list) or len(extents) > NDIM_MAX:
            raise ValueError("not the shape of a field")
        if any(type(extent) is not int or not 0 < extent < 1 << 31 for extent in extents) or math.prod(extents) >> 31:
            raise ValueError("not the shape of a field")
        fields.append((name, checked, tuple(extents)))
    return fields


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


def _element_decoder(kind: type[_Element]) -> Callable[[int, Buffer, str], _Element]:
    return lambda length, body, peer: kind(int.from_bytes(body, "little"))


def _vector_decoder(kind: type[_Vector]) -> Callable[[int, Buffer, str], _Vector]:
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
