"""Errors that cross a bridge: as a head on the way, as the same type with the same fields at the other end. No I/O.

Between what `peers.contract` raises in the process that has the connections, and the opener, whose code expects the
very same. The one invariant: `error_of(failed(error))` is of the type of `error` for every type of ERROR_TYPES, and
nothing that arrives makes an error with a field of another type than it has.
"""

from __future__ import annotations

import math
from typing import Any, Final

from ..errors import LinkProtocolError, PartyWireError
from ..negotiation import NegotiationFailed
from ..peers.errors import ConnectionsClosed, NegotiationTimedOut, PeerIsBanned, PeerNotKnown, PeerNotReached
from ..yamux.errors import SubstreamClosed, SubstreamRefused, SubstreamReset, SubstreamSessionOver
from .heads import Failed, HeadError, shortened

TEXTS_MAX: Final = 6
"""Items of a field that has several; causes, one for each address."""


class BridgeFailed(PartyWireError):
    """Raised in the opener when the process at the other end of a bridge could not do what it was asked for a reason
    that has no type of its own."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause

    def __str__(self) -> str:
        return self.cause


ERROR_TYPES: Final[dict[str, tuple[type[Exception], tuple[type, ...]]]] = {
    kind.__name__: (kind, arguments)
    for kind, arguments in (
        (BridgeFailed, (str,)),
        (ConnectionsClosed, ()),
        (LinkProtocolError, (str, str, str, str)),
        (NegotiationFailed, (str, tuple, bool)),
        (NegotiationTimedOut, (str, tuple, float)),
        (PeerIsBanned, (str, str, float)),
        (PeerNotKnown, (str,)),
        (PeerNotReached, (str, int, tuple)),
        (SubstreamClosed, (str, int)),
        (SubstreamRefused, (str, str, bool)),
        (SubstreamReset, (str, int, bool, str)),
        (SubstreamSessionOver, (str, str)),
        (ValueError, (str,)),
    )
}
"""What is carried over, with the types of its fields. Whatever else goes wrong is a BridgeFailed."""


def failed(error: BaseException) -> Failed:
    """The head that says so."""
    for name, (kind, kinds) in ERROR_TYPES.items():
        if type(error) is kind:
            if kind is ValueError:
                return Failed(name, (shortened(str(error)),))
            arguments = tuple(_carried(of, one) for of, one in zip(kinds, error.args, strict=False))
            return Failed(name, arguments)
    if isinstance(error, LinkProtocolError):
        return failed(LinkProtocolError(error.peer, error.what, error.seen, error.limit))
    return Failed(BridgeFailed.__name__, (shortened(str(error)) or type(error).__name__,))


def error_of(head: Failed) -> Exception:
    """The error that a head tells of.

    Raises:
        HeadError: an unknown one, or its fields are not of their types.
    """
    if head.error not in ERROR_TYPES:
        raise HeadError(f"an unknown error, {head.error[:40]!r}")
    kind, kinds = ERROR_TYPES[head.error]
    if len(kinds) != len(head.arguments):
        raise HeadError(f"{head.error} with {len(head.arguments)} fields")
    arguments: list[Any] = []
    for of, value in zip(kinds, head.arguments, strict=True):
        if of is float and value is None:
            arguments.append(math.inf)
        elif of is float and type(value) in (int, float):
            arguments.append(float(value))  # type: ignore[arg-type]
        elif type(value) is of:
            arguments.append(value)
        else:
            raise HeadError(f"a field of {head.error} is not of its type")
    if kind is LinkProtocolError and not arguments[-1]:
        arguments[-1] = None
    return kind(*arguments)


def _carried(kind: type, value: Any) -> Any:
    if kind is str:
        return "" if value is None else shortened(str(value))
    if kind is tuple:
        return tuple(shortened(str(item)) for item in value[:TEXTS_MAX])
    if kind is float:
        return None if math.isinf(value) else float(value)
    return value
