"""HandshakeState: one handshake of any pattern of the table, message by message (Noise rev 34, sections 5.3 and 7.1).

Between the initiator and the responder of one connection; who is who was settled below. `turn` says what comes next,
so one loop drives every pattern and role:

    WRITE    send what `write_message` returns
    READ     give `read_message_untrusted` one whole message
    VERIFY   the peer has shown its static key: decide with `verify_peer`
    SPLIT    take the ciphers with `split`
    OVER     they were taken
    FAILED   dead; a new connection is needed

The one invariant: nothing is sent to, and no cipher comes out for, a peer whose static key the caller has not accepted.
An error at any point is final.

What is proven when `split` is reached: that the peer holds its static key, except to the responder of IX and KK, who
knows it (and that the handshake was not a replay) once it has opened the first record (section 7.7). So nobody acts on
a connection before the first record, in our case HELLO, was opened. Payloads of handshake messages are weaker still:
until the patterns' tables say otherwise they may be read and replayed by anybody.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, NoReturn

from ..errors import LocalProtocolError
from .cipher import Buffer, CipherState, InvalidTag
from .errors import NoiseHandshakeFailed, UntrustedStaticKey
from .keys import KEY_SIZE, LowOrderKey, PrivateKey, PublicKey
from .protocol import PATTERNS, Token
from .symmetric import SymmetricState

if TYPE_CHECKING:
    from collections.abc import Collection

    from .protocol import NoiseProtocol

MESSAGE_SIZE_MAX: Final = 65_535
"""Largest Noise message (section 3). What a peer may announce before it has proven anything should be far less."""


class Turn(Enum):
    """What a handshake needs next."""

    WRITE = "awaiting a message of ours"
    READ = "awaiting a message of the peer"
    VERIFY = "awaiting the decision about the peer's key"
    SPLIT = "awaiting split"
    OVER = "over"
    FAILED = "failed"


class HandshakeState:
    """One end of one handshake."""

    def __init__(
        self,
        protocol: NoiseProtocol,
        is_initiator: bool,
        static: PrivateKey,
        *,
        prologue: Buffer = b"",
        remote_static: PublicKey | None = None,
        peer: str = "",
    ) -> None:
        """
        Args:
            protocol: the same at both ends, or the handshake fails.
            is_initiator: whether we send the first message.
            static: our own key.
            prologue: what both ends must agree on, byte for byte, beside the handshake itself.
            remote_static: the peer's key, which counts as accepted, if the pattern needs it beforehand (KK); else None.
            peer: whom we expect, for messages only.

        Raises:
            ValueError: `remote_static` is missing, or given to a pattern that learns it.
        """
        pattern = PATTERNS[protocol.pattern]
        known_to_us = pattern.responder_known if is_initiator else pattern.initiator_known
        if known_to_us != (remote_static is not None):
            raise ValueError(f"{protocol.name}: the peer's key is {'needed' if known_to_us else 'learnt, not given'}")
        self._protocol: Final = protocol
        self._is_initiator: Final = is_initiator
        self._peer: Final = peer
        self._messages: Final = pattern.messages
        self._message = 0  # index of the message that comes next
        self._static: Final = static
        self._ephemeral: PrivateKey | None = None  # made by our token E, gone after `split`
        self._remote_ephemeral: PublicKey | None = None  # set by the peer's token E
        self._remote_static = remote_static  # or set by the peer's token S
        self._is_verified = remote_static is not None
        self._symmetric: Final = SymmetricState(protocol, peer)
        self._symmetric.mix_hash(prologue)
        for is_known, is_of_initiator in ((pattern.initiator_known, True), (pattern.responder_known, False)):
            if is_known:
                self._symmetric.mix_hash(self._static_of(is_of_initiator).raw)
        self.turn = Turn.WRITE if is_initiator else Turn.READ

    @property
    def protocol(self) -> NoiseProtocol:
        """What we speak."""
        return self._protocol

    @property
    def remote_static(self) -> PublicKey | None:
        """The peer's static key: as given, or as claimed by it, from turn VERIFY on. None before."""
        return self._remote_static

    @property
    def handshake_hash(self) -> bytes:
        """Equal at both ends and unique to this handshake, for binding other protocols to it (section 11.2).

        Raises:
            LocalProtocolError: the handshake is not complete.
        """
        if self.turn not in (Turn.SPLIT, Turn.OVER):
            self._misuse("handshake_hash")
        return self._symmetric.handshake_hash

    # The messages.

    def write_message(self, payload: Buffer = b"") -> bytes:
        """The next message, WriteMessage. `payload` may be readable by anybody: see the module's docstring.

        Raises:
            LocalProtocolError: it is not our turn.
            NoiseHandshakeFailed: the peer's ephemeral key is of low order.
            ValueError: the message would be above MESSAGE_SIZE_MAX; the handshake is dead.
        """
        self._take_turn(Turn.WRITE, "write_message")
        parts: list[bytes] = []
        try:
            for token in self._messages[self._message]:
                if token is Token.E:
                    self._ephemeral = PrivateKey.generate()
                    parts.append(self._ephemeral.public.raw)
                    self._symmetric.mix_hash(parts[-1])
                elif token is Token.S:
                    parts.append(self._symmetric.encrypt_and_hash(self._static.public.raw))
                else:
                    self._mix_shared_secret(token)
        except LowOrderKey:
            self._fail("the peer's public key is of low order")
        parts.append(self._symmetric.encrypt_and_hash(payload))
        message = b"".join(parts)
        if len(message) > MESSAGE_SIZE_MAX:
            raise ValueError(f"a handshake message of {len(message)} bytes, at most {MESSAGE_SIZE_MAX} are possible")
        self._advance()
        return message

    def read_message_untrusted(self, message: Buffer) -> bytes:
        """Take the peer's next message, ReadMessage.

        Returns:
            Its payload, which proves nothing about the peer before turn SPLIT.

        Raises:
            LocalProtocolError: it is not the peer's turn.
            NoiseHandshakeFailed: the message is refused: too short or long, made with another prologue, pattern or
                key, changed on the way, or with a public key of low order.
        """
        self._take_turn(Turn.READ, "read_message")
        if len(message) > MESSAGE_SIZE_MAX:
            self._fail(f"a message of {len(message)} bytes, at most {MESSAGE_SIZE_MAX} are allowed")
        rest = memoryview(message).toreadonly()
        try:
            for token in self._messages[self._message]:
                if token is Token.E:
                    self._remote_ephemeral = PublicKey(bytes(self._cut(rest, KEY_SIZE)))
                    self._symmetric.mix_hash(self._remote_ephemeral.raw)
                    rest = rest[KEY_SIZE:]
                elif token is Token.S:
                    size = KEY_SIZE + self._symmetric.tag_size
                    self._remote_static = PublicKey(self._symmetric.decrypt_and_hash(self._cut(rest, size)))
                    rest = rest[size:]
                else:
                    self._mix_shared_secret(token)
            payload = self._symmetric.decrypt_and_hash(self._cut(rest, self._symmetric.tag_size, is_all=True))
        except InvalidTag:
            self._fail("it was made with other settings or keys than ours, or changed on the way")
        except LowOrderKey:
            self._fail("the peer's public key is of low order")
        self._advance()
        return payload

    def verify_peer(self, accepted: Collection[PublicKey]) -> PublicKey:
        """Decide about the peer's static key: it must be one of `accepted`.

        Returns:
            The key. It is the peer's claim until the handshake, or with IX the first record, has proven it.

        Raises:
            LocalProtocolError: there is nothing to decide now.
            UntrustedStaticKey: it is none of them; the handshake is dead.
        """
        self._take_turn(Turn.VERIFY, "verify_peer")
        assert self._remote_static is not None
        if self._remote_static not in accepted:
            raise UntrustedStaticKey(self._peer, str(self._remote_static))
        self._is_verified = True
        self._choose_turn()
        return self._remote_static

    def split(self) -> tuple[CipherState, CipherState]:
        """The ciphers of what we send and of what we receive, Split. Can be taken once.

        Raises:
            LocalProtocolError: the handshake is not complete, or the ciphers were taken.
        """
        self._take_turn(Turn.SPLIT, "split")
        from_initiator, from_responder = self._symmetric.split()
        self._ephemeral = None
        self.turn = Turn.OVER
        return (from_initiator, from_responder) if self._is_initiator else (from_responder, from_initiator)

    def __repr__(self) -> str:
        role = "initiator" if self._is_initiator else "responder"
        return f"<HandshakeState {self._protocol.name}, {role}, {self.turn.value}>"

    # What happens inside.

    def _take_turn(self, turn: Turn, event: str) -> None:
        """Begin a step, which `_advance` or `_choose_turn` must end; whatever is raised between leaves us dead."""
        if self.turn is not turn:
            self._misuse(event)
        self.turn = Turn.FAILED

    def _misuse(self, event: str) -> NoReturn:
        """A call out of turn changes nothing: the bug is ours, and a dead handshake stays dead."""
        raise LocalProtocolError("noise handshake", self.turn.value, event)

    def _fail(self, what: str) -> NoReturn:
        raise NoiseHandshakeFailed(self._peer, self._protocol.name, self._message + 1, what) from None

    def _advance(self) -> None:
        self._message += 1
        self._choose_turn()

    def _choose_turn(self) -> None:
        if self._remote_static is not None and not self._is_verified:
            self.turn = Turn.VERIFY
        elif self._message == len(self._messages):
            self.turn = Turn.SPLIT
        else:
            self.turn = Turn.WRITE if self._is_initiator == (self._message % 2 == 0) else Turn.READ

    def _cut(self, rest: memoryview, size: int, is_all: bool = False) -> memoryview:
        """The first `size` bytes, or all if there are at least as many."""
        if len(rest) < size:
            self._fail(f"the message ends {size - len(rest)} bytes early")
        return rest if is_all else rest[:size]

    def _static_of(self, initiator: bool) -> PublicKey:
        if initiator == self._is_initiator:
            return self._static.public
        assert self._remote_static is not None
        return self._remote_static

    def _mix_shared_secret(self, token: Token) -> None:
        """MixKey(DH(...)) of the pair of keys that the token names, the initiator's first."""
        ours, theirs = token.value[0], token.value[1]
        if not self._is_initiator:
            ours, theirs = theirs, ours
        private = self._ephemeral if ours == "e" else self._static
        public = self._remote_ephemeral if theirs == "e" else self._remote_static
        assert private is not None
        assert public is not None  # the table names a key in a pair only after it was sent
        self._symmetric.mix_key(private.exchange(public))
