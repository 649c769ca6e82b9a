"""The handshakes of a link: `Handshake` on its control connection, `Attach` on each normal connection. (`probe` has
the question whether they would succeed.)

Between the initiator (who dialled) and the responder (who accepted), right behind the preamble (docs/wire.md,
Handshake):

    initiator                               responder
    HELLO                 ------->          checks it
    checks it             <-------          HELLO, ACCEPT(transcript)
    ACCEPT(transcript)    ------->          done
    done

    ATTACH(token)         ------->          checks it
    done                  <-------          ACCEPT(transcript)

The one invariant: both ends finish with equal results or neither uses the connection; a transcript that covers the
preamble and every message detects whatever was changed on the way.
Without a secure channel below it this authenticates nobody: names are claimed, and the secret, made of nonces that
travelled in the clear, only keeps the connections of honest parties from being mixed up.

Bytes in: `receive_data`. Bytes out: `data_to_send`, to be called after every call, also after one that raised: the
rejection that tells the peer why is in it. Deadlines belong to the caller.
"""

from __future__ import annotations

import hashlib
import hmac
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NoReturn

from .errors import HandshakeRejected, LinkProtocolError, LocalProtocolError, RejectCode
from .handshake_messages import (
    CAN_SUBSTREAMS,
    PROTOCOL_VERSION,
    AttachRequest,
    Hello,
    MessageReader,
    MessageType,
    decode_reject_untrusted,
    encode_message,
    encode_reject,
)
from .preamble import ConnectionClass
from .topology import connection_count

__all__ = ["Attach", "Handshake", "HandshakeResult", "HandshakeState", "Hello", "RejectCode", "Role"]


class Role(Enum):
    """Which end of a connection we are."""

    INITIATOR = "initiator"
    RESPONDER = "responder"


class HandshakeState(Enum):
    """Where a handshake stands, at either end."""

    AWAITING_HELLO = "awaiting HELLO"
    AWAITING_ATTACH = "awaiting ATTACH"
    AWAITING_ACCEPT = "awaiting ACCEPT"
    AWAITING_PROBE = "awaiting PROBE"
    AWAITING_PROBED = "awaiting PROBED"
    AWAITING_INTRODUCE = "awaiting INTRODUCE"
    AWAITING_INTRODUCED = "awaiting INTRODUCED"
    DONE = "done"
    FAILED = "failed"


_S = HandshakeState
_M = MessageType

# A message that is not listed for a state is the peer's protocol error. REJECT ends every waiting state.
TRANSITIONS: Final[dict[tuple[HandshakeState, MessageType], HandshakeState]] = {
    (_S.AWAITING_HELLO, _M.HELLO): _S.AWAITING_ACCEPT,
    (_S.AWAITING_HELLO, _M.REJECT): _S.FAILED,
    (_S.AWAITING_ACCEPT, _M.ACCEPT): _S.DONE,
    (_S.AWAITING_ACCEPT, _M.REJECT): _S.FAILED,
    (_S.AWAITING_ATTACH, _M.ATTACH): _S.DONE,
    (_S.AWAITING_ATTACH, _M.REJECT): _S.FAILED,
    (_S.AWAITING_PROBE, _M.PROBE): _S.DONE,
    (_S.AWAITING_PROBE, _M.REJECT): _S.FAILED,
    (_S.AWAITING_PROBED, _M.PROBED): _S.DONE,
    (_S.AWAITING_PROBED, _M.REJECT): _S.FAILED,
    (_S.AWAITING_INTRODUCE, _M.INTRODUCE): _S.DONE,
    (_S.AWAITING_INTRODUCE, _M.REJECT): _S.FAILED,
    (_S.AWAITING_INTRODUCED, _M.INTRODUCED): _S.DONE,
    (_S.AWAITING_INTRODUCED, _M.REJECT): _S.FAILED,
}


@dataclass(frozen=True, slots=True)
class HandshakeResult:
    """What both ends of a control connection agreed on; equal at both but for `peer`."""

    peer: Hello
    epoch: int
    connections: int
    """Normal connections of the link."""
    message_size_max: int
    """The smaller of both limits."""
    secret: bytes = field(repr=False)
    """Names this life of the link towards its normal connections."""
    substreams: bool = False
    """Whether the control connection carries substreams from here on, since both ends can."""


@dataclass(frozen=True, slots=True)
class AttachResult:
    """Which connection of the link was attached."""

    connection_class: ConnectionClass
    index: int


def _digest(label: bytes, *parts: bytes) -> bytes:
    """SHA-256 over length-prefixed parts, so that no two different lists of parts give the same bytes."""
    digest = hashlib.sha256(label)
    for part in parts:
        digest.update(len(part).to_bytes(4, "little") + part)
    return digest.digest()


class Conversation(ABC):
    """What `Handshake`, `Attach`, `Probe` and `pairing.meeting` share: states, messages, rejection in both ways."""

    def __init__(self, machine: str, peer: str, state: HandshakeState) -> None:
        self._machine = machine
        self._peer = peer
        self._state = state
        self._reader = MessageReader(peer)
        self._outgoing = bytearray()

    @property
    def state(self) -> HandshakeState:
        """Where it stands."""
        return self._state

    @property
    def trailing_data(self) -> bytes:
        """Bytes behind the peer's last message; they belong to the frame stream. Each call takes them away."""
        if self._state is not HandshakeState.DONE:
            return b""
        return self._reader.take_rest()

    def data_to_send(self) -> bytes:
        """Bytes for the peer since the last call."""
        outgoing = bytes(self._outgoing)
        self._outgoing.clear()
        return outgoing

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next slice of the stream.

        Raises:
            HandshakeRejected: one side refuses the other.
            LinkProtocolError: the peer's bytes are not a handshake.
            LocalProtocolError: it is already over.
        """
        if self._state in (HandshakeState.DONE, HandshakeState.FAILED):
            raise LocalProtocolError(self._machine, self._state.value, "receive_data")
        self._reader.receive_data(data)
        try:
            while (message := self._reader.next_message_untrusted()) is not None:
                self._receive_message_untrusted(*message)
                if self.state is HandshakeState.DONE:
                    return  # what is left belongs to the frame stream
        except LinkProtocolError as error:
            # The peer learns that its bytes were refused, in general terms; the details are for our own log.
            self._state = HandshakeState.FAILED
            self._send(MessageType.REJECT, encode_reject(RejectCode.PROTOCOL, error.what))
            raise

    def receive_eof(self) -> None:
        """The stream ended.

        Raises:
            LinkProtocolError: always, unless the handshake is done; says how far it came.
        """
        if self._state is HandshakeState.DONE:
            return
        waiting, self._state = self._state, HandshakeState.FAILED
        raise LinkProtocolError(
            self._peer, f"the stream ended in a handshake {waiting.value}, bytes left", self._reader.received_size
        )

    def reject(self, code: RejectCode, detail: str) -> NoReturn:
        """Refuse the peer, for a reason that this core cannot see (a second process with the same name, no room).

        Raises:
            HandshakeRejected: always.
            LocalProtocolError: it is already over.
        """
        if self._state in (HandshakeState.DONE, HandshakeState.FAILED):
            raise LocalProtocolError(self._machine, self._state.value, "reject")
        self._state = HandshakeState.FAILED
        self._send(MessageType.REJECT, encode_reject(code, detail))
        raise HandshakeRejected(self._peer, code, detail, by_us=True)

    def _receive_message_untrusted(self, type_: MessageType, body: bytes) -> None:
        following = TRANSITIONS.get((self._state, type_))
        if following is None:
            raise LinkProtocolError(self._peer, f"handshake message while {self._state.value}", type_.name)
        if type_ is MessageType.REJECT:
            code, detail = decode_reject_untrusted(body, self._peer)
            self._state = HandshakeState.FAILED
            raise HandshakeRejected(self._peer, code, detail, by_us=False)
        self._check_message_untrusted(type_, body)
        self._state = following

    @abstractmethod
    def _check_message_untrusted(self, type_: MessageType, body: bytes) -> None:
        """Refuse the message or answer it; the state moves on when this returns."""

    def _agree_untrusted(self, ours: Hello, body: bytes) -> tuple[Hello, int]:
        """The HELLO in `body`, which fits ours, and how many normal connections a link of both has; rejects others."""
        version = Hello.version_untrusted(body, self._peer)
        if version != PROTOCOL_VERSION:
            self.reject(
                RejectCode.VERSION,
                f"{ours.name} speaks protocol version {PROTOCOL_VERSION}, {ours.peer} version {version}",
            )
        theirs = Hello.decode_untrusted(body, self._peer)
        self._check_identity(ours, theirs)
        self._check_agreement(ours, theirs)
        try:
            return theirs, connection_count(ours.workers, theirs.workers)
        except ValueError as error:
            self.reject(RejectCode.PARAMETERS, str(error))

    def _check_identity(self, ours: Hello, theirs: Hello) -> None:
        if theirs.name == ours.name:
            self.reject(RejectCode.DUPLICATE_IDENTITY, f"both ends of this connection are called {ours.name}")
        if ours.party_set and theirs.name not in ours.party_set:
            self.reject(RejectCode.UNKNOWN_PEER, f"{theirs.name} is not a party at {ours.name}")
        if theirs.name != ours.peer:
            self.reject(
                RejectCode.WRONG_IDENTITY, f"{ours.name} expected {ours.peer} on this connection, not {theirs.name}"
            )
        if theirs.peer != ours.name:
            self.reject(
                RejectCode.WRONG_IDENTITY, f"{theirs.name} expected {theirs.peer} on this connection, not {ours.name}"
            )

    def _check_agreement(self, ours: Hello, theirs: Hello) -> None:
        if ours.party_set != theirs.party_set:
            self.reject(
                RejectCode.PARTY_SET,
                f"the parties are {', '.join(ours.party_set) or 'not listed'} at {ours.name} "
                f"but {', '.join(theirs.party_set) or 'not listed'} at {theirs.name}",
            )
        if not hmac.compare_digest(ours.parameter_digest, theirs.parameter_digest):
            self.reject(
                RejectCode.PARAMETERS,
                f"{ours.name} and {theirs.name} have different parameters (digests "
                f"{ours.parameter_digest[:4].hex()} and {theirs.parameter_digest[:4].hex()})",
            )
        if hmac.compare_digest(ours.nonce, theirs.nonce):
            self.reject(RejectCode.PROTOCOL, "both ends sent the same nonce")

    def _send(self, type_: MessageType, body: bytes) -> None:
        self._outgoing += encode_message(type_, body)


class Handshake(Conversation):
    """The handshake of a control connection. Driven by the peer's bytes; times out by its owner."""

    def __init__(self, role: Role, hello: Hello, preamble: bytes = b"") -> None:
        """`hello` is ours and names the peer we expect; `preamble` is what was sent, or received, before this."""
        super().__init__("handshake", hello.peer, HandshakeState.AWAITING_HELLO)
        self._role = role
        self._our_hello = hello
        self._our_body = hello.encode()
        self._preamble = preamble
        # Set by the peer's HELLO.
        self._transcript = b""
        self._agreed: HandshakeResult | None = None
        if role is Role.INITIATOR:
            self._send(MessageType.HELLO, self._our_body)

    @property
    def result(self) -> HandshakeResult | None:
        """What was agreed, once the handshake is done."""
        return self._agreed if self._state is HandshakeState.DONE else None

    def _check_message_untrusted(self, type_: MessageType, body: bytes) -> None:
        if type_ is MessageType.HELLO:
            self._check_hello_untrusted(body)
            if self._role is Role.RESPONDER:
                self._send(MessageType.HELLO, self._our_body)
                self._send(MessageType.ACCEPT, self._transcript)
        else:
            if not hmac.compare_digest(body, self._transcript):
                self.reject(RejectCode.PROTOCOL, "the two ends saw different handshakes; something between changed it")
            if self._role is Role.INITIATOR:
                self._send(MessageType.ACCEPT, self._transcript)

    def _check_hello_untrusted(self, body: bytes) -> None:
        ours = self._our_hello
        theirs, connections = self._agree_untrusted(ours, body)
        bodies = (self._our_body, body) if self._role is Role.INITIATOR else (body, self._our_body)
        self._transcript = _digest(b"partywire handshake 1", self._preamble, *bodies)
        self._agreed = HandshakeResult(
            peer=theirs,
            epoch=max(ours.epoch, theirs.epoch),
            connections=connections,
            message_size_max=min(ours.message_size_max, theirs.message_size_max),
            secret=_digest(b"partywire link secret 1", self._preamble, *bodies),
            substreams=bool(ours.abilities & theirs.abilities & CAN_SUBSTREAMS),
        )


class Attach(Conversation):
    """The handshake of a normal connection: proves that it belongs to the link whose secret both ends hold."""

    def __init__(
        self,
        role: Role,
        our_name: str,
        peer: str,
        epoch: int,
        secret: bytes,
        index: int,
        connection_class: ConnectionClass = ConnectionClass.NORMAL,
        preamble: bytes = b"",
    ) -> None:
        initiator = role is Role.INITIATOR
        state = HandshakeState.AWAITING_ACCEPT if initiator else HandshakeState.AWAITING_ATTACH
        super().__init__("attach", peer, state)
        self._epoch = epoch
        self._attached = AttachResult(connection_class, index)
        place = bytes((connection_class,)) + index.to_bytes(2, "little")
        # Covers the preamble, so that a connection routed by other bytes than were sent is refused by the acceptor.
        self._token = _digest(b"partywire attach token 1", secret, place, preamble)
        request = AttachRequest(our_name if initiator else peer, epoch, self._token).encode()
        # Covers the secret, so that an acceptor which does not hold it cannot answer.
        self._transcript = _digest(b"partywire attach 1", secret, request)
        if initiator:
            self._send(MessageType.ATTACH, request)

    @property
    def result(self) -> AttachResult | None:
        """Which connection was attached, once the handshake is done."""
        return self._attached if self._state is HandshakeState.DONE else None

    def _check_message_untrusted(self, type_: MessageType, body: bytes) -> None:
        if type_ is MessageType.ATTACH:
            request = AttachRequest.decode_untrusted(body, self._peer)
            if request.name != self._peer:
                self.reject(RejectCode.WRONG_IDENTITY, f"expected {self._peer} on this connection, not {request.name}")
            if request.epoch != self._epoch:
                self.reject(RejectCode.EPOCH, f"the link is in epoch {self._epoch}, the connection in {request.epoch}")
            if not hmac.compare_digest(request.token, self._token):
                self.reject(RejectCode.TOKEN, "the connection does not belong to this link")
            self._send(MessageType.ACCEPT, self._transcript)
        elif not hmac.compare_digest(body, self._transcript):
            self.reject(RejectCode.TOKEN, "the acceptor does not hold the secret of this link")
