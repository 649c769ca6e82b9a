"""One party's run of one job, from its order to its last event.

Between the launcher (which renders events) and Party, BatchRunner and Job. The one invariant: `run_order` never raises;
whatever happens becomes the one `Finished` or `Failed` that ends the run, after the links are closed.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING

from partywire.engine.rendezvous import check_fields_equal

from .batch import BatchRunner
from .blocking_party import BlockingParty
from .config import PartyConfig, load_config
from .exit_code import UsageMistake, failure
from .jobs import load_job
from .run_event import Connected, Failed, Finished, Progressed, Waiting, encode_event

if TYPE_CHECKING:
    import socket

    from .batch import BatchProgress
    from .jobs import Job, JobReport
    from .launcher import Order
    from .run_event import EventSink


def run_order(order: Order, listener: socket.socket | None, sink: EventSink) -> Finished | Failed:
    """Run the job to its end and return its last event, which has not been given to `sink`."""
    try:
        config = config_of(order)
        job = job_of(order, config)
        report = compute(order, config, job, listener, sink)
        event = Finished(
            party=config.name,
            clock_s=time.monotonic(),
            result=report.result,
            checked=report.checked,
            rows=[list(row) for row in report.rows],
        )
        encode_event(event)  # a result that cannot be shown is the job's failure and not the display's
        return event
    except (Exception, KeyboardInterrupt) as error:
        return failure(order.party, error)
    finally:
        if listener is not None:
            listener.close()


def config_of(order: Order) -> PartyConfig:
    """The party's configuration, with what the command line puts above it.

    Raises:
        ConfigError: the file cannot be used.
    """
    config = order.config if isinstance(order.config, PartyConfig) else load_config(order.config)
    return config if order.workers is None else dataclasses.replace(config, workers=order.workers)


def job_of(order: Order, config: PartyConfig) -> Job:
    """The job with this party's own data loaded, before any connection exists.

    Raises:
        UnknownJob, JobOptionError, JobInputError: see there.
        UsageMistake: the job is for another number of parties.
    """
    job_class = load_job(order.job)
    if len(config.parties) not in job_class.counts():
        raise UsageMistake(
            f"{job_class.name} is a job for {job_class.counts_text()} parties, "
            f"but {config.path or 'the configuration'} lists {len(config.parties)}"
        )
    return job_class(list(config.parties).index(config.name), order.options)


def compute(order: Order, config: PartyConfig, job: Job, listener: socket.socket | None, sink: EventSink) -> JobReport:
    """Open the party, agree with the others on what is run, run it, close."""
    counted = _Counted()

    def on_progress(progress: BatchProgress) -> None:
        sink(counted.event(config.name, progress))

    with BlockingParty(
        config, listener=listener, on_progress=lambda peer, cause: sink(Waiting(config.name, peer, cause))
    ) as party:
        sink(Connected(config.name, time.monotonic()))
        shared = shared_fields(order, job)
        check_fields_equal(0, shared, party.rendezvous("run", shared), shared)
        runner = BatchRunner(
            party,
            sessions=order.sessions,
            on_progress=on_progress,
            retries=order.retries,
            retry_timeout_s=order.retry_timeout_s,
        )
        return job.run(runner)


def shared_fields(order: Order, job: Job) -> dict[str, object]:
    """What must be the same at all parties and may be told to them, so that a difference has a name."""
    shared = {f"--{option.name}": job.values[option.name] for option in job.options if option.shared}
    return {"job": order.job, "--sessions": order.sessions, "--retries": order.retries, **shared}


class _Counted:
    """Sums the progress of the batches of one run: a job may map several times."""

    def __init__(self) -> None:
        self._before: Progressed | None = None  # totals of the batches that ended
        self._latest: Progressed | None = None

    def event(self, party: str, progress: BatchProgress) -> Progressed:
        if self._latest is not None and progress.jobs_done == 0 and progress.is_start:
            self._before = self._latest
        before = self._before
        self._latest = Progressed(
            party=party,
            clock_s=time.monotonic(),
            jobs_done=progress.jobs_done + (before.jobs_done if before else 0),
            jobs_total=progress.jobs_total + (before.jobs_total if before else 0),
            sessions=max(progress.sessions, before.sessions if before else 0),
            rounds=progress.rounds + (before.rounds if before else 0),
            bytes_sent=progress.bytes_sent + (before.bytes_sent if before else 0),
            bytes_received=progress.bytes_received + (before.bytes_received if before else 0),
            retries=progress.retries + (before.retries if before else 0),
        )
        return self._latest
