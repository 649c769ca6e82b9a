"""The function of a batch's jobs: what it is called, and whether child workers can get it.

Between the user's program and the batch runner. A child worker gets a function as module and name, by pickle.
"""

from __future__ import annotations

import pickle
import sys
from typing import TYPE_CHECKING

from .channel import PICKLE_PROTOCOL

if TYPE_CHECKING:
    from .batch_share import JobFunction


def check_sendable(function: JobFunction) -> None:
    """Find out that child workers cannot get a job before anybody is told of it.

    Raises:
        TypeError: it cannot be pickled.
    """
    sys.modules.setdefault("__mp_main__", sys.modules["__main__"])  # where children find our script's classes
    try:
        pickle.dumps(function, PICKLE_PROTOCOL)
    except Exception as error:
        raise TypeError(
            f"the job {job_name(function)} cannot be sent to the other workers of this party: {error}. "
            "Define it at the top level of a module or script"
        ) from error


def job_name(function: JobFunction) -> str:
    """How the parties name a job to each other: the function's qualified name, whatever was bound to it.

    The module is left out: one party's script may be another party's import.
    """
    while hasattr(function, "func"):
        function = function.func
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else type(function).__qualname__
