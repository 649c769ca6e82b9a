"""The compiled core, if it is there and wanted: the extension module partywire._core.

Between the classes that exist twice, in C and in plain Python, and whoever chooses. Both work on the same layout and
raise the same errors, and their ends may meet in one ring when they use one fence (fence.py).

PARTYWIRE_CORE says what is wanted: `auto` (the default) takes the compiled core where it was built, `pure` never does,
`compiled` makes its absence an error.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import ModuleType

VARIABLE: Final = "PARTYWIRE_CORE"
CHOICES: Final = ("auto", "pure", "compiled")


def load(choice: str) -> ModuleType | None:
    """The extension module, or None where plain Python is to be used.

    Raises:
        ImportError: `compiled` was asked for and cannot be had.
        ValueError: there is no such choice.
    """
    if choice not in CHOICES:
        raise ValueError(f"{VARIABLE} is {choice!r}; unset it or use one of {', '.join(CHOICES)}")
    if choice == "pure":
        return None
    try:
        return importlib.import_module("partywire._core")
    except ImportError as error:
        if choice == "auto":
            return None
        raise ImportError(
            f"{VARIABLE} asks for the compiled core, which cannot be loaded ({error}); "
            f"install a C compiler and partywire again, or unset {VARIABLE}"
        ) from error


core: Final = load(os.environ.get(VARIABLE) or "auto")
"""The compiled core of this process, or None."""
