"""Iris codes: the decision at both sides of the threshold, rotations, and whether the generator keeps to its model."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
import pytest

from partywire.workers.jobs.iris_codes import (
    BITS,
    ROTATIONS,
    SHAPE,
    IrisCodes,
    enrolled_eye,
    matches,
    rotated,
    signed_bits,
    synthetic_gallery,
    synthetic_probes,
)


def codes_of(differing: list[int], counting: list[int], shape: tuple[int, ...] = SHAPE) -> tuple[IrisCodes, IrisCodes]:
    """A gallery code of zeros, and probes that count in the first `counting` bits and differ in `differing` of them."""
    probes, masks = (np.zeros((len(counting), BITS), np.bool_) for _ in range(2))
    for index, (h, m) in enumerate(zip(differing, counting, strict=True)):
        masks[index, :m] = True
        probes[index, m - h : m] = True
        probes[index, m:] = True  # what does not count differs, and may not matter
    gallery = IrisCodes(np.zeros((1, *shape), np.bool_), np.ones((1, *shape), np.bool_), is_synthetic=False)
    return gallery, IrisCodes(probes.reshape(-1, *shape), masks.reshape(-1, *shape), is_synthetic=False)


def both_sides_of_the_threshold() -> list[tuple[int, int, bool]]:
    """(h, m, whether they match): the last h below, the first at or above 3/8 m, and the extremes."""
    cases = []
    for m in (1, 2, 3, 7, 8, 9, 16, 5000, 8192, 12799, 12800):
        first_apart = -(-3 * m // 8)  # the least h with 8 h >= 3 m; a tie where 8 divides 3 m
        cases += [(first_apart - 1, m, True), (first_apart, m, False), (0, m, True), (m, m, False)]
    return [*cases, (0, 0, False)]


@pytest.mark.parametrize(("h", "m", "is_match"), both_sides_of_the_threshold())
def test_a_distance_matches_below_three_eighths_and_not_at_it(h: int, m: int, is_match: bool) -> None:
    """The zero code is the same at each rotation, and the masks here are all of the gallery's, so no rotation helps."""
    gallery, probes = codes_of([h], [m])
    assert matches(gallery, probes).tolist() == [[is_match]]


def test_the_inner_products_are_those_that_the_decision_needs() -> None:
    gallery, probes = codes_of([3, 0, 5], [10, 0, 12800])
    bits = [signed_bits(codes).reshape(-1, BITS).astype(int) for codes in (gallery, probes)]
    assert (bits[1] @ bits[0].T).reshape(-1).tolist() == [10 - 6, 0, 12800 - 10]


@pytest.mark.parametrize(("turn", "is_match"), [(0, True), (-15, True), (15, True), (-16, False), (16, False)])
def test_a_code_matches_itself_turned_by_up_to_15_places(turn: int, is_match: bool) -> None:
    """Independent bits, unlike those of eyes: turned by one place too many they are another code."""
    rng = np.random.default_rng(1)
    code = IrisCodes(rng.random((1, *SHAPE)) < 0.5, rng.random((1, *SHAPE)) < 0.9, is_synthetic=False)
    probe = IrisCodes(rotated(code.codes, turn), rotated(code.masks, turn), is_synthetic=False)
    assert matches(code, probe).tolist() == [[is_match]]


def test_the_plaintext_answer_is_that_of_counting_bit_by_bit() -> None:
    gallery, probes = synthetic_gallery(5, 3), synthetic_probes(5, 4, 3)
    answer = matches(gallery, probes).tolist()
    for index in range(4):
        for position in range(3):
            found = False
            for turn in ROTATIONS:
                code, mask = (np.roll(part[index], turn, axis=1) for part in (probes.codes, probes.masks))
                both = mask & gallery.masks[position]
                found |= 8 * int(((code ^ gallery.codes[position]) & both).sum()) < 3 * int(both.sum())
            assert answer[index][position] == found


# The generator.


@cache
def pictures() -> tuple[IrisCodes, IrisCodes]:
    return synthetic_gallery(7, 250), synthetic_probes(7, 500, 250)


def test_a_seed_gives_the_same_codes_for_ever() -> None:
    """The digest changes only with the model; docs/iris.md says that a seed means the same codes on every host."""
    gallery, probes = synthetic_gallery(1, 3), synthetic_probes(1, 4, 3)
    content = b"".join(
        np.packbits(part).tobytes() for codes in (gallery, probes) for part in (codes.codes, codes.masks)
    )
    assert hashlib.sha256(content).hexdigest() == "cb2993b4e6389a294eba08649aa281a511bbaa4505e6280ea06326469b6e9da6"


def test_fewer_codes_of_a_seed_are_the_first_ones_and_another_seed_gives_others() -> None:
    gallery, probes = pictures()
    few = synthetic_gallery(7, 2)
    np.testing.assert_array_equal(few.codes, gallery.codes[:2])
    np.testing.assert_array_equal(few.masks, gallery.masks[:2])
    np.testing.assert_array_equal(synthetic_probes(7, 3, 250).codes, probes.codes[:3])
    assert (synthetic_gallery(8, 2).codes != few.codes).mean() > 0.3
    assert gallery.is_synthetic
    assert probes.is_synthetic


def distances(gallery: IrisCodes, probes: IrisCodes) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Fractional Hamming distances without rotation, (probes, gallery)."""
    bits = [signed_bits(codes).reshape(-1, BITS).astype(np.float32) for codes in (gallery, probes)]
    masks = [codes.masks.reshape(-1, BITS).astype(np.float32) for codes in (gallery, probes)]
    counting = (masks[1] @ masks[0].T).astype(np.float64)
    found: np.ndarray[tuple[int, int], np.dtype[np.float64]] = (counting - bits[1] @ bits[0].T) / 2 / counting
    return found


def test_different_eyes_are_as_far_apart_as_those_of_the_literature() -> None:
    gallery, _ = pictures()
    apart = distances(gallery, gallery)[np.triu_indices(len(gallery), 1)]  # 31,125 pairs
    assert apart.mean() == pytest.approx(0.499, abs=0.003)
    assert apart.std() == pytest.approx(0.0317, abs=0.001)
    assert 0.25 / apart.var() == pytest.approx(249, abs=15)
    assert abs(((apart - apart.mean()) ** 3).mean()) < 0.1 * apart.std() ** 3


def test_pictures_of_the_same_eye_are_as_far_apart_as_those_of_the_literature() -> None:
    gallery, probes = pictures()
    found = []
    for index in range(0, len(probes), 2):
        eye, turn = enrolled_eye(7, index, len(gallery))
        both = rotated(probes.masks[index], -turn) & gallery.masks[eye]
        found.append(((rotated(probes.codes[index], -turn) ^ gallery.codes[eye]) & both).sum() / both.sum())
    nearest = np.array(found)
    assert nearest.mean() == pytest.approx(0.110, abs=0.015)
    assert nearest.std() == pytest.approx(0.065, abs=0.015)
    assert nearest.max() > 2 * nearest.mean()  # a long tail upwards
    assert {enrolled_eye(7, index, 250)[1] for index in range(0, 1000, 2)} == set(ROTATIONS)


def test_strangers_are_in_no_gallery_and_the_others_are() -> None:
    gallery, probes = synthetic_gallery(3, 20), synthetic_probes(3, 20, 20)
    found = np.array([row.any() for row in matches(gallery, probes)])
    assert found[::2].mean() > 0.9
    assert found[1::2].mean() < 0.1


def test_bits_are_fair_and_masks_hide_a_share_as_the_model_says() -> None:
    gallery, probes = pictures()
    assert gallery.codes.mean() == pytest.approx(0.5, abs=0.01)
    for codes in (gallery, probes):
        assert codes.masks.mean() == pytest.approx(0.72, abs=0.01)
        by_picture = codes.masks.mean(axis=(1, 2, 3))
        assert 0.55 < by_picture.min() < by_picture.max() < 0.9
    both = gallery.masks[:-1] & gallery.masks[1:]
    assert both.mean() == pytest.approx(0.66, abs=0.01)
