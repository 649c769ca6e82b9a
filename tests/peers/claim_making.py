"""Claims, and what they are made of, for tests of every layer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from partywire.engine.multiaddr import Multiaddr
from partywire.engine.peers.identity import NodeIdentity

if TYPE_CHECKING:
    from partywire.engine.peers.claims import PeerClaim

NOW = 1_800_000_000.0

ALICE = NodeIdentity.generate()
BOB = NodeIdentity.generate()

ONION = "/onion3/vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:1234"
ADDRESSES = tuple(
    Multiaddr.parse(text)
    for text in (
        "/ip4/10.0.0.1/tcp/7101",
        "/ip6/fd00::1/tcp/7101",
        "/dns4/bob.example/tcp/443/tls/ws",
        "/dns/bob.example/tcp/7101",
        "/memory/7",
        "/unix/run/bob.sock",
        ONION,
        "/dns6/b.example/tcp/1/wss",
    )
)

claims = st.builds(
    lambda **fields: ALICE.sign(**fields),
    updated_at=st.integers(0, int(NOW)),
    features=st.integers(0, 2**32 - 1),
    user_agent=st.text("abc/.0é ", max_size=32),
    addresses=st.lists(st.sampled_from(ADDRESSES), max_size=8),
    protocols=st.lists(st.text("/abc.1ü", min_size=1, max_size=60), max_size=20),
)


def claim_of(identity: NodeIdentity = ALICE, **fields: Any) -> PeerClaim:
    """A claim of now."""
    fields.setdefault("updated_at", int(time.time()))
    return identity.sign(**fields)


def resign(identity: NodeIdentity, body: bytes) -> bytes:
    """Any bytes, with a signature that holds: what a peer can send that keeps to nothing."""
    from partywire.engine.peers.claims import CLAIM_LABEL

    return body + identity._key.sign(CLAIM_LABEL + body)
