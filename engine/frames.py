"""The frames of a connection: one table that drives the encoder, the splitter and docs/wire.md.

Between a worker and the worker at the other end of the connection (the I/O process only reads the control connection).
A frame is `session u32 LE | descriptor u8 | [length u32 LE] | body`. Descriptors below 0x80 are those of the iris
protocol, byte for byte; ours have bit 7 set and always carry a length, so a reader can step over one it does not know
by name but must know by number: an unknown descriptor ends the link.

Binding rules: sizes of wire elements are written down in FRAME_TABLE and nowhere else. Session-scope frames never carry
LINK_SESSION, link-scope frames always do.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from . import limits
from .errors import FrameTooLarge, LinkProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

Buffer: TypeAlias = bytes | bytearray | memoryview
Frame: TypeAlias = tuple[int, int, int, Buffer]
"""(session, descriptor, length field, body). For descriptors without a length field it is the size of the body."""

LINK_SESSION: Final = 0xFFFFFFFF
"""The session id of frames that belong to the link and not to a session."""

FIXED_HEADER: Final = struct.Struct("<IB")
HEADER: Final = struct.Struct("<IBI")
FRAGMENT_BEGIN_HEADER: Final = struct.Struct("<IBIBI")


class Descriptor(IntEnum):
    """What a frame carries."""

    PRF_KEY = 0x01
    BIT_0 = 0x02
    RING_16 = 0x03
    RING_32 = 0x04
    RING_64 = 0x05
    VEC_RING_16 = 0x06
    VEC_RING_32 = 0x07
    VEC_RING_64 = 0x08
    STATE_CHECKSUM = 0x09
    NETWORK_VEC = 0x0A
    PRF_CHECK = 0x0B
    BYTES = 0x0C
    RING_48 = 0x0D
    VEC_RING_48 = 0x0E
    VEC_RING_BIT = 0x0F
    BIT_1 = 0x12
    ARRAY = 0x80
    OBJECT = 0x81
    FRAGMENT_BEGIN = 0x82
    FRAGMENT = 0x83
    RESET = 0x84
    GOODBYE = 0x85
    PING = 0x86
    PONG = 0x87
    JOB_END = 0x88
    CONTROL = 0x90


class ResetCode(IntEnum):
    """Why a session was reset; the number is on the wire."""

    ABORTED = 1  # the session was given up on purpose; the reason says why
    UNKNOWN_SESSION = 2  # a frame came for an id that was never made, or that is closed here
    OVERFLOW = 3  # the receiver's inbox budget is spent
    WORKER_LOST = 4  # the process that served the session died
    PROTOCOL = 5  # the message could not be what the receiver was waiting for


class JobStatus(IntEnum):
    """How a job ended at the sender; the number is on the wire."""

    DONE = 0
    FAILED = 1


class FrameSpec(NamedTuple):
    """One row of the table. Sizes are of the body; `length_max` and `length_min` are in units of the length field."""

    descriptor: Descriptor
    body: str
    """The body in words, for docs/wire.md."""
    fixed_size: int | None = None
    """The size of the body when there is no length field."""
    element_size: int = 1
    """The length must be a multiple of it."""
    length_in_bits: bool = False
    length_min: int = 0
    length_max: int = limits.FRAME_SIZE_MAX
    link_scope: bool = False
    containable: bool = False
    """Whether a message of this kind may be cut into fragments."""
    in_network_vec: bool = False
    writable: bool = False
    """Whether the receiver gets a bytearray, so that numpy can use the memory as it is."""


OBJECT_SIZE_MIN: Final = 16
"""The header of an object."""

_BITS_MAX = limits.FRAME_SIZE_MAX * 8
_RESET_MAX = 1 + limits.REASON_SIZE_MAX
_JOB_END = struct.Struct("<QB")
_TOKEN = struct.Struct("<Q")

FRAME_TABLE: Final[tuple[FrameSpec, ...]] = (
    FrameSpec(Descriptor.PRF_KEY, "16 raw bytes", 16),
    FrameSpec(Descriptor.BIT_0, "nothing; the bit 0", 0, in_network_vec=True),
    FrameSpec(Descriptor.BIT_1, "nothing; the bit 1", 0, in_network_vec=True),
    FrameSpec(Descriptor.RING_16, "u16", 2, in_network_vec=True),
    FrameSpec(Descriptor.RING_32, "u32", 4, in_network_vec=True),
    FrameSpec(Descriptor.RING_48, "low 6 bytes of a u64", 6, in_network_vec=True),
    FrameSpec(Descriptor.RING_64, "u64", 8, in_network_vec=True),
    FrameSpec(Descriptor.VEC_RING_16, "u16 each", None, 2, containable=True, in_network_vec=True, writable=True),
    FrameSpec(Descriptor.VEC_RING_32, "u32 each", None, 4, containable=True, in_network_vec=True, writable=True),
    FrameSpec(Descriptor.VEC_RING_48, "6 bytes each", None, 6, containable=True, in_network_vec=True, writable=True),
    FrameSpec(Descriptor.VEC_RING_64, "u64 each", None, 8, containable=True, in_network_vec=True, writable=True),
    FrameSpec(
        Descriptor.VEC_RING_BIT,
        "ceil(length / 8) bytes, lowest bit first; the length counts bits",
        length_in_bits=True,
        length_max=_BITS_MAX,
        containable=True,
        in_network_vec=True,
    ),
    FrameSpec(Descriptor.STATE_CHECKSUM, "irises u64, graph u64", 16),
    FrameSpec(Descriptor.NETWORK_VEC, "values without session ids, one after another", containable=True),
    FrameSpec(Descriptor.PRF_CHECK, "u128", 16),
    FrameSpec(Descriptor.BYTES, "bytes", containable=True, in_network_vec=True),
    FrameSpec(
        Descriptor.ARRAY,
        "ndim u8, dtype size u16, dtype text, shape u64 each, data in C order",
        length_min=3,
        containable=True,
        writable=True,
    ),
    FrameSpec(
        Descriptor.OBJECT,
        "a Python object: docs/objects.md",
        length_min=OBJECT_SIZE_MIN,
        containable=True,
        writable=True,
    ),
    FrameSpec(
        Descriptor.FRAGMENT_BEGIN,
        "contained descriptor u8, contained length u32, first data (may be none)",
        length_min=5,
    ),
    FrameSpec(Descriptor.FRAGMENT, "further data of the session's open message", length_min=1),
    FrameSpec(Descriptor.RESET, "code u8, reason as UTF-8", length_min=1, length_max=_RESET_MAX),
    FrameSpec(Descriptor.GOODBYE, "reason as UTF-8", length_max=limits.REASON_SIZE_MAX, link_scope=True),
    FrameSpec(Descriptor.PING, "token u64", length_min=8, length_max=8, link_scope=True),
    FrameSpec(Descriptor.PONG, "token u64 of the ping", length_min=8, length_max=8, link_scope=True),
    FrameSpec(
        Descriptor.JOB_END,
        "job u64, status u8, reason as UTF-8",
        length_min=_JOB_END.size,
        length_max=_JOB_END.size + limits.REASON_SIZE_MAX,
    ),
    FrameSpec(Descriptor.CONTROL, "JSON", length_min=2, length_max=limits.CONTROL_SIZE_MAX, link_scope=True),
)

SPEC_OF: Final[dict[int, FrameSpec]] = {int(spec.descriptor): spec for spec in FRAME_TABLE}


# Sizes.


def body_size(descriptor: int, length_field: int) -> int:
    """The size of the body behind a header. For descriptors without a length field the second argument is ignored.

    Raises:
        ValueError: the descriptor is unknown, or the length is not a multiple of the element size.
    """
    spec = SPEC_OF.get(descriptor)
    if spec is None:
        raise ValueError(f"unknown descriptor {descriptor:#04x}")
    if spec.fixed_size is not None:
        return spec.fixed_size
    if spec.length_in_bits:
        return (length_field + 7) >> 3
    if length_field % spec.element_size:
        raise ValueError(
            f"length {length_field} of {spec.descriptor.name} is not a multiple of {spec.element_size} bytes"
        )
    return length_field


# Encoding.


def frame_header(session: int, descriptor: int, length: int = 0) -> bytes:
    """The header alone, for bodies that are written behind it without being copied here. Checks nothing."""
    if SPEC_OF[descriptor].fixed_size is not None:
        return FIXED_HEADER.pack(session, descriptor)
    return HEADER.pack(session, descriptor, length)


def encode_frame(session: int, descriptor: int, body: Buffer = b"", length: int | None = None) -> bytes:
    """One whole frame. `length` is only given for VEC_RING_BIT, where it counts bits.

    Raises:
        ValueError: the body does not fit the descriptor, or is too large for one frame (cut it into fragments).
    """
    spec = SPEC_OF.get(descriptor)
    if spec is None:
        raise ValueError(f"unknown descriptor {descriptor:#04x}")
    if (session == LINK_SESSION) != spec.link_scope:
        raise ValueError(f"{spec.descriptor.name} does not belong to session {session}")
    size = len(body)
    if length is None:
        if spec.length_in_bits:
            raise ValueError(f"{spec.descriptor.name} needs its length in bits")
        length = size
    if body_size(descriptor, length) != size:
        raise ValueError(f"{spec.descriptor.name} of length {length} cannot have a body of {size} bytes")
    if spec.fixed_size is not None:
        return FIXED_HEADER.pack(session, descriptor) + body
    if not spec.length_min <= length <= spec.length_max:
        raise ValueError(
            f"length {length} of {spec.descriptor.name} is not between {spec.length_min} and {spec.length_max}"
        )
    return HEADER.pack(session, descriptor, length) + body


def fragment_begin_header(session: int, contained: int, contained_length: int, data_size: int = 0) -> bytes:
    """The 14 bytes that open a fragmented message; `data_size` bytes of its body follow in the same frame."""
    if not SPEC_OF[contained].containable:
        raise ValueError(f"{SPEC_OF[contained].descriptor.name} cannot be cut into fragments")
    return FRAGMENT_BEGIN_HEADER.pack(session, Descriptor.FRAGMENT_BEGIN, 5 + data_size, contained, contained_length)


def _reason(text: str) -> bytes:
    """Reasons are cut, never refused: a long cause must not turn an abort into a second error."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= limits.REASON_SIZE_MAX:
        return encoded
    return encoded[: limits.REASON_SIZE_MAX - 3].decode("utf-8", "ignore").encode("utf-8") + b"..."


def encode_reset(session: int, code: ResetCode, reason: str = "") -> bytes:
    """A session ends here and now, in both directions."""
    return encode_frame(session, Descriptor.RESET, bytes((code,)) + _reason(reason))


def encode_job_end(session: int, job: int, status: JobStatus, reason: str = "") -> bytes:
    """Job `job` ended at this party; the session's next job may follow at once."""
    return encode_frame(session, Descriptor.JOB_END, _JOB_END.pack(job, status) + _reason(reason))


def encode_goodbye(reason: str = "") -> bytes:
    """The last frame of a connection: everything that was sent stands before it."""
    return encode_frame(LINK_SESSION, Descriptor.GOODBYE, _reason(reason))


def encode_ping(token: int) -> bytes:
    """Ask for a sign of life."""
    return encode_frame(LINK_SESSION, Descriptor.PING, _TOKEN.pack(token))


def encode_pong(token: int) -> bytes:
    """Answer a ping with its own token."""
    return encode_frame(LINK_SESSION, Descriptor.PONG, _TOKEN.pack(token))


def encode_network_vec(elements: Sequence[tuple[int, int, Buffer]]) -> bytes:
    """The body of a NETWORK_VEC from (descriptor, length field, body) of each element.

    Raises:
        ValueError: too many elements, one of a kind that a NETWORK_VEC cannot hold, or a body of the wrong size.
    """
    if len(elements) > limits.NETWORK_VEC_ELEMENTS_MAX:
        raise ValueError(f"{len(elements)} elements, at most {limits.NETWORK_VEC_ELEMENTS_MAX} are allowed")
    parts: list[Buffer] = []
    for descriptor, length, body in elements:
        spec = SPEC_OF.get(descriptor)
        if spec is None or not spec.in_network_vec:
            raise ValueError(f"a NETWORK_VEC cannot hold descriptor {descriptor:#04x}")
        if body_size(descriptor, length) != len(body):
            raise ValueError(f"{spec.descriptor.name} of length {length} cannot have a body of {len(body)} bytes")
        parts.append(bytes((descriptor,)))
        if spec.fixed_size is None:
            parts.append(length.to_bytes(4, "little"))
        parts.append(body)
    return b"".join(parts)


# Decoding what a peer sent.


def _size_untrusted(peer: str, spec: FrameSpec, length: int) -> int:
    """The size of a value of this kind, whatever frames carry it."""
    try:
        size = body_size(spec.descriptor, length)
    except ValueError:
        what = f"length of {spec.descriptor.name} is not a multiple of its element size"
        raise LinkProtocolError(peer, what, length, spec.element_size) from None
    if spec.fixed_size is None and length < spec.length_min:
        raise LinkProtocolError(peer, f"length of {spec.descriptor.name} is too small", length, f">= {spec.length_min}")
    return size


def check_length_untrusted(peer: str, descriptor: int, length: int, body_size_max: int = limits.FRAME_SIZE_MAX) -> int:
    """The size of the body that a header announces, after every check that needs only the header.

    Raises:
        LinkProtocolError: unknown descriptor, a length below the minimum or not a multiple of the element size.
        FrameTooLarge: the body is above `body_size_max` or the descriptor's own limit.
    """
    spec = SPEC_OF.get(descriptor)
    if spec is None:
        raise LinkProtocolError(peer, "unknown frame descriptor", f"{descriptor:#04x}")
    size = _size_untrusted(peer, spec, length)
    if spec.fixed_size is None:
        size_max = min(body_size_max, (spec.length_max + 7) >> 3 if spec.length_in_bits else spec.length_max)
        if size > size_max:
            raise FrameTooLarge(peer, f"a {spec.descriptor.name} frame", size, size_max)
    return size


def check_scope_untrusted(peer: str, session: int, descriptor: int) -> None:
    """Refuse link-scope frames inside a session and session frames outside of one.

    Raises:
        LinkProtocolError: the session id does not fit the descriptor's scope.
    """
    spec = SPEC_OF[descriptor]
    if (session == LINK_SESSION) != spec.link_scope:
        scope = "the link" if spec.link_scope else "a session"
        raise LinkProtocolError(peer, f"{spec.descriptor.name} belongs to {scope}, its session id is", session)


def check_contained_untrusted(peer: str, contained: int, contained_length: int) -> int:
    """The size of the message that a FRAGMENT_BEGIN opens. The caller compares it with its own message limit.

    Raises:
        LinkProtocolError: a kind that cannot be cut into fragments, or a length that it cannot have.
    """
    spec = SPEC_OF.get(contained)
    if spec is None or not spec.containable:
        raise LinkProtocolError(peer, "descriptor that cannot be cut into fragments", f"{contained:#04x}")
    return _size_untrusted(peer, spec, contained_length)


def decode_network_vec_untrusted(body: Buffer, peer: str = "") -> list[tuple[int, int, bytes]]:
    """(descriptor, length field, body) of each element; one copy of each body. Nesting is refused.

    Raises:
        LinkProtocolError: an element that a NETWORK_VEC cannot hold, that passes its end, or one too many.
    """
    elements: list[tuple[int, int, bytes]] = []
    view = memoryview(body)
    position, end = 0, len(view)
    while position < end:
        if len(elements) == limits.NETWORK_VEC_ELEMENTS_MAX:
            raise LinkProtocolError(
                peer, "elements of a NETWORK_VEC", f"more than {len(elements)}", limits.NETWORK_VEC_ELEMENTS_MAX
            )
        descriptor = view[position]
        spec = SPEC_OF.get(descriptor)
        if spec is None or not spec.in_network_vec:
            raise LinkProtocolError(peer, "descriptor inside a NETWORK_VEC", f"{descriptor:#04x}")
        position += 1
        if spec.fixed_size is None:
            if end - position < 4:
                raise LinkProtocolError(peer, "NETWORK_VEC ends inside a length, bytes left", end - position, 4)
            length = int.from_bytes(view[position : position + 4], "little")
            position += 4
        else:
            length = spec.fixed_size
        size = _size_untrusted(peer, spec, length)
        if size > end - position:
            what = f"{spec.descriptor.name} inside a NETWORK_VEC passes its end, bytes left {end - position}"
            raise LinkProtocolError(peer, what, size)
        elements.append((descriptor, length, bytes(view[position : position + size])))
        position += size
    return elements


def _decode_reason_untrusted(body: Buffer) -> str:
    """Text of a stranger: invalid UTF-8 and control characters become U+FFFD, so that no log line can be forged."""
    return printable_untrusted(bytes(body))


def printable_untrusted(text: bytes) -> str:
    """Peer text made safe to show: decoded leniently, everything unprintable replaced."""
    decoded = text.decode("utf-8", "replace")
    if decoded.isprintable():
        return decoded
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in decoded)


def decode_reset_untrusted(body: Buffer, peer: str = "") -> tuple[ResetCode, str]:
    """Code and reason of a RESET.

    Raises:
        LinkProtocolError: empty body or unknown code.
    """
    if not body:
        raise LinkProtocolError(peer, "RESET without a code", 0)
    try:
        code = ResetCode(body[0])
    except ValueError:
        raise LinkProtocolError(peer, "unknown RESET code", int(body[0])) from None
    return code, _decode_reason_untrusted(body[1:])


def decode_job_end_untrusted(body: Buffer, peer: str = "") -> tuple[int, JobStatus, str]:
    """Job, status and reason of a JOB_END.

    Raises:
        LinkProtocolError: truncated body or unknown status.
    """
    if len(body) < _JOB_END.size:
        raise LinkProtocolError(peer, "size of a JOB_END", len(body), f">= {_JOB_END.size}")
    job, number = _JOB_END.unpack_from(body)
    try:
        status = JobStatus(number)
    except ValueError:
        raise LinkProtocolError(peer, "unknown JOB_END status", int(number)) from None
    return job, status, _decode_reason_untrusted(body[_JOB_END.size :])


def decode_goodbye_untrusted(body: Buffer) -> str:
    """The reason of a GOODBYE; any bytes are a valid one."""
    return _decode_reason_untrusted(body)


def decode_token_untrusted(body: Buffer, peer: str = "") -> int:
    """The token of a PING or PONG.

    Raises:
        LinkProtocolError: the body does not have 8 bytes.
    """
    if len(body) != _TOKEN.size:
        raise LinkProtocolError(peer, "size of a PING or PONG", len(body), _TOKEN.size)
    return int.from_bytes(body, "little")
