"""What a new substream is for: the two ends agree on a protocol id before anything else travels on it. Without I/O.

Between who opens a substream (Proposer) and who serves it (Answerer); the owner of the substream moves their bytes.

    len u8 | flags u8 | protocol id (len bytes)          flags: 1 OPTIMISTIC, 2 TERMINATE, 4 NOT_SUPPORTED

The proposer names one id after another; each is echoed (agreed) or answered by NOT_SUPPORTED; after ROUNDS_MAX the
answerer terminates, and a proposer with nothing left does. Where the peer is known to serve an id, OPTIMISTIC |
TERMINATE says so and is never answered: what the proposer sends next follows at once, and refusal is a reset.

Source: seed 002 (Tari Comms, "protocol negotiation"); frames and limits as its implementation has them. Beyond it, a
reply that names another id than was proposed is refused instead of being passed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .errors import LinkProtocolError, LocalProtocolError, PartyWireError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROUNDS_MAX: Final = 5
"""Ids that are proposed on one substream."""

PROTOCOL_ID_SIZE_MAX: Final = 255

OPTIMISTIC: Final = 1
TERMINATE: Final = 2
NOT_SUPPORTED: Final = 4

_HEADER_SIZE: Final = 2


class NegotiationFailed(PartyWireError):
    """Raised when the two ends of a substream share none of the protocols that were proposed. The substream is of no
    further use; the connection is."""

    def __init__(self, peer: str, protocols: tuple[str, ...], by_us: bool) -> None:
        super().__init__(peer, protocols, by_us)
        self.peer = peer
        self.protocols = protocols
        self.by_us = by_us

    def __str__(self) -> str:
        peer = self.peer or "the peer"
        what = f"we do not serve what {peer}" if self.by_us else f"{peer} does not serve what we"
        return f"{what} proposed for a substream: {', '.join(self.protocols) or 'nothing'}"


def encode(flags: int, protocol: str = "") -> bytes:
    """One frame.

    Raises:
        ValueError: the id has more than 255 bytes.
    """
    body = protocol.encode()
    if len(body) > PROTOCOL_ID_SIZE_MAX:
        raise ValueError(f"protocol id of {len(body)} bytes, at most {PROTOCOL_ID_SIZE_MAX} are possible")
    return bytes((len(body), flags)) + body


class _Frames:
    """Collects frames from any slices; never takes more than one needs, since what follows is not ours."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._buffer = bytearray()

    @property
    def missing(self) -> int:
        """Bytes until the next frame, or its header, is whole."""
        if len(self._buffer) < _HEADER_SIZE:
            return _HEADER_SIZE - len(self._buffer)
        return _HEADER_SIZE + self._buffer[0] - len(self._buffer)

    def take_untrusted(self, data: bytes) -> tuple[int, str] | None:
        """(flags, id) once they are whole. `data` has at most `missing` bytes."""
        self._buffer += data
        if len(self._buffer) < _HEADER_SIZE or self.missing:
            return None
        flags, body = self._buffer[1], bytes(self._buffer[_HEADER_SIZE:])
        self._buffer.clear()
        if flags & ~(OPTIMISTIC | TERMINATE | NOT_SUPPORTED):
            raise LinkProtocolError(self._peer, "flags of a negotiation", flags)
        try:
            return flags, body.decode()
        except UnicodeDecodeError:
            raise LinkProtocolError(self._peer, "protocol id", "bytes that are not UTF-8") from None


class Proposer:
    """The end that opened the substream. Send `output`, give it `missing` bytes at a time, until `agreed` is set."""

    def __init__(
        self, protocols: Sequence[str], is_known: Callable[[str], bool] = lambda _: False, peer: str = ""
    ) -> None:
        """`protocols` in order of preference, at most ROUNDS_MAX; the first that `is_known` to be served there is not
        asked for.

        Raises:
            ValueError: none, or too many protocols, or an id that is too long.
        """
        if not 0 < len(protocols) <= ROUNDS_MAX:
            raise ValueError(f"{len(protocols)} protocols, between 1 and {ROUNDS_MAX} can be proposed")
        self.agreed: str | None = None
        self._peer = peer
        self._protocols = tuple(protocols)
        self._at = 0
        self._frames = _Frames(peer)
        known = next((protocol for protocol in protocols if is_known(protocol)), None)
        if known is not None:
            self.agreed = known
            self._output = encode(OPTIMISTIC | TERMINATE, known)
        else:
            self._output = encode(0, protocols[0])

    def take_output(self) -> bytes:
        """What to send now; nothing if it was taken."""
        output, self._output = self._output, b""
        return output

    @property
    def missing(self) -> int:
        """How many bytes to give next, at most. 0: agreed."""
        return 0 if self.agreed is not None else self._frames.missing

    def receive_untrusted(self, data: bytes) -> None:
        """Take the next bytes of the answer.

        Raises:
            NegotiationFailed: nothing is left to be proposed; `take_output` has the last word.
            LinkProtocolError: this is no answer to what was proposed.
        """
        _check_room(data, self.missing)
        frame = self._frames.take_untrusted(data)
        if frame is None:
            return
        flags, protocol = frame
        if not flags and protocol == self._protocols[self._at]:
            self.agreed = protocol
        elif flags & TERMINATE:
            raise NegotiationFailed(self._peer, self._protocols[: self._at + 1], by_us=False)
        elif flags != NOT_SUPPORTED or protocol:
            raise LinkProtocolError(self._peer, "answer to a proposed protocol", "another one", "the same")
        else:
            self._at += 1
            if self._at == len(self._protocols):
                self._output = encode(TERMINATE)
                raise NegotiationFailed(self._peer, self._protocols, by_us=False)
            self._output = encode(0, self._protocols[self._at])


class Answerer:
    """The end that serves. Give it `missing` bytes at a time and send `take_output`, until `agreed` is set."""

    def __init__(self, serves: Callable[[str], bool], peer: str = "") -> None:
        self.agreed: str | None = None
        self._serves = serves
        self._peer = peer
        self._frames = _Frames(peer)
        self._refused: list[str] = []
        self._output = b""

    def take_output(self) -> bytes:
        """What to send now; nothing if it was taken."""
        output, self._output = self._output, b""
        return output

    @property
    def missing(self) -> int:
        """How many bytes to give next, at most. 0: agreed."""
        return 0 if self.agreed is not None else self._frames.missing

    def receive_untrusted(self, data: bytes) -> None:
        """Take the next bytes of the proposal.

        Raises:
            NegotiationFailed: nothing that we serve was proposed; send what `take_output` has, then reset.
            LinkProtocolError: this is no proposal.
        """
        _check_room(data, self.missing)
        frame = self._frames.take_untrusted(data)
        if frame is None:
            return
        flags, protocol = frame
        if flags & NOT_SUPPORTED:
            raise LinkProtocolError(self._peer, "flags of a proposed protocol", flags)
        if flags == TERMINATE:
            raise NegotiationFailed(self._peer, tuple(self._refused), by_us=True)
        if self._serves(protocol):
            self.agreed = protocol
            if not flags & OPTIMISTIC:
                self._output = encode(0, protocol)
            return
        self._refused.append(protocol)
        is_last = len(self._refused) == ROUNDS_MAX
        if not flags & OPTIMISTIC:
            self._output = encode(NOT_SUPPORTED | TERMINATE if is_last else NOT_SUPPORTED)
        if is_last or flags & OPTIMISTIC:
            raise NegotiationFailed(self._peer, tuple(self._refused), by_us=True)


def _check_room(data: bytes, missing: int) -> None:
    if len(data) > missing:
        raise LocalProtocolError("a negotiation", f"{missing} bytes missing", f"{len(data)} bytes")
