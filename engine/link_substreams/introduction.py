"""How the two ends of a link introduce themselves: as peers do (peers.identity_exchange), and with a proof that a claim
is told by its owner, on this link, in this epoch. Without I/O.

Between two parties that know each other by name, perhaps without any proof of that. A claim is public: whoever has it
could tell it as its own. On a connection of peers the static key of Noise prevents that; a link may have another
channel, or none. So behind the message of the identity exchange stands a signature by the identity key over

    "partywire link identity 1\\0" | link secret (32) | epoch u32 | teller u8 | SHA-256 of the claim

with numbers big-endian, and 1 for the dialler as the teller, 2 for the acceptor. The secret is made of both HELLOs
(handshake), which hold the names and fresh nonces of both ends; so the signature of another link, epoch or direction
says nothing here.

The one invariant: a claim comes out of here only if the holder of its identity key signed it for this link. On a link
that nothing protects, whoever stands between the two ends can still pass on everything, this included.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..errors import LinkProtocolError
from ..peers.identity_exchange import IdentityMessage, IdentityReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..multiaddr import Multiaddr
    from ..peers.claims import PeerClaim
    from ..peers.identity import NodeIdentity

LINK_IDENTITY_PROTOCOL: Final = "/partywire/link/identity/1"

PROOF_LABEL: Final = b"partywire link identity 1\0"
PROOF_SIZE: Final = 64

_DIALLER: Final = b"\x01"
_ACCEPTOR: Final = b"\x02"


@dataclass(frozen=True, slots=True)
class LinkIdentityMessage(IdentityMessage):
    """What one end tells, and the proof that it is its own."""

    proof: bytes = field(repr=False)

    def encode(self) -> bytes:
        """The bytes."""
        return IdentityMessage(self.claim, self.observed).encode() + self.proof


@dataclass(frozen=True, slots=True)
class LinkProof:
    """What a claim is bound to."""

    secret: bytes = field(repr=False)
    epoch: int
    is_dialler: bool
    """Whether we are."""

    def introduce(self, identity: NodeIdentity, claim: PeerClaim, observed: Multiaddr | None) -> LinkIdentityMessage:
        """What we tell."""
        return LinkIdentityMessage(claim, observed, identity.prove(self._statement(claim, self.is_dialler)))

    def check_untrusted(self, claim: PeerClaim, proof: bytes, peer: str) -> None:
        """See that the other end may tell this claim.

        Raises:
            LinkProtocolError: it is not its own, or was not told for this link.
        """
        try:
            key = Ed25519PublicKey.from_public_bytes(claim.public_key)
            key.verify(proof, self._statement(claim, not self.is_dialler))
        except (InvalidSignature, ValueError):
            what = "the proof of a claim"
            raise LinkProtocolError(peer, what, "it is not by the key that is claimed, for this link") from None

    def _statement(self, claim: PeerClaim, by_dialler: bool) -> bytes:
        teller = _DIALLER if by_dialler else _ACCEPTOR
        digest = hashlib.sha256(claim.encode()).digest()
        return PROOF_LABEL + self.secret + self.epoch.to_bytes(4, "big") + teller + digest


class LinkIdentityReader(IdentityReader):
    """Collects what the other end of a link tells, as IdentityReader does."""

    def __init__(
        self, proof: LinkProof, now: Callable[[], float], *, has_verdict: bool, is_local: bool, peer: str
    ) -> None:
        """As IdentityReader; `proof` says which link it is."""
        super().__init__(b"", now, has_verdict=has_verdict, is_local=is_local, peer=peer)
        self._proof = proof
        self._message: IdentityMessage | None = None

    def _check_claim_untrusted(self, claim: PeerClaim) -> None:
        pass  # the key of Noise in it means nothing here; its owner shows by the proof

    def _take_all(self, message: IdentityMessage) -> None:
        self._message = message
        self._await(self._take_proof, PROOF_SIZE)

    def _take_proof(self, part: bytes) -> None:
        assert self._message is not None
        self._proof.check_untrusted(self._message.claim, part, self.peer)
        super()._take_all(self._message)
