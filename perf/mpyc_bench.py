"""An ordinary MPyC program that measures its transport; run by `mpyc_demos` over MPyC's own and over ours.

Party 0 prints one JSON object: chained secure multiplications a second, each awaited (a round of resharing); openings a
second, each awaited; and MB a second received by a party when all send each other 1 MB at once.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

from mpyc.runtime import mpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TRANSFER_SIZE = 1_000_000
BATCH = 20


async def rate(step: Callable[[], Awaitable[object]], seconds: float) -> float:
    """Calls a second. Party 0 decides when it is enough, at the end of each batch."""
    count = 0
    start = time.perf_counter()
    is_over = False
    while not is_over:
        for _ in range(BATCH):
            await step()
        count += BATCH
        is_over = await mpc.transfer(time.perf_counter() - start >= seconds, senders=0)
    return count / (time.perf_counter() - start)


async def main(seconds: float) -> None:
    secint = mpc.SecInt(32)
    async with mpc:
        value = mpc.input(secint(1), senders=0)
        factor = mpc.input(secint(2), senders=0)

        async def multiply() -> None:
            nonlocal value
            value = value * factor
            await mpc.gather(value)

        await rate(multiply, seconds / 5)  # warm up
        figures = {
            "multiplications": await rate(multiply, seconds),
            "openings": await rate(lambda: mpc.output(factor), seconds),
            "transfer": await rate(lambda: mpc.transfer(bytes(TRANSFER_SIZE)), seconds),
        }
        figures["transfer"] *= (len(mpc.parties) - 1) * TRANSFER_SIZE / 1e6
        if mpc.pid == 0:
            print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    mpc.run(main(float(sys.argv[1])))
