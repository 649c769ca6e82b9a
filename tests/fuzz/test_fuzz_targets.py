"""Every fuzz target for a moment: seeds, what once broke it, and inputs made of them by hypothesis and by mutations."""

from __future__ import annotations

from itertools import islice
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.mutations import mutations, shorter
from tests.fuzz.seeds import CORPUS, seeds_of
from tests.fuzz.targets import TARGETS

MUTATIONS: Final = 150
EXAMPLES: Final = 30


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_holds(target: str) -> None:
    seeds = seeds_of(target)
    assert seeds
    for data in islice(mutations(seeds, seed=1), MUTATIONS):
        TARGETS[target](data)

    @settings(max_examples=EXAMPLES)
    @given(st.sampled_from(seeds), st.binary(max_size=64), st.integers(0, 64), st.integers(0, 64))
    def hold(seed: bytes, part: bytes, start: int, size: int) -> None:
        TARGETS[target](seed[:start] + part + seed[start + size :])

    hold()


def test_every_finding_belongs_to_a_target() -> None:
    if CORPUS.is_dir():
        assert {folder.name for folder in CORPUS.iterdir()} <= set(TARGETS)


def test_mutations_repeat_with_their_seed_and_a_finding_is_made_shorter() -> None:
    first = list(islice(mutations([b"some seed", b"another"], seed=3), 200))
    assert first == list(islice(mutations([b"some seed", b"another"], seed=3), 200))
    assert len(set(first)) > 150
    assert shorter(b"....a....b...", lambda data: b"a" in data and b"b" in data) == b"ab"
