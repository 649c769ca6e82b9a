"""The contract of a secure channel: one connection's handshake, then bytes sealed and opened in order.

Between whoever owns the connection's bytes and an implementation (`tls`, `noise`). No I/O and no clock. The one
invariant: no byte comes out of `open_into` that the proven peer did not seal for this connection at this place, and the
end of the stream is told apart from a stream that was cut off.

    data_to_send, receive_data, receive_eof     until `result` is there: the handshake, driven as `greeting.greet` does
    seal, seal_end                              plaintext in, ciphertext out
    feed, open_into, receive_end_of_file        ciphertext in, plaintext out
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias

from ..errors import HandshakeRejected, LinkProtocolError, RejectCode
from ..handshake_messages import MessageReader, MessageType, decode_reject_untrusted, encode_message, encode_reject

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..handshake import Role

Buffer: TypeAlias = bytes | bytearray | memoryview

END_OF_FILE = "end of file"
"""What a LinkProtocolError has seen when the stream ended too early."""

CUT_OFF = "the connection was cut off: it ended without the end of its secure channel"


class Channel(ABC):
    """One end of the channel of one connection. Driven by its owner, who has the deadlines; after an error it is dead.

    Memory: at most one handshake message while it shakes hands; then at most what was fed and not opened yet, and one
    record.
    """

    def __init__(self, role: Role, peer: str) -> None:
        """`peer` is whom we expect, for messages; what proves it is the implementation's business."""
        self._role = role
        self._peer = peer

    # The handshake.

    @property
    @abstractmethod
    def result(self) -> str | None:
        """What the peer proved to hold, once the handshake is done: the fingerprint of its certificate, or its key."""

    @property
    def trailing_data(self) -> bytes:
        """Nothing: what came behind the handshake is sealed, and stays in here until it is opened."""
        return b""

    @abstractmethod
    def data_to_send(self) -> bytes:
        """Handshake bytes for the peer since the last call; also after an error, of which they may tell it."""

    @abstractmethod
    def receive_data(self, data: Buffer) -> None:
        """Take the next slice of the stream while there is no `result`.

        Raises:
            HandshakeRejected: one side refuses the other: no proof of the identity, or other settings.
            LinkProtocolError: the peer's bytes are no handshake of this kind.
        """

    def receive_eof(self) -> None:
        """The stream ended in the handshake.

        Raises:
            LinkProtocolError: always.
        """
        raise LinkProtocolError(self._peer, "the stream ended in the handshake of its secure channel", END_OF_FILE)

    # Sealing.

    @abstractmethod
    def seal(self, views: Sequence[Buffer], size_max: int) -> tuple[Buffer, int]:
        """Seal bytes from the front of `views`, at most `size_max`, many small ones into one record.

        Returns:
            The ciphertext, and how many bytes of plaintext are in it, at least 1. It must be sent before anything that
            is sealed later. The caller may change `views` afterwards.
        """

    @abstractmethod
    def seal_end(self) -> bytes:
        """The ciphertext that tells the peer that nothing follows. Called once, as the last thing that is sealed."""

    # Opening.

    @property
    @abstractmethod
    def has_more(self) -> bool:
        """Whether `open_into` may return bytes, the end or an error without being fed."""

    @abstractmethod
    def feed(self, ciphertext: Buffer) -> None:
        """Take the next slice of the stream, to be opened. Called only while `has_more` is False.

        It must not change as long as `has_more` is True.
        """

    @abstractmethod
    def open_into(self, view: memoryview) -> int | None:
        """Open records into `view`, which is not empty.

        Returns:
            How many bytes; 0 at the end of the stream, again and again; None if a whole record must be fed first.

        Raises:
            HandshakeRejected: the peer refused our proof, which it saw only after we had finished.
            LinkProtocolError: a record was changed on the way, or is none. The channel is dead.
        """

    @abstractmethod
    def receive_end_of_file(self) -> None:
        """The stream below ended.

        Raises:
            LinkProtocolError: it was cut off: the peer had not sealed its end.
        """

    # For implementations.

    def _refuse(self, code: RejectCode, detail: str) -> NoReturn:
        raise HandshakeRejected(self._peer, code, detail, by_us=True)


IN_THE_CLEAR: Final = frozenset({RejectCode.SECURITY, RejectCode.CREDENTIALS, RejectCode.BUSY})
"""What an acceptor may refuse before there is a channel. Everything else it would say inside."""


class ClearRefusal:
    """Recognises a REJECT in the clear where the answer of a secure channel should begin.

    An acceptor whose settings differ can say so in no other way. It proves nothing, so all that it may do is to end the
    attempt, which whoever can write to the connection may do anyhow, and only what can be known without a channel is
    believed to need somebody's care. Anything else is no refusal but noise, and the next attempt may fare better.
    """

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._reader: MessageReader | None = None  # set by the first byte of a refusal

    def look_at(self, data: Buffer) -> bool:
        """Whether `data`, which begins where a message begins, is part of a refusal and nothing else.

        Raises:
            HandshakeRejected: the refusal is complete.
            LinkProtocolError: it began like one and is none, or none that can be known without a channel.
        """
        if self._reader is None:
            if data[0] != MessageType.REJECT:
                return False
            self._reader = MessageReader(self._peer)
        self._reader.receive_data(data)
        if (message := self._reader.next_message_untrusted()) is not None:
            code, detail = decode_reject_untrusted(message[1], self._peer)
            if code not in IN_THE_CLEAR:
                what = "a refusal in the clear that only a proven peer may give:"
                raise LinkProtocolError(self._peer, what, f"{code.name}, {detail}")
            raise HandshakeRejected(self._peer, code, detail, by_us=False)
        return True


def encode_refusal(code: RejectCode, detail: str) -> bytes:
    """A REJECT as it stands on the wire."""
    return encode_message(MessageType.REJECT, encode_reject(code, detail))
