"""Iris matching on shares against plaintext: sharing, products, signs at the threshold, exact bytes, what is seen."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partywire.workers.jobs import JobInputError, iris_shares
from partywire.workers.jobs.iris import BLOCK_SIZE_MAX, CHUNK_SIZE_MAX, CODES_MAX
from partywire.workers.jobs.iris_codes import (
    BITS,
    ROTATIONS,
    SHAPE,
    IrisCodes,
    matches,
    rotated,
    signed_bits,
    synthetic_gallery,
    synthetic_probes,
)
from partywire.workers.jobs.iris_match import (
    ChunkMatch,
    GalleryShare,
    MatchPlan,
    agree,
    any_of,
    is_negative,
    match_chunk,
    share_gallery,
    tell_costs,
)
from partywire.workers.jobs.iris_shares import PAIRED_WORDS, PLAIN_WORDS, RING_BITS, product, share_codes
from partywire.workers.mpc import BinaryShare, Replicated3
from tests.support.local_sessions import LocalSession, join_parties, local_sessions, run_parties
from tests.workers.jobs.test_iris_codes import both_sides_of_the_threshold, codes_of
from tests.workers.mpc.test_lift import pair_means, rows_of
from tests.workers.mpc.test_protocol import assert_looks_uniform
from tests.workers.mpc.test_secrecy import SAMPLES, SHIFT_MAX, DealtInTheOpen, Recorder, Unmasked, parity_means

if TYPE_CHECKING:
    from numpy.typing import NDArray

RING = 1 << RING_BITS
D_LEAST, D_MOST = -3 * BITS, 5 * BITS


def random_codes(seed: int, count: int) -> IrisCodes:
    rng = np.random.default_rng(seed)
    return IrisCodes(rng.random((count, *SHAPE)) < 0.5, rng.random((count, *SHAPE)) < 0.7, is_synthetic=False)


def paired(codes: IrisCodes) -> IrisCodes:
    return IrisCodes(codes.codes, np.repeat(codes.masks[..., ::2], 2, axis=-1), is_synthetic=False)


def plain_d(gallery: IrisCodes, probes: IrisCodes) -> NDArray[np.int64]:
    """8 h - 3 m for each rotation, probe and gallery code."""
    found = []
    for turn in ROTATIONS:
        both = rotated(probes.masks, turn)[:, None] & gallery.masks
        differ = (rotated(probes.codes, turn)[:, None] ^ gallery.codes) & both
        found.append(8 * differ.sum(axis=(2, 3, 4)) - 3 * both.sum(axis=(2, 3, 4)))
    return np.array(found)


# Shares and products.


def shares_of(
    owner: int,
    codes: IrisCodes,
    width: int = PLAIN_WORDS,
    *,
    conjugate: bool = False,
    kind: type[Replicated3] = Replicated3,
) -> tuple[list[NDArray[Any]], list[LocalSession]]:
    async def program(session: LocalSession) -> NDArray[Any]:
        mpc = await kind.setup(session)
        mine = codes if mpc.party_index == owner else None
        return await share_codes(mpc, owner, mine, len(codes), width, conjugate=conjugate)

    return run_parties(program)


@pytest.mark.parametrize(("conjugate", "width"), [(False, PLAIN_WORDS), (True, PLAIN_WORDS), (True, PAIRED_WORDS)])
@pytest.mark.parametrize("owner", [0, 1, 2])
def test_a_third_of_the_sum_of_the_shares_is_the_secret(owner: int, conjugate: bool, width: int) -> None:
    """The values of a polynomial of degree 1 at three points, the sum of which is zero."""
    codes = paired(random_codes(1, 2))
    shares, sessions = shares_of(owner, codes, width, conjugate=conjugate)
    words = sum(share.astype(np.int64) for share in shares) * pow(3, -1, RING) % RING
    masks = codes.masks if width == PLAIN_WORDS else codes.masks[..., ::2]
    expected = np.concatenate([signed_bits(codes), masks.astype(np.int8)], axis=-1).astype(np.int64)
    expected[..., 1::2] *= -1 if conjugate else 1
    np.testing.assert_array_equal(words, expected % RING)
    assert [session.array_bytes_sent for session in sessions] == [
        12_800 * width * len(codes) if party == owner else 0 for party in range(3)
    ]
    assert all(share.shape == (2, 16, 200, width) and share.max() < RING for share in shares)


@pytest.mark.parametrize(("count", "messages"), [(1, [1]), (2, [2]), (5, [2, 2, 1])])
def test_codes_are_shared_in_messages_of_so_many(
    monkeypatch: pytest.MonkeyPatch, count: int, messages: list[int]
) -> None:
    assert iris_shares._CODES_PER_MESSAGE == 256  # as the docstrings say; fewer are quicker to share here
    monkeypatch.setattr(iris_shares, "_CODES_PER_MESSAGE", 2)
    codes = random_codes(1, count)
    shares, sessions = shares_of(0, codes)
    assert [message.size for message in sessions[0].sent[1:]] == [25_600 * size for size in messages]
    secret = np.sum([share[..., :4].astype(np.int64) for share in shares], axis=0) * pow(3, -1, RING) % RING
    np.testing.assert_array_equal(secret, signed_bits(codes).astype(np.int64) % RING)


@pytest.mark.parametrize("width", [PLAIN_WORDS, PAIRED_WORDS])
def test_the_parts_of_the_parties_add_up_to_the_distance_at_every_rotation(width: int) -> None:
    gallery, probes = random_codes(2, 5), random_codes(3, 2)
    if width == PAIRED_WORDS:
        gallery, probes = paired(gallery), paired(probes)
    of_gallery, of_probes = shares_of(0, gallery, width, conjugate=True)[0], shares_of(1, probes, width)[0]
    parts = [product(g, p) for g, p in zip(of_gallery, of_probes, strict=True)]
    assert all(part.dtype == np.uint32 and part.max() < RING for part in parts)
    np.testing.assert_array_equal(sum(part.astype(np.int64) for part in parts) % RING, plain_d(gallery, probes) % RING)


def test_products_of_the_greatest_words_are_exact_in_float64() -> None:
    """No shares of anybody, but the largest sums that there can be: all words are 2^17 - 1, which stands for -1."""
    top = np.full((1, 16, 200, PLAIN_WORDS), RING - 1, np.uint32)
    assert not product(top, top).any()  # the two words of each pair count with opposite signs
    even = top.copy()
    even[..., 1::2] = 0
    third = pow(3, -1, RING)
    assert set(product(even, top).reshape(-1).tolist()) == {(6400 * (1 - 4) * third) % RING}
    assert 25_600 * (RING - 1) ** 2 < 1 << 53


def share_shift(party: int, owner: int, kind: type[Replicated3] = Replicated3) -> float:
    """How far the mean of any parity of six bits of a party's words of a pair moves between codes that are all 0, all 1
    or do not count."""
    spectra = []
    for codes, masks in ((False, True), (True, True), (True, False)):
        shape = (-(-2 * SAMPLES // BITS), *SHAPE)
        same = IrisCodes(np.full(shape, codes), np.full(shape, masks), is_synthetic=False)
        words = shares_of(owner, same, kind=kind)[0][party][..., :4].reshape(-1, 2)[:SAMPLES]
        rows = [(words[:, part] >> at & 1).astype(np.uint8) for part in (0, 1) for at in (0, 1, RING_BITS - 1)]
        spectra.append(parity_means(np.array(rows)))
    return max(float(np.abs(other - spectra[0]).max()) for other in spectra[1:])


@pytest.mark.parametrize(("party", "owner"), [(1, 0), (2, 0), (0, 1)])
def test_a_share_says_nothing_about_the_code(party: int, owner: int) -> None:
    assert share_shift(party, owner) < SHIFT_MAX


def test_a_share_that_is_dealt_in_the_open_is_found() -> None:
    assert share_shift(1, 0, DealtInTheOpen) > 5 * SHIFT_MAX


# Signs.


def signs_of(values: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_], list[int], int]:
    """For rows of numbers whose parts are random: their signs, whether any of a column is negative, bytes, rounds."""
    rng = np.random.default_rng(1)
    parts = rng.integers(0, RING, (3, *values.shape)).astype(np.uint32)
    parts[2] = (values - parts[0].astype(np.int64) - parts[1]) % RING

    async def program(session: LocalSession) -> tuple[Any, ...]:
        mpc = await Replicated3.setup(session)
        signs = await is_negative(mpc, parts[mpc.party_index].copy())
        found = await any_of(mpc, signs)
        rounds, size = mpc.rounds - 1, mpc.bytes_sent
        rows = [await mpc.open_bits(signs[row : row + 1]) for row in range(signs.slices)]
        return np.array(rows), await mpc.open_bits(found), size, rounds

    outcomes, _ = run_parties(program)
    return outcomes[0][0], outcomes[0][1], [outcome[2] for outcome in outcomes], outcomes[0][3]


@settings(max_examples=30)
@given(st.data())
def test_signs_of_all_distances_and_their_or_are_right(data: st.DataObject) -> None:
    edges = st.sampled_from([D_LEAST, -2, -1, 0, 1, 2, D_MOST, -(1 << 16), (1 << 16) - 1])
    shape = (data.draw(st.sampled_from([1, 2, 3, 31])), data.draw(st.integers(1, 20)))
    numbers = st.lists(edges | st.integers(D_LEAST, D_MOST), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])
    values = np.array(data.draw(numbers)).reshape(shape)
    signs, found, _, _ = signs_of(values)
    np.testing.assert_array_equal(signs, values < 0)
    np.testing.assert_array_equal(found, (values < 0).any(axis=0))


def test_signs_and_their_or_cost_what_the_docstrings_say() -> None:
    _, _, bytes_sent, rounds = signs_of(np.zeros((31, 80), np.int64))
    assert rounds == 6 + 5
    assert bytes_sent == [10 * (31 * 51 + 30), 10 * (31 * 43 + 30), 10 * (31 * 43 + 30)]
    # A row that fills no whole bytes is padded.
    assert signs_of(np.zeros((31, 73), np.int64))[2] == bytes_sent


# Matching.


async def match(
    session: LocalSession, gallery: IrisCodes, probes: IrisCodes, block_size: int = 256
) -> tuple[ChunkMatch, int]:
    mine = (gallery, probes, None)[session.party_index]
    share = await share_gallery(session, (mine, 64, block_size))
    session.sent.clear()
    found = await match_chunk(share, session, probes if session.party_index == 1 else len(probes))
    return found, len(session.sent)


def test_the_protocol_decides_as_the_definition_at_both_sides_of_the_threshold() -> None:
    cases = [case for case in both_sides_of_the_threshold() if case[1] in (0, 1, 8, 12799, 12800)]
    gallery, probes = codes_of([h for h, _, _ in cases], [m for _, m, _ in cases])
    for found, _ in run_parties(partial(match, gallery=gallery, probes=probes))[0]:
        assert found.is_match.tolist() == [[is_match] for _, _, is_match in cases]


@pytest.mark.parametrize("turn", [-16, -15, 15, 16])
def test_the_protocol_rotates_as_the_definition(turn: int) -> None:
    gallery = random_codes(4, 3)
    probes = IrisCodes(rotated(gallery.codes, turn), rotated(gallery.masks, turn), is_synthetic=False)
    expected = np.eye(3, dtype=np.bool_) & (abs(turn) <= 15)
    np.testing.assert_array_equal(matches(gallery, probes), expected)
    for found, _ in run_parties(partial(match, gallery=gallery, probes=probes, block_size=2))[0]:
        np.testing.assert_array_equal(found.is_match, expected)


@pytest.mark.parametrize(("of_gallery", "of_probes"), [(True, True), (True, False), (False, True), (False, False)])
def test_masks_are_halved_where_both_sides_have_pairs_and_the_answer_stays(of_gallery: bool, of_probes: bool) -> None:
    probes = random_codes(6, 2)
    gallery = IrisCodes(probes.codes.copy(), probes.masks.copy(), is_synthetic=False)
    gallery, probes = paired(gallery) if of_gallery else gallery, paired(probes) if of_probes else probes
    assert (gallery.has_paired_masks, probes.has_paired_masks) == (of_gallery, of_probes)
    outcomes, sessions = run_parties(partial(match, gallery=gallery, probes=probes))
    np.testing.assert_array_equal(outcomes[2][0].is_match, matches(gallery, probes))
    shared = sessions[1].array_bytes_sent - outcomes[1][0].bytes_compared
    assert shared == 2 * (76_800 if of_gallery and of_probes else 102_400)


def test_a_comparison_takes_exactly_the_bytes_that_the_module_states() -> None:
    """Pairs in whole bytes. 5.5 and 6.5, where iris-mpc's 32-bit pipeline takes 25 to 32 per party."""
    gallery, probes = synthetic_gallery(1, 16), synthetic_probes(1, 4, 16)
    outcomes, sessions = run_parties(partial(match, gallery=gallery, probes=probes, block_size=8))
    comparisons = 16 * 4 * 31
    assert [found.bytes_compared for found, _ in outcomes] == [6.5 * comparisons, 5.5 * comparisons, 5.5 * comparisons]
    # Nothing else is sent but the probes, by their owner, and seeds, which are no arrays.
    sent = [session.array_bytes_sent for session in sessions]
    assert sent == [6.5 * comparisons, 5.5 * comparisons + 4 * 76_800, 5.5 * comparisons]
    # Two steps of 12 rounds; a seed, the probes; party 0 sends no part, and the others do not deal.
    assert [count for _, count in outcomes] == [1 + 2 * 11, 1 + 1 + 2 * 11, 1 + 2 * 11]
    for found, _ in outcomes:
        np.testing.assert_array_equal(found.is_match, matches(gallery, probes))


def test_what_is_sent_depends_on_the_plan_alone() -> None:
    def sizes(gallery: IrisCodes, probes: IrisCodes) -> list[list[int]]:
        _, sessions = run_parties(partial(match, gallery=gallery, probes=probes))
        return [[message.nbytes for message in session.sent[1:]] for session in sessions]

    zeros = IrisCodes(np.zeros((3, *SHAPE), np.bool_), np.zeros((3, *SHAPE), np.bool_), is_synthetic=False)
    assert sizes(paired(random_codes(1, 3)), paired(random_codes(2, 2))) == sizes(zeros, zeros[:2])


def test_every_message_of_matching_constants_looks_uniform_but_what_is_opened() -> None:
    ones = IrisCodes(np.zeros((64, *SHAPE), np.bool_), np.ones((64, *SHAPE), np.bool_), is_synthetic=False)
    _, sessions = run_parties(partial(match, gallery=ones, probes=ones[:16]))
    for session in sessions:
        for message in session.sent[1:]:
            if message.dtype == np.uint32:  # words of 17 bits
                assert message.max() < RING
                message = message.astype(np.uint16)
            if message.nbytes >= 1 << 12:
                assert_looks_uniform(message.view(np.uint8))


def seen_bits(value: int, kind: Any) -> list[NDArray[np.uint8]]:
    """What each party sees while SAMPLES numbers of the same value are told apart from zero, and that is opened.

    Parts, draws and messages, as rows of bits; of words the lowest two and the highest of 17.
    """
    rng = np.random.default_rng()
    parts = rng.integers(0, RING, (3, SAMPLES)).astype(np.uint32)
    parts[2] = (value - parts[0].astype(np.int64) - parts[1]) % RING
    streams: dict[int, list[Recorder]] = {}

    async def program(session: LocalSession) -> None:
        plain = await Replicated3.setup(session)
        streams[session.party_index] = [Recorder(plain._own), Recorder(plain._prev)]
        mpc = kind(session, *streams[session.party_index])
        signs = await is_negative(mpc, parts[session.party_index].reshape(2, -1).copy())
        await mpc.open_bits(await any_of(mpc, signs))

    sessions = local_sessions()
    asyncio.run(join_parties(program, sessions))
    seen = []
    for index in range(3):
        own, prev = (stream.drawn for stream in streams[index])
        view = [parts[index], *own, *prev]
        view += [message for message in sessions[index - 1].sent if isinstance(message, np.ndarray)]
        # Computed from these, and what the messages are about: a pair of bits finds what else would take four.
        if own and own[0].dtype == np.uint32:
            view.append(parts[index] + own[0].reshape(-1) - prev[0].reshape(-1))
        seen.append(np.concatenate([rows_of_all(words.reshape(-1)) for words in view]))
    return seen


def rows_of_all(words: NDArray[Any]) -> NDArray[np.uint8]:
    """Rows of SAMPLES bits. The OR and the opening join the first half of the numbers with the second."""
    if words.dtype == np.uint8 and words.size == SAMPLES // 16:
        return np.concatenate([np.unpackbits(words, bitorder="little")] * 2).reshape(1, -1)
    return rows_of(words, (0, 1, RING_BITS - 1))


def test_of_two_distances_only_the_side_of_the_threshold_shows() -> None:
    """Distances that match, and distances that do not: what a party sees is alike within each, in all pairs of bits."""
    for one, other in ((-1, D_LEAST), (0, D_MOST)):
        means = [pair_means(seen_bits(value, Replicated3)) for value in (one, other)]
        assert max(float(np.abs(a - b).max()) for a, b in zip(*means, strict=True)) < SHIFT_MAX


@pytest.mark.parametrize("kind", [Unmasked, DealtInTheOpen])
def test_signs_that_are_taken_without_masks_are_found(kind: Any) -> None:
    means = [pair_means(seen_bits(value, kind)) for value in (0, D_MOST - 1)]
    assert max(float(np.abs(a - b).max()) for a, b in zip(*means, strict=True)) > 5 * SHIFT_MAX


# Public numbers.


@pytest.mark.parametrize("position", [0, 3, 6, 7])
@pytest.mark.parametrize("side", ["least", "greatest", "below", "above", "huge"])
def test_sizes_are_taken_up_to_the_bounds_and_refused_beyond_them_at_all_parties(position: int, side: str) -> None:
    said = [3, 0, 1, 2, 0, 0, 4, 8]
    most = {0: CODES_MAX, 3: CODES_MAX, 6: CHUNK_SIZE_MAX, 7: BLOCK_SIZE_MAX}[position]
    said[position] = {"least": 1, "greatest": most, "below": 0, "above": most + 1, "huge": (1 << 63) - 1}[side]

    async def program(session: LocalSession) -> MatchPlan | str:
        mpc = await Replicated3.setup(session)
        try:
            return await agree(
                mpc, said[:3] if mpc.party_index == 0 else None, said[3:] if mpc.party_index == 1 else None
            )
        except JobInputError as refusal:
            return str(refusal)

    [outcome] = set(run_parties(program)[0])
    if side in ("least", "greatest"):
        assert outcome == MatchPlan(said[0], said[3], said[6], said[7], False, False, has_paired_masks=False)
    else:
        assert isinstance(outcome, str)
        assert outcome.startswith(f"the codes: are announced with {said[position]} ")


def test_chunks_are_all_probes_in_order() -> None:
    assert list(MatchPlan(1, 5, 2, 1, True, True, has_paired_masks=True).chunks()) == [
        slice(0, 2),
        slice(2, 4),
        slice(4, 5),
    ]
    assert MatchPlan(3, 5, 2, 1, True, True, has_paired_masks=True).comparisons == 3 * 5 * 31


def test_a_share_of_the_gallery_does_not_show_its_words() -> None:
    plan = MatchPlan(1, 1, 1, 1, True, False, has_paired_masks=False)
    share = GalleryShare(plan, np.full((1, 16, 200, PLAIN_WORDS), 98765, np.uint32))
    assert repr(share) == f"GalleryShare(plan={plan!r})"


def test_costs_are_told_to_all_in_the_order_of_parties() -> None:
    async def program(session: LocalSession) -> list[tuple[int, float]]:
        return await tell_costs(session, (10 + session.party_index, 0.5 * session.party_index))

    assert run_parties(program)[0] == [[(10, 0.0), (11, 0.5), (12, 1.0)]] * 3


def test_the_or_of_one_slice_is_that_slice_and_costs_nothing() -> None:
    async def program(session: LocalSession) -> tuple[int, int]:
        mpc = await Replicated3.setup(session)
        one = BinaryShare(np.ones((1, 1), np.uint8), np.ones((1, 1), np.uint8), (8,))
        assert await any_of(mpc, one) is one
        return mpc.rounds, mpc.bytes_sent

    assert run_parties(program)[0] == [(1, 0)] * 3
