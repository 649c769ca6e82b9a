"""PeerClaim: what a peer says about itself, signed by its identity key. Without I/O.

Between who signs it and everybody who ever gets it, by whatever way. The one invariant: a PeerClaim that came out of
`decode_untrusted` is what the holder of its identity key signed, all of it; in particular the static key of Noise in it
is its own. Whether it is still true is another matter: `updated_at` says how old it is.

    version u8 = 1 | updated_at u64 | features u32 | identity key (32) | Noise key (32) | size u8, user agent
    | count u8, addresses, each behind its size u16 | count u8, protocol ids, each behind its size u8 | signature (64)

Numbers are big-endian; the signature is Ed25519 over the label CLAIM_LABEL and everything before it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from functools import cached_property
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..errors import FrameTooLarge, LinkProtocolError
from ..multiaddr import Multiaddr
from .peer_id import PeerId

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

CLAIM_VERSION: Final = 1
CLAIM_LABEL: Final = b"partywire peer claim 1\0"

CLAIM_SIZE_MAX: Final = 8192
ADDRESSES_MAX: Final = 8
ADDRESS_SIZE_MAX: Final = 320
"""Bytes of one address: the longest name of DNS, and a few parts behind it."""
PROTOCOLS_MAX: Final = 64
PROTOCOL_ID_SIZE_MAX: Final = 255
USER_AGENT_SIZE_MAX: Final = 64

FUTURE_MAX_S: Final = 86_400
"""How far a clock may be ahead of ours: a claim from the far future could never be replaced."""

_HEAD: Final = struct.Struct(">BQI32s32s")
_SIGNATURE_SIZE: Final = 64


@dataclass(frozen=True)
class PeerClaim:
    """What a peer signed about itself. Two are equal if all of it is."""

    public_key: bytes
    """Ed25519, 32 bytes."""
    noise_key: bytes
    """X25519, 32 bytes: what it shows in every handshake."""
    updated_at: int
    """Seconds since the epoch; of two claims the later one holds."""
    features: int
    """Bits that PartyWire gives no meaning; below 2**32."""
    user_agent: str
    addresses: tuple[Multiaddr, ...]
    """Where it says it may be dialled; nobody has tried. None: it cannot be dialled."""
    protocols: tuple[str, ...]
    """Ids that it serves."""
    signature: bytes

    @cached_property
    def peer_id(self) -> PeerId:
        """The id that follows from the key."""
        return PeerId.of_key(self.public_key)

    def encode(self) -> bytes:
        """The bytes, signature and all."""
        return _encode_body(self) + self.signature

    @classmethod
    def decode_untrusted(cls, data: bytes, now: float, *, is_local: bool = False, peer: str = "") -> PeerClaim:
        """The claim in bytes of anybody's, at `now`, seconds since the epoch.

        Args:
            is_local: whether addresses that mean something on one host alone are allowed: memory and unix sockets.

        Raises:
            LinkProtocolError: it is none, breaks a limit, or was not signed by the key in it.
        """
        if len(data) > CLAIM_SIZE_MAX:
            raise FrameTooLarge(peer, "a claim of a peer", len(data), CLAIM_SIZE_MAX)
        return _Decoder(bytes(data), peer).decode(now, is_local)


def sign_claim(
    key: Ed25519PrivateKey,
    noise_key: bytes,
    *,
    updated_at: int,
    features: int = 0,
    user_agent: str = "",
    addresses: tuple[Multiaddr, ...] = (),
    protocols: tuple[str, ...] = (),
) -> PeerClaim:
    """A claim of ours.

    Raises:
        ValueError: something breaks a limit.
    """
    unsigned = PeerClaim(
        key.public_key().public_bytes_raw(), noise_key, updated_at, features, user_agent, addresses, protocols, b""
    )
    if len(addresses) > ADDRESSES_MAX or len(protocols) > PROTOCOLS_MAX:
        raise ValueError(
            f"{len(addresses)} addresses and {len(protocols)} protocols in a claim, at most {ADDRESSES_MAX} and "
            f"{PROTOCOLS_MAX} are possible"
        )
    for address in addresses:
        if (fault := fault_of_address(address, is_local=True)) is not None:
            raise ValueError(f"{address} cannot be claimed: {fault}")
    if len(user_agent.encode()) > USER_AGENT_SIZE_MAX or not user_agent.isprintable():
        raise ValueError(f"a user agent is printable and has at most {USER_AGENT_SIZE_MAX} bytes")
    for protocol in protocols:
        check_protocol_id(protocol)
    if not 0 <= features < 1 << 32:
        raise ValueError("features are 32 bits")
    body = _encode_body(unsigned)
    if len(body) + _SIGNATURE_SIZE > CLAIM_SIZE_MAX:
        raise ValueError(
            f"addresses and protocols make a claim of {len(body)} bytes, at most {CLAIM_SIZE_MAX} are possible"
        )
    return replace(unsigned, signature=key.sign(CLAIM_LABEL + body))


def check_protocol_id(protocol: str) -> None:
    """See that a substream can be negotiated for an id.

    Raises:
        ValueError: none can.
    """
    size = len(protocol.encode())
    if not 0 < size <= PROTOCOL_ID_SIZE_MAX or not protocol.isprintable():
        raise ValueError(f"a protocol id is printable and has 1 to {PROTOCOL_ID_SIZE_MAX} bytes, this one has {size}")


def fault_of_address(address: Multiaddr, *, is_local: bool) -> str | None:
    """Why nobody could dial an address that a peer claims; None if somebody may."""
    match address.parts:
        case (("ip4" | "ip6", host), ("tcp", port), *rest):
            if ip_address(str(host)).is_unspecified or ip_address(str(host)).is_multicast:
                return "it is the address of nobody"
            return _fault_behind_tcp(port, rest)
        case (("dns" | "dns4" | "dns6", _), ("tcp", port), *rest):
            return _fault_behind_tcp(port, rest)
        case (("onion3", _),):
            return None
        case (("memory", number),):
            return None if is_local and number else "nobody outside its process can dial it"
        case (("unix", _), *rest):
            return None if is_local and not rest else "nobody outside its host can dial it"
        case _:
            return "it is of a kind that peers do not dial"


def _fault_behind_tcp(port: object, rest: list[tuple[str, str | int | None]]) -> str | None:
    if not port:
        return "it has no port"
    names = tuple(name for name, _ in rest)
    return None if names in ((), ("ws",), ("wss",), ("tls", "ws")) else "nothing such is spoken over TCP"


def _encode_body(claim: PeerClaim) -> bytes:
    user_agent = claim.user_agent.encode()
    parts = [
        _HEAD.pack(CLAIM_VERSION, claim.updated_at, claim.features, claim.public_key, claim.noise_key),
        bytes((len(user_agent),)),
        user_agent,
        bytes((len(claim.addresses),)),
    ]
    for address in claim.addresses:
        encoded = address.encode()
        parts += (len(encoded).to_bytes(2, "big"), encoded)
    parts.append(bytes((len(claim.protocols),)))
    for protocol in claim.protocols:
        name = protocol.encode()
        parts += (bytes((len(name),)), name)
    return b"".join(parts)


class _Decoder:
    """Walks over the bytes of one claim; every size is checked before what it counts is looked at."""

    def __init__(self, data: bytes, peer: str) -> None:
        self._data = data
        self._peer = peer
        self._at = 0

    def decode(self, now: float, is_local: bool) -> PeerClaim:
        version, updated_at, features, public_key, noise_key = _HEAD.unpack(self._take(_HEAD.size, "its head"))
        if version != CLAIM_VERSION:
            self._refuse("version of a claim", version, CLAIM_VERSION)
        if updated_at > now + FUTURE_MAX_S:
            self._refuse("age of a claim", "it is from the future: one of the two clocks is wrong")
        user_agent = self._text(self._count(USER_AGENT_SIZE_MAX, "bytes of a user agent"), "user agent")
        addresses = tuple(self._address(is_local) for _ in range(self._count(ADDRESSES_MAX, "addresses of a claim")))
        protocols = tuple(
            self._text(self._count(PROTOCOL_ID_SIZE_MAX, "bytes of a protocol id", 1), "protocol id")
            for _ in range(self._count(PROTOCOLS_MAX, "protocols of a claim"))
        )
        body = self._data[: self._at]
        signature = self._take(_SIGNATURE_SIZE, "its signature")
        if self._at != len(self._data):
            self._refuse("bytes behind a claim", len(self._data) - self._at, 0)
        try:
            Ed25519PublicKey.from_public_bytes(public_key).verify(signature, CLAIM_LABEL + body)
        except (InvalidSignature, ValueError):
            self._refuse("signature of a claim", "it is not by the key that is claimed")
        return PeerClaim(public_key, noise_key, updated_at, features, user_agent, addresses, protocols, signature)

    def _take(self, size: int, what: str) -> bytes:
        data = self._data[self._at : self._at + size]
        if len(data) < size:
            self._refuse("a claim", f"it ends within {what}")
        self._at += size
        return data

    def _count(self, maximum: int, what: str, minimum: int = 0) -> int:
        count = self._take(1, what)[0]
        if not minimum <= count <= maximum:
            self._refuse(what, count, maximum)
        return count

    def _text(self, size: int, what: str) -> str:
        try:
            text = self._take(size, f"its {what}").decode()
        except UnicodeDecodeError:
            self._refuse(what, "bytes that are not UTF-8")
        if not text.isprintable():
            self._refuse(what, "characters that cannot be printed")
        return text

    def _address(self, is_local: bool) -> Multiaddr:
        size = int.from_bytes(self._take(2, "the size of an address"), "big")
        if size > ADDRESS_SIZE_MAX:
            self._refuse("bytes of an address", size, ADDRESS_SIZE_MAX)
        data = self._take(size, "an address")
        address = Multiaddr.decode_untrusted(data, self._peer)
        if address.encode() != data:
            self._refuse("an address of a claim", "its bytes are not the shortest for it")
        if (fault := fault_of_address(address, is_local=is_local)) is not None:
            self._refuse("an address of a claim", fault)
        return address

    def _refuse(self, what: str, seen: object, limit: object = None) -> NoReturn:
        raise LinkProtocolError(self._peer, what, seen, limit) from None
