"""From the name of a job on the command line to its class, importing only the one that is asked for."""

from __future__ import annotations

from importlib import import_module
from inspect import isabstract

from .errors import UnknownJob
from .job import Job

__all__ = ["JOBS", "load_job"]

JOBS = {
    "digits": "partywire.workers.jobs.digits:DigitsJob",
    "iris": "partywire.workers.jobs.iris:IrisJob",
    "sum": "partywire.workers.jobs.sum:SumJob",
}


def load_job(name: str) -> type[Job]:
    """The class of a job by its short name, or of a user's own job as "package.module:Class".

    Raises:
        UnknownJob: no such name, module or class, or the class is not a Job.
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
    if not hasattr(found, "name") or not hasattr(found, "summary"):
        raise UnknownJob(name, JOBS, f"{class_name} in {module_name} has no name or no summary")
    return found
