"""Noise as a channel: the handshakes and records of `engine/noise`, with the peer's static key pinned.

Between the owner of a connection's bytes and the Noise core. The one invariant: `result` is there only for a peer that
has shown a key that is accepted (of a link the one of its configuration); and nothing of a connection is believed
before its first record was opened, because to the responder of IX and KK only that proves that the initiator holds its
key, and is there now.

A handshake message is its length, two bytes big-endian, then the message, without payload. The prologue is a label,
then the preamble, the dialler's name and the acceptor's, each preceded by its length in two bytes: so version, mode,
link and connection, and both identities, are part of what both ends must agree on.

A peer with another key is told so where that can be done: inside the channel by a responder whose handshake is complete
(XX), else by a REJECT in the clear, which holds no key.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Final, NoReturn

from ..errors import HandshakeRejected, LinkProtocolError, RejectCode
from ..handshake import Role
from ..noise import HandshakeState, NoiseProtocol, PublicKey, RecordOpener, RecordSealer, Turn
from ..noise.errors import NoiseHandshakeFailed, NonceExhausted, RecordRefused
from ..preamble import SecurityMode
from .channel import CUT_OFF, END_OF_FILE, Buffer, Channel, ClearRefusal, encode_refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..noise import PrivateKey

PROTOCOLS: Final = {
    SecurityMode.NOISE_XX_CHACHA: NoiseProtocol("XX", "ChaChaPoly", "BLAKE2s"),
    SecurityMode.NOISE_XX_AES: NoiseProtocol("XX", "AESGCM", "BLAKE2s"),
    SecurityMode.NOISE_IX_CHACHA: NoiseProtocol("IX", "ChaChaPoly", "BLAKE2s"),
    SecurityMode.NOISE_IX_AES: NoiseProtocol("IX", "AESGCM", "BLAKE2s"),
    SecurityMode.NOISE_KK_CHACHA: NoiseProtocol("KK", "ChaChaPoly", "BLAKE2s"),
    SecurityMode.NOISE_KK_AES: NoiseProtocol("KK", "AESGCM", "BLAKE2s"),
}

HANDSHAKE_MESSAGE_MAX: Final = 255
"""A message of our patterns has 48 to 96 bytes. Below 256, the first byte of its length is 0, not that of a REJECT."""

_LENGTH_SIZE: Final = 2

_PROLOGUE_LABEL: Final = b"partywire noise 1"


def prologue_of(preamble: bytes, dialler: str, acceptor: str) -> bytes:
    """What both ends must agree on beside the handshake itself."""
    parts = (preamble, dialler.encode(), acceptor.encode())
    return _PROLOGUE_LABEL + b"".join(len(part).to_bytes(2, "big") + part for part in parts)


class AbstractNoiseChannel(Channel):
    """Either end of one connection's Noise, for whoever decides by itself which key of the peer is accepted."""

    def __init__(self, role: Role, peer: str, handshake: HandshakeState) -> None:
        """`handshake` is fresh, and of the same role."""
        super().__init__(role, peer)
        self._handshake = handshake
        self._refusal = ClearRefusal(peer)
        self._incoming = bytearray()  # of a handshake message, and then what came behind the last one
        self._outgoing = bytearray()
        self._sealer: RecordSealer | None = None  # both set when the handshake is done
        self._opener: RecordOpener | None = None
        self._is_confirmed = False  # whether a record of the peer was opened
        self._is_accepted = True  # whether the key that the peer showed is the right one
        self._go_on()

    @abstractmethod
    def _accepts(self, shown: PublicKey) -> bool:
        """Whether this may be the peer's key. Before it, nothing secret was sent; to who shows another, nothing is."""

    # The handshake.

    @property
    def result(self) -> str | None:
        return None if self._opener is None else str(self._handshake.remote_static)

    def data_to_send(self) -> bytes:
        data = bytes(self._outgoing)
        self._outgoing.clear()
        return data

    def receive_data(self, data: Buffer) -> None:
        if not self._incoming and self._refusal.look_at(data):
            return
        self._incoming += data
        while self._handshake.turn is Turn.READ and (message := self._next_message_untrusted()) is not None:
            try:
                self._handshake.read_message_untrusted(message)
                self._go_on()
            except NoiseHandshakeFailed as error:
                self._refuse_in_the_clear(f"the handshake of {self._peer} was refused: {error.what}")

    def _next_message_untrusted(self) -> bytes | None:
        if len(self._incoming) < _LENGTH_SIZE:
            return None
        size = int.from_bytes(self._incoming[:_LENGTH_SIZE], "big")
        if size > HANDSHAKE_MESSAGE_MAX:
            raise LinkProtocolError(self._peer, "size of a Noise handshake message", size, HANDSHAKE_MESSAGE_MAX)
        end = _LENGTH_SIZE + size
        if len(self._incoming) < end:
            return None
        message = bytes(self._incoming[_LENGTH_SIZE:end])
        del self._incoming[:end]
        return message

    def _go_on(self) -> None:
        """Do what is our turn."""
        handshake = self._handshake
        while handshake.turn not in (Turn.READ, Turn.OVER):
            if handshake.turn is Turn.VERIFY:
                self._verify()
            elif handshake.turn is Turn.WRITE:
                message = handshake.write_message()
                self._outgoing += len(message).to_bytes(_LENGTH_SIZE, "big") + message
            else:
                self._begin_records()

    def _verify(self) -> None:
        handshake = self._handshake
        shown = handshake.remote_static
        assert shown is not None
        self._is_accepted = self._accepts(shown)
        handshake.verify_peer({shown})
        if not self._is_accepted and handshake.turn is not Turn.SPLIT:
            self._refuse_in_the_clear(self._wrong_key)

    @property
    def _wrong_key(self) -> str:
        return f"the key shown for {self._peer} is not the one that the configuration has"

    def _refuse_in_the_clear(self, detail: str) -> NoReturn:
        """The peer is not proven, so it is told no more than that it was refused."""
        self._outgoing += encode_refusal(RejectCode.CREDENTIALS, detail)
        self._refuse(RejectCode.CREDENTIALS, detail)

    def _begin_records(self) -> None:
        sending, receiving = self._handshake.split()
        sealer = RecordSealer(sending)
        if not self._is_accepted:
            self._outgoing += sealer.seal([encode_refusal(RejectCode.CREDENTIALS, self._wrong_key)])[0]
            self._refuse(RejectCode.CREDENTIALS, self._wrong_key)
        self._sealer = sealer
        self._opener = RecordOpener(receiving, self._peer)
        if self._incoming:
            self._opener.feed(bytes(self._incoming))
            self._incoming.clear()

    # Sealing.

    def seal(self, views: Sequence[Buffer], size_max: int) -> tuple[Buffer, int]:
        """What is returned is lent until the next call."""
        assert self._sealer is not None  # there is a result
        try:
            return self._sealer.seal(views, size_max)
        except NonceExhausted as error:
            raise OSError(str(error)) from error

    def seal_end(self) -> bytes:
        assert self._sealer is not None
        return self._sealer.seal_end()

    # Opening.

    @property
    def has_more(self) -> bool:
        return self._opener is not None and self._opener.has_more

    def feed(self, ciphertext: Buffer) -> None:
        assert self._opener is not None
        self._opener.feed(ciphertext)

    def open_into(self, view: memoryview) -> int | None:
        assert self._opener is not None
        try:
            count = self._opener.open_into(view)
        except RecordRefused as error:
            self._raise_refused(error)
        except NonceExhausted as error:
            raise LinkProtocolError(self._peer, "records of one Noise connection", str(error)) from None
        if count:
            self._is_confirmed = True
        return count

    def _raise_refused(self, error: RecordRefused) -> NoReturn:
        if not self._is_confirmed and self._role is Role.RESPONDER:
            detail = f"{self._peer} showed a key that it does not hold, or repeated an old handshake"
            raise HandshakeRejected(self._peer, RejectCode.CREDENTIALS, detail, by_us=True) from None
        raise LinkProtocolError(self._peer, "a Noise record was refused", error.what) from None

    def receive_end_of_file(self) -> None:
        assert self._opener is not None
        try:
            self._opener.receive_end_of_file()
        except RecordRefused:
            raise LinkProtocolError(self._peer, CUT_OFF, END_OF_FILE) from None


class NoiseChannel(AbstractNoiseChannel):
    """Either end of one connection's Noise, with the key that the configuration has for the peer."""

    def __init__(
        self,
        mode: SecurityMode,
        role: Role,
        peer: str,
        key: PrivateKey,
        peer_key: str,
        preamble: bytes,
        names: tuple[str, str],
    ) -> None:
        """`peer_key` is the peer's public key in hexadecimal; `names` are the dialler's and the acceptor's."""
        protocol = PROTOCOLS[mode]
        self._expected = PublicKey(bytes.fromhex(peer_key))
        handshake = HandshakeState(
            protocol,
            role is Role.INITIATOR,
            key,
            prologue=prologue_of(preamble, *names),
            remote_static=self._expected if protocol.pattern == "KK" else None,
            peer=peer,
        )
        super().__init__(role, peer, handshake)

    def _accepts(self, shown: PublicKey) -> bool:
        return shown == self._expected
