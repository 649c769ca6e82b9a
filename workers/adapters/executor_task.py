"""One call that an executor was given, and the jobs of the batch runner that make it.

Between the executor and the workers of a party, which get both by pickle. Nothing is imported here that a child worker
has no use for.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..blocking_session import BlockingSession
    from ..session import Session


@dataclass(frozen=True, slots=True, repr=False)
class Task:
    """`function(session, *args, **kwargs)`, to be called. Its repr has no arguments, which may be secret."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def is_coroutine(self) -> bool:
        """Whether the function is a coroutine function."""
        return inspect.iscoroutinefunction(self.function)


async def run_coroutine(session: Session, task: Task) -> Any:
    """The job for a coroutine function."""
    return await task.function(session, *task.args, **task.kwargs)


def run_plain(session: BlockingSession, task: Task) -> Any:
    """The job for a plain function."""
    return task.function(session, *task.args, **task.kwargs)
