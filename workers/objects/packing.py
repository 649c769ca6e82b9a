"""One object as the parts of a message, and back. docs/objects.md has the format.

Between `Session.send_object`, `Pool` and whoever stores objects on one side, and the encoder and decoder on the other.
The one invariant: `unpack_object(pack_object(x).join())` equals x in type and content, and no bytes do more than
raise ObjectDecodeError.

Copies: bytes, bytearrays, memoryviews and contiguous arrays above 1 KiB are lent as they are, and must not change until
the parts have been written. Unpacking makes arrays and memoryviews as views of `data` if that is writable, with one
copy otherwise; bytes and bytearrays cost one copy.
"""

from __future__ import annotations

import struct
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgpack

from .decoder import Decoder
from .encoder import Encoder
from .errors import ObjectDecodeError, ObjectEncodeError
from .limits import DEFAULT_LIMITS, ObjectLimits
from .parts import PackedObject
from .registry import DEFAULT, ObjectRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PackedObject", "pack_object", "unpack_object"]

VERSION: Final = 1
HEADER: Final = struct.Struct("<HHIQ")
"""Version, zero, count of buffers, size of the tokens. The size of each buffer follows as a u64, then the tokens."""

ALIGNMENT: Final = 16
"""Each buffer begins at a multiple of it, so that arrays of every dtype can be used where they are."""

_PADDING: Final = bytes(ALIGNMENT)


def pack_object(
    value: Any,
    registry: ObjectRegistry = DEFAULT,
    limits: ObjectLimits = DEFAULT_LIMITS,
    **context: Any,
) -> PackedObject:
    """Make the parts of a message of a value. `context` is what the `serialize` of classes gets as keyword arguments.

    Raises:
        ObjectEncodeError: it, or something in it, cannot be sent; `path` says where.
    """
    encoder = Encoder(registry, limits, context)
    try:
        encoder.put(value)
    except RecursionError:
        raise ObjectEncodeError("it is nested too deep for the calls that stand here already") from None
    tokens = _tokens_as_bytes(encoder.tokens)
    buffers = encoder.buffers
    sizes = [len(buffer) for buffer in buffers]
    table = struct.pack(f"<{len(sizes)}Q", *sizes) if sizes else b""
    head = HEADER.pack(VERSION, 0, len(sizes), len(tokens)) + table
    size = len(head) + len(tokens)
    parts: list[bytes | memoryview] = [b"".join((head, tokens, _PADDING[: -size % ALIGNMENT] if buffers else b""))]
    size = len(parts[0])
    for buffer in buffers:
        padding = -size % ALIGNMENT
        if padding:
            parts.append(_PADDING[:padding])
        parts.append(buffer if isinstance(buffer, bytes) else memoryview(buffer))
        size += padding + len(buffer)
    return PackedObject(parts, size)


def _tokens_as_bytes(tokens: list[Any]) -> memoryview:
    """The tokens one after another: an array of them without its header."""
    packed = msgpack.Packer(strict_types=True, autoreset=True, buf_size=4096).pack(tokens)
    count = len(tokens)
    return memoryview(packed)[1 if count < 16 else 3 if count < 1 << 16 else 5 :]


def unpack_object(
    data: bytes | bytearray | memoryview,
    registry: ObjectRegistry = DEFAULT,
    limits: ObjectLimits = DEFAULT_LIMITS,
    **context: Any,
) -> Any:
    """Make the value of a whole message. `context` is what the `deserialize` of classes gets as keyword arguments.

    Arrays may be views of `data`, and keep it alive.

    Raises:
        ObjectDecodeError: it is no object, passes a limit, or needs a class that is not registered here.
    """
    view = memoryview(data)
    try:
        tokens, buffers = _split_untrusted(view if view.format == "B" and view.ndim == 1 else view.cast("B"), limits)
        return Decoder(tokens, buffers, registry, limits, context).take_all_untrusted()
    except RecursionError:
        raise ObjectDecodeError("it is nested too deep for the calls that stand here already") from None
    except MemoryError:
        raise ObjectDecodeError("there is no memory for it") from None


def _split_untrusted(view: memoryview, limits: ObjectLimits) -> tuple[list[Any], Iterator[memoryview]]:
    size = len(view)
    if size < HEADER.size:
        raise ObjectDecodeError("it ends within its header")
    version, reserved, count, tokens_size = HEADER.unpack_from(view)
    if version != VERSION or reserved:
        raise ObjectDecodeError(f"its version is not {VERSION}; install the same version of PartyWire at both parties")
    start = HEADER.size + 8 * count
    if start > size or tokens_size > size - start:
        raise ObjectDecodeError("it ends within its head")
    sizes: tuple[int, ...] = struct.unpack_from(f"<{count}Q", view, HEADER.size) if count else ()
    end = start + tokens_size
    tokens = _tokens_untrusted(view[start:end], 4 * limits.elements_max)
    buffers: list[memoryview] = []
    for buffer_size in sizes:
        begin = end + -end % ALIGNMENT
        end = begin + buffer_size
        if end > size:
            raise ObjectDecodeError("it ends within a buffer")
        buffers.append(view[begin:end])
    if end != size:
        raise ObjectDecodeError("it is longer than it says")
    return tokens, iter(buffers)


def _refuse(*_empty: Any) -> Any:
    """A container or an extension without anything in it passes the limits."""
    raise ObjectDecodeError("its tokens are no plain values of msgpack")


def _tokens_untrusted(packed: memoryview, count_max: int) -> list[Any]:
    """No containers, so that nothing but what is there can be announced; each token takes at least one byte."""
    size = len(packed)
    unpacker = msgpack.Unpacker(
        max_buffer_size=max(size, 1), max_array_len=0, max_map_len=0, max_ext_len=0, max_str_len=size, max_bin_len=size,
        list_hook=_refuse, object_hook=_refuse, ext_hook=_refuse,
    )  # fmt: skip
    try:
        unpacker.feed(packed)
        tokens = list(islice(unpacker, count_max + 1))
    except (ValueError, TypeError, msgpack.UnpackException):
        raise ObjectDecodeError("its tokens are no plain values of msgpack") from None
    if len(tokens) > count_max:
        raise ObjectDecodeError(f"it has more than {count_max} tokens")
    if unpacker.tell() != size:
        raise ObjectDecodeError("it ends within a token")
    return tokens
