"""The introduction of two pools: who each is towards the other, said on a connection of its own.

Between two pair engines, behind a preamble of class INTRODUCTION and inside the secure channel if there is one
(docs/wire.md, Introductions):

    introducer                              acceptor
    INTRODUCE(ours)       ------->          finds out who it is, or refuses
    done                  <-------          INTRODUCED(ours), or REJECT

The one invariant: both ends compute the same dialler and the same two names of their link from what was said, and it
does not matter who introduced itself, how often, or whether both did at once.

What is said proves nothing: an end is known by the address or the certificate of its connection, which is its owner's
to look at. The ids are random, made anew for each peer and each start of a pool, and told to nobody else, so that a
third pool cannot speak as either.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from ..errors import LinkProtocolError, RejectCode
from ..handshake import Conversation, HandshakeState, Role
from ..handshake_messages import MessageType
from ..topology import ROUTING_TAG_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

INTRODUCTION_VERSION: Final = 1

ID_SIZE: Final = 16

INTRODUCTION_TAG: Final = hashlib.sha256(b"partywire introduction 1").digest()[:ROUTING_TAG_SIZE]
"""The routing tag of every introduction: whom it is for is not known before it was heard."""

_LAYOUT = struct.Struct("<H16sHB")

_LINK_NAME = re.compile(rf"\b(?:dialler|acceptor)-[0-9a-f]{{{2 * ID_SIZE}}}\b")

Refusal: TypeAlias = tuple[RejectCode, str]


@dataclass(frozen=True, slots=True)
class Introduction:
    """What one pool says of itself to another."""

    id: bytes = field(repr=False)
    """The pool towards this one peer: ID_SIZE random bytes."""
    port: int
    """Where it listens; 0 if nowhere."""
    dials: bool
    """Whether it has an address of the other one."""

    def __post_init__(self) -> None:
        if len(self.id) != ID_SIZE or not 0 <= self.port <= 0xFFFF:
            raise ValueError(f"an introduction needs an id of {ID_SIZE} bytes and a port of 16 bits")

    def encode(self) -> bytes:
        """The body of INTRODUCE and of INTRODUCED."""
        return _LAYOUT.pack(INTRODUCTION_VERSION, self.id, self.port, self.dials)

    @staticmethod
    def version_untrusted(body: bytes, peer: str = "") -> int:
        """The version alone, which stays the first field.

        Raises:
            LinkProtocolError: not even that is there.
        """
        if len(body) < 2:
            raise LinkProtocolError(peer, "an introduction is cut short, bytes", len(body), _LAYOUT.size)
        return int.from_bytes(body[:2], "little")

    @classmethod
    def decode_untrusted(cls, body: bytes, peer: str = "") -> Introduction:
        """An introduction of our version.

        Raises:
            LinkProtocolError: of another size, or with a flag that is neither 0 nor 1.
        """
        if len(body) != _LAYOUT.size:
            raise LinkProtocolError(peer, "bytes of an introduction", len(body), _LAYOUT.size)
        _, id_, port, dials = _LAYOUT.unpack(body)
        if dials > 1:
            raise LinkProtocolError(peer, "flag of an introduction", dials, 1)
        return cls(id_, port, bool(dials))


def we_dial(ours: Introduction, theirs: Introduction) -> bool:
    """Whether the link of the two is ours to dial: who cannot be dialled does, else the greater id."""
    we_can, they_can = ours.dials and theirs.port != 0, theirs.dials and ours.port != 0
    return ours.id > theirs.id if we_can == they_can else we_can


def link_name(introduction: Introduction, is_dialler: bool) -> str:
    """What a pool is called in the handshakes of the link. The dialler's name is the greater one, as everywhere."""
    return f"{'dialler' if is_dialler else 'acceptor'}-{introduction.id.hex()}"


def with_peer_name(text: str, peer: str) -> str:
    """What a link says of itself, with what we call the peer in the place of its name in the handshakes."""
    return _LINK_NAME.sub(lambda _: peer, text)


class Meeting(Conversation):
    """Either end of an introduction. Driven by the other end's bytes; times out by its owner."""

    def __init__(
        self,
        role: Role,
        peer: str,
        ours: Introduction | None = None,
        answer: Callable[[Introduction], Introduction | Refusal] | None = None,
    ) -> None:
        """An initiator says `ours`; a responder asks `answer`, once, what to say to who was heard."""
        initiator = role is Role.INITIATOR
        state = HandshakeState.AWAITING_INTRODUCED if initiator else HandshakeState.AWAITING_INTRODUCE
        super().__init__("introduction", peer, state)
        self._ours = ours
        self._answer = answer
        self._theirs: Introduction | None = None  # set by the other end's message
        if ours is not None:
            self._send(MessageType.INTRODUCE, ours.encode())

    @property
    def result(self) -> Introduction | None:
        """Who the other end is, once the introduction is done."""
        return self._theirs if self._state is HandshakeState.DONE else None

    def _check_message_untrusted(self, type_: MessageType, body: bytes) -> None:
        version = Introduction.version_untrusted(body, self._peer)
        if version != INTRODUCTION_VERSION:
            detail = f"introductions have version {INTRODUCTION_VERSION} here and version {version} there"
            self.reject(RejectCode.VERSION, detail)
        theirs = Introduction.decode_untrusted(body, self._peer)
        if type_ is MessageType.INTRODUCE:
            if not theirs.dials:
                raise LinkProtocolError(self._peer, "an introduction of who has no address of us, flag", 0, 1)
            assert self._answer is not None
            answer = self._answer(theirs)
            if isinstance(answer, tuple):
                self.reject(*answer)
            self._send(MessageType.INTRODUCED, answer.encode())
        else:
            assert self._ours is not None
            if not theirs.port:
                raise LinkProtocolError(self._peer, "port of who was dialled", 0, ">= 1")
            if hmac.compare_digest(theirs.id, self._ours.id):
                raise LinkProtocolError(self._peer, "an introduction that repeats ours, bytes", len(body))
        self._theirs = theirs
