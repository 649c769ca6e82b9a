"""The program of every engine process: imports the module that its first argument names and runs its `main`.

Between whoever starts or forks a process and a module with a `main`. It spares a process a fifth of the processor time
that starting and ending cost: what is imported is no garbage, so nobody looks for any meanwhile (nor among it later,
where a pass through all of it would hold up messages), and once `main` has returned its process ends without an
interpreter being taken apart. Not for workers: the code of users may count on what an interpreter does at its end.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Never


def main() -> None:
    """Run the module and end the process with 0; an exception of it ends the process as it would any program."""
    run(sys.argv.pop(1))
    leave(0)


def run(name: str) -> None:
    """Import a module and run its `main`."""
    load([name])
    sys.modules[name].main()


def load(names: Iterable[str]) -> None:
    """Import modules, none of which is ever looked through for garbage."""
    gc.disable()
    for name in names:
        importlib.import_module(name)
    gc.freeze()
    gc.enable()


def flush() -> None:
    """Write what standard streams hold back. What nobody takes (of a terminal that was closed, say) is nobody's fault
    here."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError):
                stream.flush()


def leave(code: int) -> Never:
    """End the process, whatever happens, without its interpreter being taken apart."""
    try:
        flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
