"""Forks of a process that has a worker: they have no part in it.

Between `os.fork`, whoever calls it, and the workers of this process. The one invariant: before a fork runs anything of
its own, each of its copies of a worker has let go of what it shares with the parent's.
"""

from __future__ import annotations

import functools
import os
import weakref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .worker import Worker

# Workers of this process that were not closed.
_workers_here: Final[weakref.WeakSet[Worker]] = weakref.WeakSet()


def leave_forks(worker: Worker) -> None:
    """From now on a fork of this process begins with `worker.leave_to_parent()`."""
    _watch_forks()
    _workers_here.add(worker)


@functools.cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    for worker in tuple(_workers_here):
        worker.leave_to_parent()
