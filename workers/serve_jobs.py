"""Which jobs a service runs, what a client may set of them, and how their results look.

Between the configuration, the jobs and the service. The one invariant: a job is loaded by a name that this party's own
configuration lists, never by one that came over a wire.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from partywire.engine.errors import PartyWireError

from .exit_code import UsageMistake
from .jobs import load_job, resolve_options
from .serve_words import sentence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .config import PartyConfig
    from .http_config import HttpConfig
    from .jobs import Job, JobOption, JobReport
    from .serve_book import JobEntry


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How a service runs jobs: what `partywire serve` was told. The same at all parties but for the last."""

    sessions: int
    """Per worker."""
    retries: int
    """How often jobs run again, inside a run and of a run as a whole."""
    retry_timeout_s: float
    """How long a link may be away before the jobs that wait for it fail."""


class ServedJobs:
    """The jobs of one party's service, with its own options for them."""

    def __init__(self, party: str, index: int, classes: Mapping[str, type[Job]], options: Mapping[str, Any]) -> None:
        """`options`: http.options, by job."""
        self.classes: Final = dict(classes)
        self._party = party
        self._index = index
        self._options = options

    def refusal(self, name: str, options: Mapping[str, Any]) -> str:
        """Why a job with these shared options cannot run here, or nothing."""
        job = self.classes.get(name)
        if job is None:
            return f"{self._party} does not run this job; its http.jobs do not list it"
        try:
            resolve_options(shared_options(job), options)
        except PartyWireError as error:
            return sentence(f"{self._party} cannot run it: {error}")
        return ""

    def prepare(self, entry: JobEntry) -> Job:
        """The job with this party's own data loaded.

        Raises:
            Exception: whatever the job raises when they cannot be.
        """
        return self.classes[entry.job](self._index, {**self._options.get(entry.job, {}), **entry.options})


def jobs_of(config: PartyConfig, http: HttpConfig) -> dict[str, type[Job]]:
    """The classes of the allowed jobs, with this party's own options for them checked by name.

    Raises:
        UnknownJob: one does not exist.
        UsageMistake: one is for another number of parties, or an option of it is not this party's own.
    """

    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a module beside the user, as with `partywire run`
    where = config.path or "the configuration"
    jobs: dict[str, type[Job]] = {}
    for name in http.jobs:
        job = jobs[name] = load_job(name)
        if (why := refusal_of(job, len(config.parties))) is not None:
            raise UsageMistake(f"{where}: http.jobs: {why}")
        own = {option.name for option in job.options if not option.shared}
        for option in http.options.get(name, {}):
            if option not in own:
                known = ", ".join(sorted(own)) or "none"
                raise UsageMistake(f"{where}: http.options.{name}: {option} is none of a party's own options: {known}")
    return jobs


def refusal_of(job: type[Job], parties: int) -> str | None:
    """Why a job is not for this many parties, or None if it is."""
    if parties in job.counts():
        return None
    return f"{job.name} is a job for {job.counts_text()} parties, not {parties}"


def shared_options(job: type[Job]) -> tuple[JobOption, ...]:
    """What a client may set: the options that all parties share. Paths are a party's own business in any case."""
    return tuple(option for option in job.options if option.shared and option.kind != "path")


def encode_result(report: JobReport) -> bytes:
    """What GET /jobs/ID/result answers.

    Raises:
        TypeError: the result holds something that JSON has no word for.
    """
    document = {"result": report.result, "checked": report.checked, "rows": report.rows}
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
