"""A byte stream in the messages of a WebSocket (RFC 6455), without I/O; frames and the upgrade are wsproto's.

Between a WebSocketStream and the bytes of its carrier. Bytes travel in binary messages, whose borders mean nothing. The
one invariant: `received` grows by no more than one call gave, whatever sizes frames announce, and the end of the stream
is a Close frame: an end of the carrier without one is a break.

A WebSocket has no half close: who receives a Close must answer with one. Two ends of ours agree on the subprotocol
SUBPROTOCOL, with which that answer waits until our own end is shut, so that it can still send; with any other peer the
answer is sent at once, and nothing after it.

Requests with an Origin come from pages in browsers, which may reach ports of this host that the pages' authors never
could. They are refused.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

from wsproto.connection import ConnectionType
from wsproto.events import AcceptConnection, RejectConnection, Request
from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode, ParseFailed
from wsproto.handshake import H11Handshake
from wsproto.utilities import RemoteProtocolError

if TYPE_CHECKING:
    from wsproto.frame_protocol import Frame

    from .tls_pipe import TlsPipe

SUBPROTOCOL: Final = "partywire-stream"

HEAD_SIZE_MAX: Final = 8 * 1024
"""Bytes of the request that opens a WebSocket, and of the answer."""

MESSAGE_SIZE: Final = 64 * 1024
"""Bytes of one message that we send: what is sealed and buffered at once."""

_CLEAN: Final = (CloseReason.NORMAL_CLOSURE, CloseReason.GOING_AWAY, CloseReason.NO_STATUS_RCVD)
_OF_A_BODY: Final = {b"content-length", b"transfer-encoding"}
_END_OF_HEAD: Final = b"\r\n\r\n"


class WebSocketError(Exception):
    """Raised when the WebSocket cannot go on: the peer refused it, or its bytes are none of a WebSocket.

    Whoever owns the stream makes of it what its callers expect."""


class _State(Enum):
    OPENING = 1
    OPEN = 2
    DEAD = 3


class WebSocketCore:
    """Either end. Driven by the carrier's bytes, by what is to be sent, and by our own end."""

    def __init__(self, *, dials: bool, host: str, path: str, tls: TlsPipe | None) -> None:
        """`host` is what the request names; the acceptor takes any. `path` must be the same at both ends."""
        kind = ConnectionType.CLIENT if dials else ConnectionType.SERVER
        self._tls = tls
        self._path = path
        self._dials = dials
        self._handshake = H11Handshake(kind)
        self._frames = FrameProtocol(dials, [])
        self._state = _State.OPENING
        self._head = bytearray()
        self._output = bytearray()
        self._pong: bytes | None = None  # the answer to the last ping; RFC 6455, 5.5.3 allows to leave earlier ones out
        self._half_closes = False
        self._is_shut = False  # we sent a Close
        self._error = ""
        self.received = bytearray()
        """What came and was not taken yet; whoever takes something deletes it here."""
        self.is_ended = False
        """Whether the peer sent a Close: nothing follows `received`."""
        if dials:
            request = Request(host=host, target=path, subprotocols=[SUBPROTOCOL])
            self._write(self._handshake.send(request))

    @property
    def is_open(self) -> bool:
        """Whether the opening handshake is done."""
        return self._state is _State.OPEN

    @property
    def may_send(self) -> bool:
        """Whether bytes can still be sent."""
        return self._state is _State.OPEN and not self._is_shut

    # Sending.

    def send(self, data: bytes | bytearray) -> None:
        """Put up to MESSAGE_SIZE bytes into one message. Only while `may_send`."""
        assert self.may_send, "no bytes can be sent now"
        assert 1 <= len(data) <= MESSAGE_SIZE, "an empty or oversized message"
        self._write(self._frames.send_data(data))

    def shut(self) -> None:
        """Our end: nothing is sent after it. May be called again."""
        if self.may_send:
            self._close(CloseReason.NORMAL_CLOSURE)

    def _close(self, code: CloseReason) -> None:
        self._is_shut = True
        self._write(self._frames.close(code))

    def data_to_send(self) -> bytes:
        """What is to be sent now; each byte once. Bounded by one message and what TLS adds."""
        if self._pong is not None and not self._is_shut:
            self._write(self._frames.pong(self._pong))
        self._pong = None
        if self._tls is not None:
            return self._tls.data_to_send()
        data = bytes(self._output)
        self._output.clear()
        return data

    def _write(self, data: bytes | bytearray) -> None:
        if self._tls is not None:
            self._tls.send(data)
        else:
            self._output += data

    # Receiving.

    def receive_data_untrusted(self, data: bytes) -> None:
        """Take bytes of the carrier. There may be something to send afterwards, also after an error.

        Raises:
            WebSocketError: the peer refused, or broke the protocol; the same again from then on.
        """
        if self._state is _State.DEAD:
            raise WebSocketError(self._error)
        try:
            opened = data if self._tls is None else self._tls.receive(data)
            if self._state is _State.OPENING:
                opened = self._open(opened)
            if self._state is _State.OPEN and opened and not self.is_ended:
                self._take(opened)
        except WebSocketError as error:
            self._die(str(error))
            raise
        except OSError as error:  # of TLS
            self._die(f"its TLS failed: {getattr(error, 'verify_message', '') or error.strerror or error}")
            raise WebSocketError(self._error) from error

    def receive_end_of_file(self) -> None:
        """The carrier ended.

        Raises:
            WebSocketError: before a Close came.
        """
        if not self.is_ended:
            self._die("it ended without a Close of the WebSocket")
            raise WebSocketError(self._error)

    def _die(self, why: str) -> None:
        self._state = _State.DEAD
        self._error = why
        self._head.clear()

    def _open(self, data: bytes) -> bytes:
        """Take what belongs to the opening handshake; what follows it."""
        start = max(0, len(self._head) - len(_END_OF_HEAD))
        self._head += data
        end = self._head.find(_END_OF_HEAD, start)
        if end < 0 and len(self._head) <= HEAD_SIZE_MAX:
            return b""
        if end < 0 or end > HEAD_SIZE_MAX:
            raise WebSocketError(f"the head of its HTTP message has more than {HEAD_SIZE_MAX} bytes")
        end += len(_END_OF_HEAD)
        rest = bytes(self._head[end:])
        try:
            self._handshake.receive_data(bytes(self._head[:end]))
            event = next(self._handshake.events(), None)
        except (RemoteProtocolError, UnicodeError) as error:
            if not self._dials:
                self._reject(400)
            raise WebSocketError(f"it does not open a WebSocket: {error}") from None
        match event:
            case AcceptConnection():
                self._half_closes = event.subprotocol == SUBPROTOCOL
            case RejectConnection():
                raise WebSocketError(f"it answered with the HTTP status {event.status_code}")
            case Request():
                self._answer(event)
            case _:
                raise WebSocketError("it does not open a WebSocket")
        self._head.clear()
        self._state = _State.OPEN
        return rest

    def _answer(self, request: Request) -> None:
        names = {name for name, _ in request.extra_headers}
        if names & _OF_A_BODY:
            self._reject(400)
            raise WebSocketError("it does not open a WebSocket: its request has a body")
        if b"origin" in names:
            self._reject(403)
            raise WebSocketError("it is a page in a browser: its request has an Origin")
        if request.target != self._path:
            self._reject(404)
            raise WebSocketError("it asked for another path than ours")
        self._half_closes = SUBPROTOCOL in request.subprotocols
        self._write(self._handshake.send(AcceptConnection(subprotocol=SUBPROTOCOL if self._half_closes else None)))

    def _reject(self, status: int) -> None:
        self._write(self._handshake.send(RejectConnection(status_code=status)))

    def _take(self, data: bytes) -> None:
        self._frames.receive_bytes(data)
        try:
            for frame in self._frames.received_frames():
                self._take_frame(frame)
        except ParseFailed as error:
            if not self._is_shut:
                self._close(error.code)
            raise WebSocketError(f"it broke the protocol of WebSockets: {error}") from None

    def _take_frame(self, frame: Frame) -> None:
        payload = frame.payload
        match frame.opcode:
            case Opcode.BINARY if isinstance(payload, (bytes, bytearray)):
                self.received += payload
            case Opcode.PING if isinstance(payload, (bytes, bytearray)):
                self._pong = bytes(payload)
            case Opcode.PONG:
                pass
            case Opcode.CLOSE if isinstance(payload, tuple):
                self._take_close(int(payload[0]))
            case _:
                if not self._is_shut:
                    self._close(CloseReason.UNSUPPORTED_DATA)
                raise WebSocketError("it sent text; bytes are in binary messages")

    def _take_close(self, code: int) -> None:
        self.is_ended = True
        if code not in _CLEAN:
            if not self._is_shut:
                self._close(CloseReason.NORMAL_CLOSURE)
            raise WebSocketError(f"it closed the WebSocket with code {code}")
        if not self._half_closes:
            self.shut()
