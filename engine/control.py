"""Messages between the processes that opened the parties: JSON inside CONTROL frames of the control connection.

Between the opener of one party and the opener of another (the I/O processes only carry them). The one invariant:
a decoded message has exactly the fields of its type, each within its bound; what `fields` of a Rendezvous means is
checked by whoever asked for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import orjson

from . import limits
from .errors import FrameTooLarge, LinkProtocolError
from .frames import printable_untrusted
from .session_resets import ResetSession

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROUND_MAX = 2**53 - 1  # what every JSON reader can hold

LIFE_LENGTH_MAX: Final = 32
"""Characters that name a process of a peer; ours have 16."""

SAID_MAX: Final = 64
"""Rounds that can be said again; ours are two."""


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """The sender has entered round `round` and means to do `kind` there, with these fields."""

    round: int
    kind: str
    fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Abort:
    """The sender gives up round `round`; nobody may use its result."""

    round: int
    reason: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Where the sender stands: the first message of every link epoch, in both directions.

    `round` is the least one in which the receiver can still meet it, but for those of `said`: what it said there it
    says again to a receiver that may have missed it.
    """

    round: int
    life: str
    """Names the sender's process; another one than before means that the party was started anew."""
    said: tuple[int, ...] = ()


ControlMessage: TypeAlias = Rendezvous | Abort | Resume | ResetSession


def encode_control(message: ControlMessage) -> bytes:
    """The body of a CONTROL frame.

    Raises:
        ValueError: above CONTROL_SIZE_MAX, or fields that JSON cannot hold.
    """
    document: dict[str, object]
    if isinstance(message, Rendezvous):
        if len(message.kind.encode("utf-8")) > limits.KIND_SIZE_MAX or not message.kind:
            raise ValueError(f"kind {message.kind!r} must have 1 to {limits.KIND_SIZE_MAX} bytes")
        document = {
            "type": "rendezvous",
            "round": message.round,
            "kind": message.kind,
            "fields": dict(message.fields),
        }
    elif isinstance(message, ResetSession):
        document = message.document()
    elif isinstance(message, Resume):
        document = {"type": "resume", "round": message.round, "life": message.life, "said": list(message.said)}
    else:
        reason = message.reason.encode("utf-8", "replace")[: limits.REASON_SIZE_MAX].decode("utf-8", "ignore")
        document = {"type": "abort", "round": message.round, "reason": reason}
    try:
        body = orjson.dumps(document)
    except orjson.JSONEncodeError as error:
        raise ValueError(f"a control message cannot be written as JSON: {error}") from error
    if len(body) > limits.CONTROL_SIZE_MAX:
        raise ValueError(f"a control message of {len(body)} bytes, at most {limits.CONTROL_SIZE_MAX} are allowed")
    return body


def decode_control_untrusted(body: bytes | bytearray | memoryview, peer: str = "") -> ControlMessage:
    """The message in a CONTROL frame.

    Raises:
        LinkProtocolError: not JSON, an unknown type, or fields that are missing, extra, or out of their bounds.
    """
    if len(body) > limits.CONTROL_SIZE_MAX:
        raise FrameTooLarge(peer, "a control message", len(body), limits.CONTROL_SIZE_MAX)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise LinkProtocolError(peer, "control message is not JSON, bytes", len(body)) from None
    if not isinstance(document, dict):
        raise LinkProtocolError(peer, "control message is not an object but", type(document).__name__)
    round_ = document.get("round")
    if type(round_) is not int or not 0 <= round_ <= _ROUND_MAX:
        raise LinkProtocolError(peer, "round of a control message is not a count but", type(round_).__name__)
    match document:
        case {"type": "rendezvous", "round": _, "kind": str(kind), "fields": dict(fields), **rest} if not rest:
            size = len(kind.encode("utf-8"))
            if not 1 <= size <= limits.KIND_SIZE_MAX or not kind.isprintable():
                raise LinkProtocolError(peer, "kind of a rendezvous, bytes", size, f"1 to {limits.KIND_SIZE_MAX}")
            return Rendezvous(round_, kind, fields)
        case {"type": "abort", "round": _, "reason": str(reason), **rest} if not rest:
            encoded = reason.encode("utf-8")
            if len(encoded) > limits.REASON_SIZE_MAX:
                raise FrameTooLarge(peer, "the reason of an abort", len(encoded), limits.REASON_SIZE_MAX)
            return Abort(round_, printable_untrusted(encoded))
        case {"type": "resume", "round": _, "life": str(life), "said": list(said), **rest} if not rest:
            if len(life) > LIFE_LENGTH_MAX or not life.isascii() or not life.isprintable():
                raise LinkProtocolError(peer, "name of a life, characters", len(life), LIFE_LENGTH_MAX)
            if len(said) > SAID_MAX or not all(type(one) is int and 0 <= one <= _ROUND_MAX for one in said):
                raise LinkProtocolError(peer, "rounds that are said again", len(said), SAID_MAX)
            return Resume(round_, life, tuple(said))
        case {"type": "reset session"}:
            return ResetSession.from_document_untrusted(document, peer)
        case _:
            raise LinkProtocolError(peer, "control message has an unknown type or shape, fields", len(document))
