"""Happy Eyeballs (RFC 8305, section 5): several addresses of one peer, tried one after another without much waiting.

Between a dialler and a transport. The one invariant: of all connections that were begun, the one that is returned is
open and every other is closed, also when two complete at once and also when the caller is cancelled.

The next address is tried as soon as the one before it has failed, or has not answered for ATTEMPT_DELAY_S. The order is
the resolver's, families by turns. (Both families are asked for in one look-up, so the RFC's wait for the other family's
answer does not arise; addresses are not remembered from one dial to the next.)
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from .addresses import Address
    from .transport import Stream

ATTEMPT_DELAY_S: Final = 0.25
"""Between two attempts; what the RFC recommends. It allows 0.1 to 2 s."""


@dataclass(frozen=True, slots=True)
class Failed:
    """One address that could not be connected to, and why."""

    address: Address
    error: OSError


async def race(
    addresses: Sequence[Address],
    connect: Callable[[Address], Coroutine[object, object, Stream]],
    on_failed: Callable[[Failed], object],
    delay_s: float = ATTEMPT_DELAY_S,
) -> Stream | None:
    """The first stream that stands, or None once every address failed; `on_failed` hears of each that did."""
    untried = list(addresses)
    attempts: dict[asyncio.Task[Stream], Address] = {}
    winner: Stream | None = None
    try:
        try:
            while winner is None and (untried or attempts):
                if untried:
                    address = untried.pop(0)
                    attempts[asyncio.ensure_future(connect(address))] = address
                done, _ = await asyncio.wait(
                    attempts, timeout=delay_s if untried else None, return_when=asyncio.FIRST_COMPLETED
                )
                for attempt in [attempt for attempt in attempts if attempt in done]:  # in the order they began
                    error = attempt.exception()
                    if error is None:
                        if winner is None:
                            winner = attempt.result()
                            del attempts[attempt]
                    elif isinstance(error, OSError):
                        on_failed(Failed(attempts.pop(attempt), error))
                    else:
                        raise error
        finally:
            await _close(attempts)
    except BaseException:  # a caller that is cancelled while the others are closed among them
        if winner is not None:
            winner.close()
        raise
    return winner


async def _close(attempts: dict[asyncio.Task[Stream], Address]) -> None:
    """End what was begun, and close what stands all the same. Waits for it; cancelled, all of it is closed later."""
    for attempt in attempts:
        attempt.add_done_callback(_close_stream)
        attempt.cancel()
    if attempts:
        await asyncio.wait(attempts)


def _close_stream(attempt: asyncio.Task[Stream]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
