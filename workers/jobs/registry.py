"""From the name of a job on the command line to its class, importing only the one that is asked for."""

from __future__ import annotations

from importlib import import_module
from inspect import isabstract
from typing import TYPE_CHECKING, get_args

from partywire.engine.limits import PARTIES_MAX, PARTIES_MIN

from .errors import UnknownJob
from .job import Job, JobOption, OptionKind

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["JOBS", "load_job"]

JOBS = {
    "digits": "partywire.workers.jobs.digits:DigitsJob",
    "iris": "partywire.workers.jobs.iris:IrisJob",
    "sum": "partywire.workers.jobs.sum:SumJob",
}


def load_job(name: str) -> type[Job]:
    """The class of a job by its short name, or of a user's own job as "package.module:Class".

    Raises:
        UnknownJob: no such name, module or class, or the class is not a Job, or declares what cannot be.
    """
    target = JOBS.get(name, name)
    module_name, colon, class_name = target.partition(":")
    if not colon or not module_name or not class_name:
        raise UnknownJob(name, JOBS)
    if module_name.startswith("."):
        raise UnknownJob(name, JOBS, f"there is no module {module_name}")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as exc:
        # A module that exists but fails on an import of its own is the user's bug and is shown as one.
        if exc.name is None or not (module_name == exc.name or module_name.startswith(f"{exc.name}.")):
            raise
        raise UnknownJob(name, JOBS, f"there is no module {module_name}") from exc
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, Job)) or isabstract(found):
        raise UnknownJob(name, JOBS, f"{class_name} in {module_name} is not a subclass of partywire's Job")
    if faults := list(_faults(found)):
        raise UnknownJob(name, JOBS, f"{class_name} in {module_name}: {'; '.join(faults)}")
    return found


def _faults(job: type[Job]) -> Iterable[str]:
    """What is wrong with the attributes that a class of a user declares."""
    for attribute in ("name", "summary"):
        if not isinstance(text := getattr(job, attribute, None), str) or not text:
            yield f"{attribute} must be a text"
    counts = job.parties_range
    if counts is not None and not (isinstance(counts, range) and counts):
        yield "parties_range must be None or a range that is not empty"
        return
    if type(job.parties) is not int or job.parties not in job.counts():
        yield "parties must be a number of parties that it is for"
        return
    least, greatest = min(job.counts()), max(job.counts())
    if least < PARTIES_MIN or greatest > PARTIES_MAX:
        yield f"it must be for {PARTIES_MIN} to {PARTIES_MAX} parties, not for {job.counts_text()}"
    yield from _option_faults(job.options)


def _option_faults(options: object) -> Iterable[str]:
    if not isinstance(options, tuple | list) or not all(isinstance(option, JobOption) for option in options):
        yield "options must be a tuple of JobOption"
        return
    for option in options:
        if not isinstance(option.name, str) or not option.name.replace("-", "_").isidentifier():
            yield f"the name of an option cannot be {option.name!r}"
        elif option.kind not in get_args(OptionKind):
            yield f"the kind of {option.name} must be one of {', '.join(get_args(OptionKind))}"
    names = [option.name for option in options]
    if len(set(names)) < len(names):
        yield "two options have one name"
