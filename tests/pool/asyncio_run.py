"""Runs a test's coroutine with a deadline, so that whatever hangs fails."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine

DEADLINE_S = 30.0


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Its result, or TimeoutError."""

    async def main() -> Any:
        return await asyncio.wait_for(coroutine, DEADLINE_S)

    return asyncio.run(main())


async def turns(count: int = 5) -> None:
    """Let everything that is ready go on."""
    for _ in range(count):
        await asyncio.sleep(0)
