"""The contract between a job and whatever runs it: the command, a test, a user's own script.

A job object lives in the opening process of one party. It loads and checks *this* party's data when it is made, before
any connection exists, so that bad data is one sentence and not a protocol failure at the others. `run` then calls
`runner.map` the same number of times, with the same functions and the same number of inputs, at every party; what the
parties feed in differs, what they do may not depend on secrets.

Nothing here imports numpy, and neither may the module of a job at import: `--help` reads the options of all jobs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from .errors import JobOptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["Job", "JobOption", "JobReport", "JobRunner", "OptionKind", "resolve_options"]

OptionKind = Literal["path", "int", "float", "text"]


@dataclass(frozen=True)
class JobOption:
    """One option of a job, `--name` on the command line and key `name` in the mapping that the job is given.

    `shared` options must be equal at all parties and may be told to them. The others never leave the party.
    """

    name: str
    kind: OptionKind
    default: str | int | float | None
    help: str
    shared: bool = False


@dataclass(frozen=True)
class JobReport:
    """What a party learnt. `result` can be written by orjson, `rows` are (what, value) lines for people.

    `checked` says whether this party compared the result with a plaintext computation: True equal, False not equal,
    None when it does not know the data of the others.
    """

    result: dict[str, object]
    checked: bool | None = None
    rows: list[tuple[str, str]] = field(default_factory=list)


class JobRunner(Protocol):
    """What a job needs of BatchRunner."""

    def map(self, job: Callable[[Any, Any], Any], inputs: Iterable[Any], /) -> list[Any]:
        """Call `job(session, x)` for each input, in lockstep at all parties; results in the order of inputs."""


class Job(ABC):
    """A named computation of `parties` parties. Subclasses declare the class attributes and implement `run`.

    A job for several numbers of parties says which in `parties_range`; `parties` is then the number of a local run that
    is told none.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    parties: ClassVar[int] = 3
    parties_range: ClassVar[range | None] = None
    options: ClassVar[tuple[JobOption, ...]] = ()

    def __init__(self, party_index: int, options: Mapping[str, object]) -> None:
        """Load and check this party's data.

        Raises:
            JobOptionError: an option is unknown, of the wrong kind or out of range.
            JobInputError: this party's data cannot be used.
        """
        greatest = self.counts()[-1] - 1
        if not 0 <= party_index <= greatest:
            raise ValueError(f"{self.name} has parties 0 to {greatest}, not {party_index}")
        self.party_index = party_index
        self.values = resolve_options(self.options, options)

    @classmethod
    def counts(cls) -> range:
        """The numbers of parties that it is for."""
        return range(cls.parties, cls.parties + 1) if cls.parties_range is None else cls.parties_range

    @classmethod
    def counts_text(cls) -> str:
        """The same for people."""
        counts = cls.counts()
        return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"

    @abstractmethod
    def run(self, runner: JobRunner) -> JobReport:
        """Compute together with the other parties. Blocks until all of them have the result."""

    @classmethod
    def check(cls, options: Mapping[str, object], result: Mapping[str, object]) -> bool | None:
        """Compare `result` with the plaintext answer, by somebody who was given the options of all parties.

        Only the launcher of a local run is such a somebody. None: this job has no plaintext answer.
        """
        del options, result
        return None


def resolve_options(declared: Iterable[JobOption], given: Mapping[str, object]) -> dict[str, Any]:
    """The value of every declared option: the given one if there is one that is not None, else its default.

    Raises:
        JobOptionError: `given` has a name that is not declared, or a value of the wrong kind.
    """
    by_name = {option.name: option for option in declared}
    for name in given:
        if name not in by_name:
            raise JobOptionError(name, f"is not an option of this job; it has: {', '.join(by_name) or 'none'}")
    return {
        name: option.default if given.get(name) is None else _converted(option, given[name])
        for name, option in by_name.items()
    }


def _converted(option: JobOption, value: object) -> str | int | float:
    if isinstance(value, bool):
        raise JobOptionError(option.name, f"must be {_EXPECTED[option.kind]}")
    try:
        match option.kind:
            case "int" if isinstance(value, int | str):
                return int(value)
            case "float" if isinstance(value, int | float | str):
                return float(value)
            case "path" | "text" if isinstance(value, str) or hasattr(value, "__fspath__"):
                return str(value)
    except ValueError:
        pass
    raise JobOptionError(option.name, f"must be {_EXPECTED[option.kind]}")


_EXPECTED: dict[OptionKind, str] = {"path": "a path", "int": "a whole number", "float": "a number", "text": "a text"}
