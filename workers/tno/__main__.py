"""`python -m partywire.workers.tno program.py ...`: a program for tno.mpc.communication 4.x, run on PartyWire.

`-m module ...` runs a module, as of Python itself.
"""

from __future__ import annotations

import os
import runpy
import sys

from . import install


def main(arguments: list[str]) -> None:
    """Run the program that the arguments name."""
    if not arguments or arguments == ["-m"]:
        sys.exit("usage: python -m partywire.workers.tno (program.py | -m module) [argument ...]")
    install()
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    path = arguments[0]
    if not os.path.exists(path):
        sys.exit(f"there is no program {path}")
    sys.argv = arguments
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    runpy.run_path(path, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
