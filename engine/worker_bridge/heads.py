"""What the two ends of a bridge say on its substreams, as types: heads. Without I/O.

Between the bridge, in the process that has connections to peers, and the opener's end of it. A head is its length (u32,
big-endian) and JSON of at most HEAD_SIZE_MAX bytes: {"head": "open", "protocols": ["/app/x/1"], "peer": ""}. The opener
is the client of the connection below; every substream begins with one head of whoever opened it:

opener's head    answer                       then
Attend           Attending, or Failed         from the opener Serve and Unserve, from the bridge news: see below
Open             Opened, or Failed            bytes of the peer's substream, both ways
Connect          ConnectedTo, or Failed       the end; a reset before gives the dial up
Disconnect       Done, or Failed              the end
Ping             Done(seconds), or Failed     the end
Ban, Unban       Done(0 or 1), or Failed      the end

bridge's head    answer                       then
Offer            Taken, or Refused            bytes of the peer's substream, both ways

Bytes may follow a head before its answer: they go along, unless the answer is Failed or Refused. So who expects a
certain answer waits for none: whoever reads the substream takes it off before the first byte.

A half close is carried over as one; so is a reset. What yamux cannot say of a reset, its cause, comes as Broken on the
standing substream, sent before the reset with the same number.

The standing substream is the one that begins with Attend; there is one at a time, and what was served ends with it.
Its news, in order: Standing says which connections there are, by number, and Connected follows for those of them that
were never told; so it is at the start, and again after events that the opener was too slow for (`missed`). A number is
never used twice on one bridge.

The one invariant: `decode(encode(head)) == head`, and nothing but a known head with exactly its fields, each of its
declared type, decodes.
"""

from __future__ import annotations

import base64
import binascii
import math
import types
import typing
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeAlias

import orjson

from ..errors import PartyWireError
from ..substreams.frames import LENGTH

HEAD_SIZE_MAX: Final = 16 * 1024
"""Bytes of one head. The largest tell a claim, which has 8 KiB at most and a third more in base64."""

LENGTH_SIZE: Final = LENGTH.size

OPEN_PROTOCOLS_MAX: Final = 5
"""Ids that one Open may name: as many as are negotiated on one substream."""

TEXT_SIZE_MAX: Final = 300
"""Characters of a text for people, a cause for instance; seven of them fit a head whatever they are."""


class HeadError(PartyWireError):
    """Raised when bytes on a bridge are no head: both processes must be of one version."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"a process of this party sent an invalid head of a substream: {self.what}; are two versions installed?"


# What heads are made of.


@dataclass(frozen=True, slots=True)
class ConnectionNote:
    """A connection to a peer, as the process that has it knows it."""

    number: int
    """Of this connection, on this bridge."""
    direction: str
    """Value of a `peers.contract.Direction`."""
    address: str
    """A multiaddress; empty if there is none."""
    claim: bytes = field(repr=False)
    """What the peer signed about itself; its id and key are in it."""


# The opener's.


@dataclass(frozen=True, slots=True)
class Attend:
    """Be told what happens, and serve protocols."""


@dataclass(frozen=True, slots=True)
class Serve:
    """Offer me every substream that a peer opens for this protocol. ServeFailed follows if that cannot be."""

    protocol: str


@dataclass(frozen=True, slots=True)
class Unserve:
    """Offer no more of them; those that are open go on."""

    protocol: str


@dataclass(frozen=True, slots=True)
class Open:
    """A substream to a peer for the first of `protocols` that it serves. By `connection`, if that is not 0: that
    connection or none. By `peer`, an id: the connection that stands, or a new one; empty: the one peer of a link."""

    protocols: tuple[str, ...]
    peer: str = ""
    connection: int = 0


@dataclass(frozen=True, slots=True)
class Connect:
    """The connection to a peer that stands, or a new one; of a link, if `peer` is empty."""

    peer: str


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Say goodbye on a connection and close it."""

    connection: int


@dataclass(frozen=True, slots=True)
class Ping:
    """Measure the round trip of a connection."""

    connection: int


@dataclass(frozen=True, slots=True)
class Ban:
    """Close the connection to a peer and keep it out for `seconds` (infinity: for good)."""

    peer: str
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Unban:
    """Done(1) if there was a ban."""

    peer: str


@dataclass(frozen=True, slots=True)
class Taken:
    """The answer to an Offer: a handler has it."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The answer to an Offer: nobody will; the peer sees a reset."""

    cause: str


# The bridge's.


@dataclass(frozen=True, slots=True)
class Offer:
    """A peer opened a substream for a protocol that the opener serves."""

    protocol: str
    connection: ConnectionNote
    number: int
    """Of this substream, for Broken: its id on the connection between the two."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A substream for `protocol`. `connection` is there unless the opener asked by its number."""

    protocol: str
    number: int
    """Of this substream, for Broken: its id on the connection between the two."""
    connection: ConnectionNote | None


@dataclass(frozen=True, slots=True)
class ConnectedTo:
    """The answer to Connect."""

    connection: ConnectionNote


@dataclass(frozen=True, slots=True)
class Done:
    """It is done; `value` is what was measured, or 0."""

    value: float = 0.0


@dataclass(frozen=True, slots=True)
class Failed:
    """Why something was not done: the name of an error and its fields (`failures.error_of` makes it one again)."""

    error: str
    arguments: tuple[str | int | float | bool | tuple[str, ...] | None, ...]


@dataclass(frozen=True, slots=True)
class Attending:
    """The answer to Attend."""

    peer: str
    """Our own id."""
    name: str
    """The party at the other end, if this is the bridge of a link; else empty."""


@dataclass(frozen=True, slots=True)
class ServeFailed:
    """A protocol that was asked for is not served."""

    protocol: str
    cause: str


@dataclass(frozen=True, slots=True)
class Standing:
    """These connections stand now; any other is over. `missed` events before were not told."""

    connections: tuple[int, ...]
    missed: int


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection stands. `is_news`: it came just now."""

    connection: ConnectionNote
    is_news: bool


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection to a peer is over."""

    connection: int
    peer: str
    cause: str


@dataclass(frozen=True, slots=True)
class Updated:
    """A connected peer says something else about itself."""

    connection: int
    claim: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ConnectFailed:
    """Every attempt to reach a peer failed."""

    peer: str
    cause: str


@dataclass(frozen=True, slots=True)
class InboundFailed:
    """Somebody dialled and did not become a peer."""

    address: str
    cause: str


@dataclass(frozen=True, slots=True)
class Banned:
    """A peer was banned, until `until` (seconds since the epoch; infinity: for good)."""

    peer: str
    reason: str
    until: float


@dataclass(frozen=True, slots=True)
class Broken:
    """The substream of that number is being reset, and this is why."""

    number: int
    cause: str


Head: TypeAlias = (
    Attend
    | Serve
    | Unserve
    | Open
    | Connect
    | Disconnect
    | Ping
    | Ban
    | Unban
    | Taken
    | Refused
    | Offer
    | Opened
    | ConnectedTo
    | Done
    | Failed
    | Attending
    | ServeFailed
    | Standing
    | Connected
    | Disconnected
    | Updated
    | ConnectFailed
    | InboundFailed
    | Banned
    | Broken
)


def _name(kind: type[Any]) -> str:
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in kind.__name__)[1:]


HEAD_TYPES: Final[dict[str, type[Any]]] = {_name(kind): kind for kind in typing.get_args(Head)}
_NAMES: Final = {kind: name for name, kind in HEAD_TYPES.items()}
_KINDS: Final = {kind: typing.get_type_hints(kind) for kind in (*HEAD_TYPES.values(), ConnectionNote)}


def encode(head: Head) -> bytes:
    """The bytes of a head, its length before it.

    Raises:
        HeadError: above HEAD_SIZE_MAX, or a text cannot be encoded.
    """
    try:
        body = orjson.dumps({"head": _NAMES[type(head)], **_plain(head)})
    except TypeError:
        raise HeadError(f"{type(head).__name__} with a text that is not Unicode") from None
    if len(body) > HEAD_SIZE_MAX:
        raise HeadError(f"{type(head).__name__} of {len(body)} bytes, at most {HEAD_SIZE_MAX} are allowed")
    return LENGTH.pack(len(body)) + body


def shortened(text: str) -> str:
    """A text for people as a head may have it."""
    return text[:TEXT_SIZE_MAX].encode(errors="replace").decode()


def check_size_untrusted(size: int) -> None:
    """See that a head may have so many bytes, before they are read.

    Raises:
        HeadError: it may not.
    """
    if not 0 < size <= HEAD_SIZE_MAX:
        raise HeadError(f"{size} bytes, 1 to {HEAD_SIZE_MAX} are allowed")


def decode_untrusted(body: bytes | bytearray | memoryview) -> Head:
    """The head in what followed a length.

    Raises:
        HeadError: unknown, missing or extra fields, or a field of another type.
    """
    check_size_untrusted(len(body))
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise HeadError(f"{len(body)} bytes that are not JSON") from None
    if not isinstance(document, dict):
        raise HeadError("JSON that is not an object")
    kind = HEAD_TYPES.get(str(document.pop("head", None)))
    if kind is None:
        raise HeadError("an unknown one")
    head: Head = _record(kind, document, kind.__name__)
    return head


def _plain(value: Any) -> Any:
    if type(value) in _KINDS:
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value  # of floats infinity becomes null


def _record(kind: type[Any], value: Any, where: str) -> Any:
    kinds = _KINDS[kind]
    if not isinstance(value, dict) or value.keys() != kinds.keys():
        raise HeadError(f"{where} does not have the fields {', '.join(kinds) or 'of an empty one'}")
    return kind(**{name: _typed(kinds[name], item, f"{where}.{name}") for name, item in value.items()})


def _typed(kind: Any, value: Any, where: str) -> Any:
    """`value` as `kind`, or HeadError. `kind` is an annotation of this module."""
    if kind in _KINDS:
        return _record(kind, value, where)
    if kind is bytes:
        return _bytes(value, where)
    if kind is float:
        return _float(value, where)
    if kind in (str, int, bool):
        if type(value) is not kind or (kind is int and value < 0):
            raise HeadError(f"{where} is no {kind.__name__} that it may be")
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if not isinstance(value, list):
            raise HeadError(f"{where} is not a list")
        return tuple(_typed(arguments[0], item, where) for item in value)
    assert origin in (typing.Union, types.UnionType)
    return _argument(arguments, value, where)


def _argument(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    """`value` as the one of several kinds that it is; of floats none stands for infinity here."""
    if value is None and type(None) in kinds:
        return None
    for kind in kinds:
        if kind in _KINDS or (typing.get_origin(kind) is tuple and isinstance(value, list)):
            return _typed(kind, value, where)
        if type(value) is kind:
            return value
    raise HeadError(f"{where} is none of what it may be")


def _bytes(value: Any, where: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise HeadError(f"{where} is not base64") from None


def _float(value: Any, where: str) -> float:
    if value is None:
        return math.inf
    if type(value) not in (int, float) or value < 0:
        raise HeadError(f"{where} is no number that it may be")
    return float(value)
