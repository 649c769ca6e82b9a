"""Additive secret sharing among any number of parties, as far as a sum needs it.

Between one session and a job that adds secret vectors, of every party one. Words are unsigned modulo 2^64.

    share    party i sends a fresh seed k_ij to every other party j, and keeps x_i - sum_j G(k_ij); seed k_ij expands to
             j's share of x_i, so the m shares add up to x_i
    add      party j adds up what it has of every secret: its share of the sum
    open     everybody tells its share of the sum; the shares add up to x_0 + ... + x_(m-1)

2 rounds; a party sends (m - 1) * (16 + 8 n) bytes for n words. The one invariant: **a seed expands once**, so no two
vectors are masked with the same words.

What a party tells is masked by one stream for each other party, of which only those two know the seed. So parties that
follow the protocol and put together all that they have seen learn the sum of the others' vectors, which the result and
their own vectors tell them anyway, and nothing else; also if all but one do. Nobody is kept from computing with a false
vector, or from telling a false share, which falsifies the result for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..mpc.errors import ShareMismatch
from ..mpc.prf import KeyStream, fresh_key
from ..values import PrfKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Words = NDArray[np.uint64]

__all__ = ["AnySession", "open_sum", "share_of_sum", "sum_of_shares"]

WORD = np.dtype(np.uint64)


class AnySession(Protocol):
    """What the protocol needs of a Session."""

    @property
    def party_index(self) -> int: ...

    @property
    def parties(self) -> Sequence[str]: ...

    async def send(self, peer: int, value: object, /) -> None: ...

    async def recv(self, peer: int, /, *, out: Any = None) -> Any: ...


def share_of_sum(words: Words, sent: Iterable[PrfKey], received: Iterable[PrfKey]) -> Words:
    """A party's share of the sum: its own vector less the shares that it gave away, plus those that it was given."""
    share = words.copy()
    for key in sent:
        share -= expanded(key, words.shape)
    for key in received:
        share += expanded(key, words.shape)
    return share


def expanded(key: PrfKey, shape: tuple[int, ...]) -> Words:
    """The share that a seed stands for."""
    return KeyStream(key).draw(shape, WORD)


def sum_of_shares(shares: Iterable[Words]) -> Words:
    """The secret that all parties' shares are of."""
    first, *rest = shares
    total = first.copy()
    for share in rest:
        total += share
    return total


async def open_sum(session: AnySession, words: Words) -> Words:
    """The sum of every party's vector, modulo 2^64, at every party; all vectors have the same shape. 2 rounds.

    Raises:
        ShareMismatch: a peer sent no seed.
        UnexpectedMessage: a peer's vector has another shape.
    """
    peers = [index for index in range(len(session.parties)) if index != session.party_index]
    sent = [fresh_key() for _ in peers]
    for peer, key in zip(peers, sent, strict=True):
        await session.send(peer, key)
    received = []
    for peer in peers:
        key = await session.recv(peer)
        if not isinstance(key, PrfKey):
            raise ShareMismatch("a sum", "a PrfKey", f"a message of type {type(key).__name__}")
        received.append(key)
    ours = share_of_sum(words, sent, received)
    for peer in peers:
        await session.send(peer, ours)
    theirs = [await session.recv(peer, out=np.empty_like(words)) for peer in peers]
    return sum_of_shares([ours, *theirs])
