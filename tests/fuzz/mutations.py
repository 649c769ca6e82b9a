"""Fuzzing without coverage: inputs made from the seeds by random changes. One seed, one sequence of inputs.

For where atheris is not installed; it finds less in the same time, and what it found comes again with `--seed`.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SIZE_MAX: Final = 8192
_WORDS: Final = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 2**63 - 1, 2**64 - 1)


def mutations(seeds: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """Endless inputs: the seeds, then changed ones."""
    rng = random.Random(seed)
    yield from seeds
    while True:
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 6)):
            _change(data, rng, seeds)
        yield bytes(data[:SIZE_MAX])


def _change(data: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    start = rng.randint(0, len(data))
    end = min(len(data), start + rng.choice((1, 1, 2, 4, 8, 32, 256)))
    match rng.randrange(8):
        case 0 if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 1 if data:
            data[rng.randrange(len(data))] = rng.randrange(256)
        case 2:
            size = rng.choice((1, 2, 4, 8))
            order = rng.choice(("little", "big"))
            word = (rng.choice(_WORDS) & ((1 << 8 * size) - 1)).to_bytes(size, order)  # type: ignore[arg-type]
            data[start : start + size] = word
        case 3:
            del data[start:end]
        case 4:
            data[start:start] = data[start:end] * rng.choice((1, 1, 2, 16))
        case 5:
            data[start:start] = rng.randbytes(end - start)
        case 6:
            other = rng.choice(seeds)
            cut = rng.randint(0, len(other))
            data[start:] = other[cut:]
        case _:
            del data[start:]


def shorter(data: bytes, is_broken_by: object) -> bytes:
    """As much taken out of `data` as leaves what it breaks broken. `is_broken_by` is a predicate of bytes."""
    assert callable(is_broken_by)
    size = len(data) // 2
    while size:
        start = 0
        while start < len(data):
            candidate = data[:start] + data[start + size :]
            if is_broken_by(candidate):
                data = candidate
            else:
                start += size
        size //= 2
    return data
