"""Statistics of addresses: means, scores, the order of dialling, and merging."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partywire.engine.multiaddr import Multiaddr
from partywire.engine.peer_store.known_address import (
    ADDRESS_SIZE_MAX,
    ADDRESSES_MAX,
    COUNT_MAX,
    FAILURE_SIZE_MAX,
    SAMPLES_MAX,
    SCORE_MAX,
    SCORE_MIN,
    KnownAddress,
    Source,
    best_addresses,
    bounded_text,
    dial_order,
    merged_addresses,
)
from tests.peer_store.peers import NOW, known, known_addresses, times

some_addresses = st.lists(known_addresses(), max_size=12, unique_by=lambda one: one.address)


def test_the_latency_is_a_running_mean() -> None:
    one = known()
    means = []
    for latency_s in (0.1, 0.2, 0.06, 0.14):
        one = one.succeeded(NOW, latency_s)
        means.append(round(one.latency_s, 6))
    assert means == [0.1, 0.15, 0.12, 0.125]
    assert (one.samples, one.attempts, one.failures, one.last_seen) == (4, 4, 0, NOW)


def test_the_past_weighs_at_most_a_hundred_samples() -> None:
    one = known(latency_s=1.0, samples=SAMPLES_MAX, attempts=5000)
    one = one.succeeded(NOW, 2.0)
    assert one.samples == SAMPLES_MAX
    assert one.latency_s == pytest.approx(1.01)


def test_failures_are_counted_until_one_dial_succeeds() -> None:
    one = known().failed(NOW, "refused").failed(NOW + 1, "no route\x1b[31m to host\n")
    assert (one.attempts, one.failures, one.last_attempt, one.last_seen) == (2, 2, NOW + 1, None)
    assert one.last_failure == "no route [31m to host"
    one = one.succeeded(NOW + 2, 0.1)
    assert (one.attempts, one.failures, one.last_failure) == (3, 0, "")


def test_counts_stop_at_their_greatest() -> None:
    one = known(attempts=COUNT_MAX, failures=COUNT_MAX).failed(NOW, "")
    assert (one.attempts, one.failures, one.last_failure) == (COUNT_MAX, COUNT_MAX, "failed")


@pytest.mark.parametrize(
    ("latency_ms", "age_s", "score"),
    [(0, 0, 1000), (1000, 0, 990), (2500, 0, 975), (4500, 0, 955), (6500, 0, 935), (10_000, 0, 900), (60_000, 0, 900),
     (0, 50, 950), (0, 100, 900), (0, 800, 200), (0, 801, 200), (60_000, 10**9, 100), (0, -500, 1000)],
)  # fmt: skip
def test_the_score_is_that_of_tari_comms(latency_ms: int, age_s: int, score: float) -> None:
    one = known().succeeded(NOW - age_s, latency_ms / 1000)
    assert one.score(NOW) == pytest.approx(score)


def test_an_address_that_was_never_tried_has_no_score_and_one_that_failed_none_left() -> None:
    assert known().score(NOW) is None
    assert known().succeeded(NOW, 0.1).failed(NOW, "refused").score(NOW) == SCORE_MIN


@given(known_addresses(), times)
def test_a_score_is_within_its_bounds(one: KnownAddress, now: float) -> None:
    score = one.score(now)
    assert score is None or score == SCORE_MIN or 100 <= score <= SCORE_MAX


def test_what_served_is_dialled_first_then_what_was_never_tried_then_what_failed_least() -> None:
    fast, slow = known(0).succeeded(NOW, 0.1), known(1).succeeded(NOW, 3.0)
    stale = known(2).succeeded(NOW - 500, 0.1)
    told, claimed = known(3, Source.CONFIG), known(4)
    once = known(5).failed(NOW, "refused")
    twice = known(6).failed(NOW - 9, "refused").failed(NOW - 8, "refused")
    expected = (fast, slow, stale, told, claimed, once, twice)
    for seed in range(5):
        mixed = random.Random(seed).sample(expected, len(expected))
        assert dial_order(mixed, NOW) == expected


def test_of_too_many_addresses_the_best_are_kept_and_all_that_a_person_said() -> None:
    told = [known(host, Source.CONFIG).failed(NOW, "refused") for host in range(3)]
    served = [known(host).succeeded(NOW, 0.1) for host in range(3, 13)]
    kept = best_addresses([*served, *told], NOW)
    assert len(kept) == ADDRESSES_MAX
    assert set(told) <= set(kept)
    assert kept[:7] == dial_order(kept, NOW)[:7]


@settings(max_examples=40)
@given(some_addresses, some_addresses)
def test_merging_knows_no_order(first: list[KnownAddress], second: list[KnownAddress]) -> None:
    assert merged_addresses(first, second, NOW) == merged_addresses(second, first, NOW)


@settings(max_examples=40)
@given(some_addresses)
def test_merging_the_same_again_changes_nothing(some: list[KnownAddress]) -> None:
    merged = merged_addresses(some, some, NOW)
    assert merged == best_addresses(some, NOW)
    assert merged_addresses(merged, merged, NOW) == merged


@given(known_addresses(0), known_addresses(0), known_addresses(0))
def test_three_stores_end_with_the_same(one: KnownAddress, two: KnownAddress, three: KnownAddress) -> None:
    assert one.merged(two).merged(three) == one.merged(two.merged(three))


def test_a_merge_takes_the_later_attempt_the_larger_sample_and_the_better_source() -> None:
    old = known(0, Source.CONFIG).succeeded(NOW, 0.5).succeeded(NOW, 0.5)
    new = known(0).failed(NOW + 5, "refused")
    merged = old.merged(new)
    assert merged.source is Source.CONFIG
    assert (merged.last_seen, merged.last_attempt) == (NOW, NOW + 5)
    assert (merged.failures, merged.last_failure) == (1, "refused")
    assert (merged.samples, merged.latency_s) == (2, 0.5)


def test_what_cannot_be_is_refused() -> None:
    long_host = Multiaddr.parse("/dns4/" + ".".join(["a" * 60] * 4) + "/tcp/1" + "/tls/ws" * 7)
    assert len(long_host.encode()) <= ADDRESS_SIZE_MAX
    KnownAddress(long_host, Source.CLAIM, last_failure="x" * FAILURE_SIZE_MAX)
    for fields in (
        {"failures": 1},
        {"attempts": COUNT_MAX + 1},
        {"samples": SAMPLES_MAX + 1},
        {"samples": -1},
        {"latency_s": 0.1},
        {"latency_s": float("nan"), "samples": 1},
        {"last_seen": float("inf")},
        {"last_attempt": -1.0},
        {"last_failure": "x" * (FAILURE_SIZE_MAX + 1)},
        {"last_failure": "\x1b"},
    ):
        with pytest.raises(ValueError):
            known(**fields)
    with pytest.raises(ValueError, match="bytes"):
        KnownAddress(Multiaddr([("dns4", "a" * 60)] * 6), Source.CLAIM)


@given(st.text(max_size=80), st.integers(1, 40))
def test_bounded_text_is_printable_short_and_stays_as_it_is(text: str, size: int) -> None:
    bounded = bounded_text(text, size)
    assert len(bounded.encode()) <= size
    assert bounded.isprintable()
    assert bounded_text(bounded, size) == bounded
