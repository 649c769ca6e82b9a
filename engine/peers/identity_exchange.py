"""The identity exchange: the first substream of a connection, on which each end says who it is. Without I/O.

Between two ends of a secure channel that know each other's static key of Noise and nothing else. The dialler opens the
substream, says what it is for without being asked (IDENTITY_PROTOCOL, optimistic), and tells; the other end answers
with a verdict, and if it accepts, tells as well. The same message, and no answer, on a substream for PUSH_PROTOCOL says
later that something changed.

    dialler   size u16 | claim | size u16 | observed address
    acceptor  0 | size u16 | claim | size u16 | observed address       or   code u8 | size u8 | reason

Numbers are big-endian; `docs/peers.md` has the codes. The observed address, which may be empty, is where the teller
sees the other end come from: a hint that nothing proves.

The one invariant: a claim comes out of here only if it is signed by its identity key, and holds the static key that the
channel was made with. So neither can a peer use the claim of another, nor can anybody between the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from ..errors import FrameTooLarge, LinkProtocolError
from ..multiaddr import Multiaddr
from .claims import ADDRESS_SIZE_MAX, CLAIM_SIZE_MAX, PeerClaim
from .errors import PeerRefused, RefusalCode

if TYPE_CHECKING:
    from collections.abc import Callable

IDENTITY_PROTOCOL: Final = "/partywire/identity/1"
PUSH_PROTOCOL: Final = "/partywire/identity/push/1"

REASON_SIZE_MAX: Final = 200

ACCEPTED: Final = 0

_SIZE_SIZE: Final = 2


@dataclass(frozen=True, slots=True)
class IdentityMessage:
    """What one end tells."""

    claim: PeerClaim
    observed: Multiaddr | None
    """Where the teller sees the other end."""

    def encode(self) -> bytes:
        """The bytes."""
        observed = b"" if self.observed is None else self.observed.encode()
        if len(observed) > ADDRESS_SIZE_MAX:
            observed = b""  # an address that no claim could have
        return b"".join(len(part).to_bytes(_SIZE_SIZE, "big") + part for part in (self.claim.encode(), observed))


def encode_acceptance(message: IdentityMessage) -> bytes:
    """The answer that accepts the dialler."""
    return bytes((ACCEPTED,)) + message.encode()


def encode_refusal(code: RefusalCode, reason: str) -> bytes:
    """The answer that refuses the dialler. What is too long of the reason is cut off."""
    text = reason.encode()[:REASON_SIZE_MAX].decode("utf-8", "ignore").encode()
    return bytes((code, len(text))) + text


class IdentityReader:
    """Collects what the other end tells. Give it at most `missing` bytes at a time until there is a `result`."""

    def __init__(
        self,
        noise_key: bytes,
        now: Callable[[], float],
        *,
        has_verdict: bool,
        is_local: bool = False,
        peer: str = "",
    ) -> None:
        """
        Args:
            noise_key: what the other end showed in the handshake of the channel.
            now: seconds since the epoch.
            has_verdict: whether a verdict comes first, as it does to the dialler.
            is_local: see `PeerClaim.decode_untrusted`.
            peer: whom we talk to, for messages.
        """
        self.result: IdentityMessage | None = None
        """What it told, verified."""
        self._noise_key = noise_key
        self._now = now
        self._is_local = is_local
        self.peer = peer
        """Whom we talk to, for messages."""
        self._buffer = bytearray()
        self._claim: PeerClaim | None = None
        self._wants: Callable[[bytes], None] = self._take_verdict if has_verdict else self._take_claim_size
        self._size = 1 if has_verdict else _SIZE_SIZE
        self._code: RefusalCode | None = None

    @property
    def missing(self) -> int:
        """How many bytes to give next, at most. 0: it told all."""
        return self._size - len(self._buffer)

    def receive_untrusted(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            PeerRefused: the other end refused us.
            LinkProtocolError: these bytes are no such message, or what it claims does not hold.
        """
        self._buffer += data
        while self.result is None and not self.missing:
            part = bytes(self._buffer)
            self._buffer.clear()
            self._wants(part)

    def _take_verdict(self, part: bytes) -> None:
        if part[0] == ACCEPTED:
            self._await(self._take_claim_size, _SIZE_SIZE)
            return
        try:
            self._code = RefusalCode(part[0])
        except ValueError:
            raise LinkProtocolError(self.peer, "verdict of an identity exchange", part[0]) from None
        self._await(self._take_reason_size, 1)

    def _take_reason_size(self, part: bytes) -> None:
        if part[0] > REASON_SIZE_MAX:
            raise FrameTooLarge(self.peer, "the reason of a refusal", part[0], REASON_SIZE_MAX)
        self._await(self._take_reason, part[0])

    def _take_reason(self, part: bytes) -> NoReturn:
        assert self._code is not None
        reason = "".join(character for character in part.decode("utf-8", "replace") if character.isprintable())
        raise PeerRefused(self.peer, self._code, reason, by_us=False)

    def _take_claim_size(self, part: bytes) -> None:
        self._await(self._take_claim, self._checked_size(part, "a claim of a peer", CLAIM_SIZE_MAX))

    def _take_claim(self, part: bytes) -> None:
        claim = PeerClaim.decode_untrusted(part, self._now(), is_local=self._is_local, peer=self.peer)
        self._check_claim_untrusted(claim)
        self._claim = claim
        self._await(self._take_observed_size, _SIZE_SIZE)

    def _check_claim_untrusted(self, claim: PeerClaim) -> None:
        if claim.noise_key != self._noise_key:
            what = "the Noise key of a claim"
            raise LinkProtocolError(self.peer, what, "it is not the one that the connection was made with")

    def _take_observed_size(self, part: bytes) -> None:
        self._await(self._take_observed, self._checked_size(part, "an observed address", ADDRESS_SIZE_MAX))

    def _take_observed(self, part: bytes) -> None:
        assert self._claim is not None
        observed = Multiaddr.decode_untrusted(part, self.peer) if part else None
        self._take_all(IdentityMessage(self._claim, observed))

    def _take_all(self, message: IdentityMessage) -> None:
        self._size = 0
        self.result = message

    def _checked_size(self, part: bytes, what: str, limit: int) -> int:
        size = int.from_bytes(part, "big")
        if size > limit:
            raise FrameTooLarge(self.peer, what, size, limit)
        return size

    def _await(self, step: Callable[[bytes], None], size: int) -> None:
        self._wants = step
        self._size = size
