"""Counts what each protocol costs and writes the table of docs/protocols.md: `python -m tests.workers.mpc.costs`.

Every call runs among three parties over all rings; rounds and bytes are those that `Replicated3` counts, and the bytes
are compared with those that the sessions saw. A test fails when the page is stale.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from partywire.workers.mpc import (
    BinaryShare,
    Replicated3,
    argmin,
    equal,
    inject,
    is_zero,
    least,
    less_than,
    lift,
    lift_small,
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
from tests.support.local_sessions import LocalSession, run_parties
from tests.workers.mpc.test_protocol import bits_share, words_share

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PAGE = Path(__file__).resolve().parents[3] / "docs" / "protocols.md"
TABLE = re.compile(r"(<!-- costs -->\n).*?(<!-- end of costs -->)", re.DOTALL)
COUNT = 80  # elements: a whole number of packed bytes
RINGS: list[np.dtype[Any]] = [np.dtype(np.uint16), np.dtype(np.uint32), np.dtype(np.uint64)]


@dataclass(frozen=True)
class Cost:
    """Rounds, and the bytes that each party sends for one element."""

    rounds: int
    sizes: tuple[float, float, float]


def words(dtype: np.dtype[Any], *shape: int) -> Any:
    return words_share(shape or (COUNT,), dtype)


def bits(slices: int = 1) -> BinaryShare:
    return bits_share(slices, (COUNT,))


def mine(mpc: Replicated3, owner: int, plain: Any) -> Any:
    return plain if mpc.party_index == owner else None


CALLS: dict[str, Callable[[Replicated3, np.dtype[Any]], Awaitable[Any]]] = {
    "input(0, x)": lambda m, d: m.input(0, mine(m, 0, np.zeros(COUNT, d)), (COUNT,), d),
    "input_bits(0, b)": lambda m, d: m.input_bits(0, mine(m, 0, np.zeros(COUNT, np.bool_)), (COUNT,)),
    "deal_bits(0, b)": lambda m, d: m.deal_bits(0, mine(m, 0, np.zeros((1, COUNT // 8), np.uint8)), (1, COUNT // 8)),
    "open(x)": lambda m, d: m.open(words(d)),
    "open_bits(b)": lambda m, d: m.open_bits(bits()),
    "open_to(1, x)": lambda m, d: m.open_to(1, words(d)),
    "announce(0, n)": lambda m, d: m.announce(0, mine(m, 0, np.zeros(COUNT, np.int64)), COUNT),
    "multiply(x, y)": lambda m, d: m.multiply(words(d), words(d)),
    "dot(x, y)": lambda m, d: m.dot(words(d, COUNT, 7), words(d, COUNT, 7)),
    "matmul(x, y)": lambda m, d: m.matmul(words(d, COUNT // 4, 7), words(d, 7, 4)),
    "reshare(part)": lambda m, d: m.reshare(np.zeros(COUNT, d)),
    "reshare_bits(part)": lambda m, d: m.reshare_bits(np.zeros((1, COUNT // 8), np.uint8), (COUNT,)),
    "and_(b, c)": lambda m, d: m.and_(bits(), bits()),
    "most_significant_bit(x)": lambda m, d: most_significant_bit(m, words(d)),
    "less_than(x, y)": lambda m, d: less_than(m, words(d), words(d)),
    "less_than(x, y, bits=16)": lambda m, d: less_than(m, words(d), words(d), 16),
    "equal(x, y)": lambda m, d: equal(m, words(d), words(d)),
    "is_zero(x)": lambda m, d: is_zero(m, words(d)),
    "is_zero(x, bits=8)": lambda m, d: is_zero(m, words(d), 8),
    "select(b, x, y)": lambda m, d: select(m, bits(), words(d), words(d)),
    "multiply_by_bit(b, x)": lambda m, d: multiply_by_bit(m, bits(), words(d)),
    "inject(b)": lambda m, d: inject(m, bits(), d),
    "to_binary(x)": lambda m, d: to_binary(m, words(d)),
    "to_binary(x, 8)": lambda m, d: to_binary(m, words(d), 8),
    "to_arithmetic(b), all bits": lambda m, d: to_arithmetic(m, bits(8 * d.itemsize), d),
    "to_arithmetic(b), 8 bits": lambda m, d: to_arithmetic(m, bits(8), d),
    "truncate(x, 8)": lambda m, d: truncate(m, words(d), 8),
    "truncate_stochastic(x, 8)": lambda m, d: truncate_stochastic(m, words(d), 8),
    "lift(x, uint32), of 16 bits": lambda m, d: lift(m, words(RINGS[0]), np.uint32),
    "lift(x, uint64), of 16 bits": lambda m, d: lift(m, words(RINGS[0]), np.uint64),
    "lift(x, uint64), of 32 bits": lambda m, d: lift(m, words(RINGS[1]), np.uint64),
    "lift_small(x, uint32), of 16 bits": lambda m, d: lift_small(m, words(RINGS[0]), np.uint32),
    "lift_small(x, uint64), of 16 bits": lambda m, d: lift_small(m, words(RINGS[0]), np.uint64),
    "lift_small(x, uint64), of 32 bits": lambda m, d: lift_small(m, words(RINGS[1]), np.uint64),
    "minimum(x), a match": lambda m, d: minimum(m, words(d, 2, COUNT)),
    "argmin(x), a match": lambda m, d: argmin(m, words(d, 2, COUNT)),
    "least(x, carried), a match": lambda m, d: least(m, words(d, 2, COUNT), words(d, 2, 2, COUNT)),
    "shuffle(x)": lambda m, d: shuffle(m, words(d)),
}


def cost_of(call: Callable[[Replicated3, np.dtype[Any]], Awaitable[Any]], dtype: np.dtype[Any]) -> Cost:
    """What one call costs; the parties hold shares of zeros, as no size may depend on secrets."""

    async def program(session: LocalSession) -> tuple[int, int]:
        mpc = await Replicated3.setup(session)
        rounds = mpc.rounds
        await call(mpc, dtype)
        return mpc.rounds - rounds, mpc.bytes_sent

    outcomes, sessions = run_parties(program)
    assert len({rounds for rounds, _ in outcomes}) == 1
    assert [size for _, size in outcomes] == [session.array_bytes_sent for session in sessions]
    first, second, third = (size / COUNT for _, size in outcomes)
    return Cost(outcomes[0][0], (first, second, third))


def cost_table() -> str:
    lines = ["| call | rounds | bytes by party 0 | by party 1 | by party 2 |", "| --- | --- | --- | --- | --- |"]
    for name, call in CALLS.items():
        costs = [cost_of(call, dtype) for dtype in RINGS]
        cells = [merged([str(cost.rounds) for cost in costs])]
        cells += [merged([f"{cost.sizes[party]:.3f}".rstrip("0").rstrip(".") for cost in costs]) for party in range(3)]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def merged(figures: list[str]) -> str:
    """The figures for 16, 32 and 64 bits, or the only one."""
    return figures[0] if len(set(figures)) == 1 else " · ".join(figures)


def with_fresh_costs(text: str) -> str:
    return TABLE.sub(lambda match: f"{match[1]}{cost_table()}\n{match[2]}", text)


if __name__ == "__main__":
    PAGE.write_text(with_fresh_costs(PAGE.read_text()))
