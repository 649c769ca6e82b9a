"""Every way out of a party that was begun leaves no process behind; tests/conftest.py looks for them."""

from __future__ import annotations

import threading

import pytest

from partywire import BlockingParty, PartyConfig
from partywire.engine.child_process import ChildProcess
from partywire.workers.errors import PartyFailed
from partywire.workers.local import make_local_parties


@pytest.fixture
def config() -> PartyConfig:
    """Of a party whose peer never comes."""
    with make_local_parties(2) as local:
        return local.configs[0]


def test_a_thread_that_cannot_be_started_for_the_callback(config: PartyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(PartyFailed, match="no thread can be started for on_event"):
        BlockingParty(config, on_event=print).open()


def test_an_interrupt_while_the_supervisor_ends(config: PartyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    party = BlockingParty(config)
    party.asynchronous._start()

    def wait(_process: ChildProcess, _timeout_s: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ChildProcess, "wait", wait)
    with pytest.raises(KeyboardInterrupt):
        party.asynchronous._end()


def test_an_interrupt_while_the_worker_closes(config: PartyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    party = BlockingParty(config)
    party.asynchronous._start()
    worker = party.worker

    def close() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(worker, "close", close)
        with pytest.raises(KeyboardInterrupt):
            party.asynchronous._end()
    worker.close()
