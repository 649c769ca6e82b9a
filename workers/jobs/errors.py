"""What can be wrong with a job before any party computes, as types with fields; `__str__` makes the sentence.

    PartyWireError
    ├── UnknownJob       the name on the command line is no job
    ├── JobOptionError   an option has a value that the job cannot take
    └── JobInputError    a party's own data cannot be used, or does not fit the data of the others

Fields name files, options, sizes and bounds, never a value from the data: a party's data is what it keeps secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from partywire.engine.errors import PartyWireError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["JobInputError", "JobOptionError", "UnknownJob"]


class UnknownJob(PartyWireError):
    """Raised when a job is asked for that does not exist, or a "module:Class" that is no job."""

    def __init__(self, name: str, known: Iterable[str], why: str = "") -> None:
        self.name = name
        self.known = tuple(known)
        self.why = why
        super().__init__(name, self.known, why)

    def __str__(self) -> str:
        why = f" ({self.why})" if self.why else ""
        known = ", ".join(self.known)
        return f"there is no job {self.name!r}{why}; the jobs here are: {known}, or module:Class of your own"


class JobOptionError(PartyWireError):
    """Raised when an option of a job is unknown or has a value of the wrong kind or outside its range."""

    def __init__(self, option: str, what: str) -> None:
        super().__init__(option, what)
        self.option = option
        self.what = what

    def __str__(self) -> str:
        return f"--{self.option} {self.what}"


class JobInputError(PartyWireError):
    """Raised when the data of a party cannot be used. `source` is the file, or the name of the data set."""

    def __init__(self, source: str, what: str) -> None:
        super().__init__(source, what)
        self.source = source
        self.what = what

    def __str__(self) -> str:
        return f"{self.source}: {self.what}"
