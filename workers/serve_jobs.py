"""Which jobs a service runs, what a client may set of them, and how their results look.

Between the configuration, the jobs and the service. The one invariant: a job is loaded by a name that this party's own
configuration lists, never by one that came over a wire.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import orjson

from .exit_code import UsageMistake
from .jobs import load_job

if TYPE_CHECKING:
    from .config import PartyConfig
    from .http_config import HttpConfig
    from .jobs import Job, JobOption, JobReport


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
