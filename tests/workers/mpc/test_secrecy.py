"""What one curious party sees is distributed alike whatever the secrets are: every protocol, every party, and canaries.

The view of a party is what it can compute with: the shares it was dealt, the words that it drew from its two streams,
and what it received. One run has many instances side by side, one per element; a few bit positions of each word of the
view make a row of view bits per instance. Two distributions of such rows are equal if and only if the mean of the
parity of every subset of the bits is equal (the Walsh-Hadamard transform is invertible), so all those means are
compared between runs with different secrets. A secret that shows in any subset of the view shifts some mean by as much
as it shows; with SAMPLES instances, shifts of 5 % are found, and equal distributions stay below it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from partywire.workers.mpc import (
    ArithmeticShare,
    BinaryShare,
    Replicated3,
    equal,
    inject,
    is_zero,
    less_than,
    minimum,
    most_significant_bit,
    multiply_by_bit,
    select,
    shuffle,
    to_arithmetic,
    to_binary,
    truncate,
    truncate_stochastic,
)
from partywire.workers.mpc.bits import carry_out
from tests.support.local_sessions import LocalSession, join_parties, local_sessions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from numpy.typing import NDArray

    from partywire.workers.mpc.prf import KeyStream

    Program = Callable[[Replicated3, list[ArithmeticShare]], Awaitable[Any]]

SAMPLES = 1 << 16
# The difference of two means of +-1 has a deviation of at most sqrt(2 / SAMPLES) = 0.0055; eight of them leave less
# than one false alarm in 10^8 runs of the largest view, whose 18 bits have 2^18 subsets.
SHIFT_MAX = 8 * (2 / SAMPLES) ** 0.5
SECRETS = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 3), (6, 3)]


class Recorder:
    """A key stream that keeps what was drawn: part of the view of both of its holders."""

    def __init__(self, stream: KeyStream) -> None:
        self._stream = stream
        self.drawn: list[NDArray[Any]] = []

    def draw(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        words = self._stream.draw(shape, dtype)
        self.drawn.append(words.copy())
        return words


def views(program: Program, secrets: tuple[int, ...], kind: type[Replicated3]) -> list[list[NDArray[Any]]]:
    """The view of each party in one run of `program` on SAMPLES copies of the secrets, shared by a dealer."""
    rng = np.random.default_rng()
    components = []
    for secret in secrets:
        first, second = (rng.integers(0, 1 << 32, SAMPLES, np.uint32) for _ in range(2))
        components.append((first, second, np.uint32(secret) - first - second))
    recorders: dict[int, list[Recorder]] = {}

    async def party(session: LocalSession) -> None:
        plain = await Replicated3.setup(session)
        own, prev = Recorder(plain._own), Recorder(plain._prev)
        recorders[session.party_index] = [own, prev]
        mpc = kind(session, own, prev)  # type: ignore[arg-type]
        index = session.party_index
        await program(mpc, [ArithmeticShare(x[index].copy(), x[index - 1].copy()) for x in components])

    sessions = local_sessions()
    asyncio.run(join_parties(party, sessions))
    seen = []
    for index in range(3):
        view = [part for x in components for part in (x[index], x[index - 1])]
        view += [words for recorder in recorders[index] for words in recorder.drawn]
        view += [message for message in sessions[index - 1].sent if isinstance(message, np.ndarray)]
        seen.append(view)
    return seen


def view_bits(view: list[NDArray[Any]], positions: tuple[int, ...]) -> NDArray[np.uint8]:
    """One row per bit of the view, one column per instance. Packed bits are taken whole, words at `positions`."""
    rows = []
    for part in view:
        if part.dtype == np.uint8 and part.size % SAMPLES:
            rows += list(np.unpackbits(part.reshape(-1, SAMPLES // 8), axis=1, bitorder="little"))
        else:
            for words in words_of(part):
                one = words.dtype.type(1)
                within = dict.fromkeys(at % (8 * words.itemsize) for at in positions)
                rows += [(words >> words.dtype.type(at) & one).astype(np.uint8) for at in within]
    return np.array(rows)


def words_of(part: NDArray[Any]) -> list[NDArray[Any]]:
    """Words of one instance each. Bytes are dealt bits (known.py): some in one byte first, the others in four."""
    if part.dtype == np.uint8:
        small = part.size // SAMPLES % 4 * SAMPLES
        wide = part.reshape(-1)[small:].view("<u4").astype(np.uint32)
        return [*part.reshape(-1)[:small].reshape(-1, SAMPLES), *wide.reshape(-1, SAMPLES)]
    if part.size < SAMPLES:
        return []  # what makes an order (shuffle.py) is the same for all instances: it is held fixed, not looked at
    return list(part.reshape(-1, SAMPLES))


def parity_means(bits: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The mean of (-1)^parity for every subset of the rows."""
    weights = 1 << np.arange(len(bits), dtype=np.int64)
    means = np.bincount(weights @ bits, minlength=1 << len(bits)) / SAMPLES
    for level in range(len(bits)):
        halves = means.reshape(-1, 2, 1 << level)
        means = np.stack([halves[:, 0] + halves[:, 1], halves[:, 0] - halves[:, 1]], axis=1).reshape(-1)
    return means


def greatest_shifts(
    program: Program,
    positions: tuple[int, ...] = (0,),
    kind: type[Replicated3] = Replicated3,
    secrets: list[tuple[int, int]] = SECRETS,
) -> list[float]:
    """For each party, how far the mean of any parity of its view moves between any secrets and the first ones."""
    spectra = [[parity_means(view_bits(view, positions)) for view in views(program, s, kind)] for s in secrets]
    return [
        max(float(np.abs(spectrum[party] - spectra[0][party]).max()) for spectrum in spectra[1:]) for party in range(3)
    ]


async def product(mpc: Replicated3, x: list[ArithmeticShare]) -> None:
    await mpc.multiply(x[0], x[1])


async def two_products(mpc: Replicated3, x: list[ArithmeticShare]) -> None:
    await mpc.multiply(x[0], x[1])
    await mpc.multiply(x[0], x[0])


async def sign(mpc: Replicated3, x: list[ArithmeticShare]) -> None:
    await most_significant_bit(mpc, x[0], 3)


async def comparison(mpc: Replicated3, x: list[ArithmeticShare]) -> None:
    await less_than(mpc, x[0], x[1], 2)


def low_bit(mpc: Replicated3, x: ArithmeticShare) -> BinaryShare:
    """The lowest bit of a sum of three is the XOR of the lowest bits, so this share is local."""
    own, prev = (np.packbits((part & 1).astype(np.bool_), bitorder="little").reshape(1, -1) for part in (x.own, x.prev))
    return BinaryShare(own, prev, x.shape)


async def and_gate(mpc: Replicated3, x: list[ArithmeticShare]) -> None:
    await mpc.and_(low_bit(mpc, x[0]), low_bit(mpc, x[1]))


async def carry(mpc: Replicated3, x: list[ArithmeticShare]) -> None:
    bits = [low_bit(mpc, x[0]), low_bit(mpc, x[1])]
    await carry_out(mpc, BinaryShare.concatenate(bits), bits[0])


async def times_bit(mpc: Replicated3, x: list[ArithmeticShare]) -> None:
    await multiply_by_bit(mpc, low_bit(mpc, x[0]), x[1])


async def choice(mpc: Replicated3, x: list[ArithmeticShare]) -> None:
    await select(mpc, low_bit(mpc, x[0]), x[1], x[0])


async def injection(mpc: Replicated3, x: list[ArithmeticShare]) -> None:
    await inject(mpc, low_bit(mpc, x[0]))


async def conversion_to_bits(mpc: Replicated3, x: list[ArithmeticShare]) -> None:
    await to_binary(mpc, x[0], 3)


async def conversion_to_words(mpc: Replicated3, x: list[ArithmeticShare]) -> None:
    await to_arithmetic(mpc, BinaryShare.concatenate([low_bit(mpc, x[0]), low_bit(mpc, x[1])]))


async def zero_test(mpc: Replicated3, x: list[ArithmeticShare]) -> None:
    await is_zero(mpc, x[0], 3)


async def equality(mpc: Replicated3, x: list[ArithmeticShare]) -> None:
    await equal(mpc, x[0], x[1], 2)


async def tournament(mpc: Replicated3, x: list[ArithmeticShare]) -> None:
    await minimum(mpc, ArithmeticShare.stack(x), 2)


async def rounding(mpc: Replicated3, x: list[ArithmeticShare]) -> None:
    await truncate_stochastic(mpc, x[0], 2)


async def floor(mpc: Replicated3, x: list[ArithmeticShare]) -> None:
    await truncate(mpc, x[0], 2)


async def mixing(mpc: Replicated3, x: list[ArithmeticShare]) -> None:
    await shuffle(mpc, ArithmeticShare.stack(x))


@pytest.mark.parametrize(
    ("program", "positions"),
    [
        (conversion_to_words, (0, 1)),
        (conversion_to_words, (31,)),
        (equality, (0, 1)),
        (tournament, (0,)),
        (mixing, (0,)),
        (mixing, (31,)),
        (product, (0, 1)),
        (product, (30, 31)),
        (two_products, (0,)),
        (and_gate, (0,)),
        (carry, (0,)),
        (comparison, (0, 1)),
        (times_bit, (0,)),
        (times_bit, (31,)),
        (choice, (0,)),
        (injection, (0,)),
        (injection, (1,)),
    ],
)
def test_the_view_of_each_party_does_not_depend_on_the_secrets(program: Program, positions: tuple[int, ...]) -> None:
    for party, shift in enumerate(greatest_shifts(program, positions)):
        assert shift < SHIFT_MAX, f"party {party} sees the secrets"


@pytest.mark.parametrize(
    ("program", "positions"),
    [
        (sign, (0, 1, 2)),
        (conversion_to_bits, (0, 1, 2)),
        (zero_test, (0, 1, 2)),
        (rounding, (0, 1, 31)),
        (floor, (0, 1)),
        (floor, (0, 31)),
    ],
)
def test_the_view_of_each_party_does_not_depend_on_the_one_secret(program: Program, positions: tuple[int, ...]) -> None:
    spectra = [
        [parity_means(view_bits(view, positions)) for view in views(program, (secret,), Replicated3)]
        for secret in (0, 1, 4, 7)
    ]
    for other in spectra[1:]:
        for party in range(3):
            assert np.abs(other[party] - spectra[0][party]).max() < SHIFT_MAX, f"party {party} sees the secret"


@pytest.mark.parametrize("owner", [0, 1, 2])
def test_an_input_shows_its_value_to_nobody_but_its_owner(owner: int) -> None:
    def program_of(secret: int) -> Program:
        async def program(mpc: Replicated3, x: list[ArithmeticShare]) -> None:
            mine = np.full(SAMPLES, secret, np.uint32) if mpc.party_index == owner else None
            await mpc.input(owner, mine, (SAMPLES,))
            bits = np.full(SAMPLES, bool(secret & 1)) if mpc.party_index == owner else None
            await mpc.input_bits(owner, bits, (SAMPLES,))

        return program

    spectra = [
        [parity_means(view_bits(view, (0, 1))) for view in views(program_of(secret), (), Replicated3)]
        for secret in (0, 1, 3)
    ]
    for other in spectra[1:]:
        for party in {0, 1, 2} - {owner}:
            assert np.abs(other[party] - spectra[0][party]).max() < SHIFT_MAX


async def opened_product(mpc: Replicated3, x: list[ArithmeticShare]) -> None:
    await mpc.open(await mpc.multiply(x[0], x[1]))


# An opened bit is found in half of the instances at least: the view has the factors of the party's own products and not
# the products, so that no parity is the opened bit itself.


def test_opening_a_product_shows_the_product_and_not_the_factors() -> None:
    same_product = [(0, 0), (0, 1), (1, 0), (0, 3)]
    assert max(greatest_shifts(opened_product, (0, 1), secrets=same_product)) < SHIFT_MAX
    other_product = [(0, 1), (1, 1)]
    assert min(greatest_shifts(opened_product, (0, 1), secrets=other_product)) > 0.4


async def product_opened_to_1(mpc: Replicated3, x: list[ArithmeticShare]) -> None:
    await mpc.open_to(1, await mpc.multiply(x[0], x[1]))


def test_opening_to_one_party_shows_the_others_nothing() -> None:
    shifts = greatest_shifts(product_opened_to_1, (0, 1))
    assert shifts[1] > 0.4
    assert max(shifts[0], shifts[2]) < SHIFT_MAX


# Canaries: the same test on protocols that give right results and leak.


class Unmasked(Replicated3):
    """No zero shares at all."""

    def add_zero_share(self, part: NDArray[Any]) -> None:
        pass

    def xor_zero_share(self, part: NDArray[Any]) -> None:
        pass


class MaskedForStrangersOnly(Replicated3):
    """Uniform on the wire, but the receiver holds the whole mask: each party adds F(k_i), which its receiver knows."""

    def add_zero_share(self, part: NDArray[Any]) -> None:
        np.add(part, self._own.draw(part.shape, part.dtype), out=part)
        self._prev.draw(part.shape, part.dtype)

    def xor_zero_share(self, part: NDArray[Any]) -> None:
        np.bitwise_xor(part, self._own.draw(part.shape, part.dtype), out=part)
        self._prev.draw(part.shape, part.dtype)


class MaskedOnceForAll(Replicated3):
    """The first zero share is used again for every product."""

    def add_zero_share(self, part: NDArray[Any]) -> None:
        if not hasattr(self, "mask"):
            self.mask = np.zeros_like(part)
            super().add_zero_share(self.mask)
        np.add(part, self.mask, out=part)


class DealtInTheOpen(Replicated3):
    """What an owner deals is hidden under zeros."""

    def mask_of(self, owner: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any] | None:
        mask = super().mask_of(owner, shape, dtype)
        return None if mask is None else np.zeros_like(mask)


class ShuffledInTheOpen(Replicated3):
    """Orders are drawn, and what goes through them is not masked."""

    def mask_of(self, owner: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any] | None:
        mask = super().mask_of(owner, shape, dtype)
        return mask if mask is None or dtype == np.uint64 else np.zeros_like(mask)


def test_a_shuffle_without_masks_is_found() -> None:
    assert min(greatest_shifts(mixing, kind=ShuffledInTheOpen)[1:]) > 5 * SHIFT_MAX


@pytest.mark.parametrize("kind", [Unmasked, MaskedForStrangersOnly])
@pytest.mark.parametrize("program", [product, and_gate, times_bit, injection, equality, conversion_to_words])
def test_a_protocol_without_a_mask_unknown_to_the_receiver_is_found(program: Program, kind: type[Replicated3]) -> None:
    assert max(greatest_shifts(program, kind=kind)) > 5 * SHIFT_MAX


def test_a_mask_that_is_used_twice_is_found() -> None:
    assert max(greatest_shifts(two_products, kind=MaskedOnceForAll)) > 5 * SHIFT_MAX


@pytest.mark.parametrize("program", [comparison, times_bit, injection, equality, conversion_to_words])
def test_a_deal_that_hides_nothing_is_found(program: Program) -> None:
    shifts = greatest_shifts(program, (0, 1) if program in (comparison, equality) else (0,), kind=DealtInTheOpen)
    assert shifts[1] > 5 * SHIFT_MAX  # the party after the dealer
    assert max(shifts[0], shifts[2]) < SHIFT_MAX
