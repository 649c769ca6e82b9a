"""Semi-honest computation among three parties on replicated shares, over Z_2^16, Z_2^32, Z_2^64 and bits.

Source: T. Araki, J. Furukawa, Y. Lindell, A. Nof, K. Ohara, "High-Throughput Semi-Honest Secure Three-Party Computation
with an Honest Majority", ACM CCS 2016. Party i holds the components x_i and x_(i-1) of each secret (shares.py) and, of
three seeds, k_i and k_(i-1). All messages go from a party to the next one.

Why one curious party learns nothing beyond what is opened:

- *Product.* The nine cross terms of x * y fall to the parties so that each computes some of them from what it holds;
  party i's part z_i is sent to party i+1 only after adding a_i = F(k_i) - F(k_(i-1)). The a_i sum to zero, and party
  i+1 does not hold k_(i-1), so the word that it receives is uniform to it and independent of all it saw before.
- *Input.* The owner i sends x - F(k_(i-1)) to party i+1, which does not hold k_(i-1).
- *Opening.* A party receives its one missing component, which it could compute from the result and what it holds.
- F is one stream per seed that only moves forward (prf.py): no mask is used twice. `setup` makes fresh seeds each time.

The one invariant: all three parties make the same calls in the same order with the same public arguments, and no
branch, index or shape depends on a secret. Security is against one semi-honest party; colluding parties and parties
that deviate are outside the model, and so is whoever reads the links when they are not encrypted.

`rounds` counts steps in which a message may travel; `bytes_sent` the payload that this party sent (without seeds and
frames). Costs in docstrings are bytes per element sent by a party, w = 2, 4 or 8 being the bytes of a ring element.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..values import PrfKey
from .errors import NotInRing, NotThreeParties, ShareMismatch, described
from .prf import KeyStream, fresh_key
from .shares import (
    ArithmeticShare,
    BinaryShare,
    packed_size,
    plain_array,
    require_bits,
    require_words,
    ring_dtype,
    to_ring,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, DTypeLike, NDArray

    Words = NDArray[Any]

__all__ = ["Replicated3", "RingSession"]

_BYTE = np.dtype(np.uint8)
_PUBLIC = np.dtype(np.int64)


class RingSession(Protocol):
    """What the protocols need of a session: its place in the ring 0 -> 1 -> 2 -> 0 and two ordered channels."""

    @property
    def party_index(self) -> int: ...

    async def send_next(self, value: Any, /) -> None:
        """Send to party index + 1. The array may be changed once this has returned."""

    async def recv_prev(self, *, out: Words | None = None) -> Any:
        """Receive from party index - 1, into `out` if given; another dtype or shape than that of `out` raises."""


class Replicated3:
    """One run of three-party computation on one session. Make it with `setup`; one call at a time."""

    def __init__(self, session: RingSession, own: KeyStream, prev: KeyStream) -> None:
        self.session = session
        self.party_index = session.party_index
        self.rounds = 0
        self.bytes_sent = 0
        self._own = own  # F(k_i), shared with the next party
        self._prev = prev  # F(k_(i-1)), shared with the previous party

    @classmethod
    async def setup(cls, session: RingSession) -> Replicated3:
        """Agree on fresh seeds: one round, 16 bytes per party. Party i draws k_i and tells it to party i+1 alone.

        Raises:
            NotThreeParties: the session is not one of parties 0, 1 and 2.
        """
        parties = getattr(session, "parties", 3)
        count = parties if isinstance(parties, int) else len(parties)
        if count != 3 or session.party_index not in (0, 1, 2):
            raise NotThreeParties(f"party {session.party_index} of {count}")
        own = fresh_key()
        await session.send_next(own)
        prev = await session.recv_prev()
        if not isinstance(prev, PrfKey):
            raise ShareMismatch("setup", "a PrfKey", f"a message of type {type(prev).__name__}")
        mpc = cls(session, KeyStream(own), KeyStream(prev))
        mpc.rounds = 1
        return mpc

    def __repr__(self) -> str:
        return f"Replicated3(party {self.party_index}, rounds={self.rounds}, bytes_sent={self.bytes_sent})"

    # Building blocks. A protocol made of these keeps the argument above if it sends nothing but masked words.

    async def exchange(self, outgoing: Words | None, incoming: int, dtype: np.dtype[Any]) -> Words:
        """One round: send `outgoing` to the next party, receive `incoming` elements from the previous one, flat.

        Nothing is sent for None or no elements, nothing is received for 0. Both must follow from public values.
        """
        self.rounds += 1
        if outgoing is not None and outgoing.size:
            await self.session.send_next(np.ascontiguousarray(outgoing).reshape(-1))
            self.bytes_sent += outgoing.nbytes
        received = np.empty(incoming, dtype)
        if incoming:
            await self.session.recv_prev(out=received)
        return received

    def mask_of(self, owner: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Words | None:
        """Fresh words that the owner and the party before it know, and the party after it does not (it gets None).

        Only the party after the owner may be sent something under this mask.
        """
        if self.party_index == owner:
            return self._prev.draw(shape, dtype)
        if self.party_index == (owner - 1) % 3:
            return self._own.draw(shape, dtype)
        return None

    def add_zero_share(self, part: Words) -> None:
        """Add, in place, this party's share of a fresh zero of the ring: F(k_i) - F(k_(i-1))."""
        np.add(part, self._own.draw(part.shape, part.dtype), out=part)
        np.subtract(part, self._prev.draw(part.shape, part.dtype), out=part)

    def xor_zero_share(self, part: Words) -> None:
        """XOR, in place, this party's share of fresh zero bits: F(k_i) ^ F(k_(i-1))."""
        np.bitwise_xor(part, self._own.draw(part.shape, part.dtype), out=part)
        np.bitwise_xor(part, self._prev.draw(part.shape, part.dtype), out=part)

    async def reshare(self, part: Words) -> ArithmeticShare:
        """From one additive part per party to a replicated share. `part` is taken over. 1 round, w bytes."""
        self.add_zero_share(part)
        received = await self.exchange(part, part.size, part.dtype)
        return ArithmeticShare(part, received.reshape(part.shape))

    async def reshare_bits(self, part: NDArray[np.uint8], shape: tuple[int, ...]) -> BinaryShare:
        """From one XOR part per party to a replicated share. `part` is taken over. 1 round, 1/8 byte per bit."""
        self.xor_zero_share(part)
        received = await self.exchange(part, part.size, _BYTE)
        return BinaryShare(part, received.reshape(part.shape), shape)

    # Secrets in.

    async def input(
        self, owner: int, values: ArrayLike | None, shape: tuple[int, ...], dtype: DTypeLike = np.uint32
    ) -> ArithmeticShare:
        """Share integers of party `owner` in the ring of `dtype`. `shape` is public; the others pass None for `values`.

        1 round; the owner sends w bytes per element, the others nothing.

        Raises:
            NotInRing: the values are no integers, or the dtype is no ring.
            ShareMismatch: the owner's values do not have the public shape.
        """
        ring = ring_dtype(dtype)
        plain = self._own_plaintext(owner, values, shape)
        words = None if plain is None else to_ring(plain, ring)
        own, prev = await self._deal(owner, words, shape, ring, np.subtract)
        return ArithmeticShare(own, prev)

    async def input_bits(self, owner: int, values: ArrayLike | None, shape: tuple[int, ...]) -> BinaryShare:
        """Share truth values of party `owner`, as one slice. 1 round; the owner sends 1/8 byte per element.

        Raises:
            NotInRing: the values are not of dtype bool.
            ShareMismatch: the owner's values do not have the public shape.
        """
        plain = self._own_plaintext(owner, values, shape)
        if plain is not None and plain.dtype != np.bool_:
            raise NotInRing("binary sharing", f"values of dtype {plain.dtype}", "truth values")
        packed = None if plain is None else np.packbits(plain.reshape(1, -1), axis=1, bitorder="little")
        own, prev = await self.deal_bits(owner, packed, (1, packed_size(prod(shape))))
        return BinaryShare(own, prev, shape)

    async def deal_bits(
        self, owner: int, packed: NDArray[np.uint8] | None, size: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The two components of packed bits that the owner knows. 1 round; the owner sends 1/8 byte per bit."""
        return await self._deal(owner, packed, size, _BYTE, np.bitwise_xor)

    def public(self, values: ArrayLike, dtype: DTypeLike = np.uint32) -> ArithmeticShare:
        """A share of integers that all parties know: component 0 is the value. Local."""
        words = to_ring(values, ring_dtype(dtype))
        zero = np.zeros_like(words)
        return ArithmeticShare(words if self.party_index == 0 else zero, words if self.party_index == 1 else zero)

    # Local operations that depend on the party's place. The others are methods of the shares.

    def add_public(self, x: ArithmeticShare, values: ArrayLike) -> ArithmeticShare:
        """x + values for integers that all parties know. Local."""
        require_words("addition of a public value", x)
        return x + self.public(values, x.dtype)

    def invert(self, x: BinaryShare) -> BinaryShare:
        """NOT of each bit: component 0 is flipped. Local."""
        require_bits("NOT", x)
        own = ~x.own if self.party_index == 0 else x.own
        return BinaryShare(own, ~x.prev if self.party_index == 1 else x.prev, x.shape)

    # Products.

    async def multiply(self, x: ArithmeticShare, y: ArithmeticShare) -> ArithmeticShare:
        """Elementwise product, shapes broadcast as in numpy. 1 round, w bytes per element of the result."""
        return await self.reshare(self._cross_terms("multiplication", np.multiply, x, y))

    async def dot(self, x: ArithmeticShare, y: ArithmeticShare) -> ArithmeticShare:
        """Inner product over the last axis: (..., n), (..., n) -> (...). 1 round, w bytes per element of the result."""

        def inner(left: Words, right: Words) -> Words:
            return np.asarray((left * right).sum(axis=-1, dtype=left.dtype))

        require_words("inner product", x, y)
        if not x.shape or not y.shape:
            raise ShareMismatch("inner product", described(x), described(y))
        return await self.reshare(self._cross_terms("inner product", inner, x, y))

    async def matmul(self, x: ArithmeticShare, y: ArithmeticShare) -> ArithmeticShare:
        """Matrix product (n, k), (k, m) -> (n, m), with one re-share: 1 round, w bytes per element of the *result*.

        Local work is two integer products by numpy. Splitting into 16-bit limbs for exact float64 BLAS takes 11 ms
        where numpy's integer loop takes 17 ms (uint32, 1500 x 64 by 64 x 297), and several times the memory: not worth
        it beside the comparisons that follow, and BLAS would bring its threads.
        """
        return await self.reshare(self._cross_terms("matrix product", np.matmul, x, y))

    async def and_(self, x: BinaryShare, y: BinaryShare) -> BinaryShare:
        """AND of each bit. 1 round, 1/8 byte per bit."""
        return await self.reshare_bits(self.and_part(x, y), x.shape)

    @staticmethod
    def and_part(x: BinaryShare, y: BinaryShare) -> NDArray[np.uint8]:
        """This party's XOR part of the AND of each bit. Local; parts may be added up before they are re-shared."""
        require_bits("AND", x)
        x.require_same("AND", y)
        part: NDArray[np.uint8] = (x.own & (y.own ^ y.prev)) ^ (x.prev & y.own)
        return part

    # Secrets out.

    async def open(self, x: ArithmeticShare) -> Words:
        """Tell all parties the secrets, as ring elements. 1 round, w bytes per element."""
        require_words("opening", x)
        missing = await self.exchange(x.prev, x.size, x.dtype)
        return x.own + x.prev + missing.reshape(x.shape)

    async def open_bits(self, x: BinaryShare) -> NDArray[np.bool_]:
        """Tell all parties the bits of a share of one slice. 1 round, 1/8 byte per element."""
        require_bits("opening bits", x)
        if x.slices != 1:
            raise ShareMismatch("opening bits", repr(x), "one slice")
        missing = await self.exchange(x.prev, x.prev.size, _BYTE)
        packed = x.own[0] ^ x.prev[0] ^ missing
        return np.unpackbits(packed, count=prod(x.shape), bitorder="little").astype(np.bool_).reshape(x.shape)

    async def open_to(self, receiver: int, x: ArithmeticShare) -> Words | None:
        """Tell one party the secrets; the others get None. 1 round, w bytes per element from one party."""
        self._require_party(receiver)
        require_words("opening", x)
        is_sender = self.party_index == (receiver - 1) % 3
        is_receiver = self.party_index == receiver
        missing = await self.exchange(x.prev if is_sender else None, x.size if is_receiver else 0, x.dtype)
        return x.own + x.prev + missing.reshape(x.shape) if is_receiver else None

    async def announce(self, owner: int, values: ArrayLike | None, count: int) -> NDArray[np.int64]:
        """Tell all parties `count` **public** integers of party `owner`, such as shapes. 2 rounds, 8 bytes each.

        Nothing is hidden here; secrets go through `input`.

        Raises:
            NotInRing: the values are no integers, or need more than 64 bits.
            ShareMismatch: the owner's values are not `count` in a row.
        """
        plain = self._own_plaintext(owner, values, (count,))
        known = None if plain is None else _public_words(plain)
        for distance in (1, 2):
            is_receiver = self.party_index == (owner + distance) % 3
            is_sender = self.party_index == (owner + distance - 1) % 3
            received = await self.exchange(known if is_sender else None, count if is_receiver else 0, _PUBLIC)
            known = received if is_receiver else known
        assert known is not None  # the owner has its own, the others received one
        return known

    # Private.

    async def _deal(
        self,
        owner: int,
        words: Words | None,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        hide: Callable[[Words, Words], Words],
    ) -> tuple[Words, Words]:
        """Components (own, prev) of the owner's words: F(k_(owner-1)), what hides under it, and zero."""
        self._require_party(owner)
        if (words is not None) != (self.party_index == owner):
            raise ShareMismatch("dealing", f"party {self.party_index}", f"owner {owner}: the owner alone has the words")
        if words is not None and words.shape != shape:
            raise ShareMismatch("dealing", f"words of shape {words.shape}", f"the public shape {shape}")
        mask = self.mask_of(owner, shape, dtype)
        if mask is None:  # the party after the owner
            received = await self.exchange(None, prod(shape), dtype)
            return np.zeros(shape, dtype), received.reshape(shape)
        if words is None:  # the party before the owner
            await self.exchange(None, 0, dtype)
            return mask, np.zeros(shape, dtype)
        hidden = np.asarray(hide(words, mask))
        await self.exchange(hidden, 0, dtype)
        return hidden, mask

    def _cross_terms(
        self, operation: str, op: Callable[[Words, Words], Words], x: ArithmeticShare, y: ArithmeticShare
    ) -> Words:
        """This party's three of the nine terms of a bilinear operation: own*own + own*prev + prev*own."""
        require_words(operation, x, y)
        if x.dtype != y.dtype:
            raise ShareMismatch(operation, described(x), described(y))
        try:
            part = np.asarray(op(x.own, y.own + y.prev))
            np.add(part, op(x.prev, y.own), out=part)
        except ValueError as exc:
            raise ShareMismatch(operation, described(x), described(y)) from exc
        return part

    def _own_plaintext(self, owner: int, values: ArrayLike | None, shape: tuple[int, ...]) -> Words | None:
        self._require_party(owner)
        if self.party_index != owner:
            if values is not None:
                raise ShareMismatch("input", f"values at party {self.party_index}", f"owner {owner}")
            return None
        if values is None:
            raise ShareMismatch("input", "no values", f"owner {owner}")
        plain = plain_array(values)
        if plain.shape != shape:
            raise ShareMismatch("input", f"values of shape {plain.shape}", f"the public shape {shape}")
        return plain

    @staticmethod
    def _require_party(index: int) -> None:
        if index not in (0, 1, 2):
            raise NotThreeParties(f"party {index}")


def _public_words(plain: Words) -> NDArray[np.int64]:
    """Integers as they are announced. Raises NotInRing for what 64 bits and a sign do not hold."""
    are_integers = plain.dtype.kind in "biu" or (
        plain.dtype == object and all(type(item) is int for item in plain.flat)
    )
    limit = 1 << 63
    if not are_integers or any(not -limit <= int(item) < limit for item in plain.flat):
        raise NotInRing("an announcement", f"values of dtype {plain.dtype}", "integers of 64 bits with a sign")
    return plain.astype(_PUBLIC)
