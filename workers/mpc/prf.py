"""A stream of pseudo-random words that exactly two parties can compute: AES-128 in counter mode under a shared seed.

The one invariant: **no part of a stream is used twice**. A stream has no position that anybody could set; it only
moves forward, and it can be neither copied nor pickled. Two parties that hold the same seed and make the same calls in
the same order get the same words, which is what every mask in `protocol.py` rests on.

Guarantees: the words are indistinguishable from random to whoever does not hold the seed (AES as a pseudo-random
function, far below the birthday bound of 2^64 blocks). Assumes: the seed is fresh for each run and never written down.
"""

from __future__ import annotations

import secrets
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ..values import PrfKey

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["KeyStream", "fresh_key"]

# The cipher encrypts zeros to give its bare key stream; 64 KiB of them stay in the second-level cache.
_ZEROS = memoryview(bytes(64 * 1024))
# `update_into` asks for this much room beyond the data, although counter mode never writes there.
_SLACK = algorithms.AES.block_size // 8 - 1


def fresh_key() -> PrfKey:
    """A seed from the operating system's generator."""
    return PrfKey(secrets.token_bytes(16))


class KeyStream:
    """The stream of one seed. Not for concurrent use: the order of draws is part of the protocol."""

    __slots__ = ("_encryptor", "bytes_drawn")

    def __init__(self, key: PrfKey) -> None:
        # A constant initial counter is right here and only here: a key starts one stream at each of its two holders.
        self._encryptor = Cipher(algorithms.AES(bytes(key)), modes.CTR(bytes(16))).encryptor()
        self.bytes_drawn = 0  # the same at both holders after the same calls

    def draw(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """The next `prod(shape)` elements, uniform over all values of an unsigned `dtype`; the caller owns them."""
        size = prod(shape) * dtype.itemsize
        buffer = np.empty(size + _SLACK, np.uint8)
        room = buffer.data
        done = 0
        while done < size:
            step = min(size - done, len(_ZEROS))
            self._encryptor.update_into(_ZEROS[:step], room[done:])
            done += step
        self.bytes_drawn += size
        # Both holders must see the same numbers, whatever the byte order of their machines.
        little = buffer[:size].view(dtype.newbyteorder("<")).reshape(shape)
        return little.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"KeyStream(<hidden>, bytes_drawn={self.bytes_drawn})"

    def __reduce__(self) -> Any:
        raise TypeError("a KeyStream cannot be copied: a copy would repeat the masks")
