"""The messages of the identity exchange, in any slices, honest and not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partywire.engine.errors import FrameTooLarge, LinkProtocolError
from partywire.engine.multiaddr import Multiaddr
from partywire.engine.peers.claims import ADDRESS_SIZE_MAX, CLAIM_SIZE_MAX, PeerClaim
from partywire.engine.peers.errors import PeerRefused, RefusalCode
from partywire.engine.peers.identity_exchange import (
    REASON_SIZE_MAX,
    IdentityMessage,
    IdentityReader,
    encode_acceptance,
    encode_refusal,
)
from tests.peers.claim_making import ADDRESSES, ALICE, BOB, NOW, claim_of, claims


def reader(has_verdict: bool = False, noise_key: bytes = ALICE.noise_key.public.raw) -> IdentityReader:
    return IdentityReader(noise_key, lambda: NOW, has_verdict=has_verdict, is_local=True, peer="bob")


def feed(core: IdentityReader, data: bytes, size: int = 1 << 16) -> int:
    """How many bytes it took until it had a result."""
    taken = 0
    while core.missing and taken < len(data):
        part = data[taken : taken + min(size, core.missing)]
        core.receive_untrusted(part)
        taken += len(part)
    return taken


@given(claims, st.none() | st.sampled_from(ADDRESSES), st.integers(1, 400), st.booleans())
@settings(max_examples=40)
def test_a_message_reads_back_in_any_slices_and_what_follows_is_left(
    claim: PeerClaim, observed: Multiaddr | None, size: int, has_verdict: bool
) -> None:
    message = IdentityMessage(claim, observed)
    encoded = encode_acceptance(message) if has_verdict else message.encode()
    core = reader(has_verdict)
    assert feed(core, encoded + b"what follows", size) == len(encoded)
    assert core.result == message


@given(st.sampled_from(RefusalCode), st.text(max_size=300), st.integers(1, 50))
@settings(max_examples=40)
def test_a_refusal_arrives_with_its_code_and_what_can_be_printed(code: RefusalCode, reason: str, size: int) -> None:
    with pytest.raises(PeerRefused) as caught:
        feed(reader(has_verdict=True), encode_refusal(code, reason), size)
    assert caught.value.code is code
    assert not caught.value.by_us
    assert caught.value.cause.isprintable()
    if reason.isprintable() and len(reason.encode()) <= REASON_SIZE_MAX:
        assert caught.value.cause == reason


def test_a_claim_that_is_right_and_belongs_to_another_key_of_the_channel_is_refused() -> None:
    """What a peer does that repeats the claim of somebody else: the signature holds, the channel is not theirs."""
    message = IdentityMessage(claim_of(ALICE), None)
    with pytest.raises(LinkProtocolError, match="not the one that the connection was made with"):
        feed(reader(noise_key=BOB.noise_key.public.raw), message.encode())


@pytest.mark.parametrize(
    ("data", "has_verdict"),
    [
        ((CLAIM_SIZE_MAX + 1).to_bytes(2, "big"), False),
        (b"\0" + (CLAIM_SIZE_MAX + 1).to_bytes(2, "big"), True),
        (bytes((RefusalCode.FULL, REASON_SIZE_MAX + 1)), True),
    ],
)
def test_a_size_above_its_limit_is_refused_before_anything_of_it_came(data: bytes, has_verdict: bool) -> None:
    with pytest.raises(FrameTooLarge):
        feed(reader(has_verdict), data)


def test_an_observed_address_is_bounded_at_both_ends() -> None:
    message = IdentityMessage(ALICE.sign(updated_at=0), None).encode()
    with pytest.raises(FrameTooLarge):
        feed(reader(), message[:-2] + (ADDRESS_SIZE_MAX + 1).to_bytes(2, "big"))
    huge = Multiaddr(
        [
            ("dns", "a." * 126 + "b"),
            *[("tcp", 1)] * 15,
        ]
    )
    many = Multiaddr([("dns", "a." * 120 + "b"), ("dns", "a." * 120 + "b")])
    assert len(huge.encode()) < ADDRESS_SIZE_MAX < len(many.encode())
    for observed, shown in ((huge, huge), (many, None)):
        core = reader()
        feed(core, IdentityMessage(ALICE.sign(updated_at=0), observed).encode())
        assert core.result is not None
        assert core.result.observed == shown


@pytest.mark.parametrize("verdict", [7, 255])
def test_another_verdict_is_refused(verdict: int) -> None:
    with pytest.raises(LinkProtocolError, match="verdict"):
        feed(reader(has_verdict=True), bytes((verdict,)))
