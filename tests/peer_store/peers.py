"""Peers to put into stores: keys, records, and strategies that draw them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from partywire.engine.multiaddr import Multiaddr
from partywire.engine.peer_store.known_address import (
    COUNT_MAX,
    LATENCY_MAX_S,
    KnownAddress,
    Source,
)
from partywire.engine.peer_store.record import PeerRecord
from partywire.engine.peers.peer_id import PeerId

if TYPE_CHECKING:
    from collections.abc import Sequence

NOW = 1_800_000_000.0

ADDRESSES = [Multiaddr.parse(f"/ip4/10.0.0.{host}/tcp/7101") for host in range(1, 15)]


def key(number: int) -> bytes:
    return hashlib.sha256(b"key %d" % number).digest()


def peer_id(number: int) -> PeerId:
    return PeerId.of_key(key(number))


def record(number: int, **fields: Any) -> PeerRecord:
    return replace(PeerRecord.of_key(key(number), NOW), **fields)


def known(host: int = 0, source: Source = Source.CLAIM, **fields: Any) -> KnownAddress:
    return KnownAddress(ADDRESSES[host], source, **fields)


def ids(records: Sequence[PeerRecord]) -> list[PeerId]:
    return [one.peer_id for one in records]


times = st.sampled_from([0.0, NOW - 1000, NOW - 50.5, NOW, NOW + 60]) | st.floats(0, 2 * NOW)
maybe_times = st.none() | times


@st.composite
def known_addresses(draw: st.DrawFn, host_max: int = 13) -> KnownAddress:
    samples, failures, more = draw(st.integers(0, 100)), draw(st.integers(0, 3)), draw(st.integers(0, COUNT_MAX - 3))
    return known(
        draw(st.integers(0, host_max)),
        draw(st.sampled_from(Source)),
        last_seen=draw(maybe_times),
        last_attempt=draw(maybe_times),
        attempts=failures + more,
        failures=failures,
        latency_s=draw(st.floats(0, LATENCY_MAX_S)) if samples else 0.0,
        samples=samples,
        last_failure=draw(st.sampled_from(["", "refused", "ü" * 100])),
    )


@st.composite
def records(draw: st.DrawFn, peers: int = 4) -> PeerRecord:
    addresses = draw(st.lists(known_addresses(9), max_size=10, unique_by=lambda one: one.address))
    which = draw(st.integers(0, peers - 1))
    return PeerRecord(
        peer_id=peer_id(which),
        added_at=draw(times),
        public_key=draw(st.sampled_from([b"", key(which)])),
        noise_key=draw(st.sampled_from([b"", key(100 + which)])),
        addresses=tuple(addresses),
        seen_at=max([one.last_seen for one in addresses if one.last_seen is not None], default=draw(maybe_times)),
        features=draw(st.integers(0, 2**32 - 1)),
        protocols=draw(st.sampled_from([(), ("/a/1",), ("/a/1", "/b/2", "/ü/3")])),
        user_agent=draw(st.sampled_from(["", "partywire/1", "ü" * 32])),
        claimed_at=draw(st.integers(0, 3)),
        claim=draw(st.binary(max_size=3)),
        metadata=tuple(sorted(draw(st.dictionaries(st.integers(0, 255), st.binary(max_size=2), max_size=3)).items())),
        deleted_at=draw(maybe_times),
    )
