"""One target under atheris, as a program: `python -m tests.fuzz.atheris_target TARGET [libFuzzer options] [CORPUS]`."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["partywire"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
