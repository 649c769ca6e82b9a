"""How an array describes itself in front of its data: dtype and shape, for every fixed dtype.

Between `value_codec`, `session` (which receives large arrays into the caller's memory) and what a peer sent. The one
invariant: `split_array_untrusted` reads exactly what `array_meta` writes, and no bytes of a peer make it do more than
refuse; no dtype with Python objects comes out of it.
"""

from __future__ import annotations

import math
import re
import struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson

from partywire.engine.errors import LinkProtocolError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from partywire.engine.frames import Buffer

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


# What a peer sent.


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
