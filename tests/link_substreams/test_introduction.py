"""A claim is taken from its owner alone, on the link and in the epoch for which it was told."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from partywire.engine.errors import LinkProtocolError
from partywire.engine.link_substreams.introduction import (
    PROOF_LABEL,
    PROOF_SIZE,
    LinkIdentityMessage,
    LinkIdentityReader,
    LinkProof,
)
from partywire.engine.multiaddr import Multiaddr
from partywire.engine.peers.claims import CLAIM_LABEL, PeerClaim
from partywire.engine.peers.identity import NodeIdentity
from partywire.engine.peers.identity_exchange import IdentityMessage

NOW = 1_000_000
HERE = Multiaddr.parse("/ip4/10.0.0.7/tcp/7101")
ALICE = LinkProof(b"s" * 32, 7, is_dialler=True)
BOB = LinkProof(b"s" * 32, 7, is_dialler=False)


@cache
def identity(name: str) -> NodeIdentity:
    return NodeIdentity.generate()


@cache
def claim(name: str) -> PeerClaim:
    return identity(name).sign(updated_at=NOW, protocols=("/app/1",))


def read(wire: bytes, proof: LinkProof = BOB, slice_size: int = 1 << 16) -> IdentityMessage:
    """What bob, who was dialled, makes of it."""
    reader = LinkIdentityReader(proof, lambda: NOW, has_verdict=False, is_local=False, peer="alice")
    at = 0
    while missing := min(reader.missing, slice_size):
        part = wire[at : at + missing]
        assert part
        reader.receive_untrusted(part)
        at += len(part)
    assert at == len(wire)
    assert reader.result is not None
    return reader.result


@pytest.mark.parametrize("slice_size", [1, 3, 1 << 16])
def test_what_the_owner_tells_for_this_link_is_taken_however_it_is_cut(slice_size: int) -> None:
    message = ALICE.introduce(identity("alice"), claim("alice"), HERE)
    assert read(message.encode(), slice_size=slice_size) == IdentityMessage(claim("alice"), HERE)


@pytest.mark.parametrize(
    "proof",
    [
        replace(ALICE, secret=b"t" * 32),
        replace(ALICE, epoch=8),
        replace(ALICE, is_dialler=False),  # what bob said himself, sent back to him
    ],
)
def test_what_was_told_for_another_link_or_epoch_or_direction_is_refused(proof: LinkProof) -> None:
    with pytest.raises(LinkProtocolError, match="proof of a claim"):
        read(proof.introduce(identity("alice"), claim("alice"), None).encode())


def test_the_claim_of_another_cannot_be_passed_on() -> None:
    """Mallory knows alice's claim, and what alice proved to her."""
    to_mallory = replace(ALICE, secret=b"m" * 32).introduce(identity("alice"), claim("alice"), None)
    own_proof = ALICE.introduce(identity("mallory"), claim("alice"), None)
    for message in (to_mallory, own_proof, replace(own_proof, proof=bytes(PROOF_SIZE))):
        with pytest.raises(LinkProtocolError, match="proof of a claim"):
            read(message.encode())


def test_a_proof_is_for_one_claim() -> None:
    later = identity("alice").sign(updated_at=NOW + 1)
    proof = ALICE.introduce(identity("alice"), claim("alice"), None).proof
    with pytest.raises(LinkProtocolError, match="proof of a claim"):
        read(LinkIdentityMessage(later, None, proof).encode())


def test_neither_secret_nor_proof_is_shown() -> None:
    message = ALICE.introduce(identity("alice"), claim("alice"), None)
    assert repr(b"s" * 32) not in repr(ALICE)
    assert repr(message.proof) not in repr(message)


def test_a_proof_can_be_taken_for_no_claim_and_no_claim_for_a_proof() -> None:
    size = min(len(PROOF_LABEL), len(CLAIM_LABEL))
    assert PROOF_LABEL[:size] != CLAIM_LABEL[:size]
