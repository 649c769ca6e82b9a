"""The handshake of iris-mpc's TCP stack, byte for byte (docs/iris-compat.md).

Between the dialler of a connection and its acceptor, where the gateway hears the first half and the I/O process speaks
the second one:

    dialler                              acceptor
    connection id u32 BE   ------->      gateway
                           <-------      the same connection id
    size u32 BE, name      ------->      gateway, which now knows whose connection it is
                           <-------      "2ok" from the I/O process, if it waits for this connection
    02 "ok"                <------>      02 "ok"     (only in the version that says ready)

Integers are big-endian here and little-endian in the frames behind it. It proves nothing: whoever connects can claim a
name. The one invariant: an acceptor that is not waiting for the connection closes it, and the dialler comes again.

No I/O and no clock. Bytes in: `receive_data`. Bytes out: `data_to_send`, to be called after every call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from .errors import LinkProtocolError, LocalProtocolError

if TYPE_CHECKING:
    from .iris_options import IrisOptions

TOKEN: Final = b"2ok"
READY: Final = b"\x02ok"

IDENTITY_SIZE_MAX: Final = 128
"""Bytes of a name; that stack refuses more as well."""

_ID_SIZE: Final = 4
_ID_START: Final = b"\0\0"
"""How every connection id below 65,536 begins; neither a preamble, TLS nor HTTP does."""


def may_be_iris(received: bytes) -> bool:
    """Whether a connection that began with these bytes may speak this protocol."""
    return received[: len(_ID_START)] == _ID_START[: len(received)]


class Introduction(NamedTuple):
    """Whose connection it claims to be, and which."""

    connection: int
    name: str


class _Step(NamedTuple):
    """What we say, and what the other end must answer."""

    say: bytes
    expect: bytes
    what: str


class Exchange:
    """Our end of a handshake of which every byte is known beforehand. Driven by the peer's bytes."""

    def __init__(self, peer: str, steps: list[_Step]) -> None:
        self._peer = peer
        self._steps = steps
        self._at = 0
        self._has_failed = False
        self._received = bytearray()
        self._outgoing = bytearray()
        self._say()

    @property
    def result(self) -> bool | None:
        """True once it is done."""
        return True if self._at == len(self._steps) else None

    @property
    def trailing_data(self) -> bytes:
        """Bytes behind the handshake; they belong to the frame stream. Each call takes them away."""
        if self.result is None:
            return b""
        rest = bytes(self._received)
        self._received.clear()
        return rest

    def data_to_send(self) -> bytes:
        """Bytes for the peer since the last call."""
        outgoing = bytes(self._outgoing)
        self._outgoing.clear()
        return outgoing

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next slice of the stream.

        Raises:
            LinkProtocolError: the peer says something else than it must.
            LocalProtocolError: it is already over.
        """
        if self._has_failed or self.result:
            raise LocalProtocolError("iris handshake", "failed" if self._has_failed else "done", "receive_data")
        self._received += data
        while self._at < len(self._steps):
            _, expect, what = self._steps[self._at]
            seen = bytes(self._received[: len(expect)])
            if seen != expect[: len(seen)]:
                self._has_failed = True
                raise LinkProtocolError(self._peer, f"{what} of an iris handshake is", seen.hex(), expect.hex())
            if len(seen) < len(expect):
                return
            del self._received[: len(expect)]
            self._at += 1
            self._say()

    def receive_eof(self) -> None:
        """The stream ended.

        Raises:
            LinkProtocolError: always, unless the handshake is done.
        """
        if self.result is None:
            self._has_failed = True
            what = f"the stream ended before the {self._steps[self._at].what} of an iris handshake, bytes left"
            raise LinkProtocolError(self._peer, what, len(self._received))

    def _say(self) -> None:
        """Say what is ours to say now; steps without an answer are over with it."""
        while self._at < len(self._steps):
            step = self._steps[self._at]
            self._outgoing += step.say
            if step.expect:
                return
            self._at += 1


def dialling(peer: str, our_name: str, connection: int, options: IrisOptions) -> Exchange:
    """The dialler's end."""
    id_ = connection.to_bytes(_ID_SIZE, "big")
    name = our_name.encode("utf-8")
    steps = [
        _Step(id_, id_, "echoed connection id"),
        _Step(len(name).to_bytes(_ID_SIZE, "big") + name, TOKEN, "token"),
    ]
    return Exchange(peer, steps + _ready(options))


def accepting(peer: str, options: IrisOptions) -> Exchange:
    """The acceptor's end behind the introduction, for a connection that is waited for."""
    return Exchange(peer, [_Step(TOKEN, b"", "token"), *_ready(options)])


def _ready(options: IrisOptions) -> list[_Step]:
    return [_Step(READY, READY, "ready")] if options.says_ready else []


class Introducing:
    """The acceptor's end of the first half, behind which a dialler waits. Driven by a stranger's bytes."""

    def __init__(self, peer: str = "") -> None:
        """`peer` is who is expected, if that is known already; for messages."""
        self._peer = peer
        self._received = bytearray()
        self._outgoing = b""
        self._has_echoed = False
        self._result: Introduction | None = None

    @property
    def result(self) -> Introduction | None:
        """What the dialler said of itself, once it is whole."""
        return self._result

    @property
    def trailing_data(self) -> bytes:
        """Nothing: whoever says more before it was answered is refused."""
        return b""

    @property
    def received(self) -> bytes:
        """Everything that was fed."""
        return bytes(self._received)

    @property
    def missing(self) -> int:
        """Bytes that may be read now: to the end of what the dialler can have sent, never beyond."""
        return self._size - len(self._received)

    @property
    def _size(self) -> int:
        received = self._received
        if len(received) < _ID_SIZE:
            return _ID_SIZE
        if len(received) < 2 * _ID_SIZE:
            return 2 * _ID_SIZE
        return 2 * _ID_SIZE + int.from_bytes(received[_ID_SIZE : 2 * _ID_SIZE], "big")

    def data_to_send(self) -> bytes:
        """Bytes for the dialler since the last call."""
        outgoing, self._outgoing = self._outgoing, b""
        return outgoing

    def receive_data(self, data: bytes) -> None:
        """Take the next slice of the stream.

        Raises:
            LinkProtocolError: this is not an introduction, or goes beyond its end.
        """
        self._received += data
        received = self._received
        if len(received) < _ID_SIZE:
            return
        if not self._has_echoed:
            self._has_echoed = True
            self._outgoing = bytes(received[:_ID_SIZE])
        if len(received) < 2 * _ID_SIZE:
            return
        size = self._size - 2 * _ID_SIZE
        if not 1 <= size <= IDENTITY_SIZE_MAX:
            raise LinkProtocolError(self._peer, "size of a name in an iris handshake", size, IDENTITY_SIZE_MAX)
        if len(received) > self._size:
            raise LinkProtocolError(self._peer, "bytes behind an introduction", len(received) - self._size, 0)
        if len(received) == self._size:
            self._result = introduction_untrusted(bytes(received), self._peer)

    def receive_eof(self) -> None:
        """The stream ended.

        Raises:
            LinkProtocolError: always.
        """
        raise LinkProtocolError(self._peer, "the stream ended in an introduction, bytes seen", len(self._received))


def introduction_untrusted(received: bytes, peer: str = "") -> Introduction:
    """A whole introduction, taken apart.

    Raises:
        LinkProtocolError: the name is not UTF-8.
    """
    try:
        name = received[2 * _ID_SIZE :].decode("utf-8")
    except UnicodeDecodeError:
        raise LinkProtocolError(peer, "name in an iris handshake that is not UTF-8, bytes", len(received)) from None
    return Introduction(int.from_bytes(received[:_ID_SIZE], "big"), name)
