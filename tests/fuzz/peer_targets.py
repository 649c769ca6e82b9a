"""Fuzz targets of what peers say before and behind their identity, beside those in targets.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from partywire.engine.errors import LinkProtocolError
from partywire.engine.link_substreams.introduction import LinkIdentityReader, LinkProof
from partywire.engine.multiaddr import Multiaddr
from partywire.engine.peers import claims
from partywire.engine.peers.claims import PeerClaim
from partywire.engine.peers.errors import PeerRefused, RefusalCode
from partywire.engine.peers.identity import NodeIdentity
from partywire.engine.peers.identity_exchange import (
    REASON_SIZE_MAX,
    IdentityMessage,
    IdentityReader,
    encode_acceptance,
    encode_refusal,
)
from partywire.engine.peers.wire import LINE_SIZE_MAX, LINES_MAX, LivenessEcho

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW: Final = 1_800_000_000.0
_KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_IDENTITY: Final = NodeIdentity(_KEY)
_LINK_SECRET: Final = bytes(range(64, 96))


def fuzz_peer_claim(data: bytes) -> None:
    """Bytes that any key signed are a claim that encodes to them again, or a LinkProtocolError."""
    signed = data + _KEY.sign(claims.CLAIM_LABEL + data)
    try:
        claim = PeerClaim.decode_untrusted(signed, NOW, is_local=True)
    except LinkProtocolError:
        return
    assert claim.encode() == signed
    assert claim.public_key == _IDENTITY.public_key


def fuzz_identity_message(data: bytes) -> None:
    """Slices, none beyond what may be read, are a message of the key that the channel has, its beginning, a refusal, or
    a LinkProtocolError. The first byte says whether a verdict comes first, and how large slices are."""
    if not data:
        return
    core = IdentityReader(_IDENTITY.noise_key.public.raw, lambda: NOW, has_verdict=bool(data[0] & 1), is_local=True)
    rest = data[1:]
    cause = ""
    try:
        while rest and core.missing:
            size = min(core.missing, (data[0] >> 1) or 1)
            part, rest = rest[:size], rest[size:]
            core.receive_untrusted(part)
    except LinkProtocolError:
        return
    except PeerRefused as error:
        cause = error.cause
    assert cause.isprintable()
    assert len(cause) <= REASON_SIZE_MAX
    if core.result is not None:
        assert core.result.claim.noise_key == _IDENTITY.noise_key.public.raw


def fuzz_link_identity(data: bytes) -> None:
    """Slices, none beyond what may be read, are a message that the other end of this link proves, its beginning, or a
    LinkProtocolError. The first byte says how large slices are."""
    proof = LinkProof(_LINK_SECRET, 3, is_dialler=False)
    core = LinkIdentityReader(proof, lambda: NOW, has_verdict=False, is_local=True, peer="bob")
    rest, size_max = data[1:], max(data[0], 1) if data else 1
    try:
        while rest and core.missing:
            size = min(core.missing, size_max)
            part, rest = rest[:size], rest[size:]
            core.receive_untrusted(part)
    except LinkProtocolError:
        return
    if core.result is not None:
        assert core.result.claim.public_key == _IDENTITY.public_key


def fuzz_liveness(data: bytes) -> None:
    """Slices of the size that the first byte says come back as whole lines, at most LINES_MAX, or LinkProtocolError."""
    echo = LivenessEcho()
    rest, size = data[1:], max(data[0], 1) if data else 1
    back = b""
    try:
        for at in range(0, len(rest), size):
            back += echo.receive_untrusted(rest[at : at + size])
    except LinkProtocolError:
        return
    assert rest.startswith(back)
    assert back.count(b"\n") <= LINES_MAX
    assert echo.is_over or len(rest) - len(back) <= LINE_SIZE_MAX


def bodies() -> Iterator[bytes]:
    """Claims without their signature."""
    addresses = [Multiaddr.parse(text) for text in ("/ip4/10.0.0.1/tcp/7101", "/dns4/a.b/tcp/443/tls/ws", "/memory/7")]
    for count in (0, 1, 3):
        claim = _IDENTITY.sign(
            updated_at=int(NOW),
            features=count,
            user_agent="u" * count,
            addresses=addresses[:count],
            protocols=["/test/1"] * count,
        )
        yield claim.encode()[:-64]


def messages() -> Iterator[bytes]:
    """What both ends tell."""
    claim = _IDENTITY.sign(updated_at=int(NOW), protocols=["/test/1"])
    message = IdentityMessage(claim, Multiaddr.parse("/ip4/10.0.0.1/tcp/7101"))
    yield b"\xfe" + message.encode()
    yield b"\xff" + encode_acceptance(message)
    yield b"\x03" + encode_refusal(RefusalCode.BANNED, "the peer is banned")


def link_messages() -> Iterator[bytes]:
    """What the dialler tells on this link, and what it told on another one."""
    claim = _IDENTITY.sign(updated_at=int(NOW), protocols=["/test/1"])
    for epoch in (3, 4):
        proof = LinkProof(_LINK_SECRET, epoch, is_dialler=True)
        yield b"\xff" + proof.introduce(_IDENTITY, claim, Multiaddr.parse("/ip4/10.0.0.1/tcp/7101")).encode()


def echoes() -> Iterator[bytes]:
    """Lines."""
    yield b"\x05pingpong\npingpong\nrest"
    yield b"\xff" + b"x\n" * 101
