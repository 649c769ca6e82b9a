"""The jobs that ship with PartyWire, and the contract for your own."""

from .errors import JobInputError, JobOptionError, UnknownJob
from .job import Job, JobOption, JobReport, JobRunner, resolve_options
from .registry import JOBS, load_job

__all__ = [
    "JOBS",
    "load_job",
    "Job",
    "JobOption",
    "JobReport",
    "JobRunner",
    "resolve_options",
    "JobInputError",
    "JobOptionError",
    "UnknownJob",
]
