"""NodeIdentity: the two keys that make us the peer that we are, and the file they are kept in.

Between a secret of 32 bytes and everything that is signed or shown in its name. The identity key (Ed25519) is the
secret itself; the static key of Noise (X25519) follows from it by BLAKE2b with a label of its own, so one file is the
whole identity, and the two always belong together. To others the bond shows by the signature of a PeerClaim.

The one invariant: the secret leaves this module only for a file that nobody else may read.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, NoReturn

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..channel.credentials import read_file
from ..channel.errors import CredentialError
from ..key_file import write_key_file
from ..noise import PrivateKey
from .claims import sign_claim
from .peer_id import PeerId

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..multiaddr import Multiaddr
    from .claims import PeerClaim

SECRET_SIZE: Final = 32

_NOISE_LABEL: Final = b"partywire noise1"  # 16 bytes: the personalisation of BLAKE2b


class NodeIdentity:
    """Who we are. Is neither printed nor pickled."""

    __slots__ = ("_key", "noise_key", "peer_id", "public_key")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key: Final = key
        self.public_key: Final = key.public_key().public_bytes_raw()
        self.peer_id: Final = PeerId.of_key(self.public_key)
        secret = hashlib.blake2b(key=key.private_bytes_raw(), digest_size=SECRET_SIZE, person=_NOISE_LABEL).digest()
        self.noise_key: Final = PrivateKey.from_bytes(secret)

    @classmethod
    def generate(cls) -> NodeIdentity:
        """A new identity from the operating system's random numbers, in memory only."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def create(cls, path: Path) -> NodeIdentity:
        """A new identity in a new file that only we may read.

        Raises:
            CredentialError: it cannot be written, or there is a file, which is left as it is.
        """
        identity = cls.generate()
        try:
            write_key_file(path, identity._key.private_bytes_raw().hex() + "\n")
        except OSError as error:
            raise CredentialError(str(path), f"cannot be written: {(error.strerror or str(error)).lower()}") from None
        return identity

    @classmethod
    def load(cls, path: Path) -> NodeIdentity:
        """The identity in a file that `create` wrote.

        Raises:
            CredentialError: it cannot be read, others may read it, or it holds none.
        """
        text = read_file(str(path), private=True)
        try:
            secret = bytes.fromhex(text.decode("ascii"))
            if len(secret) == SECRET_SIZE:
                return cls(Ed25519PrivateKey.from_private_bytes(secret))
        except ValueError:  # says nothing of what it was given
            pass
        raise CredentialError(str(path), f"does not hold the key of a peer: {2 * SECRET_SIZE} hexadecimal digits")

    def sign(
        self,
        *,
        updated_at: int,
        features: int = 0,
        user_agent: str = "",
        addresses: Sequence[Multiaddr] = (),
        protocols: Sequence[str] = (),
    ) -> PeerClaim:
        """What we say about ourselves.

        Raises:
            ValueError: it breaks a limit of claims.
        """
        return sign_claim(
            self._key,
            self.noise_key.public.raw,
            updated_at=updated_at,
            features=features,
            user_agent=user_agent,
            addresses=tuple(addresses),
            protocols=tuple(protocols),
        )

    def prove(self, statement: bytes) -> bytes:
        """Our signature of a statement, which must begin with a label that nothing else we sign begins with."""
        return self._key.sign(statement)

    def __repr__(self) -> str:
        return f"<NodeIdentity of {self.peer_id}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an identity is not pickled or copied; load it from its file")
