"""A service that is told to stop at the worst moment: between the word to run a job and its first instruction; and one
that has lost a peer."""

from __future__ import annotations

import asyncio
import os
import signal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from partywire.workers.errors import PeerAborted
from partywire.workers.http_config import HttpConfig
from partywire.workers.serve import Service
from partywire.workers.serve_book import FAILED, PREPARING, QUEUED, RUNNING, JobEntry
from partywire.workers.serve_jobs import ServedJobs, ServeSettings
from partywire.workers.serve_words import Ended

JOB = "0123456789abcdef"


def service_of(flush: Any) -> Service:
    """Bob's, with a party that does nothing but what `flush` does."""
    worker = SimpleNamespace(flush=flush, links={})
    party = SimpleNamespace(name="bob", names=("alice", "bob"), index=1, worker=worker)
    jobs = ServedJobs("bob", 1, {}, {})
    service = Service(cast("Any", party), HttpConfig(), jobs, ServeSettings(1, 2, 30), b"")
    service._alarm = os.eventfd(0, os.EFD_NONBLOCK)
    return service


def test_a_signal_between_the_word_to_run_a_job_and_its_first_instruction_stops_it() -> None:
    def flush() -> None:  # the last look at descriptors before the job: it takes the alarm
        service._on_signal(signal.SIGTERM, None)
        service._on_alarm()

    service = service_of(flush)
    try:
        service._book.put(JobEntry(JOB, "endless", {}, "alice"))
        for state in (QUEUED, PREPARING, RUNNING):
            service._book.change(JOB, state=state)
        ran: list[object] = []
        service._follower._prepared[JOB] = SimpleNamespace(run=ran.append)
        service._follower.going = JOB
        assert service._run_job() == Ended(JOB, "bob stopped its service")
        assert not ran
        service._stop()
        assert service._book.entries[JOB].state == FAILED
    finally:
        os.close(service._alarm)


def test_a_signal_ends_a_wait_for_a_peer_that_takes_nothing_and_whatever_is_begun_after_it() -> None:
    service = service_of(lambda: None)
    steps = []

    async def wait_for_ever() -> None:
        steps.append("waits")
        loop = asyncio.get_running_loop()
        loop.call_soon(service._on_signal, signal.SIGTERM, None)
        loop.add_reader(service._alarm, service._on_alarm)
        try:
            await asyncio.Event().wait()
        finally:
            loop.remove_reader(service._alarm)

    async def wait_once_more() -> None:
        await asyncio.Event().wait()
        steps.append("went on")

    try:
        with asyncio.Runner() as runner:
            service._until_stopped(runner, wait_for_ever())
            service._until_stopped(runner, wait_once_more())
        assert steps == ["waits"]
    finally:
        os.close(service._alarm)


def test_a_second_signal_does_not_wait_until_the_party_is_closed() -> None:
    service = service_of(lambda: None)
    os.close(service._alarm)

    async def begin(_listener: object) -> None:
        service._on_signal(signal.SIGINT, None)

    async def close() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(asyncio.Event().wait(), 5)  # for a process of ours that answers no more, say

    party = cast("Any", service._party)
    for name in ("watch", "unwatch"):
        setattr(party.worker, name, lambda *_: None)
    party.worker.lost_workers = {}
    party.asynchronous = SimpleNamespace(worker=party.worker, open=lambda: asyncio.sleep(0), close=close)
    service._begin = begin  # type: ignore[method-assign,assignment]
    with asyncio.Runner() as runner, pytest.raises(KeyboardInterrupt):
        service.run(runner, cast("Any", None), print)


def test_a_cause_that_a_peer_told_is_not_shown_as_our_own() -> None:
    service = service_of(lambda: None)
    said: list[str] = []
    service._say = said.append
    try:
        service._lose("alice", PeerAborted("alice", 7, "session 7 lost charlie: our I/O process was killed by SIGKILL"))
        words = "alice says: session 7 lost charlie: our I/O process was killed by SIGKILL"
        assert said == [f"bob cannot serve now: {words}"]
        assert service._cause.endswith(words)
    finally:
        os.close(service._alarm)
